//! `[control]`: where the control log is kept, which tells every host what is deployed. Opens nothing.

use std::collections::BTreeMap;

use super::types::KafkaCluster;
use crate::toml_check::{Problem, Section, names};

/// The control log's topic where the config names none.
const TOPIC: &str = "wasmill.control";

/// The control log: a compacted topic of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlConfig {
    /// Name of the Kafka cluster.
    pub kafka: String,
    /// The topic.
    pub topic: String,
    /// Replicas when a host creates the topic; as many as there are brokers, at most 3, when absent.
    pub replication: Option<u16>,
}

/// Reads `[control]`. Absent: with `[http]` the only Kafka cluster and `wasmill.control`; without `[http]`
/// nothing, the log is in memory and lives as long as the host.
pub(super) fn read(
    root: &Section<'_>,
    kafka: &BTreeMap<String, KafkaCluster>,
) -> Option<ControlConfig> {
    let only = || match kafka.keys().collect::<Vec<_>>().as_slice() {
        [only] => Some((*only).clone()),
        _ => None,
    };
    let clusters = || {
        kafka
            .keys()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let Some(section) = root.section("control") else {
        let http = root.entry("http")?;
        if kafka.len() > 1 {
            root.report().add(
                Problem::at(
                    http.key.span,
                    "it is not said which Kafka cluster keeps the control log",
                )
                .label("uploads and deployments are kept there")
                .hint(format!("add [control] with kafka = one of {}", clusters())),
            );
        }
        return only().map(|kafka| ControlConfig {
            kafka,
            topic: TOPIC.to_owned(),
            replication: None,
        });
    };
    let named = section.name("kafka", names::CONNECTION);
    let unknown = named
        .as_ref()
        .filter(|name| !kafka.contains_key(name.value));
    if let Some(name) = unknown {
        let hint = match kafka.len() {
            0 => format!("add [kafka.{}]", name.value),
            _ => format!("one of {}", clusters()),
        };
        section.report().add(
            Problem::at(
                name.span.clone(),
                format!("there is no [kafka.{}]", name.value),
            )
            .label("not a cluster of this file")
            .hint(hint),
        );
    }
    if !section.has("kafka") && only().is_none() {
        section.need("kafka", "the name of a [kafka.NAME]");
    }
    let topic = section.name("topic", names::TOPIC);
    let replication = section.integer("replication", 1..=100);
    section.finish();
    Some(ControlConfig {
        kafka: named.map(|name| name.value.to_owned()).or_else(only)?,
        topic: topic.map_or_else(|| TOPIC.to_owned(), |topic| topic.value.to_owned()),
        replication: replication.and_then(|found| u16::try_from(found.value).ok()),
    })
}
