//! The kinds of faults: each says when it has been seen to have happened, and ends with everything as it was before.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use super::injector::{HEALED, Injector};
use super::tally::Trouble;
use super::{PIPELINE, SESSION};

/// The host that comes and goes.
const GUEST: usize = 2;
/// How long a word in a log may take.
const WORD: Duration = Duration::from_secs(10);

/// What hosts say when a flight or a claim did not go through, by who was away.
const POSTGRES_AWAY: [&[&str]; 4] = [
    &["rolled back"],
    &["unknown"],
    &["cannot claim"],
    &["postgres", "not"],
];
const CASSANDRA_AWAY: [&[&str]; 2] = [&["rolled back", "cassandra"], &["cassandra", "not"]];
const BROKER_AWAY: [&[&str]; 3] = [
    &["producer made anew"],
    &["rolled back", "topic"],
    &["source", "error"],
];

impl Injector {
    async fn pause(&mut self, least: u64, most: u64) {
        let time = self.dice.time(least, most);
        tokio::time::sleep(time).await;
    }

    fn any_host(&mut self) -> usize {
        let up = self.fleet.up();
        self.dice.pick(&up).unwrap_or(0)
    }

    /// A host that has partitions, where one has; waits until records flow.
    async fn busy_host(&mut self) -> usize {
        self.flows(HEALED).await;
        let mut up = self.fleet.up();
        up.retain(|host| self.fleet.held(*host) > 0);
        match self.dice.pick(&up) {
            Some(host) => host,
            None => self.any_host(),
        }
    }

    /// A host is killed and started again at once.
    pub(crate) async fn kill(&mut self) {
        let host = self.busy_host().await;
        self.pause(0, 400).await;
        let (flowed, held) = (self.view.flows(), self.fleet.held(host));
        let killed = Instant::now();
        let alive = self.fleet.kill(host);
        self.fleet.start(host);
        let mark = self.mark().await;
        let took = self.goes_on(&mark, killed).await;
        let detail = format!("{} with {held} partitions", self.fleet.name(host));
        self.done(Trouble::Kill, alive && flowed && held > 0, took, detail);
    }

    /// A host is killed and stays away until others have its partitions.
    pub(crate) async fn takeover(&mut self) {
        let host = self.busy_host().await;
        let (flowed, held) = (self.view.flows(), self.fleet.held(host));
        let killed = Instant::now();
        let alive = self.fleet.kill(host);
        let mark = self.mark().await;
        let took = self.goes_on(&mark, killed).await;
        self.fleet.start(host);
        let mark = self.mark().await;
        self.goes_on(&mark, Instant::now()).await;
        let detail = format!("{} with {held} partitions", self.fleet.name(host));
        self.done(Trouble::Takeover, alive && flowed && held > 0, took, detail);
    }

    /// While a server is away, now and then a host dies as well.
    async fn kill_beside(&mut self) {
        if !self.dice.once_in(2) {
            return;
        }
        let host = self.any_host();
        self.pause(0, 800).await;
        let alive = self.fleet.kill(host);
        self.fleet.start(host);
        self.done(Trouble::KillBeside, alive, None, "");
    }

    pub(crate) async fn drain(&mut self) {
        let host = self.busy_host().await;
        let flowed = self.view.flows();
        let asked = Instant::now();
        let fleet = self.fleet.clone();
        let drained = tokio::task::block_in_place(|| fleet.drain(host));
        let ended = asked.elapsed();
        self.fleet.start(host);
        let mark = self.mark().await;
        let took = self.goes_on(&mark, Instant::now()).await;
        let detail = format!("{} ended after {ended:.1?}", self.fleet.name(host));
        self.done(Trouble::Drain, drained && flowed, took, detail);
    }

