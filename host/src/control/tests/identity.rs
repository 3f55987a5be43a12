//! What tells one log from another where the broker does not: an identity that the first host writes into it.

use super::*;
use crate::error::Blame;

fn identity(host: &Host) -> String {
    block_on(host.control.identity()).unwrap()
}

#[test]
fn hosts_agree_on_who_named_the_log_first() {
    let log = MemoryLog::default();
    let hosts = [
        Host::on(&log, "h1"),
        Host::on(&log, "h2"),
        Host::on(&log, "h3"),
    ];
    let asking: Vec<_> = hosts
        .iter()
        .map(|host| {
            let control = host.control.clone();
            std::thread::spawn(move || block_on(control.identity()).unwrap())
        })
        .collect();
    let told: Vec<String> = asking
        .into_iter()
        .map(|asking| asking.join().unwrap())
        .collect();
    assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
    assert!(told[0].starts_with("written:"), "{told:?}");
    // Asked again it is not written again, and a compacted log says the same.
    let length = log.len();
    assert_eq!(identity(&hosts[1]), told[0]);
    assert_eq!(log.len(), length);
    agree(&log, &[&hosts[0], &hosts[1], &hosts[2]]);
    for tombstones in [Tombstones::Kept, Tombstones::Gone] {
        let fresh = Host::on(&log.compacted(tombstones), "h4");
        assert_eq!(fresh.control.state().identity(), Some(told[0].clone()));
    }
    // Another log is another one, however alike.
    assert_ne!(identity(&Host::on(&MemoryLog::default(), "h1")), told[0]);
}

#[test]
fn a_log_that_lost_its_identity_is_not_taken_for_the_one_it_was() {
    let log = MemoryLog::default();
    let host = Host::on(&log, "h1");
    let named = identity(&host);
    host.submit(deploy("orders", 1, 1));
    let folder = host.folder;
    drop(host.control);
    // The same log again.
    let host = Host::over(&log, "h1", folder);
    block_on(host.control.ready()).unwrap();
    assert_eq!(identity(&host), named);
    let mut folder = host.folder;
    drop(host.control);
    // Deleted, and made again by somebody: empty, or named by another host.
    let other = MemoryLog::default();
    for found in [None, Some(())] {
        if found.is_some() {
            identity(&Host::on(&other, "h2"));
        }
        let host = Host::over(&other, "h1", folder);
        let error = block_on(host.control.ready()).unwrap_err();
        assert_eq!(error.blame(), Blame::Config);
        assert!(error.to_string().contains("data loss"), "{error}");
        let hint = error.hint_text().unwrap();
        assert!(hint.contains("delete the file"), "{hint}");
        assert!(!*host.control.caught_up().borrow(), "nothing of it may run");
        block_on(host.control.identity()).unwrap_err();
        folder = host.folder;
    }
    // Accepted by an operator.
    let store = BlobStore::open(folder.path()).unwrap();
    let known = store.known_log("h1", "log in memory").unwrap().unwrap();
    assert_eq!(known.identity, named);
    std::fs::remove_file(known.file).unwrap();
    let host = Host::over(&other, "h1", folder);
    block_on(host.control.ready()).unwrap();
    assert_ne!(identity(&host), named);
}

#[test]
fn a_name_that_a_broker_gives_and_a_written_one_tell_nothing_of_each_other() {
    let known = |identity: &str| KnownLog {
        identity: identity.to_owned(),
        file: std::path::PathBuf::new(),
    };
    assert!(known("AAAA").differs("BBBB"));
    assert!(!known("AAAA").differs("AAAA"));
    assert!(known("written:1").differs("written:2"));
    assert!(
        !known("written:1").differs("AAAA"),
        "the broker was upgraded"
    );
    assert!(!known("AAAA").differs("written:1"));
}

#[test]
fn whoever_waits_for_the_end_of_a_log_is_told() {
    let log = MemoryLog::default();
    let host = Host::on(&log, "h1");
    let ends = block_on(async {
        let waiting = host.control.gone();
        tokio::time::timeout(Duration::from_millis(60), waiting).await
    });
    assert!(ends.is_err(), "it is there");
    log.delete();
    block_on(async { tokio::time::timeout(PATIENCE, host.control.gone()).await }).unwrap();
    // And who asks later.
    block_on(async { tokio::time::timeout(PATIENCE, host.control.gone()).await }).unwrap();
    assert!(host.control.lost().is_some());
}
