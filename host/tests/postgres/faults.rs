//! Connections that end, servers that hang, commits in doubt: what is reported is what happened.

use std::time::{Duration, Instant};

use wasmill::anchor::{Ahead, Anchor, Claim, CommitError};
use wasmill::error::{Blame, Error};
use wasmill::postgres::PostgresAnchor;
use wasmill_local::LocalServer;

use crate::support::{
    Place, claim, commit, commit_ahead, connect, ensure, fly, quake_rows, quakes,
};

/// Commits again until it goes through; the server may still be letting go of the flight before.
async fn again(anchor: &PostgresAnchor, owner: &Claim) {
    for _ in 0..50 {
        match commit(
            anchor,
            owner,
            owner.next..owner.next + 1,
            &quake_rows(&[(1, "again")]),
            &[],
        )
        .await
        {
            Ok(()) => return,
            Err(CommitError::RolledBack(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(other) => panic!("{other:?}"),
        }
    }
    panic!("never went through");
}

#[tokio::test]
async fn a_session_ended_before_the_commit_is_rolled_back_for_sure() {
    let place = Place::new().await;
    let anchor = place.anchor(vec![quakes()]).await;
    let owner = claim(&anchor, 0).await;
    let ahead = async {
        assert!(place.terminate().await > 0);
        tokio::time::sleep(Duration::from_millis(200)).await;
        Ok(())
    };
    let outcome = commit_ahead(
        &anchor,
        &owner,
        100..101,
        &quake_rows(&[(1, "lost")]),
        &[],
        ahead,
    )
    .await;
    let Err(CommitError::RolledBack(error)) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(error.blame(), Blame::Outside);
    assert_eq!(
        (
            place.next(0).await,
            place.text("SELECT place FROM geo.quakes").await
        ),
        (100, String::new())
    );
    again(&anchor, &owner).await;
    assert_eq!(place.text("SELECT place FROM geo.quakes").await, "again");
}

#[tokio::test]
async fn a_session_ended_while_it_writes_is_rolled_back_for_sure_only_before_commit_is_sent() {
    let place = Place::new().await;
    let anchor = place.anchor(vec![quakes()]).await;
    let ended = async |ahead: Ahead<'_>| {
        let owner = claim(&anchor, 0).await;
        let from = owner.next;
        // What it waits for below is not its statements' preparation.
        let rows = quake_rows(&[(0, "there")]);
        commit(&anchor, &owner, from..from + 1, &rows, &[])
            .await
            .unwrap();
        place
            .sql
            .batch_execute("BEGIN; LOCK TABLE geo.quakes")
            .await
            .unwrap();
        let rows = quake_rows(&[(1, "lost")]);
        let owner = claim(&anchor, 0).await;
        let flight = fly(&anchor, &owner, from + 1..from + 2, &rows, &[], ahead);
        let killer = async {
            place.waiting("relation").await;
            assert!(place.terminate().await > 0);
        };
        let (outcome, ()) = tokio::join!(flight, killer);
        place.sql.batch_execute("ROLLBACK").await.unwrap();
        outcome
    };
    let outcome = ended(Ahead::writes(async { panic!("never") })).await;
    assert!(
        matches!(outcome, Err(CommitError::RolledBack(_))),
        "{outcome:?}"
    );
    // COMMIT was on its way behind the rows: a proxy in between might have lost the server's last words.
    let outcome = ended(Ahead::nothing()).await;
    assert!(
        matches!(outcome, Err(CommitError::Unknown(_))),
        "{outcome:?}"
    );
    let anew = claim(&anchor, 0).await;
    assert_eq!(anew.next, 102);
    again(&anchor, &anew).await;
    assert_eq!(place.next(0).await, 103);
}

#[tokio::test]
async fn a_row_that_another_transaction_holds_is_waited_for_and_then_rolled_back() {
    let place = Place::new().await;
    let mut settings = place.settings(vec![quakes()]);
    settings.timeouts.lock = Duration::from_millis(200);
    let anchor = place.anchor_of(settings.clone()).await;
    let owner = claim(&anchor, 0).await;
    place
        .sql
        .batch_execute("BEGIN; INSERT INTO geo.quakes VALUES (1, 'mine')")
        .await
        .unwrap();
    let outcome = commit(&anchor, &owner, 100..101, &quake_rows(&[(1, "x")]), &[]).await;
    assert!(
        matches!(&outcome, Err(CommitError::RolledBack(error)) if error.detail().contains("55P03")),
        "{outcome:?}"
    );
    settings.timeouts.statement = Duration::from_millis(200);
    settings.timeouts.lock = Duration::from_secs(5);
    let anchor = PostgresAnchor::new(settings).unwrap();
    let outcome = commit(&anchor, &owner, 100..101, &quake_rows(&[(1, "x")]), &[]).await;
    assert!(
        matches!(&outcome, Err(CommitError::RolledBack(error)) if error.detail().contains("57014")),
        "{outcome:?}"
    );
    place.sql.batch_execute("ROLLBACK").await.unwrap();
    again(&anchor, &owner).await;
}

/// COMMIT is sent, the session ends before it is done: unknown, and in truth rolled back.
#[tokio::test]
async fn a_commit_in_doubt_that_did_not_happen() {
    let place = Place::new().await;
    let anchor = place.anchor(vec![quakes()]).await;
    place
        .sql
        .batch_execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(10); RETURN NULL; END'; \
             CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON geo.quakes DEFERRABLE INITIALLY DEFERRED \
             FOR EACH ROW EXECUTE FUNCTION slow()",
        )
        .await
        .unwrap();
    let owner = claim(&anchor, 0).await;
    let rows = quake_rows(&[(1, "x")]);
    let flight = commit(&anchor, &owner, 100..101, &rows, &[]);
    let killer = async {
        place.waiting("PgSleep").await;
        assert_eq!(
            place
                .text("SELECT query FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
                .await,
            "COMMIT"
        );
        place.terminate().await;
    };
    let (outcome, ()) = tokio::join!(flight, killer);
    assert!(
        matches!(outcome, Err(CommitError::Unknown(_))),
        "{outcome:?}"
    );
    let anew = claim(&anchor, 0).await;
    assert_eq!(
        (anew.next, place.text("SELECT place FROM geo.quakes").await),
        (100, String::new())
    );
}

/// COMMIT happened, the session ends while it waits for a standby: unknown, and in truth committed.
#[tokio::test]
async fn a_commit_in_doubt_that_did_happen() {
    let place = Place::new().await;
    let anchor = place.anchor(vec![quakes()]).await;
    let owner = claim(&anchor, 0).await;
    let standby = async |names: &str| {
        place
            .sql
            .batch_execute("SET synchronous_commit = local")
            .await
            .unwrap();
        place
            .sql
            .batch_execute(&format!(
                "ALTER SYSTEM SET synchronous_standby_names = '{names}'"
            ))
            .await
            .unwrap();
        place
            .sql
            .batch_execute("SELECT pg_reload_conf()")
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    standby("nobody").await;
    let rows = quake_rows(&[(1, "there")]);
    let flight = commit(&anchor, &owner, 100..101, &rows, &[]);
    let killer = async {
        place.waiting("SyncRep").await;
        place.terminate().await;
    };
    let (outcome, ()) = tokio::join!(flight, killer);
    assert!(
        matches!(outcome, Err(CommitError::Unknown(_))),
        "{outcome:?}"
    );
    standby("").await;
    let anew = claim(&anchor, 0).await;
    assert_eq!(
        (anew.next, place.text("SELECT place FROM geo.quakes").await),
        (101, "there".to_owned())
    );
    let outcome = commit(&anchor, &owner, 100..101, &rows, &[]).await;
    assert!(
        matches!(outcome, Err(CommitError::Fenced(_))),
        "a blind retry is harmless: {outcome:?}"
    );
}

#[tokio::test]
async fn a_commit_without_a_reply_is_in_doubt_and_the_next_claim_knows() {
    let mut place = Place::new().await;
    let mut settings = place.settings(vec![quakes()]);
    settings.timeouts.statement = Duration::from_millis(500);
    let anchor = place.anchor_of(settings).await;
    let owner = claim(&anchor, 0).await;
    let rows = quake_rows(&[(1, "x")]);
    let server: &mut LocalServer = place.local();
    let ahead = async {
        server.pause().unwrap();
        Ok(())
    };
    let outcome = commit_ahead(&anchor, &owner, 100..101, &rows, &[], ahead).await;
    assert!(
        matches!(outcome, Err(CommitError::Unknown(_))),
        "{outcome:?}"
    );
    place.local().resume().unwrap();
    let anew = claim(&anchor, 0).await;
    let found = place.text("SELECT place FROM geo.quakes").await;
    assert_eq!(
        found,
        if anew.next == 101 { "x" } else { "" },
        "rows and position agree"
    );
    again(&anchor, &anew).await;
}

#[tokio::test]
async fn a_claim_waits_for_an_orphan_and_then_sees_what_it_did() {
    let place = Place::new().await;
    let anchor = place.anchor(vec![quakes()]).await;
    let owner = claim(&anchor, 0).await;
    let successor = place.anchor(Vec::new()).await;
    let rows = quake_rows(&[(1, "x")]);
    let ahead = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        Ok(())
    };
    let orphan = commit_ahead(&anchor, &owner, 100..101, &rows, &[], ahead);
    let claimed = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let start = Instant::now();
        let claimed = successor.claim(&[1, 0]).await.unwrap();
        assert!(start.elapsed() > Duration::from_millis(300), "it waited");
        claimed
    };
    let (outcome, claimed) = tokio::join!(orphan, claimed);
    outcome.unwrap();
    assert_eq!(
        (claimed[1].next, claimed[1].epoch.number),
        (101, owner.epoch.number + 1)
    );
}

