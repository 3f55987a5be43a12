//! The host is killed in a chosen step of its protocol with Postgres. A trigger of the test waits there for an advisory
//! lock that the test holds, and what the host's session waits in is read from `pg_stat_activity` before the kill: it
//! did die in that step. What it leaves is an open transaction; the next host starts before or after that has ended.

use std::time::Duration;

use tokio_postgres::{Client, NoTls};
use wasmill_tests::Stage;
use wasmill_tests::expected::{self, Flight, shipped_flights};
use wasmill_tests::hash::TableHash;
use wasmill_tests::host::Host;
use wasmill_tests::records::{Made, Place};
use wasmill_tests::wait::eventually;

use super::flights::passes;
use crate::scenario::flights::{flights_in_postgres, table_hash};

const SOON: Duration = Duration::from_secs(30);
/// Records a round, of which every hundredth is no flight.
const ROUND: usize = 400;
/// How long the next host waits beside the transaction of the dead one.
const BESIDE: Duration = Duration::from_millis(700);

/// A step, where the test waits for it, and what the session then says it is at.
#[derive(Debug)]
struct Step {
    name: &'static str,
    trigger: &'static str,
    table: &'static str,
    says: &'static str,
}

const CLAIM: Step = Step {
    name: "claim",
    trigger: "CREATE TRIGGER gate BEFORE UPDATE ON wasmill.position FOR EACH ROW \
              WHEN (OLD.epoch <> NEW.epoch) EXECUTE FUNCTION gate()",
    table: "wasmill.position",
    says: "WITH mine AS MATERIALIZED %",
};

const FLIGHT: [Step; 4] = [
    Step {
        name: "advance",
        trigger: "CREATE TRIGGER gate BEFORE UPDATE ON wasmill.position FOR EACH ROW \
                  WHEN (OLD.next <> NEW.next) EXECUTE FUNCTION gate()",
        table: "wasmill.position",
        says: "BEGIN; %SELECT wasmill.advance(%",
    },
    Step {
        name: "rows",
        trigger: "CREATE TRIGGER gate BEFORE INSERT ON flight_log EXECUTE FUNCTION gate()",
        table: "flight_log",
        says: "%INTO%flight_log%",
    },
    Step {
        name: "dead letters",
        trigger: "CREATE TRIGGER gate BEFORE INSERT ON wasmill.dead_letter EXECUTE FUNCTION gate()",
        table: "wasmill.dead_letter",
        says: "%INTO wasmill.dead_letter%",
    },
    Step {
        name: "commit",
        trigger: "CREATE CONSTRAINT TRIGGER gate AFTER UPDATE ON wasmill.position DEFERRABLE INITIALLY DEFERRED \
                  FOR EACH ROW WHEN (OLD.next <> NEW.next) EXECUTE FUNCTION gate()",
        table: "wasmill.position",
        says: "COMMIT",
    },
];

/// When the next host starts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Next {
    /// While the transaction of the dead one is open.
    Beside,
    /// When it has gone on, as far as it could.
    After,
}

/// A stage, what was produced, and the test's own session.
struct Scene {
    stage: Stage,
    gate: Client,
    input: Vec<(String, String)>,
    places: Vec<Place>,
    bad: usize,
}

