//! `/v1/plugins`: uploads and the versions they made. An upload is streamed into a temporary file, capped and
//! hashed on the way; checking and storing it is the operator's.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, Path, Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::LOCATION;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::access::Caller;
use super::app::App;
use super::body::{Paced, media_type, unsupported};
use super::operator::NewUpload;
use super::problem::Trouble;
use super::types::{Uploaded, VersionInfo};
use crate::error::Error;
use crate::task;

/// Bytes gathered before they are hashed and written off the API's thread.
const WRITE: usize = 256 << 10;
/// How long an upload waits for others before the client is told to come again.
const TURN: Duration = Duration::from_secs(10);
/// Longest signature header, bytes: a key's name and 88 digits.
const SIGNATURE: usize = 512;

const DIGEST: HeaderName = HeaderName::from_static("wasmill-digest");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
const SIGNED: HeaderName = HeaderName::from_static("wasmill-signature");

/// Every stored version.
#[utoipa::path(
    get,
    path = "/v1/plugins",
    tag = "plugins",
    operation_id = "list_plugins",
    responses((status = 200, description = "by name and version", body = Vec<VersionInfo>))
)]
pub(super) async fn list(State(app): State<Arc<App>>) -> Result<Json<Vec<VersionInfo>>, Trouble> {
    Ok(Json(app.operator()?.list_versions().await?))
}

/// One stored version.
#[utoipa::path(
    get,
    path = "/v1/plugins/{name}/{version}",
    tag = "plugins",
    operation_id = "get_plugin",
    params(
        ("name" = String, Path, description = "the plugin's name"),
        ("version" = String, Path, description = "its version, e.g. 1.2.0")
    ),
    responses((status = 200, description = "the version", body = VersionInfo))
)]
pub(super) async fn version(
    State(app): State<Arc<App>>,
    path: Result<Path<(String, String)>, axum::extract::rejection::PathRejection>,
) -> Result<Json<VersionInfo>, Trouble> {
    let what = "find the plugin version";
    let Ok(Path((name, version))) = path else {
        return Err(Trouble::not_found(what, "the path is not UTF-8"));
    };
    let wanted = format!("{name}@{version}");
    let versions = app.operator()?.list_versions().await?;
    let found = versions
        .into_iter()
        .find(|version| version.plugin == wanted);
    let missing = || {
        Trouble::not_found(what, format!("there is no {wanted:?}"))
            .hint("GET /v1/plugins lists what there is")
    };
    found.map(Json).ok_or_else(missing)
}

