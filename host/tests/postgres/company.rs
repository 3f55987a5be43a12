//! Flights of several lanes in one transaction: who is with whom, and that each lane is told its own outcome.

use futures_util::future::join_all;
use wasmill::anchor::{Anchor, Claim, CommitError};
use wasmill::error::{Blame, Error};
use wasmill::postgres::{PostgresAnchor, PostgresRoute};
use wasmill::record::RowBatch;
use wasmill::route::{DeadClass, DeadLetter};

use crate::support::{Place, claim, columns, commit, connect, ensure, quake_rows, quakes};

/// Transactions that left rows.
const TRANSACTIONS: &str = "SELECT count(DISTINCT xmin::text)::text FROM geo.quakes";
const IDS: &str = "SELECT id::text FROM geo.quakes ORDER BY id";

/// An anchor with one connection that has flown once, so that it knows its statements; lanes 0 to 4.
async fn ready(place: &Place, route: PostgresRoute) -> (PostgresAnchor, Vec<Claim>) {
    let mut settings = place.settings(vec![route]);
    settings.connections = 1;
    let anchor = place.anchor_of(settings).await;
    let first = claim(&anchor, 7).await;
    commit(&anchor, &first, 100..101, &quake_rows(&[(7, "first")]), &[])
        .await
        .unwrap();
    place
        .sql
        .batch_execute("TRUNCATE geo.quakes")
        .await
        .unwrap();
    let claims = anchor.claim(&[0, 1, 2, 3, 4]).await.unwrap();
    (anchor, claims)
}

/// One row of each lane, all at once: the first waits at the table with the only connection, the others for it.
async fn at_once(
    place: &Place,
    anchor: &PostgresAnchor,
    claims: &[Claim],
    rows: &[RowBatch],
    meanwhile: impl Future<Output = ()>,
) -> Vec<Result<(), CommitError>> {
    let owner = connect_lock(place).await;
    let flights = claims.iter().zip(rows);
    let flights = flights.map(|(owner, rows)| commit(anchor, owner, 100..101, rows, &[]));
    let open = async {
        place.waiting("relation").await;
        owner.batch_execute("ROLLBACK").await.unwrap();
        meanwhile.await;
    };
    tokio::join!(join_all(flights), open).0
}

async fn connect_lock(place: &Place) -> tokio_postgres::Client {
    let owner = connect(&place.server.socket_url()).await;
    owner
        .batch_execute("BEGIN; LOCK TABLE geo.quakes")
        .await
        .unwrap();
    owner
}

/// Lane `n` writes id `n`.
fn own_rows() -> Vec<RowBatch> {
    (0..5).map(|id| quake_rows(&[(id, "x")])).collect()
}

async fn nexts(place: &Place) -> String {
    place
        .text("SELECT next::text FROM wasmill.position WHERE partition < 5 ORDER BY partition")
        .await
}

#[tokio::test]
async fn flights_that_wait_share_a_transaction() {
    let place = Place::new().await;
    let (anchor, claims) = ready(&place, quakes()).await;
    let outcomes = at_once(&place, &anchor, &claims, &own_rows(), async {}).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(place.text(IDS).await, "0 1 2 3 4");
    assert_eq!(place.text(TRANSACTIONS).await, "2", "the first, the others");
    assert_eq!(nexts(&place).await, "101 101 101 101 101");
}

#[tokio::test]
async fn a_fenced_lane_changes_nothing_and_takes_nobody_with_it() {
    let place = Place::new().await;
    let (anchor, claims) = ready(&place, quakes()).await;
    let successor = place.anchor(vec![quakes()]).await;
    let newer = claim(&successor, 2).await;
    let outcomes = at_once(&place, &anchor, &claims, &own_rows(), async {}).await;
    for (lane, outcome) in outcomes.iter().enumerate() {
        match lane {
            2 => assert!(
                matches!(outcome, Err(CommitError::Fenced(_))),
                "{outcome:?}"
            ),
            _ => assert!(outcome.is_ok(), "{lane}: {outcome:?}"),
        }
    }
    assert_eq!(place.text(IDS).await, "0 1 3 4");
    assert_eq!(place.text(TRANSACTIONS).await, "4", "each alone");
    assert_eq!(nexts(&place).await, "101 101 100 101 101");
    commit(&successor, &newer, 100..101, &own_rows()[2], &[])
        .await
        .unwrap();
}

