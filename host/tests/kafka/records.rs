//! What a record is made of: nulls, headers, marks, timestamps.

use std::sync::Arc;

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _};
use wasmill::record::{Batch, Mark, cells};
use wasmill_devbroker::{Broker, Options};

use crate::harness::{
    Ledger, Member, PATIENCE, create_topic, fresh, producer, real, send, settings,
};

/// Key and value.
type Pair<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

/// Reads a whole topic of one partition without checking values.
pub(crate) fn read(brokers: &str, topic: &str, headers: bool, count: usize) -> Vec<Batch> {
    let mut settings = settings(brokers, topic, "h1");
    settings.headers = headers;
    settings.group = format!("{topic}-{headers}");
    let ledger = Arc::new(Ledger::default());
    let mut member = Member::start(settings, &ledger);
    member.checks = false;
    member.until("all", |member| {
        member.kept.iter().map(Batch::len).sum::<usize>() == count
    });
    let kept = std::mem::take(&mut member.kept);
    member.shutdown();
    kept
}

/// `headers` cell value of known headers.
fn encoded(headers: &[(&str, Option<&[u8]>)]) -> Vec<u8> {
    let mut out = i32::try_from(headers.len()).unwrap().to_be_bytes().to_vec();
    for (name, value) in headers {
        cells::put(&mut out, name.as_bytes());
        match value {
            Some(value) => cells::put(&mut out, value),
            None => cells::put_null(&mut out),
        }
    }
    out
}

#[test]
fn null_is_not_empty_and_headers_come_only_when_asked() {
    let broker = Broker::start(Options::default()).unwrap();
    let brokers = broker.bootstrap();
    create_topic(&brokers, "shapes", 1, &[]);
    let producer = producer(&brokers, &[]);
    let to = || {
        BaseRecord::<[u8], [u8]>::to("shapes")
            .partition(0)
            .timestamp(1_700_000_000_123)
    };
    let some: [(&str, Option<&[u8]>); 3] =
        [("a", Some(b"1")), ("none", None), ("empty", Some(b""))];
    let mut owned = OwnedHeaders::new();
    for (key, value) in some {
        owned = owned.insert(Header { key, value });
    }
    send(
        &producer,
        to().key(&b"k"[..]).payload(&b"v"[..]).headers(owned),
    );
    send(&producer, to().key(&b""[..]).payload(&b""[..]));
    send(&producer, to().key(&b"k"[..]));
    send(&producer, to().payload(&b"v"[..]));
    send(&producer, to());
    producer.flush(PATIENCE).unwrap();

    for headers in [true, false] {
        let batches = read(&brokers, "shapes", headers, 5);
        let records: Vec<_> = batches.iter().flat_map(Batch::iter).collect();
        let pairs: Vec<_> = records
            .iter()
            .map(|record| (record.key, record.value))
            .collect();
        let expected: [Pair<'_>; 5] = [
            (Some(b"k"), Some(b"v")),
            (Some(b""), Some(b"")),
            (Some(b"k"), None),
            (None, Some(b"v")),
            (None, None),
        ];
        assert_eq!(pairs, expected);
        let marks: Vec<_> = records.iter().map(|record| record.marks).collect();
        assert_eq!(
            marks,
            [
                0,
                0,
                Mark::NULL_VALUE,
                Mark::NULL_KEY,
                Mark::NULL_KEY | Mark::NULL_VALUE
            ]
        );
        assert!(
            records
                .iter()
                .all(|record| record.timestamp == 1_700_000_000_123)
        );
        let seen: Vec<_> = records
            .iter()
            .map(|record| record.headers.to_vec())
            .collect();
        if headers {
            assert_eq!(seen[0], encoded(&some));
            assert_eq!(seen[1], encoded(&[]));
        } else {
            assert!(seen.iter().all(Vec::is_empty));
        }
    }
}

#[test]
fn a_timestamp_of_the_broker_is_marked() {
    let Some(brokers) = real() else { return };
    let topic = fresh("appended");
    create_topic(
        &brokers,
        &topic,
        1,
        &[("message.timestamp.type", "LogAppendTime")],
    );
    let producer = producer(&brokers, &[]);
    let record = BaseRecord::<[u8], [u8]>::to(&topic)
        .payload(&b"v"[..])
        .timestamp(5);
    send(&producer, record);
    producer.flush(PATIENCE).unwrap();
    let batches = read(&brokers, &topic, false, 1);
    let record = batches[0].record(0);
    assert_eq!(record.marks, Mark::LOG_APPEND_TIME | Mark::NULL_KEY);
    assert!(record.timestamp > 1_700_000_000_000, "{}", record.timestamp);
}
