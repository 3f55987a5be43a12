//! Bodies of requests, read with a cap and against the clock: a client that sends too much or (almost) nothing
//! is cut. It owns the JSON reading; where an upload goes is the caller's.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use super::problem::Trouble;

/// Largest JSON body, bytes. An overlay is a page of TOML.
pub(super) const JSON_LIMIT: u64 = 64 << 10;
/// Fewer bytes than this in one stall time are as good as none.
const SLOWEST: u64 = 16 << 10;

/// Whether a request's body was read to its end. Clones tell of the same body.
#[derive(Clone, Debug)]
pub(super) struct ReadWhole(Arc<AtomicBool>);

impl ReadWhole {
    /// Whether it was, up to now.
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A body that notes when its end was read.
#[derive(Debug)]
struct Noted {
    body: Incoming,
    whole: ReadWhole,
}

impl Noted {
    fn note(&self, ended: bool) {
        if ended || self.body.is_end_stream() {
            self.whole.0.store(true, Ordering::Relaxed);
        }
    }
}

impl hyper::body::Body for Noted {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.note(matches!(frame, Poll::Ready(None)));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A request as the router takes it, with a [`ReadWhole`] among its extensions.
pub(super) fn incoming(request: http::Request<Incoming>) -> Request {
    let whole = ReadWhole(Arc::default());
    let mut request = request.map(|body| {
        let noted = Noted {
            body,
            whole: whole.clone(),
        };
        noted.note(false);
        Body::new(noted)
    });
    request.extensions_mut().insert(whole);
    request
}

/// A body that is read piece by piece.
#[derive(Debug)]
pub(super) struct Paced {
    body: Body,
    most: u64,
    stall: Duration,
    deadline: Instant,
    seen: u64,
    seen_in_time: u64,
}

impl Paced {
    /// Starts the clock. Refuses what says itself to be too large before it is sent.
    pub(super) fn new(request: Request, most: u64, stall: Duration) -> Result<Self, Trouble> {
        let length = request.headers().get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > most) {
            return Err(Trouble::too_large("take the body", most));
        }
        Ok(Self {
            body: request.into_body(),
            most,
            stall,
            deadline: Instant::now() + stall,
            seen: 0,
            seen_in_time: 0,
        })
    }

    /// Starts the clock anew, after the client was kept waiting.
    pub(super) fn restart(&mut self) {
        self.deadline = Instant::now() + self.stall;
        self.seen_in_time = 0;
    }

    /// The next piece; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Trouble> {
        loop {
            let Ok(frame) = timeout_at(self.deadline, self.body.frame()).await else {
                if self.seen_in_time < SLOWEST {
                    return Err(self.stalled());
                }
                self.restart();
                continue;
            };
            let Some(frame) = frame else {
                return Ok(None);
            };
            let frame = frame.map_err(|error| {
                let detail = format!("the body ended after {} bytes: {error}", self.seen);
                Trouble::new(StatusCode::BAD_REQUEST, "body-cut", "read the body", detail)
                    .hint("send it again")
            })?;
            // Trailers say nothing here.
            let Ok(data) = frame.into_data() else {
                continue;
            };
            self.seen += data.len() as u64;
            self.seen_in_time += data.len() as u64;
            if self.seen > self.most {
                return Err(Trouble::too_large("take the body", self.most));
            }
            return Ok(Some(data));
        }
    }

    fn stalled(&self) -> Trouble {
        let detail = format!(
            "fewer than {SLOWEST} bytes came in {:?}, after {} in all",
            self.stall,
            self.seen - self.seen_in_time
        );
        Trouble::new(
            StatusCode::REQUEST_TIMEOUT,
            "stalled",
            "read the body",
            detail,
        )
        .hint("send it again over a faster connection, or raise limits.stall of [http]")
    }
}

/// Reads a JSON body.
pub(super) async fn json<T: DeserializeOwned>(
    request: Request,
    stall: Duration,
) -> Result<T, Trouble> {
    is_json(&request)?;
    let bytes = all(request, stall).await?;
    parse(&bytes)
}

/// Reads a JSON body that may be left out.
pub(super) async fn json_or_default<T: DeserializeOwned + Default>(
    request: Request,
    stall: Duration,
) -> Result<T, Trouble> {
    let typed = is_json(&request);
    let bytes = all(request, stall).await?;
    if bytes.is_empty() {
        return Ok(T::default());
    }
    if bytes.trim_ascii() == b"null" {
        return typed.map(|()| T::default());
    }
    typed?;
    parse(&bytes)
}

async fn all(request: Request, stall: Duration) -> Result<Vec<u8>, Trouble> {
    let mut body = Paced::new(request, JSON_LIMIT, stall)?;
    let mut bytes = Vec::new();
    while let Some(data) = body.next().await? {
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Trouble> {
    let read = serde_json::from_slice::<T>(bytes).and_then(|value| {
        // serde reads a struct from an array of its fields, too; the API takes objects only.
        let is_object = bytes.trim_ascii_start().starts_with(b"{");
        let other = || serde::de::Error::custom("an object is taken, not an array");
        is_object.then_some(value).ok_or_else(other)
    });
    read.map_err(|error| {
        let (status, code) = if error.is_data() {
            (StatusCode::UNPROCESSABLE_ENTITY, "body")
        } else {
            (StatusCode::BAD_REQUEST, "not-json")
        };
        Trouble::new(status, code, "read the body", error.to_string())
            .hint("/openapi.json says what this path takes")
    })
}

fn is_json(request: &Request) -> Result<(), Trouble> {
    let essence = media_type(request);
    if essence.as_deref() == Some("application/json") {
        return Ok(());
    }
    Err(unsupported(essence, "application/json"))
}

/// The body's media type without parameters, lowercase; none when it is not said.
pub(super) fn media_type(request: &Request) -> Option<String> {
    let text = request.headers().get(CONTENT_TYPE)?;
    let text = String::from_utf8_lossy(text.as_bytes());
    let essence = text.split(';').next().unwrap_or("").trim();
    Some(essence.to_ascii_lowercase())
}

/// A body of a kind that is not taken.
pub(super) fn unsupported(found: Option<String>, wanted: &str) -> Trouble {
    let detail = match found {
        Some(found) => format!("the body is {found:?}, not {wanted}"),
        None => format!("the body's type is not said, and {wanted} is taken"),
    };
    let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    Trouble::new(status, "media-type", "read the body", detail)
        .hint(format!("send `Content-Type: {wanted}`"))
}
