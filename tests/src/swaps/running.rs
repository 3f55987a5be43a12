//! The host whose versions are swapped: asked to deploy, killed meanwhile, started again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;

use super::eye::Eye;
use super::{Options, PARTITIONS, PIPELINE};
use crate::host::{Host, Usage};
use crate::site::Site;
use crate::versions::Version;

/// A run under way.
pub(super) struct Running<'s> {
    pub(super) site: Site,
    pub(super) host: Option<Host>,
    pub(super) eye: Eye,
    pub(super) options: &'s Options,
    pub(super) used: Usage,
    pub(super) deployed: Vec<String>,
}

/// How fast records are processed from a moment on.
pub(super) struct Speed {
    pub(super) since: Instant,
    at: i64,
}

impl Speed {
    /// Records a second until now.
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub(super) async fn rate(&self, running: &Running<'_>) -> f64 {
        let records = running.eye.position().await - self.at;
        records as f64 / self.since.elapsed().as_secs_f64().max(1e-9)
    }
}

impl Running<'_> {
    pub(super) fn host(&mut self) -> &mut Host {
        self.host
            .as_mut()
            .expect("a host runs but between kill and restart")
    }

    /// Waits until so many records are processed.
    pub(super) async fn passes(&mut self, records: i64) {
        let host = self.host.as_mut().expect("it runs");
        self.eye.passes(host, records).await;
    }

    /// From here on.
    pub(super) async fn speed(&self) -> Speed {
        Speed {
            since: Instant::now(),
            at: self.eye.position().await,
        }
    }

    /// Stops the host for good; what is wrong with how it ended.
    pub(super) fn stops(&mut self) -> Vec<String> {
        let usage = self.host().usage();
        self.add(usage);
        let host = self.host.take().expect("it runs");
        let exit = host.stop(Duration::from_secs(25));
        let wrong = exit.code != Some(0);
        let said = || format!("the host ended with {:?}", exit.code);
        wrong.then(said).into_iter().collect()
    }

    pub(super) fn tell(&self, text: impl std::fmt::Display) {
        if self.options.tell {
            eprintln!("swap run: {text}");
        }
    }

    /// Asks for a version; panics unless it was done.
    pub(super) fn deploy(&mut self, version: &Version) {
        let answer = self.site.api.deploy(PIPELINE, &version.plugin(), json!({}));
        answer.unwrap_or_else(|error| panic!("{error}")).ok();
        self.deployed.push(version.number.clone());
    }

    /// Uploads and deploys a version nobody has seen; the time until every partition shows it.
    pub(super) async fn upload_and_deploy(&mut self, version: &Version) -> Duration {
        let bytes = std::fs::read(&version.file).unwrap();
        let start = Instant::now();
        let api = self.site.api.clone();
        api.upload(&bytes)
            .unwrap_or_else(|error| panic!("{error}"))
            .ok();
        let uploaded = start.elapsed();
        self.deploy(version);
        let asked = start.elapsed();
        self.wait_effective(version, &steady_before()).await;
        let seen = start.elapsed();
        self.tell(format!(
            "{}: uploaded after {uploaded:.0?}, deployed after {asked:.0?}, everywhere after {seen:.0?}",
            version.number
        ));
        seen
    }

    pub(super) async fn wait_effective(&mut self, version: &Version, after: &BTreeMap<i32, i64>) {
        let host = self
            .host
            .as_mut()
            .expect("a host runs but between kill and restart");
        self.eye.effective(host, &version.number, after).await;
    }

    /// Kills the host while a version is being deployed, starts it again and sees to it that the version gets in;
    /// says how long that took, and whether the deployment had survived.
    pub(super) async fn kill_during_deploy(
        &mut self,
        version: &Version,
        after: Duration,
        before: &BTreeMap<i32, i64>,
    ) -> (Duration, bool) {
        let (api, plugin) = (self.site.api.clone(), version.plugin());
        let revisions = self.revisions();
        let asked = std::thread::spawn(move || api.deploy(PIPELINE, &plugin, json!({})));
        tokio::time::sleep(after).await;
        let killed = Instant::now();
        let usage = self.host.take().expect("it runs").kill();
        self.add(usage);
        let answered = asked.join().expect("the asking thread does not panic");
        let (host, ready) = self.site.up();
        self.host = Some(host);
        let survived = self.revisions() > revisions;
        if let Ok(answer) = &answered
            && answer.status < 300
        {
            assert!(
                survived,
                "the host said that {} is deployed, and it is not: {answer:?}",
                version.number
            );
        }
        // Again, as whoever got no answer would ask.
        self.deploy(version);
        self.wait_effective(version, before).await;
        let seen = killed.elapsed();
        self.tell(format!(
            "killed {after:.0?} into the deployment of {}: ready again after {ready:.0?}, everywhere after {seen:.0?}{}",
            version.number,
            if survived { "; it had survived" } else { "" }
        ));
        (seen, survived)
    }

    fn revisions(&self) -> u64 {
        let status = self
            .site
            .api
            .status(PIPELINE)
            .unwrap_or_else(|error| panic!("{error}"));
        status["revision"]
            .as_u64()
            .expect("a status has a revision")
    }

    pub(super) fn add(&mut self, usage: Usage) {
        self.used.cpu += usage.cpu;
        self.used.peak_memory = self.used.peak_memory.max(usage.peak_memory);
    }
}

/// Offsets of a version that has none.
fn steady_before() -> BTreeMap<i32, i64> {
    (0..PARTITIONS).map(|partition| (partition, -1)).collect()
}
