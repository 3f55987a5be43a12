//! What every anchor promises: seeds, claims, fencing, one step with everything.

use wasmill::anchor::{Anchor, CommitError, Stored};
use wasmill::error::{Blame, Error};
use wasmill::postgres::PostgresAnchor;
use wasmill::route::{DeadClass, DeadLetter};

use crate::support::{Place, claim, commit, commit_ahead, quake_rows, quakes};

#[tokio::test]
async fn seeds_keep_what_is_stored() {
    let place = Place::new().await;
    let anchor = PostgresAnchor::open(place.settings(Vec::new()))
        .await
        .unwrap();
    assert_eq!(anchor.stored().await.unwrap(), []);
    let at = |partition, next, topic: &str| Stored {
        partition,
        next,
        cuts: Vec::new(),
        topic_id: Some(topic.to_owned()),
    };
    anchor.seed(&[at(1, 10, "a"), at(0, 0, "a")]).await.unwrap();
    anchor.seed(&[at(1, 99, "b"), at(2, 5, "b")]).await.unwrap();
    assert_eq!(
        anchor.stored().await.unwrap(),
        [at(0, 0, "a"), at(1, 10, "a"), at(2, 5, "b")]
    );
    anchor
        .seed(&[at(3, 1, "c"), at(4, -1, "c")])
        .await
        .unwrap_err();
    assert_eq!(anchor.stored().await.unwrap().len(), 3, "all or none");
}

#[tokio::test]
async fn claims_come_in_the_order_asked_and_grow() {
    let place = Place::new().await;
    let anchor = place.anchor(Vec::new()).await;
    let first = anchor.claim(&[3, 0, 5]).await.unwrap();
    let partitions: Vec<i32> = first.iter().map(|claim| claim.partition).collect();
    assert_eq!(partitions, [3, 0, 5]);
    let second = claim(&anchor, 0).await;
    assert_eq!(second.epoch.number, first[1].epoch.number + 1);
    assert_ne!(second.epoch.id, first[1].epoch.id);
    assert_eq!((second.next, second.reserved, second.hlc), (100, 0, 0));
}

#[tokio::test]
async fn a_partition_without_a_position_is_a_data_loss_stop() {
    let place = Place::new().await;
    let anchor = place.anchor(Vec::new()).await;
    let error = anchor.claim(&[0, 8, 9]).await.unwrap_err();
    assert_eq!(error.blame(), Blame::Config);
    assert!(
        error.detail().contains("data loss stop") && error.detail().contains("8, 9"),
        "{error}"
    );
    assert_eq!(
        claim(&anchor, 0).await.epoch.number,
        1,
        "nothing of the failed claim stays"
    );
}

#[tokio::test]
async fn rows_letters_and_position_move_in_one_step() {
    let place = Place::new().await;
    let anchor = place.anchor(vec![quakes()]).await;
    let owner = claim(&anchor, 2).await;
    let dead = [(0, "bad\0byte"), (2, "later"), (2, "twice")].map(|(source, reason)| DeadLetter {
        source,
        class: DeadClass::Data,
        code: "malformed".into(),
        reason: reason.to_owned(),
    });
    commit(
        &anchor,
        &owner,
        100..103,
        &quake_rows(&[(7, "seven"), (3, "three")]),
        &dead,
    )
    .await
    .unwrap();
    assert_eq!(
        place
            .text("SELECT id || ':' || place FROM geo.quakes ORDER BY id")
            .await,
        "3:three 7:seven"
    );
    assert_eq!(
        place
            .text(
                "SELECT concat_ws('/', pipeline, topic, partition, \"offset\", index, class, code, reason, \
                 convert_from(key, 'UTF8'), convert_from(value, 'UTF8'), plugin, digest, \
                 extract(epoch FROM record_timestamp)) FROM wasmill.dead_letter ORDER BY \"offset\", index LIMIT 1"
            )
            .await,
        "quakes/prod.quakes/2/100/0/data/malformed/bad\u{fffd}byte/key-100/value-100/quakes@1.2.0/sha256:abc/1700000000.100000"
    );
    assert_eq!(
        place
            .text("SELECT \"offset\" || '-' || index FROM wasmill.dead_letter ORDER BY 1")
            .await,
        "100-0 102-0 102-1"
    );
    let next = claim(&anchor, 2).await;
    assert_eq!((next.next, next.reserved, next.hlc), (103, 103, 7));
    assert_eq!(next.ledger.counts(), [3, 1, 0, 2]);
    assert_eq!(
        place
            .text("SELECT plugin FROM wasmill.position WHERE partition = 2")
            .await,
        "sha256:abc"
    );
    assert_eq!(place.next(3).await, 100, "other partitions stay");
}

