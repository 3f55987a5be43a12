//! Three hosts follow one control log and share one group: upload through any of them, kill any of them.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use wasmill_tests::host::Host;
use wasmill_tests::site::Plot;
use wasmill_tests::steady::{self, Steady};
use wasmill_tests::versions::{self, Version};
use wasmill_tests::wait::{eventually, same};
use wasmill_tests::{Site, Stage, versioned};

use super::{PIPELINE, SOON, deploy_first, exact, processed, rows_of, stage};

/// After a kill its partitions are idle for a session time-out before others have them.
const REBALANCED: Duration = Duration::from_secs(60);

fn site(stage: &Stage, id: &str) -> Site {
    Site::new(stage, &Plot::new(id))
}

/// What a host believes: revision, release and every stored version with its digest.
fn belief(site: &Site) -> Result<(u64, String, BTreeSet<String>), String> {
    let status = site.api.status(PIPELINE)?;
    let plugins = site.api.get("/v1/plugins")?.ok();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let plugins = plugins
        .as_array()
        .unwrap()
        .iter()
        .map(|version| format!("{} {}", text(&version["plugin"]), text(&version["digest"])));
    let revision = status["revision"]
        .as_u64()
        .ok_or_else(|| status.to_string())?;
    Ok((revision, text(&status["plugin"]), plugins.collect()))
}

/// Waits until all believe the same, of this version.
async fn agree(sites: &[&Site], version: &Version) {
    eventually(SOON, "all hosts say the same", async || {
        let first = belief(sites[0])?;
        same(&first.1, &version.plugin())?;
        for other in &sites[1..] {
            same(&belief(other)?, &first)?;
        }
        Ok(())
    })
    .await;
}

