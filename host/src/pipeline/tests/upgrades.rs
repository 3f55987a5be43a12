//! Seeded upgrades at random moments, while faults happen and hosts die: no offset is ever processed by two
//! releases, their order is the order they were asked for, and in the end the newest is what processes. What it would
//! notice is in `mutation`.

use std::cell::Cell;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use super::fakes::Broken;
use super::guest::Act;
use super::random::elsewhere;
use super::seeds::{Dice, FAULTS, act, none_fails};
use super::stand::{Host, Stand, batch_of, beside};
use super::world::Sinks;
use crate::error::Blame;
use crate::pipeline::conduct::Place;
use crate::pipeline::lane::{LaneEnd, Mode};

/// Records of a seed.
const RECORDS: usize = 40;

const ACTS: [Act; 4] = [Act::Filter, Act::Reject, Act::Trap, Act::Limit];

/// Offsets with gaps, most of them far apart, so that a grant covers a few records only.
pub(super) fn log(dice: &mut Dice) -> Vec<i64> {
    let mut next = 0;
    let far = dice.pick(&[1, 900, 2500]);
    (0..RECORDS)
        .map(|_| {
            let offset = next + i64::try_from(dice.roll(2) * dice.roll(far)).unwrap();
            next = offset + 1;
            offset
        })
        .collect()
}

/// Hands over what is fetched and not committed, and asks for other releases on the way.
async fn play(stand: &Stand, host: &Host<'_>, log: &[i64], dice: &mut Dice, newest: &Cell<i64>) {
    let mut from = host.claim.next;
    let end = log.last().map_or(0, |last| last + 1);
    while from < end {
        let left: Vec<i64> = log
            .iter()
            .copied()
            .filter(|offset| *offset >= from)
            .collect();
        let take = usize::try_from(dice.roll(6) + 1).unwrap().min(left.len());
        let to = left[take - 1] + 1;
        if host.inlet.send(batch_of(log, from, to)).is_err() {
            return;
        }
        from = to;
        if dice.roll(9) == 0 {
            newest.set(newest.get() + 1);
            // Now and then back to the one before: a new upgrade all the same.
            let back = newest.get() > 2 && dice.roll(4) == 0;
            let last = stand.asked.borrow().last().copied().unwrap_or(1);
            stand.ask(if back {
                (last - 1).max(1)
            } else {
                newest.get()
            });
        }
        match dice.roll(12) {
            0 => tokio::time::sleep(Duration::from_millis(dice.roll(450))).await,
            1..6 => {
                for _ in 0..dice.roll(12) {
                    tokio::task::yield_now().await;
                }
            }
            _ => {}
        }
    }
}

/// Waits for something, for so long at least: it counts its turns, because on a busy machine everybody's take longer.
async fn comes(patience: Duration, holds: impl Fn() -> bool) -> bool {
    const TURN: Duration = Duration::from_millis(10);
    for _ in 0..patience.as_millis() / TURN.as_millis() {
        if holds() {
            return true;
        }
        tokio::time::sleep(TURN).await;
    }
    holds()
}

/// Drops a future after a number of polls: a host that dies.
pub(super) async fn killed_after<T>(polls: u64, run: impl Future<Output = T>) -> Option<T> {
    let mut run = pin!(run);
    let mut left = polls;
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        run.as_mut().poll(context).map(Some)
    })
    .await
}

fn script(stand: &Stand, dice: &mut Dice, broken: Broken) {
    let mut store = stand.store.lock();
    store.broken = broken;
    store.delay_writes = dice.roll(2) == 0;
    store.late_first = dice.roll(2) == 0;
    if dice.roll(4) == 0 {
        return;
    }
    store.faults = dice.faults(8, &FAULTS);
    store.grants = dice.faults(5, &FAULTS);
    store.settle_faults = dice.faults(2, &FAULTS);
}

