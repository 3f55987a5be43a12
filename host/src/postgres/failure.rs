//! What an error of the driver means: for a person ([`error`]) and for a flight ([`before_commit`],
//! [`at_commit`]). Classes as in delivery §2; SQLSTATEs: Postgres manual, appendix A.

use crate::anchor::CommitError;
use crate::error::{Blame, Error, Retry};

/// Raised by `wasmill.advance` when the stored position is not the flight's.
pub(super) const FENCED: &str = "WM001";

/// Raised by `wasmill.advance` outside the transaction of its flight.
pub(super) const NOT_FLYING: &str = "WM002";

/// What a refusal by the server calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Fenced,
    Data,
    Again,
    /// Took too long: less of it may pass.
    Less,
    /// None of the listed ones: nobody knows whether it passes by itself.
    Unlisted,
    Config,
    Bug,
}

fn class(sqlstate: &str) -> Class {
    match sqlstate {
        FENCED => Class::Fenced,
        // The BEGIN in front of the flight failed; every statement saw it and did nothing.
        NOT_FLYING => Class::Again,
        // ON CONFLICT met a key twice: rows were not merged.
        "21000" => Class::Bug,
        // A proxy that hands our statements to other sessions, or lost them.
        "26000" | "42P05" => Class::Config,
        "57014" => Class::Less,
        _ => match sqlstate.get(..2).unwrap_or_default() {
            "22" | "23" | "54" => Class::Data,
            "0A" | "28" | "3D" | "3F" | "42" => Class::Config,
            // Connection, transaction state, rolled back, resources, not in the right state, operator, system.
            "08" | "25" | "40" | "53" | "55" | "57" | "58" | "XX" => Class::Again,
            _ => Class::Unlisted,
        },
    }
}

/// What to do about a pool in transaction mode.
pub(super) const POOLED: &str = "the connection goes through a pool in transaction mode (PgBouncer?): connect to the \
                                 server itself, or set pool_mode = session";

/// A person's action for a SQLSTATE.
fn hint(sqlstate: &str) -> &'static str {
    match sqlstate {
        "26000" | "42P05" => POOLED,
        "28P01" | "28000" => {
            "correct user or password in the connection's url, or the server's pg_hba.conf"
        }
        "3D000" => "create the database, or correct its name in the connection's url",
        "42501" => "GRANT the missing privilege to the connection's user",
        "42P01" | "3F000" => "create the table: `wasmill run` prints its DDL when it starts",
        "42703" | "42804" | "42P10" => {
            "the table no longer fits its route: restart the host, it prints the DDL that repairs it"
        }
        "0A000" => {
            "the table was changed while it was written, or the server is too old: restart the pipeline"
        }
        _ => "restart the host: it compares tables and routes and prints what differs",
    }
}

/// SQLSTATE of an error sent by the server.
pub(super) fn sqlstate(error: &tokio_postgres::Error) -> Option<&str> {
    error.code().map(tokio_postgres::error::SqlState::code)
}

/// Whether the server ended the session with this error.
pub(super) fn ended_session(error: &tokio_postgres::Error) -> bool {
    use tokio_postgres::error::Severity;
    error.as_db_error().is_none_or(|db| {
        matches!(
            db.parsed_severity(),
            Some(Severity::Fatal | Severity::Panic)
        ) || matches!(db.severity(), "FATAL" | "PANIC")
    })
}

/// The whole of an error in one line.
pub(super) fn detail(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        let mut text = format!("{} ({})", db.message(), db.code().code());
        if let Some(detail) = db.detail() {
            text.push_str(": ");
            text.push_str(detail);
        }
        return text;
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// An error for a person, blamed by its class.
pub(super) fn error(what: impl Into<String>, error: &tokio_postgres::Error) -> Error {
    let detail = detail(error);
    let Some(sqlstate) = sqlstate(error) else {
        return match error.to_string().as_str() {
            // The driver's words for what it lacks to log in; it has no other sign of it.
            "invalid configuration" | "authentication error" => {
                Error::config(what, detail).hint(hint("28000"))
            }
            _ => Error::outside(what, detail),
        };
    };
    match class(sqlstate) {
        Class::Config => Error::config(what, detail).hint(hint(sqlstate)),
        Class::Data => Error::data(what, detail),
        Class::Bug => Error::bug(what, detail),
        Class::Fenced | Class::Again | Class::Less | Class::Unlisted => {
            Error::outside(what, detail)
        }
    }
}

/// What an error says about a flight whose COMMIT was not sent: it is rolled back for sure.
pub(super) fn before_commit(what: &str, failed: &tokio_postgres::Error) -> CommitError {
    let error = error(what, failed);
    match sqlstate(failed).map(class) {
        Some(Class::Fenced) => CommitError::Fenced(error),
        Some(Class::Data) => CommitError::Refused(error),
        Some(Class::Config | Class::Bug) => CommitError::Stop(error),
        Some(Class::Less) => CommitError::RolledBack(error.with_retry(Retry::Never)),
        Some(Class::Unlisted) => CommitError::RolledBack(
            Error::config(error.what(), error.detail())
                .hint("look at the table's triggers and rules: one of them fails for this record"),
        ),
        Some(Class::Again) | None => CommitError::RolledBack(error),
    }
}

/// What an error says about a flight whose COMMIT was sent. A plain error is the server's word that it rolled
/// back; everything else leaves it open, a FATAL too: the server sends one after a commit that waited for a
/// standby.
pub(super) fn at_commit(failed: &tokio_postgres::Error) -> CommitError {
    if ended_session(failed) {
        return unknown(detail(failed));
    }
    before_commit("commit to postgres", failed)
}

/// The outcome of a COMMIT is not known.
pub(super) fn unknown(detail: impl std::fmt::Display) -> CommitError {
    CommitError::Unknown(
        Error::new(Blame::Outside, "commit to postgres", detail).with_retry(Retry::Backoff),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_the_driver_lacks_to_log_in_is_for_a_person() {
        let connect = async |url: &str| {
            let config: tokio_postgres::Config = url.parse().expect("a url");
            match config.connect(tokio_postgres::NoTls).await {
                Ok(_) => panic!("nothing listens there"),
                Err(failed) => error("connect", &failed).blame(),
            }
        };
        assert_eq!(connect("user=u").await, Blame::Config);
        assert_eq!(
            connect("host=127.0.0.1 port=1 user=u").await,
            Blame::Outside
        );
    }

    #[test]
    fn classes_of_the_delivery_rules() {
        for (sqlstate, expected) in [
            ("WM001", Class::Fenced),
            ("WM002", Class::Again),
            ("22003", Class::Data),
            ("23502", Class::Data),
            ("54000", Class::Data),
            ("40001", Class::Again),
            ("40P01", Class::Again),
            ("57014", Class::Less),
            ("55P03", Class::Again),
            ("57P01", Class::Again),
            ("53100", Class::Again),
            ("25006", Class::Again),
            ("P0001", Class::Unlisted),
            ("44000", Class::Unlisted),
            ("42P01", Class::Config),
            ("42501", Class::Config),
            ("3D000", Class::Config),
            ("28P01", Class::Config),
            ("21000", Class::Bug),
            ("26000", Class::Config),
        ] {
            assert_eq!(class(sqlstate), expected, "{sqlstate}");
        }
    }
}
