//! Positions under LWT, and dead letters.

use std::cell::Cell;
use std::sync::Arc;

use scylla::value::CqlValue;
use wasmill::anchor::{
    Ahead, Anchor, Claim, CommitError, DeadLetters, Flight, LetterFilter, LetterPage, Part, Stored,
};
use wasmill::cassandra::{AnchorSettings, CassandraAnchor, CassandraSession};
use wasmill::error::{Blame, Error};
use wasmill::record::{Batch, Record};
use wasmill::route::{DeadClass, DeadLetter};

use super::pin::pin;
use super::support::World;

pub(crate) async fn anchor(session: &CassandraSession, pipeline: &str) -> CassandraAnchor {
    CassandraAnchor::create_tables(session).await.unwrap();
    let settings = AnchorSettings {
        pipeline: pipeline.to_owned(),
        topic: "quakes".to_owned(),
        plugin: "quakes@1.0.0".to_owned(),
        digest: "sha256:abc".to_owned(),
        advances: Arc::new(tokio::sync::Semaphore::new(16)),
    };
    CassandraAnchor::open(session, settings).await.unwrap()
}

pub(crate) fn seed(partition: i32, next: i64) -> Stored {
    Stored {
        partition,
        next,
        cuts: Vec::new(),
        topic_id: Some("id-1".to_owned()),
    }
}

/// A batch of one record an offset, and their write times.
pub(crate) fn batch(from: i64, to: i64) -> (Batch, Vec<i64>) {
    let mut batch = Batch::new(0, from);
    for offset in from..to {
        batch.push(Record {
            key: Some(b"key"),
            value: Some(b"value"),
            timestamp: 1_000 + offset,
            offset,
            headers: b"",
            marks: 0,
        });
    }
    let stamps = (from..to).map(|offset| (1_000 + offset) * 1_000).collect();
    (batch, stamps)
}

pub(crate) fn nothing() -> Ahead<'static> {
    Ahead::nothing()
}

/// Commits `[from, to)` with these offsets set aside.
pub(crate) async fn commit(
    anchor: &CassandraAnchor,
    claim: &Claim,
    range: std::ops::Range<i64>,
    dead: &[i64],
    ahead: Ahead<'_>,
) -> Result<(), CommitError> {
    let (batch, stamps) = batch(range.start, range.end);
    let dead: Vec<DeadLetter> = dead
        .iter()
        .map(|offset| DeadLetter {
            source: u32::try_from(offset - range.start).unwrap(),
            class: DeadClass::Data,
            code: "malformed".into(),
            reason: format!("record {offset} is no JSON"),
        })
        .collect();
    let (all, set_aside) = (batch.len() as u64, dead.len() as u64);
    let settled = claim.ledger.settle(all, all - set_aside, set_aside);
    let flight = Flight {
        claim,
        from: range.start,
        to: range.end,
        reserved: range.end + 10,
        hlc: stamps.last().copied().unwrap_or(claim.hlc),
        ledger: settled.unwrap(),
        batch: &batch,
        stamps: &stamps,
        rows: &[],
        dead: &dead,
    };
    anchor.commit(flight, ahead).await
}

async fn next(anchor: &CassandraAnchor) -> i64 {
    anchor.stored().await.unwrap()[0].next
}

