//! Tables that a pipeline's routes write, against each other. Pure.

use super::plan::{Binding, RoutePlan};
use crate::error::Error;
use crate::manifest::Target;

/// Refuses two routes that write one table by key: a flight writes route after route, so where batches end would decide
/// which row of a key stays.
pub(super) fn check(what: String, routes: &[RoutePlan]) -> Result<(), Error> {
    let mut written: Vec<&RoutePlan> = Vec::new();
    for plan in routes {
        if plan.binding == Binding::Discard || matches!(plan.route.target, Target::Kafka(_)) {
            continue;
        }
        let there = |other: &&&RoutePlan| {
            other.binding == plan.binding && other.table() == plan.table() && other.merges()
        };
        if plan.merges()
            && let Some(other) = written.iter().find(there)
        {
            let (one, two, table) = (&other.route.name, &plan.route.name, plan.table());
            let detail = format!("routes {one:?} and {two:?} both write table {table:?} by key");
            return Err(Error::config(what, detail).hint(
                "bind one of them to another table, or let one route write both kinds of rows",
            ));
        }
        written.push(plan);
    }
    Ok(())
}
