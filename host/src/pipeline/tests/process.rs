//! From records to rows: whose fault a failed call is.

use std::time::{Duration, Instant};

use super::guest::Act;
use super::world::{Sinks, World, batch, on_a_shard};
use crate::error::{Blame, Error};
use crate::pipeline::process::Processed;
use crate::plugin::RunFailure;
use crate::record::{Batch, Record};

async fn process(world: &World, batch: Batch) -> Result<Processed, Error> {
    world.processor().process(batch, Processed::default()).await
}

fn world(guilty: i64, act: Act) -> World {
    World::new(
        Sinks::Both,
        move |offset| if offset == guilty { act } else { Act::Row },
    )
}

fn cells(processed: &Processed) -> Vec<Vec<(Vec<u8>, i64)>> {
    let offsets = processed.batch.offsets();
    let route = |rows: &crate::record::RowBatch| {
        rows.iter()
            .map(|row| (row.cells.to_vec(), offsets[row.source as usize]))
            .collect()
    };
    processed.rows.iter().map(route).collect()
}

#[test]
fn one_guilty_record_in_a_thousand_and_no_other_is_a_dead_letter() {
    for (act, code) in [
        (Act::Trap, "trap"),
        (Act::Limit, "limit"),
        (Act::Malformed, "bad-output"),
        (Act::Reject, "no-good"),
    ] {
        for guilty in [0, 1, 499, 500, 999] {
            on_a_shard(async {
                let world = world(guilty, act);
                let processed = process(&world, batch(0, 0..1000)).await.unwrap();
                let dead: Vec<_> = processed
                    .dead
                    .iter()
                    .map(|d| (d.source, &*d.code))
                    .collect();
                assert_eq!(dead, [(u32::try_from(guilty).unwrap(), code)]);
                // As if it had never been there.
                let mut without = Batch::new(0, 0);
                for record in batch(0, 0..1000).iter().filter(|r| r.offset != guilty) {
                    without.push(Record { ..record });
                }
                let clean = process(&self::world(-1, Act::Row), without).await.unwrap();
                assert_eq!(cells(&processed), cells(&clean), "{act:?} {guilty}");
                assert!(
                    world.plugin.made.lock().1 <= 40,
                    "{:?}",
                    world.plugin.made.lock()
                );
            });
        }
    }
}

#[test]
fn what_a_neighbour_does_while_the_guest_yields_is_not_its_time() {
    on_a_shard(async {
        let burst = Duration::from_millis(100);
        let world = world(-1, Act::Row);
        let neighbour = async {
            for _ in 0..4 {
                let begun = Instant::now();
                while begun.elapsed() < burst {}
                tokio::task::yield_now().await;
            }
        };
        let processed = process(&world, batch(0, 0..10));
        let (processed, ()) = futures_util::future::join(processed, neighbour).await;
        let processed = processed.unwrap();
        assert!(
            processed.begun.elapsed() > burst,
            "the guest waited for its neighbour"
        );
        assert!(processed.busy > Duration::ZERO);
        assert!(processed.busy < burst / 2, "{:?}", processed.busy);
    });
}

#[test]
fn an_instance_that_outgrew_its_mark_runs_no_further_batch() {
    on_a_shard(async {
        let world = world(150, Act::Grow);
        let mut processor = world.processor();
        let mut made = Vec::new();
        for from in [0, 100, 200, 300] {
            let batch = batch(0, from..from + 100);
            processor
                .process(batch, Processed::default())
                .await
                .unwrap();
            made.push(world.plugin.made.lock().0);
        }
        assert_eq!(made, [1, 1, 2, 2]);
    });
}

#[test]
fn run_time_decides_no_dead_letter() {
    on_a_shard(async {
        let slow = process(&world(7, Act::Slow), batch(0, 0..10))
            .await
            .unwrap();
        assert_eq!((slow.dead.len(), slow.rows[0].len()), (0, 9));
        let error = process(&world(7, Act::Endless), batch(0, 0..10))
            .await
            .unwrap_err();
        assert_eq!(error.blame(), Blame::Config);
        assert!(error.to_string().contains("offsets 0 to 9"), "{error}");
    });
}

#[test]
fn fatal_and_an_init_that_fails_stop_and_blame_no_record() {
    on_a_shard(async {
        let error = process(&world(7, Act::Fatal), batch(0, 0..10))
            .await
            .unwrap_err();
        assert_eq!(error.detail(), "the table is wrong");
        let failures: [fn(Error) -> RunFailure; 4] = [
            RunFailure::Trap,
            RunFailure::Limit,
            RunFailure::RunTime,
            RunFailure::Fatal,
        ];
        for init in failures {
            let mut world = world(-1, Act::Row);
            world.plugin.init = Some(init);
            let error = process(&world, batch(0, 0..10)).await.unwrap_err();
            assert!(error.to_string().contains("init"), "{error}");
            assert!(world.plugin.made.lock().0 <= 2);
        }
    });
}

#[test]
fn times_that_no_clock_shows_do_not_overflow_the_write_times() {
    on_a_shard(async {
        let world = World::new(Sinks::Here, |_| Act::Row);
        world.seed(0, 0).await;
        let (lane, inlet, outlet, _) = world.lane().await;
        let mut batch = Batch::new(0, 0);
        for (offset, timestamp) in [(0, 5), (1, i64::MAX), (2, i64::MAX / 1000), (3, i64::MIN)] {
            batch.push(Record {
                key: None,
                value: Some(b"v"),
                timestamp,
                offset,
                headers: b"",
                marks: 0,
            });
        }
        inlet.send(batch).unwrap();
        drop(inlet);
        let end = lane.run(outlet).await;
        assert!(
            matches!(end, crate::pipeline::lane::LaneEnd::Done),
            "{end:?}"
        );
        assert_eq!(world.store.lock().hlc, 5006);
    });
}

#[test]
fn far_times_are_set_aside_and_the_limit_doubles_below_the_reservation() {
    let hour = 3_600_000;
    let now = 1_000_000_000;
    let mut records = Batch::new(0, 0);
    for (offset, timestamp) in [
        (0, now + hour + 1),
        (1, now + 2 * hour + 1),
        (2, now + hour),
        (3, now + hour + 1),
    ] {
        records.push(Record {
            key: None,
            value: Some(b"v"),
            timestamp,
            offset,
            headers: b"",
            marks: 0,
        });
    }
    on_a_shard(async {
        let mut processed = process(&world(-1, Act::Row), records).await.unwrap();
        crate::pipeline::flight::set_aside_ahead(&mut processed, 2, now);
        let dead: Vec<u32> = processed.dead.iter().map(|dead| dead.source).collect();
        assert_eq!(dead, [1, 3]);
        let left: Vec<u32> = processed.rows[0].iter().map(|row| row.source).collect();
        assert_eq!(left, [0, 2]);
    });
}
