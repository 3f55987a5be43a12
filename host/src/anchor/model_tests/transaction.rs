//! A Kafka transaction anchor that is not built, explored exhaustively: rows and positions in one transaction a host,
//! fenced by the generations of a consumer group. What is built is in `owned`; this says what the other would need. Two
//! hosts that may both think they own a partition; a second partition shares the first host's transaction. Sessions
//! expire, partitions move, senders die or give up, replies get lost, what is on the wire arrives late or never.

pub(super) mod protocol;

use protocol::{Bad, Goal, Metadata, RULES, Rules, Then, Transactions, Unknown};

use super::explore::{Verdict, explore};

/// One fault.
const ONE: Rules = Rules { faults: 1, ..RULES };

fn safe(name: &str, rules: Rules) {
    let verdict = explore(name, &Transactions(rules), &[Goal::Drained]).0;
    assert_eq!(verdict, Verdict::Safe, "{name}");
}

fn violated(name: &str, rules: Rules, bad: Bad, steps: usize) {
    let found = explore(name, &Transactions(rules), &[]);
    assert_eq!(found, (Verdict::Violated(bad), steps), "{name}");
}

#[test]
fn every_rule_kept() {
    safe("T0", ONE);
    let one_record = Rules {
        records: [1, 0],
        ..RULES
    };
    safe("T0b", one_record);
}

#[test]
#[ignore = "2.4 million states: a minute or two, and another gigabyte"]
fn every_rule_kept_two_faults_two_records() {
    safe("T0c", RULES);
}

#[test]
fn two_lanes_in_a_transaction_are_taken_back_together() {
    let two = |records| Rules { records, ..ONE };
    safe("T1", two([1, 1]));
    safe("T1b", two([0, 2]));
    let one_lane = Rules {
        rewind_all: false,
        ..two([0, 2])
    };
    violated("T1c", one_lane, Bad::Lost, 16);
}

#[test]
fn a_partition_is_given_back_only_after_its_transaction() {
    // A generation is a member's, not a partition's: once the host is a member again, its old lane passes.
    let on = Rules { join: false, ..ONE };
    violated("T2", on, Bad::Doubled, 23);
    // With the generation of its positions it does not.
    let kept = Rules {
        metadata: Metadata::Kept,
        ..on
    };
    let found = explore("T2b", &Transactions(kept), &[]).0;
    assert_eq!(found, Verdict::Safe);
    // But then whoever stays through a rebalance needs the new one.
    let found = explore("T2c", &Transactions(kept), &[Goal::Drained]).0;
    assert_eq!(found, Verdict::Stuck(Goal::Drained));
}

#[test]
fn nothing_is_committed_for_a_consumer_that_is_in_no_group() {
    let unchecked = Rules {
        member: false,
        ..ONE
    };
    violated("T3", unchecked, Bad::Doubled, 21);
    // An id that outlives restarts is checked by the broker.
    let fixed = Rules {
        fixed: true,
        ..unchecked
    };
    safe("T3b", fixed);
}

#[test]
fn after_an_unknown_outcome_a_new_producer_and_no_abort() {
    let after = |unknown| Rules { unknown, ..ONE };
    violated("T4", after(Unknown::Abort), Bad::Hung, 8);
    violated("T4b", after(Unknown::AbortThenNew), Bad::Hung, 8);
}

#[test]
fn after_an_unknown_outcome_positions_are_read_again() {
    let then = |then| Rules { then, ..ONE };
    violated("T5", then(Then::AsAborted), Bad::Doubled, 17);
    violated("T5b", then(Then::AsCommitted), Bad::Lost, 15);
}

#[test]
fn positions_are_read_when_no_transaction_is_undecided_about_them() {
    let early = Rules {
        stable: false,
        ..ONE
    };
    violated("T6", early, Bad::Doubled, 20);
}

#[test]
fn rows_are_acknowledged_before_the_commit() {
    let early = Rules {
        drain: false,
        ..ONE
    };
    violated("T7", early, Bad::Lost, 9);
}

#[test]
fn positions_are_part_of_the_transaction() {
    let apart = Rules {
        together: false,
        ..ONE
    };
    violated("T8", apart, Bad::Doubled, 15);
}

#[test]
fn brokers_have_to_check_generations_and_producers() {
    let old = Rules {
        generation: false,
        ..ONE
    };
    violated("T9", old, Bad::Doubled, 20);
    let unfenced = Rules {
        fence: false,
        ..ONE
    };
    violated("T9b", unfenced, Bad::Hung, 8);
}

#[test]
fn a_host_that_was_started_twice_is_fenced() {
    let twins = Rules {
        twins: true,
        ..RULES
    };
    safe("T10", twins);
    let unfenced = Rules {
        fence: false,
        ..twins
    };
    violated("T10b", unfenced, Bad::Hung, 8);
}
