//! [`Seat`]: who answers for the host: nobody at first, then its [`Operator`], for good. The API listens before the host
//! behind it is there; until then it tells what the host says of itself, and every other request is refused.

use std::sync::{Arc, OnceLock};

use super::operator::Operator;
use super::problem::Trouble;
use super::types::{HostStatus, Readiness};
use crate::error::Error;

/// See the module. Clones are the same seat.
#[derive(Clone)]
pub struct Seat {
    inner: Arc<Inner>,
}

struct Inner {
    taken: OnceLock<Arc<dyn Operator>>,
    before: Box<dyn Fn() -> HostStatus + Send + Sync>,
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let taken = self.inner.taken.get().is_some();
        f.debug_struct("Seat").field("taken", &taken).finish()
    }
}

impl<O: Operator + 'static> From<Arc<O>> for Seat {
    /// The seat of a host that is there.
    fn from(operator: Arc<O>) -> Self {
        let seat = Self::new(HostStatus::default);
        seat.take(operator);
        seat
    }
}

impl Seat {
    /// An empty one. `before` says how the host is as long as it stays so: asked by probes, so fast, from memory.
    #[must_use]
    pub fn new(before: impl Fn() -> HostStatus + Send + Sync + 'static) -> Self {
        let inner = Inner {
            taken: OnceLock::new(),
            before: Box::new(before),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The host is there: it answers from now on, on open connections too. Who was first stays.
    pub fn take(&self, operator: Arc<dyn Operator>) {
        self.inner.taken.get_or_init(|| operator);
    }

    /// The host.
    ///
    /// # Errors
    /// It is not there yet; says what it waits for.
    pub(super) fn operator(&self) -> Result<&dyn Operator, Trouble> {
        let taken = self.inner.taken.get();
        taken.map(|operator| &**operator).ok_or_else(|| {
            let waits = (self.inner.before)().reasons.join("; ");
            Error::outside("ask the host", format!("it is starting: {waits}"))
                .hint("it goes on by itself; ask again when `/ready` answers 200")
                .into()
        })
    }

    /// Whether the host does its work.
    pub(super) async fn ready(&self) -> Readiness {
        match self.inner.taken.get() {
            Some(operator) => operator.ready().await,
            None => {
                let HostStatus { ready, reasons, .. } = (self.inner.before)();
                Readiness {
                    ready,
                    reasons,
                    notes: Vec::new(),
                }
            }
        }
    }

    /// The host, as far as it has come.
    pub(super) async fn host_status(&self) -> HostStatus {
        match self.inner.taken.get() {
            Some(operator) => operator.host_status().await,
            None => (self.inner.before)(),
        }
    }

    /// Tells of a denied request; there is no audit trail before the host is there.
    pub(super) async fn denied(&self, by: &str, what: &str, why: &str) {
        match self.inner.taken.get() {
            Some(operator) => operator.denied(by, what, why).await,
            None => tracing::warn!(by, what, why, "request denied"),
        }
    }
}