#[tokio::test]
async fn a_refused_row_is_its_own_lanes() {
    let place = Place::new().await;
    let (anchor, claims) = ready(&place, quakes()).await;
    place
        .sql
        .batch_execute("ALTER TABLE geo.quakes ADD CHECK (id <> 3)")
        .await
        .unwrap();
    let rows = own_rows();
    let outcomes = at_once(&place, &anchor, &claims, &rows, async {}).await;
    for (lane, outcome) in outcomes.iter().enumerate() {
        match lane {
            3 => assert!(
                matches!(outcome, Err(CommitError::Refused(error)) if error.blame() == Blame::Data),
                "{outcome:?}"
            ),
            _ => assert!(outcome.is_ok(), "{lane}: {outcome:?}"),
        }
    }
    assert_eq!(place.text(IDS).await, "0 1 2 4");
    assert_eq!(nexts(&place).await, "101 101 101 100 101");
    let letter = DeadLetter {
        source: 0,
        class: DeadClass::Data,
        code: "postgres-refused".into(),
        reason: "no".to_owned(),
    };
    commit(&anchor, &claims[3], 100..101, &quake_rows(&[]), &[letter])
        .await
        .unwrap();
    let letters = "SELECT partition || '/' || \"offset\" FROM wasmill.dead_letter";
    assert_eq!(place.text(letters).await, "3/100");
}

#[tokio::test]
async fn dead_letters_travel_together_too() {
    let place = Place::new().await;
    let (anchor, claims) = ready(&place, quakes()).await;
    let letter = [DeadLetter {
        source: 0,
        class: DeadClass::Data,
        code: "malformed".into(),
        reason: "no".to_owned(),
    }];
    let owner = connect_lock(&place).await;
    let rows = own_rows();
    let nothing = quake_rows(&[]);
    let flights = claims
        .iter()
        .zip(&rows)
        .map(|(owner, rows)| match owner.partition {
            0 | 1 => commit(&anchor, owner, 100..101, rows, &[]),
            _ => commit(&anchor, owner, 100..101, &nothing, &letter),
        });
    let open = async {
        place.waiting("relation").await;
        owner.batch_execute("ROLLBACK").await.unwrap();
    };
    let (outcomes, ()) = tokio::join!(join_all(flights), open);
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    let letters =
        "SELECT partition || '/' || \"offset\" FROM wasmill.dead_letter ORDER BY partition";
    assert_eq!(place.text(letters).await, "2/100 3/100 4/100");
    let transactions = "SELECT count(DISTINCT xmin::text)::text FROM wasmill.position \
                        WHERE partition BETWEEN 1 AND 4";
    assert_eq!(place.text(transactions).await, "1");
    assert_eq!(nexts(&place).await, "101 101 101 101 101");
}

/// The session ends inside COMMIT: every lane of it is in doubt, and every claim tells.
#[tokio::test]
async fn a_commit_in_doubt_is_in_doubt_for_each_lane() {
    let place = Place::new().await;
    let (anchor, claims) = ready(&place, quakes()).await;
    place
        .sql
        .batch_execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(10); RETURN NULL; END'; \
             CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON geo.quakes DEFERRABLE INITIALLY DEFERRED \
             FOR EACH ROW WHEN (NEW.id = 4) EXECUTE FUNCTION slow()",
        )
        .await
        .unwrap();
    let rows = own_rows();
    let killer = async {
        place.waiting("PgSleep").await;
        place.terminate().await;
    };
    let outcomes = at_once(&place, &anchor, &claims, &rows, killer).await;
    assert!(outcomes[0].is_ok(), "{outcomes:?}");
    let unknown =
        |outcome: &Result<(), CommitError>| matches!(outcome, Err(CommitError::Unknown(_)));
    assert!(outcomes[1..].iter().all(unknown), "{outcomes:?}");
    place
        .sql
        .batch_execute("DROP TRIGGER slow ON geo.quakes")
        .await
        .unwrap();
    finish(&anchor, &claims, &rows).await;
    assert_eq!(place.text(IDS).await, "0 1 2 3 4");
    assert_eq!(nexts(&place).await, "101 101 101 101 101");
}

