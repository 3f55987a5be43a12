//! `wasmill verify` where more than writes decided: deletes that are kept as rows, dead letters that were retried.

use std::collections::BTreeSet;

use serde_json::json;
use wasmill_tests::artifact::plugin;
use wasmill_tests::records::Made;
use wasmill_tests::site::Plot;
use wasmill_tests::stage::pipeline;
use wasmill_tests::wait::eventually;
use wasmill_tests::{Site, Stage};

use super::verify::{Difference, SOON, differences, is_equal, verify};

fn wanted(kind: &str, table: &str, at: Option<(i64, i64)>) -> Difference {
    (kind.to_owned(), table.to_owned(), at)
}

#[tokio::test]
async fn deletes_that_are_kept_are_rows_and_one_that_came_back_is_found() {
    const EACH: i64 = 400;
    const KEYS: i64 = 50;
    let stage = Stage::new();
    stage.feed.topic("records", 2).await;
    // Every key from both partitions, its times up and down, no two the same; a third of all words are deletes.
    let record = |partition: i32, n: i64| {
        let at = (n * 7919 % EACH) * 2 + i64::from(partition);
        let value = match (n * 31 + i64::from(partition)) % 3 {
            0 => json!({ "at": at }),
            _ => json!({ "at": at, "text": format!("{partition}-{n}") }),
        };
        Made::new(format!("k{}", n % KEYS), value.to_string()).on(partition)
    };
    let all: Vec<Made> = (0..EACH)
        .flat_map(|n| [record(0, n), record(1, n)])
        .collect();
    stage.feed.send("records", &all);
    let _host = stage.host(&pipeline("kept", &plugin("tests/guests/kept"), ""));
    eventually(SOON, "all records are processed", async || {
        stage.positioned("kept", 2 * EACH).await
    })
    .await;
    let config = stage.path("wasmill.toml");
    let report = is_equal(&config, "kept", &["--strict"]);
    let table = &report["tables"][0];
    assert_eq!(
        (&table["rows"], &table["equal"]),
        (&json!(KEYS), &json!(KEYS))
    );
    let gone = "SELECT count(*) FROM newest WHERE deleted_at IS NOT NULL";
    let gone = stage.number(gone).await;
    assert!(0 < gone && gone < KEYS, "{gone} of {KEYS}");

    // Deletes that were lost: one by its time alone, one that is an older row, one that left none.
    stage
        .execute(
            "CREATE TEMP TABLE gone AS SELECT id, row_number() OVER (ORDER BY id) AS n FROM newest \
               WHERE deleted_at IS NOT NULL; \
             UPDATE newest SET deleted_at = NULL WHERE id = (SELECT id FROM gone WHERE n = 1); \
             UPDATE newest SET deleted_at = NULL, at = -1, text = 'old' WHERE id = (SELECT id FROM gone WHERE n = 2); \
             DELETE FROM newest WHERE id = (SELECT id FROM gone WHERE n = 3)",
        )
        .await;
    let (code, report) = verify(&config, "kept", &[]);
    assert_eq!(code, Some(6), "{report:#}");
    let table = &report["tables"][0];
    assert_eq!(
        (&table["different"], &table["missing"], &table["extra"]),
        (&json!(2), &json!(1), &json!(0)),
        "{report:#}"
    );
    let differences = report["differences"].as_array().unwrap();
    let mut columns = differences.iter().flat_map(|one| {
        let columns = one["columns"].as_array().into_iter().flatten();
        columns.map(|column| column["column"].as_str().unwrap())
    });
    assert!(columns.any(|name| name == "deleted_at"), "{report:#}");

    // A partition whose position is lost is not passed over in silence.
    stage
        .execute("DELETE FROM wasmill.position WHERE partition = 1")
        .await;
    let (_, report) = verify(&config, "kept", &[]);
    let mut unchecked = report["unchecked"].as_array().unwrap().iter();
    assert!(
        unchecked.any(|one| one["what"] == "partition 1" && one["count"] == EACH),
        "{report:#}"
    );
}

#[tokio::test]
async fn a_retried_letter_is_a_row_once() {
    const MARKS: &str = "marks";
    let stage = Stage::new();
    stage.feed.topic(MARKS, 1).await;
    stage
        .execute("CREATE TABLE reject_some (id text NOT NULL)")
        .await;
    let record = |n: i64| {
        let mark = if n % 10 == 3 { "reject" } else { "17" };
        Made::new(format!("k{n}"), json!({ "mark": mark }).to_string())
    };
    stage
        .feed
        .send(MARKS, &(0..100).map(record).collect::<Vec<_>>());
    let site = Site::new(&stage, &Plot::new("retried"));
    let (_host, _) = site.up();
    site.api.upload_file(&plugin("tests/guests/reject-some"));
    let overlay = format!(
        "bind.input.records = {{ kafka = \"main\", topic = {MARKS:?} }}\n\
         bind.route.seen = {{ connection = \"main\", table = \"reject_some\" }}\n"
    );
    let answer = site
        .api
        .deploy(MARKS, "reject-some@0.1.0", json!({ "overlay": overlay }));
    answer.unwrap().ok();
    eventually(SOON, "all records are processed", async || {
        stage.positioned(MARKS, 100).await
    })
    .await;
    // Letters that stand are no more than that.
    is_equal(site.config(), MARKS, &["--strict"]);

    site.api.upload_file(&plugin("tests/guests/reject-fewer"));
    let body = json!({ "letters": { "limit": 1000 }, "plugin": "reject-some@0.2.0" });
    let path = format!("/v1/pipelines/{MARKS}/dead-letters/retry");
    site.api.json("POST", &path, &body).unwrap().ok();
    let rows = "SELECT count(*) FROM reject_some";
    assert_eq!(stage.number(rows).await, 100);
    let report = is_equal(site.config(), MARKS, &[]);
    assert_eq!(report["unchecked"][0]["count"], 10, "{report:#}");
    let (code, _) = verify(site.config(), MARKS, &["--strict"]);
    assert_eq!(
        code,
        Some(6),
        "whether they were retried or lost nobody knows"
    );

    // Twice is not possible, and neither is what no version makes.
    stage
        .execute("INSERT INTO reject_some VALUES ('k13'), ('nobody')")
        .await;
    let (code, report) = verify(site.config(), MARKS, &[]);
    assert_eq!(code, Some(6), "{report:#}");
    let table = "public.reject_some";
    assert_eq!(
        differences(&report),
        BTreeSet::from([
            wanted("extra", table, Some((0, 13))),
            wanted("extra", table, None)
        ]),
        "{report:#}"
    );
}