#[tokio::test]
async fn a_ledger_that_does_not_balance_cannot_be_stored() {
    let place = Place::new().await;
    let anchor = place.anchor(Vec::new()).await;
    let mut owner = claim(&anchor, 0).await;
    owner.ledger.emitted = 5;
    let outcome = commit(&anchor, &owner, 100..103, &quake_rows(&[]), &[]).await;
    assert!(
        matches!(&outcome, Err(CommitError::Refused(error)) if error.detail().contains("position_balances")),
        "{outcome:?}"
    );
    assert_eq!(place.next(0).await, 100);
}

#[tokio::test]
async fn a_schema_of_an_earlier_version_is_upgraded_with_its_positions() {
    let place = Place::new().await;
    let anchor = place.anchor(Vec::new()).await;
    // what this version added is taken away again, as if an earlier host had made the schema
    place
        .sql
        .batch_execute(
            "ALTER TABLE wasmill.position DROP CONSTRAINT position_balances, DROP COLUMN records, \
             DROP COLUMN emitted, DROP COLUMN filtered, DROP COLUMN dead, DROP COLUMN retried; \
             DROP FUNCTION wasmill.advance(text, text, text, int4, int8, uuid, int8, int8, int8, int8, text, \
             int8, int8, int8, int8); \
             ALTER TABLE wasmill.dead_letter DROP COLUMN stamp, DROP COLUMN begun; \
             DELETE FROM wasmill.schema_version WHERE version = 2; \
             UPDATE wasmill.position SET next = 150 WHERE partition = 3",
        )
        .await
        .unwrap();
    drop(anchor);
    let (first, second) = tokio::join!(place.anchor(Vec::new()), place.anchor(Vec::new()));
    let owner = claim(&first, 3).await;
    assert_eq!((owner.next, owner.ledger.counts()), (150, [0; 4]));
    commit(&first, &owner, 150..152, &quake_rows(&[]), &[])
        .await
        .unwrap();
    assert_eq!(claim(&second, 3).await.ledger.counts(), [2, 2, 0, 0]);
}

#[tokio::test]
async fn the_older_of_two_claims_is_fenced() {
    let place = Place::new().await;
    let (old, new) = (
        place.anchor(vec![quakes()]).await,
        place.anchor(vec![quakes()]).await,
    );
    let older = claim(&old, 0).await;
    let newer = claim(&new, 0).await;
    let outcome = commit(&old, &older, 100..101, &quake_rows(&[(1, "old")]), &[]).await;
    assert!(
        matches!(outcome, Err(CommitError::Fenced(_))),
        "{outcome:?}"
    );
    commit(&new, &newer, 100..101, &quake_rows(&[(1, "new")]), &[])
        .await
        .unwrap();
    let outcome = commit(&old, &older, 101..102, &quake_rows(&[(1, "old")]), &[]).await;
    assert!(
        matches!(outcome, Err(CommitError::Fenced(_))),
        "the position alone does not let it in: {outcome:?}"
    );
    assert_eq!(place.text("SELECT place FROM geo.quakes").await, "new");
}

