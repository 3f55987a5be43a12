//! One member of a group, and what it told about itself when it joined.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Ticket;

/// One assignment protocol a member supports, with its subscription in that protocol's terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Protocol {
    pub(crate) name: String,
    pub(crate) metadata: Bytes,
}

/// Where a member runs, for tools.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) id: String,
    pub(crate) host: String,
}

/// A member as tools see it.
#[derive(Debug)]
pub(crate) struct MemberInfo<'a> {
    pub(crate) member_id: &'a str,
    pub(crate) instance: Option<&'a str>,
    pub(crate) client: &'a Client,
    /// Its metadata in the group's current protocol.
    pub(crate) metadata: Bytes,
    pub(crate) assignment: Bytes,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) instance: Option<String>,
    pub(super) client: Client,
    /// In the member's order of preference.
    pub(super) protocols: Vec<Protocol>,
    pub(super) session: Duration,
    pub(super) rebalance: Duration,
    /// When the session ends, unless it is waiting for us.
    pub(super) expires: Instant,
    pub(super) join: Option<Ticket>,
    pub(super) sync: Option<Ticket>,
    pub(super) assignment: Bytes,
}

impl Member {
    /// A member whose call we hold cannot heartbeat, and is not silent.
    pub(super) fn is_waiting(&self) -> bool {
        self.join.is_some() || self.sync.is_some()
    }

    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|p| p.name == protocol);
        found.map(|p| p.metadata.clone()).unwrap_or_default()
    }

    pub(super) fn supports(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|p| p.name == protocol)
    }

    pub(super) fn info<'a>(&'a self, member_id: &'a str, protocol: &str) -> MemberInfo<'a> {
        MemberInfo {
            member_id,
            instance: self.instance.as_deref(),
            client: &self.client,
            metadata: self.metadata(protocol),
            assignment: self.assignment.clone(),
        }
    }
}
