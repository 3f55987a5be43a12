//! [`Store`]: everything the fakes were given, and the scripts they follow. Anchors and sinks of all hosts of a test
//! share one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use super::late::{Late, LatePin};
use super::script::{Broken, Fault};

/// Everything the fakes were given.
#[derive(Debug, Default)]
pub(in super::super) struct Store {
    /// Offsets of the rows of the append table, in commit order.
    pub(in super::super) here: Vec<i64>,
    /// Dead letters in commit order.
    pub(in super::super) dead: Vec<(i64, String)>,
    /// The keyed table written ahead: stamp and offset by key.
    pub(in super::super) ahead: BTreeMap<i64, (i64, i64)>,
    /// Stamps a row of an offset was sent with.
    pub(in super::super) stamps: BTreeMap<i64, BTreeSet<i64>>,
    /// Partitions let go of.
    pub(in super::super) released: Vec<i32>,
    /// Committed ranges.
    pub(in super::super) ranges: Vec<(i64, i64)>,
    /// The same with the release each was committed by: (from, to, release).
    pub(in super::super) committed: Vec<(i64, i64, i64)>,
    /// Releases by offset whose rows or dead letters were committed, or sent ahead by any attempt.
    pub(in super::super) wrote: BTreeMap<i64, BTreeSet<i64>>,
    pub(in super::super) hlc: i64,
    /// Greatest stored reservation.
    pub(in super::super) reserved: i64,
    /// The reservation stored now, by partition.
    pub(super) current: BTreeMap<i32, i64>,
    /// Rules that were broken.
    pub(in super::super) violations: Vec<String>,
    pub(in super::super) claims: usize,
    pub(in super::super) attempts: usize,
    pub(in super::super) settles: usize,
    pub(in super::super) pins: usize,
    /// Script of the anchor's commits; empty: no fault.
    pub(in super::super) faults: VecDeque<Fault>,
    /// Script of its grants.
    pub(in super::super) grants: VecDeque<Fault>,
    /// Script of settles.
    pub(in super::super) settle_faults: VecDeque<Fault>,
    /// Offsets refused by the database.
    pub(in super::super) refused: BTreeSet<i64>,
    /// Offsets whose dead letters are refused too.
    pub(in super::super) refused_dead: BTreeSet<i64>,
    /// Offsets that roll a flight back each time; with whether their error is blamed on the outside.
    pub(in super::super) stubborn: BTreeMap<i64, bool>,
    /// Partitions whose commits wait.
    pub(in super::super) held: BTreeSet<i32>,
    /// The anchor does not answer claims.
    pub(in super::super) away: bool,
    pub(in super::super) broken: Broken,
    /// Writes that arrive with the next one although they failed.
    pub(super) late_writes: Vec<(i64, i64, i64)>,
    pub(in super::super) delay_writes: bool,
    /// Sinks are not reached.
    pub(in super::super) sink_away: bool,
    /// What is late arrives before the next claim, or after it.
    pub(in super::super) late_first: bool,
    pub(super) late: Vec<Late>,
    pub(super) late_pins: Vec<LatePin>,
    /// Writes so far, where they are stamped by that.
    pub(super) sent: i64,
    /// What was not known last: a pin (true), something else (false).
    pub(super) unknown: Option<bool>,
}

pub(in super::super) type Shared = Arc<Mutex<Store>>;

impl Store {
    pub(super) fn apply(&mut self, key: i64, stamp: i64, offset: i64) {
        let newer = self
            .ahead
            .get(&key)
            .is_none_or(|(known, _)| *known <= stamp);
        if newer || self.broken == Broken::Stamps {
            self.ahead.insert(key, (stamp, offset));
        }
    }

    /// What is wrong with the keyed table, whose fold is `keyed`.
    pub(in super::super) fn wrong_ahead(&self, keyed: &BTreeMap<i64, i64>) -> Vec<String> {
        let mut wrong = Vec::new();
        let found = self.ahead.iter().map(|(key, (_, offset))| (*key, *offset));
        let found: BTreeMap<i64, i64> = found.collect();
        if *keyed != found {
            wrong.push(format!("keyed table is {found:?}, the fold is {keyed:?}"));
        }
        if let Some(twice) = self.stamps.iter().find(|(_, stamps)| stamps.len() > 1) {
            wrong.push(format!("stamps depend on the attempt: {twice:?}"));
        }
        wrong
    }

    /// Requests of ended owners arrive.
    pub(in super::super) fn late_writes_arrive(&mut self) {
        for (key, stamp, offset) in std::mem::take(&mut self.late_writes) {
            self.apply(key, stamp, offset);
        }
    }
}
