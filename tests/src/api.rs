//! A client of a host's HTTP API, as small as tests need: JSON in, status and JSON out, errors as they come.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use ureq::Agent;

/// How long an answer may take: an upload compiles, on a busy machine, before it answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Clone, Debug)]
pub struct Api {
    agent: Agent,
    base: String,
    token: Option<String>,
}

/// What a host answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body; a JSON string where it is no JSON.
    pub body: Value,
}

impl Answer {
    /// The body of a success; panics with the problem otherwise.
    pub fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "{self:?}");
        self.body
    }

    /// The problem of a refusal, as one text: `STATUS CODE: TITLE: DETAIL; HINT`; panics at a success.
    pub fn refused(&self) -> String {
        assert!(self.status >= 400, "it was done: {self:?}");
        let text = |name: &str| self.body[name].as_str().unwrap_or_default();
        assert_eq!(
            self.body["status"], self.status,
            "a problem repeats the status: {self:?}"
        );
        format!(
            "{} {}: {}: {}; {}",
            self.status,
            text("code"),
            text("title"),
            text("detail"),
            text("hint")
        )
    }
}

impl Api {
    /// Of the host that listens on a port of this machine.
    pub fn new(port: u16) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE));
        Self {
            agent: config.build().into(),
            base: format!("http://127.0.0.1:{port}"),
            token: None,
        }
    }

    /// The same with a bearer token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            ..self.clone()
        }
    }

    /// Where it is, as a URL.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// A request with a body, or none.
    ///
    /// # Errors
    /// No answer: the host is not there, or died meanwhile.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, String> {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let answer = if body.is_empty() && method == "GET" {
            self.agent.run(request.body(()).unwrap())
        } else {
            self.agent.run(request.body(body).unwrap())
        };
        let mut answer = answer.map_err(|error| error.to_string())?;
        let status = answer.status().as_u16();
        let text = answer
            .body_mut()
            .with_config()
            .limit(64 << 20)
            .read_to_string()
            .map_err(|error| error.to_string())?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok(Answer { status, body })
    }

    /// GET.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn get(&self, path: &str) -> Result<Answer, String> {
        self.send("GET", path, &[], &[])
    }

    /// A JSON body with any method.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn json(&self, method: &str, path: &str, body: &Value) -> Result<Answer, String> {
        let headers = [("content-type", "application/json")];
        self.send(method, path, &headers, body.to_string().as_bytes())
    }

    /// Uploads a component, with its digest.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn upload(&self, component: &[u8]) -> Result<Answer, String> {
        let digest = hex(&Sha256::digest(component));
        let headers = [
            ("content-type", "application/wasm"),
            ("wasmill-digest", &format!("sha256:{digest}")),
        ];
        self.send("PUT", "/v1/plugins", &headers, component)
    }

    /// Uploads a file; panics when it is refused.
    pub fn upload_file(&self, file: &Path) -> Value {
        let answer = self.upload(&std::fs::read(file).unwrap());
        answer.unwrap_or_else(|error| panic!("{error}")).ok()
    }

    /// Deploys; `more` are further members of the request.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn deploy(&self, pipeline: &str, plugin: &str, more: Value) -> Result<Answer, String> {
        let mut request = json!({ "plugin": plugin });
        let members = request.as_object_mut().unwrap();
        if let Value::Object(more) = more {
            members.extend(more);
        }
        self.json(
            "PUT",
            &format!("/v1/pipelines/{pipeline}/deployment"),
            &request,
        )
    }

    /// `promote`, `rollback`, `pause`, `resume` or `remove`.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn change(&self, pipeline: &str, what: &str) -> Result<Answer, String> {
        let path = format!("/v1/pipelines/{pipeline}");
        match what {
            "remove" => self.json("DELETE", &path, &json!({})),
            _ => self.json("POST", &format!("{path}/{what}"), &json!({})),
        }
    }

    /// A pipeline's status.
    ///
    /// # Errors
    /// There is none now.
    pub fn status(&self, pipeline: &str) -> Result<Value, String> {
        let answer = self.get(&format!("/v1/pipelines/{pipeline}"))?;
        if answer.status == 200 {
            Ok(answer.body)
        } else {
            Err(format!("{answer:?}"))
        }
    }

    /// A pipeline's history; panics where it has none.
    pub fn history(&self, pipeline: &str) -> Value {
        self.get(&format!("/v1/pipelines/{pipeline}/history"))
            .unwrap()
            .ok()
    }

    /// `Ok` once `/ready` says so.
    ///
    /// # Errors
    /// What it says.
    pub fn ready(&self) -> Result<(), String> {
        let answer = self.get("/ready")?;
        if answer.status == 200 {
            Ok(())
        } else {
            Err(format!("{answer:?}"))
        }
    }

    /// The text of `/metrics`.
    pub fn metrics(&self) -> String {
        let answer = self.get("/metrics").unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body.as_str().unwrap_or_default().to_owned()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
