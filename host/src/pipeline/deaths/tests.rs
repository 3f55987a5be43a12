//! Marks over the deaths of hosts that tests play.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::anchor::{Epoch, Ledger};

fn claim(next: i64, topic: &str) -> Claim {
    Claim {
        partition: 3,
        epoch: Epoch {
            number: 1,
            id: uuid::Uuid::nil(),
        },
        next,
        reserved: next,
        hlc: 0,
        ledger: Ledger::default(),
        cuts: Vec::new(),
        topic_id: Some(topic.to_owned()),
    }
}

/// As [`Mark::working`], without waiting for others of the process that is about to die.
fn begins(mark: Mark, range: Range<i64>) -> Mark {
    let release = Arc::clone(&mark.release.borrow());
    mark.memory.borrow_mut().working = Some((range, release));
    mark.write();
    mark
}

/// Dies while a lane that stands at `range.start` runs `range`.
fn die(deaths: &Deaths, range: Range<i64>) {
    std::mem::forget(begins(deaths.of("p", &claim(range.start, "t")), range));
}

#[test]
fn three_deaths_make_careful_and_three_more_at_one_record_condemn_it() {
    let folder = tempfile::tempdir().unwrap();
    let deaths = Deaths::remembered_in(&folder.path().join("deaths"));
    let at = |next| deaths.of("p", &claim(next, "t"));
    for range in [0..100, 0..80, 0..90] {
        assert_eq!(at(0).cut(&[0, 1, 2]), None);
        die(&deaths, range);
    }
    let mark = at(0);
    assert_eq!(mark.cut(&[0, 1, 2]), Some(1));
    assert_eq!(mark.cut(&[79, 80]), Some(80));
    assert_eq!((mark.cut(&[80, 81]), mark.cut(&[7])), (None, None));
    drop(mark);
    // Record by record up to 40, again and again.
    for left in (0..3).rev() {
        assert_eq!(at(0).condemned(&(40..41)), None, "{left}");
        die(&deaths, 40..41);
    }
    let mark = at(0);
    assert_eq!(
        mark.cut(&[0, 39, 40, 41]),
        Some(40),
        "what lies before goes on together"
    );
    assert_eq!(mark.cut(&[40, 41]), Some(41));
    assert!(mark.condemned(&(40..41)).unwrap().contains("6 times"));
    assert_eq!(
        (mark.condemned(&(39..40)), mark.condemned(&(40..42))),
        (None, None)
    );
    mark.passed(40);
    assert!(mark.condemned(&(40..41)).is_some());
    mark.passed(41);
    assert_eq!(
        (mark.condemned(&(40..41)), mark.cut(&[40, 41])),
        (None, None)
    );
    drop(mark);
    assert!(
        fs::read_dir(folder.path().join("deaths"))
            .unwrap()
            .next()
            .is_none()
    );
}

#[test]
fn deaths_elsewhere_begin_anew_and_what_was_passed_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let deaths = Deaths::remembered_in(folder.path());
    for n in 0..5 {
        die(&deaths, n * 10..n * 10 + 10);
    }
    assert_eq!(deaths.of("p", &claim(40, "t")).cut(&[40, 41]), None);
    for _ in 0..3 {
        die(&deaths, 40..50);
    }
    assert_eq!(deaths.of("p", &claim(40, "t")).cut(&[40, 41]), Some(41));
    assert_eq!(deaths.of("p", &claim(40, "another")).cut(&[40, 41]), None);
    assert_eq!(deaths.of("p", &claim(50, "t")).cut(&[50, 51]), None);
    // Two records at which it died in turn: neither was it three times in a row.
    for _ in 0..3 {
        die(&deaths, 60..70);
    }
    for at in [61, 62, 61, 62, 61, 62] {
        die(&deaths, at..at + 1);
    }
    assert_eq!(deaths.of("p", &claim(60, "t")).condemned(&(62..63)), None);
}

/// A mark as a lane under `release` has it.
fn under(mark: Mark, release: &str) -> Mark {
    mark.runs(&release.into());
    mark
}

#[test]
fn a_canary_is_stopped_and_the_release_in_charge_begins_with_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let deaths = Deaths::remembered_in(folder.path());
    let at = |release| under(deaths.of("p", &claim(40, "t")), release);
    for _ in 0..3 {
        assert!(at("new").fails_canary().is_none());
        std::mem::forget(begins(at("new"), 40..50));
    }
    assert_eq!(at("new").cut(&[40, 41]), Some(41));
    assert!(
        at("new").fails_canary().is_none(),
        "others died with it perhaps"
    );
    std::mem::forget(begins(at("new"), 40..41));
    let why = at("new").fails_canary().unwrap();
    assert!(why.to_string().contains("died 4 times"), "{why}");
    assert_eq!(why.blame(), crate::error::Blame::Plugin);
    let stable = at("old");
    assert_eq!(
        (stable.cut(&[40, 41]), stable.condemned(&(40..41))),
        (None, None)
    );
    stable.passed(50);
    drop(stable);
    assert!(at("new").fails_canary().is_none(), "it is past");
}

