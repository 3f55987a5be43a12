//! A rule of delivery taken away must turn the simulation red, and what it says must be what the rule prevents: or
//! the checks prove nothing. What only a model can show is in `anchor::model_tests::mutation`.

use super::fakes::Broken;
use super::seeds::goes_red;
use super::{duels, random, retries, upgrades};

/// What the checks say of each kind of damage.
const LOST: &str = "0 rows, 0 dead letters";
const DOUBLED: &str = "rows out of order or doubled";
const NOT_THE_FOLD: &str = "keyed table is";
const GHOST: &str = "was written by";
/// What a cut may be made below.
const UNRESERVED: &str = "sent ahead at a reservation of";
/// A replay writes at another time than the first attempt: which of two rows stays hangs on when they arrived.
const UNSTABLE: &str = "stamps depend on the attempt";

#[test]
fn compare_and_set_goes_red() {
    goes_red(Broken::CompareAndSet, 200, DOUBLED, random::run);
    goes_red(Broken::CompareAndSet, 150, DOUBLED, upgrades::run);
}

#[test]
fn order_goes_red() {
    goes_red(Broken::Order, 200, NOT_THE_FOLD, random::run);
    goes_red(Broken::AheadForgotten, 200, NOT_THE_FOLD, random::run);
}

#[test]
fn timestamp_goes_red() {
    goes_red(Broken::ArrivalTime, 200, UNSTABLE, random::run);
    goes_red(Broken::Stamps, 200, NOT_THE_FOLD, random::run);
    goes_red(Broken::Stamps, 150, NOT_THE_FOLD, upgrades::run);
}

#[test]
fn pin_goes_red() {
    goes_red(Broken::Pin, 300, GHOST, upgrades::run);
    goes_red(Broken::Found, 300, GHOST, upgrades::run);
    goes_red(Broken::Grant, 200, UNRESERVED, random::run);
}

#[test]
fn state_with_position_goes_red() {
    goes_red(Broken::StateAfter, 200, "the ledger is", random::run);
    goes_red(Broken::StateBefore, 200, "the ledger is", random::run);
}

#[test]
fn poisoned_commit_goes_red() {
    goes_red(Broken::SwallowedRollback, 200, LOST, random::run);
}

#[test]
fn epoch_goes_red_in_the_liveness_of_duelling_owners() {
    goes_red(Broken::Epoch, 200, "stopped by an older one", duels::run);
}

#[test]
fn epoch_goes_red_in_pinning_with_lowering() {
    goes_red(Broken::Epoch, 300, UNRESERVED, duels::run);
}

#[test]
fn mark_of_a_retry_goes_red() {
    goes_red(Broken::Mark, 300, "ahead those of", retries::run);
}