pub(crate) fn seeds_once(world: &World) {
    world.block(async {
        let session = world.session().await;
        let anchor = anchor(&session, "seeds").await;
        assert_eq!(anchor.stored().await.unwrap(), vec![]);
        let error = anchor.claim(&[0]).await.unwrap_err();
        assert_eq!(error.blame(), Blame::Config);
        assert!(error.detail().starts_with("DATA LOSS"), "{error}");
        let first: Vec<Stored> = (0..20).map(|partition| seed(partition, 100)).collect();
        anchor.seed(&first).await.unwrap();
        assert_eq!(anchor.stored().await.unwrap(), first);
        // a second deploy with other numbers, and partitions that came later
        let mut second: Vec<Stored> = (0..22).map(|partition| seed(partition, 7)).collect();
        anchor.seed(&second).await.unwrap();
        second[..20].clone_from_slice(&first);
        assert_eq!(anchor.stored().await.unwrap(), second);
        let claims = anchor.claim(&[21, 3]).await.unwrap();
        assert_eq!(
            (claims[0].partition, claims[0].next, claims[0].reserved),
            (21, 7, 7)
        );
        assert_eq!(
            (claims[1].partition, claims[1].next, claims[1].hlc),
            (3, 100, 0)
        );
        assert_eq!(claims[1].topic_id.as_deref(), Some("id-1"));
        assert_eq!(claims[1].epoch.number, 1);
        let again = anchor.claim(&[3]).await.unwrap();
        assert_eq!(again[0].epoch.number, 2);
        assert_ne!(again[0].epoch.id, claims[1].epoch.id);
    });
}

/// What a TRUNCATE leaves of a row that an LWT changes at that moment: the cells of the change, and no others.
pub(crate) fn a_row_that_is_not_whole_is_a_data_loss(world: &World) {
    world.block(async {
        let session = world.session().await;
        let (anchor, eye) = (anchor(&session, "torn").await, world.eye().await);
        let row = "pipeline = 'torn' AND topic = 'quakes' AND \"partition\" = 0";
        // A change of a position names the first three in its condition, and writes the others.
        for (lost, named, value) in [
            ("epoch_number", true, "1"),
            ("epoch_id", true, "00000000-0000-0000-0000-000000000000"),
            ("next", true, "0"),
            ("reserved", false, "0"),
            ("hlc", false, "0"),
        ] {
            anchor.seed(&[seed(0, 0)]).await.unwrap();
            let claim = anchor.claim(&[0]).await.unwrap().remove(0);
            let torn = format!("DELETE {lost} FROM KS.wasmill_position WHERE {row} IF EXISTS");
            eye.run(&torn).await;
            let mut errors = vec![
                anchor.claim(&[0]).await.unwrap_err(),
                anchor.stored().await.unwrap_err(),
            ];
            if named {
                match commit(&anchor, &claim, 0..10, &[], nothing()).await {
                    Err(CommitError::Stop(error)) => errors.push(error),
                    other => panic!("{lost}: {other:?}"),
                }
            }
            // A seed leaves what is there alone, torn or not.
            anchor.seed(&[seed(0, 0)]).await.unwrap();
            errors.push(anchor.claim(&[0]).await.unwrap_err());
            for error in errors {
                assert_eq!(error.blame(), Blame::Config, "{lost}: {error}");
                assert!(error.detail().starts_with("DATA LOSS"), "{lost}: {error}");
                assert!(error.what().contains("\"torn\", quakes/0"), "{error}");
                let hint = error.hint_text();
                assert!(hint.is_some_and(|hint| hint.contains("restore")));
            }
            let restored =
                format!("UPDATE KS.wasmill_position SET {lost} = {value} WHERE {row} IF EXISTS");
            eye.run(&restored).await;
            anchor.claim(&[0]).await.unwrap();
            let gone = format!("DELETE FROM KS.wasmill_position WHERE {row} IF EXISTS");
            eye.run(&gone).await;
        }
    });
}

