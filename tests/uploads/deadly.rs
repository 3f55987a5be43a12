//! A version on trial that kills the host: it goes, and the record it died of is the stable version's. A guest that
//! never returns stands for it: whenever the mark says that the guest is at the record, the test kills the host.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wasmill_tests::host::Host;
use wasmill_tests::versions;
use wasmill_tests::wait::eventually;
use wasmill_tests::{Site, Stage};

use super::{
    PIPELINE, SOON, actions, deploy_first, deployed, exact, host, processed, send, send_more, stage,
};

/// The record that never ends.
const DEADLY: i64 = 250;
/// Records of each partition before the trial begins, and in the end.
const BEFORE: i64 = 100;
const ALL: i64 = 400;

/// Files of marks that say that a lane, or a shadow, is at work on the record.
fn at_the_record(marks: &Path, shadows: bool) -> Vec<(PathBuf, String)> {
    let files = std::fs::read_dir(marks).into_iter().flatten().flatten();
    let texts = files.filter_map(|file| {
        let text = std::fs::read_to_string(file.path()).ok()?;
        Some((file.path(), text.trim_end().to_owned()))
    });
    let is_there = |(path, text): &(PathBuf, String)| {
        let words: Vec<&str> = text.split_whitespace().collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<i64>().ok());
        let (Some(from), Some(to)) = (number(1), number(2)) else {
            return false;
        };
        let is_shadow = path.extension().is_some_and(|end| end == "shadow");
        words[0] == "working" && (from..to).contains(&DEADLY) && is_shadow == shadows
    };
    texts.filter(is_there).collect()
}

/// Waits until the host said this.
async fn logged(host: &Host, words: &str) {
    eventually(SOON, words, async || {
        let log = host.stderr();
        match log.contains(words) {
            true => Ok(()),
            false => Err(log),
        }
    })
    .await;
}

/// Kills the host whenever the trial has been at the record for a while, until `over`; how often.
fn killed(
    site: &Site,
    stage: &Stage,
    mut host: Host,
    shadows: bool,
    over: impl Fn(&Value) -> bool,
) -> (Host, usize) {
    let marks = stage.path(&site.id).join("cache/deaths").join(&site.id);
    let mut kills = 0;
    let mut begun = Instant::now();
    // Until its lane begins a mark says what it said when the host died, and not how often.
    let mut last = Vec::new();
    loop {
        let there = at_the_record(&marks, shadows);
        std::thread::sleep(Duration::from_millis(300));
        if !there.is_empty() && there != last && at_the_record(&marks, shadows) == there {
            host.kill();
            kills += 1;
            last.clone_from(&there);
            assert!(kills < 10, "it is tried again and again: {there:?}");
            host = site.start();
            site.wait_ready(&mut host);
            begun = Instant::now();
            continue;
        }
        host.alive().unwrap();
        if site.api.status(PIPELINE).is_ok_and(|status| over(&status)) {
            return (host, kills);
        }
        assert!(
            begun.elapsed() < SOON,
            "neither at the record nor over after {kills} kills: {}",
            host.stderr()
        );
    }
}

#[tokio::test]
async fn a_canary_that_kills_the_host_is_rolled_back_and_its_record_is_a_row() {
    let stage = stage(2).await;
    let (site, host) = host(&stage, "deadly-canary");
    let (good, bad) = (versions::version(0), versions::spinning());
    deploy_first(&site, &good);
    processed(&stage, &send(&stage, 2, BEFORE)).await;
    site.api.upload_file(&bad.file);
    deployed(&site, &bad, json!({ "canary": { "partitions": 1 } }));
    logged(&host, &format!("plugin={}", bad.plugin())).await;
    let records = send_more(&stage, 2, BEFORE..ALL);
    let (_host, kills) = killed(&site, &stage, host, false, |status| {
        status["canary"].is_null()
    });
    assert_eq!(kills, 4, "three times among others, once alone");
    let newest = &site.api.history(PIPELINE)["revisions"][0];
    let note = newest["note"].as_str().unwrap_or_default();
    assert!(note.contains("the host died 4 times"), "{newest:#}");
    let (action, _, by) = &actions(&site)[0];
    assert_eq!((action.as_str(), by.as_str()), ("rollback", "canary"));
    processed(&stage, &records).await;
    exact(&stage, &site, &records).await;
    assert_eq!(stage.dead().await, [], "no record is condemned");
}

#[tokio::test]
async fn a_shadow_that_kills_the_host_is_stopped_and_nothing_else() {
    let stage = stage(1).await;
    let (site, host) = host(&stage, "deadly-shadow");
    let (live, bad) = (versions::version(0), versions::spinning());
    deploy_first(&site, &live);
    processed(&stage, &send(&stage, 1, BEFORE)).await;
    site.api.upload_file(&bad.file);
    deployed(&site, &bad, json!({ "shadow": true }));
    logged(&host, "deployment followed pipeline=swapped revision=2").await;
    let records = send_more(&stage, 1, BEFORE..ALL);
    let (_host, kills) = killed(&site, &stage, host, true, |status| {
        status["shadow"]["failures"] == 1
    });
    assert_eq!(kills, 3);
    processed(&stage, &records).await;
    exact(&stage, &site, &records).await;
    assert_eq!(stage.dead().await, [], "no record is condemned");
    // Also where the lane is new: it is not tried again.
    let more = send_more(&stage, 1, ALL..ALL + 100);
    processed(&stage, &more).await;
    eventually(SOON, "the shadow stays stopped", async || {
        let status = site.api.status(PIPELINE)?;
        match status["shadow"]["failures"] == 1 {
            true => Ok(()),
            false => Err(status["shadow"].to_string()),
        }
    })
    .await;
}
