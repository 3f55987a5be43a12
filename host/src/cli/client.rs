//! The HTTP API's client: paths, requests, and what an answer that is an error means for the command line.
//! It prints nothing and decides nothing.

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::Response;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, SendBody};

use super::connection::{Connection, Endpoint};
use super::{Failure, Remote};
use crate::admin::types::Problem;
use crate::error::{Blame, Error};

/// Until a connection stands.
const CONNECT: Duration = Duration::from_secs(10);
/// Until an answer begins: a plan looks at live tables, and a host may wait for its brokers.
const ANSWER: Duration = Duration::from_secs(120);
/// Until the answer to an upload begins: it is compiled and its fixtures run meanwhile.
const UPLOAD: Duration = Duration::from_secs(900);
/// Most bytes of an answer.
const MAX_ANSWER: u64 = 64 << 20;

/// A host's API.
pub(super) struct Client {
    agent: Agent,
    endpoint: Endpoint,
}

/// An answer's body, as it came.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// The text.
    pub(super) text: String,
}

impl Answer {
    /// The body as a value.
    ///
    /// # Errors
    /// The host speaks otherwise than this command.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_str(&self.text).map_err(|error| {
            Error::outside("read the host's answer", error)
                .hint("use the `wasmill` of the host's version, and see that --host is a Wasmill host")
                .into()
        })
    }
}

/// How a body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// Something is to be done.
    Post,
    /// This is to be so.
    Put,
    /// This is to be gone.
    Delete,
}

/// What is sent with an upload besides the bytes.
#[derive(Clone, Debug)]
pub(super) struct UploadHead {
    /// `sha256:` and 64 hex digits.
    pub(super) digest: String,
    /// Bytes of the body.
    pub(super) size: u64,
    /// `KEY:BASE64`.
    pub(super) signature: Option<String>,
}

impl Client {
    /// A client of the host that the arguments name; connects when it is used.
    ///
    /// # Errors
    /// As [`Connection::check`].
    pub(super) fn open(connection: &Connection) -> Result<Self, Failure> {
        let endpoint = connection.check()?;
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            // A redirect would carry a body and a token elsewhere: it is an error that shows the address.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("wasmill/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ANSWER));
        if endpoint.loopback {
            config = config.proxy(None);
        }
        if let Some(pem) = &endpoint.ca {
            config = config.tls_config(TlsConfig::builder().root_certs(roots(pem)?).build());
        }
        Ok(Self {
            agent: config.build().new_agent(),
            endpoint,
        })
    }

    /// Asks for something. `what` names the attempt in an error.
    ///
    /// # Errors
    /// Nothing answers, or the answer is an error.
    pub(super) fn get(&self, path: &str, what: &str) -> Result<Answer, Failure> {
        let mut request = self.agent.get(self.url(path));
        if let Some(token) = self.bearer() {
            request = request.header("authorization", token);
        }
        self.answer(request.call(), what)
    }

