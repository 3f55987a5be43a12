//! From a request frame to a response frame: which requests and versions are served, and by which handler.
//!
//! Owns the table of versions. Never touches the network and never looks into the state.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiKey, ApiVersionsResponse, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable};

use crate::guard;
use crate::handlers::{
    admin, fetch, group_offsets, inspect, list_offsets, membership, metadata, produce, transactions,
};
use crate::state::Shared;

/// Requests served, with the least and greatest version. Chosen so that librdkafka 2.x and Kafka's own clients find
/// a version they like, and none needs what a broker alone has not (fetch sessions, batched lookups, KIP-848).
const SERVED: &[(ApiKey, i16, i16)] = &[
    (ApiKey::Produce, 3, 8),
    (ApiKey::Fetch, 4, 11),
    (ApiKey::ListOffsets, 1, 5),
    (ApiKey::Metadata, 0, 12),
    (ApiKey::OffsetCommit, 2, 7),
    (ApiKey::OffsetFetch, 1, 7),
    (ApiKey::FindCoordinator, 0, 2),
    (ApiKey::JoinGroup, 0, 5),
    (ApiKey::Heartbeat, 0, 3),
    (ApiKey::LeaveGroup, 0, 3),
    (ApiKey::SyncGroup, 0, 3),
    (ApiKey::DescribeGroups, 0, 4),
    (ApiKey::ListGroups, 0, 2),
    (ApiKey::DeleteGroups, 0, 2),
    (ApiKey::ApiVersions, 0, 3),
    (ApiKey::CreateTopics, 2, 4),
    (ApiKey::DeleteTopics, 1, 3),
    (ApiKey::DeleteRecords, 0, 1),
    (ApiKey::InitProducerId, 0, 4),
    (ApiKey::AddPartitionsToTxn, 0, 0),
    (ApiKey::AddOffsetsToTxn, 0, 0),
    (ApiKey::EndTxn, 0, 1),
    (ApiKey::TxnOffsetCommit, 0, 3),
    (ApiKey::CreatePartitions, 0, 1),
];

/// A request that cannot be answered; the connection is closed, as Kafka does.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswerable {
    /// The frame ends before its header does.
    #[error("request of {0} bytes is too short for a header")]
    Short(usize),
    /// Not a Kafka request we know.
    #[error("request with api key {0} is not served")]
    Api(i16),
    /// A version we did not advertise.
    #[error("{0:?} version {1} is not served")]
    Version(ApiKey, i16),
    /// The body does not follow the schema.
    #[error("{0:?} version {1} cannot be read: {2}")]
    Malformed(ApiKey, i16, String),
    /// The answer could not be written down, which is our own fault.
    #[error("answer to {0:?} version {1} cannot be encoded: {2}")]
    Answer(ApiKey, i16, String),
}

/// One request, its header already read.
pub(crate) struct Request {
    api: ApiKey,
    pub(crate) version: i16,
    correlation_id: i32,
    /// The name the client gives itself, empty when it gives none.
    pub(crate) client_id: String,
    body: Bytes,
}

impl Request {
    /// Reads the header.
    fn parse(frame: Bytes) -> Result<Self, Unanswerable> {
        let Some((key, version)) = frame.get(..4).map(|b| (i16_at(b, 0), i16_at(b, 2))) else {
            return Err(Unanswerable::Short(frame.len()));
        };
        let api = ApiKey::try_from(key).map_err(|()| Unanswerable::Api(key))?;
        if !SERVED.iter().any(|(served, _, _)| *served == api) {
            return Err(Unanswerable::Api(key));
        }
        let mut body = frame;
        let header = RequestHeader::decode(&mut body, api.request_header_version(version))
            .map_err(|error| Unanswerable::Malformed(api, version, error.to_string()))?;
        let client_id = header
            .client_id
            .map(|id| id.to_string())
            .unwrap_or_default();
        Ok(Self {
            api,
            version,
            correlation_id: header.correlation_id,
            client_id,
            body,
        })
    }

    fn is_served_version(&self) -> bool {
        SERVED
            .iter()
            .any(|(api, least, most)| *api == self.api && (*least..=*most).contains(&self.version))
    }

    fn read<T: Decodable>(&self) -> Result<T, Unanswerable> {
        guard::decode(&self.body, self.version)
            .map_err(|error| Unanswerable::Malformed(self.api, self.version, error))
    }

    fn answer<T: Encodable>(&self, response: &T) -> Result<Option<Bytes>, Unanswerable> {
        self.answer_in(response, self.version).map(Some)
    }