pub(crate) fn the_newer_claim_fences_the_older(world: &World) {
    world.block(async {
        let session = world.session().await;
        let (one, two) = (
            anchor(&session, "duel").await,
            anchor(&session, "duel").await,
        );
        one.seed(&[seed(0, 0)]).await.unwrap();
        let older = one.claim(&[0]).await.unwrap().remove(0);
        let newer = two.claim(&[0]).await.unwrap().remove(0);
        let fenced = commit(&one, &older, 0..5, &[], nothing())
            .await
            .unwrap_err();
        assert!(matches!(fenced, CommitError::Fenced(_)), "{fenced}");
        let fenced = one.settle(&older).await.unwrap_err();
        assert!(matches!(fenced, CommitError::Fenced(_)), "{fenced}");
        let fenced = pin(&one, &older, 0, 50, &[]).await.unwrap_err();
        assert!(matches!(fenced, CommitError::Fenced(_)), "{fenced}");
        assert_eq!(next(&two).await, 0);
        commit(&two, &newer, 0..5, &[], nothing()).await.unwrap();
        two.settle(&newer).await.unwrap();
        assert_eq!(next(&two).await, 5);
        // both at once: each ends with a claim of its own, and only the later one holds
        let (a, b) = futures_util::future::join(one.claim(&[0]), two.claim(&[0])).await;
        let (a, b) = (a.unwrap().remove(0), b.unwrap().remove(0));
        assert_ne!(a.epoch.number, b.epoch.number);
        let a_late = a.epoch.number > b.epoch.number;
        let results = [
            commit(&one, &a, 5..6, &[], nothing()).await,
            commit(&two, &b, 5..6, &[], nothing()).await,
        ];
        assert_eq!(results[0].is_ok(), a_late, "{results:?}");
        assert_eq!(results[1].is_ok(), !a_late, "{results:?}");
        assert_eq!(next(&one).await, 6);
    });
}

pub(crate) fn positions_follow_lazily(world: &World) {
    world.block(async {
        let session = world.session().await;
        let anchor = anchor(&session, "lazy").await;
        anchor.seed(&[seed(0, 0)]).await.unwrap();
        let claim = anchor.claim(&[0]).await.unwrap().remove(0);
        pin(&anchor, &claim, 0, 1_000, &[]).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(210)).await;
        commit(&anchor, &claim, 0..5, &[], nothing()).await.unwrap();
        assert_eq!(next(&anchor).await, 5, "the first flight is stored at once");
        commit(&anchor, &claim, 5..8, &[], nothing()).await.unwrap();
        commit(&anchor, &claim, 8..9, &[], nothing()).await.unwrap();
        assert_eq!(next(&anchor).await, 5, "held back");
        anchor.settle(&claim).await.unwrap();
        assert_eq!(next(&anchor).await, 9);
        anchor.settle(&claim).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(210)).await;
        commit(&anchor, &claim, 9..11, &[], nothing())
            .await
            .unwrap();
        assert_eq!(next(&anchor).await, 11, "the interval is over");
        let again = anchor.claim(&[0]).await.unwrap().remove(0);
        assert_eq!(
            (again.next, again.reserved, again.hlc),
            (11, 1_000, 1_010_000)
        );
        let gap = commit(&anchor, &again, 12..13, &[], nothing())
            .await
            .unwrap_err();
        assert!(matches!(gap, CommitError::Stop(_)), "{gap}");
    });
}

pub(crate) fn grants_are_stored_before_they_are_used(world: &World) {
    world.block(async {
        let session = world.session().await;
        let (anchor, eye) = (anchor(&session, "grants").await, world.eye().await);
        anchor.seed(&[seed(0, 0)]).await.unwrap();
        let claim = anchor.claim(&[0]).await.unwrap().remove(0);
        assert_eq!(claim.reserved, 0);
        let seen = Cell::new((0, 0));
        let look = || {
            Ahead::writes(async {
                let rows = eye
                    .rows(
                        "SELECT next, reserved FROM KS.wasmill_position WHERE pipeline = 'grants' AND \
                         topic = 'quakes' AND \"partition\" = 0",
                    )
                    .await;
                if let [Some(CqlValue::BigInt(next)), Some(CqlValue::BigInt(reserved))] = rows[0][..] {
                    seen.set((next, reserved));
                }
                Ok(())
            })
        };
        // while the data are sent, the grant for them is stored and the position is not
        commit(&anchor, &claim, 0..5, &[], look()).await.unwrap();
        assert_eq!(seen.get(), (0, 15));
        commit(&anchor, &claim, 5..9, &[], look()).await.unwrap();
        assert_eq!(seen.get().1, 15);
        commit(&anchor, &claim, 9..40, &[], look()).await.unwrap();
        assert_eq!(seen.get(), (9, 50), "what was held back went with the grant");
        anchor.settle(&claim).await.unwrap();
        let next = anchor.claim(&[0]).await.unwrap().remove(0);
        assert_eq!((next.next, next.ledger.counts()), (40, [31, 31, 0, 0]));
    });
}

