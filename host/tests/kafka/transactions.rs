//! The Kafka anchor: what one transaction holds, who is fenced, and what a new claim finds after any failure. Each
//! test runs on the development broker and on a real Kafka.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::producer::{BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};
use wasmill::anchor::{
    Ahead, Anchor as _, Claim, CommitError, Cut, DeadLetters as _, Flight, HereRows, Ledger,
    LetterFilter, LetterPage, Part, Pin, Stored,
};
use wasmill::error::{Blame, Error};
use wasmill::kafka::{
    AnchorTopics, Author, COORDINATES, KafkaAnchor, KafkaAnchorSettings, KafkaLetters, KafkaRoute,
    KafkaSettings, Producers, Transactions,
};
use wasmill::manifest::{Create, KafkaTopic, KeyFormat, ValueFormat};
use wasmill::record::{Batch, Column, Op, Record, RowBatch, cells};
use wasmill::route::{DeadClass, DeadLetter};
use wasmill_devbroker::{Broker, Options};

use crate::harness::{PATIENCE, block_on, create_topic, fresh, kafka, producer, real, send};

/// Runs a test on every kind of broker there is.
fn each(test: impl Fn(&Place)) {
    let broker = Broker::start(Options::default()).unwrap();
    test(&Place::on(&broker.bootstrap()));
    if let Some(brokers) = real() {
        test(&Place::on(&brokers));
    }
}

/// A pipeline of its own on a cluster.
struct Place {
    brokers: String,
    pipeline: String,
    output: String,
}

impl Place {
    fn on(brokers: &str) -> Self {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let place = Self {
            brokers: brokers.to_owned(),
            pipeline: fresh(&format!("txn{number}")),
            output: fresh(&format!("output{number}")),
        };
        create_topic(brokers, &place.output, 2, &[]);
        block_on(place.topics().ensure(&place.kafka(), 2)).unwrap();
        place
    }

    fn topics(&self) -> AnchorTopics {
        AnchorTopics::of(&self.pipeline, "input")
    }

    fn kafka(&self) -> KafkaSettings {
        kafka(&self.brokers)
    }

    fn anchor(&self, transactions: &Transactions) -> KafkaAnchor {
        let column = |name: &str, ty: &str| Column {
            name: name.to_owned(),
            ty: ty.parse().unwrap(),
            nullable: false,
        };
        let topic = KafkaTopic {
            topic: self.output.clone(),
            key: vec![0],
            key_format: KeyFormat::Text,
            value: ValueFormat::Json,
            headers: Vec::new(),
            create: Create::Never,
            partitions: None,
            replication: None,
        };
        let route = KafkaRoute {
            name: "alerts".to_owned(),
            columns: vec![column("id", "text"), column("number", "int64")],
            topic,
        };
        let settings = KafkaAnchorSettings {
            kafka: self.kafka(),
            author: Author {
                pipeline: self.pipeline.clone(),
                input: "input".to_owned(),
                plugin: "alerter@1.0.0".to_owned(),
            },
            digest: "digest".to_owned(),
            routes: vec![(1, route)],
        };
        KafkaAnchor::new(settings, transactions)
    }

    /// A host's first anchor, over partitions that stand at 0.
    fn seeded(&self) -> KafkaAnchor {
        let anchor = self.anchor(&Transactions::default());
        block_on(anchor.seed(&[stored(0, 0), stored(1, 0)])).unwrap();
        anchor
    }

    fn letters(&self) -> KafkaLetters {
        KafkaLetters::new(&Producers::default(), "main", self.kafka(), self.topics())
    }

    /// Coordinates of the messages that a read_committed reader sees, by partition in their order.
    fn committed(&self) -> Vec<String> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("group.id", "reader")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        for partition in 0..2 {
            list.add_partition_offset(&self.output, partition, Offset::Beginning)
                .unwrap();
        }
        consumer.assign(&list).unwrap();
        let mut seen: BTreeMap<i32, Vec<String>> = BTreeMap::new();
        // A partition whose fetch begins anew may end twice.
        let (mut ended, begun) = (BTreeSet::new(), Instant::now());
        while ended.len() < 2 {
            assert!(begun.elapsed() < PATIENCE);
            match consumer.poll(Duration::from_millis(100)) {
                None => {}
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    ended.insert(partition);
                }
                Some(message) => {
                    let message = message.unwrap();
                    let header = message.headers().unwrap().iter();
                    let mut header = header.filter(|header| header.key == COORDINATES);
                    let text = header.next().unwrap().value.unwrap().to_vec();
                    let seen = seen.entry(message.partition()).or_default();
                    seen.push(String::from_utf8(text).unwrap());
                }
            }
        }
        seen.into_values().flatten().collect()
    }
}

