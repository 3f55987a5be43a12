//! [`Desk`]: what the HTTP API asks of this host, answered from the control log and the running pipelines.
//!
//! | file | owns |
//! |---|---|
//! | `plan` | the deployment that is asked for, and whether it can be done |
//! | `behind` | why a host does not run what is in force |
//! | `difference` | what it changes, and the hash of a plan |
//! | `bundle` | a dead letter with what it takes to run it elsewhere |
//! | `letters` | dead letters: found, dropped, retried |
//! | `past` | what was deployed and who did what, as the control log tells it |
//! | `raise` | write times lifted after a topic gained partitions |
//! | `replace` | whether a release may take the place of the one in force |
//! | `status` | what pipelines do now, in the words of the API |
//! | `succession` | what another release moves, ends or takes away |
//! | `uploads` | from received bytes to a version in the control log |
//!
//! Every change is one entry of the control log that carries the revision it was made for; hosts follow it. Nothing
//! here starts or stops anything.

mod behind;
mod bundle;
mod difference;
mod letters;
mod past;
pub(super) mod plan;
mod raise;
pub(super) mod replace;
mod status;
pub(super) mod succession;
mod uploads;

pub(super) use status::{evidence, host, starting, time};

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;

use super::hub::Hub;
use crate::admin::types::{
    AuditEntry, ChangeRequest, DeadLetter, DeadLetterBundle, DeadLetterPage, DeadLetterQuery,
    DeployRequest, Deployed, DropRequest, Dropped, History, HostStatus, PipelineStatus, Plan,
    PlanProblem, Raised, Readiness, RetryReport, RetryRequest, Uploaded, VersionInfo,
};
use crate::admin::{Answer, Kind, NewUpload, Operator, Refusal, Step};
use crate::control::{Action, Change, Deployment, Origin, Outcome, Release, Revision};
use crate::error::{Blame, Error};
use crate::upload::Checker;

/// Requests about dead letters at once; further ones wait.
const TURNS: usize = 4;

/// Answers the API.
#[derive(Debug)]
pub(super) struct Desk {
    hub: Arc<Hub>,
    checker: Checker,
    /// Turns at dead letters: each opens connections of its own.
    letters: Arc<Semaphore>,
}

impl Desk {
    pub(super) fn new(hub: Arc<Hub>, checker: Checker) -> Self {
        Self {
            hub,
            checker,
            letters: Arc::new(Semaphore::new(TURNS)),
        }
    }

    /// The revision in force of a pipeline that runs or is paused.
    fn deployed(&self, what: &str, pipeline: &str) -> Result<Arc<Revision>, Refusal> {
        let found = self.hub.control.state().pipeline(pipeline).cloned();
        found
            .filter(|revision| !revision.deployment.removed)
            .ok_or_else(|| self.no_pipeline(what, pipeline))
    }

    fn no_pipeline(&self, what: &str, pipeline: &str) -> Refusal {
        let state = self.hub.control.state();
        let all: Vec<&str> = state
            .pipelines()
            .filter(|(_, revision)| !revision.deployment.removed)
            .map(|(name, _)| name)
            .collect();
        let hint = if all.is_empty() {
            "deploy one with `wasmill deploy NAME@VERSION`".to_owned()
        } else {
            format!("deployed are: {}", all.join(", "))
        };
        let error = Error::config(
            format!("{what} pipeline {pipeline:?}"),
            "it is not deployed",
        );
        Refusal::new(Kind::NotFound, error.hint(hint))
    }

    /// Changes the deployment in force.
    async fn step(
        &self,
        by: &str,
        pipeline: &str,
        step: Step,
        request: ChangeRequest,
    ) -> Result<Deployed, Refusal> {
        let action = action(step);
        let what = action.name();
        let revision = self.deployed(what, pipeline)?;
        if let Some(seen) = request.seen
            && seen != revision.revision
        {
            return Err(overtaken(what, pipeline, seen, revision.revision));
        }
        let mut deployment = revision.deployment.clone();
        deployment.action = action;
        deployment.origin = Origin::Upload;
        deployment.note = request.note.map(serde_json::Value::String);
        let changed = match step {
            Step::Promote => promote(pipeline, &mut deployment)?,
            Step::Rollback => self.roll_back(pipeline, &revision, &mut deployment).await?,
            Step::Pause => !std::mem::replace(&mut deployment.paused, true),
            Step::Resume => self.resume(pipeline, &mut deployment),
            Step::Remove => remove(&mut deployment),
        };
        if !changed {
            return Ok(Deployed {
                pipeline: pipeline.to_owned(),
                revision: revision.revision,
                changed: false,
            });
        }
        self.submit(by, what, pipeline, revision.revision, deployment)
            .await
    }

