//! What must not happen: a token in the open, a plan that is not the one that was looked at, a file that does
//! not go out as it is. And what goes over the wire.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::json;

use super::answers as a;
use super::scripted::Scripted;
use super::{code, command, err, out, wasmill};

#[test]
fn a_token_goes_to_this_machine_and_never_to_another_one_in_the_open() {
    let host = Scripted::new(&[("GET /v1/plugins", 200, json!([]))]);
    let run = |host: &str, arguments: &[&str]| {
        let mut command = command(host, arguments);
        command.env("WASMILL_TOKEN", "wm_secret").output().unwrap()
    };
    let sent = run(&host.url, &["list"]);
    assert_eq!(code(&sent), 0, "{}", err(&sent));
    assert_eq!(
        host.asked()[0].header("authorization"),
        Some("Bearer wm_secret")
    );

    let refused = run("http://192.0.2.1:8650", &["list"]);
    assert_eq!(code(&refused), 5);
    assert!(
        err(&refused).contains("--insecure-token"),
        "{}",
        err(&refused)
    );
    assert!(!err(&refused).contains("wm_secret"));
    // Without a token nothing is at stake, and the wrong address is what fails.
    assert_ne!(code(&wasmill("http://wasmill.invalid:1", &["list"])), 5);
    let usage = run("wasmill.example", &["list"]);
    assert_eq!(code(&usage), 2, "{}", err(&usage));
    // A token is never an argument.
    let help = out(&wasmill(&host.url, &["list", "--help"]));
    assert!(
        help.contains("--token-file") && !help.contains("--token "),
        "{help}"
    );
    assert!(!help.contains("wm_secret"));
}

#[test]
fn without_a_host_the_error_says_how_to_name_one() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let output = wasmill(&address, &["status", "--json"]);
    assert_eq!(code(&output), 1);
    let document: serde_json::Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!(document["error"]["blame"], "outside");
    assert!(
        document["error"]["hint"]
            .as_str()
            .unwrap()
            .contains("--host")
    );
}

#[test]
fn a_deploy_applies_the_plan_that_was_shown() {
    let dir = tempfile::tempdir().unwrap();
    let overlay = dir.path().join("overlay.toml");
    std::fs::write(&overlay, "grants = [\"headers\"]\n").unwrap();
    let host = Scripted::new(&[
        ("POST /v1/pipelines/eu/plan", 200, a::plan()),
        ("PUT /v1/pipelines/eu/deployment", 200, a::deployed(true)),
    ]);
    let overlay = overlay.display().to_string();
    let arguments = [
        "deploy",
        "quakes@1.2.0",
        "--pipeline",
        "eu",
        "--overlay",
        &overlay,
        "--canary",
        "2",
        "--canary-for",
        "5m",
        "--canary-min-records",
        "10",
        "--tolerance",
        "rows_share=0.2",
        "--tolerance",
        "latency_times=5",
        "--note",
        "why",
        "--no-wait",
        "--yes",
    ];
    let output = wasmill(&host.url, &arguments);
    assert_eq!(code(&output), 0, "{}", err(&output));
    let [planned, applied] = &host.asked()[..] else {
        panic!("{:?}", host.asked());
    };
    let mut wanted = json!({
        "plugin": "quakes@1.2.0", "overlay": "grants = [\"headers\"]\n", "shadow": false, "note": "why",
        "canary": {"partitions": 2, "for_seconds": 300, "min_records": 10, "then": "promote",
            "tolerance": {"rows_share": 0.2, "latency_times": 5.0}},
    });
    assert_eq!(planned.json(), wanted);
    wanted["plan"] = "plan-1".into();
    wanted["seen"] = 3.into();
    assert_eq!(applied.json(), wanted);
}

#[test]
fn what_cannot_be_deployed_is_never_sent() {
    let dir = tempfile::tempdir().unwrap();
    let broken = dir.path().join("broken.toml");
    std::fs::write(&broken, "grants = [").unwrap();
    let broken = broken.display().to_string();
    let host = Scripted::new(&[("POST /v1/pipelines/quakes/plan", 200, {
        let mut plan = a::plan();
        plan["problems"] = json!([{"class": "config", "what": "w", "detail": "d"}]);
        plan
    })]);
    assert_eq!(
        code(&wasmill(&host.url, &["deploy", "quakes@1.2.0", "--yes"])),
        3
    );
    assert_eq!(
        code(&wasmill(
            &host.url,
            &["deploy", "quakes@1.2.0", "--overlay", &broken]
        )),
        3
    );
    let both = ["deploy", "quakes@1.2.0", "--canary", "1", "--shadow"];
    assert_eq!(code(&wasmill(&host.url, &both)), 2);
    // A canary's words without a canary, and a key there is not.
    for wrong in [
        &["--canary-for", "5m"][..],
        &["--tolerance", "cpu_times=2"],
        &["--canary", "1", "--tolerance", "row_share=2"],
    ] {
        let arguments = [&["deploy", "quakes@1.2.0", "--yes"], wrong].concat();
        assert_eq!(code(&wasmill(&host.url, &arguments)), 2, "{wrong:?}");
    }
    assert_eq!(host.asked().len(), 1, "only the first plan was asked for");
}

