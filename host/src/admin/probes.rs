//! The host itself: probes, metrics, the audit trail and the API's own document.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::StatusCode;
use http::header::CONTENT_TYPE;

use super::access::Caller;
use super::app::App;
use super::document::document;
use super::metrics;
use super::problem::Trouble;
use super::query::Params;
use super::types::{AuditEntry, HostStatus, Readiness};

/// Entries of the audit trail that are given when nothing is said.
const AUDIT: usize = 100;
/// Most entries that are given at once.
const AUDIT_MOST: usize = 1000;

/// Whether the process answers.
#[utoipa::path(
    get,
    path = "/live",
    tag = "host",
    operation_id = "live",
    responses((status = 200, description = "it does", body = String, content_type = "text/plain"))
)]
pub(super) async fn live() -> Response {
    ([(CONTENT_TYPE, "text/plain; charset=utf-8")], "live\n").into_response()
}

/// Whether the host does its work.
///
/// The reasons name servers and their errors: where there are tokens, they are for who sends one.
#[utoipa::path(
    get,
    path = "/ready",
    tag = "host",
    operation_id = "ready",
    responses(
        (status = 200, description = "it does", body = Readiness),
        (status = 503, description = "it does not, with the reasons", body = Readiness)
    )
)]
pub(super) async fn ready(
    State(app): State<Arc<App>>,
    caller: Option<Extension<Caller>>,
) -> Response {
    let mut readiness = app.seat.ready().await;
    if caller.is_none() {
        readiness.notes.clear();
        if !readiness.ready {
            readiness.reasons = vec!["ask with a token to be told why".to_owned()];
        }
    }
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(readiness)).into_response()
}

/// This document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "host",
    operation_id = "openapi",
    responses((status = 200, description = "OpenAPI 3.1", body = Object))
)]
pub(super) async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(document())
}

/// Metrics for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "host",
    operation_id = "metrics",
    responses((status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text"))
)]
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Trouble> {
    let host = app.seat.host_status().await;
    let pipelines = match app.operator() {
        Ok(operator) => operator.status(None).await?,
        // What is known of a host that starts is worth a scrape.
        Err(_) => Vec::new(),
    };
    let text = metrics::text(&host, &pipelines, &app.requests);
    Ok(([(CONTENT_TYPE, metrics::MEDIA_TYPE)], text).into_response())
}

/// The host that answers.
#[utoipa::path(
    get,
    path = "/v1/host",
    tag = "host",
    operation_id = "get_host",
    responses((status = 200, description = "the host", body = HostStatus))
)]
pub(super) async fn host(State(app): State<Arc<App>>) -> Result<Json<HostStatus>, Trouble> {
    Ok(Json(app.operator()?.host_status().await))
}

/// What a reader of the audit trail may ask for.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditQuery {
    /// How many entries, the newest first; 100 by default.
    #[param(minimum = 1, maximum = 1000)]
    most: Option<usize>,
}

/// Who did what, newest first.
#[utoipa::path(
    get,
    path = "/v1/audit",
    tag = "host",
    operation_id = "get_audit",
    params(AuditQuery),
    responses((status = 200, description = "the newest entries", body = Vec<AuditEntry>))
)]
pub(super) async fn audit(
    State(app): State<Arc<App>>,
    Params(query): Params<AuditQuery>,
) -> Result<Json<Vec<AuditEntry>>, Trouble> {
    let most = query.most.unwrap_or(AUDIT);
    if !(1..=AUDIT_MOST).contains(&most) {
        return Err(Trouble::malformed("most is not from 1 to 1000"));
    }
    Ok(Json(app.operator()?.audit(most).await?))
}
