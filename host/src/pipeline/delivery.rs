//! What a manifest asks of delivery, against what its routes are promised. Pure.

use super::plan::{AnchorPlan, Guarantee, RoutePlan};
use crate::error::Error;
use crate::manifest::{Delivery, Manifest, Route, Target};

/// Whether `then` promises less than `now`.
#[must_use]
pub fn weaker(then: Guarantee, now: Guarantee) -> bool {
    let strength = |guarantee| match guarantee {
        Guarantee::Nothing => 0,
        Guarantee::AtLeastOnce => 1,
        Guarantee::ConvergesExactlyOnce => 2,
        Guarantee::ExactlyOnce | Guarantee::ExactlyOnceCommitted => 3,
    };
    strength(then) < strength(now)
}

/// What somebody sees who reads the route's table or topic while it is written.
#[must_use]
pub fn reader(route: &RoutePlan) -> &'static str {
    match route.guarantee {
        Guarantee::ExactlyOnceCommitted => {
            "a reader with isolation.level = read_committed sees every message once, at every instant"
        }
        Guarantee::ExactlyOnce => {
            "a reader sees what every record below the position left, once, at every instant"
        }
        Guarantee::ConvergesExactlyOnce => {
            "a reader may see rows above the position, and right after a failure again; what stays is what a run \
             without failures leaves"
        }
        Guarantee::AtLeastOnce => {
            "a reader sees every message, and after a failure some of them again"
        }
        Guarantee::Nothing => "a reader sees nothing of it",
    }
}

/// Why the position is where it is.
#[must_use]
pub fn because(anchor: &AnchorPlan) -> &'static str {
    match anchor {
        AnchorPlan::Postgres(_) => "it moves in the transaction of the rows written there",
        AnchorPlan::Cassandra(_) => {
            "nothing is written to Postgres; it moves after the rows, by light-weight transaction"
        }
        AnchorPlan::Kafka(_) => {
            "only the input's cluster is written to; it moves in the transaction of the messages"
        }
        AnchorPlan::Memory => "nothing is written that could be lost or doubled",
    }
}

/// Refuses a manifest that asks for more than one of its bound routes is promised.
pub(super) fn check(what: String, manifest: &Manifest, routes: &[RoutePlan]) -> Result<(), Error> {
    let Some(route) = short(manifest, routes) else {
        return Ok(());
    };
    let (promise, then) = match route.guarantee {
        Guarantee::AtLeastOnce => ("is at least once", "may come again"),
        _ => ("converges to exactly once", "may be ahead of the position"),
    };
    let detail = format!(
        "plugin {:?} asks for delivery = \"exactly-once\", and route {:?} {promise}: right after a failure its rows \
         {then}",
        manifest.name, route.route.name
    );
    Err(Error::config(what, detail).hint(
        "bind the route to \"discard\", or take delivery out of plugin.toml and build the plugin again: then each route \
         gives what its sink can",
    ))
}

/// The first bound route that is promised less than the manifest asks for. A discarded one is promised nothing, and
/// nothing is written there that could be doubled.
fn short<'p>(manifest: &Manifest, routes: &'p [RoutePlan]) -> Option<&'p RoutePlan> {
    let exact = manifest.delivery == Some(Delivery::ExactlyOnce);
    routes.iter().filter(|_| exact).find(|route| {
        route.guarantee != Guarantee::Nothing && weaker(route.guarantee, Guarantee::ExactlyOnce)
    })
}

/// Routes that cannot be promised what the manifest asks for, whatever they are bound to but discard.
#[must_use]
pub fn out_of_reach(manifest: &Manifest) -> Vec<&str> {
    let exact = manifest.delivery == Some(Delivery::ExactlyOnce);
    // Topics are exact where nothing but topics is written.
    let here = |route: &Route| matches!(route.target, Target::Postgres(_));
    let beside = manifest.routes.iter().any(here);
    let routes = manifest.routes.iter().filter(|_| exact);
    routes
        .filter(|route| match route.target {
            Target::Postgres(_) => false,
            Target::Cassandra(_) => true,
            Target::Kafka(_) => beside,
        })
        .map(|route| route.name.as_str())
        .collect()
}
