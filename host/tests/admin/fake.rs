//! A host in memory behind the API: it keeps versions and revisions as a real one does, and runs nothing. A
//! component is any text whose first line is `name@version`; a second line `panic` or `slow` does what it says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use wasmill::admin::types::{
    AuditEntry, Change, ChangeRequest, DeadLetter, DeadLetterBundle, DeadLetterCount,
    DeadLetterPage, DeadLetterQuery, DeadRecord, DeployRequest, Deployed, DropRequest, Dropped,
    ErrorCount, History, HostPipeline, HostStatus, Lag, LastError, Latency, Ledger,
    PartitionStatus, PipelineState, PipelineStatus, Plan, Raised, Rates, Readiness, RetryOutcome,
    RetryReport, RetryRequest, RetryResult, Revision, RouteGuarantee, Segment, Totals,
    UploadReport, Uploaded, VersionInfo, Waiting, WaitingError,
};
use wasmill::admin::{Answer, Kind, NewUpload, Operator, Refusal, Step};
use wasmill::error::Error;

const NOW: &str = "2026-01-02T03:04:05Z";

/// What the host in memory holds.
#[derive(Debug, Default)]
pub(crate) struct Fake {
    state: Mutex<State>,
    /// Denials it was told: who, what, why.
    pub(crate) denied: Mutex<Vec<[String; 3]>>,
    /// Why it is not ready.
    pub(crate) reasons: Mutex<Vec<String>>,
}

#[derive(Debug, Default)]
struct State {
    versions: BTreeMap<String, VersionInfo>,
    pipelines: BTreeMap<String, Vec<Revision>>,
    audit: Vec<AuditEntry>,
}

impl Fake {
    /// An empty host.
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Digests and sizes of what was stored.
    pub(crate) fn stored(&self) -> Vec<(String, u64)> {
        let state = self.state.lock();
        let all = state.versions.values();
        all.map(|version| (version.digest.clone(), version.size))
            .collect()
    }

    fn step(
        &self,
        by: &str,
        pipeline: &str,
        action: &str,
        request: &ChangeRequest,
    ) -> Result<Deployed, Refusal> {
        let mut state = self.state.lock();
        let revisions = state.revisions(pipeline)?;
        let last = revisions.last().ok_or_else(|| missing(pipeline))?.clone();
        seen(request.seen, last.revision)?;
        let next = Revision {
            evidence: None,
            revision: last.revision + 1,
            action: action.to_owned(),
            by: by.to_owned(),
            note: request.note.clone(),
            ..last
        };
        Ok(state.push(pipeline, next))
    }
}

impl State {
    fn revisions(&self, pipeline: &str) -> Result<&Vec<Revision>, Refusal> {
        let found = self.pipelines.get(pipeline);
        found.ok_or_else(|| missing(pipeline))
    }

    fn push(&mut self, pipeline: &str, revision: Revision) -> Deployed {
        let deployed = Deployed {
            pipeline: pipeline.to_owned(),
            revision: revision.revision,
            changed: true,
        };
        self.note(&revision.by.clone(), &revision.action.clone(), pipeline);
        self.pipelines
            .entry(pipeline.to_owned())
            .or_default()
            .push(revision);
        deployed
    }

    fn last(&self, pipeline: &str) -> Result<&Revision, Refusal> {
        let found = self.pipelines.get(pipeline).and_then(|all| all.last());
        found.ok_or_else(|| missing(pipeline))
    }

    fn note(&mut self, by: &str, action: &str, subject: &str) {
        self.audit.push(AuditEntry {
            at: NOW.to_owned(),
            by: by.to_owned(),
            host: "fake".to_owned(),
            action: action.to_owned(),
            subject: subject.to_owned(),
            outcome: "done".to_owned(),
        });
    }

    fn planned(&self, pipeline: &str, request: &DeployRequest) -> Result<Plan, Refusal> {
        let Some(version) = self.versions.get(&request.plugin) else {
            let error = Error::config(
                "find the plugin",
                format!("there is no {:?}", request.plugin),
            );
            return Err(Refusal::new(Kind::NotFound, error.hint("upload it")));
        };
        let overlay = request.overlay.as_deref().unwrap_or_default();
        if let Err(error) = overlay.parse::<toml::Table>() {
            return Err(Error::config("read the overlay", error.message()).into());
        }
        let last = self.pipelines.get(pipeline).and_then(|all| all.last());
        Ok(Plan {
            pipeline: pipeline.to_owned(),
            seen: last.map_or(0, |last| last.revision),
            hash: format!("plan-{}-{}", version.digest, overlay.len()),
            changes: vec![Change {
                what: "plugin".to_owned(),
                from: last.map(|last| last.plugin.clone()),
                to: Some(request.plugin.clone()),
            }],
            warnings: Vec::new(),
            guarantees: vec![RouteGuarantee {
                route: "rows".to_owned(),
                sink: "postgres.main rows".to_owned(),
                guarantee: "exactly once".to_owned(),
                why: "rows and position commit together".to_owned(),
            }],
            ddl: Vec::new(),
            problems: Vec::new(),
        })
    }
}

