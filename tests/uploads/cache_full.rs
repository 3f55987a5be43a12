//! A disk without room under the cache: an upload is refused with the reason, nothing else suffers.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use wasmill_tests::host::Host;
use wasmill_tests::site::Plot;
use wasmill_tests::skip::skip;
use wasmill_tests::{Site, versions};

use super::{deploy_first, exact, processed, send, stage, two};

/// Room under the cache, MiB.
const ROOM: usize = 4;

/// A view of the file systems that is a process's own: as root, and as anybody where the kernel allows it.
const VIEWS: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];

/// A program that becomes the one named by its arguments, which then has a tiny file system at `at`: nobody else sees
/// it, and it goes with the process. `None` where this user may not mount.
fn tiny(at: &Path) -> Option<Command> {
    std::fs::create_dir_all(at).unwrap();
    let script = format!("mount -t tmpfs -o size={ROOM}m tmpfs \"$0\" && exec \"$@\"");
    let view = |flags: &[&str]| {
        let mut unshare = Command::new("unshare");
        unshare.args(flags).args(["sh", "-c", &script]).arg(at);
        unshare
    };
    let works = |flags: &&&[&str]| {
        let tried = view(flags).arg("true").output();
        tried.is_ok_and(|output| output.status.success())
    };
    VIEWS.iter().find(works).map(|flags| view(flags))
}

/// Leaves no room at `at` as the host sees it; returns the file that takes it.
fn fill(host: &Host, at: &Path) -> PathBuf {
    let root = PathBuf::from(format!("/proc/{}/root", host.pid()));
    let file = root.join(at.strip_prefix("/").unwrap()).join("filler");
    let mut filler = std::fs::File::create(&file).unwrap();
    // Not past its size: on another file system than the tiny one this would not end.
    let written = (0..ROOM << 8).take_while(|_| filler.write_all(&[0; 4096]).is_ok());
    assert!(
        written.count() < ROOM << 8,
        "{} is not full",
        file.display()
    );
    file
}

#[tokio::test]
async fn a_full_disk_refuses_uploads_and_stops_nothing() {
    let stage = stage(2).await;
    let cache = stage.path("small");
    let Some(program) = tiny(&cache) else {
        skip(
            "a file system of its own needs root or user namespaces; `unshare --user --mount` has to work",
        );
        return;
    };
    let plot = Plot {
        cache: Some(cache.clone()),
        ..Plot::new("full")
    };
    let site = Site::new(&stage, &plot);
    let mut host = Host::start_under(site.config(), program);
    site.wait_ready(&mut host);
    let (old, new) = two();
    deploy_first(&site, &old);
    let records = send(&stage, 2, 1_000);
    processed(&stage, &records).await;

    let filler = fill(&host, &cache);
    let answer = site.api.upload(&std::fs::read(&new.file).unwrap()).unwrap();
    assert!(
        matches!(answer.status, 503 | 507),
        "a full disk is no fault of the sender's and no bug: {answer:?}"
    );
    let said = answer.refused();
    assert!(
        said.contains("space") || said.contains("room"),
        "the disk is named: {said}"
    );
    host.alive().unwrap();
    exact(&stage, &site, &records).await;

    std::fs::remove_file(filler).unwrap();
    site.api.upload_file(&new.file);
    host.kill();
    // Nothing that matters was on that disk.
    let (mut host, _) = site.up();
    let plugins = site.api.get("/v1/plugins").unwrap().ok();
    assert_eq!(plugins.as_array().unwrap().len(), 2, "{plugins:#}");
    site.api.upload_file(&versions::version(2).file);
    host.alive().unwrap();
}
