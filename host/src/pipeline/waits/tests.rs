//! When a wait begins, what it shows, and when it is over.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
use super::*;

const POSTGRES: &str = "postgres.main";
const CASSANDRA: &str = "cassandra.main";

fn away(detail: &str) -> Error {
    Error::outside("write", detail)
}

/// A state whose waiter n has partition n, and a clock in seconds.
struct Play {
    state: State,
    begun: Instant,
}

impl Play {
    fn new() -> Self {
        Self {
            state: State::default(),
            begun: Instant::now(),
        }
    }

    fn at(&self, second: u64) -> Instant {
        self.begun + Duration::from_secs(second)
    }

    fn fails(&mut self, second: u64, waiter: u64, server: &str) -> Vec<News> {
        let partitions: Arc<[i32]> = [i32::try_from(waiter).unwrap()].into();
        let (error, now) = (away(&format!("at {second}")), self.at(second));
        self.state.failed(waiter, &partitions, server, &error, now)
    }

    fn gets_on(&mut self, second: u64, waiter: u64) -> Vec<News> {
        let now = self.at(second);
        self.state.done(waiter, now)
    }

    /// Server, seconds, attempts, partitions and last error.
    fn shows(&self, second: u64) -> Vec<(String, u64, u64, Vec<i32>, String)> {
        let seen = self.state.seen(self.at(second)).into_iter();
        seen.map(|one| {
            let detail = one.error.detail().to_owned();
            (
                one.server,
                one.lasts.as_secs(),
                one.attempts,
                one.partitions,
                detail,
            )
        })
        .collect()
    }
}

fn shown(
    server: &str,
    seconds: u64,
    attempts: u64,
    partitions: &[i32],
    detail: &str,
) -> (String, u64, u64, Vec<i32>, String) {
    let partitions = partitions.to_vec();
    (
        server.to_owned(),
        seconds,
        attempts,
        partitions,
        detail.to_owned(),
    )
}

#[test]
fn a_wait_begins_with_the_first_failure_after_the_last_success() {
    let mut play = Play::new();
    assert_eq!(play.fails(0, 1, POSTGRES), [News::Began(POSTGRES.into())]);
    assert_eq!(play.fails(3, 1, POSTGRES), []);
    assert_eq!(play.shows(5), [shown(POSTGRES, 5, 2, &[1], "at 3")]);
    let took = Duration::from_secs(6);
    assert_eq!(play.gets_on(6, 1), [News::Ended(POSTGRES.into(), took)]);
    assert_eq!(play.shows(7), []);
    assert_eq!(play.fails(10, 1, POSTGRES), [News::Began(POSTGRES.into())]);
    assert_eq!(play.shows(12), [shown(POSTGRES, 2, 1, &[1], "at 10")]);
}

#[test]
fn partitions_that_wait_for_one_server_are_one_wait_until_the_last_gets_on() {
    let mut play = Play::new();
    assert_eq!(play.fails(0, 2, POSTGRES).len(), 1);
    assert_eq!(play.fails(1, 1, POSTGRES), [], "told already");
    assert_eq!(play.fails(4, 2, POSTGRES), []);
    assert_eq!(play.shows(5), [shown(POSTGRES, 5, 3, &[1, 2], "at 4")]);
    assert_eq!(play.gets_on(6, 2), [], "another one waits still");
    assert_eq!(play.shows(7), [shown(POSTGRES, 6, 1, &[1], "at 1")]);
    let took = Duration::from_secs(9);
    assert_eq!(play.gets_on(9, 1), [News::Ended(POSTGRES.into(), took)]);
}

#[test]
fn a_partition_waits_for_the_server_that_failed_it_last_and_others_for_theirs() {
    let mut play = Play::new();
    play.fails(0, 1, CASSANDRA);
    play.fails(2, 2, POSTGRES);
    let both = [
        shown(CASSANDRA, 3, 1, &[1], "at 0"),
        shown(POSTGRES, 1, 1, &[2], "at 2"),
    ];
    assert_eq!(play.shows(3), both);
    // What is asked first fails first: whether the other is back is not known, so it is not blamed.
    let news = play.fails(4, 1, POSTGRES);
    assert_eq!(
        news,
        [News::Ended(CASSANDRA.into(), Duration::from_secs(4))]
    );
    assert_eq!(play.shows(5), [shown(POSTGRES, 3, 2, &[1, 2], "at 4")]);
    // Nothing got on in between: it has been away since it failed first.
    play.fails(8, 1, CASSANDRA);
    let both = [
        shown(CASSANDRA, 9, 2, &[1], "at 8"),
        shown(POSTGRES, 7, 1, &[2], "at 2"),
    ];
    assert_eq!(play.shows(9), both);
    play.gets_on(10, 1);
    play.fails(20, 1, CASSANDRA);
    assert_eq!(play.shows(21)[0], shown(CASSANDRA, 1, 1, &[1], "at 20"));
}

fn waiter(waits: &Arc<Waits>, server: Option<&str>) -> Waiter {
    waits.waiter(&"p".into(), server.map(str::to_owned), &[3])
}

fn servers(waits: &Waits) -> Vec<String> {
    waits.seen().into_iter().map(|one| one.server).collect()
}

#[test]
fn what_is_given_away_waits_no_more() {
    let waits = Arc::new(Waits::default());
    let (one, other) = (waiter(&waits, Some(POSTGRES)), waiter(&waits, None));
    one.failed(&away("refused"), "again");
    other.failed(&away("refused").on(CASSANDRA), "again");
    assert_eq!(servers(&waits), [CASSANDRA, POSTGRES]);
    assert!(one.is_waiting());
    drop(other);
    assert_eq!(servers(&waits), [POSTGRES]);
    one.done();
    assert!(!one.is_waiting());
    assert_eq!(servers(&waits), [""; 0]);
    one.failed(&away("refused"), "again");
    drop(one);
    assert_eq!(servers(&waits), [""; 0]);
}

#[test]
fn who_is_named_by_the_error_is_waited_for_and_nobody_where_no_server_is_at_fault() {
    let waits = Arc::new(Waits::default());
    let lane = waiter(&waits, Some(POSTGRES));
    lane.failed(&Error::config("write", "no table"), "again");
    assert_eq!(servers(&waits), [""; 0], "a table is missing, no server");
    waiter(&waits, None).failed(&away("refused"), "again");
    assert_eq!(servers(&waits), [""; 0], "nobody knows whose fault it is");
    lane.failed(&away("no quorum").on(CASSANDRA), "again");
    assert_eq!(servers(&waits), [CASSANDRA]);
}

/// What every flight does once it is committed.
#[test]
fn to_get_on_without_having_waited_takes_no_lock() {
    let waits = Arc::new(Waits::default());
    let lane = waiter(&waits, Some(POSTGRES));
    let held = waits.state.lock();
    let (told, hears) = std::sync::mpsc::channel();
    let lane = std::thread::spawn(move || {
        lane.done();
        told.send(()).unwrap();
        lane
    });
    let done = hears.recv_timeout(Duration::from_secs(5));
    drop(held);
    lane.join().unwrap();
    done.expect("it waits for the lock");
}
