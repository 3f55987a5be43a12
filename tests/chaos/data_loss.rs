//! Records that are gone before they were read: the pipeline stops and says so, it never starts from a guess.

use std::time::Duration;

use wasmill_tests::Stage;
use wasmill_tests::records::{Made, Place};

use super::flights::{more, passes, staged, total};
use crate::scenario::flights::flights_in_postgres;

const SOON: Duration = Duration::from_secs(60);

/// A stage whose host has read a part and was stopped in good order; where it stands, and where all records are.
async fn stopped_on_the_way() -> (Stage, i64, Vec<Place>) {
    let (stage, mut places) = staged(1, 4_000).await;
    let host = stage.host(&flights_in_postgres());
    passes(&stage, 1_000).await;
    assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
    let position = stage.position("flights").await;
    more(&stage, 1_000, &mut places);
    (stage, position, places)
}

/// Starts the host again, which has to stop by itself, say `words`, and move nothing.
async fn refuses_to_guess(stage: &Stage, position: i64, words: &[&str]) {
    let rows = stage.number("SELECT count(*) FROM flight_log").await;
    let exit = stage.again().wait(SOON);
    assert_eq!(exit.code, Some(3), "{}", exit.stderr);
    let said = exit.stderr.to_lowercase();
    for word in words {
        assert!(
            said.contains(word),
            "{word:?} is not said:\n{}",
            exit.stderr
        );
    }
    assert_eq!(
        stage.position("flights").await,
        position,
        "the position moved"
    );
    assert_eq!(
        stage.number("SELECT count(*) FROM flight_log").await,
        rows,
        "rows were written"
    );
}

#[tokio::test]
async fn retention_that_passed_the_position_is_a_data_loss() {
    let (stage, position, _) = stopped_on_the_way().await;
    stage
        .broker
        .as_ref()
        .unwrap()
        .set_log_start("flights", 0, position + 500)
        .unwrap();
    refuses_to_guess(&stage, position, &["data loss"]).await;
}

#[tokio::test]
async fn retention_up_to_the_position_is_none() {
    let (stage, position, places) = stopped_on_the_way().await;
    stage
        .broker
        .as_ref()
        .unwrap()
        .set_log_start("flights", 0, position)
        .unwrap();
    let total = total(&places);
    let host = stage.again();
    passes(&stage, total).await;
    assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
    assert_eq!(stage.number("SELECT count(*) FROM flight_log").await, total);
}

#[tokio::test]
async fn a_recreated_topic_is_a_data_loss_even_if_it_is_longer() {
    let (stage, position, _) = stopped_on_the_way().await;
    stage
        .broker
        .as_ref()
        .unwrap()
        .delete_topic("flights")
        .unwrap();
    stage.feed.topic("flights", 1).await;
    let other: Vec<Made> = (0..position + 10)
        .map(|index| Made::new(format!("other-{index}"), "{}"))
        .collect();
    stage.feed.send("flights", &other);
    refuses_to_guess(&stage, position, &["data loss", "flights"]).await;
}
