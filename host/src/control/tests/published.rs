//! What config files say of pipelines: when a section is news, and that the log remembers it.

use super::*;

/// A deployment by the config file of a host, with what the host notes of it.
fn publish(state: &mut State, host: &str, number: u64) {
    let revision = config_deploy(state, host, number);
    note(state, host, number, revision);
}

/// The deployment alone: the host died before it noted anything, or was of a time that noted nothing.
fn config_deploy(state: &mut State, host: &str, number: u64) -> u64 {
    let hash = release(number).id;
    let deployment = Deployment::of(release(number), Origin::Config { hash });
    let revision = state.pipeline("orders").map_or(0, |now| now.revision) + 1;
    let change = Change::Deploy {
        pipeline: "orders".to_owned(),
        revision,
        deployment,
    };
    assert_eq!(apply(state, change, host), Applied::Accepted);
    revision
}

fn upload(state: &mut State, number: u64) {
    let revision = state.pipeline("orders").map_or(0, |now| now.revision) + 1;
    apply(state, deploy("orders", revision, number), "h1");
}

fn note(state: &mut State, host: &str, number: u64, revision: u64) {
    apply(state, noted(host, number, revision), host);
}

fn noted(host: &str, number: u64, revision: u64) -> Change {
    Change::Published {
        pipeline: "orders".to_owned(),
        host: host.to_owned(),
        hash: release(number).id,
        revision,
    }
}

fn apply(state: &mut State, change: Change, host: &str) -> Applied {
    let entry = Entry {
        host: host.to_owned(),
        ..entry(change)
    };
    let (key, value) = write(&entry);
    state.apply(state.next(), &key, value.as_deref())
}

fn section(state: &State, host: &str, number: u64) -> Section {
    state.section("orders", host, &release(number).id)
}

#[test]
fn a_file_is_news_when_it_changed_and_only_then() {
    let mut state = State::default();
    assert_eq!(section(&state, "a", 1), Section::News);
    publish(&mut state, "a", 1);
    upload(&mut state, 9);
    assert_eq!(
        section(&state, "a", 1),
        Section::Said(1),
        "the upload stands"
    );
    assert_eq!(section(&state, "a", 2), Section::News);
    publish(&mut state, "a", 2);
    assert_eq!(
        section(&state, "a", 1),
        Section::News,
        "it was changed back"
    );
}

#[test]
fn two_hosts_with_different_files_do_not_take_turns() {
    let mut state = State::default();
    publish(&mut state, "a", 1);
    assert_eq!(section(&state, "b", 2), Section::News, "b says it first");
    publish(&mut state, "b", 2);
    for _ in 0..2 {
        assert_eq!(section(&state, "a", 1), Section::Said(1));
        assert_eq!(section(&state, "b", 2), Section::Said(2));
    }
}

#[test]
fn the_last_of_a_fleet_to_get_a_new_file_overrules_nothing() {
    let mut state = State::default();
    publish(&mut state, "a", 1);
    note(&mut state, "b", 1, 1);
    publish(&mut state, "a", 2);
    upload(&mut state, 9);
    // Both of the old fleet and the new host have the file that `a` published before the upload.
    assert_eq!(section(&state, "b", 2), Section::Said(2));
    assert_eq!(section(&state, "new", 2), Section::Said(2));
    note(&mut state, "b", 2, 2);
    // Taken back: whoever restarts first publishes it.
    assert_eq!(section(&state, "b", 1), Section::News);
    publish(&mut state, "b", 1);
    assert_eq!(section(&state, "a", 1), Section::Said(4));
}

#[test]
fn a_file_that_says_what_another_said_before_is_news() {
    let mut state = State::default();
    publish(&mut state, "a", 1);
    publish(&mut state, "b", 2);
    assert_eq!(section(&state, "b", 1), Section::News);
}

#[test]
fn age_does_not_make_an_unchanged_file_news() {
    let mut state = State::default();
    publish(&mut state, "a", 1);
    for number in 0..KEPT_REVISIONS as u64 + 1 {
        upload(&mut state, 10 + number);
    }
    assert_ne!(state.history("orders")[0].revision, 1, "it was forgotten");
    assert_eq!(section(&state, "a", 1), Section::Said(1));
    assert_eq!(section(&state, "a", 2), Section::News);
}

