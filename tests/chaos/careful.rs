//! A record that kills the host. A guest that never returns stands for it, as long as its run time lasts: whenever the
//! lane's mark says that the guest is at it, the test kills the host. It is narrowed down, run alone, and set aside;
//! nothing else is.

use std::path::Path;
use std::time::{Duration, Instant};

use wasmill_tests::host::Host;
use wasmill_tests::records::Made;
use wasmill_tests::stage::pipeline;
use wasmill_tests::{Stage, artifact};

const SOON: Duration = Duration::from_secs(60);
const COUNT: usize = 600;
const DEADLY: i64 = 250;

/// The range a lane's mark says it is working on.
fn working(mark: &Path) -> Option<(i64, i64)> {
    let text = std::fs::read_to_string(mark).ok()?;
    let mut words = text.split_whitespace();
    let is_working = words.next()? == "working";
    let range = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    is_working.then_some(range)
}

/// Waits until the guest has been at the deadly record for a while; the range it is in.
fn at_the_record(mark: &Path, host: &mut Host) -> (i64, i64) {
    let begun = Instant::now();
    loop {
        let there = working(mark).filter(|(from, to)| (*from..*to).contains(&DEADLY));
        std::thread::sleep(Duration::from_millis(300));
        if let Some(range) = there.filter(|_| working(mark) == there) {
            return range;
        }
        host.alive().unwrap();
        assert!(begun.elapsed() < SOON, "it never got there: {there:?}");
    }
}

#[tokio::test]
async fn a_record_that_kills_the_host_is_set_aside_after_six_deaths() {
    let stage = Stage::new();
    stage.feed.topic("records", 1).await;
    stage.execute("CREATE TABLE seen (id text)").await;
    let made = (0..COUNT).map(|n| {
        let value = match i64::try_from(n).unwrap() {
            DEADLY => r#"{"mark":"spin"}"#,
            _ => "{}",
        };
        Made::new(format!("r-{n}"), value)
    });
    stage.feed.send("records", &made.collect::<Vec<_>>());
    let more = "bind.route.seen = { connection = \"main\", table = \"seen\" }";
    let config = pipeline(
        "deadly",
        &artifact::plugin("tests/guests/spin-forever"),
        more,
    );
    let mark = artifact::compiled_cache().join("deaths/test-host/deadly.0");
    let mut host = stage.host(&config);
    let mut deaths = 0;
    while deaths < 6 {
        let (from, to) = at_the_record(&mark, &mut host);
        host.kill();
        // Where the run time ended just before the kill, this was no death at the record.
        deaths += u32::from(working(&mark) == Some((from, to)));
        if deaths > 3 {
            assert_eq!((from, to), (DEADLY, DEADLY + 1), "death {deaths}");
            assert_eq!(stage.position("deadly").await, DEADLY);
        }
        assert_eq!(stage.dead().await, [], "death {deaths}");
        host = stage.again();
    }
    let total = i64::try_from(COUNT).unwrap();
    wasmill_tests::wait::eventually(SOON, "all records are processed", async || {
        host.alive()?;
        stage.positioned("deadly", total).await
    })
    .await;
    assert_eq!(
        stage.dead().await,
        [("kills-host".to_owned(), 0, DEADLY)],
        "{}",
        host.stderr()
    );
    for sql in [
        "SELECT count(*) FROM seen",
        "SELECT count(DISTINCT id) FROM seen",
    ] {
        assert_eq!(stage.number(sql).await, total - 1, "{sql}");
    }
    assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
    assert!(!mark.exists(), "nothing is left to remember");
}
