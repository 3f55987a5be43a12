//! [`Evidence`]: what a pipeline's consumer group knows of its positions, against what the anchor holds (delivery rule 7).
//! Pure but for the asking.
//!
//! The anchor alone cannot tell that it lost something: all of its positions gone look like a first start, and a
//! database that was restored looks like one that is behind. The group is a witness: a host commits a position there
//! only after the anchor confirmed it, so an anchor that holds less has lost it, or went back. That holds for whoever
//! commits, late or twice, as long as the group is asked *before* the anchor: positions only grow. What that means is
//! for [`Evidence::allows_first`] and [`Evidence::allows`] to say. What is missing in the group (offsets expire, and
//! tools reset them) proves nothing, and the group decides nothing else: no pipeline ever starts from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Surroundings;
use super::plan::{AnchorPlan, InputPlan, Plan};
use crate::anchor::{Claim, Stored};
use crate::error::Error;
use crate::task;

/// See the module.
#[derive(Debug)]
pub(super) struct Evidence<'a> {
    plan: &'a Plan,
    /// Next offset by partition.
    committed: BTreeMap<i32, i64>,
}

impl<'a> Evidence<'a> {
    /// Asks the group; to be done before the anchor is asked for what it is compared with.
    ///
    /// # Errors
    /// As [`Surroundings::committed`].
    pub(super) async fn ask(
        plan: &'a Plan,
        surroundings: &Arc<dyn Surroundings>,
    ) -> Result<Self, Error> {
        let asked = Arc::clone(surroundings);
        let committed = task::blocking(move || asked.committed()).await?;
        let committed = committed.map_err(|error| error.on(plan.input.server()))?;
        Ok(Self { plan, committed })
    }

    /// What the group says, for tests without one.
    #[cfg(test)]
    pub(super) fn new(plan: &'a Plan, committed: BTreeMap<i32, i64>) -> Self {
        Self { plan, committed }
    }

