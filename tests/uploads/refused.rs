//! Uploads and deployments that have to be refused: with the status that fits, a hint, and nothing changed.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;
use wasmill_tests::records::Made;
use wasmill_tests::site::Plot;
use wasmill_tests::wait::eventually;
use wasmill_tests::{Site, artifact, versioned, versions};

use super::{PIPELINE, SOON, deploy_first, deployed, host, processed, rows_of, send, stage, two};

/// How many versions a host has stored.
fn stored(site: &Site) -> usize {
    let list = site.api.get("/v1/plugins").unwrap().ok();
    list.as_array().unwrap().len()
}

/// Sends raw bytes and returns what comes back until the host closes, or nothing after `patience`.
fn raw(site: &Site, request: &[u8], patience: Duration) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", site.port())).unwrap();
    stream.set_read_timeout(Some(patience)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    while let Ok(read) = stream.read(&mut part) {
        if read == 0 {
            break;
        }
        answer.extend_from_slice(&part[..read]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_version_never_changes_its_bytes() {
    let stage = stage(1).await;
    let (site, mut running) = host(&stage, "immutable");
    let version = versions::version(0);
    let bytes = std::fs::read(&version.file).unwrap();
    let first = site.api.upload(&bytes).unwrap();
    assert_eq!(first.status, 201, "{first:?}");
    let again = site.api.upload(&bytes).unwrap();
    assert_eq!((again.status, &again.body["created"]), (200, &json!(false)));
    // Other bytes that say to be the same version: a custom section more.
    let mut other = bytes.clone();
    other.extend_from_slice(&[0, 4, 3, b'a', b'b', b'c']);
    let answer = site.api.upload(&other).unwrap();
    let said = answer.refused();
    assert_eq!(answer.status, 409, "{said}");
    assert!(
        said.contains("version") && !answer.body["hint"].is_null(),
        "{said}"
    );
    assert_eq!(stored(&site), 1);
    let kept = site.api.get("/v1/plugins").unwrap().ok();
    assert_eq!(kept[0]["digest"], first.body["digest"]);
    running.alive().unwrap();
}

#[tokio::test]
async fn what_is_no_plugin_is_refused_and_leaves_nothing() {
    let stage = stage(1).await;
    let (site, mut running) = host(&stage, "no-plugin");
    let good = std::fs::read(&versions::version(0).file).unwrap();
    let without_manifest = {
        let mut bytes = good.clone();
        let name = b"wasmill:manifest";
        let at = bytes
            .windows(name.len())
            .position(|part| part == name)
            .unwrap();
        bytes[at] = b'W';
        bytes
    };
    let lying = {
        // `describe`'s text in the manifest section: its quotes are escaped there and only there.
        let (from, to) = (br#"\"hash\""#, br#"\"hush\""#);
        let mut bytes = good.clone();
        let mut at = 0;
        while let Some(found) = bytes[at..]
            .windows(from.len())
            .position(|part| part == from)
        {
            at += found;
            bytes[at..at + to.len()].copy_from_slice(to);
        }
        bytes
    };
    let cases: [(&str, &[u8]); 7] = [
        ("nothing", b""),
        ("text", b"just some text"),
        ("a core module", b"\0asm\x01\0\0\0"),
        ("an empty component", b"\0asm\x0d\0\x01\0"),
        ("half a plugin", &good[..good.len() / 2]),
        ("a component without a manifest", &without_manifest),
        ("a manifest that lies", &lying),
    ];
    for (what, bytes) in cases {
        let answer = site.api.upload(bytes).unwrap();
        let said = answer.refused();
        assert!(
            matches!(answer.status, 400 | 422),
            "{what} is the sender's fault: {said}"
        );
        assert!(
            !answer.body["hint"].is_null() || answer.status == 400,
            "{what}: what to do is said: {said}"
        );
    }
    assert_eq!(stored(&site), 0);
    running.alive().unwrap();
    site.api.upload_file(&versions::version(0).file);
}

#[tokio::test]
async fn cut_slow_huge_and_misaddressed_uploads_are_refused() {
    let stage = stage(1).await;
    let plot = Plot {
        http: "limits.stall = \"1s\"\nlimits.upload = \"2MB\"".to_owned(),
        ..Plot::new("cut")
    };
    let site = Site::new(&stage, &plot);
    let (mut running, _) = site.up();
    let bytes = std::fs::read(&versions::version(0).file).unwrap();

    let wrong = format!("sha256:{}", "0".repeat(64));
    let answer = site
        .api
        .send("PUT", "/v1/plugins", &[("wasmill-digest", &wrong)], &bytes)
        .unwrap();
    assert_eq!(answer.status, 422, "{}", answer.refused());

    // Half of it, then the client goes away.
    let head = |length: u64| {
        format!(
            "PUT /v1/plugins HTTP/1.1\r\nhost: 127.0.0.1:{}\r\ncontent-type: application/wasm\r\n\
             content-length: {length}\r\n\r\n",
            site.port()
        )
    };
    let mut half = head(bytes.len() as u64).into_bytes();
    half.extend_from_slice(&bytes[..bytes.len() / 2]);
    let mut stream = TcpStream::connect(("127.0.0.1", site.port())).unwrap();
    stream.write_all(&half).unwrap();
    drop(stream);

    // Half of it, then silence: cut off after the stall time.
    let start = Instant::now();
    raw(&site, &half, Duration::from_secs(20));
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "a silent client is cut off: it took {:?}",
        start.elapsed()
    );
    // The same with headers that never end.
    let start = Instant::now();
    raw(
        &site,
        b"PUT /v1/plugins HTTP/1.1\r\nx",
        Duration::from_secs(20),
    );
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "headers that never end are cut off: it took {:?}",
        start.elapsed()
    );
    // A gigabyte that is announced is refused before it is sent.
    let start = Instant::now();
    let answer = raw(&site, head(1 << 30).as_bytes(), Duration::from_secs(10));
    assert!(
        answer.starts_with("HTTP/1.1 413") && start.elapsed() < Duration::from_secs(5),
        "{answer}"
    );
    // One that is not announced is refused where it passes the limit.
    let chunked = format!(
        "PUT /v1/plugins HTTP/1.1\r\nhost: 127.0.0.1:{}\r\ncontent-type: application/wasm\r\n\
         transfer-encoding: chunked\r\n\r\n",
        site.port()
    );
    let mut stream = TcpStream::connect(("127.0.0.1", site.port())).unwrap();
    stream
        .set_write_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream.write_all(chunked.as_bytes()).unwrap();
    let chunk = [b"10000\r\n", vec![7; 0x10000].as_slice(), b"\r\n"].concat();
    let sent = (0..1 << 14).take_while(|_| stream.write_all(&chunk).is_ok());
    let sent = sent.count() * 0x10000;
    assert!(
        sent < 64 << 20,
        "a gigabyte is not read to its end: {sent} bytes went through"
    );

    running.alive().unwrap();
    assert_eq!(stored(&site), 0);
    let peak = running.usage().peak_memory;
    assert!(peak < 300 << 20, "{} MB", peak >> 20);
    site.api.upload_file(&versions::version(0).file);
    let folder = site.config().parent().unwrap();
    let left: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| {
            !["wasmill.toml", "host.log", "host.out", "cache"]
                .iter()
                .any(|known| name == known)
        })
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn deployments_that_cannot_run_are_refused_and_change_nothing() {
    let stage = stage(2).await;
    let (site, mut running) = host(&stage, "cannot-run");
    let (old, new) = two();
    let version = |answer: wasmill_tests::api::Answer| (answer.status, answer.refused());

    // Before anything is there.
    let (status, said) = version(
        site.api
            .deploy(PIPELINE, "versioned@9.9.9", json!({}))
            .unwrap(),
    );
    assert_eq!(status, 404, "{said}");
    for what in ["promote", "rollback", "pause", "resume", "remove"] {
        let (status, said) = version(site.api.change(PIPELINE, what).unwrap());
        assert_eq!(status, 404, "{what}: {said}");
    }
    deploy_first(&site, &old);
    let records = send(&stage, 2, 500);
    rows_of(&stage, &old).await;
    site.api.upload_file(&new.file);
    let revision = site.api.status(PIPELINE).unwrap()["revision"].clone();

    let overlay = versioned::overlay(PIPELINE);
    let with = |more: &str| json!({ "overlay": format!("{overlay}{more}\n") });
    stage.execute("CREATE TABLE narrow (id text)").await;
    let narrow = overlay.replace(versioned::TABLE, "narrow");
    let cases = [
        (
            "limits past the ceilings",
            "limit",
            with("limits.memory = \"64GB\""),
        ),
        (
            "run time past the ceilings",
            "run_time",
            with("limits.run_time = \"10h\""),
        ),
        (
            "a key nobody knows",
            "limitz",
            with("limitz.memory = \"1MB\""),
        ),
        (
            "a grant nobody knows",
            "everything",
            with("grants = [\"everything\"]"),
        ),
        (
            "a connection nobody knows",
            "nowhere",
            json!({ "overlay": overlay.replace("connection = \"main\"", "connection = \"nowhere\"") }),
        ),
        (
            "a topic that is not there",
            "no-such-topic",
            json!({ "overlay": overlay.replace("topic = \"swapped\"", "topic = \"no-such-topic\"") }),
        ),
        (
            "a table without the columns",
            "ALTER TABLE",
            json!({ "overlay": narrow }),
        ),
        (
            "configuration nobody asked for",
            "colour",
            with("config = { colour = \"red\" }"),
        ),
        (
            "no TOML",
            "overlay",
            json!({ "overlay": "this is = no = toml" }),
        ),
    ];
    for (what, says, more) in cases {
        let answer = site.api.deploy(PIPELINE, &new.plugin(), more).unwrap();
        let said = answer.refused();
        assert!(matches!(answer.status, 400 | 422), "{what}: {said}");
        assert!(said.contains(says), "{what}: {says:?} is named: {said}");
    }
    let unknown = json!({ "plugin": new.plugin(), "canari": {} });
    let path = format!("/v1/pipelines/{PIPELINE}/deployment");
    let answer = site.api.json("PUT", &path, &unknown).unwrap();
    assert!(matches!(answer.status, 400 | 422), "{}", answer.refused());
    let stale = json!({ "seen": 7 });
    let (status, said) = version(site.api.deploy(PIPELINE, &new.plugin(), stale).unwrap());
    assert_eq!(status, 409, "{said}");
    let (status, said) = version(
        site.api
            .deploy(PIPELINE, "versioned@9.9.9", json!({}))
            .unwrap(),
    );
    assert_eq!(status, 404, "{said}");

    assert_eq!(
        site.api.status(PIPELINE).unwrap()["revision"],
        revision,
        "nothing was changed"
    );
    running.alive().unwrap();
    processed(&stage, &records).await;
    deployed(&site, &new, json!({}));
}

#[tokio::test]
async fn limits_may_be_narrowed_but_not_widened_past_the_manifest() {
    let stage = stage(1).await;
    let (site, _running) = host(&stage, "narrow");
    let guest = artifact::plugin("tests/guests/memory-hog");
    site.api.upload_file(&guest);
    stage.feed.topic("records", 1).await;
    stage.execute("CREATE TABLE seen (id text)").await;
    let overlay = |memory: &str| {
        json!({ "overlay": format!(
            "limits.memory = \"{memory}\"\nbind.route.seen = {{ connection = \"main\", table = \"seen\" }}\n"
        ) })
    };
    let deploy = |memory: &str| {
        let answer = site.api.deploy("hog", "memory-hog@0.1.0", overlay(memory));
        answer.unwrap()
    };
    // The manifest says 64 MiB; the host would allow 256 MiB, and nobody 1 TB.
    let asked =
        "is more than the plugin asks for (67108864); a config may tighten a limit, never widen it";
    for (memory, says) in [("128MB", asked), ("65MiB", asked), ("1TB", "memory")] {
        let wide = deploy(memory);
        let said = wide.refused();
        assert_eq!(wide.status, 422, "{memory}: {said}");
        assert!(said.contains(says), "{memory}: {said}");
    }
    let nothing = site.api.get("/v1/pipelines/hog").unwrap();
    assert_eq!(nothing.status, 404, "a refused deployment was kept");
    // As much as it asks for, then less.
    for memory in ["64MiB", "16MB"] {
        deploy(memory).ok();
    }
    eventually(SOON, "the tighter release runs", async || {
        let now = site.api.get("/v1/pipelines/hog")?.ok();
        match now["partitions"][0]["release"] == now["release"] && now["release"].is_string() {
            true => Ok(()),
            false => Err(now.to_string()),
        }
    })
    .await;
    let hog = [
        Made::new("a", "{}"),
        Made::new("b", r#"{"mark":"grow"}"#),
        Made::new("c", "{}"),
    ];
    stage.feed.send("records", &hog);
    eventually(SOON, "the records are processed", async || {
        stage.positioned("hog", 3).await
    })
    .await;
    // 40 MiB more fit into what the manifest asks for, not into 16 MB.
    assert_eq!(stage.dead().await, [("limit".to_owned(), 0, 1)]);
}

#[tokio::test]
async fn a_plugin_that_asks_for_more_than_the_host_has_is_refused_at_upload() {
    let stage = stage(1).await;
    let plot = Plot {
        more: "[ceilings]\nmemory = \"16MiB\"\n".to_owned(),
        ..Plot::new("small")
    };
    let site = Site::new(&stage, &plot);
    let (mut running, _) = site.up();
    let bytes = std::fs::read(&versions::version(0).file).unwrap();
    let answer = site.api.upload(&bytes).unwrap();
    let said = answer.refused();
    assert_eq!(answer.status, 422, "{said}");
    for words in [
        "limits.memory = 64MiB",
        "ceiling is 16MiB",
        "plugin.toml",
        "[ceilings]",
    ] {
        assert!(said.contains(words), "{words:?} is said: {said}");
    }
    assert_eq!(stored(&site), 0);
    running.alive().unwrap();
}
