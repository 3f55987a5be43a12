//! The host is killed while it writes a topic beside a table.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use rdkafka::message::{Headers as _, Message as _};
use wasmill_tests::Stage;
use wasmill_tests::artifact::plugin;
use wasmill_tests::flow::{Flow, Pace};
use wasmill_tests::host::Host;
use wasmill_tests::reader::committed;
use wasmill_tests::records::{Made, Place};
use wasmill_tests::stage::pipeline;
use wasmill_tests::wait::eventually;

use super::flights::{passes, total};

const LONG: Duration = Duration::from_secs(120);
const KEYS: usize = 700;

/// What a message says, but for where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    key: String,
    value: Option<String>,
    seq: Option<String>,
}

/// Record `n`: a tombstone is one in fifty.
fn made(n: usize) -> Made {
    let key = format!("k{}", n % KEYS);
    if n % 50 == 49 {
        Made::tombstone(key)
    } else {
        Made::new(key, format!("{{\"seq\":{n}}}"))
    }
}

/// The messages of record `n`.
fn said(n: usize) -> Vec<Said> {
    let key = format!("k{}", n % KEYS);
    if n % 50 == 49 {
        return vec![Said {
            key,
            value: None,
            seq: None,
        }];
    }
    let message = |second: bool| Said {
        key: key.clone(),
        value: Some(format!(
            "{{\"id\":\"{key}\",\"seq\":{n},\"second\":{second}}}"
        )),
        seq: Some(n.to_string()),
    };
    let mut all = vec![message(false)];
    if n.is_multiple_of(10) {
        all.push(message(true));
    }
    all
}

/// Coordinates and content of all messages of a topic, each partition in its order.
fn read(stage: &Stage, topic: &str) -> Vec<(String, Said)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut all = Vec::new();
    let read = committed(stage.bootstrap(), topic, LONG, |message| {
        let header = |name: &str| {
            let mut headers = message.headers().unwrap().iter();
            let found = headers.find(|header| header.key == name)?;
            Some(text(found.value.unwrap()))
        };
        let said = Said {
            key: text(message.key().unwrap()),
            value: message.payload().map(text),
            seq: header("seq"),
        };
        all.push((header("wasmill-coordinates").unwrap(), said));
    });
    read.unwrap();
    all
}

/// The topic holds what the records say, each message at least once, and in the order of its key.
fn holds(read: &[(String, Said)], places: &[Place]) {
    let wanted: BTreeMap<String, (usize, Said)> = places
        .iter()
        .enumerate()
        .flat_map(|(n, place)| {
            let Place { partition, offset } = *place;
            let all = said(n).into_iter().enumerate();
            all.map(move |(index, said)| {
                (format!("records/{partition}/{offset}/{index}"), (n, said))
            })
        })
        .collect();
    let mut seen = BTreeSet::new();
    let mut last: HashMap<&str, (usize, &str)> = HashMap::new();
    for (coordinates, message) in read {
        let Some((n, said)) = wanted.get(coordinates) else {
            panic!("a message nobody asked for: {coordinates} {message:?}");
        };
        assert_eq!(message, said, "{coordinates}");
        if seen.insert(coordinates.as_str()) {
            let now = (*n, coordinates.as_str());
            if let Some(before) = last.insert(&message.key, now) {
                assert!(before < now, "{before:?} stands before {now:?}");
            }
        }
    }
    let missing = wanted.keys().find(|wanted| !seen.contains(wanted.as_str()));
    assert_eq!(missing, None, "of {} messages", wanted.len());
    let tombstones = read.iter().filter(|(_, said)| said.value.is_none());
    assert!(tombstones.count() >= places.len() / 50);
}

async fn staged() -> (Stage, Flow, Host) {
    let stage = Stage::new();
    stage.feed.topic("records", 4).await;
    let flow = Flow::start(stage.bootstrap(), "records", Pace::default(), made);
    let host = stage.host(&pipeline("alerts", &plugin("tests/guests/alerts"), ""));
    (stage, flow, host)
}

async fn ends(stage: &Stage, places: &[Place]) {
    let total = total(places);
    eventually(LONG, "all records are processed", async || {
        stage.positioned("alerts", total).await
    })
    .await;
    let log = "SELECT count(DISTINCT (partition, \"offset\")) FROM alerts_log";
    assert_eq!(stage.number(log).await, total);
    let log = "SELECT count(*) FROM alerts_log";
    assert_eq!(stage.number(log).await, total, "Postgres is exact");
    assert_eq!(stage.dead().await, []);
    holds(&read(stage, "alerts"), places);
}

#[tokio::test]
async fn a_topic_beside_a_table_lacks_nothing_after_three_kills() {
    let (stage, flow, mut host) = staged().await;
    for kill in 1..=3 {
        passes(&stage, kill * 4_000).await;
        host.kill();
        host = stage.again();
    }
    ends(&stage, &flow.stop()).await;
    let exit = host.stop(Duration::from_secs(25));
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let explained = stage.explain();
    assert!(
        explained.contains("kafka topic alerts: at least once")
            && explained.contains("wasmill-coordinates"),
        "{explained}"
    );
}

#[tokio::test]
async fn a_broker_that_goes_and_comes_back_leaves_no_gap_and_no_disorder_in_the_topic() {
    let (stage, flow, mut host) = staged().await;
    let broker = stage.broker.as_ref().unwrap();
    for turn in 1..=3 {
        passes(&stage, turn * 4_000).await;
        broker.set_available(false);
        // Past the patience of a flight, so that its client is thrown away with what it holds.
        tokio::time::sleep(Duration::from_secs(4)).await;
        broker.set_available(true);
    }
    ends(&stage, &flow.stop()).await;
    host.alive().unwrap();
}
