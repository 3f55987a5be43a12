//! The API before the host behind it is there: alive, not ready and why, and everything else refused until it comes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use wasmill::admin::types::HostStatus;
use wasmill::admin::{Operator as _, document};
use wasmill::config::{HttpConfig, Role};

use crate::client::{Host, config, token};

const WAITS: &str = "waiting for the control log since 12:00:03: nobody answers";

fn waits() -> HostStatus {
    HostStatus {
        id: "early".to_owned(),
        reasons: vec![WAITS.to_owned()],
        ..HostStatus::default()
    }
}

/// Every path of the document with its methods, as request lines; parameters filled in.
fn operations() -> Vec<String> {
    let document = serde_json::to_value(document()).unwrap();
    let mut lines = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let path = path
            .replace("{partition}", "0")
            .replace("{offset}", "7")
            .replace("{name}", "a")
            .replace("{version}", "1.0.0");
        let methods = item.as_object().unwrap().keys();
        lines.extend(methods.map(|method| format!("{} {path}", method.to_uppercase())));
    }
    lines
}

#[test]
fn it_is_alive_says_what_it_waits_for_and_refuses_the_rest() {
    let (host, seat) = Host::starting(&config(), waits());
    assert_eq!(host.ask("GET /live", &[], "").status, 200);
    assert_eq!(host.ask("GET /openapi.json", &[], "").status, 200);
    let ready = host.ask("GET /ready", &[], "");
    assert_eq!(ready.status, 503, "{ready:?}");
    let wanted = serde_json::json!({"ready": false, "reasons": [WAITS]});
    assert_eq!(ready.value(), wanted);
    let metrics = host.ask("GET /metrics", &[], "");
    assert_eq!(metrics.status, 200, "{metrics:?}");
    for line in ["wasmill_host_ready{} 0.0", "id=\"early\""] {
        assert!(metrics.body.contains(line), "{line}: {metrics:?}");
    }
    let operations = operations();
    let refused = operations.iter().filter(|line| line.contains(" /v1/"));
    let mut count = 0;
    for line in refused {
        let answer = host.ask(line, &[], "");
        let problem = answer.is(503, "unavailable");
        assert!(
            problem["detail"].as_str().unwrap().contains(WAITS),
            "{line}"
        );
        assert!(
            problem["hint"].as_str().unwrap().contains("/ready"),
            "{line}"
        );
        assert!(answer.head.contains("retry-after: "), "{line}: {answer:?}");
        count += 1;
    }
    assert!(count > 20, "{operations:?}");
    host.ask("GET /v1/nothing", &[], "").is(404, "not-found");
    // The same listener goes on once it is there.
    seat.take(host.fake.clone());
    assert_eq!(host.ask("GET /ready", &[], "").status, 200);
    assert_eq!(host.ask("GET /v1/host", &[], "").value()["id"], "fake");
    assert_eq!(host.upload("quakes@1.0.0\n").status, 201);
    let metrics = host.ask("GET /metrics", &[], "");
    assert!(
        metrics.body.contains("wasmill_host_ready{} 1.0"),
        "{metrics:?}"
    );
}

#[test]
fn who_may_not_ask_learns_nothing_of_it() {
    let config = HttpConfig {
        tokens: vec![token("eyes", Role::Read), token("ci", Role::Deploy)],
        ..config()
    };
    let (host, seat) = Host::starting(&config, waits());
    let ask = |line: &str, name: &str| {
        let header = format!("authorization: Bearer {name}-secret");
        host.ask(line, &[&header], "")
    };
    for line in [
        "GET /v1/pipelines",
        "GET /metrics",
        "DELETE /v1/pipelines/a",
    ] {
        let answer = host.ask(line, &[], "");
        answer.is(401, "token-missing");
        assert!(!answer.body.contains("waiting"), "{answer:?}");
        ask(line, "nobody").is(401, "token-unknown");
    }
    ask("DELETE /v1/pipelines/a", "eyes").is(403, "role");
    ask("DELETE /v1/pipelines/a", "ci").is(503, "unavailable");
    ask("GET /v1/pipelines", "eyes").is(503, "unavailable");
    assert_eq!(ask("GET /metrics", "eyes").status, 200);
    // A probe is told whether, and who may read why.
    for stranger in [host.ask("GET /ready", &[], ""), ask("GET /ready", "nobody")] {
        assert_eq!(stranger.status, 503);
        assert!(!stranger.body.contains("waiting"), "{stranger:?}");
    }
    assert_eq!(ask("GET /ready", "eyes").value()["reasons"][0], WAITS);
    // There is no audit trail before the host is there; afterwards there is.
    assert!(host.fake.denied.lock().is_empty());
    seat.take(host.fake.clone());
    ask("DELETE /v1/pipelines/a", "eyes").is(403, "role");
    assert_eq!(host.fake.denied.lock().len(), 1);
}

#[test]
fn an_upload_is_refused_before_it_is_received() {
    let (host, _seat) = Host::starting(&config(), waits());
    let mut stream = host.connect();
    let head = "PUT /v1/plugins HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n\
                content-type: application/wasm\r\ncontent-length: 1000000\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 503", "nothing of the body was sent");
    assert_eq!(std::fs::read_dir(host.folder()).unwrap().count(), 0);
}

/// Asks on an open connection; the status.
fn again(stream: &mut BufReader<TcpStream>) -> u16 {
    let request = "GET /v1/host HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.get_mut().write_all(request.as_bytes()).unwrap();
    let (mut status, mut length) = (0, 0);
    loop {
        let mut line = String::new();
        assert!(stream.read_line(&mut line).unwrap() > 0, "closed");
        let line = line.trim_end().to_lowercase();
        if let Some(rest) = line.strip_prefix("http/1.1 ") {
            status = rest[..3].parse().unwrap();
        } else if let Some(rest) = line.strip_prefix("content-length: ") {
            length = rest.parse().unwrap();
        } else if line.is_empty() {
            break;
        }
    }
    stream.read_exact(&mut vec![0; length]).unwrap();
    status
}

#[test]
fn connections_and_requests_outlive_the_moment_it_comes() {
    let (host, seat) = Host::starting(&config(), waits());
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (mut stream, stop) = (BufReader::new(host.connect()), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut seen = vec![again(&mut stream)];
                while !stop.load(Ordering::Acquire) {
                    seen.push(again(&mut stream));
                }
                seen.push(again(&mut stream));
                seen
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(100));
    seat.take(host.fake.clone());
    std::thread::sleep(Duration::from_millis(100));
    stop.store(true, Ordering::Release);
    for client in clients {
        let seen = client.join().unwrap();
        let refused = seen.iter().take_while(|status| **status == 503).count();
        assert!(refused > 0, "asked before it came");
        assert!(
            seen[refused..].iter().all(|status| *status == 200),
            "{seen:?}"
        );
        assert!(refused < seen.len(), "asked after it came");
    }
}

#[tokio::test]
async fn who_took_the_seat_first_keeps_it() {
    let (host, seat) = Host::starting(&config(), waits());
    seat.take(host.fake.clone());
    let other = crate::fake::Fake::new();
    other.reasons.lock().push("another".to_owned());
    assert!(!other.ready().await.ready);
    seat.take(other);
    assert_eq!(host.ask("GET /ready", &[], "").status, 200);
}

#[test]
fn a_connection_without_a_request_does_not_hold_up_the_end() {
    let (host, _seat) = Host::starting(&config(), waits());
    let mut stream = BufReader::new(host.connect());
    assert_eq!(again(&mut stream), 503);
    let began = Instant::now();
    host.server.stop().unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
}
