//! Offsets with gaps, which only a real log has: transactions and compaction.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::producer::{BaseRecord, Producer as _};
use wasmill::record::Batch;

use crate::harness::{
    Ledger, Member, PATIENCE, create_topic, fresh, producer, real, send, settings, value,
};
use crate::records::read;

#[test]
fn aborted_transactions_are_never_seen_and_leave_no_gap_in_positions() {
    let Some(brokers) = real() else { return };
    let topic = fresh("transactions");
    create_topic(&brokers, &topic, 1, &[]);
    let producer = producer(&brokers, &[("transactional.id", &topic)]);
    producer.init_transactions(PATIENCE).unwrap();
    let mut kept = 0;
    for turn in 0..20 {
        producer.begin_transaction().unwrap();
        let aborts = turn % 2 == 1;
        for _ in 0..50 {
            let value = value(if aborts { u64::MAX } else { kept });
            kept += u64::from(!aborts);
            send(
                &producer,
                BaseRecord::<[u8], [u8]>::to(&topic)
                    .key(&b"k"[..])
                    .payload(&value),
            );
        }
        producer.flush(PATIENCE).unwrap();
        if aborts {
            producer.abort_transaction(PATIENCE).unwrap();
        } else {
            producer.commit_transaction(PATIENCE).unwrap();
        }
    }
    // The ledger checks that batches chain and that only committed records, all of them, arrive.
    let ledger = Arc::new(Ledger::default());
    let mut member = Member::start(settings(&brokers, &topic, "h1"), &ledger);
    member.until("all", |member| member.ledger.total() == kept);
    member.steps_for(Duration::from_millis(300));
    assert_eq!(ledger.total(), kept);
    // A restart at the position, which lies before control records, finds nothing old.
    member.stop(0);
    member.fetch(0, ledger.get(0).next);
    member.steps_for(Duration::from_millis(300));
    assert_eq!(ledger.total(), kept);
    assert_eq!(member.errors, []);
    member.shutdown();
}

#[test]
fn gaps_of_compaction_are_bridged() {
    let Some(brokers) = real() else { return };
    let topic = fresh("compacted");
    let configs = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "100"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("max.compaction.lag.ms", "100"),
    ];
    create_topic(&brokers, &topic, 1, &configs);
    let producer = producer(&brokers, &[]);
    let begin = Instant::now();
    let mut sent = 0_u64;
    loop {
        for key in [&b"a"[..], b"b", b"c"] {
            send(
                &producer,
                BaseRecord::<[u8], [u8]>::to(&topic)
                    .key(key)
                    .payload(&value(sent)),
            );
            sent += 1;
        }
        producer.flush(PATIENCE).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        if sent < 15 {
            continue;
        }
        let batches = read_what_is_there(&brokers, &topic, sent);
        let seen: usize = batches.iter().map(Batch::len).sum();
        let mut next = 0;
        for batch in &batches {
            assert_eq!(batch.from(), next, "chained over the gaps");
            next = batch.to();
        }
        if u64::try_from(seen).unwrap() < sent {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "the log was never compacted");
    }
}

/// Reads until the last record sent, whatever lies before.
fn read_what_is_there(brokers: &str, topic: &str, sent: u64) -> Vec<Batch> {
    let mut settings = settings(brokers, topic, "h1");
    settings.group = format!("{topic}-{sent}");
    let ledger = Arc::new(Ledger::default());
    let mut member = Member::start(settings, &ledger);
    member.checks = false;
    let end = i64::try_from(sent).unwrap();
    member.until("the last", |member| {
        member.kept.last().is_some_and(|batch| batch.to() == end)
    });
    let kept = std::mem::take(&mut member.kept);
    member.shutdown();
    kept
}

#[test]
fn a_large_record_passes() {
    let Some(brokers) = real() else { return };
    let topic = fresh("large");
    create_topic(&brokers, &topic, 1, &[("max.message.bytes", "9000000")]);
    let producer = producer(
        &brokers,
        &[("message.max.bytes", "9000000"), ("linger.ms", "0")],
    );
    let large = vec![b'x'; 8_000_000];
    for payload in [&large[..], b"small", &large[..]] {
        send(
            &producer,
            BaseRecord::<[u8], [u8]>::to(&topic).payload(payload),
        );
    }
    producer.flush(PATIENCE).unwrap();
    let batches = read(&brokers, &topic, false, 3);
    let lengths: Vec<_> = batches
        .iter()
        .flat_map(Batch::iter)
        .map(|record| record.value.unwrap().len())
        .collect();
    assert_eq!(lengths, [8_000_000, 5, 8_000_000]);
}
