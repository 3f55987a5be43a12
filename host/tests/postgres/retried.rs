//! The counts of retried dead letters that a status asks for: one connection however often they are asked for, which
//! reads and makes nothing, and what is not there is not known.

use std::collections::BTreeSet;

use wasmill::postgres::Retried;

use crate::support::{Place, quakes};

/// The processes of the server that answered since the place began, of sessions that are still open.
async fn sessions(place: &Place) -> BTreeSet<String> {
    let all = place
        .text("SELECT pid::text FROM pg_stat_activity WHERE application_name = 'wasmill/status'")
        .await;
    all.split_whitespace().map(str::to_owned).collect()
}

/// Emitted and filtered of partition 0 of pipeline `quakes`.
async fn counted(retried: &Retried) -> Option<(u64, u64)> {
    let counts = retried.counts().await.unwrap()?;
    let of = ("quakes".to_owned(), "prod.quakes".to_owned());
    let one = counts.get(&of).and_then(|of| of.get(&0).copied());
    let one = one.unwrap_or_default();
    Some((one.emitted, one.filtered))
}

#[tokio::test]
async fn counts_that_are_asked_for_again_and_again_share_one_connection() {
    let place = Place::new().await;
    let _anchor = place.anchor(vec![quakes()]).await;
    let retried = place.retried();
    assert_eq!(counted(&retried).await, Some((0, 0)));
    let one = sessions(&place).await;
    assert_eq!(one.len(), 1, "{one:?}");
    let retry = "UPDATE wasmill.position SET records = 5, dead = 5, retried = 3, retried_filtered = 1 WHERE partition = 0";
    place.sql.batch_execute(retry).await.unwrap();
    for _ in 0..5 {
        assert_eq!(counted(&retried).await, Some((2, 1)));
        assert_eq!(sessions(&place).await, one);
    }
    // One that the server closed is told once at most, and another is opened.
    place.terminate().await;
    if retried.counts().await.is_err() {
        assert_eq!(counted(&retried).await, Some((2, 1)));
    }
    let other = sessions(&place).await;
    assert!(other.len() == 1 && other != one, "{one:?}, {other:?}");
}

#[tokio::test]
async fn what_is_not_there_or_may_not_be_read_is_not_known_and_nothing_is_made() {
    let place = Place::new().await;
    let retried = place.retried();
    assert_eq!(counted(&retried).await, None);
    let schema = "SELECT count(*)::text FROM pg_namespace WHERE nspname = 'wasmill'";
    assert_eq!(place.text(schema).await, "0");
    let before = sessions(&place).await;
    let _anchor = place.anchor(vec![quakes()]).await;
    assert_eq!(counted(&retried).await, Some((0, 0)));
    place.as_version_1_left_it().await;
    assert_eq!(counted(&retried).await, None);
    assert_eq!(sessions(&place).await, before, "the same connection");
}