    /// Whether partitions that the anchor holds no position for may get a first one.
    ///
    /// # Errors
    /// A data-loss stop: the group has committed an offset of one, so it had a position.
    pub(super) fn allows_first<'s>(
        &self,
        seeds: impl IntoIterator<Item = &'s Stored>,
    ) -> Result<(), Error> {
        let known = |seed: &Stored| Some((seed.partition, *self.committed.get(&seed.partition)?));
        let gone: Vec<(i32, i64)> = seeds.into_iter().filter_map(known).collect();
        let Some((partition, _)) = gone.first() else {
            return Ok(());
        };
        let told = gone.iter().map(|(partition, committed)| {
            format!("partition {partition} had one of at least {committed}")
        });
        let detail = format!(
            "the anchor holds no position for it, although the pipeline has run: by its group {:?}, {}",
            self.plan.input.group,
            told.collect::<Vec<_>>().join(", ")
        );
        Err(self.loss(*partition, detail))
    }

    /// Whether the positions that a claim found may be gone on from. Two anchors may hold less than they confirmed:
    ///
    /// * Cassandra's stores a position a little later. What was confirmed lies below the reservation then, and is
    ///   written once more as it is.
    /// * Postgres where nothing else is written, after a crash with `synchronous_commit = off`, a failover to a standby
    ///   that was behind, or a restore: rows went back with the positions, and are written again, once. It is told.
    ///
    /// # Errors
    /// A data-loss stop: the group has committed an offset past one.
    pub(super) fn allows(&self, claims: &[Claim]) -> Result<(), Error> {
        let past = |claim: &Claim| {
            let committed = *self.committed.get(&claim.partition)?;
            let confirmed = match self.plan.anchor {
                AnchorPlan::Cassandra(_) => claim.next.max(claim.reserved),
                _ => claim.next,
            };
            (committed > confirmed).then_some((claim.partition, claim.next, committed))
        };
        let back: Vec<(i32, i64, i64)> = claims.iter().filter_map(past).collect();
        let Some((partition, ..)) = back.first() else {
            return Ok(());
        };
        let told = back.iter().map(|(partition, next, committed)| {
            format!("partition {partition} stands at {next} and stood at {committed}")
        });
        let detail = format!(
            "the anchor went back: by the pipeline's group {:?}, {}",
            self.plan.input.group,
            told.collect::<Vec<_>>().join(", ")
        );
        if matches!(
            self.plan.anchor,
            AnchorPlan::Postgres(_) | AnchorPlan::Memory
        ) && !self.plan.writes_ahead()
        {
            let pipeline = &self.plan.pipeline;
            tracing::warn!(%pipeline, "{detail}; its rows went back with it and are written again");
            return Ok(());
        }
        Err(self.loss(*partition, detail))
    }

    fn loss(&self, partition: i32, detail: String) -> Error {
        let InputPlan { topic, group, .. } = &self.plan.input;
        Error::config(format!("data loss: {topic} partition {partition}"), detail).hint(format!(
            "nothing was skipped or doubled, and nothing will be: bring back the newest state of what holds its positions \
             ({}). If it was restored on purpose, or failed over, and its rows went back with its positions: pause the \
             pipeline, make the group forget with `kafka-consumer-groups --delete --group {group}` (once its sessions \
             have ended), and resume: it goes on from what is held now, or starts anew where that is nothing, and what \
             it wrote elsewhere is written again",
            self.plan.anchor
        ))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::anchor::{Epoch, Ledger};
    use crate::pipeline::plan::Binding;
    use crate::pipeline::tests::plan_with;

    fn seed(partition: i32) -> Stored {
        Stored {
            partition,
            next: 0,
            cuts: Vec::new(),
            topic_id: None,
        }
    }

    fn claim(partition: i32, next: i64, reserved: i64) -> Claim {
        Claim {
            partition,
            epoch: Epoch {
                number: 1,
                id: uuid::Uuid::nil(),
            },
            next,
            reserved,
            hlc: 0,
            ledger: Ledger::default(),
            cuts: Vec::new(),
            topic_id: None,
        }
    }

    #[test]
    fn a_partition_that_the_group_knows_is_no_first_start() {
        let plan = plan_with(AnchorPlan::Postgres("main".to_owned()));
        let evidence = Evidence::new(&plan, [(1, 700), (2, 0)].into());
        assert!(evidence.allows_first(&[]).is_ok());
        assert!(evidence.allows_first(&[seed(0), seed(3)]).is_ok());
        let error = evidence
            .allows_first(&[seed(0), seed(1), seed(2)])
            .unwrap_err();
        let said = error.to_string();
        assert!(said.starts_with("data loss: t partition 1"), "{said}");
        for word in [
            "\"wasmill.p\"",
            "1 had one of at least 700",
            "2 had one of at least 0",
        ] {
            assert!(said.contains(word), "{word}: {said}");
        }
        assert!(
            error
                .hint_text()
                .unwrap()
                .contains("--delete --group wasmill.p")
        );
    }

    #[test]
    fn a_position_behind_the_group_went_back_unless_the_anchor_may_hold_it_back() {
        let group = BTreeMap::from([(0, 700), (1, 700)]);
        let exact = plan_with(AnchorPlan::Postgres("main".to_owned()));
        let evidence = Evidence::new(&exact, group.clone());
        assert!(evidence.allows(&[claim(0, 700, 0), claim(2, 0, 0)]).is_ok());
        assert!(evidence.allows(&[claim(0, 900, 900)]).is_ok());
        assert!(evidence.allows(&[claim(0, 600, 700)]).is_err());
        let mut alone = plan_with(AnchorPlan::Postgres("main".to_owned()));
        alone
            .routes
            .retain(|route| !matches!(route.binding, Binding::Ahead(_)));
        let evidence = Evidence::new(&alone, group.clone());
        assert!(
            evidence.allows(&[claim(0, 600, 700)]).is_ok(),
            "with its rows"
        );
        let lazy = plan_with(AnchorPlan::Cassandra("main".to_owned()));
        let evidence = Evidence::new(&lazy, group);
        assert!(evidence.allows(&[claim(0, 600, 700)]).is_ok(), "held back");
        let claims = [claim(0, 600, 699), claim(1, 699, 0)];
        let said = evidence.allows(&claims).unwrap_err().to_string();
        assert!(said.starts_with("data loss: t partition 0"), "{said}");
        for word in ["0 stands at 600 and stood at 700", "1 stands at 699"] {
            assert!(said.contains(word), "{word}: {said}");
        }
    }
}
