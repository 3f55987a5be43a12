//! A host's hold on the log: writers against each other, replay, what is refused without being written.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::BoxFuture;
use serde_json::json;

use super::*;
use crate::error::{Blame, Error, Result};

/// A log with an identity; while `deaf` it takes records and forgets them.
#[derive(Debug)]
struct Named {
    log: MemoryLog,
    identity: &'static str,
    deaf: AtomicBool,
}

impl Named {
    fn new(identity: &'static str) -> Arc<Self> {
        Arc::new(Self {
            log: MemoryLog::default(),
            identity,
            deaf: AtomicBool::new(false),
        })
    }
}

impl ControlLog for Named {
    fn name(&self) -> String {
        "topic \"wasmill.control\"".to_owned()
    }

    fn identity(&self) -> Option<String> {
        Some(self.identity.to_owned())
    }

    fn append(&self, records: Vec<Write>) -> BoxFuture<'_, Result<(), Error>> {
        if self.deaf.load(Ordering::Relaxed) {
            return Box::pin(std::future::ready(Ok(())));
        }
        self.log.append(records)
    }

    fn follow(&self, sink: Sink) -> Result<Follower, Error> {
        self.log.follow(sink)
    }
}

fn refused(host: &Host, change: Change) -> Error {
    block_on(host.control.submit("ann", change)).unwrap_err()
}

fn lost_to(outcome: Outcome) -> String {
    match outcome {
        Outcome::Rejected(reason) => reason,
        Outcome::Accepted => panic!("accepted"),
    }
}

#[test]
fn a_change_is_there_when_submit_returns() {
    let log = MemoryLog::default();
    let (one, two) = (Host::on(&log, "h1"), Host::on(&log, "h2"));
    let mut changed = two.control.changed();
    changed.mark_unchanged();
    assert_eq!(
        one.submit(version("clean", "1.0.0", b"a")),
        Outcome::Accepted
    );
    assert_eq!(one.submit(deploy("orders", 1, 1)), Outcome::Accepted);
    let state = one.control.state();
    let current = state.pipeline("orders").unwrap();
    assert_eq!(
        (
            current.revision,
            current.written.by.as_str(),
            current.written.host.as_str()
        ),
        (1, "ann", "h1")
    );
    assert!(current.written.at > 1_700_000_000_000);
    block_on(changed.changed()).unwrap();
    agree(&log, &[&one, &two]);
    // What is there already is not written again, nor is what must lose.
    let length = log.len();
    assert_eq!(
        two.submit(version("clean", "1.0.0", b"a")),
        Outcome::Accepted
    );
    let reason = lost_to(two.submit(version("clean", "1.0.0", b"b")));
    assert!(reason.contains("never changes"), "{reason}");
    let reason = lost_to(two.submit(deploy("orders", 1, 2)));
    assert!(reason.contains("revision 1"), "{reason}");
    let reason = lost_to(two.submit(deploy("orders", 3, 2)));
    assert!(reason.contains("cannot follow"), "{reason}");
    let error = refused(&two, deploy("Orders!", 1, 1));
    assert_eq!(error.blame(), Blame::Config);
    let mut large = release(1);
    large = Release::new(large.plugin, large.digest, "#".repeat(MAX_ENTRY));
    let deployment = Deployment::of(large, Origin::Upload);
    let error = refused(
        &two,
        Change::Deploy {
            pipeline: "orders".to_owned(),
            revision: 2,
            deployment,
        },
    );
    assert!(
        error.hint_text().unwrap().contains("shorten the overlay"),
        "{error}"
    );
    assert_eq!(log.len(), length);
    assert_eq!(two.submit(deploy("orders", 2, 2)), Outcome::Accepted);
    agree(&log, &[&one, &two]);
}

#[test]
fn of_two_writers_one_wins_each_revision_and_both_know() {
    let log = MemoryLog::default();
    let hosts = [
        Host::on(&log, "h1"),
        Host::on(&log, "h2"),
        Host::on(&log, "h3"),
    ];
    let writers: Vec<_> = hosts
        .iter()
        .map(|host| {
            let control = host.control.clone();
            std::thread::spawn(move || {
                let mut won = Vec::new();
                for number in 0..60 {
                    let last = control
                        .state()
                        .pipeline("orders")
                        .map_or(0, |last| last.revision);
                    let change = deploy("orders", last + 1, number);
                    if block_on(control.submit("ann", change)).unwrap() == Outcome::Accepted {
                        won.push(last + 1);
                    }
                }
                won
            })
        })
        .collect();
    let mut won: Vec<u64> = writers
        .into_iter()
        .flat_map(|writer| writer.join().unwrap())
        .collect();
    won.sort_unstable();
    agree(&log, &hosts.each_ref());
    let state = hosts[0].control.state();
    let chain: Vec<u64> = state
        .history("orders")
        .iter()
        .map(|found| found.revision)
        .collect();
    assert_eq!(won, chain, "each revision was won once");
    assert_eq!(chain, (1..=chain.len() as u64).collect::<Vec<_>>());
    assert!(chain.len() >= 60);
    // Losers clean up behind them; a new host, and one on the compacted log, end with the same state.
    eventually("losers are removed", || {
        hosts[0].control.state().removable().is_empty()
    });
    for log in [
        log.clone(),
        log.compacted(Tombstones::Kept),
        log.compacted(Tombstones::Gone),
    ] {
        assert_eq!(seen(&Host::on(&log, "h4").control.state()), seen(&state));
    }
}