/// The one dead letter of every pipeline, where a query means it.
fn letters(query: &DeadLetterQuery) -> Vec<DeadLetter> {
    let letter = DeadLetter {
        topic: "quakes".to_owned(),
        partition: 0,
        offset: 7,
        index: 0,
        class: "data".to_owned(),
        code: "malformed".to_owned(),
        reason: "not JSON".to_owned(),
        plugin: "a@1.0.0".to_owned(),
        digest: None,
        at: Some(NOW.to_owned()),
        value_bytes: Some(8),
        ..DeadLetter::default()
    };
    let meant = query.partition.is_none_or(|partition| partition == 0)
        && query.from.is_none_or(|from| from <= 7)
        && query.to.is_none_or(|to| to > 7)
        && query.index.is_none_or(|index| index == 0)
        && query.code.as_deref().is_none_or(|code| code == "malformed");
    meant.then_some(letter).into_iter().collect()
}

fn missing(pipeline: &str) -> Refusal {
    let error = Error::config("find the pipeline", format!("there is no {pipeline:?}"));
    Refusal::new(Kind::NotFound, error)
}

fn seen(seen: Option<u64>, standing: u64) -> Result<(), Refusal> {
    match seen {
        Some(seen) if seen != standing => {
            let detail = format!("revision {seen} was seen, {standing} stands");
            Err(Refusal::new(
                Kind::Conflict,
                Error::config("change the deployment", detail),
            ))
        }
        _ => Ok(()),
    }
}

fn status(name: &str, revisions: &[Revision]) -> Option<PipelineStatus> {
    let last = revisions.last()?;
    Some(PipelineStatus {
        name: name.to_owned(),
        state: PipelineState::Running,
        revision: last.revision,
        behind: None,
        origin: "upload".to_owned(),
        plugin: last.plugin.clone(),
        release: last.release.clone(),
        canary: None,
        shadow: None,
        waiting: vec![Waiting {
            on: "postgres.main".to_owned(),
            since: NOW.to_owned(),
            seconds: 12.5,
            attempts: 7,
            partitions: vec![0],
            error: WaitingError {
                class: "outside".to_owned(),
                what: "connect".to_owned(),
                detail: "refused".to_owned(),
                hint: Some("start it".to_owned()),
            },
        }],
        servers: vec!["kafka.main".to_owned(), "postgres.main".to_owned()],
        lag: Lag { records: Some(7) },
        rates: Rates {
            records_per_second: 12.5,
            rows_per_second: 2.5,
        },
        totals: Totals {
            received: 10,
            emitted: 5,
            filtered: 3,
            dead: 2,
            rows: 6,
            flights: 4,
            retries: 1,
            guest_seconds: 0.25,
        },
        latency: Some(Latency {
            p50_ms: 2.0,
            p99_ms: 8.0,
        }),
        errors: vec![ErrorCount {
            class: "data".to_owned(),
            count: 2,
        }],
        dead_letters: vec![DeadLetterCount {
            code: "row-refused".to_owned(),
            count: 2,
        }],
        memory_bytes: 1 << 20,
        last_error: Some(LastError {
            at: NOW.to_owned(),
            class: "outside".to_owned(),
            what: "connect".to_owned(),
            detail: "refused".to_owned(),
            hint: None,
        }),
        partitions: vec![PartitionStatus {
            partition: 0,
            host: Some("fake".to_owned()),
            position: Some(42),
            lag: Some(7),
            ledger: Some(Ledger {
                records: 42,
                emitted: 40,
                filtered: 1,
                dead: 1,
                retried: 3,
            }),
            release: Some(last.release.clone()),
            quarantined: false,
            stalled: false,
        }],
    })
}

