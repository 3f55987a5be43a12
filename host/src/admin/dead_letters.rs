//! `/v1/pipelines/{name}/dead-letters`: which records were set aside, each with its bytes, dropped, retried. What is
//! asked for is looked at here; the operator does it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, FromRequestParts, Path, Request, State};
use http::request::Parts;
use jiff::fmt::temporal::DateTimeParser;

use super::access::Caller;
use super::app::App;
use super::body;
use super::pipelines::{Name, is_version, refused};
use super::problem::Trouble;
use super::query::Params;
use super::types::{
    DeadLetter, DeadLetterBundle, DeadLetterPage, DeadLetterQuery, DropRequest, Dropped,
    RetryReport, RetryRequest,
};
use crate::toml_check::names;

/// Most letters of one answer.
const MOST: u32 = 1000;
/// Longest version of a plugin.
const VERSION: usize = 100;

/// Which letter, from the path and the query.
pub(super) struct One {
    name: String,
    at: (i32, i64, i32),
}

/// What may be said about one letter beside its path.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Index {
    /// Which of the record's letters; 0 by default.
    #[param(minimum = 0, maximum = 2_147_483_647)]
    index: Option<i32>,
}

impl<S: Send + Sync> FromRequestParts<S> for One {
    type Rejection = Trouble;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Trouble> {
        let what = "find the dead letter";
        let path = Path::<(String, String, String)>::from_request_parts(parts, state).await;
        let Ok(Path((name, partition, offset))) = path else {
            return Err(Trouble::not_found(what, "the path is not UTF-8"));
        };
        if !names::PIPELINE.fits(&name) {
            let detail = format!("no pipeline can be called {name:?}");
            return Err(Trouble::not_found(what, detail).hint(names::PIPELINE.words));
        }
        let partition = partition.parse().ok().filter(|number: &i32| *number >= 0);
        let offset = offset.parse().ok().filter(|number: &i64| *number >= 0);
        let (Some(partition), Some(offset)) = (partition, offset) else {
            let detail = "the path does not end in a partition and an offset";
            return Err(Trouble::not_found(what, detail));
        };
        let Params(Index { index }) = Params::from_request_parts(parts, state).await?;
        let index = index.unwrap_or(0);
        if index < 0 {
            return Err(Trouble::malformed("index is negative"));
        }
        Ok(Self {
            name,
            at: (partition, offset, index),
        })
    }
}

/// The records that were set aside, in the order of their coordinates.
#[utoipa::path(
    get,
    path = "/v1/pipelines/{name}/dead-letters",
    tag = "dead letters",
    operation_id = "list_dead_letters",
    params(
        ("name" = String, Path, description = "the pipeline", pattern = "^[a-z][a-z0-9-]{0,62}$"),
        DeadLetterQuery
    ),
    responses((status = 200, description = "a page of them", body = DeadLetterPage))
)]
pub(super) async fn page(
    State(app): State<Arc<App>>,
    Name(name): Name,
    Params(query): Params<DeadLetterQuery>,
) -> Result<Json<DeadLetterPage>, Trouble> {
    check(&query).map_err(Trouble::malformed)?;
    Ok(Json(app.operator()?.dead_letters(&name, query).await?))
}

/// One record that was set aside, with its bytes.
#[utoipa::path(
    get,
    path = "/v1/pipelines/{name}/dead-letters/{partition}/{offset}",
    tag = "dead letters",
    operation_id = "get_dead_letter",
    params(
        ("name" = String, Path, description = "the pipeline", pattern = "^[a-z][a-z0-9-]{0,62}$"),
        ("partition" = i32, Path, description = "the partition", minimum = 0, maximum = 2_147_483_647),
        ("offset" = i64, Path, description = "the record", minimum = 0, maximum = 9_223_372_036_854_775_807_i64),
        Index
    ),
    responses((status = 200, description = "the dead letter", body = DeadLetter))
)]
pub(super) async fn one(
    State(app): State<Arc<App>>,
    One { name, at }: One,
) -> Result<Json<DeadLetter>, Trouble> {
    Ok(Json(app.operator()?.dead_letter(&name, at).await?))
}

