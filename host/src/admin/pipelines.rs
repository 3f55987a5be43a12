//! `/v1/pipelines`: what is deployed, planned changes, changes, status and history. Every change is the
//! operator's; here its body is read and looked at.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, FromRequestParts, Path, Request, State};
use http::StatusCode;
use http::request::Parts;

use super::access::Caller;
use super::app::App;
use super::body;
use super::operator::Step;
use super::problem::Trouble;
use super::types::{
    ChangeRequest, DeployRequest, Deployed, History, PipelineStatus, Plan, Raised, Tolerance,
};
use crate::toml_check::names;

/// Longest note, characters.
const NOTE: usize = 1000;
/// Longest canary, seconds: a week.
const LONGEST: u64 = 604_800;

/// A pipeline's name from the path, well formed.
pub(super) struct Name(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Trouble;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Trouble> {
        let what = "find the pipeline";
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Ok(Path(name)) = path else {
            return Err(Trouble::not_found(what, "the path is not UTF-8"));
        };
        if !names::PIPELINE.fits(&name) {
            let detail = format!("no pipeline can be called {name:?}");
            return Err(Trouble::not_found(what, detail).hint(names::PIPELINE.words));
        }
        Ok(Self(name))
    }
}

/// Who asks for a change of which pipeline.
pub(super) struct Asked {
    app: Arc<App>,
    by: String,
    pipeline: String,
}

impl FromRequestParts<Arc<App>> for Asked {
    type Rejection = Trouble;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Trouble> {
        let Name(pipeline) = Name::from_request_parts(parts, app).await?;
        let caller = parts.extensions.get::<Caller>();
        let caller = caller.expect("access comes before every path of the API");
        Ok(Self {
            app: Arc::clone(app),
            by: caller.name.clone(),
            pipeline,
        })
    }
}

impl Asked {
    async fn step(self, step: Step, request: Request) -> Result<Json<Deployed>, Trouble> {
        let wanted = change(request, &self.app).await?;
        let operator = self.app.operator()?;
        let done = operator.change(&self.by, &self.pipeline, step, wanted);
        Ok(Json(done.await?))
    }
}

/// Every pipeline the host knows.
#[utoipa::path(
    get,
    path = "/v1/pipelines",
    tag = "pipelines",
    operation_id = "list_pipelines",
    responses((status = 200, description = "by name", body = Vec<PipelineStatus>))
)]
pub(super) async fn all(State(app): State<Arc<App>>) -> Result<Json<Vec<PipelineStatus>>, Trouble> {
    Ok(Json(app.operator()?.status(None).await?))
}

/// One pipeline: what runs, how far it is, what failed.
#[utoipa::path(
    get,
    path = "/v1/pipelines/{name}",
    tag = "pipelines",
    operation_id = "get_pipeline",
    params(("name" = String, Path, description = "the pipeline", pattern = "^[a-z][a-z0-9-]{0,62}$")),
    responses((status = 200, description = "the pipeline", body = PipelineStatus))
)]
pub(super) async fn one(
    State(app): State<Arc<App>>,
    Name(name): Name,
) -> Result<Json<PipelineStatus>, Trouble> {
    let found = app.operator()?.status(Some(&name)).await?;
    let found = found.into_iter().find(|status| status.name == name);
    let missing = || {
        Trouble::not_found(
            "find the pipeline",
            format!("there is no pipeline {name:?}"),
        )
        .hint("GET /v1/pipelines lists what there is")
    };
    found.map(Json).ok_or_else(missing)
}

/// A pipeline's revisions, and which release wrote which offsets.
#[utoipa::path(
    get,
    path = "/v1/pipelines/{name}/history",
    tag = "pipelines",
    operation_id = "get_history",
    params(("name" = String, Path, description = "the pipeline", pattern = "^[a-z][a-z0-9-]{0,62}$")),
    responses((status = 200, description = "newest revision first", body = History))
)]
pub(super) async fn history(
    State(app): State<Arc<App>>,
    Name(name): Name,
) -> Result<Json<History>, Trouble> {
    Ok(Json(app.operator()?.history(&name).await?))
}