fn stored(partition: i32, next: i64) -> Stored {
    Stored {
        partition,
        next,
        cuts: vec![Cut::new(next, "first")],
        topic_id: Some("the-topic".to_owned()),
    }
}

/// Records of `partition` from `from` up, all of one key: one in ten is set aside, the others are a row each.
struct Work {
    batch: Batch,
    rows: RowBatch,
    dead: Vec<DeadLetter>,
    stamps: Vec<i64>,
    ledger: Ledger,
}

impl Work {
    fn new(claim: &Claim, count: i64) -> Self {
        let mut batch = Batch::new(claim.partition, claim.next);
        let mut rows = RowBatch::default();
        let mut dead = Vec::new();
        let mut stamps = Vec::new();
        for (source, offset) in (0..).zip(claim.next..claim.next + count) {
            batch.push(Record {
                key: Some(b"key"),
                value: (offset % 20 != 9).then_some(b"value"),
                timestamp: 1_700_000_000_000 + offset,
                offset,
                headers: b"",
                marks: 0,
            });
            stamps.push(offset * 2);
            if offset % 10 == 9 {
                dead.push(DeadLetter {
                    source,
                    class: DeadClass::Data,
                    code: "no-good".into(),
                    reason: format!("reason {offset}"),
                });
                continue;
            }
            cells::put_text(rows.cells_mut(), "key");
            cells::put_int64(rows.cells_mut(), offset);
            rows.finish_row(source, Op::Write);
        }
        let (records, dead_count) = (count.cast_unsigned(), dead.len() as u64);
        let ledger = claim
            .ledger
            .settle(records, records - dead_count, dead_count);
        Self {
            batch,
            rows,
            dead,
            stamps,
            ledger: ledger.unwrap(),
        }
    }

    async fn commit(
        &self,
        anchor: &KafkaAnchor,
        claim: &Claim,
        ahead: impl Future<Output = Result<(), Error>>,
    ) -> Result<(), CommitError> {
        let here = [HereRows {
            route: 1,
            rows: &self.rows,
        }];
        let flight = Flight {
            claim,
            from: claim.next,
            to: self.batch.to(),
            reserved: self.batch.to(),
            hlc: self.batch.to() * 2,
            ledger: self.ledger,
            batch: &self.batch,
            stamps: &self.stamps,
            rows: &here,
            dead: &self.dead,
        };
        anchor.commit(flight, Ahead::writes(ahead)).await
    }
}

/// The coordinates of all rows of the records `0..to`.
fn rows_to(partition: i32, to: i64) -> Vec<String> {
    let kept = (0..to).filter(|offset| offset % 10 != 9);
    kept.map(|offset| format!("input/{partition}/{offset}/0"))
        .collect()
}

fn claim(anchor: &KafkaAnchor, partition: i32) -> Claim {
    block_on(anchor.claim(&[partition])).unwrap().remove(0)
}

fn page() -> LetterPage {
    LetterPage {
        after: None,
        most: 100,
        bytes: 100,
    }
}

