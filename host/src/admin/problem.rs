//! Errors as RFC 9457 problem details. A [`Trouble`] is what a handler, a guard or the router ends with; the
//! body is made at the one place that knows the path that was asked for ([`Trouble::response`]).

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};

use super::operator::{Kind, Refusal};
use super::types::Problem;
use crate::error::{Blame, Error};

/// The media type of every error.
pub(super) const PROBLEM: &str = "application/problem+json";

/// A request that is not done.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    // Boxed because it is the error of everything here, and large.
    parts: Box<Parts>,
}

#[derive(Clone, Debug)]
struct Parts {
    status: StatusCode,
    code: &'static str,
    title: String,
    detail: String,
    hint: Option<String>,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Trouble {
    /// A status, its code, what was attempted and what came back.
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        title: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        let parts = Parts {
            status,
            code,
            title: title.into(),
            detail: detail.into(),
            hint: None,
            header: None,
        };
        Self {
            parts: Box::new(parts),
        }
    }

    /// A header of the answer.
    fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.parts.header = Some((name, value));
        self
    }

    /// What to do.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.parts.hint = Some(hint.into());
        self
    }

    /// There is no such thing.
    pub(super) fn not_found(title: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", title, detail)
    }

    /// The request itself is malformed.
    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "malformed",
            "read the request",
            detail,
        )
    }

    /// The body is larger than is taken.
    pub(super) fn too_large(what: &str, most: u64) -> Self {
        let detail = format!("the body is larger than {most} bytes, the most that is taken here");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", what, detail)
    }

    /// The caller is not known.
    pub(super) fn unauthorized(code: &'static str, detail: &str) -> Self {
        let challenge = if code == "token-missing" {
            "Bearer realm=\"wasmill\""
        } else {
            "Bearer realm=\"wasmill\", error=\"invalid_token\""
        };
        Self::new(StatusCode::UNAUTHORIZED, code, "know the caller", detail)
            .header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
            .hint("send `Authorization: Bearer TOKEN` with a token of [http] in the host's config")
    }

    /// The caller is known and may not.
    pub(super) fn forbidden(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, "allow the request", detail)
    }

    /// Try again after some seconds.
    pub(super) fn later(
        status: StatusCode,
        code: &'static str,
        title: &str,
        detail: impl Into<String>,
        seconds: u64,
    ) -> Self {
        let seconds = HeaderValue::from(seconds.max(1));
        Self::new(status, code, title, detail).header(RETRY_AFTER, seconds)
    }

    /// A defect of ours; what exactly is in the log, not in the answer.
    pub(super) fn bug() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "bug",
            "answer the request",
            "the host failed in a way that was not foreseen; its log says how",
        )
        .hint("report it with the log; the request may be repeated")
    }

    /// A path with methods, and none of them is this one.
    pub(super) fn method(allow: Option<&HeaderValue>) -> Self {
        let detail = match allow.and_then(|allow| allow.to_str().ok()) {
            Some(allow) if !allow.is_empty() => format!("this path takes {allow}"),
            _ => "this path does not take it".to_owned(),
        };
        let status = StatusCode::METHOD_NOT_ALLOWED;
        let trouble = Self::new(status, "method", "take the method", detail);
        match allow {
            Some(allow) => trouble.header(ALLOW, allow.clone()),
            None => trouble,
        }
    }

    /// Its status.
    pub(super) fn status(&self) -> StatusCode {
        self.parts.status
    }

    /// What came back, for the audit trail and the log.
    pub(super) fn detail(&self) -> &str {
        &self.parts.detail
    }

    /// The answer to a request for `path`.
    pub(super) fn response(self, path: &str) -> Response {
        let parts = *self.parts;
        let problem = Problem {
            kind: format!("urn:wasmill:problem:{}", parts.code),
            title: parts.title,
            status: parts.status.as_u16(),
            detail: parts.detail,
            instance: path.to_owned(),
            code: parts.code.to_owned(),
            hint: parts.hint,
        };
        let body = serde_json::to_vec(&problem).expect("strings and a number serialize");
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = parts.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM));
        if let Some((name, value)) = parts.header {
            headers.insert(name, value);
        }
        response
    }
}

impl IntoResponse for Trouble {
    /// Carries the trouble to where the path is known.
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.parts.status;
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        let Refusal { kind, error } = refusal;
        let (status, code) = match (kind, error.blame()) {
            (Kind::NotFound, _) => (StatusCode::NOT_FOUND, "not-found"),
            (Kind::Conflict, _) => (StatusCode::CONFLICT, "conflict"),
            (Kind::Refused, Blame::Plugin) => (StatusCode::UNPROCESSABLE_ENTITY, "plugin"),
            (Kind::Refused, Blame::Config) => (StatusCode::UNPROCESSABLE_ENTITY, "config"),
            (Kind::Refused, _) => (StatusCode::UNPROCESSABLE_ENTITY, "refused"),
            (Kind::TooLarge, _) => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
            (Kind::Unavailable, _) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            (Kind::Bug, _) => {
                tracing::error!(%error, hint = error.hint_text(), "request failed on a bug");
                return Self::bug();
            }
        };
        let mut trouble = Self::new(status, code, error.what(), error.detail());
        trouble.parts.hint = error.hint_text().map(str::to_owned);
        if kind == Kind::Unavailable {
            trouble = trouble.header(RETRY_AFTER, HeaderValue::from(1_u64));
        }
        trouble
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Refusal::from(error).into()
    }
}