/// One record that was set aside, with the manifest and configuration it met: enough to run it elsewhere.
#[utoipa::path(
    get,
    path = "/v1/pipelines/{name}/dead-letters/{partition}/{offset}/bundle",
    tag = "dead letters",
    operation_id = "get_dead_letter_bundle",
    params(
        ("name" = String, Path, description = "the pipeline", pattern = "^[a-z][a-z0-9-]{0,62}$"),
        ("partition" = i32, Path, description = "the partition", minimum = 0, maximum = 2_147_483_647),
        ("offset" = i64, Path, description = "the record", minimum = 0, maximum = 9_223_372_036_854_775_807_i64),
        Index
    ),
    responses((status = 200, description = "the bundle", body = DeadLetterBundle))
)]
pub(super) async fn bundle(
    State(app): State<Arc<App>>,
    One { name, at }: One,
) -> Result<Json<DeadLetterBundle>, Trouble> {
    Ok(Json(app.operator()?.dead_letter_bundle(&name, at).await?))
}

/// Forget dead letters for good, a page of them; their records stay counted as dead.
#[utoipa::path(
    post,
    path = "/v1/pipelines/{name}/dead-letters/drop",
    tag = "dead letters",
    operation_id = "drop_dead_letters",
    params(("name" = String, Path, description = "the pipeline", pattern = "^[a-z][a-z0-9-]{0,62}$")),
    request_body = DropRequest,
    responses((status = 200, description = "how many are gone", body = Dropped))
)]
pub(super) async fn drop_page(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Name(name): Name,
    request: Request,
) -> Result<Json<Dropped>, Trouble> {
    let wanted: DropRequest = body::json(request, app.limits.stall).await?;
    check(&wanted.letters).map_err(refused)?;
    let dropped = app
        .operator()?
        .drop_dead_letters(&caller.name, &name, wanted)
        .await?;
    Ok(Json(dropped))
}

/// Run dead letters once more, a page of them: each becomes its rows and is gone in one step, or stays.
#[utoipa::path(
    post,
    path = "/v1/pipelines/{name}/dead-letters/retry",
    tag = "dead letters",
    operation_id = "retry_dead_letters",
    params(("name" = String, Path, description = "the pipeline", pattern = "^[a-z][a-z0-9-]{0,62}$")),
    request_body = RetryRequest,
    responses((status = 200, description = "what came of each", body = RetryReport))
)]
pub(super) async fn retry_page(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Name(name): Name,
    request: Request,
) -> Result<Json<RetryReport>, Trouble> {
    let wanted: RetryRequest = body::json(request, app.limits.stall).await?;
    check(&wanted.letters).map_err(refused)?;
    if let Some(plugin) = &wanted.plugin {
        let named = plugin.split_once('@');
        if !named.is_some_and(|(name, version)| names::PLUGIN.fits(name) && is_version(version)) {
            return Err(refused(format!("plugin = {plugin:?} is not NAME@VERSION")));
        }
    }
    let report = app
        .operator()?
        .retry_dead_letters(&caller.name, &name, wanted)
        .await?;
    Ok(Json(report))
}

/// What of a query does not fit its schema.
fn check(query: &DeadLetterQuery) -> Result<(), String> {
    let numbers = [
        ("partition", query.partition.map(i64::from)),
        ("from", query.from),
        ("to", query.to),
        ("index", query.index.map(i64::from)),
    ];
    for (name, value) in numbers {
        if value.is_some_and(|value| value < 0) {
            return Err(format!("{name} is negative"));
        }
    }
    if !query.limit.is_none_or(|limit| (1..=MOST).contains(&limit)) {
        return Err(format!("limit is not from 1 to {MOST}"));
    }
    type Rule<'a> = (&'a str, &'a Option<String>, fn(&str) -> bool);
    let texts: [Rule<'_>; 7] = [
        ("class", &query.class, |text| {
            matches!(text, "data" | "plugin")
        }),
        ("code", &query.code, is_code),
        ("plugin", &query.plugin, is_plugin),
        ("digest", &query.digest, is_digest),
        ("since", &query.since, is_time),
        ("until", &query.until, is_time),
        ("cursor", &query.cursor, is_cursor),
    ];
    for (name, value, fits) in texts {
        if let Some(value) = value
            && !fits(value)
        {
            return Err(format!("{name} = {value:?} is not of its form"));
        }
    }
    Ok(())
}

