//! What a manifest asks of delivery, against what its routes are promised. Pure.

use super::plan::{Guarantee, RoutePlan};
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

/// The first bound route that is promised less than the manifest asks for. A discarded one is promised nothing, and
/// nothing is written there that could be doubled.
pub(super) fn short<'p>(manifest: &Manifest, routes: &'p [RoutePlan]) -> Option<&'p RoutePlan> {
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
