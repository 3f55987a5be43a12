//! Write times of a pipeline lifted to the greatest of its partitions, and positions for those its topic gained.

use std::sync::Arc;

use futures_util::FutureExt as _;

use super::Desk;
use crate::admin::Refusal;
use crate::admin::types::Raised;
use crate::pipeline::Surroundings as _;
use crate::task;

impl Desk {
    pub(super) async fn raise_write_times(
        &self,
        by: &str,
        pipeline: &str,
    ) -> Result<Raised, Refusal> {
        const WHAT: &str = "raise write times";
        let place = self.place("raise write times of", pipeline, None).await?;
        let (hub, by, pipeline) = (Arc::clone(&self.hub), by.to_owned(), pipeline.to_owned());
        let asked = Arc::clone(&place.world);
        let info = task::blocking(move || asked.topic()).await??;
        let raised = hub.jobs.at_work(WHAT, super::letters::WORK, move || {
            async move {
                let plan = &place.loaded.release.plan;
                let raised = place.world.raise(plan, &info).await?;
                let outcome = format!(
                    "to {} µs, {} partitions, {} of them new",
                    raised.write_time, raised.partitions, raised.added
                );
                place.audit(&by, &pipeline, WHAT, outcome).await;
                Ok(raised)
            }
            .boxed_local()
        });
        Ok(raised.await?)
    }
}
