//! How soon rows flow again after a kill -9, on real Kafka: the same host started again, and another host that takes
//! over. Bounds are promises; what was measured is printed (`--nocapture`).

use std::time::{Duration, Instant};

use wasmill_local::{Kafka, KafkaOptions};
use wasmill_tests::Stage;
use wasmill_tests::expected::shipped_flights;
use wasmill_tests::host::Host;
use wasmill_tests::records::{Feed, Made, Place};
use wasmill_tests::skip::skip;
use wasmill_tests::wait::eventually;

use super::kill::{balanced, ends_exact, passes};
use super::two_hosts::second;
use crate::scenario::flights::flights_in_postgres;

/// From the start of the new process to its first committed row.
const RESTARTED: Duration = Duration::from_secs(3);
/// From the kill to the first row of another host: the session time-out of the group, and as long again as a restart.
const TAKEN_OVER: Duration = Duration::from_secs(6 + 3);
/// Kills of the host that comes back.
const KILLS: usize = 5;
/// Records a round: more than flow in the time until the kill.
const ROUND: usize = 20_000;
const PARTITIONS: i32 = 4;

/// Records being produced: what they are, and where each went.
type Round = std::thread::JoinHandle<(Vec<(String, String)>, Vec<Place>)>;

/// A stage on real Kafka with everything produced so far.
struct Flow {
    stage: Stage,
    flights: Vec<(String, String)>,
    input: Vec<(String, String)>,
    places: Vec<Place>,
    rounds: usize,
    _kafka: Option<Kafka>,
}

impl Flow {
    async fn on_kafka() -> Option<Self> {
        if let Err(missing) = Kafka::available() {
            skip(format_args!("{missing}; {}", missing.hint));
            return None;
        }
        let kafka = Kafka::start(&KafkaOptions::default()).unwrap();
        let stage = Stage::on(&kafka.bootstrap());
        Some(Self::on(stage, Some(kafka)).await)
    }

    async fn on(stage: Stage, kafka: Option<Kafka>) -> Self {
        stage.feed.topic("flights", PARTITIONS).await;
        Self {
            stage,
            flights: shipped_flights(ROUND),
            input: Vec::new(),
            places: Vec::new(),
            rounds: 0,
            _kafka: kafka,
        }
    }

    /// Begins to produce another round of records, under ids of their own.
    fn more(&mut self) -> Round {
        let round = self.rounds;
        self.rounds += 1;
        let flights = self.flights.iter();
        let flights: Vec<(String, String)> = flights
            .map(|(id, text)| (format!("{round}-{id}"), text.clone()))
            .collect();
        let feed = Feed::new(self.stage.bootstrap());
        std::thread::spawn(move || {
            let made = flights
                .iter()
                .map(|(id, text)| Made::new(id.as_bytes(), text.as_bytes()));
            let places = feed.send("flights", &made.collect::<Vec<_>>());
            (flights, places)
        })
    }

    /// Waits until a round is produced.
    fn produced(&mut self, round: Round) {
        let (flights, places) = round.join().unwrap();
        self.input.extend(flights);
        self.places.extend(places);
    }

    fn total(&self) -> i64 {
        i64::try_from(self.input.len()).unwrap()
    }

