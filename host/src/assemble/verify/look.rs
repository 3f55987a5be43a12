//! Looks at the databases: positions and dead letters of the pipeline, rows of a table. They change nothing.

use super::super::world::World;
use super::{VerifyProgress, VerifyStep};
use crate::anchor::{DeadLetters as _, LetterFilter, LetterPage, SetAside, Standing};
use crate::cassandra::{self, CassandraAnchor};
use crate::error::{Error, Result};
use crate::pipeline::{AnchorPlan, Plan};
use crate::postgres::{self, Snapshot};
use crate::verify::{Expected, Kind};

/// Letters of a page.
const PAGE: u32 = 1000;
/// Between two words about rows.
const EVERY: u64 = 10_000;

/// Where the positions are.
#[derive(Debug)]
pub(super) enum Looker {
    Postgres(Box<postgres::Settings>),
    Cassandra(Box<CassandraAnchor>),
}

/// What was seen.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) standings: Vec<Standing>,
    pub(super) letters: Vec<SetAside>,
    /// Postgres as it was then.
    pub(super) snapshot: Option<Snapshot>,
}

impl Looker {
    /// The place of a plan's positions.
    ///
    /// # Errors
    /// `Config` for a pipeline that writes nowhere.
    pub(super) async fn open(world: &World, plan: &Plan) -> Result<Self> {
        match &plan.anchor {
            AnchorPlan::Postgres(name) => Ok(Self::Postgres(Box::new(world.postgres(plan, name)?))),
            AnchorPlan::Cassandra(name) => Ok(Self::Cassandra(Box::new(
                world.cassandra_anchor(plan, name).await?,
            ))),
            AnchorPlan::Kafka(_) => Err(Error::config(
                format!("verify pipeline {:?}", plan.pipeline),
                "its position is in Kafka, in the transactions of its messages: verify compares with what a database \
                 holds at one instant",
            )
            .hint("read its topics with isolation.level = read_committed: there every message is once")),
            AnchorPlan::Memory => Err(Error::config(
                format!("verify pipeline {:?}", plan.pipeline),
                "it writes nowhere: there is nothing to compare",
            )
            .hint("bind a route to a table")),
        }
    }

    /// Positions and letters, in Postgres of one instant.
    pub(super) async fn look(&self, partitions: &[i32]) -> Result<Look> {
        let mut look = match self {
            Self::Postgres(settings) => {
                let snapshot = Snapshot::open(settings).await?;
                Look {
                    standings: snapshot.standings().await?,
                    letters: snapshot.letters().await?,
                    snapshot: Some(snapshot),
                }
            }
            // Letters last: those of all records below the positions are there.
            Self::Cassandra(anchor) => Look {
                standings: anchor.standings().await?,
                letters: letters(anchor).await?,
                snapshot: None,
            },
        };
        let wanted = |partition: i32| partitions.is_empty() || partitions.contains(&partition);
        look.standings.retain(|standing| wanted(standing.partition));
        look.letters.retain(|letter| wanted(letter.partition));
        if look.standings.is_empty() {
            return Err(Error::config(
                "read the positions of the pipeline",
                "it has none: it never ran, or not with these connections and this topic",
            )
            .hint("run it first, or give the config of a host that runs it"));
        }
        Ok(look)
    }

    /// The positions alone.
    pub(super) async fn standings(&self, partitions: &[i32]) -> Result<Vec<Standing>> {
        Ok(self.look(partitions).await?.standings)
    }
}

async fn letters(anchor: &CassandraAnchor) -> Result<Vec<SetAside>> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = LetterPage {
            after,
            most: PAGE,
            bytes: 0,
        };
        let found = anchor.list(&LetterFilter::default(), page).await?;
        let Some(last) = found.last() else {
            return Ok(all);
        };
        after = Some(last.at);
        all.extend(found.iter().map(|letter| SetAside {
            partition: letter.at.partition,
            offset: letter.at.offset,
            code: letter.code.clone(),
            tried: letter.tried.is_some(),
            begun: letter.begun.is_some(),
        }));
    }
}

/// Hands the rows of a table over.
pub(super) async fn read_table(
    world: &World,
    look: &Look,
    expected: &mut Expected,
    progress: VerifyProgress<'_>,
) -> Result<()> {
    let table = expected.table.clone();
    let mut rows = 0;
    let each = |row| {
        expected.found(row);
        rows += 1;
        if rows % EVERY == 0 {
            progress(VerifyStep::Rows {
                table: table.name.clone(),
                done: rows,
            });
        }
    };
    match table.kind {
        Kind::Postgres => {
            let snapshot = look.snapshot.as_ref().ok_or_else(|| {
                Error::bug("read a table of postgres", "the positions are not there")
            })?;
            snapshot.read(&table.name, &table.columns, each).await
        }
        Kind::Cassandra => {
            let session = world.session(&table.connection).await?;
            cassandra::scan(&session, &table.name, &table.columns, each).await
        }
    }
}