/// Waits until the newest row of every partition is of this version.
async fn everywhere(stage: &Stage, version: &Version) {
    let sql = format!(
        "SELECT count(*) FROM (SELECT DISTINCT ON (partition) version FROM {} \
         ORDER BY partition, \"offset\" DESC) AS newest WHERE version = '{}'",
        versioned::TABLE,
        version.number
    );
    eventually(REBALANCED, "every partition has it", async || {
        stage.reaches(&sql, 6).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_of_three_may_die_during_a_deploy() {
    let stage = stage(6).await;
    let sites = ["one", "two", "three"].map(|id| site(&stage, id));
    let mut hosts: Vec<Option<Host>> = sites.iter().map(|site| Some(site.up().0)).collect();
    let all: Vec<&Site> = sites.iter().collect();
    deploy_first(&sites[0], &versions::version(0));
    agree(&all, &versions::version(0)).await;
    let steady = Steady::versioned(stage.bootstrap(), PIPELINE, 1_200, steady::empty(6));
    rows_of(&stage, &versions::version(0)).await;

    for (round, victim) in [0, 1, 2, 0, 1, 2].into_iter().enumerate() {
        let version = versions::version(u32::try_from(round).unwrap() + 1);
        // Uploaded through one, deployed through another; in the second half through the one that dies.
        let (uploader, survivor) = ((victim + 1) % 3, (victim + 2) % 3);
        let deployer = if round < 3 { survivor } else { victim };
        sites[uploader].api.upload_file(&version.file);
        let (api, plugin) = (sites[deployer].api.clone(), version.plugin());
        let asked = std::thread::spawn(move || api.deploy(PIPELINE, &plugin, json!({})));
        tokio::time::sleep(Duration::from_millis(7 * u64::try_from(round).unwrap())).await;
        hosts[victim].take().expect("it ran").kill();
        let answered = asked.join().unwrap();
        if deployer == victim {
            // Whoever got no answer asks again, elsewhere; what was answered with success stands.
            let again = sites[survivor]
                .api
                .deploy(PIPELINE, &version.plugin(), json!({}));
            again.unwrap().ok();
        } else {
            answered
                .unwrap_or_else(|error| panic!("the survivor did not answer: {error}"))
                .ok();
        }
        agree(&[&sites[uploader], &sites[survivor]], &version).await;
        // The dead one comes back in every other round before the others have its partitions.
        if round % 2 == 0 {
            everywhere(&stage, &version).await;
        }
        hosts[victim] = Some(sites[victim].up().0);
        agree(&all, &version).await;
        everywhere(&stage, &version).await;
    }
    let records = steady.stop();
    processed(&stage, &records).await;
    exact(&stage, &sites[1], &records).await;
    for host in hosts {
        let exit = host.expect("all run").stop(Duration::from_secs(25));
        assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_join_leave_and_are_replaced_one_by_one() {
    let stage = stage(6).await;
    let sites = ["one", "two", "three"].map(|id| site(&stage, id));
    let first = sites[0].up().0;
    let (old, new) = (versions::version(0), versions::version(1));
    deploy_first(&sites[0], &old);
    let steady = Steady::versioned(stage.bootstrap(), PIPELINE, 1_200, steady::empty(6));
    rows_of(&stage, &old).await;

    // Join: an empty cache and the brokers are all it has.
    let second = sites[1].up().0;
    agree(&[&sites[0], &sites[1]], &old).await;
    let owned = |site: &Site| -> Result<usize, String> {
        let status = site.api.get("/v1/host")?.ok();
        let pipelines = status["pipelines"].as_array().unwrap();
        let ours = pipelines.iter().find(|one| one["name"] == PIPELINE);
        let count = ours.and_then(|one| one["partitions"].as_u64()).unwrap_or(0);
        Ok(usize::try_from(count).unwrap())
    };
    eventually(REBALANCED, "both have partitions", async || {
        same(&(owned(&sites[0])? + owned(&sites[1])?), &6)?;
        match owned(&sites[1])? {
            0 => Err("the second has none".to_owned()),
            _ => Ok(()),
        }
    })
    .await;

    // Leave: the first, through which everything was uploaded.
    assert_eq!(first.stop(Duration::from_secs(25)).code, Some(0));
    sites[1].api.upload_file(&new.file);
    let answer = sites[1].api.deploy(PIPELINE, &new.plugin(), json!({}));
    answer.unwrap().ok();
    let third = sites[2].up().0;
    agree(&[&sites[1], &sites[2]], &new).await;
    everywhere(&stage, &new).await;

    // A rolling restart, as for a new version of the host itself.
    let first = sites[0].up().0;
    let mut hosts = vec![first, second, third];
    for site in &sites {
        assert_eq!(hosts.remove(0).stop(Duration::from_secs(25)).code, Some(0));
        hosts.push(site.up().0);
        let others: Vec<&Site> = sites.iter().collect();
        agree(&others, &new).await;
    }
    let records = steady.stop();
    processed(&stage, &records).await;
    exact(&stage, &sites[2], &records).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_deployers_at_two_hosts_cannot_both_win() {
    let stage = stage(2).await;
    let sites = ["one", "two"].map(|id| site(&stage, id));
    let _hosts = sites.each_ref().map(|site| site.up().0);
    deploy_first(&sites[0], &versions::version(0));
    let all: Vec<&Site> = sites.iter().collect();
    agree(&all, &versions::version(0)).await;
    for version in 1..=8 {
        sites[usize::from(version % 2 == 0)]
            .api
            .upload_file(&versions::version(version).file);
    }
    for round in 0..4 {
        let mut seen = None;
        eventually(SOON, "both know everything", async || {
            let (left, right) = (belief(&sites[0])?, belief(&sites[1])?);
            same(&left, &right)?;
            if left.2.len() < 9 {
                return Err(format!("{:?}", left.2));
            }
            seen = Some(left.0);
            Ok(())
        })
        .await;
        let ask = |site: usize, version: u32| {
            let (api, plugin) = (sites[site].api.clone(), versions::version(version).plugin());
            std::thread::spawn(move || {
                api.deploy(PIPELINE, &plugin, json!({ "seen": seen }))
                    .unwrap()
            })
        };
        let asked = [ask(0, 1 + round * 2), ask(1, 2 + round * 2)];
        let answers = asked.map(|one| one.join().unwrap());
        let mut status = answers.each_ref().map(|answer| answer.status);
        status.sort_unstable();
        assert!(
            status[0] < 300 && status[1] == 409,
            "exactly one wins: {answers:?}"
        );
        let winner = answers
            .iter()
            .position(|answer| answer.status < 300)
            .unwrap();
        let number = 1 + round * 2 + u32::try_from(winner).unwrap();
        agree(&all, &versions::version(number)).await;
    }
}
