//! Rules of delivery that only a model shows broken: what they need happens at brokers or at two hosts' clocks, which
//! the simulation of the pipeline has not. The others are in `pipeline::tests::mutation`.

use super::explore::{Verdict, explore};
use super::lightweight::protocol as lightweight;
use super::pinning::protocol as pinning;
use super::transaction::protocol as transaction;

#[test]
fn join_on_revoke_goes_red() {
    let rules = transaction::Rules {
        join: false,
        faults: 1,
        ..transaction::RULES
    };
    let found = explore("join", &transaction::Transactions(rules), &[]).0;
    assert_eq!(found, Verdict::Violated(transaction::Bad::Doubled));
}

#[test]
fn epoch_goes_red_in_pinning_with_lowering() {
    let rules = pinning::Rules {
        epoch: false,
        faults: 1,
        ..pinning::RULES
    };
    let found = explore("epoch, lowering", &pinning::Pinning::new(rules), &[]).0;
    assert_eq!(found, Verdict::Violated(pinning::Bad::Ghost));
}

#[test]
fn epoch_goes_red_in_timestamp_ahead() {
    let rules = lightweight::Rules {
        epoch: false,
        says: lightweight::Says::TooEarly,
        withdraws: true,
        reserves: true,
        records: 2,
        ..lightweight::RULES
    };
    let model = lightweight::Lightweight(rules);
    let found = explore("epoch, timestamp-ahead", &model, &[]).0;
    assert_eq!(found, Verdict::Violated(lightweight::Bad::NotTheFold));
}