    /// One step back: the end of a trial, or the release before.
    async fn roll_back(
        &self,
        pipeline: &str,
        revision: &Revision,
        deployment: &mut Deployment,
    ) -> Result<bool, Refusal> {
        if trial(deployment).is_some() {
            return Ok(true);
        }
        let state = self.hub.control.state();
        let now = &revision.deployment.release;
        let Some(release) = before(state.history(pipeline), now) else {
            let detail = format!("{} is the first release it ever had", now.plugin);
            let hint = "deploy the version you want: `wasmill list` shows them";
            return Err(refused("roll back", pipeline, &detail, hint));
        };
        match replace::check(&self.hub, pipeline, revision, &release).await {
            // What nobody can look at now does not keep an operator from going back to what ran before.
            Err(error) if error.blame() != Blame::Outside => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        deployment.release = release;
        Ok(true)
    }

    /// Whether there is anything to resume.
    fn resume(&self, pipeline: &str, deployment: &mut Deployment) -> bool {
        let paused = std::mem::replace(&mut deployment.paused, false);
        let pipelines = self.hub.pipelines();
        let here = pipelines.get(pipeline);
        let gave_up = here.is_some_and(|here| here.given_up().is_some());
        // Another host may have given up where this one has not.
        paused || gave_up || self.hub.shared_log
    }

    /// Writes the deployment that follows revision `seen`.
    async fn submit(
        &self,
        by: &str,
        what: &str,
        pipeline: &str,
        seen: u64,
        deployment: Deployment,
    ) -> Result<Deployed, Refusal> {
        let change = Change::Deploy {
            pipeline: pipeline.to_owned(),
            revision: seen + 1,
            deployment,
        };
        match self.hub.control.submit(by, change).await? {
            Outcome::Accepted => Ok(Deployed {
                pipeline: pipeline.to_owned(),
                revision: seen + 1,
                changed: true,
            }),
            Outcome::Rejected(reason) => Err(Refusal::new(
                Kind::Conflict,
                Error::config(format!("{what} pipeline {pipeline:?}"), reason)
                    .hint("somebody else was first: look at `wasmill history`, then decide again"),
            )),
        }
    }
}

/// What a step is called in the history.
fn action(step: Step) -> Action {
    match step {
        Step::Promote => Action::Promote,
        Step::Rollback => Action::Rollback,
        Step::Pause => Action::Pause,
        Step::Resume => Action::Resume,
        Step::Remove => Action::Remove,
    }
}

/// Ends a trial, if one is under way, and tells what was tried.
fn trial(deployment: &mut Deployment) -> Option<Release> {
    let canary = deployment.canary.take().map(|canary| canary.release);
    let shadow = deployment.shadow.take();
    canary.or(shadow)
}

fn promote(pipeline: &str, deployment: &mut Deployment) -> Result<bool, Refusal> {
    let Some(release) = trial(deployment) else {
        let detail = "neither a canary nor a shadow is under way";
        let hint = "start one with `wasmill deploy NAME@VERSION --canary N`";
        return Err(refused("promote", pipeline, detail, hint));
    };
    deployment.release = release;
    Ok(true)
}

fn remove(deployment: &mut Deployment) -> bool {
    deployment.removed = true;
    trial(deployment);
    true
}

/// The revision that was looked at is not the one in force.
fn overtaken(what: &str, pipeline: &str, seen: u64, now: u64) -> Refusal {
    let detail = format!("revision {seen} was looked at, {now} is in force");
    Refusal::new(
        Kind::Conflict,
        Error::config(format!("{what} pipeline {pipeline:?}"), detail)
            .hint("look at `wasmill history`, then decide again"),
    )
}

/// What cannot be done to a pipeline as it is.
fn refused(what: &str, pipeline: &str, detail: &str, hint: &str) -> Refusal {
    let error = Error::config(format!("{what} pipeline {pipeline:?}"), detail);
    Refusal::new(Kind::Refused, error.hint(hint))
}

/// The release before the one in force: where one step back leads.
fn before(history: &[Arc<Revision>], now: &Release) -> Option<Release> {
    let earlier = history.iter().rev().map(|revision| &revision.deployment);
    earlier
        .map(|deployment| &deployment.release)
        .find(|release| release.id != now.id)
        .cloned()
}

impl Operator for Desk {
    fn ready(&self) -> BoxFuture<'_, Readiness> {
        let reasons = self.hub.reasons();
        let readiness = Readiness {
            ready: reasons.is_empty(),
            reasons,
            notes: self.hub.notes(),
        };
        std::future::ready(readiness).boxed()
    }