    /// Where each partition stands.
    async fn positions(&self) -> Vec<i64> {
        let sql = "SELECT next FROM wasmill.position ORDER BY partition";
        let rows = self.stage.rows(sql).await;
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// How long after `since` one of `partitions` stands elsewhere than in `before`: a row and the position are one
    /// commit.
    async fn first_row(&self, since: Instant, before: &[i64], partitions: &[usize]) -> Duration {
        loop {
            let now = self.positions().await;
            let took = since.elapsed();
            if partitions.iter().any(|at| now[*at] > before[*at]) {
                return took;
            }
            assert!(took < Duration::from_secs(60), "no row within {took:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The host is killed while records flow and started again at once; how long until each first row.
    async fn restarts(&mut self, mut host: Host) -> (Host, Vec<Duration>) {
        let all: Vec<usize> = (0..PARTITIONS as usize).collect();
        let mut took = Vec::new();
        for kill in 0..KILLS {
            let done = self.stage.position("flights").await;
            let round = self.more();
            passes(&self.stage, done + 300).await;
            host.kill();
            let before = self.positions().await;
            self.produced(round);
            assert!(
                before.iter().sum::<i64>() < self.total(),
                "kill {kill} came after the end: nothing was proven"
            );
            balanced(&self.stage).await;
            let since = Instant::now();
            host = self.stage.again();
            took.push(self.first_row(since, &before, &all).await);
        }
        (host, took)
    }
}

fn median(took: &[Duration]) -> Duration {
    let mut sorted = took.to_vec();
    sorted.sort();
    sorted[sorted.len() / 2]
}

fn say(what: &str, took: &[Duration]) {
    let worst = took.iter().max().unwrap();
    eprintln!(
        "{what}: median {:.2?}, worst {worst:.2?}: {took:.2?}",
        median(took)
    );
}

#[tokio::test]
async fn a_killed_host_that_starts_again_writes_rows_within_three_seconds() {
    let Some(mut flow) = Flow::on_kafka().await else {
        return;
    };
    let host = flow.stage.host(&flights_in_postgres());
    let (host, took) = flow.restarts(host).await;
    say("kill -9, started again, real Kafka", &took);
    ends_exact(&flow.stage, &flow.input, &flow.places).await;
    balanced(&flow.stage).await;
    assert!(took.iter().all(|took| *took <= RESTARTED), "{took:?}");
    assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
}

#[tokio::test]
async fn the_same_on_the_development_broker() {
    let mut flow = Flow::on(Stage::new(), None).await;
    let host = flow.stage.host(&flights_in_postgres());
    let (_host, took) = flow.restarts(host).await;
    say("kill -9, started again, development broker", &took);
    ends_exact(&flow.stage, &flow.input, &flow.places).await;
    balanced(&flow.stage).await;
    assert!(took.iter().all(|took| *took <= RESTARTED), "{took:?}");
}

#[tokio::test]
async fn another_host_takes_over_within_session_timeout_and_three_seconds() {
    let Some(mut flow) = Flow::on_kafka().await else {
        return;
    };
    let first = flow.stage.host(&flights_in_postgres());
    let round = flow.more();
    passes(&flow.stage, 300).await;
    flow.produced(round);
    let other = second(&flow.stage);
    let stage = &flow.stage;
    // Whoever owns a partition has claimed it: a second claim says that the partition moved.
    let what = "the second host claims a partition and leaves one to the first";
    let kept: Vec<usize> = eventually(Duration::from_secs(60), what, async || {
        let sql = "SELECT partition FROM wasmill.position WHERE epoch = 1";
        let rows = stage.try_rows(sql).await?;
        let kept = rows
            .iter()
            .map(|row| usize::try_from(row.get::<_, i32>(0)).unwrap());
        let kept: Vec<usize> = kept.collect();
        if (1..PARTITIONS as usize).contains(&kept.len()) {
            Ok(kept)
        } else {
            Err(format!("{} of {PARTITIONS} left", kept.len()))
        }
    })
    .await;
    let done = flow.total();
    passes(&flow.stage, done).await;
    let round = flow.more();
    passes(&flow.stage, done + 300).await;
    let since = Instant::now();
    first.kill();
    let before = flow.positions().await;
    flow.produced(round);
    let mut took = Vec::new();
    for partition in &kept {
        took.push(flow.first_row(since, &before, &[*partition]).await);
    }
    assert!(
        before.iter().sum::<i64>() < flow.total(),
        "the kill came after the end: nothing was proven"
    );
    say("kill -9, taken over by another host, real Kafka", &took);
    ends_exact(&flow.stage, &flow.input, &flow.places).await;
    balanced(&flow.stage).await;
    assert!(took.iter().all(|took| *took <= TAKEN_OVER), "{took:?}");
    // Before the dead one's session can have ended nobody else may have its partitions: it was alive at the last beat,
    // at most three seconds before.
    assert!(
        took.iter().min().unwrap() > &Duration::from_secs(2),
        "{took:?}"
    );
    assert_eq!(other.stop(Duration::from_secs(25)).code, Some(0));
}