    /// Length, header and body.
    fn answer_in<T: Encodable>(&self, response: &T, version: i16) -> Result<Bytes, Unanswerable> {
        let failed = |error: String| Unanswerable::Answer(self.api, version, error);
        let header = ResponseHeader::default().with_correlation_id(self.correlation_id);
        // Fetch answers are megabytes: make room once.
        let size = response
            .compute_size(version)
            .map_err(|error| failed(error.to_string()))?;
        let mut frame = BytesMut::with_capacity(size + 16);
        frame.put_u32(0);
        header
            .encode(&mut frame, self.api.response_header_version(version))
            .and_then(|()| response.encode(&mut frame, version))
            .map_err(|error| failed(error.to_string()))?;
        let length = u32::try_from(frame.len() - 4).map_err(|error| failed(error.to_string()))?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        Ok(frame.freeze())
    }
}

/// Serves one request. The frame is without its length; `None` means the client wants no answer.
///
/// # Errors
/// When the request cannot be understood: close the connection.
pub(crate) async fn serve(
    shared: &Shared,
    frame: Bytes,
    peer: &str,
) -> Result<Option<Bytes>, Unanswerable> {
    let request = Request::parse(frame)?;
    if !request.is_served_version() {
        return refuse_version(&request);
    }
    match request.api {
        ApiKey::ApiVersions => request.answer(&api_versions()),
        ApiKey::Metadata => request.answer(&metadata::metadata(
            shared,
            request.read()?,
            request.version,
        )),
        ApiKey::FindCoordinator => request.answer(&metadata::find_coordinator(shared)),
        ApiKey::Produce => match produce::produce(shared, request.read()?) {
            Some(response) => request.answer(&response),
            None => Ok(None),
        },
        ApiKey::Fetch => request.answer(&fetch::fetch(shared, request.read()?).await),
        ApiKey::ListOffsets => request.answer(&list_offsets::list_offsets(shared, request.read()?)),
        ApiKey::JoinGroup => {
            let response = membership::join(shared, request.read()?, &request, peer).await;
            request.answer(&response)
        }
        ApiKey::SyncGroup => request.answer(&membership::sync(shared, request.read()?).await),
        ApiKey::Heartbeat => request.answer(&membership::heartbeat(shared, request.read()?)),
        ApiKey::LeaveGroup => {
            request.answer(&membership::leave(shared, request.read()?, request.version))
        }
        ApiKey::OffsetCommit => request.answer(&group_offsets::commit(shared, request.read()?)),
        ApiKey::OffsetFetch => request.answer(&group_offsets::fetch(shared, request.read()?)),
        ApiKey::DescribeGroups => {
            request.answer(&inspect::describe_groups(shared, request.read()?))
        }
        ApiKey::ListGroups => request.answer(&inspect::list_groups(shared)),
        ApiKey::DeleteGroups => request.answer(&inspect::delete_groups(shared, request.read()?)),
        ApiKey::CreateTopics => request.answer(&admin::create_topics(shared, request.read()?)),
        ApiKey::DeleteTopics => request.answer(&admin::delete_topics(shared, request.read()?)),
        ApiKey::CreatePartitions => {
            request.answer(&admin::create_partitions(shared, request.read()?))
        }
        ApiKey::DeleteRecords => request.answer(&admin::delete_records(shared, request.read()?)),
        ApiKey::InitProducerId => {
            request.answer(&transactions::init_producer(shared, request.read()?))
        }
        ApiKey::AddPartitionsToTxn => {
            request.answer(&transactions::add_partitions(shared, request.read()?))
        }
        ApiKey::AddOffsetsToTxn => {
            request.answer(&transactions::add_offsets(shared, request.read()?))
        }
        ApiKey::TxnOffsetCommit => {
            request.answer(&transactions::commit_offsets(shared, request.read()?))
        }
        ApiKey::EndTxn => request.answer(&transactions::end(shared, request.read()?)),
        other => Err(Unanswerable::Version(other, request.version)),
    }
}

/// A client newer than we are learns our versions from an answer in version 0; all other requests are closed.
fn refuse_version(request: &Request) -> Result<Option<Bytes>, Unanswerable> {
    if request.api != ApiKey::ApiVersions {
        return Err(Unanswerable::Version(request.api, request.version));
    }
    let response = api_versions().with_error_code(ResponseError::UnsupportedVersion.code());
    request.answer_in(&response, 0).map(Some)
}

fn api_versions() -> ApiVersionsResponse {
    let entry = |(api, least, most): &(ApiKey, i16, i16)| {
        ApiVersion::default()
            .with_api_key(*api as i16)
            .with_min_version(*least)
            .with_max_version(*most)
    };
    ApiVersionsResponse::default().with_api_keys(SERVED.iter().map(entry).collect())
}

fn i16_at(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes([bytes[at], bytes[at + 1]])
}
