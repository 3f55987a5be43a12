//! A pipeline from topics to topics of one cluster: its host is killed, frozen and joined by another while it works,
//! and a reader of what is committed sees every message once.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use rdkafka::message::{Headers as _, Message as _, OwnedMessage};
use serde_json::Value;
use wasmill_local::{Kafka, KafkaOptions};
use wasmill_tests::Stage;
use wasmill_tests::artifact::plugin;
use wasmill_tests::flow::{Flow, Pace};
use wasmill_tests::proxy::{Protocol, Proxy};
use wasmill_tests::reader;
use wasmill_tests::records::{Made, Place};
use wasmill_tests::skip::skip;
use wasmill_tests::stage::pipeline;
use wasmill_tests::wait::eventually;

use super::flights::total;
use super::two_hosts::second;

const LONG: Duration = Duration::from_secs(240);
const KEYS: usize = 700;
/// Slower than elsewhere: a session has to end while they flow.
const PACE: Pace = Pace {
    backlog: 10_000,
    rate: 3_000,
};
pub(super) const POSITIONS: &str = "wasmill.position.alerts.records";
pub(super) const LETTERS: &str = "wasmill.dead-letter.alerts.records";

/// Record `n`: one in a hundred lacks what the plugin needs.
fn made(n: usize) -> Made {
    let value = if n % 100 == 7 {
        "{}".to_owned()
    } else {
        format!("{{\"seq\":{n}}}")
    };
    Made::new(format!("k{}", n % KEYS), value)
}

/// How many messages record `n` becomes.
fn messages(n: usize) -> usize {
    match n {
        n if n % 100 == 7 => 0,
        n if n.is_multiple_of(10) => 2,
        _ => 1,
    }
}

/// What a reader of committed messages finds in a topic, each partition in its order.
pub(super) fn committed(stage: &Stage, topic: &str) -> Result<Vec<OwnedMessage>, String> {
    let mut all = Vec::new();
    reader::committed(stage.bootstrap(), topic, LONG, |message| {
        all.push(message.detach())
    })?;
    all.sort_by_key(OwnedMessage::partition);
    Ok(all)
}

/// The last committed position of each partition.
pub(super) fn positions(stage: &Stage) -> Result<BTreeMap<i32, Value>, String> {
    let all = committed(stage, POSITIONS)?;
    let positions = all
        .iter()
        .filter(|message| message.key() == Some(&b"position"[..]));
    let mut last = BTreeMap::new();
    for message in positions {
        match message.payload() {
            Some(value) => last.insert(message.partition(), serde_json::from_slice(value).unwrap()),
            None => last.remove(&message.partition()),
        };
    }
    Ok(last)
}

/// How far the pipeline is, over all partitions.
fn position(stage: &Stage) -> Result<i64, String> {
    let positions = positions(stage)?;
    Ok(positions
        .values()
        .map(|position| position["next"].as_i64().unwrap())
        .sum())
}

pub(super) async fn passes(stage: &Stage, wanted: i64) -> i64 {
    eventually(
        LONG,
        &format!("position {wanted} is passed"),
        async || match position(stage)? {
            now if now >= wanted => Ok(()),
            now => Err(format!("at {now}")),
        },
    )
    .await;
    position(stage).unwrap()
}

/// Waits for the end of the records at `places`.
pub(super) async fn ends_exact(stage: &Stage, places: &[Place]) {
    let total = total(places);
    assert_eq!(passes(stage, total).await, total);
    exact(stage, places);
}

/// Nothing lost, nothing doubled, each key in its order, dead letters too; and the ledgers say so.
fn exact(stage: &Stage, places: &[Place]) {
    let mut wanted: HashMap<String, usize> = HashMap::new();
    let mut dead: Vec<String> = Vec::new();
    for (n, Place { partition, offset }) in places.iter().enumerate() {
        for index in 0..messages(n) {
            wanted.insert(format!("records/{partition}/{offset}/{index}"), n);
        }
        if messages(n) == 0 {
            dead.push(format!("{partition}/{offset}/0"));
        }
    }
    let all = wanted.len();
    let mut last: HashMap<Vec<u8>, usize> = HashMap::new();
    for message in committed(stage, "alerts").unwrap() {
        let mut headers = message.headers().unwrap().iter();
        let header = headers.find(|header| header.key == "wasmill-coordinates");
        let coordinates = String::from_utf8(header.unwrap().value.unwrap().to_vec()).unwrap();
        let n = wanted.remove(&coordinates);
        let n = n.unwrap_or_else(|| panic!("doubled, or nobody's: {coordinates}"));
        let key = message.key().unwrap().to_vec();
        if let Some(before) = last.insert(key, n) {
            assert!(before <= n, "{before} stands before {n}");
        }
    }
    assert_eq!(wanted.len(), 0, "of {all} messages are lost");
    let letters = committed(stage, LETTERS).unwrap();
    let mut letters: Vec<String> = letters
        .iter()
        .map(|letter| String::from_utf8(letter.key().unwrap().to_vec()).unwrap())
        .collect();
    letters.sort();
    dead.sort();
    assert_eq!(letters, dead, "dead letters");
    let mut sums = [0; 4];
    for position in positions(stage).unwrap().values() {
        let ledger = position["ledger"].as_array().unwrap().iter();
        let ledger: Vec<i64> = ledger.map(|count| count.as_i64().unwrap()).collect();
        assert_eq!(ledger[0], ledger[1] + ledger[2] + ledger[3], "{position}");
        sums.iter_mut()
            .zip(ledger)
            .for_each(|(sum, count)| *sum += count);
    }
    let count = |count: usize| i64::try_from(count).unwrap();
    let wanted = [places.len(), places.len() - dead.len(), 0, dead.len()].map(count);
    assert_eq!(sums, wanted, "ledgers");
}

