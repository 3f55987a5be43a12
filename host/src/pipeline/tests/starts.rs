//! Where a pipeline starts (delivery rule 7), explored exhaustively: two hosts that start, stop and die between any two
//! steps, records and partitions that are added, positions that go missing or back, and a consumer group that hears of
//! them late, in any order, or not at all.

mod protocol;

use protocol::{Bad, Goal, Missing, RULES, Rules, Starting, Witness};

use crate::anchor::model_tests::explore::{Verdict, explore};
use crate::manifest::Start;

fn explored(name: &str, rules: Rules) -> Verdict<Bad, Goal> {
    explore(name, &Starting::new(rules), &[Goal::Through]).0
}

#[test]
fn every_rule_kept() {
    for start in [Start::Earliest, Start::Latest] {
        assert_eq!(explored("S0", Rules { start, ..RULES }), Verdict::Safe);
        let missing = Missing::First;
        let stopped = Rules {
            start,
            missing,
            ..RULES
        };
        assert_eq!(explored("S0b", stopped), Verdict::Safe);
    }
}

#[test]
fn positions_are_stored_before_the_first_fetch() {
    let late = Rules {
        stores_first: false,
        witness: Witness::None,
        ..RULES
    };
    assert_eq!(explored("S1", late), Verdict::Violated(Bad::Lost));
}

#[test]
fn partitions_that_are_added_start_at_zero() {
    let latest = Rules {
        added_at_zero: false,
        ..RULES
    };
    assert_eq!(explored("S2", latest), Verdict::Violated(Bad::Lost));
}

#[test]
fn a_position_that_is_gone_is_no_first_start() {
    let guesses = |start| Rules {
        start,
        stops: false,
        missing: Missing::First,
        ..RULES
    };
    let earliest = explored("S3", guesses(Start::Earliest));
    assert_eq!(earliest, Verdict::Violated(Bad::Doubled));
    let latest = explored("S3b", guesses(Start::Latest));
    assert_eq!(latest, Verdict::Violated(Bad::Doubled));
}

/// What becomes of what the anchor alone cannot tell: nothing says that there were positions at all, or one more
/// partition, or more in one.
fn unseen(name: &str, witness: Witness, holds: impl Fn(&Verdict<Bad, Goal>) -> bool) {
    for missing in [Missing::All, Missing::Last, Missing::Back] {
        for start in [Start::Earliest, Start::Latest] {
            let rules = Rules {
                start,
                witness,
                missing,
                ..RULES
            };
            let verdict = explored(name, rules);
            assert!(holds(&verdict), "{missing:?}, {start:?}: {verdict:?}");
        }
    }
}

fn lost_or_doubled(verdict: &Verdict<Bad, Goal>) -> bool {
    matches!(verdict, Verdict::Violated(Bad::Lost | Bad::Doubled))
}

#[test]
fn all_positions_gone_or_the_last_one_or_an_earlier_one_is_seen_by_the_group() {
    unseen("S4", Witness::Heard, |verdict| *verdict == Verdict::Safe);
}

#[test]
fn without_the_group_they_look_like_a_first_start() {
    unseen("S4b", Witness::None, lost_or_doubled);
}

/// What nobody can tell: the group had not heard of it, its offsets expired, or somebody reset them.
#[test]
fn what_the_group_has_not_heard_of_proves_nothing() {
    unseen("S4c", Witness::Asked, lost_or_doubled);
}

#[test]
fn the_group_is_asked_before_the_anchor() {
    let late = Rules {
        witness: Witness::AskedLate,
        ..RULES
    };
    assert_eq!(explored("S5", late), Verdict::Violated(Bad::Alarm));
}