pub(crate) fn nothing_moves_when_the_data_fail(world: &World) {
    world.block(async {
        let session = world.session().await;
        let anchor = anchor(&session, "fails").await;
        anchor.seed(&[seed(0, 0)]).await.unwrap();
        let claim = anchor.claim(&[0]).await.unwrap().remove(0);
        let fails = Ahead::writes(async { Err(Error::outside("write", "away")) });
        let error = commit(&anchor, &claim, 0..5, &[], fails).await.unwrap_err();
        assert!(matches!(error, CommitError::Ahead(_)), "{error}");
        anchor.settle(&claim).await.unwrap();
        assert_eq!(next(&anchor).await, 0);
        commit(&anchor, &claim, 0..5, &[], nothing()).await.unwrap();
        anchor.settle(&claim).await.unwrap();
        assert_eq!(next(&anchor).await, 5);
    });
}

pub(crate) fn dead_letters(world: &World) {
    world.block(async {
        let session = world.session().await;
        let (anchor, eye) = (anchor(&session, "dead").await, world.eye().await);
        anchor.seed(&[seed(0, 0)]).await.unwrap();
        let claim = anchor.claim(&[0]).await.unwrap().remove(0);
        // the flight's data fail after its letters were written ahead
        let fails = Ahead::writes(async { Err(Error::outside("write", "away")) });
        let dead: Vec<i64> = (0..150).filter(|offset| offset % 50 != 7).collect();
        commit(&anchor, &claim, 0..150, &dead, fails).await.unwrap_err();
        let letters = "SELECT \"offset\", \"index\", class, code, reason, \"key\", \"value\", headers, value_size, \
                       plugin, stamp, writetime(reason) FROM KS.wasmill_dead_letter WHERE pipeline = 'dead' AND \
                       topic = 'quakes' AND \"partition\" = 0";
        let rows = eye.rows(letters).await;
        assert_eq!(rows.len(), 147);
        let text = |value: &str| Some(CqlValue::Text(value.to_owned()));
        let want = vec![
            Some(CqlValue::BigInt(1)),
            Some(CqlValue::Int(0)),
            text("data"),
            text("malformed"),
            text("record 1 is no JSON"),
            Some(CqlValue::Blob(b"key".to_vec())),
            Some(CqlValue::Blob(b"value".to_vec())),
            None,
            Some(CqlValue::BigInt(5)),
            text("quakes@1.0.0"),
            Some(CqlValue::BigInt(1_001_000)),
            Some(CqlValue::BigInt(1_001_000)),
        ];
        assert_eq!(rows[1], want);
        // the next owner finds the reservation and judges three of them otherwise
        let claim = anchor.claim(&[0]).await.unwrap().remove(0);
        assert_eq!((claim.next, claim.reserved), (0, 160));
        commit(&anchor, &claim, 0..150, &dead[3..], nothing()).await.unwrap();
        assert_eq!(eye.rows(letters).await.len(), 144);
        anchor.settle(&claim).await.unwrap();
        assert_eq!(next(&anchor).await, 150);
        // a letter of the first owner that arrives late loses
        eye.run(
            "INSERT INTO KS.wasmill_dead_letter (pipeline, topic, \"partition\", \"offset\", \"index\", code) \
             VALUES ('dead', 'quakes', 0, 1, 0, 'late') USING TIMESTAMP 1001000",
        )
        .await;
        assert_eq!(eye.rows(letters).await.len(), 144);
    });
}

