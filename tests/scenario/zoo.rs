//! The plugin zoo: guests that misbehave on marked records. The guilty record, and no other, pays for it.

use std::time::Duration;

use wasmill_tests::host::Host;
use wasmill_tests::records::Made;
use wasmill_tests::stage::pipeline;
use wasmill_tests::wait::eventually;
use wasmill_tests::{Stage, artifact};

const SOON: Duration = Duration::from_secs(60);

/// Records in the topic.
const COUNT: usize = 600;

/// A stage with a topic of `COUNT` records, those of `marked` with their text, and the guest's table.
async fn stage(columns: &str, marked: &[(usize, &str)], plain: &str) -> Stage {
    let stage = Stage::new();
    stage.feed.topic("records", 1).await;
    stage
        .execute(&format!("CREATE TABLE seen ({columns})"))
        .await;
    let text = |index: usize| {
        marked
            .iter()
            .find(|(at, _)| *at == index)
            .map_or(plain, |(_, text)| text)
    };
    let all: Vec<Made> = (0..COUNT)
        .map(|index| Made::new(format!("r-{index}"), text(index)))
        .collect();
    stage.feed.send("records", &all);
    stage
}

fn guest(name: &str) -> String {
    let more = "bind.route.seen = { connection = \"main\", table = \"seen\" }";
    pipeline(
        name,
        &artifact::plugin(&format!("tests/guests/{name}")),
        more,
    )
}

async fn processed(stage: &Stage, host: &mut Host, name: &str) {
    let total = i64::try_from(COUNT).unwrap();
    eventually(SOON, "all records are processed", async || {
        host.alive()?;
        stage.positioned(name, total).await
    })
    .await;
}

/// Runs the guest over its records; exactly the marked ones have to be dead, for the reason given.
async fn exactly_the_guilty(
    name: &str,
    columns: &str,
    plain: &str,
    guilty: &[(usize, &str, &str)],
) -> Stage {
    let marked: Vec<(usize, &str)> = guilty.iter().map(|(at, text, _)| (*at, *text)).collect();
    let stage = stage(columns, &marked, plain).await;
    let mut host = stage.host(&guest(name));
    processed(&stage, &mut host, name).await;
    let wanted: Vec<(String, i32, i64)> = guilty
        .iter()
        .map(|(at, _, code)| ((*code).to_owned(), 0, i64::try_from(*at).unwrap()))
        .collect();
    assert_eq!(stage.dead().await, wanted, "{}", host.stderr());
    let innocent = i64::try_from(COUNT - guilty.len()).unwrap();
    assert_eq!(
        stage.number("SELECT count(DISTINCT id) FROM seen").await,
        innocent
    );
    assert_eq!(
        stage.number("SELECT count(*) FROM seen").await,
        innocent,
        "a row was written twice"
    );
    let exit = host.stop(Duration::from_secs(25));
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    stage
}