impl Scene {
    async fn new() -> Self {
        let stage = Stage::new();
        stage.feed.topic("flights", 2).await;
        let (gate, connection) = tokio_postgres::connect(&stage.postgres.url(), NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        gate.batch_execute(
            "CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             PERFORM pg_advisory_xact_lock_shared(77); RETURN NEW; END $$",
        )
        .await
        .unwrap();
        Self {
            stage,
            gate,
            input: Vec::new(),
            places: Vec::new(),
            bad: 0,
        }
    }

    /// Produces another round under ids of its own.
    fn more(&mut self) {
        let round = self.input.len();
        let flights = shipped_flights(ROUND).into_iter();
        let flights: Vec<(String, String)> = flights
            .map(|(id, text)| (format!("{round}-{id}"), text))
            .collect();
        let made = flights
            .iter()
            .map(|(id, text)| Made::new(id.as_bytes(), text.as_bytes()));
        let places = self.stage.feed.send("flights", &made.collect::<Vec<_>>());
        self.places.extend(places);
        self.input.extend(flights);
        let bad: Vec<Made> = (0..ROUND / 100)
            .map(|n| Made::new(format!("{round}-bad-{n}"), "{"))
            .collect();
        self.stage.feed.send("flights", &bad);
        self.bad += bad.len();
    }

    fn total(&self) -> i64 {
        i64::try_from(self.input.len() + self.bad).unwrap()
    }

    async fn close(&self, step: &Step) {
        let sql = format!("SELECT pg_advisory_lock(77); {}", step.trigger);
        self.gate.batch_execute(&sql).await.unwrap();
    }

    async fn open(&self) {
        let sql = "SELECT pg_advisory_unlock(77)";
        self.gate.batch_execute(sql).await.unwrap();
    }

    async fn remove(&self, step: &Step) {
        let sql = format!("DROP TRIGGER gate ON {}", step.table);
        self.gate.batch_execute(&sql).await.unwrap();
    }

    /// Waits until a session of the host stands at the gate, in this step.
    async fn reached(&self, step: &Step) {
        let sql = "SELECT count(*) FILTER (WHERE query LIKE $1), string_agg(query, '; ') FROM pg_stat_activity \
                   WHERE wait_event_type = 'Lock' AND wait_event = 'advisory'";
        eventually(SOON, step.name, async || {
            let row = self.gate.query_one(sql, &[&step.says]).await;
            let row = row.map_err(|error| error.to_string())?;
            let (there, queries): (i64, Option<String>) = (row.get(0), row.get(1));
            if there > 0 {
                Ok(())
            } else {
                Err(format!("{queries:?}"))
            }
        })
        .await;
    }

    /// In one snapshot every record below the positions is a row or a dead letter, once.
    async fn balanced(&self) {
        let sql = "SELECT (SELECT count(*) FROM flight_log) + (SELECT count(*) FROM wasmill.dead_letter) \
                   - (SELECT sum(next) FROM wasmill.position)::int8";
        assert_eq!(
            self.stage.number(sql).await,
            0,
            "rows and positions disagree"
        );
        let sql = "SELECT sum(abs(records - next))::int8 FROM wasmill.position";
        assert_eq!(
            self.stage.number(sql).await,
            0,
            "ledger and positions disagree"
        );
    }

    /// The end of a round: everything is there, once.
    async fn exact(&self) {
        passes(&self.stage, self.total()).await;
        let flights = self.input.iter().zip(&self.places);
        let log = flights.map(|((id, text), place)| {
            let flight = Flight::read(id, text.as_bytes()).unwrap();
            flight.log_line("flights", place.partition, place.offset)
        });
        let seen = table_hash(&self.stage, expected::sql::FLIGHT_LOG, "flight_log").await;
        assert_eq!(seen, TableHash::of(log), "rows lost or doubled");
        assert_eq!(self.stage.dead().await.len(), self.bad);
        self.balanced().await;
    }

    /// The host that died in a step left a transaction at the gate; the next one starts and finishes.
    async fn go_on(&self, step: &Step, next: Next) -> Host {
        self.balanced().await;
        let host = match next {
            Next::Beside => {
                let host = self.stage.again();
                tokio::time::sleep(BESIDE).await;
                self.open().await;
                host
            }
            Next::After => {
                self.open().await;
                self.remove(step).await;
                self.stage.again()
            }
        };
        self.exact().await;
        if next == Next::Beside {
            self.remove(step).await;
        }
        host
    }
}

#[tokio::test]
async fn killed_in_each_step_of_a_flight_nothing_is_lost_or_doubled() {
    let mut scene = Scene::new().await;
    let mut host = scene.stage.host(&flights_in_postgres());
    scene.more();
    scene.exact().await;
    for next in [Next::Beside, Next::After] {
        for step in &FLIGHT {
            scene.close(step).await;
            scene.more();
            scene.reached(step).await;
            host.kill();
            let at = scene.stage.position("flights").await;
            assert!(at < scene.total(), "{step:?}: killed after the end");
            host = scene.go_on(step, next).await;
        }
    }
    assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
}

#[tokio::test]
async fn killed_in_a_claim_the_next_host_claims_and_goes_on() {
    let mut scene = Scene::new().await;
    let host = scene.stage.host(&flights_in_postgres());
    scene.more();
    scene.exact().await;
    assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
    for next in [Next::Beside, Next::After] {
        scene.close(&CLAIM).await;
        scene.more();
        let host = scene.stage.again();
        scene.reached(&CLAIM).await;
        host.kill();
        let host = scene.go_on(&CLAIM, next).await;
        assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
    }
}

#[tokio::test]
async fn killed_when_a_commit_is_done_and_its_reply_was_never_read() {
    let mut scene = Scene::new().await;
    let mut host = scene.stage.host(&flights_in_postgres());
    scene.more();
    scene.exact().await;
    let [.., commit] = &FLIGHT;
    for _ in 0..2 {
        scene.close(commit).await;
        let before = scene.total();
        scene.more();
        scene.reached(commit).await;
        // It cannot hear the reply any more.
        host.signal("STOP");
        scene.open().await;
        passes(&scene.stage, before + 1).await;
        assert!(scene.stage.position("flights").await < scene.total());
        host.kill();
        scene.remove(commit).await;
        scene.balanced().await;
        host = scene.stage.again();
        scene.exact().await;
    }
    assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
}
