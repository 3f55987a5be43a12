//! Topics that a pipeline reads and writes, against each other. Pure.

use super::plan::{Binding, InputPlan, RoutePlan};
use crate::config::Config;
use crate::error::Error;
use crate::manifest::Target;

/// How the names of topics begin in which anchors keep positions and dead letters.
const OWN: [&str; 2] = ["wasmill.position.", "wasmill.dead-letter."];
/// Longest name of a topic.
const LONGEST: usize = 249;

/// Refuses names of which the anchor's topics cannot be made.
pub(super) fn check_names(what: String, pipeline: &str, input: &str) -> Result<(), Error> {
    let longest = OWN.iter().map(|own| own.len()).max().unwrap_or(0);
    let room = LONGEST - longest - 1;
    if pipeline.len() + input.len() <= room {
        return Ok(());
    }
    let detail = format!(
        "its name and that of topic {input:?} have more than {room} characters together: its position is kept in a \
         topic named after both"
    );
    Err(Error::config(what, detail).hint("give the pipeline a shorter name"))
}

/// Refuses a loop, a topic of the host's own, and two routes whose messages nobody could tell apart.
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
        let Target::Kafka(topic) = &plan.route.target else {
            continue;
        };
        let kafka = match &plan.binding {
            Binding::Ahead(kafka) => kafka,
            Binding::Here => &input.kafka,
            Binding::Discard => continue,
        };
        let (name, topic) = (&plan.route.name, &topic.topic);
        if *topic == input.topic && same(kafka, &input.kafka) {
            let detail = format!("route {name:?} writes topic {topic:?}, which the pipeline reads");
            return Err(Error::config(what, detail)
                .hint("bind the route to another topic: what it wrote would come back for ever"));
        }
        if OWN.iter().any(|own| topic.starts_with(own)) {
            let detail =
                format!("route {name:?} writes topic {topic:?}, which the host keeps its own in");
            return Err(Error::config(what, detail).hint("bind the route to another topic"));
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