#[test]
fn position_messages_and_dead_letters_come_back_as_they_were_committed() {
    each(|place| {
        let anchor = place.anchor(&Transactions::default());
        assert_eq!(block_on(anchor.stored()).unwrap(), []);
        assert_eq!(
            block_on(anchor.claim(&[0])).unwrap_err().blame(),
            Blame::Config,
            "a missing position is a data loss, never a first start"
        );
        block_on(anchor.seed(&[stored(0, 0), stored(1, 5)])).unwrap();
        block_on(anchor.seed(&[stored(0, 3), stored(1, 7)])).unwrap();
        let all = [stored(0, 0), stored(1, 5)];
        assert_eq!(block_on(anchor.stored()).unwrap(), all, "the first stay");

        let claims = block_on(anchor.claim(&[1, 0])).unwrap();
        assert_eq!((claims[0].partition, claims[0].next), (1, 5));
        let first = &claims[1];
        assert_eq!((first.next, first.reserved, first.epoch.number), (0, 0, 1));
        assert_eq!(first.cuts, stored(0, 0).cuts);
        let work = Work::new(first, 25);
        block_on(work.commit(&anchor, first, async { Ok(()) })).unwrap();
        let cuts = [Cut::new(0, "first"), Cut::new(40, "second")];
        let pin = Pin {
            reserved: 40,
            cuts: &cuts,
        };
        block_on(anchor.pin(first, 25, pin)).unwrap();
        assert_eq!(place.committed(), rows_to(0, 25));

        let second = claim(&anchor, 0);
        assert_eq!((second.next, second.reserved, second.hlc), (25, 40, 50));
        assert_eq!(second.ledger.counts(), [25, 23, 0, 2]);
        assert_eq!(second.cuts, cuts);
        assert_eq!(second.topic_id.as_deref(), Some("the-topic"));
        assert_eq!(second.epoch.number, first.epoch.number + 1);
        assert_ne!(second.epoch.id, first.epoch.id);

        let letters = place.letters();
        let found = block_on(letters.list(&LetterFilter::default(), page())).unwrap();
        let offsets: Vec<i64> = found.iter().map(|letter| letter.at.offset).collect();
        assert_eq!(offsets, [9, 19]);
        let letter = &found[1];
        assert_eq!((&*letter.code, &*letter.reason), ("no-good", "reason 19"));
        assert_eq!(
            (letter.stamp, letter.timestamp),
            (Some(38), 1_700_000_000_019)
        );
        assert_eq!(letter.key.bytes(), Some(&b"key"[..]));
        assert_eq!(found[0].value, Part::Null);
        assert_eq!(letter.value.bytes(), Some(&b"value"[..]));
        let some = LetterFilter {
            from: Some(10),
            code: Some("no-good".to_owned()),
            ..LetterFilter::default()
        };
        assert_eq!(block_on(letters.list(&some, page())).unwrap(), found[1..]);
        assert_eq!(block_on(letters.remove(&found[..1])).unwrap(), 1);
        let left = block_on(letters.list(&LetterFilter::default(), page())).unwrap();
        assert_eq!(left, found[1..]);
    });
}

#[test]
fn letters_are_listed_in_the_order_of_their_partitions_page_by_page() {
    each(|place| {
        let anchor = place.seeded();
        for claim in block_on(anchor.claim(&[1, 0])).unwrap() {
            let work = Work::new(&claim, 40);
            block_on(work.commit(&anchor, &claim, async { Ok(()) })).unwrap();
        }
        let letters = place.letters();
        let list = |filter: &LetterFilter, page: LetterPage| {
            let found = block_on(letters.list(filter, page)).unwrap();
            let at = found.iter().map(|letter| letter.at);
            at.map(|at| (at.partition, at.offset)).collect::<Vec<_>>()
        };
        let all = LetterFilter::default();
        let three = LetterPage { most: 3, ..page() };
        assert_eq!(list(&all, three), [(0, 9), (0, 19), (0, 29)]);
        let last = block_on(letters.list(&all, three)).unwrap().pop();
        let next = LetterPage {
            after: last.map(|letter| letter.at),
            ..three
        };
        assert_eq!(list(&all, next), [(0, 39), (1, 9), (1, 19)]);
        let second = LetterFilter {
            partition: Some(1),
            ..LetterFilter::default()
        };
        assert_eq!(list(&second, three), [(1, 9), (1, 19), (1, 29)]);
    });
}

#[test]
fn a_partition_that_left_is_let_go_of_and_the_others_go_on() {
    each(|place| {
        let anchor = place.seeded();
        let claims = block_on(anchor.claim(&[0, 1])).unwrap();
        anchor.release(&[0]);
        let commit = |claim: &Claim| {
            let work = Work::new(claim, 10);
            block_on(work.commit(&anchor, claim, async { Ok(()) }))
        };
        let gone = commit(&claims[0]).unwrap_err();
        assert!(matches!(gone, CommitError::Unknown(_)), "{gone:?}");
        commit(&claims[1]).unwrap();
        let again = claim(&anchor, 0);
        assert_eq!((again.next, again.epoch.number), (0, 2));
        commit(&again).unwrap();
    });
}