#[test]
fn an_upload_sends_the_bytes_their_digest_and_the_signature_beside() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("quakes.wasm");
    let bytes: Vec<u8> = (0..300_000_u32).map(|at| at.to_le_bytes()[0]).collect();
    std::fs::write(&file, &bytes).unwrap();
    std::fs::write(dir.path().join("quakes.wasm.sig"), "ops:QUJD\n").unwrap();
    let host = Scripted::new(&[("PUT /v1/plugins", 201, a::uploaded(true))]);
    let output = wasmill(&host.url, &["upload", &file.display().to_string()]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    let asked = &host.asked()[0];
    assert!(asked.body == bytes, "other bytes arrived");
    let digest = wasmill::manifest::digest(&bytes).to_string();
    assert_eq!(asked.header("wasmill-digest"), Some(digest.as_str()));
    assert_eq!(asked.header("wasmill-signature"), Some("ops:QUJD"));
    assert_eq!(asked.header("content-type"), Some("application/wasm"));
    // Piped: nothing but the result on either stream.
    assert_eq!(err(&output), "");
    let missing = wasmill(&host.url, &["upload", "no-such-file.wasm"]);
    assert_eq!(code(&missing), 3);
}

#[test]
fn waiting_ends_when_every_partition_runs_the_release() {
    let host = Scripted::new(&[
        ("POST /v1/pipelines/quakes/promote", 200, a::deployed(true)),
        (
            "GET /v1/pipelines/quakes",
            503,
            a::problem(503, "unavailable", "starting"),
        ),
        ("GET /v1/pipelines/quakes", 200, a::swapping(false)),
        ("GET /v1/pipelines/quakes", 200, a::swapping(true)),
    ]);
    let output = wasmill(&host.url, &["promote", "quakes"]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(
        out(&output).contains("runs on all 2 partitions"),
        "{}",
        out(&output)
    );
    assert_eq!(host.asked().len(), 4);
}

#[test]
fn waiting_for_a_canary_looks_at_its_partitions_only() {
    let host = Scripted::new(&[
        ("POST /v1/pipelines/quakes/plan", 200, a::plan()),
        (
            "PUT /v1/pipelines/quakes/deployment",
            200,
            a::deployed(true),
        ),
        ("GET /v1/pipelines/quakes", 200, a::status()),
        ("GET /v1/pipelines/quakes", 200, a::canary()),
    ]);
    let output = wasmill(
        &host.url,
        &["deploy", "quakes@1.3.0", "--canary", "1", "--yes"],
    );
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(
        out(&output).contains("quakes@1.3.0 runs as a canary on 1 partition after"),
        "{}",
        out(&output)
    );
}

#[test]
fn a_host_that_is_starting_is_told_with_its_reason_and_watched_until_it_is_there() {
    let starting = json!({
        "type": "urn:wasmill:problem:unavailable", "title": "ask the host", "status": 503, "code": "unavailable",
        "detail": "it is starting: waiting for the control log since 12:00:03", "instance": "/v1/pipelines",
        "hint": "ask again when `/ready` answers 200",
    });
    let host = Scripted::new(&[("GET /v1/pipelines", 503, starting.clone())]);
    let output = wasmill(&host.url, &["status"]);
    assert_eq!(code(&output), 1, "{}", err(&output));
    for says in [
        "waiting for the control log since",
        "hint",
        "/ready` answers 200",
    ] {
        assert!(err(&output).contains(says), "{says}: {}", err(&output));
    }
    let host = Scripted::new(&[
        ("GET /v1/pipelines/quakes", 503, starting),
        ("GET /v1/pipelines/quakes", 200, a::status()),
    ]);
    let mut watching = command(&host.url, &["status", "quakes", "--watch"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    let stdout = watching.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut first).unwrap();
    watching.kill().unwrap();
    let said = watching.wait_with_output().unwrap();
    assert!(first.contains("quakes"), "{first:?}: {}", err(&said));
    assert!(err(&said).contains("waiting: "), "{}", err(&said));
}

#[test]
fn a_limit_is_kept_over_pages_and_what_it_leaves_is_counted_once() {
    const RETRY: &str = "POST /v1/pipelines/quakes/dead-letters/retry";
    let page = |offsets: std::ops::Range<i64>, left: Option<u64>| {
        let one = |offset| json!({"partition": 0, "offset": offset, "index": 0, "outcome": "filtered", "rows": 0});
        let next = format!("0:{}:0", offsets.end - 1);
        let results: Vec<_> = offsets.map(one).collect();
        json!({"plugin": "quakes@1.2.0", "release": "5", "results": results, "next": next, "left": left})
    };
    let host = Scripted::new(&[
        (RETRY, 200, page(0..100, None)),
        // It took long: not all that was asked for was begun.
        (RETRY, 200, page(100..140, Some(10))),
        (RETRY, 200, page(140..150, Some(0))),
    ]);
    let arguments = [
        "deadletter",
        "retry",
        "quakes",
        "--all",
        "--limit",
        "150",
        "--json",
    ];
    let retried = wasmill(&host.url, &arguments);
    assert_eq!(code(&retried), 0, "{}", err(&retried));
    let report: serde_json::Value = serde_json::from_str(&out(&retried)).unwrap();
    assert_eq!(report["results"].as_array().unwrap().len(), 150);
    assert_eq!(
        (&report["left"], &report["next"]),
        (&json!(0), &json!("0:149:0"))
    );
    let asked: Vec<_> = host
        .asked()
        .iter()
        .map(|asked| asked.json()["letters"].clone())
        .collect();
    let wanted = [
        json!({"limit": 100}),
        json!({"limit": 50, "cursor": "0:99:0", "count": true}),
        json!({"limit": 10, "cursor": "0:139:0", "count": true}),
    ];
    assert_eq!(asked, wanted);
    for limit in ["0", "-1", "4294967296", "ten"] {
        let refused = wasmill(
            &host.url,
            &["deadletter", "drop", "quakes", "--all", "--limit", limit],
        );
        assert_eq!(code(&refused), 2, "{limit}: {}", err(&refused));
    }
    assert_eq!(host.asked().len(), 3);
}