    /// Frozen until another host has its partitions; when it wakes up it finds that it lost them, or is refused.
    pub(crate) async fn zombie(&mut self) {
        // Somebody has to be there who takes its place.
        self.until(HEALED, || (0..2).all(|host| self.fleet.held(host) > 0))
            .await;
        let host = self.busy_host().await;
        let flowed = self.view.flows();
        let frozen = Instant::now();
        let alive = self.fleet.signal(host, "STOP");
        let mark = self.mark().await;
        tokio::time::sleep(SESSION + self.dice.time(200, 1_500)).await;
        self.goes_on(&mark, Instant::now()).await;
        let (log, fences) = (self.fleet.mark(host), self.fences());
        self.fleet.signal(host, "CONT");
        let (woke, frozen) = (Instant::now(), frozen.elapsed());
        let fenced = self
            .until(WORD, || {
                let said = self
                    .fleet
                    .said(&[log], &[&["fenced"], &["lost", "partitions=["]]);
                said || self.fences() > fences
            })
            .await;
        let mark = self.mark().await;
        let took = self.goes_on(&mark, woke).await;
        let detail = format!("{} for {frozen:.1?}", self.fleet.name(host));
        self.done(Trouble::Zombie, alive && flowed && fenced, took, detail);
    }

    /// A third host comes, gets partitions and goes again, one way or the other.
    pub(crate) async fn storm(&mut self) {
        self.flows(HEALED).await;
        let flowed = self.view.flows();
        let marks = self.fleet.marks();
        let others = [marks[0], marks[1]];
        self.fleet.start(GUEST);
        let moved = self
            .until(HEALED, || {
                self.fleet
                    .said(&[marks[GUEST]], &[&["assigned", "partitions=["]])
                    && self.fleet.said(&others, &[&["revoked", "partitions=["]])
            })
            .await;
        self.pause(0, 1_500).await;
        let politely = self.dice.once_in(2);
        if politely {
            let fleet = self.fleet.clone();
            tokio::task::block_in_place(|| fleet.drain(GUEST));
        } else {
            self.fleet.kill(GUEST);
        }
        let took = self.heals().await;
        let detail = if politely { "drained" } else { "killed" };
        self.done(Trouble::Storm, moved && flowed, took, detail);
    }

    /// Another version while a host is killed: the one asked, or another.
    pub(crate) async fn swap(&mut self) {
        let (now, before) = self.deployed;
        let back = self.dice.once_in(3);
        let next = if back {
            before
        } else {
            (now + 1) % self.versions.len()
        };
        self.flows(HEALED).await;
        let asked = self.any_host();
        let victim = self.any_host();
        let (flowed, held) = (self.view.flows(), self.fleet.held(victim));
        let (api, plugin) = (self.fleet.api(asked).clone(), self.versions[next].plugin());
        let answer = std::thread::spawn(move || match back {
            true => api.change(PIPELINE, "rollback"),
            false => api.deploy(PIPELINE, &plugin, json!({})),
        });
        self.pause(0, 150).await;
        let killed = Instant::now();
        let alive = self.fleet.kill(victim);
        self.fleet.start(victim);
        let answered = answer.join().expect("it does not panic");
        let stands = answered.as_ref().is_ok_and(|answer| answer.status < 300);
        if !stands {
            // Whoever got no answer asks for it again, by name, until somebody says that it is done.
            let again = Instant::now();
            let mut refused = self.deploy(asked, next);
            while refused.is_err() && again.elapsed() < HEALED {
                tokio::time::sleep(Duration::from_millis(200)).await;
                let host = self.any_host();
                refused = self.deploy(host, next);
            }
            if let Err(refused) = refused {
                self.tell(format!("BROKEN: cannot deploy: {refused}"));
            }
        }
        self.deployed = (next, now);
        let mark = self.mark().await;
        let took = self.goes_on(&mark, killed).await;
        let number = self.versions[next].number.clone();
        let everywhere = || {
            let seen = self.view.lock();
            !seen.versions.is_empty() && seen.versions.values().all(|version| *version == number)
        };
        let effective = self.until(2 * HEALED, everywhere).await;
        if !effective {
            let text = format!("{number} was deployed, and not every partition has rows of it");
            self.tell(format!("BROKEN {text}"));
            self.faults.add(wasmill_tests::checker::Kind::Stalled, text);
        }
        let detail = format!(
            "{} {number}, {} killed; everywhere after {:.1?}",
            if back { "back to" } else { "on to" },
            self.fleet.name(victim),
            killed.elapsed()
        );
        let seen = alive && flowed && held > 0 && effective;
        self.done(Trouble::Swap, seen, took, detail);
    }

