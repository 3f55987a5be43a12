//! Dead letters that are gone, retried or dropped, and those whose retry was begun and did not end. What their records
//! may have become, through any release that may have retried them, is possible and no more.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::world::World;
use super::deployed::Deployed;
use super::derive::Deriver;
use crate::error::{Error, Result};
use crate::pipeline::Replay;
use crate::task;
use crate::verify::{At, Derived, Kind, Unchecked, deleted_at};

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
    if !gone.is_empty() {
        deriver.unchecked.push(Unchecked {
            what: "dead letters that are gone".to_owned(),
            why: "they were retried or dropped, and if nobody did that they are lost: a row that one of them may have \
                  become is taken for right, and so is its absence"
                .to_owned(),
            count: Some(gone.len() as u64),
        });
    }
    let begun = deriver.letters.iter().filter(|(_, letter)| letter.begun);
    let begun: BTreeSet<At> = begun.map(|(at, _)| *at).collect();
    gone.extend(&begun);
    if gone.is_empty() {
        return Ok(());
    }
    if let Some(more) = gone.len().checked_sub(MOST).filter(|more| *more > 0) {
        deriver.unchecked.push(Unchecked {
            what: "dead letters that are gone, or whose retry was begun".to_owned(),
            why: format!("only {MOST} are looked into: rows of the others look extra or different"),
            count: Some(more as u64),
        });
    }
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
        let time = batch.timestamps()[0];
        let written = time.saturating_mul(1000);
        for (number, replay) in replays.iter_mut().enumerate() {
            let release = Arc::clone(replay.release());
            let Ok(replayed) = replay.run(batch.clone()).await else {
                continue;
            };
            for (route, rows) in replayed.rows.iter().enumerate() {
                let Some(expected) = deriver.tables.of(&release.id, route) else {
                    continue;
                };
                // What was only begun committed nothing.
                if begun.contains(&at) && expected.table.kind == Kind::Postgres {
                    continue;
                }
                for row in rows.iter() {
                    let bound = &release.plan.routes[route].route;
                    let derived = Derived {
                        at,
                        written,
                        time,
                        columns: &bound.columns,
                        deleted_at: deleted_at(bound),
                        row,
                    };
                    let taken = expected.possible(derived, number);
                    taken
                        .map_err(|detail| Error::bug(format!("derive the rows of {at}"), detail))?;
                }
            }
        }
    }
    Ok(())
}
