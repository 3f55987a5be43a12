//! Grants and cuts: stored exactly, under epoch and position, and untouched by everything else.

use std::time::Duration;

use wasmill::anchor::{Anchor, Claim, CommitError, Cut, Pin, Stored};
use wasmill::error::Blame;
use wasmill::postgres::{Durability, PostgresAnchor};
use wasmill::record::RowBatch;

use crate::support::{Place, claim, commit, connect, ensure};

fn cuts(list: &[(i64, &str)]) -> Vec<Cut> {
    list.iter()
        .map(|(at, release)| Cut::new(*at, (*release).to_owned()))
        .collect()
}

async fn pin(
    anchor: &PostgresAnchor,
    owner: &Claim,
    next: i64,
    reserved: i64,
    list: &[(i64, &str)],
) -> Result<(), CommitError> {
    let cuts = cuts(list);
    let pin = Pin {
        reserved,
        cuts: &cuts,
    };
    anchor.pin(owner, next, pin).await
}

#[tokio::test]
async fn a_pin_stores_exactly_what_it_says() {
    let place = Place::new().await;
    let anchor = place.anchor(Vec::new()).await;
    let owner = claim(&anchor, 0).await;
    assert_eq!(owner.cuts, []);
    let raised = [(100, "a"), (500, "b \"quoted\""), (300, "c")];
    for (reserved, list) in [(500, &raised[..]), (300, &raised[..1]), (300, &[])] {
        pin(&anchor, &owner, 100, reserved, list).await.unwrap();
        let stored = anchor.stored().await.unwrap();
        assert_eq!(stored[0].cuts, cuts(list), "in listing order");
        assert_eq!(stored[1].cuts, [], "other partitions stay");
        let reserved_now = "SELECT reserved::text FROM wasmill.position WHERE partition = 0";
        assert_eq!(place.text(reserved_now).await, reserved.to_string());
    }
    pin(&anchor, &owner, 100, 700, &raised).await.unwrap();
    let next = claim(&anchor, 0).await;
    assert_eq!((next.reserved, &next.cuts), (700, &cuts(&raised)));
}

#[tokio::test]
async fn a_flight_touches_no_cuts_and_lowers_no_grant() {
    let place = Place::new().await;
    let anchor = place.anchor(Vec::new()).await;
    let owner = claim(&anchor, 0).await;
    pin(&anchor, &owner, 100, 500, &[(100, "a")]).await.unwrap();
    commit(&anchor, &owner, 100..101, &RowBatch::default(), &[])
        .await
        .unwrap();
    let next = claim(&anchor, 0).await;
    assert_eq!(
        (next.next, next.reserved, next.cuts),
        (101, 500, cuts(&[(100, "a")]))
    );
}

#[tokio::test]
async fn a_pin_is_checked_on_epoch_and_position() {
    let place = Place::new().await;
    let anchor = place.anchor(Vec::new()).await;
    let older = claim(&anchor, 0).await;
    pin(&anchor, &older, 100, 500, &[(100, "a")]).await.unwrap();
    for next in [99, 101] {
        let outcome = pin(&anchor, &older, next, 600, &[]).await;
        assert!(
            matches!(outcome, Err(CommitError::Fenced(_))),
            "{outcome:?}"
        );
    }
    let newer = claim(&anchor, 0).await;
    let same_number = Claim {
        epoch: wasmill::anchor::Epoch {
            number: newer.epoch.number,
            id: older.epoch.id,
        },
        ..newer.clone()
    };
    for fenced in [&older, &same_number] {
        // also one that would change nothing
        for reserved in [500, 900] {
            let outcome = pin(&anchor, fenced, 100, reserved, &[(100, "a")]).await;
            assert!(
                matches!(outcome, Err(CommitError::Fenced(_))),
                "{outcome:?}"
            );
        }
    }
    let last = claim(&anchor, 0).await;
    assert_eq!((last.reserved, last.cuts), (500, cuts(&[(100, "a")])));
}

