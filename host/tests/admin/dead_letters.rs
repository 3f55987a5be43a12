//! Dead letters over the API: what is found, and every question that means nothing.

use crate::client::{Host, config};

const LETTERS: &str = "/v1/pipelines/quakes/dead-letters";

fn host() -> Host {
    let host = Host::start(&config());
    host.upload("quakes@1.0.0\n");
    host.json(
        "PUT /v1/pipelines/quakes/deployment",
        r#"{"plugin":"quakes@1.0.0"}"#,
    );
    host
}

#[test]
fn letters_are_listed_shown_retried_and_dropped() {
    let host = host();
    let get = |path: &str| host.ask(&format!("GET {path}"), &[], "");
    let page = get(&format!("{LETTERS}?code=malformed&from=7&to=8&limit=1")).value();
    assert_eq!(page["letters"][0]["offset"], 7, "{page}");
    assert_eq!(page["next"], "0:8:0");
    assert!(page["letters"][0].get("record").is_none(), "{page}");
    let one = get(&format!("{LETTERS}/0/7")).value();
    assert_eq!(one["record"]["value"], "bm90IGpzb24=");
    get(&format!("{LETTERS}/0/8")).is(404, "not-found");
    get(&format!("{LETTERS}/0/7?index=1")).is(404, "not-found");

    let retried = host.json(
        &format!("POST {LETTERS}/retry"),
        r#"{"letters":{"partition":0},"plugin":"quakes@1.0.1"}"#,
    );
    assert_eq!(retried.value()["results"][0]["outcome"], "emitted");
    assert_eq!(retried.value()["plugin"], "quakes@1.0.1");
    let counted = host.json(
        &format!("POST {LETTERS}/drop"),
        r#"{"letters":{},"dry_run":true}"#,
    );
    assert_eq!(counted.value()["dropped"], 1);
    let page = get(&format!("{LETTERS}?limit=1&count=true")).value();
    assert_eq!(page["left"], 0, "{page}");
    host.json(&format!("POST {LETTERS}/drop"), r#"{"letters":{}}"#);
    let audit = get("/v1/audit?most=2").value();
    assert_eq!(audit[0]["action"], "drop dead letters");
    assert_eq!(
        audit[1]["action"], "retry dead letters",
        "a dry run is no change"
    );
}

#[test]
fn questions_that_mean_nothing_are_refused() {
    let host = host();
    for query in [
        "partition=-1",
        "partition=2147483648",
        "partition=",
        "from=x",
        "from=9223372036854775808",
        "index=-1",
        "class=Data",
        "code=%00",
        "code=",
        "digest=sha256:0",
        "since=yesterday",
        "until=2026-13-01T00:00:00Z",
        "limit=0",
        "limit=1001",
        "count=yes",
        "cursor=1",
        "cursor=1:2:-3",
        "plugin=%00",
        "plugin=quakes",
        "plugin=quakes@1%00",
        "topic=a",
        "limit=1&limit=2",
    ] {
        host.ask(&format!("GET {LETTERS}?{query}"), &[], "")
            .is(400, "malformed");
    }
    let ask = |path: &str| host.ask(&format!("GET {path}"), &[], "").value();
    let told = ask(&format!("{LETTERS}?partition=x"));
    assert_eq!(
        told["detail"],
        "the query: partition: invalid digit found in string"
    );
    let hint = told["hint"].as_str().unwrap();
    assert!(
        hint.starts_with("its parameters are partition, from, to, "),
        "{told}"
    );
    assert!(hint.ends_with("limit, cursor, count"), "{told}");
    assert_eq!(
        ask(&format!("{LETTERS}/0/7?offset=7"))["hint"],
        "its parameters are index"
    );
    assert_eq!(ask("/v1/audit?least=1")["hint"], "its parameters are most");
    for right in [
        "cursor=9999999999:9999999999999999999:9999999999",
        "from=9223372036854775807",
        "from=9&to=3",
        "since=0001-01-01T00:00:00Z&until=9999-12-31T23:59:59.999Z",
        "",
    ] {
        let answer = host.ask(&format!("GET {LETTERS}?{right}"), &[], "");
        assert_eq!(answer.status, 200, "{right}: {answer:?}");
    }
    for path in [
        "x/7",
        "0/x",
        "-1/7",
        "0/-7",
        "0/9223372036854775808",
        "0/7/1",
        "%ff/7",
    ] {
        host.ask(&format!("GET {LETTERS}/{path}"), &[], "")
            .is(404, "not-found");
    }
    for query in ["index=-1", "index=x", "offset=7"] {
        host.ask(&format!("GET {LETTERS}/0/7?{query}"), &[], "")
            .is(400, "malformed");
    }
    for what in ["retry", "drop"] {
        let path = format!("POST {LETTERS}/{what}");
        for wrong in [
            "[]",
            "{}",
            r#"{"letters":null}"#,
            r#"{"letters":[]}"#,
            r#"{"letters":{"partition":-1}}"#,
            r#"{"letters":{"partition":"0"}}"#,
            r#"{"letters":{"limit":0}}"#,
            r#"{"letters":{"limit":1001}}"#,
            r#"{"letters":{"count":1}}"#,
            r#"{"letters":{"code":"A"}}"#,
            r#"{"letters":{"cursor":"x"}}"#,
            r#"{"letters":{"topic":"x"}}"#,
            r#"{"letters":{},"more":1}"#,
        ] {
            host.json(&path, wrong).is(422, "body");
        }
        host.ask(&path, &[], "{}").is(415, "media-type");
        let absent = format!("POST /v1/pipelines/absent/dead-letters/{what}");
        host.json(&absent, r#"{"letters":{}}"#).is(404, "not-found");
    }
    let through = format!("POST {LETTERS}/retry");
    host.json(&through, r#"{"letters":{},"plugin":"quakes"}"#)
        .is(422, "body");
    host.json(&through, r#"{"letters":{},"force":"yes"}"#)
        .is(422, "body");
    host.ask("GET /v1/pipelines/absent/dead-letters", &[], "")
        .is(404, "not-found");
}
