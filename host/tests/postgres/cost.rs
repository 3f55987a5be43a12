//! What a row costs on our side: CPU time of this process, not a test of speed. Run it by name:
//! `cargo test --release --test postgres cost -- --ignored --nocapture`.

#![allow(clippy::print_stdout, reason = "a figure is what this prints")]

use wasmill::record::{Op, RowBatch};

use crate::support::{Is, Place, claim, commit, push, route};

/// CPU time of this process, nanoseconds, from the kernel's scheduler.
fn cpu() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let stat =
        |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("schedstat")).unwrap();
    tasks
        .map(|task| {
            stat(task.unwrap())
                .split(' ')
                .next()
                .unwrap()
                .parse::<u64>()
                .unwrap()
        })
        .sum()
}

#[tokio::test]
#[ignore = "measures, and needs a quiet machine and --release to mean anything"]
async fn cost_of_an_upsert_of_500_rows_of_five_columns() {
    const FLIGHTS: i64 = 200;
    let place = Place::new().await;
    let of = [
        ("id", "int64", false),
        ("place", "text", true),
        ("mag", "float64", true),
        ("at", "timestamp", true),
        ("felt", "int32", true),
    ];
    let anchor = place.anchor(vec![route("quakes", &[0], &of)]).await;
    let owner = claim(&anchor, 0).await;
    let mut from = 100;
    let (mut alone, mut full) = (u64::MAX, u64::MAX);
    for _ in 0..5 {
        for (size, best) in [(1, &mut alone), (500, &mut full)] {
            let mut spent = 0;
            for _ in 0..FLIGHTS {
                let rows = quakes(from, size);
                let before = cpu();
                commit(&anchor, &owner, from..from + 1, &rows, &[])
                    .await
                    .unwrap();
                spent += cpu() - before;
                from += 1;
            }
            *best = (*best).min(spent / FLIGHTS.unsigned_abs());
        }
    }
    assert_eq!(place.next(0).await, from);
    println!(
        "a flight of 1 row: {alone} ns of CPU; of 500: {full}, {} a row, {} a row beyond the first",
        full / 500,
        full.saturating_sub(alone) / 499
    );
}

/// Rows with keys spread over a million.
fn quakes(step: i64, size: i64) -> RowBatch {
    let mut rows = RowBatch::default();
    for row in 0..size {
        let id = ((step * size + row) * 7919) % 1_000_003;
        let place = format!("{id} km north of somewhere");
        let cells = [
            Is::Int(id),
            Is::Text(&place),
            Is::Bytes(4.5_f64.to_be_bytes().to_vec()),
            Is::Int(1_709_210_096_789_012 + id),
            Is::Bytes(7_i32.to_be_bytes().to_vec()),
        ];
        push(&mut rows, 0, Op::Write, &cells);
    }
    rows
}
