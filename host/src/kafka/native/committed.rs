//! What a group has committed in a topic, without naming partitions, and the bytes that were said with it: rdkafka wants
//! the one and panics over the other where they are no text.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_int};
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;

/// An offset that a group has committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kafka) struct Committed {
    /// Next offset to read.
    pub(in crate::kafka) offset: i64,
    /// What whoever committed it said of it.
    pub(in crate::kafka) said: Vec<u8>,
}

/// Asks for the offsets a group has committed in a topic, by partition; waits at most `wait`, and `slack` more for the
/// client's own report that nobody answered. The client must be one with a `group.id`. `None`: the names cannot be
/// asked for.
pub(in crate::kafka) fn committed<C: ClientContext>(
    client: &Client<C>,
    (group, topic): (&str, &str),
    (wait, slack): (Duration, Duration),
) -> Option<Result<BTreeMap<i32, Committed>, RDKafkaErrorCode>> {
    let (group, topic) = (CString::new(group).ok()?, CString::new(topic).ok()?);
    let millis = |time: Duration| c_int::try_from(time.as_millis()).unwrap_or(c_int::MAX);
    // SAFETY: the client is alive; name, options and the request are copied by the call and destroyed here, the queue is
    // destroyed last, and nothing of the event leaves before it is.
    unsafe {
        let rk = client.native_ptr();
        let queue = sys::rd_kafka_queue_new(rk);
        let options = sys::rd_kafka_AdminOptions_new(
            rk,
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS,
        );
        let mut text = [0; 256];
        sys::rd_kafka_AdminOptions_set_request_timeout(
            options,
            millis(wait),
            text.as_mut_ptr(),
            text.len(),
        );
        // No list: all that the group has committed.
        let mut request = sys::rd_kafka_ListConsumerGroupOffsets_new(group.as_ptr(), ptr::null());
        sys::rd_kafka_ListConsumerGroupOffsets(rk, &raw mut request, 1, options, queue);
        sys::rd_kafka_ListConsumerGroupOffsets_destroy(request);
        sys::rd_kafka_AdminOptions_destroy(options);
        let event = sys::rd_kafka_queue_poll(queue, millis(wait + slack));
        let answer = if event.is_null() {
            Err(RDKafkaErrorCode::OperationTimedOut)
        } else {
            let answer = read(event, &topic);
            sys::rd_kafka_event_destroy(event);
            answer
        };
        sys::rd_kafka_queue_destroy(queue);
        Some(answer)
    }
}

/// # Safety
/// `event` is a live event.
unsafe fn read(
    event: *mut sys::rd_kafka_event_t,
    topic: &CStr,
) -> Result<BTreeMap<i32, Committed>, RDKafkaErrorCode> {
    let none = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    // SAFETY: alive by contract; the result and everything in it belong to the event, the elements of the list are as
    // many as it says, and what is kept of them is copied.
    unsafe {
        let error = sys::rd_kafka_event_error(event);
        if error != none {
            return Err(error.into());
        }
        let result = sys::rd_kafka_event_ListConsumerGroupOffsets_result(event);
        if result.is_null() {
            return Err(RDKafkaErrorCode::BadMessage);
        }
        let mut count = 0;
        let groups = sys::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &raw mut count);
        if count == 0 || groups.is_null() {
            return Err(RDKafkaErrorCode::BadMessage);
        }
        let error = sys::rd_kafka_group_result_error(*groups);
        if !error.is_null() && sys::rd_kafka_error_code(error) != none {
            return Err(sys::rd_kafka_error_code(error).into());
        }
        let list = sys::rd_kafka_group_result_partitions(*groups);
        if list.is_null() {
            return Ok(BTreeMap::new());
        }
        let count = usize::try_from((*list).cnt).unwrap_or(0);
        let mut found = BTreeMap::new();
        for at in 0..count {
            let element = &*(*list).elems.add(at);
            if CStr::from_ptr(element.topic) != topic {
                continue;
            }
            if element.err != none {
                return Err(element.err.into());
            }
            // Below 0: nothing was committed.
            if element.offset >= 0 {
                let said = super::bytes(element.metadata.cast(), element.metadata_size);
                let committed = Committed {
                    offset: element.offset,
                    said: said.unwrap_or_default().to_vec(),
                };
                found.insert(element.partition, committed);
            }
        }
        Ok(found)
    }
}
