//! The plugin zoo beside an honest pipeline: traps, memory, endless loops, floods and giant output cost those who make
//! them, and after the first time the neighbour's records hardly wait longer.

use std::time::{Duration, Instant};

use wasmill_tests::records::Made;
use wasmill_tests::stage::pipeline;
use wasmill_tests::steady::{self, Steady};
use wasmill_tests::wait::eventually;
use wasmill_tests::{Stage, artifact, latency};

/// Times that the zoo comes and goes. In turns, so that whatever else this machine is busy with is beside both.
const TURNS: usize = 6;
/// How long the neighbour is alone each time, once the zoo has been quiet for [`REST`].
const ALONE: Duration = Duration::from_secs(6);
/// How long the zoo takes to finish its last burst.
const REST: Duration = Duration::from_secs(2);
/// How long the zoo is beside it each time.
const BESIDE: Duration = Duration::from_secs(10);

/// The neighbour's p99 in the first turn: each animal costs it something once, before it is moved.
const ONCE: Duration = Duration::from_secs(1);

/// Later its p99 may double, or grow by this: guests that are quarantined still share two cores, a disk and a Postgres
/// with it, in a build that is not optimised. Left where they are, they cost it hundreds of milliseconds at every burst.
const NOISE: Duration = Duration::from_millis(40);

/// Guest, its own table's columns, an innocent record, and records that misbehave.
const ZOO: [(&str, &str, &str, &[&str]); 6] = [
    (
        "trap",
        "id text",
        "{}",
        &[r#"{"mark":"trap"}"#, r#"{"mark":"panic"}"#],
    ),
    (
        "memory-hog",
        "id text",
        "{}",
        &[r#"{"mark":"hog"}"#, r#"{"mark":"grow"}"#],
    ),
    (
        "giant-output",
        "id text, payload bytea",
        r#"{"mib":0}"#,
        &[r#"{"mib":17}"#, r#"{"mib":15}"#],
    ),
    (
        "fanout",
        "id text, number int",
        r#"{"rows":1}"#,
        &[r#"{"rows":10001}"#, r#"{"rows":9999}"#],
    ),
    ("spin-forever", "id text", "{}", &[r#"{"mark":"spin"}"#]),
    ("log-flood", "id text", "{}", &["{}"]),
];

/// Innocent records between two that misbehave; dead letters stay below the default of one in twenty.
const BETWEEN: usize = 40;

fn table(guest: &str) -> String {
    format!("zoo_{}", guest.replace('-', "_"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_zoo_does_not_slow_its_neighbour_down() {
    let stage = Stage::new();
    stage.feed.topic("quiet", 2).await;
    latency::create_table(&stage, "quiet").await;
    let mut config = pipeline(
        "quiet",
        &latency::guest(),
        &latency::overlay("quiet", "quiet"),
    );
    // One animal alone, to find out who it is: ZOO=spin-forever.
    let only = std::env::var("ZOO").ok();
    let zoo: Vec<_> = ZOO
        .into_iter()
        .filter(|(guest, ..)| only.as_deref().is_none_or(|only| only == *guest))
        .collect();
    for (guest, columns, ..) in &zoo {
        stage.feed.topic(guest, 1).await;
        let table = table(guest);
        stage
            .execute(&format!("CREATE TABLE {table} ({columns})"))
            .await;
        let bind = format!(
            "bind.input.records = {{ kafka = \"main\", topic = \"{guest}\" }}\n\
             bind.route.seen = {{ connection = \"main\", table = \"{table}\" }}\n\
             limits.run_time = \"200ms\""
        );
        let file = artifact::plugin(&format!("tests/guests/{guest}"));
        config.push_str(&pipeline(guest, &file, &bind));
    }
    let mut host = stage.host(&config);
    let neighbour = Steady::start(
        stage.bootstrap(),
        "quiet",
        200,
        steady::empty(2),
        steady::stamped,
    );
    eventually(Duration::from_secs(60), "the neighbour runs", async || {
        host.alive()?;
        match stage.number("SELECT count(*) FROM quiet").await {
            0 => Err("no row yet".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    // The start of the other pipelines is no part of the measurement.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (mut calm, mut loud) = (Vec::new(), Vec::new());
    let mut number = 0;
    for _ in 0..TURNS {
        let alone = latency::now();
        tokio::time::sleep(ALONE).await;
        let beside = latency::now();
        let end = Instant::now() + BESIDE;
        while Instant::now() < end {
            for (guest, _, plain, bad) in &zoo {
                let innocent = (0..BETWEEN).map(|n| Made::new(format!("{number}-{n}"), *plain));
                let guilty = Made::new(format!("{number}"), bad[number % bad.len()]);
                let all: Vec<Made> = innocent.chain([guilty]).collect();
                stage.feed.send(guest, &all);
            }
            number += 1;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        calm.push(alone..beside);
        loud.push(beside..latency::now());
        tokio::time::sleep(REST).await;
    }
    let made: i64 = neighbour.stop().values().sum();
    eventually(
        Duration::from_secs(60),
        "the neighbour has all its records",
        async || {
            host.alive()?;
            stage.reaches("SELECT count(*) FROM quiet", made).await
        },
    )
    .await;
    let later = loud.split_off(1);
    let without = latency::delays(&stage, "quiet", calm).await;
    let first = latency::delays(&stage, "quiet", loud).await;
    let beside = latency::delays(&stage, "quiet", later).await;
    eprintln!("the neighbour: {without} without the zoo, {first} when it came, {beside} later");
    assert!(first.p99 <= ONCE, "the zoo came: {first}");
    assert!(
        beside.p99 <= without.p99 + without.p99.max(NOISE),
        "the zoo slows its neighbour down: {beside} instead of {without}"
    );
    if only.is_some() {
        return;
    }
    // The zoo really misbehaved: each of its dead letters, and the pipeline that stopped.
    let dead = "SELECT count(DISTINCT pipeline) FROM wasmill.dead_letter";
    let dead = stage.number(dead).await;
    assert!(
        dead >= 4,
        "{dead} pipelines have dead letters:\n{}",
        host.stderr()
    );
    assert!(host.stderr().contains("spin-forever"), "{}", host.stderr());
    // Who held the shard was moved, and nobody else.
    let stderr = host.stderr();
    let moved = |guest: &str| {
        let mut lines = stderr.lines().filter(|line| line.contains("quarantined"));
        lines.any(|line| line.contains(guest))
    };
    for (guest, is) in [
        ("giant-output", true),
        ("spin-forever", true),
        ("quiet", false),
    ] {
        assert_eq!(moved(guest), is, "{guest}:\n{stderr}");
    }
    let stopped = stage.position("spin-forever").await;
    assert!(
        stopped <= i64::try_from(BETWEEN).unwrap(),
        "nothing is decided about a record that never returns: {stopped}"
    );
}
