//! Breaks things, one after the other, in an order that its seed gives; and after each of them waits until every
//! partition has gone on (I8). What the kinds of faults are is in `faults`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, io};

use serde_json::json;
use wasmill_local::{Cassandra, Kafka};
use wasmill_tests::Stage;
use wasmill_tests::checker::{Faults, Kind};
use wasmill_tests::dice::Dice;
use wasmill_tests::proxy::Proxy;
use wasmill_tests::versions::Version;

use super::fleet::Fleet;
use super::tally::{Tally, Trouble};
use super::view::Shared;
use super::{PIPELINE, SESSION};

/// Kills of hosts that are wanted a minute, at least.
const KILLS: f64 = 4.5;
/// How long after a heal every partition has to have gone on.
pub(crate) const HEALED: Duration = Duration::from_secs(SESSION.as_secs() + 15);
/// How often is looked whether it has.
const LOOK: Duration = Duration::from_millis(10);

/// What a round may be.
const BAG: [Trouble; 20] = [
    Trouble::Takeover,
    Trouble::Drain,
    Trouble::Zombie,
    Trouble::Zombie,
    Trouble::Storm,
    Trouble::Swap,
    Trouble::Swap,
    Trouble::Broker,
    Trouble::BrokerFrozen,
    Trouble::Postgres,
    Trouble::PostgresFrozen,
    Trouble::Sessions,
    Trouble::Sessions,
    Trouble::Cassandra,
    Trouble::CassandraFrozen,
    Trouble::LinkClosed,
    Trouble::LinkSlow,
    Trouble::LinkStalled,
    Trouble::LinkDead,
    Trouble::Late,
];

/// See the module.
#[derive(Debug)]
pub(crate) struct Injector {
    pub(crate) stage: Stage,
    pub(crate) kafka: Kafka,
    /// Taken while it starts.
    pub(crate) cassandra: Option<Cassandra>,
    pub(crate) to_cassandra: Proxy,
    pub(crate) fleet: Fleet,
    pub(crate) view: Shared,
    pub(crate) dice: Dice,
    pub(crate) tally: Tally,
    /// I8, and what the hosts refused.
    pub(crate) faults: Faults,
    pub(crate) versions: Vec<Version>,
    /// Which of them was deployed last, and the one before.
    pub(crate) deployed: (usize, usize),
    pub(crate) begun: Instant,
}

/// Positions by partition.
pub(crate) type Positions = BTreeMap<i32, i64>;

impl Injector {
    /// Goes on until the time is over.
    pub(crate) async fn run(&mut self, time: Duration) {
        let mut bag = Vec::new();
        while self.begun.elapsed() < time && self.view.lock().void.is_none() {
            if !self.flows(HEALED).await {
                self.stalled("nothing moves though nothing is wrong").await;
            }
            let wanted = 1.0 + self.begun.elapsed().as_secs_f64() / 60.0 * KILLS;
            if f64::from(self.tally.kills()) < wanted {
                self.kill().await;
            } else {
                if bag.is_empty() {
                    bag = BAG.to_vec();
                    self.dice.shuffle(&mut bag);
                }
                let trouble = bag.pop().expect("it was filled");
                self.make(trouble).await;
            }
            let pause = self.dice.time(0, 800);
            tokio::time::sleep(pause).await;
        }
    }

