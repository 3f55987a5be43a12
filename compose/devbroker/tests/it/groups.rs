//! Consumer groups through librdkafka: sharing, handing over, static members.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use wasmill_devbroker::Broker;

use crate::clients::{
    Seen, assigned, broker_with, config, consumer, consumer_with, eventually, next, producer, send,
    settle,
};
use crate::topics::block_on;

/// Commits what was read before giving partitions away, and counts the times it was asked to change anything.
#[derive(Clone, Default)]
struct Careful {
    rebalances: Arc<AtomicUsize>,
}

impl ClientContext for Careful {}

impl ConsumerContext for Careful {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let partitions = match rebalance {
            Rebalance::Assign(list) => list.count(),
            Rebalance::Revoke(list) => {
                commit_all(consumer);
                list.count()
            }
            Rebalance::Error(error) => panic!("rebalance failed: {error}"),
        };
        if partitions > 0 {
            self.rebalances.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn commit_all(consumer: &BaseConsumer<Careful>) {
    match consumer.commit_consumer_state(CommitMode::Sync) {
        Ok(()) | Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => {}
        Err(error) => panic!("commit failed: {error}"),
    }
}

/// A member that reads on a thread of its own until it is told to leave.
struct Member {
    stop: Arc<AtomicBool>,
    held: Arc<AtomicUsize>,
    read: Arc<AtomicUsize>,
    thread: std::thread::JoinHandle<Vec<Seen>>,
}

impl Member {
    fn start(broker: &Broker) -> Self {
        let (stop, held) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let consumer = consumer_with(broker, "g", &[], Careful::default());
        consumer.subscribe(&["t"]).unwrap();
        let read = Arc::new(AtomicUsize::new(0));
        let (told, holds, reads) = (Arc::clone(&stop), Arc::clone(&held), Arc::clone(&read));
        let thread = std::thread::spawn(move || {
            let mut seen = Vec::new();
            while !told.load(Ordering::SeqCst) {
                if let Some(record) = next(&consumer, Duration::from_millis(20)) {
                    seen.push(record.unwrap());
                }
                reads.store(seen.len(), Ordering::SeqCst);
                holds.store(assigned(&consumer).len(), Ordering::SeqCst);
            }
            commit_all(&consumer);
            seen
        });
        Self {
            stop,
            held,
            read,
            thread,
        }
    }

    fn holds(&self, partitions: usize) -> bool {
        self.held.load(Ordering::SeqCst) == partitions
    }

    fn leave(self) -> Vec<Seen> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

#[test]
fn members_come_and_go_without_gaps_or_repeats() {
    const PARTITIONS: i32 = 4;
    let broker = broker_with("t", PARTITIONS);
    let producer = producer(&broker, &[]);
    let mut sent = 0;
    let mut more = |count: u32| {
        for partition in 0..PARTITIONS {
            send(&producer, "t", partition, sent..sent + count);
        }
        settle(&producer);
        sent += count;
    };
    more(500);
    let first = Member::start(&broker);
    eventually("the first member has all partitions", || first.holds(4));
    more(500);
    let second = Member::start(&broker);
    eventually("two members share", || {
        more(20);
        first.holds(2) && second.holds(2)
    });
    more(500);
    let mut seen = first.leave();
    eventually("the second member has all partitions", || {
        more(20);
        second.holds(4)
    });
    more(500);
    let end = i64::from(sent);
    let total = usize::try_from(end * i64::from(PARTITIONS)).unwrap();
    eventually("as many records are read as were sent", || {
        seen.len() + second.read.load(Ordering::SeqCst) >= total
    });
    seen.extend(second.leave());

    let mut by_partition: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    for record in &seen {
        by_partition
            .entry(record.partition)
            .or_default()
            .push(record.offset);
    }
    assert_eq!(seen.len(), total, "records lost or repeated");
    for (partition, mut offsets) in by_partition {
        offsets.sort_unstable();
        assert_eq!(
            offsets,
            (0..end).collect::<Vec<_>>(),
            "partition {partition}"
        );
        assert_eq!(broker.committed("g", "t", partition), Some(end));
    }
}

#[test]
fn a_static_member_that_restarts_keeps_its_partitions_and_disturbs_nobody() {
    let broker = broker_with("t", 4);
    let start = |instance: &str| {
        let context = Careful::default();
        let rebalances = Arc::clone(&context.rebalances);
        let consumer = consumer_with(&broker, "g", &[("group.instance.id", instance)], context);
        consumer.subscribe(&["t"]).unwrap();
        (consumer, rebalances)
    };
    let (one, _) = start("host-1");
    let (two, disturbed) = start("host-2");
    eventually("both have two partitions", || {
        drop((
            next(&one, Duration::from_millis(10)),
            next(&two, Duration::from_millis(10)),
        ));
        assigned(&one).len() == 2 && assigned(&two).len() == 2
    });
    let before = (
        assigned(&one),
        assigned(&two),
        disturbed.load(Ordering::SeqCst),
    );

    drop(one);
    let (one, _) = start("host-1");
    eventually("the member is back", || {
        drop((
            next(&one, Duration::from_millis(10)),
            next(&two, Duration::from_millis(10)),
        ));
        assigned(&one).len() == 2
    });
    for _ in 0..50 {
        drop((
            next(&one, Duration::from_millis(10)),
            next(&two, Duration::from_millis(10)),
        ));
    }
    assert_eq!(
        (
            assigned(&one),
            assigned(&two),
            disturbed.load(Ordering::SeqCst)
        ),
        before
    );
}

#[test]
fn a_second_process_with_the_same_instance_id_fences_the_first() {
    let broker = broker_with("t", 1);
    let start = || {
        let consumer = consumer(&broker, "g", &[("group.instance.id", "host-1")]);
        consumer.subscribe(&["t"]).unwrap();
        consumer
    };
    let old = start();
    eventually("the first has the partition", || {
        drop(next(&old, Duration::from_millis(10)));
        assigned(&old) == [0]
    });
    let new = start();
    eventually("the second has the partition", || {
        drop(next(&new, Duration::from_millis(10)));
        assigned(&new) == [0]
    });
    eventually("the first is told that it is fenced", || {
        drop(next(&old, Duration::from_millis(10)));
        matches!(
            old.client().fatal_error(),
            Some((RDKafkaErrorCode::FencedInstanceId, _))
        )
    });
    assert_eq!(new.client().fatal_error(), None);
}

#[test]
fn tools_see_the_group() {
    let broker = broker_with("t", 1);
    let consumer = consumer(&broker, "g", &[("client.id", "reader")]);
    consumer.subscribe(&["t"]).unwrap();
    eventually("it has the partition", || {
        drop(next(&consumer, Duration::from_millis(10)));
        assigned(&consumer) == [0]
    });
    let list = consumer
        .fetch_group_list(None, crate::clients::PATIENCE)
        .unwrap();
    let group = &list.groups()[0];
    assert_eq!(
        (group.name(), group.state(), group.protocol()),
        ("g", "Stable", "cooperative-sticky")
    );
    assert_eq!(group.members()[0].client_id(), "reader");
}

#[test]
fn a_group_is_forgotten_with_its_offsets_once_it_has_no_members() {
    let broker = broker_with("t", 1);
    let admin: AdminClient<DefaultClientContext> = config(&broker, &[]).create().unwrap();
    let delete = || {
        let options = AdminOptions::new();
        let deleted = block_on(admin.delete_groups(&["g"], &options)).unwrap();
        deleted
            .into_iter()
            .next()
            .unwrap()
            .map_err(|(_, code)| code)
    };
    assert_eq!(delete(), Err(RDKafkaErrorCode::GroupIdNotFound));
    let member = consumer(&broker, "g", &[]);
    member.subscribe(&["t"]).unwrap();
    eventually("it is a member", || {
        member.poll(Duration::from_millis(10));
        !assigned(&member).is_empty()
    });
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("t", 0, Offset::Offset(7))
        .unwrap();
    member.commit(&list, CommitMode::Sync).unwrap();
    assert_eq!(delete(), Err(RDKafkaErrorCode::NonEmptyGroup));
    assert_eq!(broker.committed("g", "t", 0), Some(7));
    drop(list);
    drop(member);
    eventually("it is forgotten", || delete() == Ok("g".to_owned()));
    assert_eq!(broker.committed("g", "t", 0), None);
}