impl Operator for Fake {
    fn ready(&self) -> BoxFuture<'_, Readiness> {
        let reasons = self.reasons.lock().clone();
        Box::pin(async move {
            Readiness {
                ready: reasons.is_empty(),
                reasons,
                notes: vec!["pipeline quakes waits".to_owned()],
            }
        })
    }

    fn host_status(&self) -> BoxFuture<'_, HostStatus> {
        Box::pin(async {
            let state = self.state.lock();
            let pipelines = state.pipelines.keys();
            HostStatus {
                id: "fake".to_owned(),
                version: "0".to_owned(),
                ready: true,
                pipelines: pipelines
                    .map(|name| HostPipeline {
                        name: name.clone(),
                        state: PipelineState::Running,
                        partitions: 1,
                    })
                    .collect(),
                ..HostStatus::default()
            }
        })
    }

    fn list_versions(&self) -> Answer<'_, Vec<VersionInfo>> {
        Box::pin(async { Ok(self.state.lock().versions.values().cloned().collect()) })
    }

    fn upload(&self, upload: NewUpload) -> Answer<'_, Uploaded> {
        Box::pin(async move {
            let bytes = std::fs::read(&upload.file).expect("the upload's file is there");
            let text = String::from_utf8_lossy(&bytes);
            let mut lines = text.lines();
            let plugin = lines.next().unwrap_or_default().to_owned();
            let order = lines.next().unwrap_or_default().to_owned();
            if !plugin.contains('@') {
                let error = Error::plugin("read the component", "it is not WebAssembly");
                return Err(error.hint("upload what `wasmill plugin build` made").into());
            }
            assert_ne!(order, "panic", "as ordered");
            if order == "slow" {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            let mut state = self.state.lock();
            let known = state
                .versions
                .get(&plugin)
                .map(|known| known.digest.clone());
            if known
                .as_ref()
                .is_some_and(|digest| *digest != upload.digest)
            {
                let error = Error::config(
                    "store the version",
                    format!("{plugin} exists with other bytes"),
                );
                return Err(Refusal::new(
                    Kind::Conflict,
                    error.hint("give it another version"),
                ));
            }
            let info = VersionInfo {
                plugin: plugin.clone(),
                digest: upload.digest.clone(),
                size: upload.size,
                track: "since-v0.1".to_owned(),
                at: NOW.to_owned(),
                by: upload.by.clone(),
                signed_by: upload.signature,
                description: None,
                pipelines: Vec::new(),
            };
            state.versions.insert(plugin.clone(), info);
            state.note(&upload.by, "upload", &plugin);
            Ok(Uploaded {
                plugin,
                digest: upload.digest,
                size: upload.size,
                created: known.is_none(),
                report: UploadReport::default(),
            })
        })
    }

    fn plan<'a>(&'a self, pipeline: &'a str, request: DeployRequest) -> Answer<'a, Plan> {
        Box::pin(async move { self.state.lock().planned(pipeline, &request) })
    }

    fn deploy<'a>(
        &'a self,
        by: &'a str,
        pipeline: &'a str,
        request: DeployRequest,
    ) -> Answer<'a, Deployed> {
        Box::pin(async move {
            let mut state = self.state.lock();
            let plan = state.planned(pipeline, &request)?;
            seen(request.seen, plan.seen)?;
            if request.plan.is_some_and(|hash| hash != plan.hash) {
                let error = Error::config("apply the plan", "it would be another one now");
                return Err(Refusal::new(Kind::Conflict, error.hint("plan again")));
            }
            let revision = Revision {
                evidence: None,
                revision: plan.seen + 1,
                at: NOW.to_owned(),
                by: by.to_owned(),
                action: "deploy".to_owned(),
                plugin: request.plugin,
                release: "0123456789abcdef".to_owned(),
                note: request.note,
            };
            Ok(state.push(pipeline, revision))
        })
    }

    fn change<'a>(
        &'a self,
        by: &'a str,
        pipeline: &'a str,
        step: Step,
        request: ChangeRequest,
    ) -> Answer<'a, Deployed> {
        let action = format!("{step:?}").to_lowercase();
        Box::pin(async move { self.step(by, pipeline, &action, &request) })
    }

    fn status<'a>(&'a self, pipeline: Option<&'a str>) -> Answer<'a, Vec<PipelineStatus>> {
        Box::pin(async move {
            let state = self.state.lock();
            let Some(name) = pipeline else {
                let all = state.pipelines.iter();
                return Ok(all
                    .filter_map(|(name, revisions)| status(name, revisions))
                    .collect());
            };
            let revisions = state.revisions(name)?;
            Ok(status(name, revisions).into_iter().collect())
        })
    }

    fn history<'a>(&'a self, pipeline: &'a str) -> Answer<'a, History> {
        Box::pin(async move {
            let state = self.state.lock();
            let revisions = state.revisions(pipeline)?;
            let segment = Segment {
                partition: 0,
                from: 0,
                to: None,
                release: "0123456789abcdef".to_owned(),
                plugin: "a@1.0.0".to_owned(),
            };
            Ok(History {
                pipeline: pipeline.to_owned(),
                revisions: revisions.iter().rev().cloned().collect(),
                segments: vec![segment],
            })
        })
    }

    fn dead_letters<'a>(
        &'a self,
        pipeline: &'a str,
        query: DeadLetterQuery,
    ) -> Answer<'a, DeadLetterPage> {
        Box::pin(async move {
            let state = self.state.lock();
            state.last(pipeline)?;
            let letters = letters(&query);
            Ok(DeadLetterPage {
                next: (!letters.is_empty()).then(|| "0:8:0".to_owned()),
                left: query.count.then_some(0),
                letters,
            })
        })
    }

    fn dead_letter<'a>(
        &'a self,
        pipeline: &'a str,
        (partition, offset, index): (i32, i64, i32),
    ) -> Answer<'a, DeadLetter> {
        Box::pin(async move {
            self.state.lock().last(pipeline)?;
            let found = letters(&DeadLetterQuery {
                partition: Some(partition),
                from: Some(offset),
                to: Some(offset.saturating_add(1)),
                index: Some(index),
                ..DeadLetterQuery::default()
            });
            let error = || Error::config("find the dead letter", "there is none");
            let letter = found.into_iter().next();
            let mut letter = letter.ok_or_else(|| Refusal::new(Kind::NotFound, error()))?;
            letter.record = Some(DeadRecord {
                value: Some("bm90IGpzb24=".to_owned()),
                from: "letter".to_owned(),
                ..DeadRecord::default()
            });
            Ok(letter)
        })
    }

    fn dead_letter_bundle<'a>(
        &'a self,
        pipeline: &'a str,
        at: (i32, i64, i32),
    ) -> Answer<'a, DeadLetterBundle> {
        Box::pin(async move {
            Ok(DeadLetterBundle {
                letter: self.dead_letter(pipeline, at).await?,
                release: "0123456789abcdef".to_owned(),
                digest: format!("sha256:{}", "0".repeat(64)),
                routes: vec!["rows".to_owned()],
                ..DeadLetterBundle::default()
            })
        })
    }

    fn raise<'a>(&'a self, by: &'a str, pipeline: &'a str) -> Answer<'a, Raised> {
        Box::pin(async move {
            let mut state = self.state.lock();
            state.last(pipeline)?;
            state.note(by, "raise write times", pipeline);
            Ok(Raised {
                partitions: 5,
                added: 1,
                write_time: 1_700_000_000_000_000,
            })
        })
    }

    fn drop_dead_letters<'a>(
        &'a self,
        by: &'a str,
        pipeline: &'a str,
        request: DropRequest,
    ) -> Answer<'a, Dropped> {
        Box::pin(async move {
            let mut state = self.state.lock();
            state.last(pipeline)?;
            let found = letters(&request.letters).len();
            if !request.dry_run {
                state.note(by, "drop dead letters", pipeline);
            }
            Ok(Dropped {
                dropped: found as u64,
                next: None,
                left: request.letters.count.then_some(0),
            })
        })
    }

    fn retry_dead_letters<'a>(
        &'a self,
        by: &'a str,
        pipeline: &'a str,
        request: RetryRequest,
    ) -> Answer<'a, RetryReport> {
        Box::pin(async move {
            let mut state = self.state.lock();
            let last = state.last(pipeline)?.clone();
            state.note(by, "retry dead letters", pipeline);
            let result = |letter: DeadLetter| RetryResult {
                partition: letter.partition,
                offset: letter.offset,
                index: letter.index,
                outcome: RetryOutcome::Emitted,
                rows: 1,
                code: None,
                reason: None,
            };
            Ok(RetryReport {
                plugin: request.plugin.unwrap_or(last.plugin),
                release: last.release,
                results: letters(&request.letters).into_iter().map(result).collect(),
                next: None,
                left: request.letters.count.then_some(0),
            })
        })
    }

    fn audit(&self, most: usize) -> Answer<'_, Vec<AuditEntry>> {
        Box::pin(async move {
            let state = self.state.lock();
            Ok(state.audit.iter().rev().take(most).cloned().collect())
        })
    }

    fn denied<'a>(&'a self, by: &'a str, what: &'a str, why: &'a str) -> BoxFuture<'a, ()> {
        self.denied.lock().push([by, what, why].map(str::to_owned));
        Box::pin(async {})
    }
}