/// What a deployment would change; changes nothing. Deploying by the plan's hash is refused when it is outdated.
#[utoipa::path(
    post,
    path = "/v1/pipelines/{name}/plan",
    tag = "pipelines",
    operation_id = "plan_deployment",
    params(("name" = String, Path, description = "the pipeline; a new one is planned from nothing", pattern = "^[a-z][a-z0-9-]{0,62}$")),
    request_body = DeployRequest,
    responses((status = 200, description = "the plan, also when it has problems", body = Plan))
)]
pub(super) async fn plan(
    State(app): State<Arc<App>>,
    Name(name): Name,
    request: Request,
) -> Result<Json<Plan>, Trouble> {
    let wanted = deployment(request, &app).await?;
    Ok(Json(app.operator()?.plan(&name, wanted).await?))
}

/// Deploy a release. It is in the control log when this answers; hosts follow within moments.
#[utoipa::path(
    put,
    path = "/v1/pipelines/{name}/deployment",
    tag = "pipelines",
    operation_id = "deploy",
    params(("name" = String, Path, description = "the pipeline; a new one is made", pattern = "^[a-z][a-z0-9-]{0,62}$")),
    request_body = DeployRequest,
    responses((status = 200, description = "deployed", body = Deployed))
)]
pub(super) async fn deploy(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Name(name): Name,
    request: Request,
) -> Result<Json<Deployed>, Trouble> {
    let wanted = deployment(request, &app).await?;
    Ok(Json(
        app.operator()?.deploy(&caller.name, &name, wanted).await?,
    ))
}

/// Give every partition the release of the canary or shadow under way.
#[utoipa::path(
    post,
    path = "/v1/pipelines/{name}/promote",
    tag = "pipelines",
    operation_id = "promote",
    params(("name" = String, Path, description = "the pipeline", pattern = "^[a-z][a-z0-9-]{0,62}$")),
    request_body = Option<ChangeRequest>,
    responses((status = 200, description = "promoted", body = Deployed))
)]
pub(super) async fn promote(asked: Asked, request: Request) -> Result<Json<Deployed>, Trouble> {
    asked.step(Step::Promote, request).await
}

/// Go back to the release before, or end a canary or shadow.
#[utoipa::path(
    post,
    path = "/v1/pipelines/{name}/rollback",
    tag = "pipelines",
    operation_id = "rollback",
    params(("name" = String, Path, description = "the pipeline", pattern = "^[a-z][a-z0-9-]{0,62}$")),
    request_body = Option<ChangeRequest>,
    responses((status = 200, description = "rolled back", body = Deployed))
)]
pub(super) async fn rollback(asked: Asked, request: Request) -> Result<Json<Deployed>, Trouble> {
    asked.step(Step::Rollback, request).await
}

/// Stop processing on every host; positions stay.
#[utoipa::path(
    post,
    path = "/v1/pipelines/{name}/pause",
    tag = "pipelines",
    operation_id = "pause",
    params(("name" = String, Path, description = "the pipeline", pattern = "^[a-z][a-z0-9-]{0,62}$")),
    request_body = Option<ChangeRequest>,
    responses((status = 200, description = "paused", body = Deployed))
)]
pub(super) async fn pause(asked: Asked, request: Request) -> Result<Json<Deployed>, Trouble> {
    asked.step(Step::Pause, request).await
}

/// Go on after a pause, or after the pipeline was parked.
#[utoipa::path(
    post,
    path = "/v1/pipelines/{name}/resume",
    tag = "pipelines",
    operation_id = "resume",
    params(("name" = String, Path, description = "the pipeline", pattern = "^[a-z][a-z0-9-]{0,62}$")),
    request_body = Option<ChangeRequest>,
    responses((status = 200, description = "resumed", body = Deployed))
)]
pub(super) async fn resume(asked: Asked, request: Request) -> Result<Json<Deployed>, Trouble> {
    asked.step(Step::Resume, request).await
}

/// Lift the write times of all partitions to the greatest, after the topic gained some.
#[utoipa::path(
    post,
    path = "/v1/pipelines/{name}/raise",
    tag = "pipelines",
    operation_id = "raise",
    params(("name" = String, Path, description = "the pipeline", pattern = "^[a-z][a-z0-9-]{0,62}$")),
    responses((status = 200, description = "raised", body = Raised))
)]
pub(super) async fn raise(asked: Asked) -> Result<Json<Raised>, Trouble> {
    let operator = asked.app.operator()?;
    Ok(Json(operator.raise(&asked.by, &asked.pipeline).await?))
}

