//! A disk without room under the cache: an upload is refused with the reason, nothing else suffers.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use wasmill_tests::site::Plot;
use wasmill_tests::{Site, versions};

use super::{deploy_first, exact, processed, send, stage, two};

/// A tiny file system, unmounted when dropped.
struct Tiny(PathBuf);

impl Tiny {
    /// `None` where this user may not mount.
    fn mount(at: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(at)
            .output();
        let done = mounted.is_ok_and(|output| output.status.success());
        done.then(|| Self(at.to_owned()))
    }

    /// Leaves no room.
    fn fill(&self) -> PathBuf {
        let file = self.0.join("filler");
        let mut filler = std::fs::File::create(&file).unwrap();
        while filler.write_all(&[0; 4096]).is_ok() {}
        file
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_uploads_and_stops_nothing() {
    let stage = stage(2).await;
    let cache = stage.path("small");
    let Some(tiny) = Tiny::mount(&cache, "4m") else {
        writeln!(
            std::io::stderr(),
            "\n!!! SKIPPED, NOTHING WAS TESTED: mounting a small file system needs root\n"
        )
        .ok();
        return;
    };
    let plot = Plot {
        cache: Some(cache),
        ..Plot::new("full")
    };
    let site = Site::new(&stage, &plot);
    let (mut host, _) = site.up();
    let (old, new) = two();
    deploy_first(&site, &old);
    let records = send(&stage, 2, 1_000);
    processed(&stage, &records).await;

    let filler = tiny.fill();
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
    drop(tiny);
    // Nothing that matters was on that disk.
    let (mut host, _) = site.up();
    let plugins = site.api.get("/v1/plugins").unwrap().ok();
    assert_eq!(plugins.as_array().unwrap().len(), 2, "{plugins:#}");
    site.api.upload_file(&versions::version(2).file);
    host.alive().unwrap();
}
