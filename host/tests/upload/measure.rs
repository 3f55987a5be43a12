//! Figures, not gates: run with `--ignored --nocapture`.

use std::time::Instant;

use crate::made::{Host, carrying, guest, ordinary, tangled};

#[test]
#[ignore = "a measurement, not a check"]
fn what_checks_cost() {
    let plugin = guest("identity");
    for (name, component) in [
        ("identity".to_owned(), plugin.clone()),
        (
            "ordinary 4 MiB".to_owned(),
            carrying(&plugin, &ordinary(8_000, 20)),
        ),
        (
            "ordinary 31 MiB".to_owned(),
            carrying(&plugin, &ordinary(62_000, 20)),
        ),
        (
            "ordinary 31 MiB, long functions".to_owned(),
            carrying(&plugin, &ordinary(620, 2000)),
        ),
        (
            "tangled 100 × 1,000".to_owned(),
            carrying(&plugin, &tangled(100, 1_000)),
        ),
        (
            "tangled 1,000 × 50,000".to_owned(),
            carrying(&plugin, &tangled(1_000, 50_000)),
        ),
    ] {
        let host = Host::new().with(6 << 30, 60, 60);
        let size = component.len();
        let start = Instant::now();
        let result = host.check(&component);
        let took = start.elapsed();
        match result {
            Ok(report) => eprintln!(
                "{name}: {size} bytes, {took:?}, compiled in {} ms, peak {} MiB, native {} bytes",
                report.compile_ms,
                report.peak_memory.unwrap() >> 20,
                std::fs::metadata(&host.entries()[0]).unwrap().len(),
            ),
            Err(error) => eprintln!("{name}: {size} bytes, {took:?}, {error}"),
        }
    }
}
