//! Why the broker refuses to change its topics: one type for the in-process helpers and the protocol's answers.

use kafka_protocol::error::ResponseError;

/// A request about topics that cannot be granted; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A topic of that name exists.
    #[error("topic '{0}' exists already; delete it first or use it as it is")]
    TopicExists(String),
    /// No topic of that name exists.
    #[error("topic '{0}' does not exist; create it first")]
    UnknownTopic(String),
    /// The topic has fewer partitions.
    #[error("topic '{0}' has no partition {1}; partitions count from 0")]
    UnknownPartition(String, i32),
    /// Kafka allows 1 to 249 letters, digits, dots, underscores and dashes, and neither `.` nor `..`.
    #[error("topic name '{0}' is not allowed; use 1 to 249 letters, digits, '.', '_' and '-'")]
    Name(String),
    /// A topic has at least one partition, at most 10,000 here, and never loses one.
    #[error("topic '{0}' cannot have {1} partitions; ask for more than it has, and 1 to 10000")]
    Partitions(String, i32),
    /// There is one broker, so there is one replica.
    #[error("topic '{0}' cannot have {1} replicas; this broker is alone, ask for 1")]
    Replicas(String, i16),
    /// The offset is negative or past the end of the log.
    #[error(
        "offset {2} is outside the log of '{0}' partition {1}; give one from 0 to the log's end"
    )]
    Offset(String, i32, i64),
}

impl Refused {
    /// The protocol's code for it.
    pub(crate) fn code(&self) -> ResponseError {
        match self {
            Self::TopicExists(_) => ResponseError::TopicAlreadyExists,
            Self::UnknownTopic(_) | Self::UnknownPartition(..) => {
                ResponseError::UnknownTopicOrPartition
            }
            Self::Name(_) => ResponseError::InvalidTopicException,
            Self::Partitions(..) => ResponseError::InvalidPartitions,
            Self::Replicas(..) => ResponseError::InvalidReplicationFactor,
            Self::Offset(..) => ResponseError::OffsetOutOfRange,
        }
    }
}
