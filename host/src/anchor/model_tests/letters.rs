//! The retry of a dead letter, explored exhaustively: two retriers through two releases, killed anywhere, requests
//! that arrive late, commits in doubt, somebody who drops it.

mod protocol;

use protocol::{Bad, Goal, Letters, Mark, RULES, Rules};

use super::explore::{Verdict, explore};

fn violated(name: &str, rules: Rules, bad: Bad) {
    let found = explore(name, &Letters(rules), &[]).0;
    assert_eq!(found, Verdict::Violated(bad), "{name}");
}

#[test]
fn every_rule_kept() {
    let three = Rules { faults: 3, ..RULES };
    let found = explore("R0", &Letters(three), &[Goal::Decided]).0;
    assert_eq!(found, Verdict::Safe);
}

#[test]
fn the_release_that_begins_is_kept_before_anything_is_sent_and_stays() {
    let mark = |mark| Rules { mark, ..RULES };
    violated("R1", mark(Mark::None), Bad::Ghost);
    violated("R1b", mark(Mark::Last), Bad::Ghost);
}

#[test]
fn rows_and_removal_are_one_step() {
    let apart = Rules {
        together: false,
        ..RULES
    };
    violated("R2", apart, Bad::Doubled);
}

#[test]
fn rows_ahead_come_before_the_commit() {
    let after = Rules {
        ahead: false,
        ..RULES
    };
    violated("R3", after, Bad::Lost);
}

#[test]
fn rows_ahead_have_the_time_of_their_record() {
    let arrival = Rules {
        stamps: false,
        ..RULES
    };
    violated("R4", arrival, Bad::Overwritten);
}

#[test]
fn what_was_begun_is_not_dropped() {
    let dropped = Rules {
        keeps_begun: false,
        ..RULES
    };
    violated("R5", dropped, Bad::Ghost);
}
