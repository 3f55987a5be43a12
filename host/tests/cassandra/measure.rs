//! Client CPU a row, by rows of one partition key.

use std::time::Instant;

use wasmill::record::{Op, RowBatch};

use super::support::{Put, World, add, declared, route, sink, write};

/// Nanoseconds this thread ran: sink, driver and runtime share it.
fn cpu() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

pub(crate) fn cpu_a_row(world: &World) {
    const ROWS: u32 = 500;
    const FLIGHTS: u32 = 40;
    world.block(async {
        let (session, eye) = (world.session().await, world.eye().await);
        let columns = ["id text", "n int32", "a float64", "b timestamp", "c text"];
        let table = route(&columns, &declared("measured", 1, None));
        let sink = sink(&session, &table).await;
        for round in 0..4_u32 {
            for a_key in [1_u32, 10, 100] {
                let (began, used) = (Instant::now(), cpu());
                for flight in 0..FLIGHTS {
                    let mut rows = RowBatch::default();
                    for source in 0..ROWS {
                        let key = format!("{a_key}-{round}-{flight}-{}", source / a_key);
                        let row = [
                            Put::Value(key.as_bytes()),
                            Put::Value(&source.to_be_bytes()),
                            Put::Value(&1.5_f64.to_be_bytes()),
                            Put::Value(&1_000_i64.to_be_bytes()),
                            Put::Value(b"some text of a usual length"),
                        ];
                        add(&mut rows, source, Op::Write, &row);
                    }
                    let stamps = [2; ROWS as usize];
                    write(&sink, &rows, &stamps, 0).await.unwrap();
                }
                let rows = u64::from(ROWS * FLIGHTS);
                eprintln!(
                    "round {round}: {a_key:>3} rows a key: {:>5} ns CPU a row, {:>6.0} rows/s",
                    (cpu() - used) / rows,
                    f64::from(ROWS * FLIGHTS) / began.elapsed().as_secs_f64()
                );
            }
        }
        let rows = eye
            .rows("SELECT count(*) FROM KS.measured WHERE id = '100-3-39-4'")
            .await;
        assert_eq!(rows[0][0], Some(scylla::value::CqlValue::BigInt(100)));
    });
}
