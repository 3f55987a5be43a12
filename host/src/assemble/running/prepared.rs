//! [`Prepared`]: a deployment with every release loaded, as the pipeline's lanes follow it.
//!
//! The release in charge has to be there. One on trial that cannot run here never keeps it from running: the fault is
//! told, partitions of a canary that nobody processes yet wait for it, and a shadow is left out.

use std::sync::Arc;

use super::Actor;
use crate::anchor::Order;
use crate::assemble::releases::Loaded;
use crate::assemble::world::World;
use crate::control::Revision;
use crate::error::{Error, Result};
use crate::pipeline::{Desired, Trial};

/// A deployment, loaded.
pub(super) struct Prepared {
    pub(super) main: Arc<Loaded>,
    pub(super) desired: Desired,
    /// Why the canary cannot run here, where it cannot.
    pub(super) canary_fault: Option<Error>,
}

impl Prepared {
    /// Whether any of its releases reads headers.
    pub(super) fn needs_headers(&self) -> bool {
        let releases = self.desired.writing().chain(&self.desired.shadow);
        let mut inputs = releases.map(|release| &release.plan.input.input);
        inputs.any(|input| input.needs_headers())
    }

    /// Makes sure of the tables.
    pub(super) async fn ensure(&mut self, world: &World) -> Result<()> {
        world.ensure(&self.desired.release.plan).await?;
        if let Some(trial) = &mut self.desired.canary
            && let Some(release) = &trial.release
            && let Err(error) = world.ensure(&release.plan).await
        {
            trial.release = None;
            self.canary_fault = Some(error);
        }
        Ok(())
    }
}

impl Actor {
    /// Loads every release of a deployment.
    pub(super) async fn prepare(&self, revision: &Revision) -> Result<Prepared> {
        let deployment = &revision.deployment;
        let (releases, name) = (&self.shared.releases, &*self.pipeline.name);
        let main = releases.load(name, &deployment.release).await?;
        let (mut canary, mut canary_fault) = (None, None);
        if let Some(wanted) = &deployment.canary {
            let release = match releases.load(name, &wanted.release).await {
                Ok(loaded) => Some(Arc::clone(&loaded.release)),
                Err(error) => {
                    canary_fault = Some(error);
                    None
                }
            };
            let partitions = wanted.partitions.iter().copied().collect();
            canary = Some(Trial {
                release,
                partitions,
            });
        }
        let shadow = match &deployment.shadow {
            Some(shadow) => match releases.load(name, shadow).await {
                Ok(loaded) => Some(Arc::clone(&loaded.release)),
                Err(error) => {
                    tracing::warn!(pipeline = name, error = %error, "the shadow does not run here");
                    self.failed(&error);
                    None
                }
            },
            None => None,
        };
        let order = Order {
            // Nobody else sees a log in memory, and its revisions begin anew with every start.
            log: match &self.shared.servers.config.control {
                Some(_) => self.shared.control.identity().await?,
                None => String::new(),
            },
            revision: revision.revision,
        };
        Ok(Prepared {
            desired: Desired {
                release: Arc::clone(&main.release),
                canary,
                shadow,
                order,
                log_lost: self.shared.control.lost().is_some(),
            },
            main,
            canary_fault,
        })
    }
}