pub(crate) fn dead_letters_found_and_removed(world: &World) {
    world.block(async {
        let session = world.session().await;
        let anchor = anchor(&session, "letters").await;
        anchor.seed(&[seed(0, 0), seed(1, 0)]).await.unwrap();
        let claim = anchor.claim(&[0]).await.unwrap().remove(0);
        let fails = Ahead::writes(async { Err(Error::outside("write", "away")) });
        let dead: Vec<i64> = (0..150).filter(|offset| offset % 3 == 0).collect();
        commit(&anchor, &claim, 0..150, &dead, fails)
            .await
            .unwrap_err();
        let page = |after, most| LetterPage {
            after,
            most,
            bytes: 2,
        };
        let all = LetterFilter::default();
        let found = anchor.list(&all, page(None, 1000)).await.unwrap();
        assert_eq!(found, [], "written ahead of the position: not decided yet");

        let claim = anchor.claim(&[0]).await.unwrap().remove(0);
        commit(&anchor, &claim, 0..150, &dead, nothing())
            .await
            .unwrap();
        anchor.settle(&claim).await.unwrap();
        let mut after = None;
        let mut paged = Vec::new();
        loop {
            let found = anchor.list(&all, page(after, 7)).await.unwrap();
            let Some(last) = found.last() else { break };
            after = Some(last.at);
            paged.extend(found);
        }
        let offsets: Vec<i64> = paged.iter().map(|letter| letter.at.offset).collect();
        assert_eq!(offsets, dead);
        let letter = &paged[1];
        assert_eq!(
            (
                letter.class.as_str(),
                letter.code.as_str(),
                letter.reason.as_str()
            ),
            ("data", "malformed", "record 3 is no JSON")
        );
        assert_eq!(
            (letter.plugin.as_str(), letter.digest.as_deref()),
            ("quakes@1.0.0", Some("sha256:abc"))
        );
        assert_eq!(
            (letter.stamp, letter.timestamp, letter.cut),
            (Some(1_003_000), 1_003, false)
        );
        assert_eq!(
            letter.value,
            Part::Bytes {
                bytes: b"va".to_vec(),
                size: 5
            }
        );
        let set_aside = letter.set_aside.unwrap();
        let of = async |change: &dyn Fn(&mut LetterFilter)| {
            let mut filter = LetterFilter::default();
            change(&mut filter);
            anchor.list(&filter, page(None, 1000)).await.unwrap().len()
        };
        assert_eq!(of(&|f| f.partition = Some(1)).await, 0);
        assert_eq!(of(&|f| f.from = Some(148)).await, 0);
        assert_eq!(of(&|f| (f.from, f.to) = (Some(3), Some(10))).await, 3);
        assert_eq!(of(&|f| f.code = Some("trap".to_owned())).await, 0);
        assert_eq!(of(&|f| f.digest = Some("sha256:abc".to_owned())).await, 50);
        assert_eq!(of(&|f| f.since = Some(set_aside + 600_000_000)).await, 0);
        let exactly = LetterFilter::only(letter.at);
        let whole = LetterPage {
            after: None,
            most: 1,
            bytes: u32::MAX,
        };
        let one = anchor.list(&exactly, whole).await.unwrap().remove(0);
        let (records, _) = batch(3, 4);
        assert_eq!(one.record().unwrap().record(0), records.record(0));

        assert_eq!(anchor.remove(&paged[..20]).await.unwrap(), 20);
        let left = anchor.list(&all, page(None, 1000)).await.unwrap();
        assert_eq!(
            left.iter()
                .map(|letter| letter.at.offset)
                .collect::<Vec<_>>(),
            dead[20..]
        );
    });
}
