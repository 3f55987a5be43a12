//! Which place holds a pipeline's position, and what that lets each of its routes promise. Pure.
//!
//! The position is kept where rows are written: where one transaction can hold both, the two move together; where none
//! can, it follows the rows.

use super::plan::{AnchorPlan, Binding, Guarantee, InputPlan, RoutePlan};
use super::topics;
use crate::error::Error;
use crate::manifest::Target;

/// Where the position is kept: in Postgres where a route goes there, else in Cassandra, else in Kafka, else in memory.
/// `routes`: each with the connection it goes to (`None`: discarded).
///
/// # Errors
/// Two databases of a kind, or two clusters: nothing could hold the position of both.
pub(super) fn anchor(
    pipeline: &str,
    input: &InputPlan,
    routes: &[(RoutePlan, Option<String>)],
) -> Result<AnchorPlan, Error> {
    let bound = |kind: &'static str| {
        routes.iter().filter_map(move |(plan, connection)| {
            connection.as_ref().filter(|_| plan.kind() == kind)
        })
    };
    let what = || format!("plan pipeline {pipeline:?}");
    if let Some(name) = bound("postgres").next() {
        return match bound("postgres").find(|other| *other != name) {
            None => Ok(AnchorPlan::Postgres(name.clone())),
            Some(other) => {
                let detail = format!("routes go to two Postgres databases, {name:?} and {other:?}");
                Err(Error::config(what(), detail)
                    .hint("one pipeline commits in one database: split it in two pipelines"))
            }
        };
    }
    let Some(name) = bound("cassandra").next() else {
        // By its name: another name for the same brokers may have other rights there.
        if let Some(other) = bound("kafka").find(|name| **name != input.kafka) {
            let detail = format!(
                "it writes to Kafka only, and to cluster {other:?}, while its input is on {:?}: no transaction holds \
                 both, and no database is there that could hold the position",
                input.kafka
            );
            return Err(Error::config(what(), detail).hint(
                "bind the route to the input's cluster, or write a table too, in Postgres or Cassandra: then its \
                 messages are at least once",
            ));
        }
        if bound("kafka").next().is_some() {
            topics::check_names(what(), pipeline, &input.topic)?;
            return Ok(AnchorPlan::Kafka(input.kafka.clone()));
        }
        return Ok(AnchorPlan::Memory);
    };
    match bound("cassandra").find(|other| *other != name) {
        None => Ok(AnchorPlan::Cassandra(name.clone())),
        Some(other) => {
            let detail = format!(
                "routes go to two Cassandra connections, {name:?} and {other:?}, and none to Postgres that could \
                 hold the position"
            );
            Err(Error::config(what(), detail).hint("split it in two pipelines"))
        }
    }
}

/// Says what holds at the route's sink, given the anchor, and why; binds it to the anchor where its rows travel with the
/// position.
pub(super) fn promise(plan: &mut RoutePlan, anchor: &AnchorPlan) {
    if plan.binding == Binding::Discard {
        return;
    }
    match (&plan.route.target, anchor) {
        (Target::Postgres(_), _) => {
            plan.binding = Binding::Here;
            plan.guarantee = Guarantee::ExactlyOnce;
            plan.why = "rows, dead letters and the position commit in one transaction";
        }
        (Target::Kafka(_), AnchorPlan::Kafka(_)) => {
            plan.binding = Binding::Here;
            plan.guarantee = Guarantee::ExactlyOnceCommitted;
            plan.why = "messages, dead letters and the position commit in one transaction of Kafka; others see what is not committed, too";
        }
        (Target::Kafka(_), _) => {
            plan.guarantee = Guarantee::AtLeastOnce;
            plan.why = "written ahead and acknowledged; the position commits after, so a message may come again, with the same wasmill-coordinates header to drop it by";
        }
        (Target::Cassandra(table), _) if table.cross_partition_keys => {
            plan.guarantee = Guarantee::ConvergesExactlyOnce;
            plan.why = "written ahead with timestamps that are a function of the record; cross_partition_keys: of rows of one key from several partitions the one with the later timestamp stays, whichever was read last";
        }
        (Target::Cassandra(_), AnchorPlan::Postgres(_)) => {
            plan.guarantee = Guarantee::ConvergesExactlyOnce;
            plan.why = "written ahead with timestamps that are a function of the record; the position commits after, in Postgres";
        }
        (Target::Cassandra(_), _) => {
            plan.guarantee = Guarantee::ConvergesExactlyOnce;
            plan.why = "written ahead with timestamps that are a function of the record; the position follows by light-weight transaction";
        }
    }
}
