//! Rows as messages of a topic: what a reader finds there, and what a sink says when it cannot write.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use wasmill::error::{Blame, Error};
use wasmill::kafka::{
    Author, COORDINATES, KafkaRoute, KafkaSink, KafkaSinkSettings, Make, Producers, WRITER,
    ensure_topic,
};
use wasmill::manifest::{Create, KafkaTopic, KeyFormat, ValueFormat};
use wasmill::record::{Batch, Column, Op, Record, RowBatch, cells};
use wasmill::sink::{AheadRows, AheadSink as _};
use wasmill_devbroker::{Broker, Options};

use crate::harness::{PATIENCE, block_on, create_topic, delete_topic, fresh, kafka, real};

fn topic(name: &str) -> KafkaTopic {
    KafkaTopic {
        topic: name.to_owned(),
        key: vec![0],
        key_format: KeyFormat::Text,
        value: ValueFormat::Json,
        headers: vec![("number".to_owned(), 1)],
        create: Create::Never,
        partitions: None,
        replication: None,
    }
}

fn sink(producers: &Producers, brokers: &str, name: &str) -> KafkaSink {
    patient(producers, brokers, name, Duration::from_secs(3))
}

fn patient(producers: &Producers, brokers: &str, name: &str, patience: Duration) -> KafkaSink {
    let column = |name: &str, ty: &str| Column {
        name: name.to_owned(),
        ty: ty.parse().unwrap(),
        nullable: false,
    };
    let settings = KafkaSinkSettings {
        cluster: "main".to_owned(),
        kafka: kafka(brokers),
        route: KafkaRoute {
            name: "alerts".to_owned(),
            columns: vec![column("id", "text"), column("number", "int64")],
            topic: topic(name),
        },
        author: Author {
            pipeline: "p".to_owned(),
            input: "records".to_owned(),
            plugin: "alerter@1.0.0".to_owned(),
        },
        patience,
    };
    KafkaSink::new(producers, &settings)
}

/// A batch of partition 7 and its rows: `rows(offset)` are key and number, `None` a delete.
fn flight(
    offsets: std::ops::Range<i64>,
    rows: impl Fn(i64) -> Vec<(String, Option<i64>)>,
) -> (Batch, RowBatch) {
    let mut batch = Batch::new(7, offsets.start);
    let mut out = RowBatch::default();
    for (source, offset) in (0..).zip(offsets) {
        batch.push(Record {
            key: None,
            value: Some(b""),
            timestamp: 1_700_000_000_000 + offset,
            offset,
            headers: b"",
            marks: 0,
        });
        for (key, number) in rows(offset) {
            cells::put_text(out.cells_mut(), &key);
            match number {
                Some(number) => cells::put_int64(out.cells_mut(), number),
                None => cells::put_unset(out.cells_mut()),
            }
            let op = if number.is_some() {
                Op::Write
            } else {
                Op::Delete
            };
            out.finish_row(source, op);
        }
    }
    (batch, out)
}

fn write(sink: &KafkaSink, flight: &(Batch, RowBatch)) -> Result<(), Error> {
    let rows = AheadRows {
        rows: &flight.1,
        batch: &flight.0,
        stamps: &[],
        now: 0,
    };
    block_on(sink.write(rows))
}

/// A message as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    partition: i32,
    key: Option<String>,
    value: Option<String>,
    timestamp: Option<i64>,
    headers: BTreeMap<String, String>,
}

impl Seen {
    fn coordinates(&self) -> &str {
        &self.headers[COORDINATES]
    }
}

/// All messages of a topic, in the order of their partitions.
fn read(brokers: &str, topic: &str, partitions: i32) -> Vec<Seen> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "reader")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .create()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut all = Vec::new();
    for partition in 0..partitions {
        let (low, high) = consumer
            .fetch_watermarks(topic, partition, PATIENCE)
            .unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(low))
            .unwrap();
        consumer.assign(&list).unwrap();
        let begin = Instant::now();
        let mut next = low;
        while next < high {
            assert!(begin.elapsed() < PATIENCE, "{next} of {high}");
            let Some(message) = consumer.poll(Duration::from_millis(100)) else {
                continue;
            };
            let message = message.unwrap();
            next = message.offset() + 1;
            let headers = message.headers().unwrap().iter();
            all.push(Seen {
                partition,
                key: message.key().map(text),
                value: message.payload().map(text),
                timestamp: message.timestamp().to_millis(),
                headers: headers
                    .map(|header| (header.key.to_owned(), text(header.value.unwrap_or(b"none"))))
                    .collect(),
            });
        }
    }
    all
}