#[test]
fn a_publication_without_a_note_counts_as_its_host_s() {
    let mut state = State::default();
    publish(&mut state, "a", 1);
    config_deploy(&mut state, "a", 2);
    assert_eq!(section(&state, "a", 2), Section::Said(2));
    assert_eq!(section(&state, "a", 1), Section::News);
    config_deploy(&mut state, "b", 3);
    assert_eq!(section(&state, "b", 3), Section::Said(3));
}

#[test]
fn a_pipeline_that_the_log_does_not_know_is_news() {
    let mut state = State::default();
    note(&mut state, "a", 1, 1);
    assert_eq!(section(&state, "a", 1), Section::News);
}

#[test]
fn notes_are_checked_and_go_with_their_key() {
    let mut state = State::default();
    publish(&mut state, "a", 1);
    assert_eq!(apply(&mut state, noted("a", 1, 1), "a"), Applied::Repeated);
    for bad in [
        noted("a/b", 1, 1),
        Change::Published {
            pipeline: "orders".to_owned(),
            host: "a".to_owned(),
            hash: "latest".to_owned(),
            revision: 1,
        },
    ] {
        assert!(matches!(
            apply(&mut state, bad, "a"),
            Applied::Ignored { .. }
        ));
    }
    note(&mut state, "z", 7, 1);
    assert_eq!(section(&state, "z", 7), Section::Said(1));
    state.apply(state.next(), b"published/orders/z", None);
    assert_eq!(section(&state, "z", 7), Section::News);
}

#[test]
fn notes_of_hosts_that_never_come_back_go_with_age_and_the_others_stay() {
    let mut state = State::default();
    publish(&mut state, "stays", 1);
    upload(&mut state, 9);
    for number in 0..3 * KEPT_NOTES as u64 {
        note(&mut state, &format!("pod-{number}"), 2, 1);
        if number % 50 == 0 {
            // It starts again, its file unchanged.
            note(&mut state, "stays", 1, 1);
        }
    }
    assert_eq!(section(&state, "stays", 1), Section::Said(1));
    let kept = &state.pipelines["orders"].published;
    assert_eq!(kept.len(), KEPT_NOTES);
    assert!(!kept.contains_key("pod-0"));
    // What was forgotten is removed from the log, and what is noted again is not.
    let removable = state.removable();
    assert_eq!(removable.len(), 3 * KEPT_NOTES + 1 - KEPT_NOTES);
    assert!(removable.contains(&"published/orders/pod-0".to_owned()));
    note(&mut state, "pod-0", 2, 1);
    assert!(
        !state
            .removable()
            .contains(&"published/orders/pod-0".to_owned())
    );
}

#[test]
fn a_note_is_written_again_only_when_it_would_be_forgotten() {
    let mut state = State::default();
    note(&mut state, "a", 1, 1);
    let again = |state: &State| state.judge(&noted("a", 1, 1), uuid::Uuid::new_v4());
    for number in 0..KEPT_NOTES as u64 / 2 {
        assert_eq!(again(&state), Applied::Repeated, "after {number}");
        note(&mut state, &format!("pod-{number}"), 1, 1);
    }
    assert_eq!(again(&state), Applied::Accepted);
    note(&mut state, "a", 1, 1);
    assert_eq!(again(&state), Applied::Repeated);
}

#[test]
fn a_note_has_this_wire_form() {
    let entry = entry(noted("a.b-c", 1, 7));
    assert_eq!(entry.key(), "published/orders/a.b-c");
    let value = serde_json::to_value(&entry).unwrap();
    assert_eq!(
        value["change"],
        serde_json::json!({
            "kind": "published", "pipeline": "orders", "host": "a.b-c", "hash": release(1).id, "revision": 7,
        })
    );
    assert_eq!(serde_json::from_value::<Entry>(value).unwrap(), entry);
}

#[test]
fn the_same_again_is_not_written() {
    let log = MemoryLog::default();
    let host = Host::on(&log, "a");
    host.submit(deploy("orders", 1, 1));
    host.submit(noted("a", 1, 1));
    let end = log.next();
    assert_eq!(host.submit(noted("a", 1, 1)), Outcome::Accepted);
    assert_eq!(log.next(), end);
}
