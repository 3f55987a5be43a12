//! Kafka's own command line tools, as an operator runs them; of the version that its brokers are of here.
//!
//! Owns their jar. Knows no broker: where to find one is an argument.

use std::process::Command;

use crate::{
    cache::Cache,
    error::StartError,
    java::class_path,
    kafka::{self, KAFKA_VERSION},
    maven::{self, Unpack},
    progress::Progress,
};

const POM: &str = include_str!("files/kafka-tools-pom.xml");

/// `kafka-consumer-groups`, without arguments.
///
/// # Errors
/// No Java or Maven, or a failing download, the first time.
pub fn kafka_consumer_groups() -> Result<Command, StartError> {
    let cache = Cache::open()?;
    let java = kafka::java(KAFKA_VERSION)?;
    let brokers = kafka::jars(KAFKA_VERSION).open(&cache, &Progress::default())?;
    let tools = cache.entry(&format!("kafka-tools-{KAFKA_VERSION}"), |part| {
        let pom = POM.replace("@VERSION@", KAFKA_VERSION);
        maven::fetch("Kafka's tools", &pom, part, Unpack::No)
    })?;
    let mut command = java.command(16, 128);
    command.args(kafka::logging("warn"));
    command
        .arg("-cp")
        .arg(format!("{}:{}", class_path(&tools)?, class_path(&brokers)?));
    command.arg("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand");
    Ok(command)
}
