//! What fetching costs, for a person to read: `cargo test --release --test kafka speed -- --ignored --nocapture`.

use std::sync::Arc;
use std::time::Instant;

use crate::harness::{Ledger, Member, create_topic, fresh, process_cpu, produce, real, settings};

#[test]
#[ignore = "a measurement, not a check"]
fn speed_of_the_fetch_stage() {
    let Some(brokers) = real() else { return };
    let topic = fresh("speed");
    create_topic(&brokers, &topic, 4, &[]);
    produce(&brokers, &topic, 4, 0..250_000);
    let records = 1_000_000;
    for turn in 0..7 {
        let mut settings = settings(&brokers, &topic, "h1");
        settings.group = format!("{topic}-{turn}");
        settings.queued_kbytes = 16_384;
        let ledger = Arc::new(Ledger::default());
        let (before, begin) = (process_cpu(), Instant::now());
        let mut member = Member::start(settings, &ledger);
        member.counts = true;
        member.until("all", |member| member.counted == records);
        let (all, wall) = (process_cpu() - before, begin.elapsed());
        let own = member.shutdown();
        // Starting and joining included: some 10 ms.
        let per = |time: std::time::Duration| time.as_nanos() / u128::from(records);
        println!(
            "all threads {} ns/record, source thread {} ns/record, wall {wall:?}",
            per(all),
            per(own)
        );
    }
}