/// Runs one seed; returns what is wrong.
pub(super) async fn run(seed: u64, broken: Broken) -> Vec<String> {
    let mut dice = Dice(seed);
    // What is broken need not be waited for.
    let patience = Duration::from_secs(if broken == Broken::Nothing { 10 } else { 1 });
    let sinks = dice.pick(&[Sinks::Here, Sinks::Both, Sinks::Both, Sinks::Ahead]);
    let mut log = log(&mut dice);
    let end = log.last().map_or(0, |last| last + 1);
    // What comes in quiet times leaves a lane where it is.
    let acts = move |offset| match act(seed, offset, &ACTS) {
        Act::Limit if offset >= end => Act::Trap,
        act => act,
    };
    let stand = Stand::new(sinks, acts).await;
    script(&stand, &mut dice, broken);
    let newest = Cell::new(1);
    let mut tries = 0;
    while stand.position() < end {
        tries += 1;
        if tries > 120 {
            return vec![format!("no end in sight at {}", stand.position())];
        }
        let mut host = stand.host().await;
        let dies = dice.roll(3) == 0;
        let (polls, limit) = if dies {
            (dice.roll(120), Duration::from_millis(dice.roll(400)))
        } else {
            (u64::MAX, 12 * patience)
        };
        let life = async {
            let mut lane = std::mem::replace(&mut host.run, Box::pin(std::future::pending()));
            let (ended, ()) =
                beside(&mut lane, play(&stand, &host, &log, &mut dice, &newest)).await;
            if let Some(ended) = ended {
                return Ok(ended);
            }
            if dies {
                return Ok(lane.await);
            }
            // Through, or fenced: then it goes on at the next host.
            tokio::select! {
                biased;
                ended = &mut lane => Ok(ended),
                through = comes(patience, || stand.position() >= end) => {
                    host.mode.send_replace(Mode::Drain);
                    if through { Ok(lane.await) } else { Err(stand.position()) }
                },
            }
        };
        let limited = tokio::time::timeout(limit, killed_after(polls, life));
        match limited.await {
            Err(_) if !dies => return vec![format!("stuck at {}", stand.position())],
            Ok(Some(Err(at))) => return vec![format!("stuck at {at}")],
            Ok(Some(Ok(LaneEnd::Stopped(error)))) if error.blame() == Blame::Bug => {
                return vec![error.to_string()];
            }
            Ok(Some(Ok(LaneEnd::Misplaced(_)))) => {
                stand.place.set(elsewhere(stand.place.get(), &mut dice));
            }
            _ => {}
        }
    }
    let mut wrong = quiet(&stand, &mut log, &newest, patience).await;
    wrong.extend(stand.check(&log));
    wrong
}

/// Without faults, the newest release is what processes: past what an owner that died may have sent at once, and on
/// an idle partition too.
async fn quiet(
    stand: &Stand,
    log: &mut Vec<i64>,
    newest: &Cell<i64>,
    patience: Duration,
) -> Vec<String> {
    {
        let mut store = stand.store.lock();
        store.faults.clear();
        store.grants.clear();
        store.settle_faults.clear();
    }
    stand.place.set(Place::Home);
    let mut host = stand.host().await;
    let idle = async |release: i64| comes(patience, || stand.began(release)).await;
    let upgrade = || {
        newest.set(newest.get() + 1);
        stand.ask(newest.get());
        newest.get()
    };
    let script = async {
        let mut wrong = Vec::new();
        if host.claim.reserved <= host.claim.next && !idle(upgrade()).await {
            wrong.push("an idle partition without a reservation did not swap".to_owned());
        }
        // Past everything that may have been sent.
        let mut from = host.claim.next;
        for jump in [20_000, 1] {
            let at = from + jump;
            log.push(at);
            host.inlet.send(batch_of(log, from, at + 1)).ok();
            from = at + 1;
            if !comes(patience, || stand.position() >= from).await {
                wrong.push(format!("record {at} is not committed"));
                return wrong;
            }
        }
        let asked = stand.asked.borrow().last().copied().unwrap_or(1);
        let last = stand.wrote().last().map(|last| last.2);
        if last != Some(asked) {
            wrong.push(format!("{last:?} processes, {asked} is wanted"));
        }
        for _ in 0..2 {
            if !idle(upgrade()).await {
                wrong.push("an idle partition did not swap".to_owned());
            }
        }
        wrong
    };
    let (ended, mut wrong) = beside(&mut host.run, script).await;
    if let Some(ended) = ended {
        wrong.push(format!("it ended without a fault: {ended:?}"));
        return wrong;
    }
    host.mode.send_replace(Mode::Drain);
    host.run.await;
    wrong
}

#[test]
fn upgrades_at_random_moments_mix_nothing_and_the_newest_wins() {
    none_fails(4000, run);
}
