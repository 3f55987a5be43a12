//! What one save does: build → fixtures → upload → deploy → the newest records again, compared with the build
//! before. It owns the servers, the host and the scratch folder; watching is not its business.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;
use tracing::subscriber::NoSubscriber;

use super::diff;
use super::inputs::{checked, key_pointer, newest, overlay_of, samples};
use crate::admin::types::{DeployRequest, Deployed, Uploaded};
use crate::author::{BuildOptions, Built, Detail, Golden, Rerun, Rows};
use crate::cli::client::{Method, path};
use crate::cli::demo::servers::Servers;
use crate::cli::feed::KeyAt;
use crate::cli::follow::{self, Goal, Waiting};
use crate::cli::own_host::OwnHost;
use crate::cli::{Failure, Voice, feed, plugin, report, show, upload};
use crate::config::{PipelineConfig, RouteBinding};
use crate::error::Error;
use crate::kafka::{self, Feed};
use crate::manifest::{Manifest, Target};
use crate::pipeline::setup;
use crate::record::Batch;
use crate::task;

/// Partitions of a topic that is made here.
const PARTITIONS: i32 = 4;
/// How long a build may take until it runs.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the author asked for.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// The plugin's folder.
    pub(super) folder: PathBuf,
    /// Newest records that are run again.
    pub(super) records: u32,
    /// What goes into the topic; the folder's data by default.
    pub(super) data: Option<PathBuf>,
    /// Where records have their key.
    pub(super) key: Option<String>,
    /// What is deployed with.
    pub(super) overlay: Option<PathBuf>,
    /// Whether Cassandra runs.
    pub(super) cassandra: bool,
    /// Whether cargo may reach out.
    pub(super) offline: bool,
}

/// One run of `wasmill dev`. Dropped in order: the host before the servers it uses.
pub(super) struct Session {
    host: Option<OwnHost>,
    settings: Settings,
    scratch: tempfile::TempDir,
    voice: Voice,
    round: u32,
    fed: bool,
    before: Option<Before>,
    servers: Servers,
}

/// The build before.
struct Before {
    plugin: String,
    rerun: Rerun,
}

/// A build with what it is bound to.
struct Build {
    built: Built,
    component: Vec<u8>,
    overlay: String,
    pipeline: PipelineConfig,
    topic: String,
}

impl Build {
    fn plugin(&self) -> String {
        format!(
            "{}@{}",
            self.built.manifest.name, self.built.manifest.version
        )
    }
}

impl Session {
    /// A session that has built nothing yet.
    pub(super) fn new(settings: Settings, servers: Servers, voice: Voice) -> Result<Self, Error> {
        let scratch = tempfile::tempdir()
            .map_err(|error| Error::outside("make a temporary folder", error))?;
        Ok(Self {
            host: None,
            settings,
            scratch,
            voice,
            round: 0,
            fed: false,
            before: None,
            servers,
        })
    }

    /// Does everything once.
    ///
    /// # Errors
    /// Whatever is wrong with the build, its fixtures or its deployment. Row changes are shown also of a build
    /// whose fixtures differ: they say why.
    pub(super) fn round(&mut self) -> Result<(), Failure> {
        let started = Instant::now();
        self.round += 1;
        let build = self.build()?;
        let fixtures = self.fixtures(&build);
        self.feed(&build)?;
        self.make_topics(&build)?;
        let deployed = match fixtures {
            Ok(()) => self.deploy(&build),
            Err(differ) => Err(differ),
        };
        self.rerun(&build)?;
        deployed?;
        eprintln!(
            "{:>9} after {:.1} s",
            "done",
            started.elapsed().as_secs_f64()
        );
        Ok(())
    }

    /// Ends the host; the servers end when this is dropped. A pipeline that had failed was shown when it did.
    pub(super) fn end(mut self) {
        if let Some(running) = self.host.take()
            && let Err(error) = running.host.stop()
        {
            tracing::info!(error = %error, "the host ended with a failed pipeline");
        }
    }

