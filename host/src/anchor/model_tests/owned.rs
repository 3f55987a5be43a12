//! The Kafka transaction anchor as it is built, explored exhaustively: one transactional id a partition, taken to claim
//! it; the position a record in the transaction of its rows. Two hosts that both think they own the partition, at any
//! time and whatever their group says. They die or give up anywhere, replies get lost, connections break under the end
//! of a transaction, which the client then sends again by itself; transactions time out; what is on the wire arrives
//! late, into whatever is open then, or never.

pub(super) mod protocol;

use protocol::{Bad, Goal, Owned, RULES, Reads, Rules, SentTwice, Unknown};

use super::explore::{Verdict, explore};

fn safe(name: &str, rules: Rules) {
    let verdict = explore(name, &Owned(rules), &[Goal::Drained]).0;
    assert_eq!(verdict, Verdict::Safe, "{name}");
}

fn red(name: &str, rules: Rules, bad: Bad) {
    let found = explore(name, &Owned(rules), &[]).0;
    assert_eq!(found, Verdict::Violated(bad), "{name}");
}

#[test]
fn as_it_is_built() {
    safe("K0", RULES);
    let one_record = Rules {
        records: 1,
        faults: 3,
        ..RULES
    };
    safe("K0b", one_record);
}

#[test]
fn a_position_read_before_the_id_is_taken_goes_red() {
    let reads = Reads::BeforeTaking;
    red("K1", Rules { reads, ..RULES }, Bad::Doubled);
}

#[test]
fn a_position_read_without_a_mark_goes_red() {
    let reads = Reads::UpToEnd;
    red("K2", Rules { reads, ..RULES }, Bad::Doubled);
}

#[test]
fn a_position_that_was_aborted_goes_red() {
    let reads = Reads::Undecided;
    red("K3", Rules { reads, ..RULES }, Bad::Lost);
}

#[test]
fn a_position_outside_of_the_transaction_goes_red() {
    let together = false;
    red("K4", Rules { together, ..RULES }, Bad::Doubled);
}

#[test]
fn an_id_that_fences_nobody_goes_red() {
    let unfenced = Rules {
        fence: false,
        faults: 0,
        ..RULES
    };
    red("K5", unfenced, Bad::Hung);
}

#[test]
fn a_commit_before_its_messages_are_acknowledged_goes_red() {
    let drain = false;
    red("K6", Rules { drain, ..RULES }, Bad::Hung);
}

#[test]
fn going_on_after_an_end_without_an_answer_goes_red() {
    let after = |unknown| Rules { unknown, ..RULES };
    red("K7", after(Unknown::AsAborted), Bad::Doubled);
    red("K7b", after(Unknown::AsCommitted), Bad::Hung);
    red("K7c", after(Unknown::Abort), Bad::Hung);
}

#[test]
fn going_on_after_an_end_that_was_sent_twice_goes_red() {
    let goes_on = Rules {
        sent_twice: SentTwice::GoesOn,
        faults: 1,
        ..RULES
    };
    red("K8", goes_on, Bad::Hung);
}