fn messages(brokers: &str, name: &str) {
    create_topic(brokers, name, 3, &[]);
    let producers = Producers::default();
    let sink = sink(&producers, brokers, name);
    let flight = flight(10..13, |offset| match offset {
        10 => vec![("a".to_owned(), Some(1)), ("b".to_owned(), Some(2))],
        11 => Vec::new(),
        _ => vec![("a".to_owned(), None)],
    });
    write(&sink, &flight).unwrap();
    // As after a crash between the acknowledgements and the anchor's commit.
    write(&sink, &flight).unwrap();
    let seen = read(brokers, name, 3);
    let of = |key: &str| -> Vec<Seen> {
        let of = seen.iter().filter(|seen| seen.key.as_deref() == Some(key));
        of.cloned().collect()
    };
    let headers = |coordinates: &str, number: Option<&str>| {
        let mut headers = BTreeMap::from([
            (COORDINATES.to_owned(), coordinates.to_owned()),
            (WRITER.to_owned(), "p/alerts/alerter@1.0.0".to_owned()),
        ]);
        headers.extend(number.map(|number| ("number".to_owned(), number.to_owned())));
        headers
    };
    let a = of("a");
    let first = Seen {
        partition: a[0].partition,
        key: Some("a".to_owned()),
        value: Some(r#"{"id":"a","number":1}"#.to_owned()),
        timestamp: Some(1_700_000_000_010),
        headers: headers("records/7/10/0", Some("1")),
    };
    let tombstone = Seen {
        value: None,
        timestamp: Some(1_700_000_000_012),
        headers: headers("records/7/12/0", None),
        ..first.clone()
    };
    assert_eq!(a, [first.clone(), tombstone.clone(), first, tombstone]);
    let b = of("b");
    assert_eq!(b.len(), 2);
    assert_eq!(b[0], b[1]);
    assert_eq!(b[0].coordinates(), "records/7/10/1");
    assert_eq!(seen.len(), 6);
}

#[test]
fn every_row_is_a_message_and_a_repeat_has_the_same_coordinates() {
    let broker = Broker::start(Options::default()).unwrap();
    messages(&broker.bootstrap(), "messages");
}

#[test]
fn every_row_is_a_message_and_a_repeat_has_the_same_coordinates_in_real_kafka() {
    if let Some(brokers) = real() {
        messages(&brokers, &fresh("messages"));
    }
}

#[test]
fn keys_go_where_the_java_client_puts_them() {
    let broker = Broker::start(Options::default()).unwrap();
    let brokers = broker.bootstrap();
    create_topic(&brokers, "java", 100, &[]);
    let producers = Producers::default();
    let keys = ["21", "foobar", "a-little-bit-long-string"];
    let flight = flight(0..3, |offset| {
        vec![(keys[usize::try_from(offset).unwrap()].to_owned(), Some(0))]
    });
    write(&sink(&producers, &brokers, "java"), &flight).unwrap();
    // murmur2 of these, from Kafka's own UtilsTest (testMurmur2), without the sign, modulo the partitions.
    let hashes: [i32; 3] = [-973_932_308, -790_332_482, -985_981_536];
    let seen: HashMap<String, i32> = read(&brokers, "java", 100)
        .into_iter()
        .map(|seen| (seen.key.unwrap(), seen.partition))
        .collect();
    for (key, hash) in keys.iter().zip(hashes) {
        assert_eq!(seen[*key], (hash & 0x7fff_ffff) % 100, "{key}");
    }
}

#[test]
fn more_rows_than_the_client_holds_wait_and_keep_their_order() {
    let broker = Broker::start(Options::default()).unwrap();
    let brokers = broker.bootstrap();
    create_topic(&brokers, "many", 1, &[]);
    let producers = Producers::default();
    let flight = flight(0..130_000, |offset| {
        vec![(format!("k{}", offset % 9), Some(offset))]
    });
    let sink = patient(&producers, &brokers, "many", PATIENCE);
    write(&sink, &flight).unwrap();
    let seen = read(&brokers, "many", 1);
    let coordinates = seen.iter().map(|seen| seen.coordinates().to_owned());
    let wanted = (0..130_000).map(|offset| format!("records/7/{offset}/0"));
    assert!(coordinates.eq(wanted));
}

#[test]
fn a_broker_that_is_away_is_an_outside_error_and_the_repeat_keeps_the_order() {
    let broker = Broker::start(Options::default()).unwrap();
    let brokers = broker.bootstrap();
    create_topic(&brokers, "away", 2, &[]);
    let producers = Producers::default();
    let sink = sink(&producers, &brokers, "away");
    let other = self::sink(&producers, &brokers, "away");
    let keys = |offset: i64| vec![(format!("k{}", offset % 7), Some(offset))];
    for turn in 0..3 {
        let from = turn * 2_000;
        write(&sink, &flight(from..from + 1_000, keys)).unwrap();
        broker.set_available(false);
        let next = flight(from + 1_000..from + 2_000, keys);
        let begin = Instant::now();
        let error = write(&sink, &next).unwrap_err();
        assert_eq!(error.blame(), Blame::Outside, "{error}");
        assert!(
            error.detail().contains("not acknowledged within 3s"),
            "{error}"
        );
        assert!(
            begin.elapsed() < Duration::from_secs(8),
            "{:?}",
            begin.elapsed()
        );
        broker.set_available(true);
        // The same client fails whoever else used it; the next one serves both.
        write(&other, &next).unwrap();
    }
    let mut firsts: HashMap<String, Vec<i64>> = HashMap::new();
    let mut known = std::collections::HashSet::new();
    for seen in read(&brokers, "away", 2) {
        if known.insert(seen.coordinates().to_owned()) {
            let offset = seen.coordinates().split('/').nth(2).unwrap().parse();
            let of = firsts.entry(seen.key.unwrap()).or_default();
            of.push(offset.unwrap());
        }
    }
    assert_eq!(known.len(), 6_000);
    for (key, offsets) in firsts {
        assert!(offsets.is_sorted(), "{key}");
    }
}

#[test]
fn a_flight_that_is_dropped_leaves_nothing_that_follows_what_others_send() {
    let broker = Broker::start(Options::default()).unwrap();
    let brokers = broker.bootstrap();
    create_topic(&brokers, "dropped", 1, &[]);
    let producers = Producers::default();
    let sink = patient(&producers, &brokers, "dropped", PATIENCE);
    let keys = |offset: i64| vec![("k".to_owned(), Some(offset))];
    write(&sink, &flight(0..10, keys)).unwrap();
    broker.set_available(false);
    let (batch, rows) = flight(10..1_000, keys);
    let rows = AheadRows {
        rows: &rows,
        batch: &batch,
        stamps: &[],
        now: 0,
    };
    // Its lane lost the partition meanwhile: whoever has it now sends other messages.
    let dropped = block_on(async {
        tokio::time::timeout(Duration::from_millis(300), sink.write(rows)).await
    });
    assert!(dropped.is_err(), "no broker took them");
    broker.set_available(true);
    write(&sink, &flight(2_000..2_010, keys)).unwrap();
    let offsets: Vec<i64> = read(&brokers, "dropped", 1)
        .iter()
        .map(|seen| {
            seen.coordinates()
                .split('/')
                .nth(2)
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect();
    let wanted: Vec<i64> = (0..10).chain(2_000..2_010).collect();
    assert_eq!(offsets, wanted);
}

fn absent(brokers: &str, name: &str) {
    create_topic(brokers, name, 1, &[]);
    let producers = Producers::default();
    let sink = patient(&producers, brokers, name, PATIENCE);
    let keys = |offset: i64| vec![(format!("k{offset}"), Some(offset))];
    write(&sink, &flight(0..3, keys)).unwrap();
    delete_topic(brokers, name);
    let error = write(&sink, &flight(3..6, keys)).unwrap_err();
    assert_eq!(error.blame(), Blame::Config, "{error}");
    assert!(
        error.detail().contains("records/7/3/0"),
        "names the record: {error}"
    );
    assert!(
        error.hint_text().unwrap().contains("create it again"),
        "{error:?}"
    );
}

#[test]
fn a_topic_that_was_deleted_stops_the_lane() {
    let broker = Broker::start(Options::default()).unwrap();
    absent(&broker.bootstrap(), "deleted");
}

#[test]
fn a_topic_of_real_kafka_that_was_deleted_stops_the_lane() {
    if let Some(brokers) = real() {
        absent(&brokers, &fresh("deleted"));
    }
}

#[test]
fn a_message_the_topic_refuses_stops_the_lane_and_is_not_tried_for_ever() {
    let Some(brokers) = real() else { return };
    let name = fresh("small");
    create_topic(&brokers, &name, 1, &[("max.message.bytes", "2000")]);
    let sink = sink(&Producers::default(), &brokers, &name);
    let error = write(&sink, &flight(0..1, |_| vec![("k".repeat(5_000), Some(1))])).unwrap_err();
    assert_eq!(error.blame(), Blame::Config, "{error}");
    assert!(
        error.hint_text().unwrap().contains("max.message.bytes"),
        "{error:?}"
    );
    // A deployment would have said so before.
    let error = block_on(ensure_topic(
        &kafka(&brokers),
        "alerts",
        &topic(&name),
        Make::Later,
    ));
    let error = error.unwrap_err();
    assert_eq!(error.blame(), Blame::Config, "{error}");
    assert!(
        error.detail().contains("max.message.bytes is 2000"),
        "{error}"
    );
}

fn contract(brokers: &str, name: &str) {
    let ensure =
        |topic: &KafkaTopic, make| block_on(ensure_topic(&kafka(brokers), "alerts", topic, make));
    let mut wanted = topic(name);
    wanted.partitions = Some(4);
    let error = ensure(&wanted, Make::Allowed).unwrap_err();
    assert_eq!(error.blame(), Blame::Config, "{error}");
    assert!(error.detail().contains("does not exist"), "{error}");
    let command = format!("--create --topic {name} --partitions 4");
    assert!(error.hint_text().unwrap().contains(&command), "{error:?}");

    wanted.create = Create::IfMissing;
    ensure(&wanted, Make::Later).unwrap();
    let still = Create::Never;
    let error = ensure(
        &KafkaTopic {
            create: still,
            ..wanted.clone()
        },
        Make::Later,
    );
    assert!(error.is_err(), "a look creates nothing");
    ensure(&wanted, Make::Allowed).unwrap();
    ensure(&wanted, Make::Allowed).unwrap();
    ensure(&wanted, Make::Later).unwrap();

    wanted.partitions = Some(5);
    let error = ensure(&wanted, Make::Allowed).unwrap_err();
    assert_eq!(error.blame(), Blame::Config, "{error}");
    assert!(
        error
            .detail()
            .contains("has 4 partitions, the route needs 5"),
        "{error}"
    );
    let command = format!("--alter --topic {name} --partitions 5");
    assert!(error.hint_text().unwrap().contains(&command), "{error:?}");
}

#[test]
fn a_topic_is_compared_with_what_a_route_needs_or_made() {
    let broker = Broker::start(Options::default()).unwrap();
    contract(&broker.bootstrap(), "contract");
}

#[test]
fn a_topic_of_real_kafka_is_compared_with_what_a_route_needs_or_made() {
    let Some(brokers) = real() else { return };
    contract(&brokers, &fresh("contract"));
    let name = fresh("compacted-route");
    create_topic(&brokers, &name, 1, &[("cleanup.policy", "compact")]);
    let mut keyless = topic(&name);
    let ensure = |topic: &KafkaTopic| {
        block_on(ensure_topic(
            &kafka(&brokers),
            "alerts",
            topic,
            Make::Allowed,
        ))
    };
    ensure(&keyless).unwrap();
    keyless.key = Vec::new();
    let error = ensure(&keyless).unwrap_err();
    assert!(error.detail().contains("it is compacted"), "{error}");
}