#[test]
fn garbage_in_the_log_stops_nobody() {
    let log = MemoryLog::default();
    append(
        &log,
        vec![
            (b"x".to_vec(), Some(b"y".to_vec())),
            (Vec::new(), None),
            (b"deploy/a/1/z".to_vec(), None),
        ],
    );
    let host = Host::on(&log, "h1");
    append(
        &log,
        vec![(b"deploy/orders/1/x".to_vec(), Some(vec![0xff; 2 << 20]))],
    );
    assert_eq!(host.submit(deploy("orders", 1, 1)), Outcome::Accepted);
    assert_eq!(host.control.state().garbage().records, 4);
}

#[test]
fn an_older_host_refuses_to_write_about_what_it_does_not_understand() {
    let log = MemoryLog::default();
    let host = Host::on(&log, "h1");
    host.submit(deploy("orders", 1, 1));
    let newer = json!({"format": 2, "kind": "?"});
    append(
        &log,
        vec![(
            b"deploy/orders/2/x".to_vec(),
            Some(serde_json::to_vec(&newer).unwrap()),
        )],
    );
    eventually("it is seen", || !host.control.state().newer().is_empty());
    let error = refused(&host, deploy("orders", 2, 2));
    assert_eq!(error.blame(), Blame::Config);
    assert!(
        error.hint_text().unwrap().contains("upgrade this host"),
        "{error}"
    );
    assert_eq!(
        host.control
            .state()
            .pipeline("orders")
            .unwrap()
            .deployment
            .release,
        release(1)
    );
    assert_eq!(host.submit(deploy("returns", 1, 1)), Outcome::Accepted);
}

#[test]
fn a_deleted_log_keeps_its_state_and_takes_nothing() {
    let log = MemoryLog::default();
    let host = Host::on(&log, "h1");
    host.submit(deploy("orders", 1, 1));
    let mut changed = host.control.changed();
    changed.mark_unchanged();
    log.delete();
    block_on(changed.changed()).unwrap();
    let lost = host.control.lost().unwrap();
    assert_eq!(lost.blame(), Blame::Config);
    assert_eq!(host.control.state().pipeline("orders").unwrap().revision, 1);
    assert_eq!(refused(&host, deploy("orders", 2, 2)), lost);
    assert_eq!(
        block_on(host.control.put_blob(&digest(b"a"), b"a".to_vec())).unwrap_err(),
        lost
    );
}

#[test]
fn another_log_under_the_same_name_is_refused_until_told_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path()).unwrap();
    let open = |identity: &'static str, host: &str| {
        Control::open(Named::new(identity), store.clone(), host.to_owned())
    };
    open("one", "h1").unwrap();
    open("one", "h1").unwrap();
    let error = open("two", "h1").unwrap_err();
    assert_eq!(error.blame(), Blame::Config);
    assert!(error.to_string().contains("data loss"), "{error}");
    let known = store
        .known_log("h1", "topic \"wasmill.control\"")
        .unwrap()
        .unwrap();
    assert_eq!(known.identity, "one");
    assert!(
        error
            .hint_text()
            .unwrap()
            .contains(known.file.to_str().unwrap()),
        "{error:?}"
    );
    open("two", "h2").unwrap();
    std::fs::remove_file(known.file).unwrap();
    open("two", "h1").unwrap();
}

#[test]
fn a_write_that_does_not_come_back_is_not_known_to_be_stored() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path()).unwrap();
    let log = Named::new("one");
    let patience = Duration::from_millis(100);
    let control = Control::open_with(log.clone(), store, "h1".to_owned(), patience).unwrap();
    block_on(control.submit("ann", deploy("orders", 1, 1))).unwrap();
    log.deaf.store(true, Ordering::Relaxed);
    let error = block_on(control.submit("ann", deploy("orders", 2, 2))).unwrap_err();
    assert_eq!(error.blame(), Blame::Outside);
    assert!(
        error.hint_text().unwrap().contains("wasmill history"),
        "{error:?}"
    );
    log.deaf.store(false, Ordering::Relaxed);
    assert_eq!(
        block_on(control.submit("ann", deploy("orders", 2, 2))).unwrap(),
        Outcome::Accepted
    );
}

#[test]
fn old_records_are_removed_from_the_log_as_it_goes() {
    let log = MemoryLog::default();
    let host = Host::on(&log, "h1");
    let rows = 700;
    for revision in 1..=rows {
        assert_eq!(
            host.submit(deploy("orders", revision, revision)),
            Outcome::Accepted
        );
    }
    let state = host.control.state();
    assert_eq!(state.history("orders").len(), KEPT_REVISIONS);
    assert!(
        state.removable().len() < 64 + 64,
        "{}",
        state.removable().len()
    );
    let compacted = log.compacted(Tombstones::Gone);
    assert!(
        compacted.len() < KEPT_REVISIONS + 128,
        "{}",
        compacted.len()
    );
    assert_eq!(
        seen(&Host::on(&compacted, "h2").control.state()),
        seen(&state)
    );
}

#[test]
fn a_follower_ends_with_its_control_and_breaks_when_told() {
    let log = MemoryLog::default();
    append(&log, vec![(b"a".to_vec(), None), (b"b".to_vec(), None)]);
    let (sender, told) = std::sync::mpsc::channel();
    let follower = log
        .follow(Box::new(move |event| {
            sender.send(format!("{event:?}")).unwrap();
            ControlFlow::Break(())
        }))
        .unwrap();
    eventually("it ends", || follower.is_finished());
    assert_eq!(told.iter().count(), 1);
    let host = Host::on(&log, "h1");
    let copy = host.control.clone();
    drop(host);
    assert_eq!(
        block_on(copy.submit("ann", deploy("orders", 1, 1))).unwrap(),
        Outcome::Accepted
    );
}
