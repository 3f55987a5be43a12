//! A client that sends exactly what it is told, and a host to send it to.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use wasmill::admin::types::HostStatus;
use wasmill::admin::{Seat, Server, hash_token, serve};
use wasmill::config::{HttpConfig, HttpLimits, Role, TokenConfig};

use crate::fake::Fake;

/// A host that listens, with its folder of uploads.
pub(crate) struct Host {
    pub(crate) fake: Arc<Fake>,
    pub(crate) server: Server,
    folder: tempfile::TempDir,
}

/// A config on a free port of this machine, without tokens, that is soon impatient.
pub(crate) fn config() -> HttpConfig {
    HttpConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        tls: None,
        tokens: Vec::new(),
        limits: HttpLimits {
            upload: 1 << 20,
            requests_per_second: 100_000,
            stall: Duration::from_secs(1),
            ..HttpLimits::default()
        },
    }
}

/// A token of the config: its text is its name, then `-secret`.
pub(crate) fn token(name: &str, role: Role) -> TokenConfig {
    TokenConfig {
        name: name.to_owned(),
        role,
        hash: hash_token(&format!("{name}-secret")),
    }
}

impl Host {
    pub(crate) fn start(config: &HttpConfig) -> Self {
        let fake = Fake::new();
        Self::behind(config, fake.clone().into(), fake)
    }

    /// One whose host is not there yet, and the seat it takes.
    pub(crate) fn starting(config: &HttpConfig, before: HostStatus) -> (Self, Seat) {
        let seat = Seat::new(move || before.clone());
        (Self::behind(config, seat.clone(), Fake::new()), seat)
    }

    fn behind(config: &HttpConfig, seat: Seat, fake: Arc<Fake>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = serve(config, folder.path(), seat).unwrap();
        Self {
            fake,
            server,
            folder,
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// The folder of uploads under way.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Sends a request with a Host header and these others, and a body.
    pub(crate) fn ask(&self, line: &str, headers: &[&str], body: &str) -> Answer {
        let mut text = format!("{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
        for header in headers {
            text.push_str(header);
            text.push_str("\r\n");
        }
        if !body.is_empty() {
            text.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        self.raw(format!("{text}\r\n{body}").as_bytes())
    }

    /// Sends JSON.
    pub(crate) fn json(&self, line: &str, body: &str) -> Answer {
        self.ask(line, &["content-type: application/json"], body)
    }

    /// Uploads.
    pub(crate) fn upload(&self, body: &str) -> Answer {
        self.ask("PUT /v1/plugins", &["content-type: application/wasm"], body)
    }

    /// Sends bytes and reads until the host closes.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        Answer::read(&mut stream)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
            .set_write_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
    }
}

/// What a host answered.
#[derive(Debug)]
pub(crate) struct Answer {
    /// 0 when nothing came.
    pub(crate) status: u16,
    /// Status line and headers, lowercase.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// Reads until the host closes.
    pub(crate) fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        // A reset after the answer is no news.
        stream.read_to_end(&mut bytes).ok();
        Self::parse(&bytes)
    }

    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        Self {
            status: status.unwrap_or(0),
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }

    pub(crate) fn value(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts a problem of this status and code, whole and well formed.
    #[track_caller]
    pub(crate) fn is(&self, status: u16, code: &str) -> serde_json::Value {
        assert_eq!(self.status, status, "{self:?}");
        assert!(
            self.head.contains("content-type: application/problem+json"),
            "{self:?}"
        );
        let problem = self.value();
        assert_eq!(problem["code"], code, "{self:?}");
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], format!("urn:wasmill:problem:{code}"));
        for key in ["title", "detail"] {
            assert!(
                problem[key].as_str().is_some_and(|text| !text.is_empty()),
                "{self:?}"
            );
        }
        problem
    }
}
