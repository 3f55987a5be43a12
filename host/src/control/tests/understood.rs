//! What is understood of a record: garbage, what only a newer host knows, and the form on the wire.

use serde_json::json;

use super::*;

fn ignored(applied: Applied) -> String {
    match applied {
        Applied::Ignored { reason } => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn garbage_is_counted_and_changes_nothing() {
    let mut state = State::default();
    apply(&mut state, &entry(deploy("orders", 1, 1)));
    let before = seen(&state);
    let good = entry(deploy("orders", 2, 2));
    let (key, value) = write(&good);
    let value = value.unwrap();
    let mut records: Vec<(Vec<u8>, Vec<u8>)> = vec![
        (key.clone(), b"not json".to_vec()),
        (key.clone(), value[..value.len() - 1].to_vec()),
        (key.clone(), b"{}".to_vec()),
        (key.clone(), b"\xff\xfe".to_vec()),
        (key.clone(), vec![b' '; MAX_ENTRY + 1]),
        (b"deploy/orders/3/x".to_vec(), value.clone()),
        (b"".to_vec(), value.clone()),
        (b"\xff".to_vec(), value),
        (
            format!("blob/{}/head", digest(b"a")).into_bytes(),
            b"[".to_vec(),
        ),
        (
            format!("blob/{}/head", digest(b"a")).into_bytes(),
            br#"{"format":1,"size":0,"chunks":0}"#.to_vec(),
        ),
        (
            format!("blob/{}/head", digest(b"a")).into_bytes(),
            br#"{"format":1,"size":9,"chunks":2}"#.to_vec(),
        ),
        (
            b"blob/sha256:../../x/head".to_vec(),
            br#"{"format":1,"size":9,"chunks":1}"#.to_vec(),
        ),
        (
            format!("blob/{}/512", digest(b"a")).into_bytes(),
            b"x".to_vec(),
        ),
        (
            format!("blob/{}/0", digest(b"a")).into_bytes(),
            vec![0; CHUNK + 1],
        ),
        (
            format!("blob/{}/-1", digest(b"a")).into_bytes(),
            b"x".to_vec(),
        ),
    ];
    let mut forged = release(2);
    forged.overlay.push('#');
    let deployment = Deployment::of(forged, Origin::Upload);
    let mut canary = Deployment::of(release(2), Origin::Upload);
    let rules = CanaryRules::default();
    canary.canary = Some(Canary {
        release: release(3),
        partitions: vec![1, 1],
        since_ms: 0,
        rules,
    });
    let changes = [
        deploy("Orders", 2, 2),
        deploy("", 2, 2),
        deploy("-orders", 2, 2),
        deploy("orders", 0, 2),
        Change::Deploy {
            pipeline: "orders".to_owned(),
            revision: 2,
            deployment,
        },
        Change::Deploy {
            pipeline: "orders".to_owned(),
            revision: 2,
            deployment: canary,
        },
        version("clean", "1", b"a"),
        version("cl/ean", "1.0.0", b"a"),
        Change::Segment {
            pipeline: "orders".to_owned(),
            partition: -1,
            at: 0,
            release: release(1).id,
        },
        Change::Segment {
            pipeline: "orders".to_owned(),
            partition: 0,
            at: 0,
            release: "x".to_owned(),
        },
        Change::Stat {
            pipeline: "orders".to_owned(),
            host: "a/b".to_owned(),
            body: json!(1),
        },
    ];
    records.extend(
        changes
            .map(|change| write(&entry(change)))
            .map(|(key, value)| (key, value.unwrap())),
    );
    let count = records.len() as u64;
    for (key, value) in records {
        let next = state.next();
        ignored(state.apply(next, &key, Some(&value)));
    }
    ignored(state.apply(state.next(), b"nothing/known", None));
    assert_eq!(seen(&state), before);
    assert_eq!(state.garbage().records, count + 1);
    assert!(
        state
            .garbage()
            .last
            .as_ref()
            .unwrap()
            .1
            .contains("no meaning")
    );
    assert_eq!(
        apply(&mut state, &good),
        Applied::Accepted,
        "and the next good one counts"
    );
}

#[test]
fn what_only_a_newer_host_understands_freezes_its_subject_alone() {
    let id = Uuid::new_v4();
    let newer = |change: serde_json::Value, format: u32| {
        let value = json!({"format": format, "id": id.to_string(), "at": 1, "by": "b", "host": "h", "change": change, "more": []});
        serde_json::to_vec(&value).unwrap()
    };
    let known = serde_json::to_value(deploy("orders", 2, 2)).unwrap();
    let mut action = known.clone();
    action["deployment"]["action"] = json!("duplicate");
    let cases = [
        newer(json!({"kind": "deploy", "anything": {}}), 2),
        newer(known, 2),
        newer(json!({"kind": "novelty"}), 1),
        newer(action, 1),
    ];
    for value in cases {
        let mut state = State::default();
        let first = entry(deploy("orders", 1, 1));
        apply(&mut state, &first);
        let before = seen(&state);
        let key = format!("deploy/orders/2/{id}");
        assert_eq!(state.apply(1, key.as_bytes(), Some(&value)), Applied::Newer);
        // Whether another lost to it cannot be judged, and what it makes old may be all that is known here.
        assert_eq!(
            apply(&mut state, &entry(deploy("orders", 2, 3))),
            Applied::Newer
        );
        assert_eq!(state.apply(3, first.key().as_bytes(), None), Applied::Newer);
        assert_eq!(seen(&state), before);
        let newer = state.newer()["pipeline \"orders\""];
        assert_eq!((newer.entries, newer.first, newer.frozen), (3, 1, true));
        assert_eq!(
            apply(&mut state, &entry(deploy("returns", 1, 1))),
            Applied::Accepted
        );
        assert_eq!(state.garbage().records, 0);
        // The one after it says all there is to say: thawed, and what lost to it freezes nothing any more.
        let third = entry(deploy("orders", 3, 3));
        assert_eq!(apply(&mut state, &third), Applied::Accepted);
        assert!(!state.newer()["pipeline \"orders\""].frozen);
        let late = format!("deploy/orders/3/{id}");
        assert_eq!(
            state.apply(6, late.as_bytes(), Some(&value)),
            Applied::Newer
        );
        assert_eq!(
            apply(&mut state, &entry(deploy("orders", 4, 4))),
            Applied::Accepted
        );
        let revisions = state.history("orders").iter().map(|known| known.revision);
        assert_eq!(revisions.collect::<Vec<_>>(), [1, 3, 4]);
    }
    // Of a kind that nobody builds on only the record itself is let pass.
    let mut state = State::default();
    let stat = newer(json!({"kind": "stat"}), 7);
    assert_eq!(
        state.apply(0, b"stat/orders/h2", Some(&stat)),
        Applied::Newer
    );
    assert_eq!(
        state.apply(1, b"novelty/x", Some(&newer(json!({"kind": "x"}), 1))),
        Applied::Newer
    );
    assert!(state.newer().values().all(|newer| !newer.frozen));
    assert_eq!(
        apply(&mut state, &entry(deploy("orders", 1, 1))),
        Applied::Accepted
    );
    let head = br#"{"format":2,"size":9,"chunks":1,"parts":[]}"#;
    let key = format!("blob/{}/head", digest(b"a"));
    assert_eq!(state.apply(3, key.as_bytes(), Some(head)), Applied::Newer);
}

#[test]
fn unknown_fields_are_let_pass() {
    let mut value = serde_json::to_value(entry(deploy("orders", 1, 1))).unwrap();
    value["trace"] = json!("x");
    value["change"]["deployment"]["release"]["extra"] = json!({"a": 1});
    let entry: Entry = serde_json::from_value(value.clone()).unwrap();
    let mut state = State::default();
    let value = serde_json::to_vec(&value).unwrap();
    assert_eq!(
        state.apply(0, entry.key().as_bytes(), Some(&value)),
        Applied::Accepted
    );
}

#[test]
fn the_wire_form_is_what_it_was() {
    let id: Uuid = "00000000-0000-4000-8000-000000000001".parse().unwrap();
    let release = Release::new(
        "clean@1.0.0",
        format!("sha256:{}", "ab".repeat(32)),
        "grants = []\n",
    );
    let mut deployment = Deployment::of(
        release,
        Origin::Config {
            hash: "h".to_owned(),
        },
    );
    deployment.action = Action::Canary;
    let rules = CanaryRules {
        max_rows_difference: None,
        ..CanaryRules::default()
    };
    let trial = Release::new("clean@1.1.0", format!("sha256:{}", "cd".repeat(32)), "");
    deployment.canary = Some(Canary {
        release: trial,
        partitions: vec![3],
        since_ms: 5,
        rules,
    });
    let change = Change::Deploy {
        pipeline: "orders".to_owned(),
        revision: 7,
        deployment,
    };
    let entry = Entry {
        format: 1,
        id,
        at: 9,
        by: "config".to_owned(),
        host: "h1".to_owned(),
        change,
    };
    assert_eq!(entry.key(), format!("deploy/orders/7/{id}"));
    let expected = json!({
        "format": 1, "id": id.to_string(), "at": 9, "by": "config", "host": "h1",
        "change": {
            "kind": "deploy", "pipeline": "orders", "revision": 7,
            "deployment": {
                "action": "canary",
                "release": {
                    "id": "29420afbc15f0189", "plugin": "clean@1.0.0",
                    "digest": format!("sha256:{}", "ab".repeat(32)), "overlay": "grants = []\n",
                },
                "canary": {
                    "release": {
                        "id": "d4c147453eafcee7", "plugin": "clean@1.1.0",
                        "digest": format!("sha256:{}", "cd".repeat(32)), "overlay": "",
                    },
                    "partitions": [3], "since_ms": 5,
                    "rules": {
                        "for_ms": 60_000, "min_records": 1000, "min_failures": 5, "max_dead_ratio": 0.01,
                        "max_error_ratio": 0.001, "max_rows_difference": null, "max_cpu_factor": 3.0,
                        "max_latency_factor": 3.0, "then": "promote",
                    },
                },
                "paused": false, "removed": false, "origin": {"kind": "config", "hash": "h"},
            },
        },
    });
    assert_eq!(serde_json::to_value(&entry).unwrap(), expected);
    assert_eq!(serde_json::from_value::<Entry>(expected).unwrap(), entry);
}
