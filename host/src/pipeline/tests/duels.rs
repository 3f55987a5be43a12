//! Owners that do not know of each other: a partition is claimed again while whoever had it works on, and both are
//! fed. Nothing is lost, doubled or mixed, and the newest owner is never stopped by an older one that only works on.
//! One that claims anew itself, to hand over to another release, takes the partition away once more, and ends.

use std::time::Duration;

use super::fakes::Broken;
use super::guest::Act;
use super::seeds::{Dice, act, none_fails};
use super::stand::{Host, Stand, batch_of, beside};
use super::upgrades::log;
use super::world::Sinks;
use crate::error::Blame;
use crate::pipeline::lane::{LaneEnd, Mode};

const ACTS: [Act; 3] = [Act::Filter, Act::Reject, Act::Trap];

/// An owner, and up to where it was given records.
struct Owner {
    host: Host<'static>,
    fed: i64,
    /// Claims of anybody, its own included.
    claims: usize,
}

/// Runs one seed; returns what is wrong.
pub(super) async fn run(seed: u64, broken: Broken) -> Vec<String> {
    let mut dice = Dice(seed);
    let sinks = dice.pick(&[Sinks::Here, Sinks::Both, Sinks::Both]);
    let log = log(&mut dice);
    let end = log.last().map_or(0, |last| last + 1);
    let stand = Stand::new(sinks, move |offset| act(seed, offset, &ACTS)).await;
    {
        let mut store = stand.store.lock();
        store.broken = broken;
        store.delay_writes = dice.roll(2) == 0;
    }
    let mut older: Option<Owner> = None;
    let mut newest = claims(&stand).await;
    let mut wrong = Vec::new();
    let mut release = 1;
    let mut turns = 0;
    while stand.position() < end {
        turns += 1;
        if turns > 3000 {
            return vec![format!("no end in sight at {}", stand.position())];
        }
        if turns < 400 && dice.roll(15) == 0 {
            older = Some(std::mem::replace(&mut newest, claims(&stand).await));
        }
        if dice.roll(20) == 0 && release < 12 {
            release += 1;
            stand.ask(release);
        }
        if let Some(owner) = &mut older {
            feed(owner, &log, &mut dice);
            if turn(owner, &mut dice).await.is_some() {
                older = None;
            }
        }
        feed(&mut newest, &log, &mut dice);
        match turn(&mut newest, &mut dice).await {
            None => {}
            Some(LaneEnd::Stopped(error)) if error.blame() == Blame::Bug => {
                return vec![error.to_string()];
            }
            Some(ended) => {
                if stand.store.lock().claims == newest.claims {
                    let text = "the newest owner is stopped by an older one";
                    wrong.push(format!("{text}: {ended:?}"));
                }
                newest = claims(&stand).await;
            }
        }
    }
    newest.host.mode.send_replace(Mode::Drain);
    let drained = tokio::time::timeout(Duration::from_secs(60), newest.host.run).await;
    if !matches!(drained, Ok(LaneEnd::Done)) {
        wrong.push(format!("it does not end: {drained:?}"));
    }
    wrong.truncate(2);
    wrong.extend(stand.check(&log));
    wrong
}

async fn claims(stand: &Stand) -> Owner {
    let host = stand.host().await;
    let fed = host.claim.next;
    let claims = stand.store.lock().claims;
    Owner { host, fed, claims }
}

/// Gives an owner some more records, or none.
fn feed(owner: &mut Owner, log: &[i64], dice: &mut Dice) {
    let left: Vec<i64> = log.iter().copied().filter(|at| *at >= owner.fed).collect();
    let take = usize::try_from(dice.roll(5)).unwrap().min(left.len());
    if take == 0 {
        return;
    }
    let to = left[take - 1] + 1;
    if owner.host.inlet.send(batch_of(log, owner.fed, to)).is_ok() {
        owner.fed = to;
    }
}

/// Lets an owner work for a while; how it ended, if it did.
async fn turn(owner: &mut Owner, dice: &mut Dice) -> Option<LaneEnd> {
    // Long enough to be idle, now and then: then it gives up what it was granted.
    let pause = match dice.roll(40) {
        0 => 250,
        1..4 => 1,
        _ => 0,
    };
    let polls = dice.roll(20);
    let some_time = async {
        for _ in 0..polls {
            tokio::task::yield_now().await;
        }
        if pause > 0 {
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    };
    beside(&mut owner.host.run, some_time).await.0
}

#[test]
fn the_newest_of_duelling_owners_goes_on_and_nothing_is_mixed() {
    none_fails(2000, run);
}
