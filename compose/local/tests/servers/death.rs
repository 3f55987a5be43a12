//! No server outlives the process that started it, whatever ends that one, and its folder is swept.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use wasmill_local::{Kafka, KafkaOptions, Postgres, PostgresOptions};

use crate::{here, is_gone};

/// Not a test: the process that is killed. It starts both servers from a thread that ends, says who
/// they are and waits.
#[test]
#[ignore = "run by the test below"]
fn the_process_that_will_be_killed() {
    let servers = thread::spawn(|| {
        let postgres = Postgres::start(&PostgresOptions::default()).unwrap();
        let kafka = Kafka::available().is_ok().then(|| {
            Kafka::start(&KafkaOptions {
                heap_mb: 96,
                ..KafkaOptions::default()
            })
            .unwrap()
        });
        (postgres, kafka)
    });
    let (postgres, kafka) = servers.join().unwrap();
    eprintln!(
        "server {} {}",
        postgres.pid().unwrap(),
        postgres.folder().display()
    );
    if let Some(kafka) = &kafka {
        eprintln!(
            "server {} {}",
            kafka.pid().unwrap(),
            kafka.folder().display()
        );
    }
    eprintln!("waiting");
    thread::sleep(Duration::from_secs(60));
}

#[test]
fn servers_die_with_a_process_that_is_killed() {
    if !here(Postgres::available()) {
        return;
    }
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "death::the_process_that_will_be_killed",
            "--ignored",
            "--nocapture",
        ])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(victim.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let mut servers: Vec<(u32, PathBuf)> = Vec::new();
    for line in lines.take_while(|line| line != "waiting") {
        if let Some((pid, folder)) = line
            .strip_prefix("server ")
            .and_then(|rest| rest.split_once(' '))
        {
            servers.push((pid.parse().unwrap(), folder.into()));
        }
    }
    assert!(!servers.is_empty());
    assert!(
        servers
            .iter()
            .all(|(pid, folder)| !is_gone(*pid) && folder.exists())
    );

    victim.kill().unwrap();
    victim.wait().unwrap();
    let started = Instant::now();
    while !servers.iter().all(|(pid, _)| is_gone(*pid)) {
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "{servers:?} outlived their parent"
        );
        thread::sleep(Duration::from_millis(10));
    }

    // the next start sweeps: Postgres' folder by a Postgres, Kafka's by a Kafka, where their caches differ
    let _postgres = Postgres::start(&PostgresOptions::default()).unwrap();
    let swept = &servers[0].1;
    assert!(!swept.exists(), "{swept:?} is left");
}
