//! What a cluster's settings take away from the promise: [`Facts`] judged. Pure, but for [`keeps`], which asks.

use std::time::Duration;

use super::catalog::{Facts, facts};
use super::session::{CassandraSession, Patience};
use crate::config::CassandraConnection;
use crate::error::Result;

/// What has to hold on a cluster nobody could ask.
pub const NEEDED: &str = "durable_writes, and replication factor 3 with fewer than a quorum of a row's nodes lost at \
                          once, or commitlog_sync = batch or group";

/// Copies from which the loss of one node takes nothing.
const ENOUGH: u32 = 3;
/// Longest wait for an answer: a person is waiting.
const WAIT: Duration = Duration::from_secs(5);

/// Asks a cluster.
///
/// # Errors
/// As [`facts`] and [`CassandraSession::connect`].
pub async fn keeps(connection: &CassandraConnection) -> Result<Facts> {
    let patience = Patience {
        connect: WAIT,
        request: WAIT,
        budget: WAIT,
    };
    facts(&CassandraSession::connect(connection, patience).await?).await
}

impl Facts {
    /// Name and value of each setting.
    #[must_use]
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let commit_log = self.commit_log.as_deref().unwrap_or("not told");
        vec![
            ("replication", self.replication.clone()),
            ("durable_writes", self.durable_writes.to_string()),
            ("commitlog_sync", commit_log.to_owned()),
        ]
    }

    /// What the settings take away from the promise, each with what to do; nothing where it holds as it is.
    #[must_use]
    pub fn takes_away(&self) -> Vec<String> {
        let mut taken = Vec::new();
        if !self.durable_writes {
            taken.push(
                "durable_writes = false: a node that dies forgets rows it acknowledged, however many copies it was one \
                 of when they all die; ALTER KEYSPACE … WITH durable_writes = true"
                    .to_owned(),
            );
        }
        let synced = matches!(self.commit_log.as_deref(), Some("batch" | "group"));
        let mode = self
            .commit_log
            .as_deref()
            .unwrap_or("periodic, as far as it tells");
        let copies = self.replication_factor;
        match copies {
            Some(copies) if copies >= ENOUGH => {
                if !synced {
                    taken.push(format!(
                        "commitlog_sync = {mode}: holds while fewer than a quorum of a row's {copies} nodes die within \
                         one sync period; commitlog_sync = batch or group holds beyond that"
                    ));
                }
            }
            _ => {
                let few = copies.map_or_else(
                    || "a replication factor it does not tell".to_owned(),
                    |copies| format!("replication factor {copies}"),
                );
                if !synced {
                    taken.push(format!(
                        "commitlog_sync = {mode} with {few}: a node killed or without power loses rows it acknowledged \
                         last, and nothing writes them again; use replication factor {ENOUGH} or more, or \
                         commitlog_sync = batch or group"
                    ));
                }
                taken.push(format!(
                    "{few}: a lost disk takes its rows along; use replication factor {ENOUGH} or more"
                ));
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(copies: Option<u32>, commit_log: Option<&str>) -> Facts {
        Facts {
            durable_writes: true,
            replication: String::new(),
            replication_factor: copies,
            commit_log: commit_log.map(str::to_owned),
            release: None,
        }
    }

    #[test]
    fn copies_or_a_synced_commit_log_keep_rows_and_nothing_else_does() {
        let taken = |copies, commit_log| facts(copies, commit_log).takes_away().join("\n");
        for log in ["batch", "group"] {
            assert_eq!(taken(Some(3), Some(log)), "");
            let one = taken(Some(1), Some(log));
            assert!(
                one.starts_with("replication factor 1: a lost disk"),
                "{one}"
            );
        }
        let ring = taken(Some(3), Some("periodic"));
        assert!(
            ring.contains("holds while fewer than a quorum of a row's 3 nodes"),
            "{ring}"
        );
        for log in [Some("periodic"), None] {
            let one = taken(Some(1), log);
            assert!(one.contains("loses rows it acknowledged"), "{one}");
        }
        assert!(taken(None, Some("periodic")).contains("does not tell"));
        let mut volatile = facts(Some(3), Some("batch"));
        volatile.durable_writes = false;
        assert!(volatile.takes_away()[0].contains("durable_writes = true"));
    }
}
