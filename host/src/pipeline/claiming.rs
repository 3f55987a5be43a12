//! [`Claiming`]: a claim of partitions under way. It waits for the anchor, and for what the group knows of the partitions,
//! as long as it takes, and nothing waits for it: a revocation must not stand behind a database that is away. Dropping
//! it is safe: the next supersedes it.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;

use super::evidence::Evidence;
use super::{Plan, Surroundings, Waiter};
use crate::anchor::{Anchor, Claim};
use crate::clock::Backoff;
use crate::error::{Blame, Error};

/// See the module.
pub(super) struct Claiming<'a> {
    partitions: Vec<i32>,
    claims: LocalBoxFuture<'a, Result<Vec<Claim>, Error>>,
}

impl<'a> Claiming<'a> {
    pub(super) fn begin(
        anchor: &'a dyn Anchor,
        surroundings: Arc<dyn Surroundings>,
        plan: Arc<Plan>,
        partitions: Vec<i32>,
        waiter: Waiter,
    ) -> Self {
        let wanted = partitions.clone();
        let claims = async move { claim(anchor, &surroundings, &plan, wanted, waiter).await };
        Self {
            partitions,
            claims: claims.boxed_local(),
        }
    }

    /// What is claimed.
    pub(super) fn partitions(&self) -> &[i32] {
        &self.partitions
    }

    /// What came of it. Cancel-safe, until it was said.
    pub(super) async fn claims(&mut self) -> Result<Vec<Claim>, Error> {
        (&mut self.claims).await
    }

    /// Ends it, and says what was being claimed.
    pub(super) fn give_up(self) -> Vec<i32> {
        self.partitions
    }
}

async fn claim(
    anchor: &dyn Anchor,
    surroundings: &Arc<dyn Surroundings>,
    plan: &Plan,
    partitions: Vec<i32>,
    waiter: Waiter,
) -> Result<Vec<Claim>, Error> {
    let mut backoff = Backoff::default();
    loop {
        let claimed = async {
            let evidence = Evidence::ask(plan, surroundings).await?;
            let claims = anchor.claim(&partitions).await;
            let claims = claims.map_err(|error| error.on(&plan.anchor))?;
            evidence.allows(&claims)?;
            Ok::<_, Error>(claims)
        };
        match claimed.await {
            Err(error) if error.blame() == Blame::Outside => {
                waiter.failed(&error, "cannot claim yet");
                tokio::time::sleep(backoff.pause()).await;
            }
            claimed => return claimed,
        }
    }
}
