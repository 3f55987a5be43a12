//! Which records count: the state machine alone.

use serde_json::json;

use super::*;

fn apply(state: &mut State, entry: &Entry) -> Applied {
    let (key, value) = write(entry);
    state.apply(state.next(), &key, value.as_deref())
}

fn rejected(applied: Applied) -> String {
    match applied {
        Applied::Rejected { reason } => reason,
        other => panic!("{other:?}"),
    }
}

fn ignored(applied: Applied) -> String {
    match applied {
        Applied::Ignored { reason } => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_at_a_revision_wins() {
    let mut state = State::default();
    assert_eq!(
        apply(&mut state, &entry(deploy("orders", 1, 1))),
        Applied::Accepted
    );
    assert_eq!(
        apply(&mut state, &entry(deploy("orders", 2, 2))),
        Applied::Accepted
    );
    let late = entry(deploy("orders", 2, 3));
    let reason = rejected(apply(&mut state, &late));
    assert!(
        reason.contains("revision 2") && reason.contains("ann"),
        "{reason}"
    );
    let current = state.pipeline("orders").unwrap();
    assert_eq!(
        (current.revision, &current.deployment.release),
        (2, &release(2))
    );
    assert_eq!(state.history("orders").len(), 2);
    assert_eq!(state.removable(), [late.key()]);
    assert_eq!(state.release(&release(1).id), Some(&release(1)));
    assert_eq!(
        state.release(&release(3).id),
        None,
        "what lost was never deployed"
    );
    assert_eq!(
        state.pipelines().map(|(name, _)| name).collect::<Vec<_>>(),
        ["orders"]
    );
}

#[test]
fn a_record_delivered_twice_neither_counts_nor_loses() {
    let mut state = State::default();
    let first = entry(deploy("orders", 1, 1));
    apply(&mut state, &first);
    apply(&mut state, &entry(deploy("orders", 2, 2)));
    assert_eq!(apply(&mut state, &first), Applied::Repeated);
    assert_eq!(
        state.removable(),
        <[String; 0]>::default(),
        "its key holds the winner"
    );
}

#[test]
fn a_version_never_changes_and_is_signed_later() {
    let mut state = State::default();
    assert_eq!(
        apply(&mut state, &entry(version("clean", "1.0.0", b"a"))),
        Applied::Accepted
    );
    let again = entry(version("clean", "1.0.0", b"a"));
    assert_eq!(apply(&mut state, &again), Applied::Repeated);
    assert_eq!(state.removable(), [again.key()]);
    let reason = rejected(apply(&mut state, &entry(version("clean", "1.0.0", b"b"))));
    assert!(
        reason.contains(&digest(b"a")) && reason.contains(&digest(b"b")),
        "{reason}"
    );
    let mut signed = version("clean", "1.0.0", b"a");
    let Change::Version { signature, .. } = &mut signed else {
        unreachable!()
    };
    let key = Signature {
        key: "release".to_owned(),
        value: "c2ln".to_owned(),
    };
    let unverified = Signature {
        key: String::new(),
        value: "b3RoZXI=".to_owned(),
    };
    *signature = Some(unverified.clone());
    let carried = signed.clone();
    assert_eq!(
        apply(&mut state, &entry(carried.clone())),
        Applied::Accepted
    );
    assert_eq!(
        apply(&mut state, &entry(carried.clone())),
        Applied::Repeated
    );
    assert_eq!(
        state.version("clean", "1.0.0").unwrap().signature,
        Some(unverified)
    );
    let Change::Version { signature, .. } = &mut signed else {
        unreachable!()
    };
    *signature = Some(key.clone());
    assert_eq!(apply(&mut state, &entry(signed.clone())), Applied::Accepted);
    assert_eq!(
        apply(&mut state, &entry(carried)),
        Applied::Repeated,
        "one that was verified stays"
    );
    assert_eq!(apply(&mut state, &entry(signed)), Applied::Repeated);
    let known = state.version("clean", "1.0.0").unwrap();
    assert_eq!(
        (known.signature.as_ref(), known.digest.as_str()),
        (Some(&key), digest(b"a").as_str())
    );
    for (name, number) in [("clean", "1.10.0"), ("clean", "1.9.0"), ("a", "2.0.0")] {
        apply(&mut state, &entry(version(name, number, b"a")));
    }
    let order: Vec<_> = state
        .versions()
        .iter()
        .map(|found| format!("{}@{}", found.name, found.version))
        .collect();
    assert_eq!(
        order,
        ["a@2.0.0", "clean@1.0.0", "clean@1.9.0", "clean@1.10.0"]
    );
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

#[test]
fn age_drops_what_is_said_and_then_what_is_written() {
    let mut paper = Paper::default();
    let total = KEPT_REVISIONS as u64 + 60;
    let mut losers = Vec::new();
    for revision in 1..=total {
        paper.push(write(&entry(deploy("orders", revision, revision))));
        if revision % 20 == 0 {
            let loser = entry(deploy("orders", revision, 10_000 + revision));
            losers.push(loser.key());
            paper.push(write(&loser));
        }
    }
    let live = paper.state();
    let history = live.history("orders");
    assert_eq!((history.len(), history[0].revision), (KEPT_REVISIONS, 61));
    losers.sort();
    let removable = live.removable();
    assert_eq!(removable.len(), losers.len() + 60);
    assert_eq!(removable[..losers.len()], losers, "losers go first");
    assert!(
        removable[losers.len()].starts_with("deploy/orders/1/"),
        "then winners, the oldest first"
    );
    for key in removable {
        paper.push((key.into_bytes(), None));
        // Whatever a cleaner that stops anywhere leaves, a new host ends with the same state.
        let end = paper.0.len();
        assert_eq!(seen(&paper.compacted(end).state()), seen(&live));
    }
    assert_eq!(seen(&paper.state()), seen(&live));
    assert_eq!(paper.state().removable(), <[String; 0]>::default());
    let mut compacted = paper.compacted(paper.0.len()).state();
    assert_eq!(
        apply(&mut compacted, &entry(deploy("orders", total + 1, 1))),
        Applied::Accepted
    );
    rejected(apply(&mut compacted, &entry(deploy("orders", total, 2))));
}

#[test]
fn segments_stats_and_refusals_are_kept_up_to_a_number() {
    let mut paper = Paper::default();
    let segment = |partition: i32, at: i64, number: u64| {
        entry(Change::Segment {
            pipeline: "orders".to_owned(),
            partition,
            at,
            release: release(number).id,
        })
    };
    for number in 0..KEPT_SEGMENTS as u64 + 10 {
        paper.push(write(&segment(
            0,
            i64::try_from(number).unwrap() * 100,
            number,
        )));
    }
    paper.push(write(&segment(1, 7, 1)));
    paper.push(write(&segment(1, 7, 2)));
    paper.push(write(&segment(1, 7, 2)));
    for number in 0..KEPT_DENIALS + 10 {
        let (by, what, why) = (
            "eve".to_owned(),
            format!("deploy {number}"),
            "role read".to_owned(),
        );
        paper.push(write(&entry(Change::Denied { by, what, why })));
    }
    for number in 0..KEPT_DONE + 10 {
        paper.push(write(&entry(Change::Done {
            pipeline: "orders".to_owned(),
            action: "drop dead letters".to_owned(),
            outcome: format!("{number} of them"),
        })));
    }
    for number in 0..5 {
        let (pipeline, host) = ("orders".to_owned(), "h1".to_owned());
        paper.push(write(&entry(Change::Stat {
            pipeline,
            host,
            body: json!({"records": number}),
        })));
    }
    let state = paper.state();
    let segments: Vec<_> = state.segments("orders").collect();
    assert_eq!(segments.len(), KEPT_SEGMENTS + 1);
    assert_eq!((segments[0].0, segments[0].1.at), (0, 1000));
    let (partition, last) = segments[KEPT_SEGMENTS];
    assert_eq!(
        (partition, last.at, &last.release),
        (1, 7, &release(2).id),
        "the latest at an offset counts"
    );
    let denied: Vec<_> = state.denied().map(|denial| denial.what.clone()).collect();
    assert_eq!(
        (denied.len(), denied[0].as_str()),
        (KEPT_DENIALS, "deploy 10")
    );
    let stats: Vec<_> = state
        .stats("orders")
        .map(|(host, stat)| (host, stat.body.clone()))
        .collect();
    assert_eq!(stats, [("h1", json!({"records": 4}))]);
    let done: Vec<_> = state.done().map(|done| done.outcome.as_str()).collect();
    assert_eq!((done.len(), done[0]), (KEPT_DONE, "10 of them"));
    assert_eq!(state.removable().len(), 30);
    assert!(
        state.pipeline("orders").is_none(),
        "numbers alone are no pipeline"
    );
    for key in state.removable() {
        paper.push((key.into_bytes(), None));
    }
    assert_eq!(seen(&paper.state()), seen(&state));
    assert_eq!(seen(&paper.compacted(paper.0.len()).state()), seen(&state));
}

#[test]
fn blobs_needed_are_those_of_running_pipelines() {
    let mut state = State::default();
    let of = |bytes: &[u8]| Release::new("p@1.0.0", digest(bytes), "");
    let mut full = Deployment::of(of(b"main"), Origin::Upload);
    let rules = CanaryRules::default();
    full.canary = Some(Canary {
        release: of(b"canary"),
        partitions: vec![0],
        since_ms: 0,
        rules,
    });
    full.shadow = Some(of(b"shadow"));
    let mut gone = Deployment::of(of(b"gone"), Origin::Upload);
    gone.removed = true;
    for (pipeline, deployment) in [("a", full), ("b", gone)] {
        apply(
            &mut state,
            &entry(Change::Deploy {
                pipeline: pipeline.to_owned(),
                revision: 1,
                deployment,
            }),
        );
    }
    let needed = state.blobs_needed();
    assert_eq!(needed.len(), 3);
    assert!(!needed.contains(digest(b"gone").as_str()));
    assert!(
        state.release(&of(b"gone").id).is_some(),
        "what it wrote is still known by name"
    );
}