/// A real Kafka, a stage on it, and records that flow; `None` where there is none.
pub(super) async fn staged() -> Option<(Kafka, Stage, Flow)> {
    let kafka = started(KafkaOptions::default())?;
    let stage = Stage::on(&kafka.bootstrap());
    let flow = flowing(&stage, 4).await;
    Some((kafka, stage, flow))
}

/// The same, with proxies between the host and its servers.
pub(super) async fn linked(partitions: i32) -> Option<(Kafka, Stage, Flow)> {
    let link = Proxy::new(Protocol::Kafka);
    let kafka = started(KafkaOptions {
        proxy: Some(link.address()),
        ..KafkaOptions::default()
    })?;
    link.point_at(kafka.proxied());
    let stage = Stage::on(&kafka.bootstrap()).behind(link);
    let flow = flowing(&stage, partitions).await;
    Some((kafka, stage, flow))
}

fn started(options: KafkaOptions) -> Option<Kafka> {
    if let Err(missing) = Kafka::available() {
        skip(missing);
        return None;
    }
    let options = KafkaOptions {
        properties: vec![("group.initial.rebalance.delay.ms".into(), "0".into())],
        ..options
    };
    Some(Kafka::start(&options).unwrap())
}

async fn flowing(stage: &Stage, partitions: i32) -> Flow {
    stage.feed.topic("records", partitions).await;
    Flow::start(stage.bootstrap(), "records", PACE, made)
}

/// Produces the records that follow those at `places`, and adds where they are.
fn more(stage: &Stage, count: usize, places: &mut Vec<Place>) {
    let records: Vec<Made> = (places.len()..places.len() + count).map(made).collect();
    places.extend(stage.feed.send("records", &records));
}

/// The pipeline.
pub(super) fn alerts() -> String {
    let file = plugin("tests/guests/alerts");
    pipeline("alerts", &file, "bind.route.log = \"discard\"")
}

#[tokio::test]
async fn topics_alone_are_exact_after_three_kills() {
    let Some((_kafka, stage, flow)) = staged().await else {
        return;
    };
    let mut host = stage.host(&alerts());
    for _ in 1..=3 {
        let before = position(&stage).unwrap();
        passes(&stage, before + 3_000).await;
        host.kill();
        host = stage.again();
    }
    ends_exact(&stage, &flow.stop()).await;
    let exit = host.stop(Duration::from_secs(25));
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let explained = stage.explain();
    assert!(
        explained.contains("kafka topic alerts: exactly once for read_committed readers"),
        "{explained}"
    );
}

#[tokio::test]
async fn topics_alone_are_exact_beside_a_zombie_and_a_second_host() {
    let Some((_kafka, stage, flow)) = staged().await else {
        return;
    };
    let mut zombie = stage.host(&alerts());
    passes(&stage, 2_000).await;
    zombie.signal("STOP");
    let frozen = positions(&stage).unwrap();
    let mut successor = second(&stage);
    // Past the session time-out: all partitions are the other's, whose claims abort what the zombie left open.
    let what = "the other host claims every partition and moves it";
    eventually(LONG, what, async || {
        let now = positions(&stage)?;
        let moved = |(partition, before): (&i32, &Value)| {
            let now = &now[partition];
            now["epoch"].as_i64() > before["epoch"].as_i64()
                && now["next"].as_i64() > before["next"].as_i64()
        };
        match frozen.iter().all(moved) {
            true => Ok(()),
            false => Err(format!("{frozen:?} and {now:?}")),
        }
    })
    .await;
    zombie.signal("CONT");
    let what = "the zombie hears that all are lost, joins again and gets some back";
    eventually(LONG, what, async || {
        zombie.alive()?;
        let log = zombie.stderr();
        match log.split_once("WARN lost") {
            Some((_, after)) if after.contains("INFO processing") => Ok(()),
            _ => Err(log),
        }
    })
    .await;
    let mut places = flow.stop();
    ends_exact(&stage, &places).await;
    more(&stage, 2_000, &mut places);
    ends_exact(&stage, &places).await;
    successor.alive().unwrap();
    assert_eq!(successor.stop(Duration::from_secs(25)).code, Some(0));
    more(&stage, 1_000, &mut places);
    ends_exact(&stage, &places).await;
}
