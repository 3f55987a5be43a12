//! Positions that are gone from the topic that holds them, of a pipeline that writes topics only: it stops, writes none
//! anew, and begins again once an operator did what the message says, with Kafka's own tool. Needs Java.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use wasmill_local::Kafka;
use wasmill_tests::Stage;
use wasmill_tests::records::{Made, Place};
use wasmill_tests::wait::eventually;

use super::lost_positions::{forget, stops};
use super::transactions::{LETTERS, POSITIONS, alerts, committed, ends_exact, passes, staged};

const LONG: Duration = Duration::from_secs(60);
const GROUP: &str = "wasmill.alerts";

/// A pipeline that has read all records and was stopped in good order.
async fn stopped() -> Option<(Kafka, Stage, Vec<Place>)> {
    let (kafka, stage, flow) = staged().await?;
    let host = stage.host(&alerts());
    passes(&stage, 2_000).await;
    let places = flow.stop();
    ends_exact(&stage, &places).await;
    assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
    Some((kafka, stage, places))
}

fn exists(stage: &Stage, topic: &str) -> Result<bool, String> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", stage.bootstrap());
    let consumer: BaseConsumer = config.create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10));
    let metadata = metadata.map_err(|error| error.to_string())?;
    match metadata.topics()[0].error().map(RDKafkaErrorCode::from) {
        None => Ok(true),
        Some(RDKafkaErrorCode::UnknownTopicOrPartition) => Ok(false),
        Some(other) => Err(other.to_string()),
    }
}

async fn delete(stage: &Stage, topic: &str) {
    stage.feed.delete_topic(topic).await;
    eventually(LONG, "the topic is gone", async || {
        match exists(stage, topic)? {
            true => Err("it is there".to_owned()),
            false => Ok(()),
        }
    })
    .await;
}

/// The group forgets, and the pipeline begins again, into topics that hold nothing of it.
async fn begins_again(stage: &Stage, places: &[Place]) {
    forget(stage.bootstrap(), GROUP).await;
    let host = stage.again();
    ends_exact(stage, places).await;
    assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
}

#[tokio::test]
async fn a_topic_of_positions_that_is_gone_is_a_data_loss_until_the_group_forgets() {
    let Some((_kafka, stage, places)) = stopped().await else {
        return;
    };
    let messages = committed(&stage, "alerts").unwrap().len();
    delete(&stage, POSITIONS).await;
    let gone = "DATA LOSS: the topic is gone";
    let too = format!("delete topic {LETTERS:?} too");
    for _ in 0..2 {
        stops(stage.again(), &[gone, &too]);
        assert_eq!(exists(&stage, POSITIONS), Ok(false), "made anew");
    }
    // As it says.
    delete(&stage, LETTERS).await;
    let tool = format!("kafka-consumer-groups --delete --group {GROUP}");
    for _ in 0..2 {
        stops(stage.again(), &["data loss", "had one of at least", &tool]);
        assert_eq!(committed(&stage, POSITIONS).unwrap().len(), 0);
    }
    assert_eq!(committed(&stage, "alerts").unwrap().len(), messages);
    // What it wrote elsewhere is written again.
    delete(&stage, "alerts").await;
    begins_again(&stage, &places).await;
}

#[tokio::test]
async fn positions_that_are_tombstoned_are_a_data_loss_until_the_group_forgets() {
    let Some((_kafka, stage, places)) = stopped().await else {
        return;
    };
    let tombstones = (0..4).map(|partition| Made::tombstone("position").on(partition));
    let tombstones: Vec<Made> = tombstones.collect();
    stage.feed.send(POSITIONS, &tombstones);
    let all = |topic: &str| committed(&stage, topic).unwrap().len();
    let before = [POSITIONS, LETTERS, "alerts"].map(all);
    for _ in 0..2 {
        stops(stage.again(), &["data loss", "had one of at least"]);
        assert_eq!([POSITIONS, LETTERS, "alerts"].map(all), before);
    }
    delete(&stage, LETTERS).await;
    delete(&stage, "alerts").await;
    begins_again(&stage, &places).await;
}

#[tokio::test]
async fn a_topic_of_positions_that_is_deleted_under_a_host_stops_it() {
    let Some((_kafka, stage, flow)) = staged().await else {
        return;
    };
    let host = stage.host(&alerts());
    passes(&stage, 2_000).await;
    delete(&stage, POSITIONS).await;
    stops(host, &[POSITIONS]);
    assert_eq!(exists(&stage, POSITIONS), Ok(false), "made anew");
    stops(stage.again(), &["DATA LOSS: the topic is gone"]);
    assert_eq!(exists(&stage, POSITIONS), Ok(false), "made anew");
    flow.stop();
}
