//! Errors of the driver, judged: did the server refuse for good, or is it away for now?
//!
//! It decides nothing else. A refusal never becomes a dead letter (delivery rule 2): it may contradict a
//! write that was applied before, so it is always a matter for an operator.

use scylla::errors::{
    ConnectionError, ConnectionPoolError, ConnectionSetupRequestErrorKind, DbError, ExecutionError,
    MetadataError, NewSessionError, PrepareError, RequestAttemptError,
};

use crate::error::Error;

/// What a failed request means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The same request fails the same way for ever.
    Refused,
    /// A node, the network or the load: the outcome is not known, a later attempt may succeed.
    Away,
}

/// Judges a failed execution.
pub(super) fn verdict(error: &ExecutionError) -> Verdict {
    match error {
        ExecutionError::BadQuery(_) => Verdict::Refused,
        ExecutionError::PrepareError(error) => prepare_verdict(error),
        ExecutionError::LastAttemptError(error) => attempt_verdict(error),
        // an empty plan or pool is what the driver says while a node restarts
        _ => Verdict::Away,
    }
}

/// Judges a failed preparation.
pub(super) fn prepare_verdict(error: &PrepareError) -> Verdict {
    match error {
        PrepareError::AllAttemptsFailed { first_attempt } => attempt_verdict(first_attempt),
        _ => Verdict::Away,
    }
}

/// Whether a node refused a statement because it knows no such table.
pub(super) fn is_unknown(error: &PrepareError) -> bool {
    let PrepareError::AllAttemptsFailed { first_attempt } = error else {
        return false;
    };
    matches!(
        first_attempt,
        RequestAttemptError::DbError(DbError::Invalid, text)
            if text.contains("does not exist") || text.contains("unconfigured table")
    )
}

fn attempt_verdict(error: &RequestAttemptError) -> Verdict {
    match error {
        RequestAttemptError::DbError(error, _) => server_verdict(error),
        RequestAttemptError::SerializationError(_)
        | RequestAttemptError::CqlRequestSerialization(_)
        // the table was dropped and made again: what was checked at the start no longer holds
        | RequestAttemptError::RepreparedIdChanged { .. }
        | RequestAttemptError::RepreparedIdMissingInBatch => Verdict::Refused,
        _ => Verdict::Away,
    }
}

fn server_verdict(error: &DbError) -> Verdict {
    match error {
        DbError::SyntaxError
        | DbError::Invalid
        | DbError::AlreadyExists { .. }
        | DbError::FunctionFailure { .. }
        | DbError::AuthenticationError
        | DbError::Unauthorized
        | DbError::ConfigError
        | DbError::ProtocolError => Verdict::Refused,
        // unavailable, overloaded, bootstrapping, read and write time-outs and failures, rate limits,
        // and whatever a later server invents: waiting is never wrong, stopping may be
        _ => Verdict::Away,
    }
}

/// The error a person sees for a failed request.
pub(super) fn explain(what: &str, error: &ExecutionError) -> Error {
    match verdict(error) {
        Verdict::Refused => Error::config(what, error).hint(refusal_hint(error)),
        Verdict::Away => outside(what, error),
    }
}

/// As [`explain`], for a preparation.
pub(super) fn explain_prepare(what: &str, error: &PrepareError) -> Error {
    match prepare_verdict(error) {
        Verdict::Refused => Error::config(what, error).hint(
            "restart the host: it compares tables and columns with the manifest and says what differs",
        ),
        Verdict::Away => outside(what, error),
    }
}

/// As [`explain`], for opening a session.
pub(super) fn explain_connect(hosts: &str, error: &NewSessionError) -> Error {
    let what = format!("connect to cassandra at {hosts}");
    match error {
        NewSessionError::MetadataError(MetadataError::ConnectionPoolError(
            ConnectionPoolError::Broken {
                last_connection_error: ConnectionError::ConnectionSetupRequestError(setup),
            },
        )) if is_login(setup.get_error()) => {
            Error::config(what, error).hint("check `username` and `password` of this connection")
        }
        NewSessionError::IllegalConfig(_) | NewSessionError::EmptyKnownNodesList => {
            Error::config(what, error).hint("check `hosts` of this connection: host:port, …")
        }
        _ => Error::outside(what, error)
            .hint("is Cassandra running there, and does this machine reach its CQL port?"),
    }
}

fn is_login(error: &ConnectionSetupRequestErrorKind) -> bool {
    matches!(
        error,
        ConnectionSetupRequestErrorKind::MissingAuthentication
            | ConnectionSetupRequestErrorKind::StartAuthSessionError(_)
            | ConnectionSetupRequestErrorKind::AuthChallengeEvaluationError(_)
            | ConnectionSetupRequestErrorKind::AuthFinishError(_)
            | ConnectionSetupRequestErrorKind::DbError(
                DbError::AuthenticationError | DbError::Unauthorized,
                _
            )
    )
}

fn outside(what: &str, error: &impl std::fmt::Display) -> Error {
    Error::outside(what, error)
        .hint("the request is repeated; look at the nodes (`nodetool status`) if this lasts")
}

fn refusal_hint(error: &ExecutionError) -> &'static str {
    match error {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(
            DbError::Unauthorized | DbError::AuthenticationError,
            _,
        )) => "grant MODIFY and SELECT on the table to the user of this connection",
        _ => {
            "restart the host: it compares tables and columns with the manifest and says what differs"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scylla::errors::WriteType;
    use scylla::statement::Consistency;

    fn server(error: DbError) -> ExecutionError {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, "text".to_owned()))
    }

    #[test]
    fn refusals_are_for_an_operator_and_the_rest_is_waited_for() {
        for error in [
            DbError::Invalid,
            DbError::Unauthorized,
            DbError::SyntaxError,
            DbError::ConfigError,
        ] {
            assert_eq!(
                explain("write", &server(error)).blame(),
                crate::error::Blame::Config
            );
        }
        for error in [
            DbError::Overloaded,
            DbError::ServerError,
            DbError::IsBootstrapping,
            DbError::WriteTimeout {
                consistency: Consistency::LocalQuorum,
                received: 1,
                required: 2,
                write_type: WriteType::Simple,
            },
        ] {
            assert_eq!(
                explain("write", &server(error)).blame(),
                crate::error::Blame::Outside
            );
        }
        let timeout = ExecutionError::RequestTimeout(std::time::Duration::from_secs(1));
        assert_eq!(verdict(&timeout), Verdict::Away);
        assert_eq!(verdict(&ExecutionError::EmptyPlan), Verdict::Away);
    }
}