/// Upload a component: it is checked, and stored as an immutable version.
///
/// Idempotent: the same bytes again answer 200. The name and version come from the embedded manifest.
#[utoipa::path(
    put,
    path = "/v1/plugins",
    tag = "plugins",
    operation_id = "upload_plugin",
    params(
        ("content-digest" = String, Header, description = "SHA-256 of the body as RFC 9530 has it: sha-256=:BASE64:", pattern = "^sha-256=:[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=:$"),
        ("wasmill-digest" = String, Header, description = "the same as sha256: and 64 hex digits", pattern = "^sha256:[0-9a-fA-F]{64}$"),
        ("wasmill-signature" = String, Header, description = "a signature of the digest, KEY:BASE64", max_length = 512)
    ),
    request_body(
        description = "the component with its embedded manifest, as `wasmill plugin build` makes it",
        content((Vec<u8> = "application/wasm"), (Vec<u8> = "application/octet-stream"))
    ),
    responses(
        (status = 201, description = "a new version", body = Uploaded, headers(("location" = String, description = "the version's path"))),
        (status = 200, description = "these bytes were here already", body = Uploaded)
    )
)]
pub(super) async fn upload(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Trouble> {
    let kind = media_type(&request);
    if !matches!(
        kind.as_deref(),
        None | Some("application/wasm" | "application/octet-stream")
    ) {
        return Err(unsupported(kind, "application/wasm"));
    }
    let wanted = wanted_digest(request.headers())?;
    let signature = signature(request.headers())?;
    let mut body = Paced::new(request, app.limits.upload, app.limits.stall)?;
    let Ok(Ok(_turn)) = tokio::time::timeout(TURN, app.uploads.acquire()).await else {
        let detail = "as many uploads as are taken at once are under way";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return Err(Trouble::later(status, "busy", "take the upload", detail, 5));
    };
    body.restart();
    let mut file = Received::new(&app)?;
    while let Some(data) = body.next().await? {
        file = file.take(&data).await?;
    }
    let file = file.write().await?;
    let digest: [u8; 32] = file.hash.finalize().into();
    if let Some(wanted) = wanted
        && wanted != digest
    {
        let detail = format!(
            "the digest sent is sha256:{}, of the {} bytes received it is sha256:{}",
            hex(&wanted),
            file.size,
            hex(&digest)
        );
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        return Err(
            Trouble::new(status, "digest", "compare the digest", detail).hint(
                "send it again; if it stays so, the file is not the one the digest was made of",
            ),
        );
    }
    let uploaded = app
        .operator()?
        .upload(NewUpload {
            file: file.file.path().to_owned(),
            digest: format!("sha256:{}", hex(&digest)),
            size: file.size,
            signature,
            by: caller.name,
        })
        .await?;
    let status = if uploaded.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let location = uploaded.plugin.replacen('@', "/", 1);
    let location = HeaderValue::from_str(&format!("/v1/plugins/{location}"));
    let mut response = (status, Json(uploaded)).into_response();
    if let (StatusCode::CREATED, Ok(location)) = (status, location) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// The part of a component that has come; its file goes away with it.
struct Received {
    file: NamedTempFile,
    hash: Sha256,
    size: u64,
    buffer: Vec<u8>,
}

impl Received {
    fn new(app: &App) -> Result<Self, Trouble> {
        let file = tempfile::Builder::new()
            .prefix(super::server::UPLOAD_PREFIX)
            .suffix(".wasm")
            .tempfile_in(&app.folder);
        let file = file.map_err(no_space)?;
        Ok(Self {
            file,
            hash: Sha256::new(),
            size: 0,
            buffer: Vec::new(),
        })
    }

    async fn take(mut self, data: &[u8]) -> Result<Self, Trouble> {
        self.buffer.extend_from_slice(data);
        if self.buffer.len() < WRITE {
            return Ok(self);
        }
        self.write().await
    }

    async fn write(mut self) -> Result<Self, Trouble> {
        task::blocking(move || {
            self.hash.update(&self.buffer);
            self.file.write_all(&self.buffer).map_err(no_space)?;
            self.size += self.buffer.len() as u64;
            self.buffer.clear();
            Ok(self)
        })
        .await?
    }
}

fn no_space(error: std::io::Error) -> Trouble {
    Error::outside("keep the upload", error)
        .hint("make room in the host's cache folder")
        .into()
}

/// The digest the client says the body has, by either header; both have to agree.
fn wanted_digest(headers: &HeaderMap) -> Result<Option<[u8; 32]>, Trouble> {
    let text = |name: &HeaderName| {
        let value = headers.get(name)?;
        Some(
            value
                .to_str()
                .map_err(|_| bad_digest(format!("{name} is not ASCII"))),
        )
    };
    let own = text(&DIGEST).transpose()?.map(|text| {
        let digest = text.strip_prefix("sha256:").and_then(unhex);
        digest.ok_or_else(|| bad_digest("wasmill-digest is not sha256: and 64 hex digits"))
    });
    let rfc = text(&CONTENT_DIGEST).transpose()?.map(content_digest);
    match (own.transpose()?, rfc.transpose()?.flatten()) {
        (Some(one), Some(other)) if one != other => {
            Err(bad_digest("content-digest and wasmill-digest differ"))
        }
        (one, other) => Ok(one.or(other)),
    }
}

/// `sha-256=:BASE64:` among other members of an RFC 9530 dictionary; algorithms we do not know are skipped.
fn content_digest(text: &str) -> Result<Option<[u8; 32]>, Trouble> {
    let wrong = || bad_digest("content-digest is not as RFC 9530 has it, e.g. sha-256=:BASE64:");
    let mut found = None;
    for member in text.split(',') {
        let (name, value) = member.trim().split_once('=').ok_or_else(wrong)?;
        let value = value
            .strip_prefix(':')
            .and_then(|rest| rest.strip_suffix(':'));
        let bytes = STANDARD
            .decode(value.ok_or_else(wrong)?)
            .map_err(|_| wrong())?;
        if name == "sha-256" {
            found = Some(<[u8; 32]>::try_from(bytes).map_err(|_| wrong())?);
        }
    }
    Ok(found)
}

fn bad_digest(detail: impl Into<String>) -> Trouble {
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    Trouble::new(status, "digest", "read the digest", detail)
}

fn signature(headers: &HeaderMap) -> Result<Option<String>, Trouble> {
    let Some(value) = headers.get(SIGNED) else {
        return Ok(None);
    };
    let text = value.to_str().ok().filter(|text| text.len() <= SIGNATURE);
    let wrong = || Trouble::malformed("wasmill-signature is not KEY:BASE64");
    text.map(|text| Some(text.to_owned())).ok_or_else(wrong)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| {
            digit
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        })
        .collect();
    let pairs: Vec<u8> = digits?
        .chunks(2)
        .map(|pair| pair.iter().fold(0, |all, digit| all * 16 + digit))
        .collect();
    <[u8; 32]>::try_from(pairs)
        .ok()
        .filter(|_| text.len() == 64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const EMPTY_RFC: &str = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";

    fn digest(own: Option<&str>, rfc: Option<&str>) -> Result<Option<String>, u16> {
        let mut headers = HeaderMap::new();
        let pairs = [(DIGEST, own), (CONTENT_DIGEST, rfc)];
        for (name, value) in pairs {
            if let Some(value) = value {
                headers.insert(name, HeaderValue::from_str(value).unwrap());
            }
        }
        wanted_digest(&headers)
            .map(|found| found.map(|digest| hex(&digest)))
            .map_err(|trouble| trouble.status().as_u16())
    }

    #[test]
    fn digests_come_by_either_header() {
        let own = format!("sha256:{EMPTY}");
        let empty = Ok(Some(EMPTY.to_owned()));
        assert_eq!(digest(None, None), Ok(None));
        assert_eq!(digest(Some(&own), None), empty);
        assert_eq!(digest(None, Some(EMPTY_RFC)), empty);
        assert_eq!(digest(Some(&own), Some(EMPTY_RFC)), empty);
        assert_eq!(
            digest(None, Some(&format!("sha-512=:AAAA:, {EMPTY_RFC}"))),
            empty
        );
        assert_eq!(digest(None, Some("sha-512=:AAAA:")), Ok(None));
        for wrong in [
            "",
            "sha-256",
            "sha-256=:AAAA:",
            "sha-256=AAAA",
            "sha-256=:%:",
            "sha-256=:",
            "sha-256=::",
        ] {
            assert_eq!(digest(None, Some(wrong)), Err(422), "{wrong}");
        }
        for wrong in [
            "",
            "sha256:",
            EMPTY,
            "sha256:abc",
            &format!("{own}0"),
            &format!("sha256:{}é", &EMPTY[..62]),
        ] {
            assert_eq!(digest(Some(wrong), None), Err(422), "{wrong}");
        }
        let other = format!("sha256:{}", "0".repeat(64));
        assert_eq!(digest(Some(&other), Some(EMPTY_RFC)), Err(422));
    }
}