    /// Sends a body and returns the answer.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(super) fn send(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        what: &str,
    ) -> Result<Answer, Failure> {
        let url = self.url(path);
        let mut request = match method {
            Method::Post => self.agent.post(url),
            Method::Put => self.agent.put(url),
            Method::Delete => self.agent.delete(url).force_send_body(),
        };
        if let Some(token) = self.bearer() {
            request = request.header("authorization", token);
        }
        self.answer(request.send_json(body), what)
    }

    /// Uploads a component: its bytes come from `reader`, exactly `head.size` of them.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(super) fn upload(
        &self,
        head: &UploadHead,
        reader: &mut dyn Read,
        what: &str,
    ) -> Result<Answer, Failure> {
        let mut request = self
            .agent
            .put(self.url(path::PLUGINS))
            .header("content-type", "application/wasm")
            .header("content-length", head.size.to_string())
            .header("wasmill-digest", &head.digest)
            // A host that refuses it says so before the bytes are sent.
            .header("expect", "100-continue");
        if let Some(signature) = &head.signature {
            request = request.header("wasmill-signature", signature);
        }
        if let Some(token) = self.bearer() {
            request = request.header("authorization", token);
        }
        let request = request.config().timeout_recv_response(Some(UPLOAD)).build();
        self.answer(request.send(SendBody::from_reader(reader)), what)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.endpoint.base)
    }

    fn bearer(&self) -> Option<String> {
        self.endpoint
            .token
            .as_ref()
            .map(|token| format!("Bearer {}", token.expose()))
    }

    fn answer(
        &self,
        sent: Result<Response<Body>, ureq::Error>,
        what: &str,
    ) -> Result<Answer, Failure> {
        let mut response = sent.map_err(|error| self.unreached(&error, what))?;
        let status = response.status().as_u16();
        let text = response
            .body_mut()
            .with_config()
            .limit(MAX_ANSWER)
            .read_to_string()
            .map_err(|error| self.unreached(&error, what))?;
        if response.status().is_success() {
            return Ok(Answer { text });
        }
        Err(match serde_json::from_str::<Problem>(&text) {
            Ok(problem) => problem_failure(problem),
            Err(_) => self.strange(status, &response, what),
        })
    }

    fn unreached(&self, error: &ureq::Error, what: &str) -> Failure {
        let base = &self.endpoint.base;
        let (detail, hint) = match other_scheme(base, error) {
            Some((spoken, other)) => (
                format!("{base}: what listens there {spoken}"),
                format!("give {other} with --host or WASMILL_HOST"),
            ),
            None => (
                format!("{base}: {error}"),
                "is a host with [http] running there? name it with --host or WASMILL_HOST"
                    .to_owned(),
            ),
        };
        Error::outside(what.to_owned(), detail).hint(hint).into()
    }

    /// Something else than a Wasmill host answered.
    fn strange(&self, status: u16, response: &Response<Body>, what: &str) -> Failure {
        let to = response
            .headers()
            .get("location")
            .and_then(|value| value.to_str().ok())
            .map(|to| format!(" to {to}"))
            .unwrap_or_default();
        Error::outside(
            what.to_owned(),
            format!(
                "{} answered with status {status}{to}, not as a Wasmill host does",
                self.endpoint.base
            ),
        )
        .hint("name a host's own address with --host; a proxy before it may have answered")
        .into()
    }
}

/// Whether a host speaks TLS where plain HTTP was tried, or the other way round: what it speaks, and its address then.
/// A TLS server answers plain HTTP with an alert or not at all, a plain one answers a handshake with HTTP: neither
/// library has a type for it.
fn other_scheme(base: &str, error: &ureq::Error) -> Option<(&'static str, String)> {
    match base.split_once("://")? {
        ("https", rest) if error.to_string().contains("InvalidContentType") => {
            Some(("speaks plain HTTP, not TLS", format!("http://{rest}")))
        }
        ("http", rest) if matches!(error, ureq::Error::Protocol(_)) => Some((
            "speaks no plain HTTP, most likely TLS",
            format!("https://{rest}"),
        )),
        _ => None,
    }
}

/// A problem document as the three-part error, with the exit code of the published list.
pub(super) fn problem_failure(problem: Problem) -> Failure {
    let exit = match (problem.status, problem.code.as_str()) {
        (401 | 403 | 404 | 409 | 413, _) => 5,
        (422, "plugin") => 4,
        (422, "refused") => 5,
        (422, "body") => 2,
        (422, "digest") => 1,
        (422, _) => 3,
        (400, _) => 2,
        (500, _) => 70,
        _ => 1,
    };
    let blame = match exit {
        70 => Blame::Bug,
        4 => Blame::Plugin,
        1 => Blame::Outside,
        _ => Blame::Config,
    };
    let mut error = Error::new(blame, problem.title, problem.detail);
    if problem.status == 401 {
        // The host's hint is about headers.
        error = error
            .hint("put a token of the host into WASMILL_TOKEN, or name its file with --token-file");
    } else if let Some(hint) = problem.hint {
        error = error.hint(hint);
    }
    Failure::Remote(Remote {
        error,
        exit,
        status: problem.status,
        code: problem.code,
    })
}

fn roots(pem: &[u8]) -> Result<RootCerts, Failure> {
    let wrong = |detail: String| {
        Failure::from(
            Error::config("read the certificates of --ca-file", detail)
                .hint("it holds one or more `-----BEGIN CERTIFICATE-----` blocks"),
        )
    };
    let mut found: Vec<Certificate<'static>> = Vec::new();
    for item in parse_pem(pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| wrong(error.to_string()))? {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        return Err(wrong("there is no certificate in it".to_owned()));
    }
    Ok(RootCerts::new_with_certs(&found))
}

/// The API's paths.
pub(super) mod path {
    /// Uploads and versions.
    pub(in crate::cli) const PLUGINS: &str = "/v1/plugins";
    /// Pipelines.
    pub(in crate::cli) const PIPELINES: &str = "/v1/pipelines";
    /// The host that answers.
    pub(in crate::cli) const HOST: &str = "/v1/host";
    /// Whether the host does its work.
    pub(in crate::cli) const READY: &str = "/ready";

