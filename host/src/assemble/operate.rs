//! [`Desk`]: what the HTTP API asks of this host, answered from the control log and the running pipelines.
//!
//! | file | owns |
//! |---|---|
//! | `plan` | what a deployment would change, and whether it can be done |
//! | `status` | what pipelines do now, in the words of the API |
//! | `uploads` | from received bytes to a version in the control log |
//!
//! Every change is one entry of the control log that carries the revision it was made for; hosts follow it. Nothing
//! here starts or stops anything.

pub(super) mod plan;
mod status;
mod uploads;

pub(super) use status::evidence;

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::host::Hub;
use crate::admin::types::{
    AuditEntry, ChangeRequest, DeployRequest, Deployed, History, HostStatus, PipelineStatus, Plan,
    Readiness, Uploaded, VersionInfo,
};
use crate::admin::{Answer, Kind, NewUpload, Operator, Refusal};
use crate::control::{Action, Change, Deployment, Origin, Outcome, Release, Revision};
use crate::error::Error;
use crate::upload::Checker;

/// Answers the API.
#[derive(Debug)]
pub(super) struct Desk {
    hub: Arc<Hub>,
    checker: Checker,
}

impl Desk {
    pub(super) fn new(hub: Arc<Hub>, checker: Checker) -> Self {
        Self { hub, checker }
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

    /// Changes the deployment in force; `change` may find that there is nothing to change.
    async fn change(
        &self,
        by: &str,
        action: Action,
        pipeline: &str,
        request: ChangeRequest,
        change: impl FnOnce(&Desk, &Revision, &mut Deployment) -> Result<bool, Refusal>,
    ) -> Result<Deployed, Refusal> {
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
        if !change(self, &revision, &mut deployment)? {
            return Ok(Deployed {
                pipeline: pipeline.to_owned(),
                revision: revision.revision,
                changed: false,
            });
        }
        self.submit(by, what, pipeline, revision.revision, deployment)
            .await
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
        let ready = reasons.is_empty();
        async move { Readiness { ready, reasons } }.boxed()
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
            if let Some(problem) = plan.problems.first() {
                let mut error = Error::config(problem.what.clone(), &problem.detail);
                if let Some(hint) = &problem.hint {
                    error = error.hint(hint.clone());
                }
                return Err(Refusal::new(Kind::Refused, error));
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

    fn promote<'a>(
        &'a self,
        by: &'a str,
        pipeline: &'a str,
        request: ChangeRequest,
    ) -> Answer<'a, Deployed> {
        let change = |_: &Self, _: &Revision, deployment: &mut Deployment| {
            let trial = deployment.canary.take().map(|canary| canary.release);
            let Some(release) = trial.or(deployment.shadow.take()) else {
                let detail = "neither a canary nor a shadow is under way";
                let hint = "start one with `wasmill deploy NAME@VERSION --canary N`";
                return Err(refused("promote", pipeline, detail, hint));
            };
            deployment.release = release;
            deployment.shadow = None;
            Ok(true)
        };
        self.change(by, Action::Promote, pipeline, request, change)
            .boxed()
    }

    fn rollback<'a>(
        &'a self,
        by: &'a str,
        pipeline: &'a str,
        request: ChangeRequest,
    ) -> Answer<'a, Deployed> {
        let change = |desk: &Self, revision: &Revision, deployment: &mut Deployment| {
            let trial = deployment.canary.take().map(|canary| canary.release);
            if trial.or(deployment.shadow.take()).is_some() {
                deployment.shadow = None;
                return Ok(true);
            }
            let state = desk.hub.control.state();
            let now = &revision.deployment.release;
            let Some(release) = before(state.history(pipeline), now) else {
                let detail = format!("{} is the first release it ever had", now.plugin);
                let hint = "deploy the version you want: `wasmill list` shows them";
                return Err(refused("roll back", pipeline, &detail, hint));
            };
            deployment.release = release;
            Ok(true)
        };
        self.change(by, Action::Rollback, pipeline, request, change)
            .boxed()
    }

    fn pause<'a>(
        &'a self,
        by: &'a str,
        pipeline: &'a str,
        request: ChangeRequest,
    ) -> Answer<'a, Deployed> {
        let change = |_: &Self, _: &Revision, deployment: &mut Deployment| {
            Ok(!std::mem::replace(&mut deployment.paused, true))
        };
        self.change(by, Action::Pause, pipeline, request, change)
            .boxed()
    }

    fn resume<'a>(
        &'a self,
        by: &'a str,
        pipeline: &'a str,
        request: ChangeRequest,
    ) -> Answer<'a, Deployed> {
        let change = |desk: &Self, _: &Revision, deployment: &mut Deployment| {
            let paused = std::mem::replace(&mut deployment.paused, false);
            let gave_up = desk
                .hub
                .pipelines()
                .get(pipeline)
                .is_some_and(|running| running.given_up().is_some());
            // Another host may have given up where this one has not.
            Ok(paused || gave_up || desk.hub.shared_log)
        };
        self.change(by, Action::Resume, pipeline, request, change)
            .boxed()
    }

    fn remove<'a>(
        &'a self,
        by: &'a str,
        pipeline: &'a str,
        request: ChangeRequest,
    ) -> Answer<'a, Deployed> {
        let change = |_: &Self, _: &Revision, deployment: &mut Deployment| {
            deployment.removed = true;
            deployment.canary = None;
            deployment.shadow = None;
            Ok(true)
        };
        self.change(by, Action::Remove, pipeline, request, change)
            .boxed()
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
            Ok(status::history(&state, pipeline))
        }
        .boxed()
    }

    fn audit(&self, most: usize) -> Answer<'_, Vec<AuditEntry>> {
        let entries = status::audit(&self.hub.control.state(), most);
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
