//! Components through the log and onto other hosts' disks.

use super::*;
use crate::error::Blame;

/// Bytes that compress to nothing and differ everywhere.
fn noise(size: usize) -> Vec<u8> {
    let mut word = 0x9e37_79b9_7f4a_7c15_u64;
    let mut step = || {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        word.to_be_bytes()[0]
    };
    (0..size).map(|_| step()).collect()
}

fn put(host: &Host, bytes: &[u8]) {
    block_on(host.control.put_blob(&digest(bytes), bytes.to_vec())).unwrap();
}

#[test]
fn a_blob_reaches_every_host_once() {
    let log = MemoryLog::default();
    let (one, two) = (Host::on(&log, "h1"), Host::on(&log, "h2"));
    let sizes = [1, CHUNK - 1, CHUNK, CHUNK + 1, 5_000_000];
    for size in sizes {
        let bytes = noise(size);
        put(&one, &bytes);
        let length = log.len();
        put(&one, &bytes);
        agree(&log, &[&one, &two]);
        put(&two, &bytes);
        assert_eq!(log.len(), length, "it is there already");
        assert!(one.control.state().blob(&digest(&bytes)).is_some());
        assert_eq!(two.control.blob(&digest(&bytes)).unwrap(), bytes);
    }
    let late = Host::on(&log, "h3");
    for size in sizes {
        assert!(late.control.store().have(&digest(&noise(size))), "{size}");
        assert_eq!(
            late.control.blob(&digest(&noise(size))).unwrap(),
            noise(size)
        );
    }
    let names = std::fs::read_dir(late.folder.path()).unwrap().count();
    assert_eq!(names, sizes.len(), "nothing else lies there");
}

#[test]
fn a_damaged_or_missing_blob_is_read_from_the_log_again() {
    let log = MemoryLog::default();
    let (one, two) = (Host::on(&log, "h1"), Host::on(&log, "h2"));
    let bytes = noise(CHUNK * 3);
    let name = digest(&bytes);
    put(&one, &bytes);
    agree(&log, &[&one, &two]);
    let path = two.control.store().path(&name).unwrap();
    let mut flipped = bytes.clone();
    flipped[CHUNK] ^= 1;
    for damaged in [&bytes[..CHUNK], b"", &flipped] {
        std::fs::write(&path, damaged).unwrap();
        assert_eq!(two.control.blob(&name).unwrap(), bytes);
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(two.control.blob(&name).unwrap(), bytes);
    let error = two.control.blob(&digest(b"never uploaded")).unwrap_err();
    assert_eq!(error.blame(), Blame::Config);
    assert!(error.hint_text().unwrap().contains("upload"), "{error:?}");
}

#[test]
fn a_wrong_digest_gets_nowhere() {
    let log = MemoryLog::default();
    let host = Host::on(&log, "h1");
    for (name, bytes) in [
        (digest(b"a"), &b"b"[..]),
        ("sha256:xy".to_owned(), b"b"),
        (digest(b""), b""),
    ] {
        let error = block_on(host.control.put_blob(&name, bytes.to_vec())).unwrap_err();
        assert_eq!(error.blame(), Blame::Data, "{error}");
    }
    assert!(log.is_empty());
    assert_eq!(std::fs::read_dir(host.folder.path()).unwrap().count(), 0);
}

#[test]
fn chunks_that_do_not_add_up_are_no_blob() {
    let log = MemoryLog::default();
    let host = Host::on(&log, "h1");
    let bytes = noise(CHUNK + 9);
    let name = digest(&bytes);
    let chunk = |number: usize, bytes: &[u8]| {
        (
            format!("blob/{name}/{number}").into_bytes(),
            Some(bytes.to_vec()),
        )
    };
    let head = || {
        let head = BlobHead {
            format: FORMAT,
            size: bytes.len() as u64,
            chunks: 2,
        };
        (
            format!("blob/{name}/head").into_bytes(),
            Some(serde_json::to_vec(&head).unwrap()),
        )
    };
    let attempts = [
        vec![head()],
        vec![chunk(0, &bytes[..CHUNK]), head()],
        vec![chunk(0, &bytes[..CHUNK]), chunk(1, b"otherwise"), head()],
        vec![chunk(0, &bytes[..9]), chunk(1, &bytes[CHUNK..]), head()],
    ];
    for attempt in attempts {
        append(&log, attempt);
        agree(&log, &[&host]);
        assert!(!host.control.store().have(&name));
        let error = host.control.blob(&name).unwrap_err();
        assert_eq!(error.blame(), Blame::Data, "{error}");
    }
    // Two writers of the same bytes, one of which dies, whatever way their chunks lie.
    let (first, second) = (chunk(0, &bytes[..CHUNK]), chunk(1, &bytes[CHUNK..]));
    append(
        &log,
        vec![second.clone(), first.clone(), second, first, head()],
    );
    agree(&log, &[&host]);
    assert_eq!(host.control.blob(&name).unwrap(), bytes);
    let leftovers = std::fs::read_dir(host.folder.path()).unwrap().count();
    assert_eq!(leftovers, 1);
}