    fn build(&self) -> Result<Build, Failure> {
        let options = BuildOptions {
            out: Some(self.scratch.path().join("plugin.wasm")),
            offline: self.settings.offline,
            colour: report::colour(),
            pre_release: Some(format!("dev.{}", self.round)),
        };
        let built = plugin::build(&self.settings.folder, &options)?;
        let component = std::fs::read(&built.path)
            .map_err(|error| Error::outside(format!("read {}", built.path.display()), error))?;
        let overlay = match &self.settings.overlay {
            Some(file) => std::fs::read_to_string(file).map_err(|error| {
                Error::config(format!("read the overlay {}", file.display()), error)
            })?,
            None => overlay_of(&built.manifest, self.settings.cassandra),
        };
        let pipeline = checked(&self.servers.connections(), &built.manifest.name, &overlay)?;
        let input = &built.manifest.inputs[0];
        let topic = pipeline
            .inputs
            .get(&input.name)
            .and_then(|bound| bound.topic.clone())
            .unwrap_or_else(|| input.topic.clone());
        Ok(Build {
            built,
            component,
            overlay,
            pipeline,
            topic,
        })
    }

    /// The fixtures of the folder, if it has any.
    fn fixtures(&self, build: &Build) -> Result<(), Failure> {
        let folder = self.settings.folder.join("fixtures");
        if !folder.is_dir() {
            return Ok(());
        }
        // As in `wasmill plugin test`: why the plugin failed is said with the fixture.
        let tested = tracing::subscriber::with_default(NoSubscriber::default(), || {
            let folder = &self.settings.folder;
            plugin::run_fixtures(&build.component, folder, Golden::Compare, &BTreeMap::new())
        })?;
        if !self.voice.json {
            for fixture in &tested.fixtures {
                let lines = plugin::fixture_lines(fixture, Detail::Short);
                lines.iter().for_each(report::line);
            }
        }
        if tested.passed() {
            return Ok(());
        }
        Err(Error::plugin(
            "test the plugin",
            "fixtures differ: this build was not deployed",
        )
        .hint("look at the differences; if they are right, `wasmill plugin test --bless`")
        .into())
    }

    /// Makes the topic and fills it, once.
    fn feed(&mut self, build: &Build) -> Result<(), Failure> {
        if self.fed {
            return Ok(());
        }
        let wanted = key_pointer(&build.built.manifest.inputs[0]);
        let key = match (&self.settings.key, &wanted) {
            (Some(pointer), _) => Some(KeyAt::named(pointer)),
            (None, Some(pointer)) => Some(KeyAt {
                pointer,
                otherwise: "the plugin reads the record's key: start again with --key and a pointer to the field \
                            that holds it, such as --key /id",
            }),
            (None, None) => None,
        };
        let files = match &self.settings.data {
            Some(file) => vec![file.clone()],
            None => samples(&self.settings.folder.join("data"))?,
        };
        let runtime = task::runtime()?;
        let producer = runtime.block_on(Feed::open(
            &self.servers.kafka_settings(),
            &build.topic,
            PARTITIONS,
        ))?;
        for path in files {
            let unreadable = |error| Error::config(format!("read {}", path.display()), error);
            let file = std::fs::File::open(&path).map_err(unreadable)?;
            let sent = feed::send_lines(&mut BufReader::new(file), key, &producer, &unreadable)?;
            let keyed = key.map(|key| format!(", their key from {}", key.pointer));
            eprintln!(
                "{:>9} {} of {} into topic {}{}",
                report::paint("fed", "1;32"),
                show::number_of(sent, "record"),
                path.display(),
                build.topic,
                keyed.unwrap_or_default()
            );
        }
        producer.finish()?;
        self.fed = true;
        Ok(())
    }

    /// Makes the topics that routes write to: there is nobody else who could in a broker of this session.
    fn make_topics(&self, build: &Build) -> Result<(), Failure> {
        let runtime = task::runtime()?;
        for route in &build.built.manifest.routes {
            let Target::Kafka(topic) = &route.target else {
                continue;
            };
            let name = match build.pipeline.routes.get(&route.name) {
                Some(RouteBinding::Topic {
                    topic: Some(bound), ..
                }) => bound,
                Some(RouteBinding::Discard) => continue,
                _ => &topic.topic,
            };
            let partitions = topic.partitions.map_or(PARTITIONS, i32::from);
            runtime.block_on(Feed::open(&self.servers.kafka_settings(), name, partitions))?;
        }
        Ok(())
    }

