//! Answers that come before the body was read: the client gets them whole, whatever it still sends.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use wasmill::config::{HttpConfig, HttpLimits, Role};

use crate::client::{Answer, Host, config, token};

fn with_tokens() -> HttpConfig {
    HttpConfig {
        tokens: vec![token("eyes", Role::Read), token("ci", Role::Deploy)],
        ..config()
    }
}

/// Sends a head, waits until it was answered, then sends the whole body; every step has to work.
fn late_body(host: &Host, line: &str, headers: &str, size: usize) -> Answer {
    let mut stream = host.connect();
    let head =
        format!("{line} HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {size}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    for piece in vec![b'x'; size].chunks(10_000) {
        stream.write_all(piece).unwrap();
    }
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    Answer::parse(&bytes)
}

#[test]
fn an_early_answer_is_not_lost_by_a_client_that_still_sends() {
    let host = Host::start(&with_tokens());
    let ci = "authorization: Bearer ci-secret\r\n";
    let eyes = "authorization: Bearer eyes-secret\r\n";
    let html = format!("{ci}content-type: text/html\r\n");
    let digest = format!("{ci}wasmill-digest: sha256:12\r\n");
    let (upload, deploy) = ("PUT /v1/plugins", "PUT /v1/pipelines/a/deployment");
    for (line, headers, size, status, code) in [
        (upload, "", 50_000, 401, "token-missing"),
        (upload, eyes, 50_000, 403, "role"),
        (upload, &html, 50_000, 415, "media-type"),
        (upload, &digest, 50_000, 422, "digest"),
        (upload, ci, 2 << 20, 413, "too-large"),
        (deploy, "", 50_000, 401, "token-missing"),
        (deploy, ci, 50_000, 415, "media-type"),
        ("PUT /v1/nothing", ci, 50_000, 404, "not-found"),
        ("PUT /v1/host", ci, 50_000, 405, "method"),
    ] {
        let answer = late_body(&host, line, headers, size);
        answer.is(status, code);
        assert!(answer.head.contains("connection: close"), "{answer:?}");
    }
    let limits = HttpLimits {
        requests_per_second: 1,
        ..config().limits
    };
    let slow = Host::start(&HttpConfig { limits, ..config() });
    while slow.ask("GET /v1/host", &[], "").status == 200 {}
    late_body(&slow, upload, "", 50_000).is(429, "too-many");
}

#[test]
fn a_client_that_keeps_its_connections_meets_none_that_is_closed() {
    let host = Host::start(&with_tokens());
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .into();
    let url = format!("http://{}/v1/plugins", host.addr());
    let body = vec![b'x'; 50_000];
    for turn in 0..30 {
        let (secret, status) = [("none", 401), ("eyes-secret", 403)][turn % 2];
        let request = agent
            .put(&url)
            .header("authorization", format!("Bearer {secret}"));
        let answer = request.send(&body[..]);
        let answer = answer.unwrap_or_else(|error| panic!("turn {turn}: {error}"));
        assert_eq!(answer.status(), status, "turn {turn}");
    }
}

#[test]
fn a_body_that_was_read_leaves_the_connection_open() {
    let host = Host::start(&config());
    let body = "quakes@1.0.0\n";
    let size = body.len();
    let put = format!(
        "PUT /v1/plugins HTTP/1.1\r\nhost: localhost\r\ncontent-length: {size}\r\n\r\n{body}"
    );
    let get = "GET /live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let answer = host.raw(format!("{put}{put}{get}").as_bytes());
    assert_eq!(answer.status, 201, "{answer:?}");
    assert!(!answer.head.contains("connection: close"), "{answer:?}");
    assert!(answer.body.contains("HTTP/1.1 200 OK"), "{answer:?}");
    assert!(answer.body.ends_with("live\n"), "{answer:?}");
}

#[test]
fn a_refused_client_that_sends_for_ever_is_closed() {
    let host = Host::start(&with_tokens());
    let mut stream = host.connect();
    let head = "PUT /v1/plugins HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let began = Instant::now();
    while stream.write_all(b"x").is_ok() {
        assert!(began.elapsed() < Duration::from_secs(8), "still open");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(began.elapsed() > Duration::from_secs(1), "not lingered");
}

#[test]
fn a_client_turned_away_while_it_sends_reads_why() {
    let limits = HttpLimits {
        connections: 1,
        ..config().limits
    };
    let host = Host::start(&HttpConfig { limits, ..config() });
    let held = host.connect();
    std::thread::sleep(Duration::from_millis(100));
    let answer = late_body(&host, "PUT /v1/plugins", "", 50_000);
    answer.is(503, "full");
    drop(held);
}
