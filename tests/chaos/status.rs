//! A status while the database does not answer: it comes all the same, soon, and says what it does not know; and what
//! it costs the database while it does answer.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::Value;
use wasmill_tests::artifact::wasmill;
use wasmill_tests::proxy::Link;
use wasmill_tests::site::Plot;
use wasmill_tests::stage::pipeline;
use wasmill_tests::wait::eventually;
use wasmill_tests::{Site, Stage, versioned, versions};

/// So many that waiting for them one after the other, or eight at once, is told apart from waiting for all at once.
const PIPELINES: usize = 25;

/// A status waits two seconds for the servers; with what a busy machine adds.
const STATUS: Duration = Duration::from_secs(5);

/// A little longer than a status is content with what it was told before.
const FRESH: Duration = Duration::from_millis(2_200);

const SOON: Duration = Duration::from_secs(60);

/// The status of all pipelines, and how long it took.
fn all(site: &Site) -> (Vec<Value>, Duration) {
    let start = Instant::now();
    let all = site.api.get("/v1/pipelines").unwrap().ok();
    (all.as_array().unwrap().clone(), start.elapsed())
}

/// Every pipeline runs and stands somewhere; whether the ledger of all of them is known, or of none.
fn ledgers(all: &[Value]) -> Result<bool, String> {
    assert_eq!(all.len(), PIPELINES);
    let known = all.iter().filter(|one| {
        let partition = &one["partitions"][0];
        assert_eq!(one["state"], "running", "{one:#}");
        assert!(partition["position"].is_i64(), "{one:#}");
        partition["ledger"].is_object()
    });
    match known.count() {
        0 => Ok(false),
        PIPELINES => Ok(true),
        some => Err(format!("{some} of {PIPELINES} ledgers are known")),
    }
}

/// The sessions that statuses are answered through.
async fn sessions(stage: &Stage) -> Vec<i32> {
    let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'wasmill/status'";
    let rows = stage.rows(sql).await;
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a_postgres_that_hangs_holds_up_no_status_and_one_that_answers_is_asked_over_one_connection()
 {
    let stage = Stage::linked();
    stage.feed.topic("looked-at", 1).await;
    versioned::create_table(&stage).await;
    let mut plot = Plot::new("status");
    for index in 0..PIPELINES {
        let one = pipeline(
            &format!("p{index}"),
            &versions::version(0).file,
            &versioned::overlay("looked-at"),
        );
        writeln!(plot.more, "{one}").unwrap();
    }
    let site = Site::new(&stage, &plot);
    let (host, _) = site.up();
    // The host itself is asked, which asks no database.
    eventually(SOON, "every pipeline has its partition", async || {
        let host = site.api.get("/v1/host")?.ok();
        let owned = host["pipelines"].as_array().unwrap().iter();
        let owned = owned.filter(|one| one["partitions"] == 1).count();
        match owned == PIPELINES {
            true => Ok(()),
            false => Err(format!("{host:#}")),
        }
    })
    .await;

    let link = &stage.links.as_ref().unwrap().postgres;
    link.set(Link::stalled());
    let (unknown, took) = all(&site);
    assert_eq!(ledgers(&unknown), Ok(false), "nothing was told yet");
    assert!(took < STATUS, "{took:?}");
    let said = wasmill()
        .args(["status", "p0"])
        .env("WASMILL_HOST", site.api.base())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&said.stdout);
    assert!(said.contains("ledger   not known"), "{said}");
    assert!(!site.api.metrics().contains("wasmill_ledger_records{"));

    link.heal();
    eventually(SOON, "the ledgers are known", async || {
        match ledgers(&all(&site).0)? {
            true => Ok(()),
            false => Err("not yet".to_owned()),
        }
    })
    .await;
    let one = sessions(&stage).await;
    assert_eq!(one.len(), 1, "{one:?}");
    for _ in 0..3 {
        tokio::time::sleep(FRESH).await;
        assert_eq!(ledgers(&all(&site).0), Ok(true));
        assert_eq!(sessions(&stage).await, one);
    }

    link.set(Link::stalled());
    tokio::time::sleep(FRESH).await;
    let (known, took) = all(&site);
    assert_eq!(ledgers(&known), Ok(true), "as they were known last");
    assert!(took < STATUS, "{took:?}");
    link.heal();
    assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
}