    /// Uploads the build and waits until it runs.
    fn deploy(&mut self, build: &Build) -> Result<(), Failure> {
        if self.host.is_none() {
            let host = OwnHost::start("dev", self.scratch.path(), &self.servers.connections())?;
            host.wait_ready()?;
            self.host = Some(host);
        }
        let client = &self.host.as_ref().expect("started above").client;
        let quiet = Voice { json: true };
        let uploaded: Uploaded = upload::send(client, &build.built.path, None, quiet)?.read()?;
        for warning in &uploaded.report.warnings {
            eprintln!("{:>9} {warning}", report::paint("warning", "1;33"));
        }
        let pipeline = &build.built.manifest.name;
        let request = DeployRequest {
            plugin: uploaded.plugin.clone(),
            overlay: Some(build.overlay.clone()),
            ..DeployRequest::default()
        };
        let what = format!("deploy {}", uploaded.plugin);
        let answer = client.send(
            Method::Put,
            &path::of_pipeline(pipeline, "deployment"),
            &request,
            &what,
        )?;
        let deployed: Deployed = answer.read()?;
        follow::until(
            client,
            &deployed,
            Goal::Everywhere,
            &Waiting::at_most(PATIENCE),
            quiet,
        )?;
        eprintln!(
            "{:>9} {} in pipeline {pipeline}, revision {}",
            report::paint("deployed", "1;32"),
            uploaded.plugin,
            deployed.revision
        );
        Ok(())
    }

    /// The newest records through this build and the one before, with nothing written.
    fn rerun(&mut self, build: &Build) -> Result<(), Failure> {
        let manifest = &build.built.manifest;
        let most = i64::from(self.settings.records);
        let batches = kafka::tail(&self.servers.kafka_settings(), &build.topic, most)?;
        let batches = newest(&batches, self.settings.records as usize);
        let records: usize = batches.iter().map(Batch::len).sum();
        let setup = |manifest: &Manifest| {
            setup::encode(&manifest.name, "info", manifest, &build.pipeline.config)
        };
        let mut rerun = Rerun::new(&build.component, &setup)?;
        let after = rerun.run(&batches)?;
        // The build before runs the same records: they may be others than last time.
        let before = match &mut self.before {
            Some(before) => Some((before.plugin.clone(), before.rerun.run(&batches)?)),
            None => None,
        };
        self.show(build, records, before.as_ref(), &after);
        for fault in &after.faults {
            eprintln!("{:>9} {fault}", report::paint("fault", "1;31"));
            if let Some(hint) = fault.hint_text() {
                eprintln!("{:>9} {hint}", report::paint("hint", "1;36"));
            }
        }
        self.before = Some(Before {
            plugin: format!("{}@{}", manifest.name, manifest.version),
            rerun,
        });
        Ok(())
    }

    fn show(&self, build: &Build, records: usize, before: Option<&(String, Rows)>, after: &Rows) {
        let manifest = &build.built.manifest;
        let changes = before.map(|(_, before)| diff::diff(before, after));
        if self.voice.json {
            let counts: serde_json::Map<_, _> = diff::counts(manifest, after)
                .into_iter()
                .map(|(route, rows)| (route, json!(rows)))
                .collect();
            // One line a build: a reader follows it as it grows.
            report::line(json!({
                "plugin": build.plugin(), "before": before.map(|(plugin, _)| plugin), "records": records,
                "rows": counts, "changes": changes.as_deref().map(diff::document),
            }));
            return;
        }
        let counted: Vec<_> = diff::counts(manifest, after)
            .into_iter()
            .map(|(route, rows)| format!("{route} {rows}"))
            .collect();
        report::line(format_args!(
            "{}: rows of the newest {}: {}",
            build.plugin(),
            show::number_of(records as u64, "record"),
            counted.join(", ")
        ));
        if let (Some((plugin, _)), Some(changes)) = (before, &changes) {
            report::line(format_args!("against {plugin}:"));
            for line in diff::lines(manifest, changes) {
                report::line(line);
            }
        }
    }
}
