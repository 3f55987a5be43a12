//! Which records count: the state machine alone.

use super::*;

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