#[tokio::test]
async fn a_pin_delayed_past_a_newer_claim_changes_nothing() {
    let place = Place::new().await;
    let anchor = place.anchor(Vec::new()).await;
    let owner = claim(&anchor, 0).await;
    let other = connect(&place.server.socket_url()).await;
    other
        .batch_execute(
            "BEGIN; UPDATE wasmill.position SET epoch = epoch + 1, claim_id = gen_random_uuid() WHERE partition = 0",
        )
        .await
        .unwrap();
    let newer = async {
        place.waiting("transactionid").await;
        other.batch_execute("COMMIT").await.unwrap();
    };
    let delayed = pin(&anchor, &owner, 100, 900, &[(100, "late")]);
    let (outcome, ()) = futures_util::future::join(delayed, newer).await;
    assert!(
        matches!(outcome, Err(CommitError::Fenced(_))),
        "{outcome:?}"
    );
    let next = claim(&anchor, 0).await;
    assert_eq!((next.reserved, next.cuts), (0, Vec::new()));
}

#[tokio::test]
async fn a_pin_is_durable_where_flights_are_not() {
    let place = Place::with(&[("synchronous_commit", "off")]).await;
    let anchor = place.anchor(Vec::new()).await;
    let owner = claim(&anchor, 0).await;
    // whatever the commit runs under is told by a trigger that fires just before it
    place
        .sql
        .batch_execute(
            "CREATE TABLE public.seen (value text); \
             CREATE FUNCTION public.look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen \
             VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$; \
             CREATE CONSTRAINT TRIGGER look AFTER UPDATE ON wasmill.position DEFERRABLE INITIALLY DEFERRED \
             FOR EACH ROW EXECUTE FUNCTION public.look()",
        )
        .await
        .unwrap();
    pin(&anchor, &owner, 100, 200, &[(100, "a")]).await.unwrap();
    commit(&anchor, &owner, 100..101, &RowBatch::default(), &[])
        .await
        .unwrap();
    let seen = place.text("SELECT value FROM public.seen").await;
    assert_eq!(seen, "on off", "the pin, then the flight");
    // With something written ahead a flight may not vanish either.
    let mut settings = place.settings(Vec::new());
    settings.durability = Durability::Disk;
    let ahead = PostgresAnchor::new(settings).unwrap();
    let owner = claim(&ahead, 0).await;
    commit(&ahead, &owner, 101..102, &RowBatch::default(), &[])
        .await
        .unwrap();
    let seen = place.text("SELECT value FROM public.seen").await;
    assert_eq!(seen, "on off on on", "the claim and its flight");
}

#[tokio::test]
async fn seeds_store_cuts_and_keep_those_that_are_there() {
    let place = Place::new().await;
    ensure(&place.settings(Vec::new())).await.unwrap();
    let anchor = PostgresAnchor::new(place.settings(Vec::new())).unwrap();
    let seed = |partition, list: &[(i64, &str)]| Stored {
        partition,
        next: 10,
        cuts: cuts(list),
        topic_id: None,
    };
    let first = [seed(0, &[(10, "a"), (20, "b")]), seed(1, &[])];
    anchor.seed(&first).await.unwrap();
    assert_eq!(anchor.stored().await.unwrap(), first);
    anchor.seed(&[seed(0, &[(10, "other")])]).await.unwrap();
    assert_eq!(anchor.stored().await.unwrap(), first);
    assert_eq!(claim(&anchor, 0).await.cuts, first[0].cuts);
}

#[tokio::test]
async fn cuts_that_are_none_stop_naming_the_row_and_take_nothing() {
    let place = Place::new().await;
    let anchor = place.anchor(Vec::new()).await;
    for broken in ["{}", "[{\"at\": \"x\", \"release\": \"a\"}]", "[1]"] {
        place
            .sql
            .execute(
                "UPDATE wasmill.position SET cuts = $1::text::jsonb WHERE partition = 3",
                &[&broken],
            )
            .await
            .unwrap();
        for error in [
            anchor.claim(&[2, 3]).await.unwrap_err(),
            anchor.stored().await.unwrap_err(),
        ] {
            assert_eq!(error.blame(), Blame::Config);
            assert!(
                error.what().contains("\"quakes\", prod.quakes/3"),
                "{error}"
            );
            assert!(error.hint_text().is_some_and(|hint| hint.contains("cuts")));
        }
    }
    let fits = tokio::time::timeout(Duration::from_secs(10), claim(&anchor, 2)).await;
    assert_eq!(
        fits.unwrap().epoch.number,
        1,
        "nothing of the failed claims stays, locks neither"
    );
}
