//! [`Transaction`]: requests sent in one go inside one transaction; any error poisons it, commit consumes it.
//!
//! Why not the driver's own: its `commit()` returns `Ok` for a transaction that the server rolled back
//! because an earlier error was swallowed, and a time-out around it proves nothing (both reproduced). Here a
//! COMMIT is sent only after every reply was seen to be good, and a COMMIT without its reply is an unknown
//! outcome. Dropped half-way it does nothing: the caller drops the connection with it.

use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

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
    reply: Duration,
    /// Rows that each request changed, in their order.
    pub(super) counts: Vec<u64>,
}

/// A transaction that must not commit, and why. The server rolls back at the latest when its connection ends.
#[derive(Debug)]
pub(super) struct Poisoned<'a> {
    client: &'a Client,
    pub(super) error: CommitError,
}

impl<'a> Transaction<'a> {
    /// Sends `begin` (simple protocol) and all requests in one go and waits for every reply, each at most as
    /// long as the server's own limit `statement` allows.
    ///
    /// # Errors
    /// The first error in order; the transaction is poisoned.
    pub(super) async fn open(
        client: &'a Client,
        begin: &str,
        requests: Vec<Request<'_>>,
        statement: Duration,
    ) -> Result<Self, Poisoned<'a>> {
        let reply = statement + SLACK;
        let mut replies: Vec<Reply<'_>> = vec![Reply {
            what: "begin a transaction in postgres",
            future: Box::pin(async move { client.batch_execute(begin).await.map(|()| 0) }),
            result: None,
        }];
        for request in requests {
            replies.push(Reply {
                what: request.what,
                future: Box::pin(async move {
                    client.execute_raw(request.statement, request.params).await
                }),
                result: None,
            });
        }
        let all = tokio::time::timeout(
            reply * u32::try_from(replies.len()).unwrap_or(u32::MAX),
            in_order(&mut replies),
        );
        let error = match all.await {
            Err(_) => Some(CommitError::RolledBack(Error::outside(
                "write to postgres",
                format!("no reply within {reply:?} a statement"),
            ))),
            Ok(()) => replies.iter().find_map(|reply| match &reply.result {
                Some(Err(error)) => Some(failure::before_commit(reply.what, error)),
                _ => None,
            }),
        };
        match error {
            None => Ok(Self {
                client,
                reply,
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
        match tokio::time::timeout(self.reply, self.client.batch_execute("COMMIT")).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(failure::at_commit(&error)),
            Err(_) => Err(failure::unknown(format!(
                "no reply within {:?}",
                self.reply
            ))),
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

/// A request on its way.
struct Reply<'a> {
    what: &'a str,
    future: LocalBoxFuture<'a, Result<u64, tokio_postgres::Error>>,
    result: Option<Result<u64, tokio_postgres::Error>>,
}

/// Polls replies in their order until each has come. The driver sends a request when its future is first
/// polled, so order of polling is order on the wire.
async fn in_order(replies: &mut [Reply<'_>]) {
    std::future::poll_fn(|context| {
        let mut pending = false;
        for reply in replies.iter_mut() {
            if reply.result.is_none() {
                match Pin::new(&mut reply.future).poll(context) {
                    Poll::Ready(result) => reply.result = Some(result),
                    Poll::Pending => pending = true,
                }
            }
        }
        if pending {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
}
