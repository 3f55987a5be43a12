//! What a server's refusals mean for a flight, class by class, on a real server.

use std::time::Duration;

use wasmill::anchor::{Anchor, CommitError};
use wasmill::error::{Blame, Retry};
use wasmill::record::{Op, RowBatch};

use crate::support::{Is, Place, claim, commit, connect, push, quake_rows, quakes, route};

/// Makes an insert of `place = 'bad'` into `geo.quakes` raise this SQLSTATE, or run this statement.
async fn bad_ones(place: &Place, then: &str) {
    place
        .sql
        .batch_execute(&format!(
            "CREATE FUNCTION bad() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF new.place = 'bad' THEN {then}; END IF; RETURN new; END $$; \
             CREATE TRIGGER bad BEFORE INSERT ON geo.quakes FOR EACH ROW EXECUTE FUNCTION bad()"
        ))
        .await
        .unwrap();
}

#[tokio::test]
async fn data_that_does_not_fit_is_refused() {
    let place = Place::new().await;
    let mut long = route("long", &[0], &[("id", "text", false)]);
    long.index = 0;
    let anchor = place
        .anchor(vec![long, {
            let mut other = quakes();
            other.index = 1;
            other
        }])
        .await;
    let owner = claim(&anchor, 0).await;
    // 54000: more than an index entry holds, and does not compress.
    let mut key = String::new();
    while key.len() < 9000 {
        key += &uuid::Uuid::new_v4().to_string();
    }
    // 22001: a table that was narrowed after the deploy.
    for (id, sqlstate) in [(key.as_str(), "54000"), ("four", "22001")] {
        let mut rows = RowBatch::default();
        push(&mut rows, 0, Op::Write, &[Is::Text(id)]);
        let outcome = commit(&anchor, &owner, 100..101, &rows, &[]).await;
        assert!(
            matches!(&outcome, Err(CommitError::Refused(error))
                if error.detail().contains(sqlstate) && error.blame() == Blame::Data),
            "{outcome:?}"
        );
        place
            .sql
            .batch_execute("ALTER TABLE geo.long ALTER COLUMN id TYPE varchar(3)")
            .await
            .unwrap();
    }
    // 23514, of a constraint the host knows nothing of.
    place
        .sql
        .batch_execute("ALTER TABLE geo.long ADD CHECK (id <> 'no')")
        .await
        .unwrap();
    let mut rows = RowBatch::default();
    push(&mut rows, 0, Op::Write, &[Is::Text("no")]);
    let outcome = commit(&anchor, &owner, 100..101, &rows, &[]).await;
    assert!(
        matches!(&outcome, Err(CommitError::Refused(error)) if error.detail().contains("23514")),
        "{outcome:?}"
    );
    assert_eq!(place.next(0).await, 100);
}

/// Two transactions that wait for each other: the server ends ours, and the same flight goes through afterwards.
#[tokio::test]
async fn a_deadlock_is_tried_again() {
    let place = Place::new().await;
    place
        .sql
        .batch_execute("ALTER DATABASE postgres SET deadlock_timeout = '100ms'")
        .await
        .unwrap();
    let anchor = place.anchor(vec![quakes()]).await;
    let owner = claim(&anchor, 0).await;
    let rows = quake_rows(&[(1, "one"), (2, "two")]);
    commit(&anchor, &owner, 100..102, &rows, &[]).await.unwrap();
    let other = connect(&place.server.socket_url()).await;
    other
        .batch_execute(
            "SET deadlock_timeout = '30s'; BEGIN; UPDATE geo.quakes SET place = 'x' WHERE id = 2",
        )
        .await
        .unwrap();
    let owner = claim(&anchor, 0).await;
    let flight = commit(&anchor, &owner, 102..104, &rows, &[]);
    let circle = async {
        place.waiting("transactionid").await;
        other
            .batch_execute("UPDATE geo.quakes SET place = 'x' WHERE id = 1; COMMIT")
            .await
            .unwrap();
    };
    let (outcome, ()) = tokio::join!(flight, circle);
    assert!(
        matches!(&outcome, Err(CommitError::RolledBack(error))
            if error.detail().contains("40P01") && error.retry() == Retry::Backoff),
        "{outcome:?}"
    );
    commit(&anchor, &owner, 102..104, &rows, &[]).await.unwrap();
    assert_eq!(
        place.text("SELECT place FROM geo.quakes ORDER BY id").await,
        "one two"
    );
}