    /// The newest entries of the audit trail.
    pub(in crate::cli) fn audit(most: u32) -> String {
        format!("/v1/audit?most={most}")
    }

    /// One pipeline.
    pub(in crate::cli) fn pipeline(name: &str) -> String {
        format!("{PIPELINES}/{}", segment(name))
    }

    /// Something about one pipeline, or to be done with it.
    pub(in crate::cli) fn of_pipeline(name: &str, what: &str) -> String {
        format!("{PIPELINES}/{}/{what}", segment(name))
    }

    /// Dead letters of a pipeline; `query` is what is asked for.
    pub(in crate::cli) fn dead_letters(name: &str, query: &[(&str, String)]) -> String {
        let query = query
            .iter()
            .map(|(name, value)| format!("{name}={}", segment(value)));
        let query = query.collect::<Vec<_>>().join("&");
        format!("{}?{query}", of_pipeline(name, "dead-letters"))
    }

    /// One dead letter.
    pub(in crate::cli) fn dead_letter(
        name: &str,
        partition: i32,
        offset: i64,
        index: i32,
    ) -> String {
        let letters = of_pipeline(name, "dead-letters");
        format!("{letters}/{partition}/{offset}?index={index}")
    }

    /// One dead letter with what it takes to run it elsewhere.
    pub(in crate::cli) fn bundle(name: &str, partition: i32, offset: i64, index: i32) -> String {
        let letters = of_pipeline(name, "dead-letters");
        format!("{letters}/{partition}/{offset}/bundle?index={index}")
    }

    /// Something to be done with dead letters.
    pub(in crate::cli) fn of_dead_letters(name: &str, what: &str) -> String {
        format!("{}/{what}", of_pipeline(name, "dead-letters"))
    }

    /// One segment of a path (RFC 3986, section 2.1), whatever a person typed.
    fn segment(text: &str) -> String {
        let mut out = String::new();
        for byte in text.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~') {
                out.push(char::from(byte));
            } else {
                out.push_str(&format!("%{byte:02X}"));
            }
        }
        out
    }

    #[cfg(test)]
    mod tests {
        #[test]
        fn a_name_stays_one_segment() {
            assert_eq!(super::pipeline("quakes-2_x"), "/v1/pipelines/quakes-2_x");
            assert_eq!(
                super::of_pipeline("../a b", "plan"),
                "/v1/pipelines/%2E%2E%2Fa%20b/plan"
            );
        }
    }
}

/// Opens a file that is sent.
///
/// # Errors
/// Config: it cannot be opened, or is no file.
pub(super) fn open(path: &std::path::Path) -> Result<(File, u64), Error> {
    let wrong = |detail: String| {
        Error::config(format!("read {}", path.display()), detail)
            .hint("name the .wasm that `wasmill plugin build` made")
    };
    let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
    let facts = file.metadata().map_err(|error| wrong(error.to_string()))?;
    if !facts.is_file() {
        return Err(wrong("it is no file".to_owned()));
    }
    Ok((file, facts.len()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn problem(status: u16, code: &str) -> Failure {
        problem_failure(Problem {
            kind: format!("urn:wasmill:problem:{code}"),
            title: "deploy \"a@1.0.0\"".to_owned(),
            status,
            detail: "no".to_owned(),
            instance: "/v1/x".to_owned(),
            code: code.to_owned(),
            hint: Some("do this".to_owned()),
        })
    }

    #[test]
    fn every_answer_has_the_exit_code_of_the_published_list() {
        for (status, code, exit) in [
            (400, "malformed", 2),
            (401, "token-missing", 5),
            (403, "role", 5),
            (404, "not-found", 5),
            (409, "conflict", 5),
            (413, "too-large", 5),
            (422, "config", 3),
            (422, "plugin", 4),
            (422, "refused", 5),
            (422, "body", 2),
            (422, "digest", 1),
            (429, "rate", 1),
            (500, "bug", 70),
            (503, "outside", 1),
        ] {
            let failure = problem(status, code);
            assert_eq!(failure.exit_code(), exit, "{status} {code}");
            let Failure::Remote(remote) = failure else {
                panic!("not remote");
            };
            assert_eq!(remote.error.to_string(), "deploy \"a@1.0.0\": no");
            assert_eq!(remote.error.hint_text() == Some("do this"), status != 401);
        }
    }

    #[test]
    fn certificates_that_are_none_are_refused() {
        assert!(roots(b"hello").is_err());
        assert!(roots(b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n").is_err());
    }
}