#[test]
fn a_claim_fences_the_owner_before_and_nothing_of_its_open_transaction_is_seen() {
    each(|place| {
        // Two hosts: neither knows the other's claims.
        let old = place.seeded();
        let new = place.anchor(&Transactions::default());
        let mine = claim(&old, 0);
        let work = Work::new(&mine, 30);
        block_on(work.commit(&old, &mine, async { Ok(()) })).unwrap();
        let mine = Claim {
            next: 30,
            ledger: work.ledger,
            ..mine
        };
        let work = Work::new(&mine, 30);
        // Taken over while the transaction of the old owner is open, with its messages sent.
        let taken = Cell::new(None);
        let outcome = block_on(work.commit(&old, &mine, async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            taken.set(Some(new.claim(&[0]).await.unwrap().remove(0)));
            Ok(())
        }));
        assert!(
            matches!(outcome, Err(CommitError::Fenced(_))),
            "{outcome:?}"
        );
        let again = block_on(old.pin(
            &mine,
            30,
            Pin {
                reserved: 30,
                cuts: &[],
            },
        ));
        assert!(matches!(again, Err(CommitError::Fenced(_))), "{again:?}");
        let theirs = taken.take().unwrap();
        assert_eq!((theirs.next, theirs.epoch.number), (30, 2));
        assert_eq!(place.committed(), rows_to(0, 30));
        let work = Work::new(&theirs, 30);
        block_on(work.commit(&new, &theirs, async { Ok(()) })).unwrap();
        assert_eq!(place.committed(), rows_to(0, 60));
        let letters = place.letters();
        let found = block_on(letters.list(&LetterFilter::default(), page())).unwrap();
        assert_eq!(found.len(), 6, "one of each");
        // A claim of the same host supersedes its own as well.
        let newest = claim(&new, 0);
        let outcome = block_on(Work::new(&newest, 1).commit(&new, &theirs, async { Ok(()) }));
        assert!(
            matches!(outcome, Err(CommitError::Fenced(_))),
            "{outcome:?}"
        );
    });
}

#[test]
fn what_fails_ahead_leaves_nothing_and_only_a_new_claim_goes_on() {
    each(|place| {
        let anchor = place.seeded();
        let first = claim(&anchor, 1);
        let work = Work::new(&first, 20);
        let failed = async { Err(Error::outside("write ahead", "away")) };
        let outcome = block_on(work.commit(&anchor, &first, failed));
        assert!(matches!(outcome, Err(CommitError::Ahead(_))), "{outcome:?}");
        let outcome = block_on(work.commit(&anchor, &first, async { Ok(()) }));
        assert!(
            matches!(outcome, Err(CommitError::Unknown(_))),
            "{outcome:?}"
        );
        let second = claim(&anchor, 1);
        assert_eq!((second.next, second.epoch.number), (0, 2));
        assert_eq!(place.committed(), Vec::<String>::new());
        block_on(work.commit(&anchor, &second, async { Ok(()) })).unwrap();
        assert_eq!(place.committed(), rows_to(1, 20));
    });
}

#[test]
fn a_commit_cut_short_at_any_moment_is_told_by_the_next_claim() {
    each(|place| {
        let anchor = place.seeded();
        let mut owned = claim(&anchor, 0);
        let (mut committed, mut undone, mut cut) = (0, 0, 0);
        for turn in 0..20_u64 {
            let work = Work::new(&owned, 10);
            // From before the first message to after the end of the transaction.
            let limit = Duration::from_micros(turn * 700);
            let outcome = block_on(async {
                let commit = work.commit(&anchor, &owned, async { Ok(()) });
                tokio::time::timeout(limit, commit).await
            });
            cut += i32::from(outcome.is_err());
            if let Ok(outcome) = outcome {
                outcome.unwrap();
            }
            let next = claim(&anchor, 0);
            if next.next == owned.next + 10 {
                committed += 1;
                assert_eq!(next.ledger, work.ledger);
            } else {
                undone += 1;
                assert_eq!((next.next, next.ledger), (owned.next, owned.ledger));
            }
            owned = next;
        }
        assert!(
            cut > 0 && undone > 0 && committed > 0,
            "{cut} {undone} {committed}"
        );
        assert_eq!(place.committed(), rows_to(0, owned.next));
    });
}

