//! Write times lifted after a topic gained partitions: all to the greatest, in one step, whoever runs is fenced.

use wasmill::anchor::{Anchor, CommitError, Stored};
use wasmill::record::RowBatch;

use crate::support::{Place, claim, commit};

fn added(partition: i32) -> Stored {
    Stored {
        partition,
        next: 0,
        cuts: Vec::new(),
        topic_id: None,
    }
}

#[tokio::test]
async fn every_partition_writes_after_the_greatest_and_the_new_ones_too() {
    let place = Place::new().await;
    let anchor = place.anchor(Vec::new()).await;
    let running = claim(&anchor, 1).await;
    place
        .sql
        .batch_execute(
            "UPDATE wasmill.position SET hlc = 1000 + partition; \
             INSERT INTO wasmill.position (pipeline, topic, partition, next, hlc) \
             VALUES ('other', 'prod.quakes', 0, 0, 9999), ('quakes', 'other', 0, 0, 9999)",
        )
        .await
        .unwrap();
    // A position that is there keeps its place.
    let lifted = anchor.raise(&[added(8), added(9), added(3)]).await.unwrap();
    assert_eq!(lifted, 1007);
    let stored: Vec<(i32, i64)> = anchor
        .stored()
        .await
        .unwrap()
        .iter()
        .map(|stored| (stored.partition, stored.next))
        .collect();
    let want: Vec<(i32, i64)> = (0..8).map(|p| (p, 100)).chain([(8, 0), (9, 0)]).collect();
    assert_eq!(stored, want);
    for partition in 0..10 {
        assert_eq!(claim(&anchor, partition).await.hlc, 1007, "{partition}");
    }
    let others =
        "SELECT hlc::text FROM wasmill.position WHERE pipeline = 'other' OR topic = 'other'";
    assert_eq!(place.text(others).await, "9999 9999");
    // Whoever ran meanwhile would have written a lower time back.
    let outcome = commit(&anchor, &running, 100..101, &RowBatch::default(), &[]).await;
    assert!(
        matches!(outcome, Err(CommitError::Fenced(_))),
        "{outcome:?}"
    );
    assert_eq!(anchor.raise(&[]).await.unwrap(), 1007, "once more");
}
