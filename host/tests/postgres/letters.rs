//! Dead letters as people use them: found by every filter, removed, and retried exactly once, whatever happens to the
//! connection.

use std::collections::BTreeMap;

use wasmill::anchor::{
    Ahead, Becomes, CommitError, Coordinates, DeadLetters, HereRows, Ledger, Letter, LetterFilter,
    LetterPage, LetterRetry, Part, Redriven,
};
use wasmill::error::Error;
use wasmill::postgres::PostgresAnchor;
use wasmill::record::{Batch, Record, RowBatch};
use wasmill::route::{DeadClass, DeadLetter};

use crate::support::{Place, claim, commit, quake_rows, quakes, records, route};

const ALL: LetterPage = LetterPage {
    after: None,
    most: 100,
    bytes: u32::MAX,
};

fn dead(source: u32, class: DeadClass, code: &'static str) -> DeadLetter {
    DeadLetter {
        source,
        class,
        code: code.into(),
        reason: format!("record {source} is {code}"),
    }
}

/// An anchor whose partitions 0 and 1 set aside the records 100, 102 and 104.
async fn set_aside(place: &Place) -> PostgresAnchor {
    let anchor = place.anchor(vec![quakes()]).await;
    for partition in [0, 1] {
        let owner = claim(&anchor, partition).await;
        let letters = [
            dead(0, DeadClass::Data, "malformed"),
            dead(2, DeadClass::Plugin, "trap"),
            dead(4, DeadClass::Data, "no-place"),
        ];
        commit(&anchor, &owner, 100..105, &RowBatch::default(), &letters)
            .await
            .unwrap();
    }
    anchor
}

async fn places(anchor: &PostgresAnchor, filter: LetterFilter) -> Vec<(i32, i64)> {
    let found = anchor.list(&filter, ALL).await.unwrap();
    found
        .iter()
        .map(|letter| (letter.at.partition, letter.at.offset))
        .collect()
}

async fn one(anchor: &PostgresAnchor, partition: i32, offset: i64) -> Letter {
    let only = LetterFilter::only(Coordinates {
        partition,
        offset,
        index: 0,
    });
    anchor.list(&only, ALL).await.unwrap().pop().unwrap()
}

/// Retries a letter with one row; what is written ahead fails where `ahead` says so.
async fn retry(
    anchor: &PostgresAnchor,
    letter: &Letter,
    rows: &RowBatch,
    ahead: Result<(), Error>,
) -> Result<bool, CommitError> {
    let batch = letter.record().unwrap();
    let here = [HereRows { route: 0, rows }];
    let retry = LetterRetry {
        letter,
        batch: &batch,
        rows: &here,
        becomes: match rows.is_empty() {
            true => Becomes::Filtered,
            false => Becomes::Emitted,
        },
    };
    anchor
        .retry(retry, Ahead::writes(std::future::ready(ahead)))
        .await
}