#[test]
fn brokers_that_are_away_while_a_flight_is_sent_leave_one_outcome() {
    let broker = Broker::start(Options::default()).unwrap();
    let place = Place::on(&broker.bootstrap());
    let anchor = place.seeded();
    let mut owned = claim(&anchor, 0);
    for turn in 0..2 {
        let work = Work::new(&owned, 10);
        let outcome = block_on(work.commit(&anchor, &owned, async {
            broker.set_available(false);
            Ok(())
        }));
        assert!(
            matches!(outcome, Err(CommitError::Unknown(_))),
            "{outcome:?}"
        );
        broker.set_available(true);
        let next = claim(&anchor, 0);
        assert_eq!(
            next.next, owned.next,
            "turn {turn}: it never got to its end"
        );
        block_on(work.commit(&anchor, &next, async { Ok(()) })).unwrap();
        owned = claim(&anchor, 0);
    }
    assert_eq!(place.committed(), rows_to(0, 20));
}

#[test]
fn the_last_position_is_found_behind_whatever_lies_on_it_and_strangers_are_refused() {
    each(|place| {
        let anchor = place.seeded();
        let topic = place.topics().positions;
        let other = producer(&place.brokers, &[]);
        let tell = |key: &[u8]| {
            let record = BaseRecord::<[u8], [u8]>::to(&topic).partition(0);
            send(&other, record.key(key).payload(b"none of ours"));
        };
        (0..5000).for_each(|_| tell(b"junk"));
        other.flush(PATIENCE).unwrap();
        assert_eq!(
            block_on(anchor.stored()).unwrap(),
            [stored(0, 0), stored(1, 0)]
        );
        assert_eq!(claim(&anchor, 0).epoch.number, 1);
        tell(b"position");
        other.flush(PATIENCE).unwrap();
        let error = block_on(anchor.claim(&[0])).unwrap_err();
        assert_eq!(error.blame(), Blame::Config, "{error}");
        assert_eq!(claim(&anchor, 1).epoch.number, 1);
    });
}

#[test]
fn the_anchors_topics_grow_with_the_input_and_have_to_be_compacted() {
    each(|place| {
        let (topics, kafka) = (place.topics(), place.kafka());
        block_on(topics.ensure(&kafka, 4)).unwrap();
        let anchor = place.seeded();
        block_on(anchor.seed(&[stored(3, 0)])).unwrap();
        assert_eq!(claim(&anchor, 3).partition, 3);
    });
    let Some(brokers) = real() else { return };
    let topics = AnchorTopics::of(&fresh("deleted"), "input");
    create_topic(
        &brokers,
        &topics.positions,
        1,
        &[("cleanup.policy", "delete")],
    );
    let error = block_on(topics.ensure(&kafka(&brokers), 1)).unwrap_err();
    assert_eq!(error.blame(), Blame::Config, "{error}");
    assert!(error.detail().contains("cleanup.policy"), "{error}");
}

#[test]
#[ignore = "a measurement: cargo test -p wasmill --test kafka transactions::measure -- --ignored --nocapture"]
fn measure_commits() {
    let Some(brokers) = real() else { return };
    for rows in [1, 100, 1000, 4000] {
        let place = Place::on(&brokers);
        let anchor = place.seeded();
        let begun = Instant::now();
        let mut owned = claim(&anchor, 0);
        println!("claim {:?}", begun.elapsed());
        let mut took: Vec<Duration> = (0..100)
            .map(|_| {
                let work = Work::new(&owned, rows);
                let begun = Instant::now();
                block_on(work.commit(&anchor, &owned, async { Ok(()) })).unwrap();
                owned.next += rows;
                owned.ledger = work.ledger;
                begun.elapsed()
            })
            .collect();
        let all: Duration = took.iter().sum();
        took.sort();
        println!(
            "{rows} records a flight: p50 {:?} p95 {:?}, {} records/s a lane",
            took[50],
            took[95],
            u128::from(rows.cast_unsigned()) * 100_000 / all.as_millis()
        );
    }
}
