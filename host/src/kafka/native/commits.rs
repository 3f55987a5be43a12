//! Asynchronous commits of a member and what the broker replied to each.

use std::ptr;

use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::TopicPartitionList;

/// Commits of a member and their replies. rdkafka's own commit callback is never called for asynchronous
/// commits (0.39 sets no native callback, and librdkafka then makes no event), so replies come here.
pub(in crate::kafka) struct Commits {
    queue: *mut sys::rd_kafka_queue_t,
}

// SAFETY: the queue is owned by this value alone and may be used from any thread.
unsafe impl Send for Commits {}

impl Drop for Commits {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed once; later replies are dropped by librdkafka.
        unsafe { sys::rd_kafka_queue_destroy(self.queue) };
    }
}

impl Commits {
    /// A queue for replies. Must be dropped before the client.
    pub(in crate::kafka) fn new<C: ClientContext>(client: &Client<C>) -> Self {
        // SAFETY: the client is alive.
        let queue = unsafe { sys::rd_kafka_queue_new(client.native_ptr()) };
        Self { queue }
    }

    /// Commits without waiting; the reply carries `ticket`.
    pub(in crate::kafka) fn send<C: ClientContext>(
        &self,
        client: &Client<C>,
        list: &TopicPartitionList,
        ticket: usize,
    ) -> Result<(), RDKafkaErrorCode> {
        // SAFETY: client, list and queue are alive, the list is copied; the ticket is a number that is never
        // dereferenced.
        let error = unsafe {
            sys::rd_kafka_commit_queue(
                client.native_ptr(),
                list.ptr(),
                self.queue,
                None,
                ptr::without_provenance_mut(ticket),
            )
        };
        match error {
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
            error => Err(error.into()),
        }
    }

    /// The next reply that has come: its ticket, and whether the broker took the whole commit.
    pub(in crate::kafka) fn reply(&self) -> Option<(usize, bool)> {
        // SAFETY: the queue is alive as long as `self`; the event is destroyed once, nothing of it leaves.
        unsafe {
            let event = sys::rd_kafka_queue_poll(self.queue, 0);
            if event.is_null() {
                return None;
            }
            let error = sys::rd_kafka_event_error(event);
            let ticket = sys::rd_kafka_event_opaque(event).addr();
            sys::rd_kafka_event_destroy(event);
            Some((
                ticket,
                error == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR,
            ))
        }
    }
}
