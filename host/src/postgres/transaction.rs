//! Requests sent in one go inside one transaction: [`commit`] with COMMIT behind them; [`Transaction`] where something
//! has to happen before it, and then any error poisons it, commit consumes it.
//!
//! Why not the driver's own: its `commit()` returns `Ok` for a transaction that the server rolled back
//! because an earlier error was swallowed, and a time-out around it proves nothing (both reproduced). Here
//! committed means that *every* reply was good: after an error the server answers COMMIT with a rollback, which the
//! driver calls `Ok` too. A COMMIT that was sent without a word from the server is an unknown outcome. Dropped half-way
//! it decides nothing: the caller drops the connection with it.

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use postgres_types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::types as postgres_types;
use tokio_postgres::{Client, Statement};

use crate::anchor::CommitError;
use crate::error::Error;

use super::failure;

/// How much longer than the server's own limit we wait for a reply.
const SLACK: Duration = Duration::from_secs(5);

/// A parameter whose binary form is at hand.
#[derive(Clone, Copy, Debug)]
pub(super) enum Param<'a> {
    /// The binary form of whatever type the statement wants.
    Binary(&'a [u8]),
    /// `text`.
    Text(&'a str),
    /// `int4`.
    Int4(i32),
    /// `int8`.
    Int8(i64),
    /// `uuid`.
    Uuid(uuid::Uuid),
}

impl ToSql for Param<'_> {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut bytes::BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Binary(bytes) => out.extend_from_slice(bytes),
            Self::Text(text) => out.extend_from_slice(text.as_bytes()),
            Self::Int4(value) => out.extend_from_slice(&value.to_be_bytes()),
            Self::Int8(value) => out.extend_from_slice(&value.to_be_bytes()),
            Self::Uuid(value) => out.extend_from_slice(value.as_bytes()),
        }
        Ok(IsNull::No)
    }

    /// The statements are ours and cast every parameter.
    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// One request of a transaction.
#[derive(Debug)]
pub(super) struct Request<'a> {
    /// For messages: what is attempted.
    pub(super) what: &'a str,
    pub(super) statement: &'a Statement,
    pub(super) params: Vec<Param<'a>>,
}

/// A transaction whose every reply so far was good.
#[derive(Debug)]
pub(super) struct Transaction<'a> {
    client: &'a Client,
    limit: Duration,
    /// Rows that each request changed, in their order.
    pub(super) counts: Vec<u64>,
}

/// A transaction that must not commit, and why. The server rolls back at the latest when its connection ends.
#[derive(Debug)]
pub(super) struct Poisoned<'a> {
    client: &'a Client,
    pub(super) error: CommitError,
}

/// Sends `begin` (simple protocol), all requests and COMMIT in one go and waits for every reply, from one to the next at
/// most as long as the server's own limit `statement` allows. Whether the connection is clean afterwards, and the outcome.
///
/// # Errors
/// The first error in order. A plain one, whatever it is about, is the server's word that it rolled back. Where the
/// session ended, or nothing came, the outcome is `Unknown`: COMMIT was on its way.
pub(super) async fn commit(
    client: &Client,
    begin: &str,
    requests: Vec<Request<'_>>,
    statement: Duration,
) -> (bool, Result<(), CommitError>) {
    let mut replies = replies(client, begin, requests);
    replies.push(Reply::new("commit to postgres", simple(client, "COMMIT")));
    let limit = statement + SLACK;
    let is_sent = exchange(&mut replies, limit).await;
    let last = replies.last().expect("pushed above");
    let is_answered = matches!(last.result, Some(Ok(_)));
    let failed = replies.iter().find_map(|reply| match &reply.result {
        Some(Ok(_)) => None,
        Some(Err(error)) if is_sent && failure::ended_session(error) => {
            Some(failure::unknown(failure::detail(error)))
        }
        Some(Err(error)) => Some(failure::before_commit(reply.what, error)),
        None => Some(failure::unknown(no_reply(limit))),
    });
    (is_answered, failed.map_or(Ok(()), Err))
}

impl<'a> Transaction<'a> {
    /// Sends `begin` (simple protocol) and all requests in one go and waits for every reply, from one to the next at
    /// most as long as the server's own limit `statement` allows.
    ///
    /// # Errors
    /// The first error in order; the transaction is poisoned.
    pub(super) async fn open(
        client: &'a Client,
        begin: &str,
        requests: Vec<Request<'_>>,
        statement: Duration,
    ) -> Result<Self, Poisoned<'a>> {
        let mut replies = replies(client, begin, requests);
        let limit = statement + SLACK;
        exchange(&mut replies, limit).await;
        let failed = replies.iter().find_map(|reply| match &reply.result {
            Some(Ok(_)) => None,
            Some(Err(error)) => Some(failure::before_commit(reply.what, error)),
            None => Some(CommitError::RolledBack(Error::outside(
                "write to postgres",
                no_reply(limit),
            ))),
        });
        match failed {
            None => Ok(Self {
                client,
                limit,
                counts: replies
                    .iter()
                    .skip(1)
                    .filter_map(|reply| reply.result.as_ref()?.as_ref().ok().copied())
                    .collect(),
            }),
            Some(error) => Err(Poisoned { client, error }),
        }
    }

    /// Commits and waits for the server's word.
    ///
    /// # Errors
    /// `RolledBack` when the connection is known to be gone before COMMIT was sent, or by the server's word;
    /// `Unknown` when COMMIT was sent and its reply never came. Either way the connection is not reused.
    pub(super) async fn commit(self) -> Result<(), CommitError> {
        if self.client.is_closed() {
            return Err(CommitError::RolledBack(Error::outside(
                "commit to postgres",
                "the connection ended before the commit was sent",
            )));
        }
        match tokio::time::timeout(self.limit, self.client.batch_execute("COMMIT")).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(failure::at_commit(&error)),
            Err(_) => Err(failure::unknown(no_reply(self.limit))),
        }
    }

    /// Turns back for a reason of the caller's.
    pub(super) fn poison(self, error: CommitError) -> Poisoned<'a> {
        Poisoned {
            client: self.client,
            error,
        }
    }
}