#[tokio::test]
async fn letters_are_found_by_every_filter_and_page_by_page() {
    let place = Place::new().await;
    let anchor = set_aside(&place).await;
    let any = LetterFilter::default;
    let all = places(&anchor, any()).await;
    assert_eq!(all.len(), 6);
    assert!(all.is_sorted(), "{all:?}");
    let of = |change: fn(&mut LetterFilter)| {
        let mut filter = LetterFilter::default();
        change(&mut filter);
        places(&anchor, filter)
    };
    assert_eq!(
        of(|f| f.partition = Some(1)).await,
        [(1, 100), (1, 102), (1, 104)]
    );
    assert_eq!(of(|f| f.from = Some(104)).await, [(0, 104), (1, 104)]);
    assert_eq!(of(|f| f.to = Some(101)).await, [(0, 100), (1, 100)]);
    assert_eq!(
        of(|f| f.class = Some("plugin".to_owned())).await,
        [(0, 102), (1, 102)]
    );
    assert_eq!(
        of(|f| f.code = Some("no-place".to_owned())).await,
        [(0, 104), (1, 104)]
    );
    assert_eq!(
        of(|f| f.plugin = Some("quakes@1.2.0".to_owned()))
            .await
            .len(),
        6
    );
    assert_eq!(of(|f| f.plugin = Some("quakes@1.2.1".to_owned())).await, []);
    assert_eq!(
        of(|f| f.digest = Some("sha256:abc".to_owned())).await.len(),
        6
    );
    assert_eq!(of(|f| f.digest = Some("sha256:abd".to_owned())).await, []);
    assert_eq!(of(|f| f.index = Some(1)).await, []);
    assert_eq!(of(|f| f.since = Some(i64::MIN)).await.len(), 6);
    assert_eq!(of(|f| f.since = Some(i64::MAX)).await, []);
    let first = one(&anchor, 0, 100).await.set_aside.unwrap();
    let until = LetterFilter {
        until: Some(first + 1),
        ..any()
    };
    assert_eq!(places(&anchor, until).await, [(0, 100), (0, 102), (0, 104)]);

    let mut after = None;
    let mut paged = Vec::new();
    loop {
        let page = LetterPage {
            after,
            most: 4,
            bytes: 3,
        };
        let found = anchor.list(&any(), page).await.unwrap();
        let Some(last) = found.last() else { break };
        after = Some(last.at);
        assert!(found.iter().all(|letter| letter.key
            == Part::Bytes {
                bytes: b"key".to_vec(),
                size: 7
            }));
        paged.extend(
            found
                .iter()
                .map(|letter| (letter.at.partition, letter.at.offset)),
        );
    }
    assert_eq!(paged, all);
}

#[tokio::test]
async fn a_letter_is_its_record_again() {
    let place = Place::new().await;
    let anchor = set_aside(&place).await;
    let letter = one(&anchor, 1, 104).await;
    assert_eq!(
        (
            letter.class.as_str(),
            letter.code.as_str(),
            letter.reason.as_str()
        ),
        ("data", "no-place", "record 4 is no-place")
    );
    assert_eq!(letter.digest.as_deref(), Some("sha256:abc"));
    let batch = letter.record().unwrap();
    assert_eq!(batch.record(0), records(1, 104, 105).record(0));

    // what was too large to be kept is known to be missing, and null is not empty
    let owner = claim(&anchor, 2).await;
    let large = vec![b'x'; (4 << 20) + 1];
    let mut batch = Batch::new(2, 100);
    for (offset, key, value) in [
        (100, Some(&b"k"[..]), Some(large.as_slice())),
        (101, None, None),
        (102, Some(&b""[..]), Some(&b""[..])),
    ] {
        batch.push(Record {
            key,
            value,
            timestamp: -1,
            offset,
            headers: &[0, 0, 0, 0],
            marks: 0,
        });
    }
    let letters = [0, 1, 2].map(|source| dead(source, DeadClass::Data, "malformed"));
    let flight = wasmill::anchor::Flight {
        claim: &owner,
        from: 100,
        to: 103,
        reserved: 103,
        hlc: 7,
        ledger: owner.ledger.settle(3, 0, 3).unwrap(),
        batch: &batch,
        stamps: &[2, 4, 6],
        rows: &[],
        dead: &letters,
    };
    wasmill::anchor::Anchor::commit(&anchor, flight, Ahead::nothing())
        .await
        .unwrap();
    let cut = one(&anchor, 2, 100).await;
    assert!(cut.cut && cut.value == Part::LeftOut, "{cut:?}");
    assert!(cut.record().is_none());
    assert_eq!((cut.timestamp, cut.stamp), (-1, Some(2)));
    for index in [1, 2] {
        let letter = one(&anchor, 2, 100 + i64::try_from(index).unwrap()).await;
        assert_eq!(letter.record().unwrap().record(0), batch.record(index));
    }
}

#[tokio::test]
async fn letters_above_the_position_are_not_decided_and_not_there() {
    let place = Place::new().await;
    let anchor = set_aside(&place).await;
    let letter = one(&anchor, 0, 104).await;
    place
        .sql
        .execute(
            "UPDATE wasmill.position SET next = 103 WHERE partition = 0",
            &[],
        )
        .await
        .unwrap();
    let of_0 = LetterFilter {
        partition: Some(0),
        ..LetterFilter::default()
    };
    assert_eq!(places(&anchor, of_0).await, [(0, 100), (0, 102)]);
    let row = quake_rows(&[(1, "one")]);
    assert!(!retry(&anchor, &letter, &row, Ok(())).await.unwrap());
    assert_eq!(
        place.text("SELECT count(*)::text FROM geo.quakes").await,
        "0"
    );
}

