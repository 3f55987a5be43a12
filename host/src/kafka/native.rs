//! The things rdkafka does not offer: draining a queue in batches, a topic's identity, replies to asynchronous
//! commits, whether a member has left, and what a group has committed.
//!
//! The only module here with `unsafe`, its files below included. [`FetchQueue`] owns a consumer that never subscribes
//! together with its queue and copies each message once, straight into the caller's batch. Batch fetch and group
//! membership do not mix on one handle: `rd_kafka_consume_batch_queue` would serve the rebalance event itself and
//! silently unassign, so membership lives on another handle.

#![allow(
    unsafe_code,
    reason = "librdkafka's batch and admin calls have no safe wrapper; each block says why it is sound"
)]

mod commits;
mod committed;
mod describe;

pub(super) use commits::Commits;
pub(super) use committed::committed;
pub(super) use describe::{Describe, Described};

use std::ffi::{CStr, c_int};
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;

use super::logs::{self, Logs};
use crate::record::{Mark, Record, cells};

/// Messages taken from librdkafka in one call: larger is slower (they leave the cache).
const DRAIN: usize = 1000;

/// A message or an error of one partition.
#[derive(Debug)]
pub(super) enum Fetched<'a> {
    /// A record, borrowed until the callback returns.
    Record(i32, Record<'a>),
    /// The client reports an error; partition −1 concerns the handle.
    Failed(i32, RDKafkaErrorCode),
}

/// A consumer that never subscribes, and its queue.
pub(super) struct FetchQueue {
    // Order matters: the queue is destroyed in `drop`, before the consumer's own drop runs.
    queue: *mut sys::rd_kafka_queue_t,
    // rdkafka has log lines and errors put on the queue that is drained here, where librdkafka would print them
    // to standard error: they get a queue of their own.
    log_queue: *mut sys::rd_kafka_queue_t,
    consumer: BaseConsumer<Logs>,
    messages: Vec<*mut sys::rd_kafka_message_t>,
    headers: bool,
    header_cells: Vec<u8>,
}

// SAFETY: the pointers are owned by this value alone and librdkafka's handles may be used from any thread;
// nothing here is shared between threads.
unsafe impl Send for FetchQueue {}

impl std::fmt::Debug for FetchQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FetchQueue")
    }
}

impl FetchQueue {
    /// Takes a consumer that has a `group.id` set (librdkafka wants one for manual assignment) and never
    /// subscribes. `headers`: whether records carry their headers (250 ns each).
    pub(super) fn new(consumer: BaseConsumer<Logs>, headers: bool) -> Self {
        let client = consumer.client().native_ptr();
        // SAFETY: the consumer is alive; the queues returned are ours and destroyed in `drop` (the client keeps
        // a reference of its own to the log queue).
        let (queue, log_queue) = unsafe {
            let log_queue = sys::rd_kafka_queue_new(client);
            sys::rd_kafka_set_log_queue(client, log_queue);
            (sys::rd_kafka_queue_get_consumer(client), log_queue)
        };
        Self {
            queue,
            log_queue,
            consumer,
            messages: vec![ptr::null_mut(); DRAIN],
            headers,
            header_cells: Vec::new(),
        }
    }

    /// The consumer, for assignment, pause and resume.
    pub(super) fn consumer(&self) -> &BaseConsumer<Logs> {
        &self.consumer
    }

