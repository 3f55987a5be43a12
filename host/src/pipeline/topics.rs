//! Topics that a pipeline reads and writes, against each other. Pure.

use super::plan::{Binding, InputPlan, RoutePlan};
use crate::config::Config;
use crate::error::Error;
use crate::manifest::Target;

/// Refuses a loop, and two routes whose messages nobody could tell apart.
pub(super) fn check(
    what: String,
    config: &Config,
    input: &InputPlan,
    routes: &[RoutePlan],
) -> Result<(), Error> {
    // Two names may stand for one cluster.
    let brokers = |name: &str| config.kafka.get(name).map(|cluster| &cluster.brokers);
    let same = |one: &str, other: &str| one == other || brokers(one) == brokers(other);
    let mut written: Vec<(&str, &str, &str)> = Vec::new();
    for plan in routes {
        let (Binding::Ahead(kafka), Target::Kafka(topic)) = (&plan.binding, &plan.route.target)
        else {
            continue;
        };
        let (name, topic) = (&plan.route.name, &topic.topic);
        if *topic == input.topic && same(kafka, &input.kafka) {
            let detail = format!("route {name:?} writes topic {topic:?}, which the pipeline reads");
            return Err(Error::config(what, detail)
                .hint("bind the route to another topic: what it wrote would come back for ever"));
        }
        let other = written
            .iter()
            .find(|(_, cluster, there)| there == topic && same(cluster, kafka));
        if let Some((other, ..)) = other {
            let detail = format!("routes {other:?} and {name:?} both write topic {topic:?}");
            return Err(Error::config(what, detail).hint(
                "bind one of them to another topic: their messages would carry the same coordinates",
            ));
        }
        written.push((name, kafka, topic));
    }
    Ok(())
}
