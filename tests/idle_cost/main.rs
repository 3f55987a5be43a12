//! What plugins cost that have nothing to do (uploaded, deployed and paused, running without records): how long a host
//! that holds many takes to be ready after a restart, and how much memory one adds.
//!
//! `idle_cost --help` says what can be asked; the report, in Markdown, on standard output. Ends with 1 when a bound does
//! not hold. What is promised is promised of the release build; any other is held to looser bounds.
#![allow(clippy::unwrap_used, reason = "a panic is how a check fails")]
#![expect(clippy::print_stdout, reason = "the report goes to standard output")]

use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::json;
use wasmill_tests::host::Host;
use wasmill_tests::site::Plot;
use wasmill_tests::swaps::median_and_max;
use wasmill_tests::{Site, Stage, versioned, versions};

/// What is held to.
struct Bounds {
    /// A host that holds 50 plugins is ready again within this: the median of its restarts.
    ready: Duration,
    /// The most memory a plugin adds that has nothing to do, bytes.
    idle: u64,
}

/// What is promised.
const RELEASE: Bounds = Bounds {
    ready: Duration::from_millis(300),
    idle: 1 << 20,
};

/// Of a build that is not the one to be measured, on a machine that may be busy: only a mistake goes past it.
const DEVELOPMENT: Bounds = Bounds {
    ready: Duration::from_millis(900),
    idle: 5 << 18,
};

/// How long a host is left alone before its memory is looked at.
const SETTLE: Duration = Duration::from_secs(3);

/// What plugins cost that have nothing to do: restarts and memory of a host that holds many.
#[derive(Debug, Parser)]
struct Options {
    /// Plugins that are uploaded, deployed and paused, resumed.
    #[arg(long, default_value_t = 50)]
    plugins: u32,
    /// Restarts that are timed in each of these states.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    restarts: u32,
}

/// A host started `times` times on what is there; how long each took to be ready, and the last one's memory.
fn restarts(site: &Site, times: u32) -> (Vec<Duration>, u64) {
    let mut took = Vec::new();
    let mut resident = 0;
    for _ in 0..times {
        let (host, ready) = site.up();
        took.push(ready);
        resident = settled(&host);
        let exit = host.stop(Duration::from_secs(25));
        assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    }
    (took, resident)
}

fn settled(host: &Host) -> u64 {
    std::thread::sleep(SETTLE);
    host.resident()
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let stage = Stage::new();
    stage.feed.topic("idle", 1).await;
    versioned::create_table(&stage).await;
    let site = Site::new(&stage, &Plot::new("idle"));
    let (empty, without) = restarts(&site, options.restarts);

    eprintln!("idle cost: uploading {} plugins", options.plugins);
    let (host, _) = site.up();
    let start = Instant::now();
    for index in 0..options.plugins {
        site.api.upload_file(&versions::version(index).file);
    }
    let upload = start.elapsed() / options.plugins.max(1);
    let uploaded = settled(&host);
    host.stop(Duration::from_secs(25));
    let (known, with_known) = restarts(&site, options.restarts);

    eprintln!("idle cost: deploying them, paused");
    let (host, _) = site.up();
    let name = |index: u32| format!("idle-{index}");
    for index in 0..options.plugins {
        let plugin = versions::version(index).plugin();
        let overlay = json!({ "overlay": versioned::overlay("idle") });
        let answer = site.api.deploy(&name(index), &plugin, overlay);
        answer.unwrap().ok();
        site.api.change(&name(index), "pause").unwrap().ok();
    }
    let deployed = settled(&host);
    host.stop(Duration::from_secs(25));
    let (paused, with_paused) = restarts(&site, options.restarts);

    eprintln!("idle cost: running them, without records");
    let (host, _) = site.up();
    for index in 0..options.plugins {
        site.api.change(&name(index), "resume").unwrap().ok();
    }
    let resumed = settled(&host);
    host.stop(Duration::from_secs(25));
    let (running, with_running) = restarts(&site, options.restarts);

    let each = |resident: u64| resident.saturating_sub(without) / u64::from(options.plugins.max(1));
    let (build, bounds) = match cfg!(debug_assertions) {
        true => ("development", DEVELOPMENT),
        false => ("release", RELEASE),
    };
    println!(
        "# Idle cost of {} plugins, {build} build\n",
        options.plugins
    );
    println!(
        "An upload, compiled and checked, takes {upload:.0?}. A host without plugins holds {:.1} MB. In the process that \
         took the uploads, a plugin adds {} kB when it is uploaded, {} kB when it is deployed and paused, {} kB when it \
         has been resumed.\n",
        megabytes(without),
        each(uploaded) >> 10,
        each(deployed) >> 10,
        each(resumed) >> 10,
    );
    println!(
        "| after a restart | ready, median | slowest | within {:?} | resident | a plugin adds | at most {} kB |\n\
         |---|---|---|---|---|---|---|",
        bounds.ready,
        bounds.idle >> 10
    );
    let rows = [
        ("none", &empty, without),
        ("uploaded", &known, with_known),
        ("deployed, paused", &paused, with_paused),
        ("deployed, running, no records", &running, with_running),
    ];
    let mut broken = false;
    for (what, times, resident) in rows {
        let (median, max) = median_and_max(times).expect("at least one restart");
        let (quick, small) = (median <= bounds.ready, each(resident) <= bounds.idle);
        println!(
            "| {what} | {median:.0?} | {max:.0?} | {} | {:.1} MB | {} kB | {} |",
            verdict(quick),
            megabytes(resident),
            each(resident) >> 10,
            verdict(small),
        );
        broken |= !(quick && small);
    }
    if broken {
        std::process::exit(1);
    }
    Ok(())
}

fn verdict(holds: bool) -> &'static str {
    if holds { "yes" } else { "**NO**" }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
