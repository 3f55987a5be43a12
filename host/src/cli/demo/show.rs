//! What arrived: per sink the count and a few rows, the dead letters with their reasons, the guarantees; and
//! whether the numbers add up.

use std::time::Duration;

use comfy_table::{Table, presets};

use super::again::Again;
use super::servers::Servers;
use super::{Expectation, sum};
use crate::cli::{report, show as text};
use crate::error::Error;
use crate::pipeline::{Binding, Plan, Totals};
use crate::record::TextTable;
use crate::task;
use crate::{cassandra, postgres};

/// Rows shown of each table.
const SHOWN: usize = 3;

struct Sink {
    title: String,
    guarantee: String,
    count: u64,
    rows: TextTable,
}

/// Everything to show.
pub(super) struct Shown {
    sinks: Vec<Sink>,
    dead: TextTable,
    /// Numbers that do not add up.
    pub(super) mismatches: Vec<String>,
}

/// Looks into every sink.
pub(super) fn results(
    servers: &Servers,
    plans: &[Plan],
    totals: &[(String, Totals)],
    expected: &Expectation,
) -> Result<Shown, Error> {
    task::block_on(look(servers, plans, totals, expected))
}

async fn look(
    servers: &Servers,
    plans: &[Plan],
    totals: &[(String, Totals)],
    expected: &Expectation,
) -> Result<Shown, Error> {
    let database = servers.postgres();
    let mut shown = Shown {
        sinks: Vec::new(),
        dead: TextTable::default(),
        mismatches: Vec::new(),
    };
    for plan in plans {
        let sent = expected
            .sent
            .iter()
            .find(|(name, _)| *name == plan.pipeline)
            .map(|(_, sent)| *sent)
            .ok_or_else(|| Error::bug("check the demo", "a pipeline nobody fed"))?;
        let counted = totals
            .iter()
            .find(|(name, _)| *name == plan.pipeline)
            .map(|(_, totals)| totals.clone())
            .unwrap_or_default();
        let mut check = |what: String, found: u64, wanted: u64| {
            if found != wanted {
                shown.mismatches.push(format!(
                    "{}: {what} is {found}, expected {wanted}",
                    plan.pipeline
                ));
            }
        };
        check("records read".to_owned(), counted.received, sent.records);
        check("dead letters counted".to_owned(), counted.dead, sent.bad);
        check(
            "emitted + filtered + dead".to_owned(),
            counted.emitted + counted.filtered + counted.dead,
            counted.received,
        );
        for (index, route) in plan.routes.iter().enumerate() {
            let (count, rows) = match (&route.binding, servers.cassandra()) {
                (Binding::Here, _) => {
                    let count = format!("SELECT count(*) FROM {}", route.table());
                    let rows = format!("SELECT * FROM {} ORDER BY 1 LIMIT {SHOWN}", route.table());
                    (
                        postgres::query_text(&database, &count).await?,
                        postgres::query_text(&database, &rows).await?,
                    )
                }
                (Binding::Ahead(_), Some(connection)) => {
                    let table = format!("demo.{}", route.table());
                    let count = format!("SELECT count(*) FROM {table}");
                    let rows = format!("SELECT * FROM {table} LIMIT {SHOWN}");
                    (
                        cassandra::query_text(&connection, &count).await?,
                        cassandra::query_text(&connection, &rows).await?,
                    )
                }
                _ => (TextTable::default(), TextTable::default()),
            };
            let count = if route.binding == Binding::Discard {
                counted.rows.get(index).copied().unwrap_or(0)
            } else {
                let count = count.first_number();
                check(format!("rows in {}", route.table()), count, sent.rows);
                count
            };
            shown.sinks.push(Sink {
                title: format!("{} {} ({})", route.kind(), route.table(), plan.pipeline),
                guarantee: format!("{}: {}", route.guarantee, route.why),
                count,
                rows,
            });
        }
    }
    shown.dead = postgres::query_text(
        &database,
        "SELECT pipeline, partition, \"offset\", convert_from(key, 'UTF8') AS key, code, reason \
         FROM wasmill.dead_letter ORDER BY 1, 2, 3",
    )
    .await?;
    let dead = sum(totals).dead;
    if shown.dead.rows.len() as u64 != dead {
        shown.mismatches.push(format!(
            "dead letters stored are {}, counted {dead}",
            shown.dead.rows.len()
        ));
    }
    Ok(shown)
}

impl Shown {
    /// For people.
    pub(super) fn print(&self) {
        for sink in &self.sinks {
            report::line("");
            let rows = text::number_of(sink.count, "row");
            report::line(format_args!("{}: {rows}", sink.title));
            report::line(format_args!("  {}", sink.guarantee));
            if !sink.rows.rows.is_empty() {
                report::line(drawn(&sink.rows));
            }
        }
        report::line("");
        report::line(format_args!("dead letters: {}", self.dead.rows.len()));
        report::line(drawn(&self.dead));
        for mismatch in &self.mismatches {
            report::line(format_args!("MISMATCH {mismatch}"));
        }
    }

    /// For programs.
    pub(super) fn document(
        &self,
        totals: &[(String, Totals)],
        again: Option<&Again>,
        took: Duration,
    ) -> serde_json::Value {
        serde_json::json!({
            "ok": self.mismatches.is_empty(),
            "seconds": took.as_secs_f64(),
            "pipelines": totals.iter().map(|(name, totals)| (name.clone(), serde_json::json!(totals)))
                .collect::<serde_json::Map<_, _>>(),
            "sinks": self.sinks.iter().map(|sink| serde_json::json!({
                "sink": sink.title, "rows": sink.count, "guarantee": sink.guarantee,
            })).collect::<Vec<_>>(),
            "dead_letters": self.dead.rows,
            "again": again.map(Again::document),
            "mismatches": self.mismatches,
        })
    }
}

fn drawn(text: &TextTable) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(&text.columns);
    for row in &text.rows {
        table.add_row(row);
    }
    table.to_string()
}
