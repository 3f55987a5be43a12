//! The Cassandra anchor, explored exhaustively: two workers that both may think they own the partition, lightweight
//! transactions that are applied after they were given up, rows and dead letters that arrive late.

pub(super) mod protocol;

use protocol::{Bad, Claims, Goal, Lightweight, RULES, Rules, Says};

use super::explore::{Verdict, explore};

/// A record too far ahead of the clock is set aside, unless it may have been written: two records.
const EARLY: Rules = Rules {
    says: Says::TooEarly,
    withdraws: true,
    reserves: true,
    records: 2,
    ..RULES
};

fn safe(name: &str, rules: Rules, goals: &[Goal]) {
    let verdict = explore(name, &Lightweight(rules), goals).0;
    assert_eq!(verdict, Verdict::Safe, "{name}");
}

fn violated(name: &str, rules: Rules, bad: Bad) {
    let found = explore(name, &Lightweight(rules), &[]).0;
    assert_eq!(found, Verdict::Violated(bad), "{name}");
}

#[test]
fn every_rule_kept() {
    safe("B1", RULES, &[]);
    let one = Rules { faults: 1, ..RULES };
    safe("B1l", one, &[Goal::Drained]);
}

#[test]
fn the_position_follows_what_is_acknowledged() {
    let early = Rules {
        acknowledged: false,
        ..RULES
    };
    violated("B2", early, Bad::Lost);
}

#[test]
fn write_times_are_chained_through_the_stored_one() {
    let unchained = Rules {
        stores_time: false,
        ..RULES
    };
    violated("B3", unchained, Bad::NotTheFold);
    let arrival = Rules {
        stamps: false,
        ..RULES
    };
    violated("B0", arrival, Bad::NotTheFold);
}

#[test]
fn the_epoch_is_not_needed_for_safety_where_no_verdict_hangs_on_the_claim() {
    let without = Rules {
        epoch: false,
        ..RULES
    };
    safe("B4", without, &[]);
}

#[test]
fn a_dead_letter_is_the_hosts_own_verdict() {
    let says = |says| Rules { says, ..RULES };
    safe("B5", says(Says::Dead), &[]);
    violated("B6", says(Says::Server), Bad::NotTheFold);
    safe("B6f", says(Says::ServerStops), &[]);
}

#[test]
fn a_record_that_was_too_early_is_withdrawn_from_the_dead_letters() {
    let left = Rules {
        withdraws: false,
        records: 3,
        ..EARLY
    };
    violated("B7", left, Bad::NotTheFold);
    safe("B7f", EARLY, &[]);
    let three = Rules {
        records: 3,
        faults: 1,
        ..EARLY
    };
    safe("B7g", three, &[]);
}

#[test]
fn a_claim_goes_by_the_row_read_after_it() {
    let claims = |claims| Rules { claims, ..EARLY };
    violated("B8", claims(Claims::ReadsBefore), Bad::NotTheFold);
    safe("B8f", claims(Claims::ComparesAll), &[]);
}

#[test]
fn a_verdict_that_hangs_on_the_claim_needs_the_epoch_and_its_id() {
    let without = Rules {
        epoch: false,
        ..EARLY
    };
    violated("B9", without, Bad::NotTheFold);
    let number = Rules {
        unique: false,
        faults: 3,
        ..EARLY
    };
    violated("B10", number, Bad::NotTheFold);
}
