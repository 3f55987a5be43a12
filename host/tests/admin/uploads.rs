//! Uploads: whole ones, broken ones, huge ones, many at once.

use std::io::Write as _;
use std::time::{Duration, Instant};

use base64::Engine as _;
use sha2::{Digest as _, Sha256};
use wasmill::config::{HttpConfig, HttpLimits};

use crate::client::{Answer, Host, config};

fn digest(body: &[u8]) -> (String, String) {
    let hash = Sha256::digest(body);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let base64 = base64::engine::general_purpose::STANDARD.encode(hash);
    (format!("sha256:{hex}"), format!("sha-256=:{base64}:"))
}

#[test]
fn the_digest_is_checked_and_handed_on() {
    let host = Host::start(&config());
    let body = format!("quakes@1.0.0\n{}", "x".repeat(700_000));
    let (own, rfc) = digest(body.as_bytes());
    let headers = [
        format!("content-digest: {rfc}"),
        format!("wasmill-digest: {own}"),
        "wasmill-signature: key:AAAA".to_owned(),
    ];
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    let uploaded = host.ask("PUT /v1/plugins", &headers, &body);
    assert_eq!(uploaded.status, 201, "{uploaded:?}");
    assert_eq!(uploaded.value()["digest"], own);
    assert_eq!(host.fake.stored(), [(own, body.len() as u64)]);
    let (other, other_rfc) = digest(b"something else");
    for header in [
        format!("wasmill-digest: {other}"),
        format!("content-digest: {other_rfc}"),
    ] {
        host.ask("PUT /v1/plugins", &[&header], "quakes@2.0.0\n")
            .is(422, "digest");
    }
    host.ask(
        "PUT /v1/plugins",
        &["wasmill-digest: sha256:12"],
        "quakes@2.0.0\n",
    )
    .is(422, "digest");
    host.ask(
        "PUT /v1/plugins",
        &["content-type: text/html"],
        "quakes@2.0.0\n",
    )
    .is(415, "media-type");
    let plugin = host.upload("no component").is(422, "plugin");
    assert!(plugin["hint"].as_str().unwrap().contains("plugin build"));
    host.upload("").is(422, "plugin");
    assert_eq!(host.fake.stored().len(), 1);
    assert_eq!(
        std::fs::read_dir(host.folder()).unwrap().count(),
        0,
        "uploads were left"
    );
}

#[test]
fn a_truncated_upload_leaves_nothing() {
    let host = Host::start(&config());
    let mut stream = host.connect();
    let start = "PUT /v1/plugins HTTP/1.1\r\nhost: localhost\r\ncontent-length: 500000\r\n\r\nquakes@1.0.0\n";
    stream.write_all(start.as_bytes()).unwrap();
    stream.write_all(&vec![b'x'; 300_000]).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let answer = Answer::read(&mut stream);
    assert!([0, 400].contains(&answer.status), "{answer:?}");
    let began = Instant::now();
    while std::fs::read_dir(host.folder()).unwrap().count() > 0 {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "the part that came was kept"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(host.fake.stored().is_empty());
}

#[test]
fn a_gigabyte_is_cut_early_and_takes_no_memory() {
    let host = Host::start(&config());
    let said = "PUT /v1/plugins HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1073741824\r\n\r\n";
    host.raw(said.as_bytes()).is(413, "too-large");
    let before = resident();
    let mut stream = host.connect();
    let unsaid =
        "PUT /v1/plugins HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(unsaid.as_bytes()).unwrap();
    let mut reader = stream.try_clone().unwrap();
    let read = std::thread::spawn(move || Answer::read(&mut reader));
    let zeros = [&b"10000\r\n"[..], &[0; 1 << 16], b"\r\n"].concat();
    let mut sent = 0_usize;
    let mut most = before;
    while sent < 1 << 30 && stream.write_all(&zeros).is_ok() {
        sent += 1 << 16;
        most = most.max(resident());
    }
    assert!(sent < 64 << 20, "{sent} bytes were taken");
    read.join().unwrap().is(413, "too-large");
    // Other tests of this process take some, too.
    assert!(
        most.saturating_sub(before) < 64 << 20,
        "{before} grew to {most}"
    );
    assert_eq!(std::fs::read_dir(host.folder()).unwrap().count(), 0);
}

/// Memory of this process, bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn many_uploads_at_once_are_all_stored() {
    let limits = HttpLimits {
        stall: Duration::from_secs(5),
        ..config().limits
    };
    let host = Host::start(&HttpConfig { limits, ..config() });
    std::thread::scope(|scope| {
        for n in 0..16 {
            let host = &host;
            scope.spawn(move || {
                let body = format!("p{n}@1.0.0\nslow\n{}", "x".repeat(200_000));
                assert_eq!(host.upload(&body).status, 201);
            });
        }
    });
    assert_eq!(host.fake.stored().len(), 16);
    assert_eq!(std::fs::read_dir(host.folder()).unwrap().count(), 0);
}