impl Poisoned<'_> {
    /// Rolls back; whether the connection is clean afterwards, and why there was no commit.
    pub(super) async fn roll_back(self) -> (bool, CommitError) {
        let done = tokio::time::timeout(SLACK, self.client.batch_execute("ROLLBACK")).await;
        (matches!(done, Ok(Ok(()))), self.error)
    }
}

fn no_reply(limit: Duration) -> String {
    format!("no reply within {limit:?} a statement")
}

/// A request on its way.
struct Reply<'a> {
    what: &'a str,
    future: LocalBoxFuture<'a, Result<u64, tokio_postgres::Error>>,
    result: Option<Result<u64, tokio_postgres::Error>>,
}

impl<'a> Reply<'a> {
    fn new(
        what: &'a str,
        request: impl Future<Output = Result<u64, tokio_postgres::Error>> + 'a,
    ) -> Self {
        Self {
            what,
            future: Box::pin(request),
            result: None,
        }
    }
}

async fn simple(client: &Client, sql: &str) -> Result<u64, tokio_postgres::Error> {
    client.batch_execute(sql).await.map(|()| 0)
}

fn replies<'a>(client: &'a Client, begin: &'a str, requests: Vec<Request<'a>>) -> Vec<Reply<'a>> {
    let mut replies = Vec::with_capacity(requests.len() + 2);
    replies.push(Reply::new(
        "begin a flight in postgres",
        simple(client, begin),
    ));
    replies.extend(requests.into_iter().map(|request| {
        let executed = client.execute_raw(request.statement, request.params);
        Reply::new(request.what, executed)
    }));
    replies
}

/// Sends all in order and waits for every reply, at most `limit` from one to the next: however many there are, a server
/// that says no more is not waited for any longer. Whether all were sent, as far as is known.
///
/// The driver sends a request when its future is first polled. One that fails there was not sent (its parameters cannot
/// be written, the connection is gone) or has failed already; either way nothing behind it is sent, COMMIT above all.
async fn exchange(replies: &mut [Reply<'_>], limit: Duration) -> bool {
    let failed = replies.iter_mut().position(|reply| {
        reply.result = (&mut reply.future).now_or_never();
        matches!(reply.result, Some(Err(_)))
    });
    let sent = failed.map_or(replies.len(), |at| at + 1);
    for reply in &mut replies[..sent] {
        if reply.result.is_none() {
            reply.result = match tokio::time::timeout(limit, &mut reply.future).await {
                Ok(result) => Some(result),
                Err(_) => break,
            };
        }
    }
    sent == replies.len()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::{pending, ready};

    use super::*;

    const LIMIT: Duration = Duration::from_millis(300);

    fn failed() -> tokio_postgres::Error {
        tokio_postgres::Error::__private_api_timeout()
    }

    /// A reply that comes after so many limits.
    async fn late<T>(limits: f64, result: T) -> T {
        tokio::time::sleep(LIMIT.mul_f64(limits)).await;
        result
    }

    #[tokio::test]
    async fn what_follows_a_request_that_could_not_be_sent_is_never_sent() {
        let committed = Cell::new(false);
        let mut replies = [
            Reply::new("begin", late(0.5, Ok(0))),
            Reply::new("rows", ready(Err(failed()))),
            Reply::new("commit", async {
                committed.set(true);
                Ok(0)
            }),
        ];
        assert!(!exchange(&mut replies, LIMIT).await);
        assert!(matches!(replies[0].result, Some(Ok(0))), "it is waited for");
        assert!(matches!(replies[1].result, Some(Err(_))));
        assert!(replies[2].result.is_none());
        drop(replies);
        assert!(!committed.get(), "a flight without its rows");
    }

    #[tokio::test]
    async fn an_error_in_a_reply_holds_nothing_back_that_was_sent() {
        let mut replies = [
            Reply::new("rows", late(0.5, Err(failed()))),
            Reply::new("commit", late(0.6, Ok(0))),
            Reply::new("never", pending()),
        ];
        assert!(exchange(&mut replies, LIMIT).await);
        assert!(matches!(replies[0].result, Some(Err(_))));
        assert!(matches!(replies[1].result, Some(Ok(0))));
        assert!(replies[2].result.is_none());
    }

    #[tokio::test]
    async fn the_limit_is_from_one_reply_to_the_next() {
        let order = Cell::new(0);
        let reply = |nth: u32| {
            let order = &order;
            Reply::new("rows", async move {
                assert_eq!(order.replace(nth + 1), nth, "sent in order");
                late(0.8 * f64::from(nth), Ok(0)).await
            })
        };
        let mut replies = [reply(0), reply(1), reply(2), reply(3)];
        assert!(exchange(&mut replies, LIMIT).await);
        let all = replies.iter().all(|reply| reply.result.is_some());
        assert!(all, "the last came after more than twice the limit");
        let silent = std::time::Instant::now();
        let mut replies = [
            Reply::new("rows", pending()),
            Reply::new("rows", pending()),
            Reply::new("commit", pending()),
        ];
        assert!(exchange(&mut replies, LIMIT).await);
        assert!(silent.elapsed() < 2 * LIMIT, "once for all");
    }
}
