//! A version that runs on live batches and writes nothing: what it would have changed is told.

use serde_json::{Value, json};
use wasmill_tests::steady::{self, Steady};
use wasmill_tests::wait::eventually;
use wasmill_tests::{versioned, versions};

use super::{PIPELINE, SOON, deploy_first, deployed, exact, host, processed, rows_of, stage, two};

#[tokio::test]
async fn a_shadow_reports_the_rows_that_differ_and_writes_none() {
    // One partition: where a canary is refused.
    let stage = stage(1).await;
    let (site, _host) = host(&stage, "shadow");
    let (live, shadow) = (versions::version(0), versions::differing());
    deploy_first(&site, &live);
    let steady = Steady::versioned(stage.bootstrap(), PIPELINE, 1_000, steady::empty(1));
    rows_of(&stage, &live).await;
    site.api.upload_file(&shadow.file);
    deployed(&site, &shadow, json!({ "shadow": true }));
    let report = eventually(SOON, "the shadow has seen records", async || {
        let status = site.api.status(PIPELINE)?;
        let report = &status["shadow"];
        if report["records"].as_u64() > Some(2_000) {
            Ok(report.clone())
        } else {
            Err(report.to_string())
        }
    })
    .await;
    let (records, differing) = (
        report["records"].as_u64().unwrap(),
        report["differing"].as_u64().unwrap(),
    );
    assert_eq!(report["failures"], 0, "{report:#}");
    // One record in fifty has another row, and one in five has its version in it.
    let share = records / differing.max(1);
    assert!((4..=6).contains(&share), "{differing} of {records} differ");
    let examples = report["examples"].as_array().unwrap();
    assert!(!examples.is_empty() && examples.len() <= 20, "{report:#}");
    for example in examples {
        assert_eq!(example["offset"].as_i64().unwrap() % 5, 0, "{example}");
    }

    site.api.change(PIPELINE, "rollback").unwrap().ok();
    eventually(SOON, "the shadow ends", async || {
        match &site.api.status(PIPELINE)?["shadow"] {
            Value::Null => Ok(()),
            shadow => Err(shadow.to_string()),
        }
    })
    .await;
    let records = steady.stop();
    processed(&stage, &records).await;
    exact(&stage, &site, &records).await;
    let rows = format!(
        "SELECT count(*) FROM {} WHERE version <> '{}'",
        versioned::TABLE,
        live.number
    );
    assert_eq!(stage.number(&rows).await, 0, "a shadow wrote");
}

#[tokio::test]
async fn a_shadow_that_traps_harms_nobody_and_a_shadow_can_be_promoted() {
    let stage = stage(1).await;
    let (site, mut host) = host(&stage, "trapping-shadow");
    let (live, trapping) = (versions::version(0), versions::trapping());
    let (_, next) = two();
    deploy_first(&site, &live);
    let steady = Steady::versioned(stage.bootstrap(), PIPELINE, 1_000, steady::empty(1));
    rows_of(&stage, &live).await;
    site.api.upload_file(&trapping.file);
    deployed(&site, &trapping, json!({ "shadow": true }));
    let report = eventually(SOON, "the shadow has seen records", async || {
        let report = site.api.status(PIPELINE)?["shadow"].clone();
        match report["records"].as_u64() {
            Some(records) if records > 2_000 => Ok(report),
            _ => Err(report.to_string()),
        }
    })
    .await;
    // One record in twenty traps, and one in five has the other version in its row.
    let count = |name: &str| report[name].as_u64().unwrap();
    let (records, differing) = (count("records"), count("differing"));
    assert!(
        records * 2 <= differing * 9 && differing * 7 <= records * 2,
        "{differing} of {records} differ"
    );
    assert!(
        report["examples"].to_string().contains("trap"),
        "an example tells of a trap: {report:#}"
    );
    host.alive().unwrap();
    assert_eq!(
        stage.dead().await,
        [],
        "what a shadow does is no dead letter"
    );

    site.api.upload_file(&next.file);
    deployed(&site, &next, json!({ "shadow": true }));
    site.api.change(PIPELINE, "promote").unwrap().ok();
    rows_of(&stage, &next).await;
    let records = steady.stop();
    processed(&stage, &records).await;
    exact(&stage, &site, &records).await;
    assert_eq!(stage.dead().await, []);
}
