//! The lists of cuts that a row has had, made and read by the product's own [`cuts`]; a state knows one by its number.

use std::cell::RefCell;

use super::Rules;
use crate::anchor::{Cut, Order, cuts};

/// A list of cuts, by its index in [`Lists`].
pub(super) type List = u16;

pub(super) struct Lists {
    rules: Rules,
    lists: RefCell<Vec<Vec<Cut>>>,
}

/// What a revision asks of a list, by the model's own lists.
pub(super) enum Asks {
    Nothing,
    Noted(List),
    Cut,
}

impl Lists {
    /// The list that a pipeline begins with, alone: its number is 0.
    pub(super) fn new(rules: Rules) -> Self {
        let first = vec![cut(&rules, 0, 1)];
        Self {
            rules,
            lists: RefCell::new(vec![first]),
        }
    }

    fn number_of(&self, make: impl FnOnce(&[Vec<Cut>]) -> Vec<Cut>) -> List {
        let mut lists = self.lists.borrow_mut();
        let made = make(&lists);
        let known = lists.iter().position(|list| *list == made);
        let at = known.unwrap_or_else(|| {
            lists.push(made);
            lists.len() - 1
        });
        List::try_from(at).expect("few lists exist")
    }

    pub(super) fn added(&self, list: List, next: i8, at: i8, revision: u8) -> List {
        self.number_of(|lists| {
            let cut = cut(&self.rules, at, revision);
            let list = &lists[usize::from(list)];
            if self.rules.last_listed {
                return cuts::add(list, next.into(), cut);
            }
            // Nothing is dropped where another cut than the last listed one may decide.
            let mut list = list.clone();
            list.push(cut);
            list
        })
    }

    /// What a revision asks of a list.
    pub(super) fn asks(&self, list: List, revision: u8) -> Asks {
        let Cut { release, order, .. } = cut(&self.rules, 0, revision);
        let lists = self.lists.borrow();
        let list = &lists[usize::from(list)];
        let asks = if self.rules.ordered {
            cuts::asks(list, &release, &order)
        } else if cuts::newest(list).is_some_and(|newest| newest.release == release) {
            cuts::Asks::Nothing
        } else {
            cuts::Asks::Cut
        };
        drop(lists);
        match asks {
            cuts::Asks::Cut => Asks::Cut,
            cuts::Asks::Noted(noted) if self.rules.noted => Asks::Noted(self.number_of(|_| noted)),
            cuts::Asks::Nothing | cuts::Asks::Noted(_) => Asks::Nothing,
        }
    }

    pub(super) fn lowered(&self, list: List, next: i8) -> List {
        if !self.rules.lower_cuts {
            return list;
        }
        self.number_of(|lists| cuts::lower(&lists[usize::from(list)], next.into()))
    }

    pub(super) fn release(&self, list: List, offset: i8) -> u8 {
        let lists = self.lists.borrow();
        let list = &lists[usize::from(list)];
        let release = if self.rules.last_listed {
            cuts::release_at(list, offset.into())
        } else {
            let below = list.iter().filter(|cut| cut.at <= i64::from(offset));
            let greatest = below.max_by_key(|cut| (cut.at, cut.release.clone()));
            greatest.map(|cut| cut.release.as_str())
        };
        release.map_or(1, number)
    }

    /// Whether `list` brings another release than `stored` has, for a revision before what was processed under.
    pub(super) fn is_late(&self, stored: List, list: List, under: u8) -> bool {
        let lists = self.lists.borrow();
        let newest = |list: List| cuts::newest(&lists[usize::from(list)]);
        let (stored, newest) = (newest(stored), newest(list));
        newest.is_some_and(|newest| {
            let other = stored.is_none_or(|stored| stored.release != newest.release);
            other && newest.order.revision < under.into()
        })
    }
}

/// The cut that a revision makes at an offset.
fn cut(rules: &Rules, at: i8, revision: u8) -> Cut {
    let release = rules.deployments[usize::from(revision) - 1];
    Cut {
        at: at.into(),
        release: release.to_string(),
        order: Order {
            log: "log".to_owned(),
            revision: revision.into(),
        },
    }
}

fn number(release: &str) -> u8 {
    release.parse().expect("releases are numbers here")
}
