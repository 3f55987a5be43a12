//! What becomes of a failure is decided by its class: each is made on purpose, by a trigger that raises the SQLSTATE
//! the test asks for, while records flow. Whatever it is, nothing is lost or doubled once it is mended.

use std::time::Duration;

use wasmill_tests::Stage;
use wasmill_tests::records::Place;
use wasmill_tests::wait::eventually;

use super::flights::{balanced, ends_exact, more, passes, staged, total};
use crate::scenario::flights::flights_in_postgres;

const SOON: Duration = Duration::from_secs(60);

/// Records a fault.
const MORE: usize = 4_000;

const TRIGGER: &str = "CREATE TABLE fault (code text); \
    CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE wanted text; BEGIN \
    SELECT code INTO wanted FROM fault; IF FOUND THEN \
    RAISE EXCEPTION 'made by the test' USING ERRCODE = wanted; END IF; RETURN NULL; END $$; \
    CREATE TRIGGER fail BEFORE INSERT ON flight_log FOR EACH STATEMENT EXECUTE FUNCTION fail()";

async fn raise(stage: &Stage, code: &str) {
    let sql = format!("INSERT INTO fault VALUES ('{code}')");
    stage.execute(&sql).await;
}

/// Where it stands, with what was produced until now done.
async fn all_done(stage: &Stage, places: &[Place]) -> i64 {
    let total = total(places);
    passes(stage, total).await;
    total
}

#[tokio::test]
async fn a_config_fault_exits_3_a_bug_exits_70_an_outside_fault_is_waited_for() {
    let (stage, mut places) = staged(4, MORE).await;
    let mut host = stage.host(&flights_in_postgres());
    let mut done = all_done(&stage, &places).await;
    stage.execute(TRIGGER).await;
    // Code, exit code, what the person is told.
    let stops = [
        ("42501", 3, "GRANT the missing privilege"),
        ("42703", 3, "prints the DDL that repairs it"),
        ("21000", 70, "made by the test"),
    ];
    for (code, exit_code, told) in stops {
        raise(&stage, code).await;
        more(&stage, MORE, &mut places);
        let exit = host.wait(SOON);
        assert_eq!(exit.code, Some(exit_code), "{code}: {}", exit.stderr);
        assert!(exit.stderr.contains(told), "{code}: {}", exit.stderr);
        assert_eq!(stage.position("flights").await, done, "{code}");
        balanced(&stage).await;
        stage.execute("DELETE FROM fault").await;
        host = stage.again();
        done = all_done(&stage, &places).await;
    }
    // Serialization failure, deadlock, full disk, too many connections: the world comes back.
    for code in ["40001", "40P01", "53100", "53300"] {
        raise(&stage, code).await;
        more(&stage, MORE, &mut places);
        eventually(SOON, "the fault is met", async || {
            let log = host.stderr();
            match log.contains(&format!("({code})")) {
                true => Ok(()),
                false => Err(log),
            }
        })
        .await;
        host.alive().unwrap();
        assert_eq!(stage.position("flights").await, done, "{code}");
        balanced(&stage).await;
        stage.execute("DELETE FROM fault").await;
        done = all_done(&stage, &places).await;
    }
    ends_exact(&stage, &places).await;
    assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_the_host_at_once_and_nothing_is_lost() {
    let (stage, mut places) = staged(4, MORE).await;
    let host = stage.host(&flights_in_postgres());
    let done = all_done(&stage, &places).await;
    // A commit that does not end keeps the drain from ending.
    stage
        .execute(
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             PERFORM pg_sleep(4); RETURN NULL; END $$; \
             CREATE TRIGGER wait BEFORE INSERT ON flight_log FOR EACH STATEMENT EXECUTE FUNCTION wait()",
        )
        .await;
    more(&stage, MORE, &mut places);
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    eventually(SOON, "a flight hangs", async || {
        match stage.try_rows(sleeping).await?[0].get::<_, i64>(0) {
            0 => Err("none".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    host.signal("TERM");
    eventually(SOON, "it drains", async || {
        let log = host.stderr();
        match log.contains("draining") {
            true => Ok(()),
            false => Err(log),
        }
    })
    .await;
    let exit = host.stop(Duration::from_secs(3));
    assert_eq!(exit.code, Some(130), "{}", exit.stderr);
    assert_eq!(stage.position("flights").await, done);
    balanced(&stage).await;
    stage.execute("DROP TRIGGER wait ON flight_log").await;
    let host = stage.again();
    ends_exact(&stage, &places).await;
    assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
}
