//! Whether a release may take the place of the one in force.
//!
//! It holds for every way to another release: a deployment by upload, a section of a config file, a step back. Releases
//! are loaded and tables looked at; it changes nothing. What follows from two plans alone is in `succession`.

use std::sync::Arc;

use super::succession::{anew, moves};
use crate::assemble::hub::Hub;
use crate::cassandra::TableName;
use crate::config::Config;
use crate::control::{Release, Revision};
use crate::error::{Error, Result};
use crate::manifest::Target;
use crate::pipeline::{Binding, Plan, RoutePlan};

/// Whether a release can follow the one that a revision has in force: at the same position, with tables that fit.
///
/// # Errors
/// The first thing that speaks against it; `Outside` where nobody could look.
pub(in crate::assemble) async fn check(
    hub: &Arc<Hub>,
    pipeline: &str,
    now: &Revision,
    next: &Release,
) -> Result<()> {
    let loaded = hub.releases.load(pipeline, next).await?;
    let before = hub.releases.load(pipeline, &now.deployment.release).await;
    if let Ok(before) = before
        && let Some(moved) = moves(&before.release.plan, &loaded.release.plan)
            .into_iter()
            .next()
    {
        return Err(moved);
    }
    let look = hub.look(loaded).await;
    look.partitions?;
    look.problems.into_iter().next().map_or(Ok(()), Err)
}

/// Whether no other pipeline writes a Cassandra table of a release: write times are in order within one pipeline only,
/// so of two that write one row the later write could lose. What cannot be loaded here is passed over.
///
/// # Errors
/// The first table that another pipeline writes.
pub(in crate::assemble) async fn alone(hub: &Arc<Hub>, plan: &Plan) -> Result<()> {
    let mine = timed_tables(&hub.config, plan);
    if mine.is_empty() {
        return Ok(());
    }
    let state = hub.control.state();
    let others = state
        .pipelines()
        .filter(|(name, now)| *name != plan.pipeline && !now.deployment.removed);
    for (name, now) in others {
        let Ok(other) = hub.releases.load(name, &now.deployment.release).await else {
            continue;
        };
        let theirs = timed_tables(&hub.config, &other.release.plan);
        if let Some(error) = shared(&plan.pipeline, &mine, name, &theirs) {
            return Err(error);
        }
    }
    Ok(())
}

/// A table of a Cassandra cluster, by the cluster's contact points, and the route that writes it.
struct Timed<'a> {
    hosts: &'a [String],
    table: TableName,
    route: &'a str,
}

/// The Cassandra tables that a plan writes.
fn timed_tables<'a>(config: &'a Config, plan: &'a Plan) -> Vec<Timed<'a>> {
    let table = |bound: &'a RoutePlan| {
        let (Binding::Ahead(name), Target::Cassandra(table)) =
            (&bound.binding, &bound.route.target)
        else {
            return None;
        };
        let connection = config.cassandra.get(name)?;
        Some(Timed {
            hosts: &connection.hosts,
            table: TableName::parse(&table.table, &connection.keyspace).ok()?,
            route: &bound.route.name,
        })
    };
    plan.routes.iter().filter_map(table).collect()
}

/// Why two pipelines may not both run: a table that both write.
fn shared(pipeline: &str, mine: &[Timed<'_>], other: &str, theirs: &[Timed<'_>]) -> Option<Error> {
    let same = |one: &Timed<'_>, two: &Timed<'_>| {
        one.table == two.table && one.hosts.iter().any(|host| two.hosts.contains(host))
    };
    let both = mine
        .iter()
        .find(|one| theirs.iter().any(|two| same(one, two)))?;
    let detail = format!(
        "route {:?} writes cassandra table {}, and so does pipeline {other:?}: their write times are not in order with \
         each other",
        both.route, both.table
    );
    Some(
        Error::config(format!("deploy pipeline {pipeline:?}"), detail).hint(format!(
            "bind the route to a table of its own, or remove pipeline {other:?} first"
        )),
    )
}

/// What has to be known when a removed pipeline comes back with another release; nothing where nobody can tell.
pub(in crate::assemble) async fn comes_back(
    hub: &Arc<Hub>,
    pipeline: &str,
    removed: &Revision,
    next: &Release,
) -> Vec<String> {
    let before = hub
        .releases
        .load(pipeline, &removed.deployment.release)
        .await;
    let after = hub.releases.load(pipeline, next).await;
    match (before, after) {
        (Ok(before), Ok(after)) => anew(&before.release.plan, &after.release.plan),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cassandra_table_has_one_pipeline() {
        let (here, there) = (["a:1".to_owned(), "b:1".to_owned()], ["c:1".to_owned()]);
        let timed = |hosts, table: &str| Timed {
            hosts,
            table: TableName::parse(table, "k").expect("a name"),
            route: "r",
        };
        let mine = [timed(&here[..], "one"), timed(&here[..], "two")];
        let with = |theirs: Timed<'_>| shared("p", &mine, "q", &[theirs]);
        let error = with(timed(&here[1..], "k.two")).expect("the same table of the same cluster");
        assert!(
            error.detail().contains("\"k\".\"two\"") && error.detail().contains("\"q\""),
            "{error}"
        );
        assert!(with(timed(&here[..], "other.two")).is_none());
        assert!(with(timed(&there[..], "two")).is_none(), "another cluster");
    }
}