#[tokio::test]
async fn removed_letters_are_gone_and_no_others() {
    let place = Place::new().await;
    let anchor = set_aside(&place).await;
    let plugin = LetterFilter {
        class: Some("plugin".to_owned()),
        ..LetterFilter::default()
    };
    let found = anchor.list(&plugin, ALL).await.unwrap();
    assert_eq!(anchor.remove(&found).await.unwrap(), 2);
    assert_eq!(anchor.remove(&found).await.unwrap(), 0, "gone already");
    assert_eq!(
        places(&anchor, LetterFilter::default()).await,
        [(0, 100), (0, 104), (1, 100), (1, 104)]
    );
    assert_eq!(
        place
            .text("SELECT sum(retried)::text FROM wasmill.position")
            .await,
        "0"
    );
}

#[tokio::test]
async fn a_retry_is_rows_removal_and_count_in_one_step() {
    let place = Place::new().await;
    let anchor = set_aside(&place).await;
    let letter = one(&anchor, 0, 102).await;
    let row = quake_rows(&[(7, "seven")]);
    let state = async || {
        place
            .text(
                "SELECT (SELECT count(*) FROM geo.quakes) || '/' || (SELECT count(*) FROM wasmill.dead_letter) || '/' \
                 || (SELECT retried FROM wasmill.position WHERE partition = 0)",
            )
            .await
    };
    let away = Error::outside("write", "away");
    let ahead = retry(&anchor, &letter, &row, Err(away)).await.unwrap_err();
    assert!(matches!(ahead, CommitError::Ahead(_)), "{ahead}");
    assert_eq!(state().await, "0/6/0", "what is written ahead failed first");
    assert!(retry(&anchor, &letter, &row, Ok(())).await.unwrap());
    assert_eq!(state().await, "1/5/1");
    assert!(
        !retry(&anchor, &letter, &row, Ok(())).await.unwrap(),
        "a second time"
    );
    assert_eq!(state().await, "1/5/1");
    let owner = claim(&anchor, 0).await;
    commit(&anchor, &owner, 105..106, &quake_rows(&[(8, "eight")]), &[])
        .await
        .unwrap();
    assert_eq!(state().await, "2/5/1", "the count moves with nothing else");
}

/// What was retried of each partition.
async fn redriven(place: &Place) -> BTreeMap<i32, Redriven> {
    let counts = place.retried().counts().await.unwrap().unwrap();
    let of = ("quakes".to_owned(), "prod.quakes".to_owned());
    counts.get(&of).cloned().unwrap_or_default()
}

/// Emitted, filtered, dead of partition 0 as people are shown them; what is stored balances at every moment.
async fn shown(place: &Place) -> [i64; 3] {
    let row = place
        .sql
        .query_one(
            "SELECT records, emitted, filtered, dead FROM wasmill.position WHERE partition = 0",
            &[],
        )
        .await
        .unwrap();
    let stored = Ledger::stored(0, [row.get(0), row.get(1), row.get(2), row.get(3)]).unwrap();
    let redriven = redriven(place).await;
    let [records, rest @ ..] = stored
        .with(redriven.get(&0).copied().unwrap_or_default())
        .counts();
    assert_eq!(records, rest.iter().sum::<i64>());
    rest
}

