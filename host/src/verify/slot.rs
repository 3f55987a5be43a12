//! [`Slot`]: what one key should hold: the last word of each partition that wrote it, almost always of one.
//!
//! Partitions have no order among each other. So where several write a key, the last word of each of them is possible,
//! and the table has to hold one of these; a guard says which.

use std::cmp::Ordering;

use super::At;
use super::image::{Clock, Hashes, Image, Life, Likeness};
use crate::record::Plain;

/// How sure a word is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sure {
    /// The record was processed so.
    Yes,
    /// It may have been: a dead letter that is gone may have been retried.
    Maybe,
}

/// The last word of one partition about a key.
#[derive(Clone, Debug)]
pub(super) struct Word {
    pub(super) at: At,
    /// When it was written, microseconds.
    pub(super) written: i64,
    pub(super) sure: Sure,
    /// A delete.
    pub(super) gone: bool,
    pub(super) guard: Option<Box<Plain>>,
    pub(super) image: Image,
}

/// All of them; one without an allocation.
#[derive(Clone, Debug)]
pub(super) enum Words {
    One(Word),
    Many(Vec<Word>),
}

/// What the rows of a table are compared by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'a> {
    pub(super) hashes: &'a Hashes,
    /// Guard column (index).
    pub(super) guard: Option<usize>,
    /// Whether there are earlier records that are not known.
    pub(super) past: bool,
    pub(super) clock: Clock,
}

/// What a key should hold.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) words: Words,
    /// Whether the table has the key.
    pub(super) seen: bool,
}

/// How what was found, a row or none, compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judged {
    Equal,
    /// Nobody knows, because some of it may have expired.
    Expired,
    /// Nobody knows: partitions that have no order wrote parts of it, or a letter that is gone did.
    Shared,
    /// Nobody knows: what records that are not there any more wrote decides.
    Past,
    /// It should be another row.
    Different(At),
    /// It should not be there.
    Extra(At),
    /// It should be there.
    Missing(At),
}

impl Slot {
    pub(super) fn new(word: Word) -> Self {
        Self {
            words: Words::One(word),
            seen: false,
        }
    }

    pub(super) fn words(&self) -> &[Word] {
        match &self.words {
            Words::One(word) => std::slice::from_ref(word),
            Words::Many(words) => words,
        }
    }

    fn words_mut(&mut self) -> &mut [Word] {
        match &mut self.words {
            Words::One(word) => std::slice::from_mut(word),
            Words::Many(words) => words,
        }
    }

    /// The word of a partition, to be overwritten.
    pub(super) fn of(&mut self, partition: i32) -> Option<&mut Word> {
        let mut words = self.words_mut().iter_mut();
        words.find(|word| word.at.partition == partition && word.sure == Sure::Yes)
    }

    pub(super) fn push(&mut self, word: Word) {
        let words = std::mem::replace(&mut self.words, Words::Many(Vec::new()));
        let mut all = match words {
            Words::One(first) => vec![first],
            Words::Many(all) => all,
        };
        all.push(word);
        self.words = Words::Many(all);
    }

    /// Compares a row, or the lack of one, with what is possible.
    pub(super) fn judge(&self, found: Option<&[Plain]>, rules: &Rules<'_>) -> Judged {
        let words = self.words();
        let greatest = greatest(words);
        let possible: Vec<&Word> = words
            .iter()
            .filter(|word| match (word.guard.as_deref(), greatest) {
                (Some(own), Some(greatest)) => own.order(greatest) != Ordering::Less,
                _ => true,
            })
            .collect();
        let mut judged = possible.iter().map(|word| word.judge(found, rules));
        let unproven = words.iter().all(|word| word.sure == Sure::Maybe);
        if judged.clone().any(|judged| judged == Judged::Equal) || (found.is_none() && unproven) {
            return Judged::Equal;
        }
        if let Some(unsure) = judged.find(|judged| matches!(judged, Judged::Expired | Judged::Past))
        {
            return unsure;
        }
        let cells = |word: &&Word| matches!(word.image, Image::Cells(_));
        if possible.len() > 1 && possible.iter().any(cells) {
            return Judged::Shared;
        }
        let found_guard = rules.guard.and_then(|at| Some(&found?[at]));
        match (found_guard, greatest) {
            (Some(found), Some(greatest))
                if rules.past && found.order(greatest) == Ordering::Greater =>
            {
                Judged::Past
            }
            _ => differs(&possible, found, rules.clock),
        }
    }
}

/// What is wrong, and for people the record that should have had the last word, or may have.
fn differs(possible: &[&Word], found: Option<&[Plain]>, clock: Clock) -> Judged {
    let gone = |word: &&Word| word.gone || clock.life(word.written) == Life::Expired;
    let mut sure = possible
        .iter()
        .copied()
        .filter(|word| word.sure == Sure::Yes);
    let mut all = sure.clone().chain(possible.iter().copied());
    let at = all.next().map_or(NOBODY, |word| word.at);
    match found {
        None => Judged::Missing(at),
        Some(_) if sure.all(|word| gone(&word)) => Judged::Extra(at),
        Some(_) => Judged::Different(at),
    }
}

/// A slot has a word.
const NOBODY: At = At {
    partition: -1,
    offset: -1,
};

/// The greatest guard of what is sure.
fn greatest(words: &[Word]) -> Option<&Plain> {
    let sure = words.iter().filter(|word| word.sure == Sure::Yes);
    let guards = sure.filter_map(|word| word.guard.as_deref());
    guards.reduce(|one, other| match one.order(other) {
        Ordering::Less => other,
        _ => one,
    })
}

impl Word {
    /// As if it were the only one.
    fn judge(&self, found: Option<&[Plain]>, rules: &Rules<'_>) -> Judged {
        let Some(found) = found else {
            return match rules.clock.life(self.written) {
                _ if self.gone => Judged::Equal,
                Life::Alive => Judged::Missing(self.at),
                Life::Expiring | Life::Expired => Judged::Expired,
            };
        };
        let life = rules.clock.life(self.written);
        if self.gone || life == Life::Expired {
            return Judged::Extra(self.at);
        }
        match self
            .image
            .likeness(rules.hashes, found, rules.past, rules.clock)
        {
            Likeness::Same => Judged::Equal,
            Likeness::Expiring => Judged::Expired,
            Likeness::Past => Judged::Past,
            Likeness::Other => Judged::Different(self.at),
        }
    }
}