/// Take the pipeline off every host; positions and history stay.
#[utoipa::path(
    delete,
    path = "/v1/pipelines/{name}",
    tag = "pipelines",
    operation_id = "remove",
    params(("name" = String, Path, description = "the pipeline", pattern = "^[a-z][a-z0-9-]{0,62}$")),
    request_body = Option<ChangeRequest>,
    responses((status = 200, description = "removed", body = Deployed))
)]
pub(super) async fn remove(asked: Asked, request: Request) -> Result<Json<Deployed>, Trouble> {
    asked.step(Step::Remove, request).await
}

/// Reads a deployment and refuses values that its schema refuses.
async fn deployment(request: Request, app: &App) -> Result<DeployRequest, Trouble> {
    let wanted: DeployRequest = body::json(request, app.limits.stall).await?;
    let named = wanted.plugin.split_once('@');
    if !named.is_some_and(|(name, version)| names::PLUGIN.fits(name) && is_version(version)) {
        let detail = format!("plugin = {:?} is not NAME@VERSION", wanted.plugin);
        return Err(refused(detail));
    }
    if let Some(canary) = &wanted.canary {
        if canary.partitions == 0 || i32::try_from(canary.partitions).is_err() {
            return Err(refused("canary.partitions is no number of partitions"));
        }
        counts("canary.min_records", Some(canary.min_records))?;
        if !(1..=LONGEST).contains(&canary.for_seconds) {
            return Err(refused("canary.for_seconds is not from 1 to 604800"));
        }
        if wanted.shadow {
            let detail =
                "canary and shadow are both asked for: one writes rows, the other never does";
            return Err(refused(detail));
        }
        tolerable(canary.tolerance.as_ref())?;
    }
    counts("seen", wanted.seen)?;
    short(wanted.note.as_deref())?;
    Ok(wanted)
}

/// `MAJOR.MINOR.PATCH` with what semantic versions allow after it.
pub(super) fn is_version(text: &str) -> bool {
    semver::Version::parse(text).is_ok()
}

fn tolerable(tolerance: Option<&Tolerance>) -> Result<(), Trouble> {
    let Some(tolerance) = tolerance else {
        return Ok(());
    };
    let ranges = [
        ("dead_share", tolerance.dead_share, 0.0..=1.0),
        ("rows_share", tolerance.rows_share, 0.0..=f64::MAX),
        ("cpu_times", tolerance.cpu_times, 1.0..=f64::MAX),
        ("latency_times", tolerance.latency_times, 1.0..=f64::MAX),
    ];
    for (name, value, range) in ranges {
        let Some(value) = value.filter(|value| !range.contains(value)) else {
            continue;
        };
        let (least, most) = range.into_inner();
        let allowed = if most < f64::MAX {
            format!("from {least} to {most}")
        } else {
            format!("{least} or more")
        };
        let detail = format!("canary.tolerance.{name} = {value} is not {allowed}");
        return Err(refused(detail));
    }
    Ok(())
}

async fn change(request: Request, app: &App) -> Result<ChangeRequest, Trouble> {
    let wanted: ChangeRequest = body::json_or_default(request, app.limits.stall).await?;
    counts("seen", wanted.seen)?;
    short(wanted.note.as_deref())?;
    Ok(wanted)
}

/// Numbers past 2⁶³ are no counts: the document says int64.
fn counts(name: &str, value: Option<u64>) -> Result<(), Trouble> {
    match value {
        Some(value) if i64::try_from(value).is_err() => {
            Err(refused(format!("{name} is too large")))
        }
        _ => Ok(()),
    }
}

fn short(note: Option<&str>) -> Result<(), Trouble> {
    match note {
        Some(note) if note.chars().count() > NOTE => {
            Err(refused("note is longer than 1000 characters"))
        }
        _ => Ok(()),
    }
}

pub(super) fn refused(detail: impl Into<String>) -> Trouble {
    Trouble::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "body",
        "read the body",
        detail,
    )
    .hint("/openapi.json says what this path takes")
}