fn is_code(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=32).contains(&text.len()) && text.bytes().all(fits)
}

/// `name@version` as it may have been kept, whatever versions are now.
fn is_plugin(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'+' | b'-');
    let named = text.split_once('@');
    named.is_some_and(|(name, version)| {
        names::PLUGIN.fits(name)
            && (1..=VERSION).contains(&version.len())
            && version.bytes().all(fits)
    })
}

fn is_digest(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or_default();
    hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_time(text: &str) -> bool {
    micros(text).is_some()
}

/// A time of a query, microseconds since 1970-01-01 UTC; `None` where it is none (RFC 3339).
#[must_use]
pub fn micros(text: &str) -> Option<i64> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some(time.as_microsecond());
    }
    // The last day of the calendar is a time, too, although no timestamp reaches it.
    let pieces = DateTimeParser::new().parse_pieces(text).ok()?;
    let last = pieces.date().year() == 9999 && pieces.time().is_some();
    (last && pieces.offset().is_some()).then_some(i64::MAX)
}

fn is_cursor(text: &str) -> bool {
    let digits = |text: &str, most: usize| {
        (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    let parts: Vec<&str> = text.split(':').collect();
    matches!(parts.as_slice(), [partition, offset, index]
        if digits(partition, 10) && digits(offset, 19) && digits(index, 10))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn what_does_not_fit_the_document_is_named() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let right = DeadLetterQuery {
            partition: Some(0),
            from: Some(0),
            to: Some(i64::MAX),
            index: Some(i32::MAX),
            class: Some("plugin".to_owned()),
            code: Some("row-refused".to_owned()),
            plugin: Some("quakes@1.2.0".to_owned()),
            digest: Some(digest),
            since: Some("2026-01-02T03:04:05Z".to_owned()),
            until: Some("2026-01-02t03:04:05.123+01:00".to_owned()),
            limit: Some(1000),
            cursor: Some("9999999999:9999999999999999999:0".to_owned()),
            count: true,
        };
        assert_eq!(check(&right), Ok(()));
        let text = |text: &str| Some(text.to_owned());
        type Spoilt = (&'static str, fn(&mut DeadLetterQuery));
        let wrong: [Spoilt; 9] = [
            ("partition", |query| query.partition = Some(-1)),
            ("from", |query| query.from = Some(i64::MIN)),
            ("limit", |query| query.limit = Some(0)),
            ("limit", |query| query.limit = Some(1001)),
            ("class", |query| query.class = Some("Data".to_owned())),
            ("code", |query| query.code = Some(String::new())),
            ("digest", |query| query.digest = Some("sha256:0".to_owned())),
            ("since", |query| query.since = Some("9999-12-31".to_owned())),
            ("cursor", |query| query.cursor = Some("1:2".to_owned())),
        ];
        for (name, spoil) in wrong {
            let mut query = right.clone();
            spoil(&mut query);
            assert!(check(&query).unwrap_err().starts_with(name), "{name}");
        }
        assert_eq!(micros("1970-01-01T00:00:00.5Z"), Some(500_000));
        assert_eq!(micros("9999-12-31T23:59:59-01:00"), Some(i64::MAX));
        let nul = DeadLetterQuery {
            plugin: text("a@1\0"),
            ..right
        };
        check(&nul).unwrap_err();
    }
}
