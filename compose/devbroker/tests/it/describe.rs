//! DescribeTopics, the way the host learns topic ids: rdkafka has no safe call for it, so it is made by hand here.

#![allow(
    unsafe_code,
    reason = "DescribeTopics exists only in librdkafka's C interface; see the SAFETY texts"
)]

use std::ffi::{CStr, CString};

use rdkafka::bindings as rd;
use rdkafka::producer::Producer;
use wasmill_devbroker::{Broker, Options};

use crate::clients::producer;

/// A topic's id as two halves, or the error's name.
fn describe(client: *mut rd::rd_kafka_t, topic: &str) -> Result<(u64, u64), String> {
    let name = CString::new(topic).unwrap();
    let mut names = [name.as_ptr()];
    // SAFETY: `client` is a live client owned by the caller. The collection copies the names. Queue, collection and
    // event are destroyed once each, and nothing read from the event outlives it.
    unsafe {
        let queue = rd::rd_kafka_queue_new(client);
        let collection =
            rd::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        rd::rd_kafka_DescribeTopics(client, collection, std::ptr::null(), queue);
        rd::rd_kafka_TopicCollection_destroy(collection);
        let event = rd::rd_kafka_queue_poll(queue, 20_000);
        assert!(!event.is_null(), "no answer to DescribeTopics");
        let result = rd::rd_kafka_event_DescribeTopics_result(event);
        let mut count = 0;
        let topics = if result.is_null() {
            std::ptr::null_mut()
        } else {
            rd::rd_kafka_DescribeTopics_result_topics(result, &raw mut count)
        };
        let answer = if count == 1 {
            let error = rd::rd_kafka_error_code(rd::rd_kafka_TopicDescription_error(*topics));
            if error == rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                let id = rd::rd_kafka_TopicDescription_topic_id(*topics);
                let high = rd::rd_kafka_Uuid_most_significant_bits(id).cast_unsigned();
                Ok((
                    high,
                    rd::rd_kafka_Uuid_least_significant_bits(id).cast_unsigned(),
                ))
            } else {
                Err(CStr::from_ptr(rd::rd_kafka_err2name(error))
                    .to_string_lossy()
                    .into_owned())
            }
        } else {
            Err(format!(
                "request failed: {:?}",
                rd::rd_kafka_event_error(event)
            ))
        };
        rd::rd_kafka_event_destroy(event);
        rd::rd_kafka_queue_destroy(queue);
        answer
    }
}

#[test]
fn describe_topics_tells_the_id_and_a_new_one_after_recreation() {
    let broker = Broker::start(Options::default()).unwrap();
    let first = broker.create_topic("t", 2).unwrap();
    let producer = producer(&broker, &[]);
    let client = producer.client().native_ptr();
    assert_eq!(describe(client, "t"), Ok(first.as_u64_pair()));
    broker.delete_topic("t").unwrap();
    assert_eq!(
        describe(client, "t"),
        Err("UNKNOWN_TOPIC_OR_PART".to_owned())
    );
    let second = broker.create_topic("t", 2).unwrap();
    assert_ne!(first, second);
    assert_eq!(describe(client, "t"), Ok(second.as_u64_pair()));
    assert_eq!(broker.topic_id("t"), Some(second));
}
