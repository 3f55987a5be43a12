//! [`FakeSink`]: a keyed table, written ahead, that decides by stamp.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;

use super::script::Broken;
use super::store::Shared;
use super::{numbers, outside};
use crate::error::Error;
use crate::sink::{AheadRows, AheadSink};

/// A keyed table that decides by stamp.
#[derive(Debug)]
pub(in super::super) struct FakeSink {
    pub(in super::super) store: Shared,
}

impl FakeSink {
    /// One more connection to the table of a store.
    pub(in super::super) fn open(
        store: &Shared,
    ) -> LocalBoxFuture<'static, Result<Box<dyn AheadSink>, Error>> {
        let store = Arc::clone(store);
        async move { Ok(Box::new(Self { store }) as Box<dyn AheadSink>) }.boxed_local()
    }
}

impl AheadSink for FakeSink {
    fn write<'a>(&'a self, rows: AheadRows<'a>) -> LocalBoxFuture<'a, Result<(), Error>> {
        async move {
            tokio::task::yield_now().await;
            let mut store = self.store.lock();
            if store.sink_away {
                return Err(outside("no node answers"));
            }
            for row in rows.rows.iter() {
                let numbers = numbers(row.cells);
                let (key, offset, release) = (numbers[0], numbers[1], numbers[2]);
                let mut stamp = rows.stamps[row.source as usize] + 1;
                if store.broken == Broken::ArrivalTime {
                    store.sent += 1;
                    stamp = store.sent;
                }
                let current = store.current.values().max().copied().unwrap_or(0);
                if offset >= current {
                    let text = format!("{offset} sent ahead at a reservation of {current}");
                    store.violations.push(text);
                }
                store.wrote.entry(offset).or_default().insert(release);
                store.stamps.entry(offset).or_default().insert(stamp);
                if store.delay_writes && offset % 3 == 0 {
                    store.late_writes.push((key, stamp, offset));
                }
                store.apply(key, stamp, offset);
            }
            if !store.delay_writes {
                for (key, stamp, offset) in std::mem::take(&mut store.late_writes) {
                    store.apply(key, stamp, offset);
                }
            }
            Ok(())
        }
        .boxed_local()
    }
}