#[test]
fn a_death_while_a_shadow_was_at_work_is_the_shadow_s_alone() {
    let folder = tempfile::tempdir().unwrap();
    let other = Claim {
        partition: 4,
        ..claim(7, "t")
    };
    for died in 0..=3 {
        let deaths = Deaths::remembered_in(folder.path());
        let innocent = under(deaths.of("p", &other), "old");
        assert_eq!(innocent.suspect(), None);
        let lane = under(deaths.of("p", &claim(40, "t")), "old");
        assert_eq!(lane.suspect(), None);
        let shadow = under(deaths.of_shadow("p", &claim(40, "t")), "new");
        assert_eq!(shadow.fails_shadow().is_some(), died == 3, "{died}");
        if died == 3 {
            break;
        }
        for mark in [begins(innocent, 7..8), begins(shadow, 40..50)] {
            std::mem::forget(mark);
        }
    }
    // Also further on: it is not tried anew. Another one is, and the same one after it was given up.
    let deaths = Deaths::remembered_in(folder.path());
    let further = |release| under(deaths.of_shadow("p", &claim(90, "t")), release);
    assert!(further("new").fails_shadow().is_some());
    assert!(further("newer").fails_shadow().is_none());
    further("new").forget();
    assert!(further("new").fails_shadow().is_none());
    // Without a shadow at work a lane's death is its own.
    std::mem::forget(begins(under(deaths.of("p", &other), "old"), 7..8));
    let deaths = Deaths::remembered_in(folder.path());
    assert!(under(deaths.of("p", &other), "old").suspect().is_some());
}

/// A lane with a record that kills, and shadows that are at other records, and other partitions, each time.
#[test]
fn shadows_that_are_blamed_for_a_lane_are_soon_out_of_its_way() {
    let folder = tempfile::tempdir().unwrap();
    let at = |partition, next| Claim {
        partition,
        ..claim(next, "t")
    };
    let mut died = 0;
    loop {
        let deaths = Deaths::remembered_in(folder.path());
        let lane = under(deaths.of("p", &at(9, 40)), "old");
        if lane.condemned(&(40..41)).is_some() {
            break;
        }
        let (partition, next) = (died % 4, i64::from(died) * 100);
        let shadow = under(deaths.of_shadow("p", &at(partition, next)), "new");
        if shadow.fails_shadow().is_none() {
            std::mem::forget(begins(shadow, next..next + 50));
        }
        std::mem::forget(begins(lane, 40..41));
        died += 1;
    }
    assert!(died <= 12, "{died} deaths until the record was condemned");
}

#[test]
fn whatever_stands_in_the_file_and_wherever_it_cannot_be_the_lane_works() {
    let folder = tempfile::tempdir().unwrap();
    for text in [
        "",
        "working",
        "working x 9 by r died 0 0 0 0 by - topic t",
        "\u{0}\u{0}",
    ] {
        fs::write(folder.path().join("p.3"), text).unwrap();
        let mark = Deaths::remembered_in(folder.path()).of("p", &claim(0, "t"));
        assert_eq!(mark.cut(&[0, 1]), None);
    }
    let nowhere = Deaths::remembered_in(&folder.path().join("p.3"));
    let mark = nowhere.of("p", &claim(0, "t"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    drop(runtime.block_on(mark.working(0..9)));
}

#[test]
fn what_ends_in_order_or_is_dropped_is_no_death_and_a_panic_is() {
    let folder = tempfile::tempdir().unwrap();
    let deaths = Deaths::remembered_in(folder.path());
    let file = folder.path().join("p.3");
    let says = || fs::read_to_string(&file).unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mark = deaths.of("p", &claim(0, "t"));
    let working = runtime.block_on(mark.working(0..9));
    assert!(says().starts_with("working 0 9 "), "{}", says());
    drop(working);
    assert!(says().starts_with("idle "), "{}", says());
    drop(mark);
    assert!(!file.exists());
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mark = deaths.of("p", &claim(0, "t"));
        let _working = runtime.block_on(mark.working(0..9));
        panic!("decode");
    }));
    assert!(outcome.is_err());
    assert!(says().starts_with("working 0 9 "), "{}", says());
}

/// Two writes a batch: printed with `--nocapture`.
#[test]
fn a_marked_batch_costs_microseconds() {
    let folder = tempfile::tempdir().unwrap();
    let mark = Deaths::remembered_in(folder.path()).of("p", &claim(0, "t"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let rounds = 2_000;
    let begun = std::time::Instant::now();
    runtime.block_on(async {
        for at in 0..rounds {
            drop(mark.working(at..at + 1).await);
        }
    });
    let each = begun.elapsed() / u32::try_from(rounds).unwrap();
    eprintln!("{each:?} a batch");
    assert!(each < std::time::Duration::from_millis(1), "{each:?}");
}
