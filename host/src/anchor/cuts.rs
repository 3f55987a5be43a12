//! Lists of cuts: which release processes an offset, and how an upgrade changes the list (delivery rule 4,
//! explored by the project's version-pinning model). Pure.
//!
//! A list is kept in the order in which upgrades were asked for. The last *listed* cut at or below an offset
//! decides, so an earlier upgrade whose cut lies above a later one's never comes back into force below it.

use super::{Cut, Order};

/// The release that processes `offset`; `None` where no cut lies at or below it.
#[must_use]
pub fn release_at(cuts: &[Cut], offset: i64) -> Option<&str> {
    Some(&deciding(cuts, offset)?.release)
}

/// The cut that says which release processes `offset`.
#[must_use]
pub fn deciding(cuts: &[Cut], offset: i64) -> Option<&Cut> {
    cuts.iter().rev().find(|cut| cut.at <= offset)
}

/// What was asked for last: it processes everything above all cuts.
#[must_use]
pub fn newest(cuts: &[Cut]) -> Option<&Cut> {
    cuts.last()
}

/// What a deployment asks of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asks {
    /// Nothing: the list says so already, or a later deployment has asked.
    Nothing,
    /// Another list: its newest release is asked for again by a later deployment, and now says by which. Otherwise a
    /// host that has not read that deployment could bring back what was deployed in between.
    Noted(Vec<Cut>),
    /// A cut.
    Cut,
}

/// What the deployment `order` of a release asks of a list.
#[must_use]
pub fn asks(cuts: &[Cut], release: &str, order: &Order) -> Asks {
    let Some(newest) = newest(cuts) else {
        return Asks::Cut;
    };
    if order.is_before(&newest.order) {
        return Asks::Nothing;
    }
    if newest.release != release {
        return Asks::Cut;
    }
    if order.is_unknown() || *order == newest.order {
        return Asks::Nothing;
    }
    let mut list = cuts.to_vec();
    if let Some(newest) = list.last_mut() {
        newest.order = order.clone();
    }
    Asks::Noted(list)
}

/// The first offset above `offset` that another release processes.
#[must_use]
pub fn next_change(cuts: &[Cut], offset: i64) -> Option<i64> {
    let here = release_at(cuts, offset);
    let mut above: Vec<i64> = cuts
        .iter()
        .map(|cut| cut.at)
        .filter(|at| *at > offset)
        .collect();
    above.sort_unstable();
    above.into_iter().find(|at| release_at(cuts, *at) != here)
}

/// The list after an upgrade, without the cuts that can decide nothing any more at or above `next`.
#[must_use]
pub fn add(cuts: &[Cut], next: i64, cut: Cut) -> Vec<Cut> {
    let mut list = cuts.to_vec();
    list.push(cut);
    prune(&mut list, next);
    list
}

/// The list after the grant was lowered to `next`: cuts that waited above it take effect there.
#[must_use]
pub fn lower(cuts: &[Cut], next: i64) -> Vec<Cut> {
    let mut list = cuts.to_vec();
    for cut in &mut list {
        cut.at = cut.at.min(next);
    }
    prune(&mut list, next);
    list
}