#[tokio::test]
async fn what_passes_by_itself_is_tried_again() {
    for sqlstate in ["40001", "55P03", "53100", "57P03", "25006"] {
        let place = Place::new().await;
        let anchor = place.anchor(vec![quakes()]).await;
        bad_ones(
            &place,
            &format!("RAISE EXCEPTION 'for now' USING ERRCODE = '{sqlstate}'"),
        )
        .await;
        let owner = claim(&anchor, 0).await;
        let outcome = commit(&anchor, &owner, 100..101, &quake_rows(&[(1, "bad")]), &[]).await;
        assert!(
            matches!(&outcome, Err(CommitError::RolledBack(error))
                if error.detail().contains(sqlstate) && error.retry() == Retry::Backoff),
            "{outcome:?}"
        );
    }
}

/// Too slow, or nobody knows: rolled back with the word that the flight itself may be why. The lane halves it then,
/// and stops at a single record only if the blame is not outside.
#[tokio::test]
async fn what_may_be_the_flights_own_fault_says_so() {
    for (then, sqlstate, blame) in [
        ("PERFORM pg_sleep(5)", "57014", Blame::Outside),
        ("RAISE EXCEPTION 'a rule of ours'", "P0001", Blame::Config),
        (
            "RAISE EXCEPTION 'view' USING ERRCODE = '44000'",
            "44000",
            Blame::Config,
        ),
    ] {
        let place = Place::new().await;
        let mut settings = place.settings(vec![quakes()]);
        settings.timeouts.statement = Duration::from_millis(300);
        let anchor = place.anchor_of(settings).await;
        bad_ones(&place, then).await;
        let owner = claim(&anchor, 0).await;
        let both = quake_rows(&[(1, "good"), (2, "bad")]);
        let outcome = commit(&anchor, &owner, 100..102, &both, &[]).await;
        assert!(
            matches!(&outcome, Err(CommitError::RolledBack(error))
                if error.detail().contains(sqlstate) && error.retry() == Retry::Never && error.blame() == blame),
            "{outcome:?}"
        );
        // Half of it passes.
        commit(&anchor, &owner, 100..101, &quake_rows(&[(1, "good")]), &[])
            .await
            .unwrap();
        assert_eq!(place.text("SELECT place FROM geo.quakes").await, "good");
    }
}

/// Whatever the database and the user default to, a flight runs in what it was made for.
#[tokio::test]
async fn a_session_is_pinned() {
    let place = Place::new().await;
    place
        .sql
        .batch_execute(
            "CREATE SCHEMA trap; CREATE FUNCTION trap.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT NULL::timestamptz $$; \
             ALTER DATABASE postgres SET search_path = trap, pg_catalog; \
             ALTER DATABASE postgres SET default_transaction_isolation = 'serializable'; \
             ALTER DATABASE postgres SET default_transaction_read_only = on; \
             ALTER DATABASE postgres SET statement_timeout = 900; \
             ALTER DATABASE postgres SET TimeZone = 'Asia/Tokyo'",
        )
        .await
        .unwrap();
    let anchor = place.anchor(vec![quakes()]).await;
    place
        .sql
        .batch_execute(
            "CREATE TABLE public.seen (what text); CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             INSERT INTO public.seen SELECT concat_ws('/', current_setting('search_path'), \
             current_setting('transaction_isolation'), current_setting('statement_timeout'), \
             current_setting('lock_timeout'), current_setting('idle_in_transaction_session_timeout'), \
             current_setting('TimeZone'), current_setting('client_connection_check_interval')); \
             RETURN new; END $$; \
             CREATE TRIGGER look BEFORE INSERT ON geo.quakes FOR EACH ROW EXECUTE FUNCTION look()",
        )
        .await
        .unwrap();
    let owner = claim(&anchor, 0).await;
    commit(&anchor, &owner, 100..101, &quake_rows(&[(1, "x")]), &[])
        .await
        .unwrap();
    assert_eq!(
        place.text("SELECT what FROM public.seen").await,
        "pg_catalog, public/read committed/30s/5s/25s/UTC/2s"
    );
    assert_eq!(anchor.stored().await.unwrap()[0].next, 101);
}