#[tokio::test]
async fn a_trap_costs_the_record_that_trapped() {
    let (trap, panic) = (r#"{"mark":"trap"}"#, r#"{"mark":"panic"}"#);
    let guilty = [
        (0, trap, "trap"),
        (77, panic, "trap"),
        (78, trap, "trap"),
        (COUNT - 1, trap, "trap"),
    ];
    let stage = exactly_the_guilty("trap", "id text", "{}", &guilty).await;
    let classes = stage
        .number("SELECT count(*) FROM wasmill.dead_letter WHERE class = 'plugin'")
        .await;
    assert_eq!(classes, 4);
}

#[tokio::test]
async fn memory_costs_the_record_that_took_it() {
    let (hog, grow) = (r#"{"mark":"hog"}"#, r#"{"mark":"grow"}"#);
    let stage = exactly_the_guilty(
        "memory-hog",
        "id text",
        "{}",
        &[(3, hog, "limit"), (400, hog, "limit")],
    )
    .await;
    // Growing below the limit is allowed: the instance is not used again, its rows are.
    stage.feed.send(
        "records",
        &[Made::new("grown", grow), Made::new("after", "{}")],
    );
    let mut host = stage.again();
    let total = i64::try_from(COUNT).unwrap() + 2;
    eventually(SOON, "both are processed", async || {
        host.alive()?;
        stage.positioned("memory-hog", total).await
    })
    .await;
    assert_eq!(
        stage
            .number("SELECT count(*) FROM seen WHERE id IN ('grown', 'after')")
            .await,
        2
    );
}

#[tokio::test]
async fn output_past_the_cap_costs_the_record_that_made_it() {
    let stage = stage(
        "id text, payload bytea",
        &[(10, r#"{"mib":17}"#), (20, r#"{"mib":1}"#)],
        r#"{"mib":0}"#,
    )
    .await;
    let mut host = stage.host(&guest("giant-output"));
    processed(&stage, &mut host, "giant-output").await;
    assert_eq!(
        stage.dead().await,
        [("limit".to_owned(), 0, 10)],
        "{}",
        host.stderr()
    );
    // A record with `mib = 0` makes no row: it is filtered, which is no loss and no dead letter.
    assert_eq!(stage.number("SELECT count(*) FROM seen").await, 16);
}

#[tokio::test]
async fn more_rows_than_a_record_may_have_cost_that_record() {
    let guilty = [(5, r#"{"rows":10001}"#, "limit")];
    exactly_the_guilty("fanout", "id text, number int", r#"{"rows":1}"#, &guilty).await;
}

#[tokio::test]
async fn malformed_rows_cost_the_record_that_made_them() {
    let mark = |mark: &str| -> &'static str {
        Box::leak(format!(r#"{{"mark":"{mark}"}}"#).into_boxed_str())
    };
    let faults = [
        "ends",
        "ends-descending",
        "cells-after",
        "counts",
        "route",
        "routes-short",
        "op",
        "source",
        "sources-descending",
        "times-short",
        "reject-source",
        "reject-code",
    ];
    let refused = [
        "type",
        "few",
        "many",
        "reserved",
        "null",
        "not-utf8",
        "cell-past",
        "delete-without-key",
    ];
    let mut guilty = Vec::new();
    for (index, name) in refused.iter().enumerate() {
        guilty.push((20 + index * 7, mark(name), "row-refused"));
    }
    for (index, name) in faults.iter().enumerate() {
        guilty.push((200 + index * 11, mark(name), "bad-output"));
    }
    // No fault: rows of a rejected record are discarded, its own code stands.
    guilty.push((450, mark("reject-and-row"), "both"));
    exactly_the_guilty(
        "bad-row",
        "id text not null, number bigint not null",
        r#"{"mark":"fine"}"#,
        &guilty,
    )
    .await;
}

#[tokio::test]
async fn a_rejected_record_leaves_no_row() {
    let guilty = [
        (1, r#"{"mark":"reject"}"#, "marked"),
        (300, r#"{"mark":"reject"}"#, "marked"),
    ];
    exactly_the_guilty("reject-some", "id text", r#"{"mark":"17"}"#, &guilty).await;
}

#[tokio::test]
async fn a_guest_that_never_returns_stops_its_pipeline_and_no_other() {
    let spin = [(250, r#"{"mark":"spin"}"#)];
    let stage = stage("id text", &spin, "{}").await;
    stage.execute("CREATE TABLE seen_too (id text)").await;
    let neighbour = pipeline(
        "neighbour",
        &artifact::plugin("tests/guests/trap"),
        "bind.route.seen = { connection = \"main\", table = \"seen_too\" }",
    );
    let short = "limits.run_time = \"100ms\"";
    let mut host = stage.host(&format!("{}{short}\n{neighbour}", guest("spin-forever")));
    processed(&stage, &mut host, "neighbour").await;
    eventually(SOON, "the pipeline stops", async || {
        let log = host.stderr();
        if log.contains("pipeline stopped") && log.contains("spin-forever") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    assert!(
        host.stderr().contains("records partition 0 offsets"),
        "the message says where:\n{}",
        host.stderr()
    );
    // Nothing is decided about the record: the position stands at or before it, rows agree, no dead letter.
    let position = stage.position("spin-forever").await;
    assert!(position <= 250, "position {position}");
    assert_eq!(stage.number("SELECT count(*) FROM seen").await, position);
    assert_eq!(stage.dead().await, []);
    // The neighbour goes on.
    stage.feed.send("records", &[Made::new("later", "{}")]);
    eventually(SOON, "the neighbour goes on", async || {
        stage
            .reaches("SELECT count(*) FROM seen_too WHERE id = 'later'", 1)
            .await
    })
    .await;
    let exit = host.stop(Duration::from_secs(25));
    assert!(
        matches!(exit.code, Some(3 | 4)),
        "a stopped pipeline is the host's failure: {:?}\n{}",
        exit.code,
        exit.stderr
    );
}

#[tokio::test]
async fn fatal_stops_the_pipeline_before_the_record() {
    let stage = stage("id text", &[(99, r#"{"mark":"fatal"}"#)], "{}").await;
    let exit = stage.host(&guest("fatal")).wait(SOON);
    assert!(
        matches!(exit.code, Some(3 | 4)),
        "{:?}\n{}",
        exit.code,
        exit.stderr
    );
    assert!(
        exit.stderr
            .contains("the record says that nothing can go on"),
        "{}",
        exit.stderr
    );
    let position = stage.position("fatal").await;
    assert!(position <= 99, "position {position}");
    assert_eq!(stage.number("SELECT count(*) FROM seen").await, position);
    assert_eq!(stage.dead().await, []);
}

#[tokio::test]
async fn a_panic_in_init_stops_the_pipeline_before_the_first_record() {
    let stage = stage("id text", &[], "{}").await;
    let exit = stage.host(&guest("panics-in-init")).wait(SOON);
    assert!(
        matches!(exit.code, Some(3 | 4)),
        "{:?}\n{}",
        exit.code,
        exit.stderr
    );
    assert!(
        exit.stderr.contains("not calm"),
        "the panic's words reach the operator:\n{}",
        exit.stderr
    );
    assert_eq!(stage.position("panics-in-init").await, 0);
    // The operator calms it down.
    let mut host = stage.host(&format!(
        "{}config = {{ calm = true }}\n",
        guest("panics-in-init")
    ));
    processed(&stage, &mut host, "panics-in-init").await;
    assert_eq!(
        stage.number("SELECT count(*) FROM seen").await,
        i64::try_from(COUNT).unwrap()
    );
}