/// The list as an anchor keeps it: a JSON array of `{"at": offset, "release": "…"}` in listing order.
#[must_use]
pub fn encode(cuts: &[Cut]) -> String {
    serde_json::to_string(cuts).expect("numbers and texts in an array are always JSON")
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// What is wrong with the text, as a fragment for a person: the row was changed by hand or by a newer host.
pub fn decode(text: &str) -> Result<Vec<Cut>, String> {
    serde_json::from_str(text).map_err(|error| format!("cuts {text:?} do not parse: {error}"))
}

/// Drops what decides no offset at or above `next`: everything listed before the last cut at or below `next`.
fn prune(cuts: &mut Vec<Cut>, next: i64) {
    if let Some(deciding) = cuts.iter().rposition(|cut| cut.at <= next) {
        cuts.drain(..deciding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(cuts: &[(i64, &str)]) -> Vec<Cut> {
        cuts.iter()
            .map(|(at, release)| Cut::new(*at, (*release).to_owned()))
            .collect()
    }

    #[test]
    fn the_last_listed_cut_at_or_below_decides() {
        let cuts = list(&[(0, "a"), (50, "b"), (20, "c")]);
        assert_eq!(release_at(&cuts, -1), None);
        assert_eq!(release_at(&cuts, 19), Some("a"));
        assert_eq!(release_at(&cuts, 20), Some("c"));
        assert_eq!(
            release_at(&cuts, 70),
            Some("c"),
            "listed later, so b never comes back"
        );
        assert_eq!(deciding(&cuts, 70).map(|cut| cut.at), Some(20));
        assert_eq!(next_change(&cuts, 0), Some(20));
        assert_eq!(next_change(&cuts, 20), None);
        assert_eq!(newest(&cuts).map(|cut| cut.release.as_str()), Some("c"));
    }

    #[test]
    fn a_release_asked_for_again_is_noted_and_what_came_before_stays_away() {
        let order = |revision| Order {
            log: "l".to_owned(),
            revision,
        };
        let cut = |release: &str, revision| Cut {
            order: order(revision),
            ..Cut::new(0, release)
        };
        // a, b, and back to a: an owner that saw only the last of them.
        let cuts = [cut("a", 1)];
        assert_eq!(asks(&cuts, "a", &order(1)), Asks::Nothing);
        assert_eq!(asks(&cuts, "b", &order(2)), Asks::Cut);
        let noted = vec![cut("a", 3)];
        assert_eq!(asks(&cuts, "a", &order(3)), Asks::Noted(noted.clone()));
        // A host that has read as far as b.
        assert_eq!(asks(&noted, "b", &order(2)), Asks::Nothing);
        assert_eq!(asks(&noted, "a", &order(2)), Asks::Nothing);
        assert_eq!(asks(&noted, "c", &order(4)), Asks::Cut);
        // Without a log to compare by.
        assert_eq!(asks(&noted, "a", &Order::default()), Asks::Nothing);
        assert_eq!(asks(&noted, "b", &Order::default()), Asks::Cut);
        assert_eq!(asks(&[], "a", &order(1)), Asks::Cut);
        // Another log: what its numbers mean starts anew.
        let other = Order {
            log: "m".to_owned(),
            revision: 1,
        };
        let Asks::Noted(list) = asks(&noted, "a", &other) else {
            panic!("the deployment of another log is not noted");
        };
        assert_eq!((list[0].at, &list[0].order), (0, &other));
    }

    #[test]
    fn a_list_is_stored_in_order_and_read_back() {
        let cuts = list(&[(0, "a"), (i64::MAX, "b"), (20, "quote\"")]);
        assert_eq!(decode(&encode(&cuts)), Ok(cuts));
        assert_eq!(encode(&[]), "[]");
        assert_eq!(
            encode(&list(&[(7, "a")])),
            r#"[{"at":7,"release":"a"}]"#,
            "what rows hold already"
        );
        for broken in ["", "null", "{}", "[{}]", r#"[{"at":1.5,"release":"a"}]"#] {
            let error = decode(broken).expect_err("not a list of cuts");
            assert!(error.contains(&format!("{broken:?}")), "{error}");
        }
    }

    #[test]
    fn an_upgrade_asked_for_twice_changes_once() {
        let cuts = list(&[(0, "a"), (50, "b"), (50, "a")]);
        assert_eq!(next_change(&cuts, 10), None, "back to a before b began");
    }

    #[test]
    fn lowering_brings_what_waited_into_force() {
        let cuts = list(&[(0, "a"), (50, "b"), (60, "c")]);
        assert_eq!(lower(&cuts, 40), list(&[(40, "c")]));
        assert_eq!(lower(&cuts, 55), list(&[(55, "c")]));
    }

    #[test]
    fn what_can_decide_nothing_any_more_is_dropped() {
        let cuts = add(
            &list(&[(0, "a"), (10, "b"), (50, "c")]),
            20,
            Cut::new(60, "d"),
        );
        assert_eq!(cuts, list(&[(10, "b"), (50, "c"), (60, "d")]));
        assert_eq!(add(&cuts, 60, Cut::new(60, "e")), list(&[(60, "e")]));
    }

    #[test]
    fn pruning_changes_no_decision() {
        let releases = ["a", "b", "c", "d"];
        for seed in 0_u64..2000 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut dice = |sides: i64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                i64::try_from(state % sides.unsigned_abs()).unwrap_or(0)
            };
            let cuts: Vec<Cut> = (0..6)
                .map(|index| {
                    Cut::new(
                        if index == 0 { 0 } else { dice(30) },
                        releases[usize::try_from(dice(4)).unwrap_or(0)].to_owned(),
                    )
                })
                .collect();
            let next = dice(30);
            let mut pruned = cuts.clone();
            prune(&mut pruned, next);
            for offset in next..40 {
                assert_eq!(
                    release_at(&pruned, offset),
                    release_at(&cuts, offset),
                    "{cuts:?}"
                );
                assert_eq!(
                    next_change(&pruned, offset),
                    next_change(&cuts, offset),
                    "{cuts:?}"
                );
            }
        }
    }
}
