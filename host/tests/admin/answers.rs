//! What the API answers to the right and to the wrong question.

use crate::client::{Host, config};

#[test]
fn a_version_is_uploaded_deployed_paused_and_rolled_back() {
    let host = Host::start(&config());
    let uploaded = host.upload("quakes@1.0.0\n");
    assert_eq!(uploaded.status, 201);
    assert!(
        uploaded.head.contains("location: /v1/plugins/quakes/1.0.0"),
        "{uploaded:?}"
    );
    assert_eq!(uploaded.value()["created"], true);
    let again = host.upload("quakes@1.0.0\n");
    assert_eq!(
        (again.status, &again.value()["created"]),
        (200, &false.into())
    );
    host.upload("quakes@1.0.0\nother bytes").is(409, "conflict");
    let version = host.ask("GET /v1/plugins/quakes/1.0.0", &[], "");
    assert_eq!(version.value()["by"], "local");
    host.ask("GET /v1/plugins/quakes/1.0.1", &[], "")
        .is(404, "not-found");

    let wanted = r#"{"plugin":"quakes@1.0.0","overlay":"grants = []","note":"first"}"#;
    let plan = host.json("POST /v1/pipelines/quakes/plan", wanted).value();
    assert_eq!(plan["seen"], 0);
    let by_plan = format!(
        r#"{{"plugin":"quakes@1.0.0","overlay":"grants = []","plan":{},"seen":0}}"#,
        plan["hash"]
    );
    let deployed = host.json("PUT /v1/pipelines/quakes/deployment", &by_plan);
    assert_eq!(deployed.value()["revision"], 1, "{deployed:?}");
    // A second deployer that looked at the same revision.
    host.json("PUT /v1/pipelines/quakes/deployment", &by_plan)
        .is(409, "conflict");
    let other_plan = r#"{"plugin":"quakes@1.0.0","plan":"another"}"#;
    host.json("PUT /v1/pipelines/quakes/deployment", other_plan)
        .is(409, "conflict");

    for (revision, action) in [(2, "pause"), (3, "resume"), (4, "promote"), (5, "rollback")] {
        let answer = host.ask(&format!("POST /v1/pipelines/quakes/{action}"), &[], "");
        assert_eq!(answer.value()["revision"], revision, "{answer:?}");
    }
    host.json("POST /v1/pipelines/quakes/pause", r#"{"seen":1}"#)
        .is(409, "conflict");
    assert_eq!(
        host.ask("DELETE /v1/pipelines/quakes", &[], "").value()["revision"],
        6
    );
    let history = host
        .ask("GET /v1/pipelines/quakes/history", &[], "")
        .value();
    assert_eq!(history["revisions"][0]["action"], "remove");
    assert_eq!(history["revisions"].as_array().unwrap().len(), 6);
    let audit = host.ask("GET /v1/audit?most=2", &[], "").value();
    assert_eq!(audit.as_array().unwrap().len(), 2);
    assert_eq!(
        host.ask("GET /v1/pipelines", &[], "").value()[0]["name"],
        "quakes"
    );
    assert_eq!(
        host.ask("GET /v1/pipelines/quakes", &[], "").value()["lag"]["records"],
        7
    );
    assert_eq!(host.ask("GET /v1/host", &[], "").value()["id"], "fake");
    host.server.stop().unwrap();
}

#[test]
fn bodies_that_are_wrong_are_told_apart() {
    let host = Host::start(&config());
    let path = "PUT /v1/pipelines/p/deployment";
    host.ask(path, &[], r#"{"plugin":"a@1.0.0"}"#)
        .is(415, "media-type");
    host.ask(path, &["content-type: text/plain"], "{}")
        .is(415, "media-type");
    host.json(path, "").is(400, "not-json");
    host.json(path, "{").is(400, "not-json");
    host.json(path, "\u{fe}\u{0}").is(400, "not-json");
    host.json(path, &format!("\"{}\"", "x".repeat(70_000)))
        .is(413, "too-large");
    for wrong in [
        "[]",
        "null",
        r#"["a@1.0.0"]"#,
        &"[".repeat(60_000),
        "{}",
        r#"{"plugin":7}"#,
        r#"{"plugin":"a"}"#,
        r#"{"plugin":"A@1.0.0"}"#,
        r#"{"plugin":"a@1"}"#,
        r#"{"plugin":"a@1.0.0","plugin":"b@1.0.0"}"#,
        r#"{"plugin":"a@1.0.0","plan_hash":"x"}"#,
        r#"{"plugin":"a@1.0.0","seen":-1}"#,
        r#"{"plugin":"a@1.0.0","seen":9223372036854775808}"#,
        r#"{"plugin":"a@1.0.0","canary":{"partitions":2147483648}}"#,
        r#"{"plugin":"a@1.0.0","canary":[1]}"#,
        r#"{"plugin":"a@1.0.0","canary":{"partitions":1,"tolerance":[null,null]}}"#,
        r#"{"plugin":"a@1.0.0","canary":{"partitions":0}}"#,
        r#"{"plugin":"a@1.0.0","canary":{"partitions":1,"for_seconds":0}}"#,
        r#"{"plugin":"a@1.0.0","canary":{"partitions":1},"shadow":true}"#,
        r#"{"plugin":"a@1.0.0","canary":{"partitions":1,"tolerance":{"dead_share":2}}}"#,
        r#"{"plugin":"a@1.0.0","canary":{"partitions":1,"then":"wait"}}"#,
    ] {
        host.json(path, wrong).is(422, "body");
    }
    host.json("POST /v1/pipelines/p/pause", "[]")
        .is(422, "body");
    host.json("POST /v1/pipelines/p/pause", "null")
        .is(404, "not-found");
    let long = format!(r#"{{"note":"{}"}}"#, "x".repeat(1001));
    host.json("POST /v1/pipelines/p/pause", &long)
        .is(422, "body");
    host.json(path, r#"{"plugin":"absent@1.0.0"}"#)
        .is(404, "not-found");
    host.upload("quakes@1.0.0\n");
    let overlay = r#"{"plugin":"quakes@1.0.0","overlay":"grants = ["}"#;
    host.json(path, overlay).is(422, "config");
    host.ask("GET /v1/audit?most=0", &[], "")
        .is(400, "malformed");
    host.ask("GET /v1/audit?most=x", &[], "")
        .is(400, "malformed");
    host.ask("GET /v1/audit?least=1", &[], "")
        .is(400, "malformed");
}

#[test]
fn paths_and_methods_that_are_not_there() {
    let host = Host::start(&config());
    let nothing = host.ask("GET /v1/nothing", &[], "").is(404, "not-found");
    assert_eq!(nothing["instance"], "/v1/nothing");
    for path in [
        "/",
        "//",
        "/v1",
        "/v1/pipelines/",
        "/v1/pipelines/%ff",
        "/v1/pipelines/A",
        "/v1/pipelines/a%2Fb",
        "/v1/plugins/%ff/1",
        "/v1/pipelines/absent",
        "/%00",
        "/v1/pipelines/../host",
    ] {
        host.ask(&format!("GET {path}"), &[], "")
            .is(404, "not-found");
    }
    for (request, allow) in [
        ("POST /v1/plugins", "get,head,put"),
        ("DELETE /v1/pipelines/a/pause", "post"),
        ("TRACE /live", "get,head"),
        ("JUNK /v1/host", "get,head"),
        ("OPTIONS /v1/pipelines/a", "get,head,delete"),
    ] {
        let answer = host.ask(request, &[], "");
        answer.is(405, "method");
        assert!(
            answer
                .head
                .lines()
                .any(|line| line == format!("allow: {allow}")),
            "{answer:?}"
        );
    }
    assert_eq!(host.ask("HEAD /v1/host", &[], "").status, 200);
    for odd in [
        "OPTIONS *",
        "CONNECT localhost:1",
        "GET http://localhost/v1/nothing",
    ] {
        let answer = host.ask(odd, &[], "");
        assert!((400..500).contains(&answer.status), "{odd}: {answer:?}");
    }
}

#[test]
fn probes_metrics_and_a_panic() {
    let host = Host::start(&config());
    assert_eq!(host.ask("GET /live", &[], "").body, "live\n");
    assert_eq!(host.ask("GET /ready", &[], "").status, 200);
    host.fake
        .reasons
        .lock()
        .push("kafka.main is not reached".to_owned());
    let ready = host.ask("GET /ready", &[], "");
    assert_eq!(
        (ready.status, &ready.value()["reasons"][0]),
        (503, &"kafka.main is not reached".into())
    );
    host.upload("quakes@1.0.0\n");
    host.json(
        "PUT /v1/pipelines/quakes/deployment",
        r#"{"plugin":"quakes@1.0.0"}"#,
    );
    let metrics = host.ask("GET /metrics", &[], "").body;
    for line in [
        "wasmill_host_info{id=\"fake\",version=\"0\"} 1",
        "wasmill_records_received_total{pipeline=\"quakes\"} 10",
        "wasmill_dead_letters_total{pipeline=\"quakes\",code=\"row-refused\"} 2",
        "wasmill_dead_letters_total{pipeline=\"quakes\",code=\"kills-host\"} 0",
        "wasmill_errors_total{pipeline=\"quakes\",class=\"data\"} 2",
        "wasmill_errors_total{pipeline=\"quakes\",class=\"outside\"} 0",
        "wasmill_lag_records{pipeline=\"quakes\"} 7",
        "wasmill_plugin_memory_bytes{pipeline=\"quakes\"} 1048576",
        "wasmill_host_memory_bytes{} 0",
        "wasmill_retries_total{pipeline=\"quakes\"} 1",
        "wasmill_waiting_seconds{pipeline=\"quakes\",server=\"postgres.main\"} 12.5",
        "wasmill_waiting_seconds{pipeline=\"quakes\",server=\"kafka.main\"} 0",
        "wasmill_flight_latency_seconds{pipeline=\"quakes\",quantile=\"0.5\"} 0.002",
        "wasmill_pipeline_state{pipeline=\"quakes\",state=\"running\"} 1",
        "wasmill_pipeline_state{pipeline=\"quakes\",state=\"paused\"} 0",
        "wasmill_partition_lag_records{pipeline=\"quakes\",partition=\"0\"} 7",
        "wasmill_ledger_records{pipeline=\"quakes\",partition=\"0\",outcome=\"emitted\"} 40",
        "wasmill_ledger_retried_records{pipeline=\"quakes\",partition=\"0\"} 3",
        "wasmill_lane_stalled{pipeline=\"quakes\",partition=\"0\"} 0",
        "wasmill_flight_latency_seconds{pipeline=\"quakes\",quantile=\"0.99\"} 0.008",
        "wasmill_guest_seconds_total{pipeline=\"quakes\"} 0.25",
        "wasmill_http_requests_total{route=\"/v1/plugins\",method=\"PUT\",status=\"201\"} 1",
        "# EOF",
    ] {
        assert!(
            metrics.lines().any(|found| found.starts_with(line)),
            "{line}\n{metrics}"
        );
    }
    let bug = host.upload("quakes@2.0.0\npanic").is(500, "bug");
    assert!(
        !bug.to_string().contains("as ordered"),
        "the panic's text is shown: {bug}"
    );
    assert_eq!(host.ask("GET /live", &[], "").status, 200);
}
