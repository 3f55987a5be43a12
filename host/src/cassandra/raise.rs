//! Write times lifted to the greatest of all partitions, for a topic that gained some: [`CassandraAnchor::raise`].

use super::anchor::CassandraAnchor;
use super::lane::Mark;
use crate::anchor::{Anchor as _, CommitError, Stored};
use crate::error::Result;

impl CassandraAnchor {
    /// Lifts the last write time of every partition to the greatest, then stores positions with it for those that have
    /// none. Whoever runs the pipeline meanwhile is fenced, and goes on after its next claim. Returns that time,
    /// microseconds.
    ///
    /// The new partitions are listed last: cut off before, it is simply done once more.
    ///
    /// # Errors
    /// `Outside` when a change has no answer or another host claims meanwhile: to be done once more.
    pub async fn raise(&self, added: &[Stored]) -> Result<i64> {
        let known = self.positions.listed().await?;
        let claims = self.claim(&known).await?;
        let hlc = claims.iter().map(|claim| claim.hlc).max().unwrap_or(0);
        for claim in &claims {
            let lifted = Mark {
                next: claim.next,
                reserved: claim.reserved,
                hlc,
                ledger: claim.ledger,
            };
            self.store(claim, lifted)
                .await
                .map_err(CommitError::into_error)?;
        }
        self.seed_at(added, hlc).await?;
        Ok(hlc)
    }
}