/// What lanes do after an unknown outcome: claim anew, and fly again where it did not happen.
async fn finish(anchor: &PostgresAnchor, claims: &[Claim], rows: &[RowBatch]) {
    for (owner, rows) in claims.iter().zip(rows) {
        let anew = claim(anchor, owner.partition).await;
        if anew.next == 100 {
            commit(anchor, &anew, 100..101, rows, &[]).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_lane_that_goes_leaves_the_others_in_doubt_only_where_it_led() {
    let place = Place::new().await;
    let (anchor, claims) = ready(&place, quakes()).await;
    let rows = own_rows();
    let owner = connect_lock(&place).await;
    let fly = |lane: usize| commit(&anchor, &claims[lane], 100..101, &rows[lane], &[]);
    let mut first = Box::pin(fly(0));
    // Lane 0 has the connection, 1 leads those who wait, 4 waits and goes.
    let (mut leads, mut goes) = (Box::pin(fly(1)), Box::pin(fly(4)));
    let waits = join_all([fly(2), fly(3)]);
    let scene = async {
        let turn = async {
            place.waiting("relation").await;
        };
        tokio::select! {
            biased;
            _ = &mut first => panic!("the table is locked"),
            _ = &mut leads => panic!("there is no connection"),
            _ = &mut goes => panic!("there is no connection"),
            () = turn => {}
        }
        drop(goes);
        // Another lock: the first is through, those behind it are not.
        let again = connect(&place.server.socket_url()).await;
        let lock = again.batch_execute("BEGIN; LOCK TABLE geo.quakes");
        let (_, outcome) = tokio::join!(
            async {
                owner.batch_execute("ROLLBACK").await.unwrap();
                lock.await.unwrap();
            },
            first
        );
        outcome.unwrap();
        tokio::select! {
            biased;
            _ = &mut leads => panic!("the table is locked"),
            () = place.waiting("relation") => {}
        }
        drop(leads);
        again.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(
            place.next(4).await,
            100,
            "who goes before its turn is not flown"
        );
    };
    let ((), outcomes) = tokio::join!(scene, waits);
    let unknown =
        |outcome: &Result<(), CommitError>| matches!(outcome, Err(CommitError::Unknown(_)));
    assert!(outcomes.iter().all(unknown), "{outcomes:?}");
    finish(&anchor, &claims, &rows).await;
    assert_eq!(place.text(IDS).await, "0 1 2 3 4");
    assert_eq!(nexts(&place).await, "101 101 101 101 101");
}

/// Two flights sorted by key wait for each other one way round, two lots of flights would not.
#[tokio::test]
async fn flights_that_meet_on_keys_fly_alone() {
    let place = Place::new().await;
    let mut route = quakes();
    route.columns = columns(&[("id", "int64", false), ("place", "text", false)]);
    route.guard = Some(1);
    let (anchor, claims) = ready(&place, route).await;
    let outcomes = at_once(&place, &anchor, &claims, &own_rows(), async {}).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(place.text(TRANSACTIONS).await, "5");
}

#[tokio::test]
async fn what_is_written_ahead_of_flies_alone() {
    let place = Place::new().await;
    let (anchor, claims) = ready(&place, quakes()).await;
    let owner = connect_lock(&place).await;
    let rows = own_rows();
    let flights = claims.iter().zip(&rows).map(|(owner, rows)| {
        let ahead = async { Ok::<(), Error>(()) };
        crate::support::commit_ahead(&anchor, owner, 100..101, rows, &[], ahead)
    });
    let open = async {
        place.waiting("relation").await;
        owner.batch_execute("ROLLBACK").await.unwrap();
    };
    let (outcomes, ()) = tokio::join!(join_all(flights), open);
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(place.text(TRANSACTIONS).await, "5");
}

/// How many there were; once the anchors are gone, for a session counts its own when it ends.
async fn deadlocks(place: &Place) -> String {
    let sessions =
        "SELECT count(*)::text FROM pg_stat_activity WHERE application_name LIKE 'wasmill/%'";
    while place.text(sessions).await != "0" {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let deadlocks =
        "SELECT deadlocks::text FROM pg_stat_database WHERE datname = current_database()";
    place.text(deadlocks).await
}

/// Claims and shared transactions lock positions in the same order.
#[tokio::test]
async fn claims_of_another_host_do_not_deadlock_with_shared_transactions() {
    let place = Place::new().await;
    let (anchor, _) = ready(&place, quakes()).await;
    let other = place.anchor(vec![quakes()]).await;
    let fly = async |partition: i32| {
        for _ in 0..40 {
            let owner = claim(&anchor, partition).await;
            let rows = quake_rows(&[(i64::from(partition) * 1000 + owner.next, "x")]);
            let range = owner.next..owner.next + 1;
            match commit(&anchor, &owner, range, &rows, &[]).await {
                Ok(()) | Err(CommitError::Fenced(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    let rival = async {
        for _ in 0..40 {
            other.claim(&[4, 3, 2, 1, 0]).await.unwrap();
        }
    };
    tokio::join!(join_all([4, 2, 0, 1, 3].map(fly)), rival);
    drop((anchor, other));
    assert_eq!(deadlocks(&place).await, "0");
    let rows = "SELECT (count(*) = (SELECT sum(next - 100) FROM wasmill.position WHERE partition < 5))::text \
                FROM geo.quakes";
    assert_eq!(place.text(rows).await, "true");
}

/// Two pipelines write the same two keys, each the other way round: where both share, they deadlock sooner or later.
#[tokio::test]
async fn those_in_each_others_way_keep_apart_longer_each_time() {
    const FLIGHTS: u32 = 1500;
    let place = Place::with(&[("deadlock_timeout", "10ms")]).await;
    ensure(&place.settings(vec![quakes()])).await.unwrap();
    // Time enough between the first key and the second.
    place
        .sql
        .batch_execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.001); RETURN NULL; END'; \
             CREATE TRIGGER slow AFTER INSERT OR UPDATE ON geo.quakes FOR EACH ROW EXECUTE FUNCTION slow()",
        )
        .await
        .unwrap();
    let fly = async |pipeline: &str, keys: [i64; 2]| {
        let mut settings = place.settings(vec![quakes()]);
        settings.pipeline = pipeline.to_owned();
        settings.connections = 1;
        let anchor = place.anchor_of(settings).await;
        let claims = anchor.claim(&[0, 1]).await.unwrap();
        let lanes = claims.into_iter().zip(keys).map(async |(mut owner, key)| {
            let rows = quake_rows(&[(key, pipeline)]);
            for _ in 0..FLIGHTS {
                let range = owner.next..owner.next + 1;
                commit(&anchor, &owner, range, &rows, &[]).await.unwrap();
                owner.next += 1;
                owner.ledger = owner.ledger.settle(1, 1, 0).unwrap();
            }
        });
        join_all(lanes).await;
    };
    tokio::join!(fly("there", [1, 2]), fly("back", [2, 1]));
    let deadlocks: u32 = deadlocks(&place).await.parse().unwrap();
    // Each of the two is apart for 64, 128, 256, 512 and 1024 flights at most; always for 64 it would be twice as many.
    assert!((1..=10).contains(&deadlocks), "{deadlocks} deadlocks");
}
