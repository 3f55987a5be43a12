//! Dead letters that are gone: retried, or dropped. What their records may have become, through any release that may
//! have retried them, is possible and no more.

use std::sync::Arc;

use super::super::world::World;
use super::deployed::Deployed;
use super::derive::Deriver;
use crate::error::{Error, Result};
use crate::pipeline::Replay;
use crate::task;
use crate::verify::{At, Derived, Unchecked};

/// Letters that are looked into; of more, their number is told.
const MOST: usize = 1000;
/// Releases tried on each.
const RELEASES: usize = 8;

/// Enters what letters that are gone may have become.
pub(super) async fn letters_gone(
    deriver: &mut Deriver<'_>,
    deployed: &Deployed,
    world: &Arc<World>,
) -> Result<()> {
    let lanes = deriver.lanes.iter();
    let mut gone: Vec<At> = lanes
        .flat_map(|(partition, lane)| {
            lane.unlettered.iter().map(|offset| At {
                partition: *partition,
                offset: *offset,
            })
        })
        .collect();
    if gone.is_empty() {
        return Ok(());
    }
    deriver.unchecked.push(Unchecked {
        what: "dead letters that are gone".to_owned(),
        why: "they were retried or dropped: a row that one of them may have become is taken for right, and so is its \
              absence"
            .to_owned(),
        count: Some(gone.len() as u64),
    });
    gone.truncate(MOST);
    let mut replays = Vec::new();
    for release in deployed.candidates(RELEASES) {
        let Ok(loaded) = deployed.releases.load(&deployed.pipeline, &release).await else {
            continue;
        };
        if deriver
            .tables
            .join(&deployed.servers.config, &loaded)
            .is_ok()
        {
            replays.push(Replay::new(&loaded.release)?);
        }
    }
    for at in gone {
        let asked = Arc::clone(world);
        let found = task::blocking(move || asked.record(at.partition, at.offset)).await??;
        let Some(batch) = found else {
            continue;
        };
        // Retried, it has the write time that it was set aside with: its own, but for records that go back in time.
        let written = batch.timestamps()[0].saturating_mul(1000);
        for replay in &mut replays {
            let release = Arc::clone(replay.release());
            let Ok(replayed) = replay.run(batch.clone()).await else {
                continue;
            };
            for (route, rows) in replayed.rows.iter().enumerate() {
                let Some(expected) = deriver.tables.of(&release.id, route) else {
                    continue;
                };
                for row in rows.iter() {
                    let derived = Derived {
                        at,
                        written,
                        columns: &release.plan.routes[route].route.columns,
                        row,
                    };
                    let taken = expected.possible(derived);
                    taken
                        .map_err(|detail| Error::bug(format!("derive the rows of {at}"), detail))?;
                }
            }
        }
    }
    Ok(())
}