    /// Waits at most `wait` for a first message, then takes what is there without waiting (the time-out of
    /// the batch call lingers until the batch is full). Returns the number of messages.
    pub(super) fn drain(&mut self, wait: Duration, mut each: impl FnMut(Fetched<'_>)) -> usize {
        self.pass_logs_on();
        let millis = c_int::try_from(wait.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: the queue is alive as long as `self`; a message returned is ours until destroyed.
        let first = unsafe { sys::rd_kafka_consume_queue(self.queue, millis) };
        if first.is_null() {
            return 0;
        }
        self.messages[0] = first;
        // SAFETY: the slice behind the first slot has `DRAIN - 1` free slots, and its length says so.
        let more = unsafe {
            let slots = &mut self.messages[1..];
            sys::rd_kafka_consume_batch_queue(self.queue, 0, slots.as_mut_ptr(), slots.len())
        };
        let count = 1 + usize::try_from(more).unwrap_or(0);
        for slot in 0..count {
            let message = self.messages[slot];
            // SAFETY: the first `count` slots hold messages librdkafka just gave us; each is read, then
            // destroyed once, and nothing borrowed from it leaves the callback.
            unsafe {
                self.visit(message, &mut each);
                sys::rd_kafka_message_destroy(message);
            }
        }
        count
    }

    fn pass_logs_on(&self) {
        // SAFETY: the queue is alive as long as `self`; text belongs to the event, which is destroyed once.
        unsafe {
            loop {
                let event = sys::rd_kafka_queue_poll(self.log_queue, 0);
                if event.is_null() {
                    return;
                }
                let (mut facility, mut text, mut level) = (ptr::null(), ptr::null(), 0);
                let got = sys::rd_kafka_event_log(
                    event,
                    &raw mut facility,
                    &raw mut text,
                    &raw mut level,
                );
                if got == 0 {
                    let facility = CStr::from_ptr(facility).to_string_lossy();
                    let text = CStr::from_ptr(text).to_string_lossy();
                    logs::line(level_of(level), &facility, &text);
                }
                sys::rd_kafka_event_destroy(event);
            }
        }
    }

    /// Shows one message to the callback.
    ///
    /// # Safety
    /// `message` is a live message of this queue.
    unsafe fn visit(
        &mut self,
        message: *mut sys::rd_kafka_message_t,
        each: &mut impl FnMut(Fetched<'_>),
    ) {
        // SAFETY: alive by contract; key and payload point into it with the lengths beside them, or are null.
        unsafe {
            let head = &*message;
            if head.err != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                each(Fetched::Failed(head.partition, head.err.into()));
                return;
            }
            let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
            let timestamp = sys::rd_kafka_message_timestamp(message, &raw mut kind);
            let append = kind == sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME;
            self.header_cells.clear();
            if self.headers {
                read_headers(message, &mut self.header_cells);
            }
            each(Fetched::Record(
                head.partition,
                Record {
                    key: bytes(head.key.cast(), head.key_len),
                    value: bytes(head.payload.cast(), head.len),
                    timestamp,
                    offset: head.offset,
                    headers: &self.header_cells,
                    marks: if append { Mark::LOG_APPEND_TIME } else { 0 },
                },
            ));
        }
    }
}

impl Drop for FetchQueue {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed once, before the consumer (a field, dropped after this).
        unsafe {
            sys::rd_kafka_queue_destroy(self.queue);
            sys::rd_kafka_queue_destroy(self.log_queue);
        }
    }
}

/// Levels of syslog, as librdkafka counts them.
fn level_of(level: c_int) -> RDKafkaLogLevel {
    match level {
        ..=2 => RDKafkaLogLevel::Critical,
        3 => RDKafkaLogLevel::Error,
        4 => RDKafkaLogLevel::Warning,
        5 => RDKafkaLogLevel::Notice,
        6 => RDKafkaLogLevel::Info,
        _ => RDKafkaLogLevel::Debug,
    }
}

/// Null is null, anything else a slice.
///
/// # Safety
/// `start` is null or points to `length` readable bytes that outlive the use of the slice.
unsafe fn bytes<'a>(start: *const u8, length: usize) -> Option<&'a [u8]> {
    // SAFETY: by contract.
    (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start, length) })
}

/// Appends a `headers` cell value: count, then name and value cells.
///
/// # Safety
/// `message` is alive.
unsafe fn read_headers(message: *mut sys::rd_kafka_message_t, out: &mut Vec<u8>) {
    out.extend_from_slice(&0_i32.to_be_bytes());
    let mut headers = ptr::null_mut();
    // SAFETY: alive by contract; the header list belongs to the message and is not freed by us.
    unsafe {
        if sys::rd_kafka_message_headers(message, &raw mut headers)
            != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
        {
            return;
        }
        let mut count = 0_i32;
        loop {
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            let index = usize::try_from(count).expect("counts up from zero");
            let got = sys::rd_kafka_header_get_all(
                headers,
                index,
                &raw mut name,
                &raw mut value,
                &raw mut size,
            );
            if got != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                break;
            }
            cells::put(out, CStr::from_ptr(name).to_bytes());
            match bytes(value.cast(), size) {
                Some(value) => cells::put(out, value),
                None => cells::put_null(out),
            }
            count += 1;
        }
        out[..4].copy_from_slice(&count.to_be_bytes());
    }
}

/// Whether the client has an id in its group: a dynamic member has none any more once it has said that it leaves.
pub(super) fn is_member<C: ClientContext>(client: &Client<C>) -> bool {
    // SAFETY: the client is alive; the text returned is ours, ends in a zero byte and is freed once.
    unsafe {
        let id = sys::rd_kafka_memberid(client.native_ptr());
        if id.is_null() {
            return false;
        }
        let is = !CStr::from_ptr(id).is_empty();
        sys::rd_kafka_mem_free(client.native_ptr(), id.cast());
        is
    }
}