#[tokio::test]
async fn a_claim_that_waits_too_long_says_what_it_waited_for() {
    let place = Place::new().await;
    let mut settings = place.settings(Vec::new());
    settings.timeouts.claim = Duration::from_millis(300);
    let anchor = place.anchor_of(settings).await;
    place
        .sql
        .batch_execute("BEGIN; SELECT * FROM wasmill.position WHERE partition = 4 FOR UPDATE")
        .await
        .unwrap();
    let error = anchor.claim(&[3, 4]).await.unwrap_err();
    assert_eq!(error.blame(), Blame::Outside);
    assert!(error.detail().contains("earlier owner"), "{error}");
    place.sql.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(anchor.claim(&[3, 4]).await.unwrap()[0].epoch.number, 1);
}

#[tokio::test]
async fn two_claimers_of_the_same_partitions_do_not_deadlock() {
    let place = Place::new().await;
    let (one, two) = (
        place.anchor(Vec::new()).await,
        place.anchor(Vec::new()).await,
    );
    let duel = async |anchor: &PostgresAnchor, partitions: [i32; 4]| {
        for _ in 0..25 {
            anchor.claim(&partitions).await.unwrap();
        }
    };
    tokio::join!(duel(&one, [0, 1, 2, 3]), duel(&two, [3, 2, 1, 0]));
    assert!(
        one.claim(&[0, 1, 2, 3])
            .await
            .unwrap()
            .iter()
            .all(|claim| claim.epoch.number == 51)
    );
}

