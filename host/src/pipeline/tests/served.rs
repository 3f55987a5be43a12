//! A host from its claim to its drain with a script beside it, and what has to hold afterwards: what tests of one
//! partition share.

use std::ops::Range;

use super::guest::Act;
use super::stand::{Host, Stand, beside, until};
use super::world::{Sinks, batch, on_a_shard};
use crate::pipeline::lane::{LaneEnd, Mode};
use crate::source::Inlet;

pub(super) fn emit(_: i64) -> Act {
    Act::Row
}

pub(super) fn all(to: i64) -> Vec<i64> {
    (0..to).collect()
}

pub(super) const NOTHING: Vec<String> = Vec::new();

/// A stand of its own on a shard of its own for each kind of sinks; which one it was stands above a failure.
pub(super) fn for_each(kinds: &[Sinks], test: impl AsyncFn(Stand)) {
    for sinks in kinds {
        eprintln!("with {sinks:?}");
        on_a_shard(async { test(Stand::new(*sinks, emit).await).await });
    }
}

/// Ends a host in order and expects that.
pub(super) async fn drained(mut host: Host<'static>) {
    host.mode.send_replace(Mode::Drain);
    let run = std::mem::replace(&mut host.run, Box::pin(std::future::pending()));
    let end = run.await;
    assert!(matches!(end, LaneEnd::Done), "{end:?}");
}

/// Runs a script beside a host that must not end by itself.
pub(super) async fn play<T>(host: &mut Host<'static>, script: impl AsyncFnOnce(&Inlet) -> T) -> T {
    let inlet = host.inlet.clone();
    let (ended, value) = beside(&mut host.run, script(&inlet)).await;
    assert!(ended.is_none(), "{ended:?}");
    value
}

/// A host from its claim to its drain, with a script beside it.
pub(super) async fn served(stand: &Stand, script: impl AsyncFnOnce(&Inlet)) {
    let mut host = stand.host().await;
    play(&mut host, script).await;
    drained(host).await;
}

/// Everything that has to hold once the records below `to` are through.
pub(super) fn holds(stand: &Stand, to: i64) {
    assert_eq!(stand.check(&all(to)), NOTHING);
}

pub(super) fn committed(stand: &Stand, to: i64) -> impl Fn() -> bool + '_ {
    move || stand.wrote().last().is_some_and(|last| last.1 >= to)
}

/// Hands records to a host as one batch and waits until the last is committed.
pub(super) async fn through(stand: &Stand, inlet: &Inlet, offsets: Range<i64>) {
    let to = offsets.end;
    inlet.send(batch(0, offsets)).unwrap();
    until("committed", committed(stand, to)).await;
}
