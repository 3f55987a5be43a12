//! Differences in words: the record that should have made a row once more, alone, and its values beside the table's.

use std::sync::Arc;

use super::super::world::World;
use super::derive::Deriver;
use crate::error::Result;
use crate::pipeline::Replay;
use crate::record::Plain;
use crate::task;
use crate::verify::{
    At, ColumnDifference, Derived, Difference, DifferenceKind, Mismatch, Report, Table, Wrong,
    deleted_at,
};

/// Characters of a value shown.
const SHOWN: usize = 120;

/// Moves differences into the report, at most `limit`.
pub(super) async fn differences(
    report: &mut Report,
    deriver: &mut Deriver<'_>,
    world: &Arc<World>,
    limit: usize,
) -> Result<()> {
    report.differences = std::mem::take(&mut deriver.differences);
    for at in 0..deriver.tables.all.len() {
        let left = limit.saturating_sub(report.differences.len());
        for mismatch in deriver.tables.all[at].standing(left) {
            let wanted = match mismatch.at {
                Some(record) if mismatch.wrong != Wrong::Extra => {
                    again(deriver, world, at, record, &mismatch).await?
                }
                _ => None,
            };
            let table = &deriver.tables.all[at].table;
            report
                .differences
                .push(tell(table, &mismatch, wanted.as_deref()));
        }
    }
    Ok(())
}

/// The row that a record makes of a mismatch's key, by column.
async fn again(
    deriver: &mut Deriver<'_>,
    world: &Arc<World>,
    table: usize,
    record: At,
    mismatch: &Mismatch,
) -> Result<Option<Vec<Option<Plain>>>> {
    let Some(loaded) = deriver.release_of(record) else {
        return Ok(None);
    };
    let asked = Arc::clone(world);
    let found = task::blocking(move || asked.record(record.partition, record.offset)).await??;
    let Some(batch) = found else {
        return Ok(None);
    };
    let release = &loaded.release;
    let mut replay = Replay::new(release)?;
    let replayed = replay.run(batch).await?;
    let mut last = None;
    for (route, rows) in replayed.rows.iter().enumerate() {
        let place = deriver.tables.place(&release.id, route);
        for row in rows.iter().filter(|_| place == Some(table)) {
            let bound = &release.plan.routes[route].route;
            let derived = Derived {
                at: record,
                written: 0,
                time: replayed.batch.timestamps()[row.source as usize],
                columns: &bound.columns,
                deleted_at: deleted_at(bound),
                row,
            };
            let same = deriver.tables.all[table].is_of(mismatch, derived);
            last = same.unwrap_or(None).or(last);
        }
    }
    Ok(last)
}

fn tell(table: &Table, mismatch: &Mismatch, wanted: Option<&[Option<Plain>]>) -> Difference {
    let value = |column: usize| match (&mismatch.found, wanted) {
        (Some(found), _) => found.get(column),
        (None, Some(wanted)) => wanted[column].as_ref(),
        (None, None) => None,
    };
    let named = |column: usize| {
        let name = table.columns[column].name.clone();
        value(column).map(|value| (name, short(value)))
    };
    let row: Vec<(String, String)> = if table.appends() {
        (0..table.columns.len()).filter_map(named).collect()
    } else {
        table.key.iter().copied().filter_map(named).collect()
    };
    let mut columns = Vec::new();
    if let (Wrong::Different, Some(found), Some(wanted)) = (mismatch.wrong, &mismatch.found, wanted)
    {
        for ((column, found), wanted) in table.columns.iter().zip(found).zip(wanted) {
            if wanted.as_ref().is_none_or(|wanted| wanted != found) {
                columns.push(ColumnDifference {
                    column: column.name.clone(),
                    expected: wanted.as_ref().map(short),
                    found: short(found),
                });
            }
        }
        // What an earlier record wrote is not derived here; it is shown only where nothing else differs.
        if columns.iter().any(|column| column.expected.is_some()) {
            columns.retain(|column| column.expected.is_some());
        }
    }
    let times = mismatch.times;
    let detail = match (mismatch.wrong, mismatch.at) {
        (Wrong::Missing, _) if wanted.is_none() => {
            "it is not there, and its record, read once more and alone, does not make it: the plugin is not \
             deterministic"
                .to_owned()
        }
        (Wrong::Missing, _) if times > 1 => format!("{times} times less often there than written"),
        (Wrong::Missing, _) => "it is not there".to_owned(),
        (Wrong::Extra, Some(_)) if table.appends() => "it is there more often than written".to_owned(),
        (Wrong::Extra, Some(_)) => "it is there, and this record deleted it, or it expired".to_owned(),
        (Wrong::Extra, None) => "it is there, and no record makes it".to_owned(),
        (Wrong::Different, _) if columns.is_empty() => {
            "it holds something else than was derived, and its record, read once more and alone, makes what it holds: \
             the plugin is not deterministic"
                .to_owned()
        }
        (Wrong::Different, _) => "it holds something else".to_owned(),
    };
    Difference {
        kind: DifferenceKind::from(mismatch.wrong),
        table: table.name.clone(),
        at: mismatch.at,
        row,
        columns,
        detail,
    }
}

fn short(value: &Plain) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
