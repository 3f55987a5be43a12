//! The folder of blobs by itself.

use std::fs;
use std::process::Command;

use super::*;
use crate::error::Blame;

/// Set in the process in which files may not grow.
const FULL: &str = "WASMILL_TEST_FULL_DISK";

#[test]
fn texts_that_are_no_digest_are_no_path() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path()).unwrap();
    for text in [
        "",
        "sha256:",
        "sha256:../../etc/passwd",
        &"a".repeat(64),
        &digest(b"a").to_uppercase(),
    ] {
        assert_eq!(store.path(text), None, "{text}");
        assert!(!store.have(text));
        assert_eq!(store.read(text).unwrap(), None);
    }
}

#[test]
fn what_killed_writers_left_is_swept_and_what_is_being_written_is_not() {
    let folder = tempfile::tempdir().unwrap();
    BlobStore::open(folder.path()).unwrap();
    for (name, age) in [(".part-old", 7200), (".part-new", 60), ("other-old", 7200)] {
        let file = fs::File::create(folder.path().join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(age))
            .unwrap();
    }
    BlobStore::open(folder.path()).unwrap();
    let mut left: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, [".part-new", "other-old"]);
}

#[test]
fn a_folder_that_cannot_be_made_is_the_operators_to_mend() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = BlobStore::open(file.join("below")).unwrap_err();
    assert_eq!(error.blame(), Blame::Config);
    assert!(error.hint_text().unwrap().contains("cache folder"));
    let error = BlobStore::open(file).unwrap_err();
    assert_eq!(error.blame(), Blame::Config);
}

/// Runs [`on_a_full_disk`] in a process whose files may have 64 KiB at most.
#[test]
fn a_full_disk_is_told_and_leaves_nothing_partial() {
    let exe = std::env::current_exe().unwrap();
    let script = "trap '' XFSZ; ulimit -f 64; exec \"$0\" --exact control::tests::store::on_a_full_disk --ignored";
    let output = Command::new("bash")
        .args(["-c", script])
        .arg(exe)
        .env(FULL, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

#[test]
#[ignore = "needs a process that cannot write large files: a_full_disk_is_told_and_leaves_nothing_partial starts it"]
fn on_a_full_disk() {
    assert!(std::env::var(FULL).is_ok(), "started by hand");
    let log = MemoryLog::default();
    let host = Host::on(&log, "h1");
    let empty = || fs::read_dir(host.folder.path()).unwrap().count() == 0;
    let bytes = vec![7; CHUNK + 1];
    let error = block_on(host.control.put_blob(&digest(&bytes), bytes.clone())).unwrap_err();
    assert_eq!(error.blame(), Blame::Outside, "{error}");
    assert!(error.hint_text().unwrap().contains("full"), "{error:?}");
    assert!(empty() && log.is_empty(), "neither here nor in the log");
    // What another host uploads is known here, and told when it is needed.
    let name = digest(&bytes);
    for (number, chunk) in bytes.chunks(CHUNK).enumerate() {
        append(
            &log,
            vec![(
                format!("blob/{name}/{number}").into_bytes(),
                Some(chunk.to_vec()),
            )],
        );
    }
    let head = BlobHead {
        format: FORMAT,
        size: bytes.len() as u64,
        chunks: 2,
    };
    append(
        &log,
        vec![(
            format!("blob/{name}/head").into_bytes(),
            Some(serde_json::to_vec(&head).unwrap()),
        )],
    );
    assert_eq!(
        host.submit(deploy("orders", 1, 1)),
        Outcome::Accepted,
        "the control log goes on"
    );
    assert!(host.control.state().blob(&name).is_some());
    assert_eq!(
        host.control.blob(&name).unwrap_err().blame(),
        Blame::Outside
    );
    assert!(empty());
}
