//! Clients that mean harm, or are broken.

use std::io::Write as _;
use std::time::{Duration, Instant};

use wasmill::config::{HttpConfig, HttpLimits};

use crate::client::{Answer, Host, config};

/// Sends a byte of `endless` every 50 ms until the host closes; how long that took, and what it answered.
fn trickle(host: &Host, start: &str, endless: u8) -> (Duration, Answer) {
    let mut stream = host.connect();
    let began = Instant::now();
    stream.write_all(start.as_bytes()).unwrap();
    let mut reader = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        let read = scope.spawn(move || {
            let answer = Answer::read(&mut reader);
            (began.elapsed(), answer)
        });
        while !read.is_finished() && began.elapsed() < Duration::from_secs(15) {
            // The host closes at some time.
            stream.write_all(&[endless]).ok();
            std::thread::sleep(Duration::from_millis(50));
        }
        read.join().unwrap()
    })
}

#[test]
fn headers_that_trickle_are_cut_and_nobody_waits_for_them() {
    let host = Host::start(&config());
    std::thread::scope(|scope| {
        let slow: Vec<_> = (0..20)
            .map(|_| {
                scope.spawn(|| {
                    trickle(
                        &host,
                        "GET /v1/host HTTP/1.1\r\nhost: localhost\r\nx: ",
                        b'x',
                    )
                })
            })
            .collect();
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(800) {
            assert_eq!(host.ask("GET /v1/host", &[], "").status, 200);
        }
        for slow in slow {
            let (took, answer) = slow.join().unwrap();
            assert!(took < Duration::from_secs(8), "{took:?}");
            assert_ne!(answer.status, 200);
        }
    });
}

#[test]
fn bodies_that_trickle_are_cut() {
    let host = Host::start(&config());
    for (line, kind) in [
        ("PUT /v1/plugins", "application/wasm"),
        ("POST /v1/pipelines/a/plan", "application/json"),
    ] {
        let start = format!(
            "{line} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-length: 50000\r\n\r\n"
        );
        let (took, answer) = trickle(&host, &start, b' ');
        answer.is(408, "stalled");
        assert!(took < Duration::from_secs(8), "{took:?}");
    }
    assert_eq!(std::fs::read_dir(host.folder()).unwrap().count(), 0);
}

#[test]
fn a_thousand_headers_and_a_long_one_are_refused() {
    let host = Host::start(&config());
    let many = "a: b\r\n".repeat(1000);
    let long = format!("a: {}\r\n", "x".repeat(100_000));
    for headers in [many, long] {
        let text = format!("GET /live HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
        let mut stream = host.connect();
        stream.write_all(text.as_bytes()).ok();
        assert_eq!(Answer::read(&mut stream).status, 431);
    }
    let path = format!(
        "GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "x".repeat(100_000)
    );
    let mut stream = host.connect();
    stream.write_all(path.as_bytes()).ok();
    let status = Answer::read(&mut stream).status;
    assert!([414, 431].contains(&status), "{status}");
}

#[test]
fn junk_instead_of_http_is_survived() {
    let host = Host::start(&config());
    for junk in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut stream = host.connect();
        stream.write_all(junk).ok();
        stream.shutdown(std::net::Shutdown::Write).ok();
        let status = Answer::read(&mut stream).status;
        assert!(status == 0 || (400..506).contains(&status), "{status}");
    }
    assert_eq!(host.ask("GET /live", &[], "").status, 200);
}

#[test]
fn a_client_that_asks_too_often_is_told_to_wait() {
    let limits = HttpLimits {
        requests_per_second: 5,
        ..config().limits
    };
    let host = Host::start(&HttpConfig { limits, ..config() });
    let answers: Vec<_> = (0..20).map(|_| host.ask("GET /v1/host", &[], "")).collect();
    let slowed = answers.iter().find(|answer| answer.status == 429).unwrap();
    slowed.is(429, "too-many");
    assert!(slowed.head.contains("retry-after: 1"), "{slowed:?}");
    assert!(answers.iter().filter(|answer| answer.status == 200).count() >= 10);
    assert_eq!(
        host.ask("GET /live", &[], "").status,
        200,
        "probes are never slowed"
    );
}

#[test]
fn more_connections_than_allowed_are_turned_away() {
    let limits = HttpLimits {
        connections: 3,
        ..config().limits
    };
    let host = Host::start(&HttpConfig { limits, ..config() });
    let held: Vec<_> = (0..3).map(|_| host.connect()).collect();
    std::thread::sleep(Duration::from_millis(200));
    let mut fourth = host.connect();
    Answer::read(&mut fourth).is(503, "full");
    drop(held);
    let began = Instant::now();
    while host.ask("GET /live", &[], "").status != 200 {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "never free again"
        );
    }
}

#[test]
fn stopping_answers_what_is_under_way() {
    let host = Host::start(&config());
    let mut stream = host.connect();
    let body = "quakes@1.0.0\nslow";
    let text = format!(
        "PUT /v1/plugins HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).unwrap();
    let idle = host.connect();
    std::thread::sleep(Duration::from_millis(100));
    let (addr, began) = (host.addr(), Instant::now());
    host.server.stop().unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(Answer::read(&mut stream).status, 201);
    drop(idle);
    std::net::TcpStream::connect(addr).unwrap_err();
}
