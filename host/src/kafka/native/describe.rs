//! A topic's identity and size, asked for without waiting: rdkafka has no call for the identity.

use std::ffi::{CStr, CString, c_int};
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;

/// What a broker says of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kafka) struct Described {
    /// Its identity, `None` where the broker tells none (before 2.8).
    pub(in crate::kafka) id: Option<String>,
    /// How many partitions it has.
    pub(in crate::kafka) partitions: usize,
}

/// A question about one topic, under way: nothing waits for the answer unless asked to.
pub(in crate::kafka) struct Describe {
    queue: *mut sys::rd_kafka_queue_t,
}

// SAFETY: the queue is owned by this value alone and may be used from any thread.
unsafe impl Send for Describe {}

impl std::fmt::Debug for Describe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Describe")
    }
}

impl Drop for Describe {
    fn drop(&mut self) {
        // SAFETY: created in `ask`, destroyed once; a reply that comes later is dropped by librdkafka, which
        // holds a reference of its own.
        unsafe { sys::rd_kafka_queue_destroy(self.queue) };
    }
}

impl Describe {
    /// Asks; the answer comes within about `wait`, an error included. Must be dropped before the client.
    pub(in crate::kafka) fn ask<C: ClientContext>(
        client: &Client<C>,
        topic: &str,
        wait: Duration,
    ) -> Option<Self> {
        let name = CString::new(topic).ok()?;
        let millis = c_int::try_from(wait.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: the client is alive; names, options and the collection are copied by the call and destroyed
        // here, the queue is owned by the value returned.
        unsafe {
            let rk = client.native_ptr();
            let queue = sys::rd_kafka_queue_new(rk);
            let mut names = [name.as_ptr()];
            let topics =
                sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
            let options = sys::rd_kafka_AdminOptions_new(
                rk,
                sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            );
            let mut text = [0; 256];
            sys::rd_kafka_AdminOptions_set_request_timeout(
                options,
                millis,
                text.as_mut_ptr(),
                text.len(),
            );
            sys::rd_kafka_DescribeTopics(rk, topics, options, queue);
            sys::rd_kafka_AdminOptions_destroy(options);
            sys::rd_kafka_TopicCollection_destroy(topics);
            Some(Self { queue })
        }
    }

    /// The answer, waiting for it at most `wait`; `None` when there is none yet. An answer is given once.
    pub(in crate::kafka) fn answer(
        &self,
        wait: Duration,
    ) -> Option<Result<Described, RDKafkaErrorCode>> {
        let millis = c_int::try_from(wait.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: the queue is alive as long as `self`; what the event holds is copied before it is destroyed.
        unsafe {
            let event = sys::rd_kafka_queue_poll(self.queue, millis);
            if event.is_null() {
                return None;
            }
            let described = read_description(event);
            sys::rd_kafka_event_destroy(event);
            Some(described)
        }
    }
}

/// # Safety
/// `event` is a live event.
unsafe fn read_description(
    event: *mut sys::rd_kafka_event_t,
) -> Result<Described, RDKafkaErrorCode> {
    let none = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    // SAFETY: alive by contract; the result and everything in it belong to the event.
    unsafe {
        let error = sys::rd_kafka_event_error(event);
        if error != none {
            return Err(error.into());
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err(RDKafkaErrorCode::BadMessage);
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if count == 0 || topics.is_null() {
            return Err(RDKafkaErrorCode::UnknownTopicOrPartition);
        }
        let error = sys::rd_kafka_error_code(sys::rd_kafka_TopicDescription_error(*topics));
        if error != none {
            return Err(error.into());
        }
        let mut partitions = 0;
        sys::rd_kafka_TopicDescription_partitions(*topics, &raw mut partitions);
        let uuid = sys::rd_kafka_TopicDescription_topic_id(*topics);
        let shown = if uuid.is_null() {
            ptr::null()
        } else {
            sys::rd_kafka_Uuid_base64str(uuid)
        };
        let id = (!shown.is_null()).then(|| CStr::from_ptr(shown).to_string_lossy().into_owned());
        Ok(Described {
            // An id of zeros, `AAAA…` in base 64, is none.
            id: id.filter(|id| !id.is_empty() && !id.chars().all(|c| c == 'A')),
            partitions,
        })
    }
}