    fn host_status(&self) -> BoxFuture<'_, HostStatus> {
        let status = status::host(&self.hub);
        async move { status }.boxed()
    }

    fn list_versions(&self) -> Answer<'_, Vec<VersionInfo>> {
        let versions = uploads::list(&self.hub.control.state());
        async move { Ok(versions) }.boxed()
    }

    fn upload(&self, upload: NewUpload) -> Answer<'_, Uploaded> {
        uploads::upload(&self.hub, &self.checker, upload).boxed()
    }

    fn plan<'a>(&'a self, pipeline: &'a str, request: DeployRequest) -> Answer<'a, Plan> {
        async move {
            let target = plan::target(&self.hub, pipeline, &request).await?;
            Ok(target.plan)
        }
        .boxed()
    }

    fn deploy<'a>(
        &'a self,
        by: &'a str,
        pipeline: &'a str,
        request: DeployRequest,
    ) -> Answer<'a, Deployed> {
        async move {
            let target = plan::target(&self.hub, pipeline, &request).await?;
            let plan = target.plan;
            if let Some(seen) = request.seen
                && seen != plan.seen
            {
                return Err(overtaken("deploy", pipeline, seen, plan.seen));
            }
            let obstacle = PlanProblem::decisive(&plan.problems).map(Error::from);
            // Where nobody could look it is another plan, which says nothing of what changed.
            if let Some(away) = obstacle
                .as_ref()
                .filter(|error| error.blame() == Blame::Outside)
            {
                return Err(away.clone().into());
            }
            if let Some(hash) = &request.plan
                && *hash != plan.hash
            {
                let error = Error::config(
                    format!("deploy pipeline {pipeline:?}"),
                    format!(
                        "the plan that was looked at is {hash}, now it would be {}",
                        plan.hash
                    ),
                );
                return Err(Refusal::new(
                    Kind::Conflict,
                    error.hint("something changed meanwhile: plan again, look, then deploy"),
                ));
            }
            if let Some(error) = obstacle {
                return Err(error.into());
            }
            if plan.changes.is_empty() {
                return Ok(Deployed {
                    pipeline: pipeline.to_owned(),
                    revision: plan.seen,
                    changed: false,
                });
            }
            self.submit(by, "deploy", pipeline, plan.seen, target.deployment)
                .await
        }
        .boxed()
    }

    fn change<'a>(
        &'a self,
        by: &'a str,
        pipeline: &'a str,
        step: Step,
        request: ChangeRequest,
    ) -> Answer<'a, Deployed> {
        self.step(by, pipeline, step, request).boxed()
    }

    fn status<'a>(&'a self, pipeline: Option<&'a str>) -> Answer<'a, Vec<PipelineStatus>> {
        async move {
            let state = self.hub.control.state();
            if let Some(name) = pipeline
                && state.pipeline(name).is_none()
            {
                return Err(self.no_pipeline("look at", name));
            }
            Ok(status::pipelines(&self.hub, pipeline).await)
        }
        .boxed()
    }

    fn history<'a>(&'a self, pipeline: &'a str) -> Answer<'a, History> {
        async move {
            let state = self.hub.control.state();
            if state.pipeline(pipeline).is_none() {
                return Err(self.no_pipeline("look at", pipeline));
            }
            Ok(past::history(&state, pipeline))
        }
        .boxed()
    }

    fn dead_letters<'a>(
        &'a self,
        pipeline: &'a str,
        query: DeadLetterQuery,
    ) -> Answer<'a, DeadLetterPage> {
        self.letters(pipeline, query).boxed()
    }

    fn dead_letter<'a>(&'a self, pipeline: &'a str, at: (i32, i64, i32)) -> Answer<'a, DeadLetter> {
        self.letter(pipeline, at).boxed()
    }

    fn dead_letter_bundle<'a>(
        &'a self,
        pipeline: &'a str,
        at: (i32, i64, i32),
    ) -> Answer<'a, DeadLetterBundle> {
        self.bundle(pipeline, at).boxed()
    }

    fn drop_dead_letters<'a>(
        &'a self,
        by: &'a str,
        pipeline: &'a str,
        request: DropRequest,
    ) -> Answer<'a, Dropped> {
        self.drop_letters(by, pipeline, request).boxed()
    }

    fn retry_dead_letters<'a>(
        &'a self,
        by: &'a str,
        pipeline: &'a str,
        request: RetryRequest,
    ) -> Answer<'a, RetryReport> {
        self.retry_letters(by, pipeline, request).boxed()
    }

    fn raise<'a>(&'a self, by: &'a str, pipeline: &'a str) -> Answer<'a, Raised> {
        self.raise_write_times(by, pipeline).boxed()
    }

    fn audit(&self, most: usize) -> Answer<'_, Vec<AuditEntry>> {
        let entries = past::audit(&self.hub.control.state(), most);
        async move { Ok(entries) }.boxed()
    }

    fn denied<'a>(&'a self, by: &'a str, what: &'a str, why: &'a str) -> BoxFuture<'a, ()> {
        async move {
            tracing::warn!(by, what, why, "request denied");
            let change = Change::Denied {
                by: by.to_owned(),
                what: what.to_owned(),
                why: why.to_owned(),
            };
            if let Err(error) = self.hub.control.submit(by, change).await {
                tracing::warn!(error = %error, "denial not kept in the audit trail");
            }
        }
        .boxed()
    }
}