    async fn make(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Takeover => self.takeover().await,
            Trouble::Drain => self.drain().await,
            Trouble::Zombie => self.zombie().await,
            Trouble::Storm => self.storm().await,
            Trouble::Swap => self.swap().await,
            Trouble::Broker => self.broker().await,
            Trouble::BrokerFrozen => self.broker_frozen().await,
            Trouble::Postgres => self.postgres().await,
            Trouble::PostgresFrozen => self.postgres_frozen().await,
            Trouble::Sessions => self.sessions().await,
            Trouble::Cassandra => self.cassandra().await,
            Trouble::CassandraFrozen => self.cassandra_frozen().await,
            Trouble::LinkClosed => self.link_closed().await,
            Trouble::LinkSlow => self.link_slow().await,
            Trouble::LinkStalled => self.link_stalled().await,
            Trouble::LinkDead | Trouble::LinkHalfOpen => self.link_swallows().await,
            Trouble::Late => self.late().await,
            Trouble::Kill | Trouble::KillBeside | Trouble::Dead => self.kill().await,
        }
    }

    /// Says what happens, with the time.
    pub(crate) fn tell(&self, text: impl std::fmt::Display) {
        let seconds = self.begun.elapsed().as_secs_f64();
        eprintln!("chaos run: {seconds:6.1} s: {text}");
    }

    /// Waits until records flow.
    pub(crate) async fn flows(&self, within: Duration) -> bool {
        self.until(within, || self.view.flows()).await
    }

    /// Waits until it is so.
    pub(crate) async fn until(&self, within: Duration, is: impl Fn() -> bool) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < within {
            if is() {
                return true;
            }
            tokio::time::sleep(LOOK).await;
        }
        is()
    }

    /// Positions that were read after now, or the last ones where Postgres is away.
    pub(crate) async fn mark(&self) -> Positions {
        let now = Instant::now();
        self.until(Duration::from_secs(1), || self.view.since(now))
            .await;
        self.view.positions()
    }

    /// Waits until every partition has gone on since `mark`, all being well from now on; how long after `since`.
    pub(crate) async fn goes_on(&mut self, mark: &Positions, since: Instant) -> Option<Duration> {
        if self.until(HEALED, || self.view.beyond(mark)).await {
            return Some(since.elapsed());
        }
        let now = self.view.positions();
        self.stalled(&format!("from {mark:?} to {now:?} only"))
            .await;
        None
    }

    /// All is well from now on: how long until every partition has gone on.
    pub(crate) async fn heals(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let mark = self.mark().await;
        self.goes_on(&mark, now).await
    }

    async fn stalled(&mut self, how: &str) {
        let text = format!("not every partition has gone on {HEALED:?} after all was well: {how}");
        self.tell(format!("BROKEN {text}"));
        self.faults.add(Kind::Stalled, text);
        // What comes next shall be a fault of its own.
        let mark = self.view.positions();
        let late = Instant::now();
        if self.until(4 * HEALED, || self.view.beyond(&mark)).await {
            self.tell(format!("it went on {:.1?} later", late.elapsed()));
        }
    }

    /// Counts a fault and tells of it.
    pub(crate) fn done(
        &mut self,
        trouble: Trouble,
        observed: bool,
        recovered: Option<Duration>,
        detail: impl std::fmt::Display,
    ) {
        let seen = if observed { "" } else { " (not seen)" };
        let after =
            recovered.map_or_else(String::new, |time| format!("; all move after {time:.1?}"));
        self.tell(format!("{}{seen}: {detail}{after}", trouble.text()));
        self.tally.add(trouble, observed, recovered);
    }

    /// Deploys a version through a host.
    pub(crate) fn deploy(&self, host: usize, version: usize) -> Result<(), String> {
        let plugin = self.versions[version].plugin();
        let answer = self.fleet.api(host).deploy(PIPELINE, &plugin, json!({}))?;
        match answer.status {
            200..300 => Ok(()),
            _ => Err(format!("{answer:?}")),
        }
    }

    /// Copies the logs of the servers.
    pub(crate) fn keep_logs(&self, folder: &Path) -> io::Result<()> {
        fs::copy(self.stage.postgres.log(), folder.join("postgres.log"))?;
        fs::copy(self.kafka.log(), folder.join("kafka.log"))?;
        if let Some(cassandra) = &self.cassandra {
            fs::copy(cassandra.log(), folder.join("cassandra.log"))?;
        }
        Ok(())
    }

    /// All is up; waits until so many records are behind the positions.
    pub(crate) async fn ends(&mut self, records: i64, within: Duration) -> bool {
        self.until(within, || self.view.done() >= records).await
    }
}