#[tokio::test]
async fn retried_letters_count_as_what_they_became_once_and_dropped_ones_as_dead() {
    let place = Place::new().await;
    let anchor = set_aside(&place).await;
    let [emitted, filtered, dead] = shown(&place).await;
    assert_eq!(dead, 3);
    let (row, nothing) = (quake_rows(&[(7, "seven")]), RowBatch::default());
    let mended = one(&anchor, 0, 100).await;
    assert!(retry(&anchor, &mended, &row, Ok(())).await.unwrap());
    let expected = [emitted + 1, filtered, 2];
    assert_eq!(shown(&place).await, expected);
    for rows in [&row, &nothing] {
        assert!(!retry(&anchor, &mended, rows, Ok(())).await.unwrap());
        assert_eq!(shown(&place).await, expected, "a second time");
    }
    let dropped = one(&anchor, 0, 102).await;
    let expected = [emitted + 1, filtered + 1, 1];
    assert!(retry(&anchor, &dropped, &nothing, Ok(())).await.unwrap());
    assert_eq!(shown(&place).await, expected);
    let last = one(&anchor, 0, 104).await;
    assert_eq!(anchor.remove(&[last]).await.unwrap(), 1);
    assert_eq!(shown(&place).await, expected, "it stays dead");
    // A flight writes its ledger whole, and leaves this as it is.
    let owner = claim(&anchor, 0).await;
    commit(&anchor, &owner, 105..106, &quake_rows(&[(8, "eight")]), &[])
        .await
        .unwrap();
    let redriven = redriven(&place).await;
    assert_eq!((redriven[&0].emitted, redriven[&0].filtered), (1, 1));
    assert!(!redriven.contains_key(&1), "none of the other partition");
}

#[tokio::test]
async fn of_concurrent_retries_one_writes() {
    let place = Place::new().await;
    let appended = route(
        "history",
        &[],
        &[("id", "int64", false), ("place", "text", true)],
    );
    let anchor = place.anchor(vec![appended.clone()]).await;
    let other = PostgresAnchor::new(place.settings(vec![appended])).unwrap();
    let owner = claim(&anchor, 0).await;
    let letters: Vec<DeadLetter> = (0..20)
        .map(|source| dead(source, DeadClass::Data, "malformed"))
        .collect();
    commit(&anchor, &owner, 100..120, &RowBatch::default(), &letters)
        .await
        .unwrap();
    let row = quake_rows(&[(7, "seven")]);
    for letter in anchor.list(&LetterFilter::default(), ALL).await.unwrap() {
        let both = futures_util::future::join(
            retry(&anchor, &letter, &row, Ok(())),
            retry(&other, &letter, &row, Ok(())),
        );
        let (one, two) = both.await;
        assert_eq!(
            u8::from(one.unwrap()) + u8::from(two.unwrap()),
            1,
            "{:?}",
            letter.at
        );
    }
    assert_eq!(
        place.text("SELECT count(*)::text FROM geo.history").await,
        "20"
    );
    assert_eq!(
        place
            .text("SELECT retried::text FROM wasmill.position WHERE partition = 0")
            .await,
        "20"
    );
}

#[tokio::test]
async fn a_session_that_ends_between_writes_and_commit_leaves_the_letter() {
    let place = Place::new().await;
    let anchor = set_aside(&place).await;
    let letter = one(&anchor, 0, 100).await;
    let row = quake_rows(&[(7, "seven")]);
    let batch = letter.record().unwrap();
    let here = [HereRows {
        route: 0,
        rows: &row,
    }];
    let killed = async {
        assert!(place.terminate().await > 0);
        Ok(())
    };
    let attempt = LetterRetry {
        letter: &letter,
        batch: &batch,
        rows: &here,
        becomes: Becomes::Emitted,
    };
    let error = anchor
        .retry(attempt, Ahead::writes(killed))
        .await
        .unwrap_err();
    assert!(
        matches!(error, CommitError::RolledBack(_) | CommitError::Unknown(_)),
        "{error}"
    );
    assert_eq!(
        place.text("SELECT count(*)::text FROM geo.quakes").await,
        "0"
    );
    assert!(retry(&anchor, &letter, &row, Ok(())).await.unwrap());
    assert_eq!(
        place.text("SELECT count(*)::text FROM geo.quakes").await,
        "1"
    );
}

#[tokio::test]
async fn a_letter_that_was_replaced_is_not_the_one_that_was_read() {
    let place = Place::new().await;
    let anchor = set_aside(&place).await;
    let read = one(&anchor, 0, 104).await;
    // somebody lowered the position, and the record was set aside again
    place
        .sql
        .execute(
            "UPDATE wasmill.position SET next = 104 WHERE partition = 0",
            &[],
        )
        .await
        .unwrap();
    let owner = claim(&anchor, 0).await;
    let again = [dead(0, DeadClass::Data, "malformed")];
    commit(&anchor, &owner, 104..105, &RowBatch::default(), &again)
        .await
        .unwrap();
    let row = quake_rows(&[(7, "seven")]);
    assert!(!retry(&anchor, &read, &row, Ok(())).await.unwrap());
    assert!(!anchor.keep(&read, &again[0]).await.unwrap());
    let now = one(&anchor, 0, 104).await;
    assert!(retry(&anchor, &now, &row, Ok(())).await.unwrap());
}