#[tokio::test]
async fn another_position_is_fenced_and_nothing_is_doubled() {
    let place = Place::new().await;
    let anchor = place.anchor(vec![quakes()]).await;
    let owner = claim(&anchor, 0).await;
    let rows = quake_rows(&[(1, "one")]);
    commit(&anchor, &owner, 100..101, &rows, &[]).await.unwrap();
    for range in [100..101, 102..103] {
        let outcome = commit(&anchor, &owner, range, &rows, &[]).await;
        assert!(
            matches!(outcome, Err(CommitError::Fenced(_))),
            "{outcome:?}"
        );
    }
    place
        .sql
        .execute("DELETE FROM wasmill.position", &[])
        .await
        .unwrap();
    let outcome = commit(&anchor, &owner, 101..102, &rows, &[]).await;
    assert!(
        matches!(outcome, Err(CommitError::Fenced(_))),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_refused_row_takes_the_whole_flight_back_before_anything_is_sent_ahead() {
    let place = Place::new().await;
    let anchor = place.anchor(vec![quakes()]).await;
    place
        .sql
        .batch_execute("ALTER TABLE geo.quakes ADD CHECK (id < 10)")
        .await
        .unwrap();
    let owner = claim(&anchor, 0).await;
    let sent = std::cell::Cell::new(false);
    let ahead = async {
        sent.set(true);
        Ok(())
    };
    let rows = quake_rows(&[(1, "one"), (10, "ten")]);
    let outcome = commit_ahead(&anchor, &owner, 100..102, &rows, &[], ahead).await;
    let Err(CommitError::Refused(error)) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(error.detail().contains("23514"), "{error}");
    assert_eq!(error.blame(), Blame::Data);
    assert!(!sent.get(), "postgres has its say first");
    assert_eq!(place.next(0).await, 100);
    assert_eq!(place.text("SELECT id::text FROM geo.quakes").await, "");
    commit(&anchor, &owner, 100..101, &quake_rows(&[(1, "one")]), &[])
        .await
        .unwrap();
}

#[tokio::test]
async fn a_failure_ahead_rolls_back_and_the_flight_may_be_repeated() {
    let place = Place::new().await;
    let anchor = place.anchor(vec![quakes()]).await;
    let owner = claim(&anchor, 0).await;
    let rows = quake_rows(&[(1, "one")]);
    let failing = async { Err(Error::outside("write to cassandra", "no quorum")) };
    let outcome = commit_ahead(&anchor, &owner, 100..101, &rows, &[], failing).await;
    let Err(CommitError::Ahead(error)) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(error.detail(), "no quorum");
    assert_eq!(
        (
            place.next(0).await,
            place.text("SELECT id::text FROM geo.quakes").await
        ),
        (100, String::new())
    );
    commit(&anchor, &owner, 100..101, &rows, &[]).await.unwrap();
}

#[tokio::test]
async fn lanes_fly_at_once_over_few_connections() {
    let place = Place::new().await;
    let anchor = place.anchor(vec![quakes()]).await;
    let claims = anchor.claim(&[0, 1, 2, 3, 4, 5, 6, 7]).await.unwrap();
    let flights = claims.iter().map(|owner| {
        let anchor = &anchor;
        async move {
            for step in 0..20 {
                let from = 100 + step;
                let rows = quake_rows(&[(i64::from(owner.partition) * 1000 + step, "x")]);
                commit(anchor, owner, from..from + 1, &rows, &[])
                    .await
                    .unwrap();
            }
        }
    });
    futures_util::future::join_all(flights).await;
    assert_eq!(
        place.text("SELECT count(*)::text FROM geo.quakes").await,
        "160"
    );
    let sessions =
        "SELECT count(*)::text FROM pg_stat_activity WHERE application_name LIKE 'wasmill/%'";
    assert_eq!(place.text(sessions).await, "2");
    let prepared = anchor.stored().await.unwrap();
    assert!(prepared.iter().all(|stored| stored.next == 120));
}