    pub(crate) async fn broker(&mut self) {
        self.flows(HEALED).await;
        let (flowed, marks) = (self.view.flows(), self.fleet.marks());
        tokio::task::block_in_place(|| self.kafka.kill()).unwrap();
        self.pause(100, 2_000).await;
        self.kill_beside().await;
        tokio::task::block_in_place(|| self.kafka.restart()).unwrap();
        let took = self.heals().await;
        let felt = self.fleet.said(&marks, &BROKER_AWAY);
        self.done(Trouble::Broker, flowed && felt, took, "");
    }

    pub(crate) async fn broker_frozen(&mut self) {
        self.flows(HEALED).await;
        let (flowed, marks) = (self.view.flows(), self.fleet.marks());
        self.kafka.pause().unwrap();
        self.pause(2_500, 8_000).await;
        let still = !self.view.flows();
        self.kafka.resume().unwrap();
        let took = self.heals().await;
        let felt = still || self.fleet.said(&marks, &BROKER_AWAY);
        self.done(Trouble::BrokerFrozen, flowed && felt, took, "");
    }

    /// As `pg_ctl stop -m immediate`: SIGQUIT, nothing is written down, the next start recovers.
    pub(crate) async fn postgres(&mut self) {
        self.flows(HEALED).await;
        let (flowed, marks) = (self.view.flows(), self.fleet.marks());
        if let Some(pid) = self.stage.postgres.pid() {
            Command::new("kill")
                .args(["-QUIT", &pid.to_string()])
                .status()
                .unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        self.stage.postgres.kill().unwrap();
        self.pause(0, 1_500).await;
        self.kill_beside().await;
        tokio::task::block_in_place(|| self.stage.postgres.restart()).unwrap();
        let took = self.heals().await;
        let felt = self.fleet.said(&marks, &POSTGRES_AWAY);
        self.done(Trouble::Postgres, flowed && felt, took, "");
    }

    pub(crate) async fn postgres_frozen(&mut self) {
        self.flows(HEALED).await;
        let flowed = self.view.flows();
        self.stage.postgres.pause().unwrap();
        self.pause(2_500, 8_000).await;
        let still = !self.view.flows();
        self.stage.postgres.resume().unwrap();
        let took = self.heals().await;
        self.done(Trouble::PostgresFrozen, flowed && still, took, "");
    }

    pub(crate) async fn sessions(&mut self) {
        self.flows(HEALED).await;
        self.pause(0, 300).await;
        let (flowed, marks) = (self.view.flows(), self.fleet.marks());
        let sql = "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE application_name LIKE 'wasmill%'";
        let ended: i64 = match self.stage.try_rows(sql).await {
            Ok(rows) => rows[0].get(0),
            Err(_) => 0,
        };
        let took = self.heals().await;
        // A session that nobody uses is missed when it is.
        let said = || self.fleet.said(&marks, &POSTGRES_AWAY);
        let felt = self.until(WORD, said).await;
        let detail = format!("{ended} of them");
        self.done(Trouble::Sessions, flowed && ended > 0 && felt, took, detail);
    }

    pub(crate) async fn cassandra(&mut self) {
        self.flows(HEALED).await;
        let (flowed, marks) = (self.view.flows(), self.fleet.marks());
        let mut server = self.cassandra.take().expect("it runs between faults");
        server.kill().unwrap();
        self.pause(0, 1_000).await;
        let starting = tokio::task::spawn_blocking(move || {
            let started = server.restart();
            (server, started)
        });
        self.kill_beside().await;
        let (server, started) = starting.await.expect("it does not panic");
        started.unwrap();
        self.cassandra = Some(server);
        let took = self.heals().await;
        let felt = self.fleet.said(&marks, &CASSANDRA_AWAY);
        self.done(Trouble::Cassandra, flowed && felt, took, "");
    }

    pub(crate) async fn cassandra_frozen(&mut self) {
        self.flows(HEALED).await;
        let flowed = self.view.flows();
        self.freeze_cassandra(true);
        self.pause(2_500, 8_000).await;
        let still = !self.view.flows();
        self.freeze_cassandra(false);
        let took = self.heals().await;
        self.done(Trouble::CassandraFrozen, flowed && still, took, "");
    }

    fn freeze_cassandra(&mut self, frozen: bool) {
        let server = self.cassandra.as_mut().expect("it runs between faults");
        match frozen {
            true => server.pause().unwrap(),
            false => server.resume().unwrap(),
        }
    }
}