#[tokio::test]
async fn a_flight_dropped_half_way_leaves_nothing() {
    let place = Place::new().await;
    let anchor = place.anchor(vec![quakes()]).await;
    let owner = claim(&anchor, 0).await;
    let rows = quake_rows(&[(1, "x")]);
    let never = std::future::pending::<Result<(), Error>>();
    let flight = commit_ahead(&anchor, &owner, 100..101, &rows, &[], never);
    assert!(
        tokio::time::timeout(Duration::from_millis(300), flight)
            .await
            .is_err()
    );
    let anew = claim(&anchor, 0).await;
    assert_eq!(
        (anew.next, place.text("SELECT place FROM geo.quakes").await),
        (100, String::new())
    );
    again(&anchor, &anew).await;
}

#[tokio::test]
async fn a_server_that_was_away_is_found_again() {
    let mut place = Place::new().await;
    let anchor = place.anchor(vec![quakes()]).await;
    let owner = claim(&anchor, 0).await;
    place.local().kill().unwrap();
    let outcome = commit(&anchor, &owner, 100..101, &quake_rows(&[(1, "x")]), &[]).await;
    assert!(
        matches!(
            outcome,
            Err(CommitError::RolledBack(_) | CommitError::Unknown(_))
        ),
        "{outcome:?}"
    );
    let error = anchor.stored().await.unwrap_err();
    assert_eq!(error.blame(), Blame::Outside, "{error}");
    place.local().restart().unwrap();
    place.sql = connect(&place.server.socket_url()).await;
    again(&anchor, &owner).await;
    assert_eq!(place.next(0).await, 101);
}

#[tokio::test]
async fn a_table_that_went_away_stops_the_pipeline() {
    let place = Place::new().await;
    let anchor = place.anchor(vec![quakes()]).await;
    let owner = claim(&anchor, 0).await;
    place
        .sql
        .batch_execute("DROP TABLE geo.quakes")
        .await
        .unwrap();
    let outcome = commit(&anchor, &owner, 100..101, &quake_rows(&[(1, "x")]), &[]).await;
    let Err(CommitError::Stop(error)) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(error.hint_text().is_some(), "{error:?}");
    ensure(&place.settings(vec![quakes()])).await.unwrap();
    again(&anchor, &owner).await;
}