#[tokio::test]
async fn a_retry_in_vain_keeps_the_letter_with_its_new_reason() {
    let place = Place::new().await;
    let anchor = set_aside(&place).await;
    let before = one(&anchor, 0, 100).await;
    let new = dead(0, DeadClass::Plugin, "limit");
    assert!(anchor.keep(&before, &new).await.unwrap());
    let after = one(&anchor, 0, 100).await;
    assert_eq!(
        (after.class.as_str(), after.code.as_str()),
        ("plugin", "limit")
    );
    assert!(after.tried.is_some(), "{after:?}");
    assert_eq!(after.set_aside, before.set_aside);
    assert_eq!(
        after.record().unwrap().record(0),
        before.record().unwrap().record(0)
    );
    let row = quake_rows(&[(7, "seven")]);
    assert!(
        retry(&anchor, &before, &row, Ok(())).await.unwrap(),
        "it is the same letter"
    );
}

#[tokio::test]
async fn a_retry_that_was_begun_is_one_releases_alone() {
    let place = Place::new().await;
    let anchor = set_aside(&place).await;
    let letter = one(&anchor, 0, 100).await;
    assert_eq!(letter.begun, None);
    assert!(anchor.begin(&letter, "release-a").await.unwrap());
    assert!(anchor.begin(&letter, "release-a").await.unwrap(), "again");
    assert!(!anchor.begin(&letter, "release-b").await.unwrap());
    let begun = one(&anchor, 0, 100).await;
    assert_eq!(begun.begun.as_deref(), Some("release-a"));
    assert_eq!(
        anchor.remove(std::slice::from_ref(&begun)).await.unwrap(),
        0,
        "some of its rows may be out"
    );
    let dead = dead(0, DeadClass::Data, "postgres-refused");
    assert!(anchor.keep(&begun, &dead).await.unwrap());
    assert_eq!(one(&anchor, 0, 100).await.begun, begun.begun);
    // nor does one that failed and had read the letter before that
    assert!(anchor.keep(&letter, &dead).await.unwrap());
    assert_eq!(one(&anchor, 0, 100).await.begun, begun.begun);
    assert!(!anchor.begin(&letter, "release-b").await.unwrap());
    assert!(
        retry(&anchor, &letter, &quake_rows(&[(7, "seven")]), Ok(()))
            .await
            .unwrap()
    );
    assert!(
        !anchor.begin(&letter, "release-b").await.unwrap(),
        "it is gone"
    );
}

#[tokio::test]
async fn rows_that_postgres_refuses_leave_the_letter() {
    let place = Place::new().await;
    let anchor = set_aside(&place).await;
    place
        .sql
        .batch_execute("ALTER TABLE geo.quakes ADD CHECK (place <> 'nowhere')")
        .await
        .unwrap();
    let letter = one(&anchor, 0, 100).await;
    let error = retry(&anchor, &letter, &quake_rows(&[(7, "nowhere")]), Ok(()))
        .await
        .unwrap_err();
    assert!(matches!(error, CommitError::Refused(_)), "{error}");
    assert_eq!(places(&anchor, LetterFilter::default()).await.len(), 6);
}

#[tokio::test]
async fn a_letter_of_before_the_ledger_is_retried_all_the_same() {
    let place = Place::new().await;
    drop(set_aside(&place).await);
    place.as_version_1_left_it().await;
    let anchor = place.anchor(vec![quakes()]).await;
    let letter = one(&anchor, 0, 100).await;
    let row = quake_rows(&[(7, "seven")]);
    assert!(retry(&anchor, &letter, &row, Ok(())).await.unwrap());
    let retried = "SELECT retried::text FROM wasmill.position WHERE partition = 0";
    assert_eq!(place.text(retried).await, "0");
}
