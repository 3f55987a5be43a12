//! Postgres as the anchor, Cassandra written ahead, explored exhaustively: two workers that both may think they own
//! the partition, orphaned transactions, commits and writes that are late, servers that refuse what they please.

mod protocol;

use protocol::{Bad, Goal, Mixed, RULES, Refuses, Rules, Then};

use super::explore::{Verdict, explore};

/// Postgres always refuses the same record, Cassandra none: then nobody has to be stopped.
const TAME: Rules = Rules {
    here: Refuses::Always,
    cassandra: Refuses::Never,
    then: Then::Record,
    reserved: false,
    ..RULES
};

fn safe(name: &str, rules: Rules, goals: &[Goal]) {
    let verdict = explore(name, &Mixed(rules), goals).0;
    assert_eq!(verdict, Verdict::Safe, "{name}");
}

fn violated(name: &str, rules: Rules, bad: Bad) {
    let found = explore(name, &Mixed(rules), &[]).0;
    assert_eq!(found, Verdict::Violated(bad), "{name}");
}

#[test]
fn the_order_that_is_built() {
    safe("A1", TAME, &[Goal::Drained]);
    let single = Rules {
        single: true,
        ..TAME
    };
    safe("A1b", single, &[]);
}

#[test]
fn servers_that_refuse_what_they_please_stop_the_lane_where_it_may_be_out() {
    safe("A13", RULES, &[]);
    let checked = Rules {
        here: Refuses::Always,
        cassandra: Refuses::Always,
        precheck: true,
        reserved: false,
        ..RULES
    };
    safe("A11", checked, &[]);
    let missed = Rules {
        here: Refuses::Always,
        reserved: false,
        ..RULES
    };
    safe("A12", missed, &[]);
    let anywhere = Rules {
        here: Refuses::Sometimes,
        ..TAME
    };
    violated("A10", anywhere, Bad::Ahead);
}

#[test]
fn the_position_is_compared() {
    let unconditional = Rules {
        compare: false,
        ..TAME
    };
    violated("A0", unconditional, Bad::Here);
}

#[test]
fn cassandra_comes_before_the_commit() {
    let after = Rules {
        ahead: false,
        ..TAME
    };
    violated("A2", after, Bad::Ahead);
}

#[test]
fn neither_the_epoch_nor_a_locking_read_is_needed_for_safety_here() {
    let without = Rules {
        epoch: false,
        ..TAME
    };
    safe("A3", without, &[]);
    let plain = Rules {
        locks: false,
        ..TAME
    };
    safe("A5", plain, &[]);
}

#[test]
fn a_write_time_is_its_records() {
    let arrival = Rules {
        stamps: false,
        ..TAME
    };
    violated("A4", arrival, Bad::Ahead);
}

#[test]
fn what_cassandra_refuses_is_no_dead_letter() {
    let then = |cassandra, then| Rules {
        cassandra,
        then,
        ..TAME
    };
    violated("A6", then(Refuses::Always, Then::Record), Bad::Ahead);
    violated("A7", then(Refuses::Always, Then::Undo), Bad::Ahead);
    safe("A8", then(Refuses::Always, Then::Row), &[]);
    violated("A9", then(Refuses::Sometimes, Then::Row), Bad::Ahead);
}
