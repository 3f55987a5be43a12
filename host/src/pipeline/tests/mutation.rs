//! A rule of delivery taken away must turn the simulation red, and what it says must be what the rule prevents: or
//! the checks prove nothing. What only a model can show is in `anchor::model_tests::mutation`.

use super::fakes::Broken;
use super::reservations::own;
use super::seeds::goes_red;
use super::served::emit;
use super::stand::Stand;
use super::world::{Sinks, on_a_shard};
use super::{duels, random, retries, upgrades};
use crate::pipeline::Desired;

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

/// An anchor that stores lazily stands behind what its lanes advised, as far as is reserved.
#[test]
fn reservation_beside_the_group_goes_red() {
    goes_red(Broken::Reservation, 200, "data loss", random::run);
    goes_red(Broken::Reservation, 150, "data loss", upgrades::run);
}

#[test]
fn poisoned_commit_goes_red() {
    goes_red(Broken::SwallowedRollback, 200, LOST, random::run);
}

#[test]
fn epoch_goes_red_in_the_liveness_of_duelling_owners() {
    goes_red(Broken::Epoch, 200, "stopped by an older one", duels::run);
}

/// Where the next release is cut after an older owner gave up its grant, while the newest has sent records: beside
/// where those end that it may have sent.
async fn cut_after_an_older_owner_lowered(broken: Broken) -> (i64, i64) {
    let stand = Stand::new(Sinks::Both, emit).await;
    stand.store.lock().broken = broken;
    let mut older = own(&stand).await;
    assert!(older.grant(10).await.is_ok());
    let newest = own(&stand).await;
    newest.sent.set(10);
    older.lower().await.ok();
    let mut next = own(&stand).await;
    let desired = Desired::only(stand.make(2));
    assert!(next.upgrade(&desired).await.is_ok());
    let cuts = stand.cuts();
    (cuts.last().unwrap().0, newest.granted)
}

#[test]
fn epoch_goes_red_in_pinning_with_lowering() {
    on_a_shard(async {
        let (cut, granted) = cut_after_an_older_owner_lowered(Broken::Nothing).await;
        assert_eq!(cut, granted);
        let (cut, _) = cut_after_an_older_owner_lowered(Broken::Epoch).await;
        assert_eq!(cut, 0, "another release begins below what was sent");
    });
}

#[test]
fn mark_of_a_retry_goes_red() {
    goes_red(Broken::Mark, 300, "ahead those of", retries::run);
}
