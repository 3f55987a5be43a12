//! One file a family of requests: reads the request, asks the state, builds the response. No handler keeps anything.

pub(crate) mod admin;
pub(crate) mod fetch;
pub(crate) mod group_offsets;
pub(crate) mod inspect;
pub(crate) mod list_offsets;
pub(crate) mod membership;
pub(crate) mod metadata;
pub(crate) mod produce;
pub(crate) mod transactions;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::BrokerId;
use kafka_protocol::protocol::StrBytes;

/// Our node id: there is one broker.
const NODE: BrokerId = BrokerId(1);

/// The code of a result: 0 is success.
fn code_of<T>(result: &Result<T, ResponseError>) -> i16 {
    result.as_ref().err().map_or(0, ResponseError::code)
}

fn text(value: impl Into<String>) -> StrBytes {
    StrBytes::from_string(value.into())
}
