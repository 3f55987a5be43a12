//! What a host does on a real Kafka that refuses it one right: it stops for an operator, and says which right on what.
//! Once it is granted, everything is processed, each record once.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use rdkafka::message::Message as _;
use wasmill_local::{Kafka, KafkaOptions};
use wasmill_tests::Stage;
use wasmill_tests::artifact::plugin;
use wasmill_tests::host::Host;
use wasmill_tests::reader::committed;
use wasmill_tests::records::Made;
use wasmill_tests::skip::skip;
use wasmill_tests::stage::pipeline;
use wasmill_tests::wait::eventually;

const LONG: Duration = Duration::from_secs(120);
const PARTITIONS: i32 = 2;

/// What a right is about (org.apache.kafka.common.resource.ResourceType).
const TOPIC: i8 = 2;
const GROUP: i8 = 3;
const CLUSTER: i8 = 4;
const TRANSACTIONAL_ID: i8 = 5;
/// Patterns (PatternType): one name, or all that begin so.
const LITERAL: i8 = 3;
const PREFIXED: i8 = 4;
/// Operations (AclOperation).
const ALL: i8 = 2;
const READ: i8 = 3;
const WRITE: i8 = 4;
/// Permissions (AclPermissionType).
const DENY: i8 = 2;
const ALLOW: i8 = 3;
/// CreateAcls and DeleteAcls (Kafka protocol guide), both of version 1.
const CREATE: i16 = 30;
const DELETE: i16 = 31;

/// A right of the host's principal.
#[derive(Clone, Copy, Debug)]
struct Right<'a> {
    kind: i8,
    name: &'a str,
    pattern: i8,
    operation: i8,
    permission: i8,
}

fn deny(kind: i8, name: &str, operation: i8) -> Right<'_> {
    let pattern = if kind == TRANSACTIONAL_ID {
        PREFIXED
    } else {
        LITERAL
    };
    Right {
        kind,
        name,
        pattern,
        operation,
        permission: DENY,
    }
}

impl Right<'_> {
    fn written(&self) -> Vec<u8> {
        let mut bytes = vec![self.kind.cast_unsigned()];
        for text in [self.name, "", "User:host", "*"] {
            match text {
                "" => bytes.push(self.pattern.cast_unsigned()),
                _ => {
                    bytes.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
                    bytes.extend(text.as_bytes());
                }
            }
        }
        bytes.push(self.operation.cast_unsigned());
        bytes.push(self.permission.cast_unsigned());
        bytes
    }
}

/// Creates rights or deletes them, as the super user.
fn change(kafka: SocketAddr, api: i16, rights: &[Right<'_>]) {
    let mut request = Vec::new();
    request.extend(api.to_be_bytes());
    request.extend(1_i16.to_be_bytes());
    request.extend(7_i32.to_be_bytes());
    request.extend((-1_i16).to_be_bytes());
    request.extend(i32::try_from(rights.len()).unwrap().to_be_bytes());
    for right in rights {
        request.extend(right.written());
    }
    let mut stream = TcpStream::connect(kafka).unwrap();
    let length = u32::try_from(request.len()).unwrap().to_be_bytes();
    stream.write_all(&length).unwrap();
    stream.write_all(&request).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
    stream.read_exact(&mut answer).unwrap();
    // Correlation, throttle time, and for each its error.
    assert_eq!(answer[..4], 7_i32.to_be_bytes());
    let many = i32::from_be_bytes(answer[8..12].try_into().unwrap());
    assert_eq!(usize::try_from(many).unwrap(), rights.len());
    assert_eq!(answer[12..14], [0, 0], "{}", answer.escape_ascii());
}

/// A Kafka that asks who comes through its second listener, and lets the host do all that nothing forbids.
fn guarded() -> Option<Kafka> {
    if let Err(missing) = Kafka::available() {
        skip(missing);
        return None;
    }
    let properties = [
        (
            "authorizer.class.name",
            "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        ),
        ("super.users", "User:ANONYMOUS"),
        (
            "listener.security.protocol.map",
            "PLAINTEXT:PLAINTEXT,PROXIED:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
        ),
        ("listener.name.proxied.sasl.enabled.mechanisms", "PLAIN"),
        (
            "listener.name.proxied.plain.sasl.jaas.config",
            "org.apache.kafka.common.security.plain.PlainLoginModule required user_host=\"secret\";",
        ),
    ];
    let options = KafkaOptions {
        properties: properties
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .to_vec(),
        ..KafkaOptions::default()
    };
    let kafka = Kafka::start(&options).unwrap();
    let all = [
        (TOPIC, "*"),
        (GROUP, "*"),
        (TRANSACTIONAL_ID, "*"),
        (CLUSTER, "kafka-cluster"),
    ];
    let all = all.map(|(kind, name)| Right {
        kind,
        name,
        pattern: LITERAL,
        operation: ALL,
        permission: ALLOW,
    });
    change(kafka.address(), CREATE, &all);
    Some(kafka)
}

/// The config of a host that logs in.
fn config(stage: &Stage, kafka: &Kafka, pipelines: &str) {
    let open = format!("brokers = {:?}", kafka.bootstrap());
    let guarded = format!(
        "brokers = {:?}\nsecurity_protocol = \"sasl_plaintext\"\nsasl_mechanism = \"PLAIN\"\n\
         username = \"host\"\npassword = \"secret\"",
        kafka.proxied().to_string()
    );
    let connections = stage.connections();
    assert!(connections.contains(&open), "{connections}");
    let text = format!("{}\n{pipelines}", connections.replace(&open, &guarded));
    std::fs::write(stage.path("wasmill.toml"), text).unwrap();
}

/// Sends records `from..to`.
fn send(stage: &Stage, from: usize, to: usize) {
    let made = |n: usize| Made::new(format!("k{n}"), format!("{{\"seq\":{n}}}"));
    let records: Vec<Made> = (from..to).map(made).collect();
    stage.feed.send("records", &records);
}

/// A guarded Kafka, a stage on it with a hundred records, and the plugin.
async fn staged() -> Option<(Kafka, Stage, PathBuf)> {
    let kafka = guarded()?;
    let stage = Stage::on(&kafka.bootstrap());
    stage.feed.topic("records", PARTITIONS).await;
    send(&stage, 0, 100);
    Some((kafka, stage, plugin("tests/guests/alerts")))
}

/// Takes a right away, starts the host on it, sees it stop and say so, and gives the right back.
fn refused(stage: &Stage, kafka: &Kafka, right: Right<'_>, told: &[&str]) {
    change(kafka.address(), CREATE, &[right]);
    stage.again().wait(LONG).refused(told);
    change(kafka.address(), DELETE, &[right]);
}

fn stops(host: Host) {
    let exit = host.stop(Duration::from_secs(25));
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
}

#[tokio::test]
async fn a_right_that_topics_alone_need_is_named_when_it_is_refused() {
    let Some((kafka, stage, file)) = staged().await else {
        return;
    };
    config(
        &stage,
        &kafka,
        &pipeline("alerts", &file, "bind.route.log = \"discard\""),
    );
    // One in ten becomes two messages.
    let becomes = |records: usize| records + records / 10;
    let all_are_there = async |host: &mut Host, records: usize| {
        eventually(LONG, "all messages are committed", async || {
            host.alive()?;
            let mut found = 0;
            committed(stage.bootstrap(), "alerts", LONG, |message| {
                found += usize::from(message.payload().is_some());
            })?;
            match found {
                found if found == becomes(records) => Ok(()),
                found => Err(format!("{found} messages of {records} records")),
            }
        })
        .await;
    };
    let mut host = stage.again();
    eventually(
        LONG,
        "the topic is made",
        async || match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            stage.feed.ends("alerts")
        })) {
            Ok(ends) if !ends.is_empty() => Ok(()),
            _ => Err("not yet".to_owned()),
        },
    )
    .await;
    all_are_there(&mut host, 100).await;
    stops(host);
    let said = stage.explain();
    for topic in ["alerts", "wasmill.position.alerts.records"] {
        let set_up = format!(
            "kafka.main topic {topic} is set up with replication factor = 1, min.insync.replicas = 1\n    takes away: \
             replication factor 1: a broker that loses"
        );
        assert!(said.contains(&set_up), "{said}");
    }

    send(&stage, 100, 200);
    let id = deny(TRANSACTIONAL_ID, "wasmill/alerts/", WRITE);
    let named = ["transactional id \"wasmill/alerts/records/", "grant Write"];
    refused(&stage, &kafka, id, &named);
    let topic = deny(TOPIC, "alerts", WRITE);
    let named = ["Topic authorization failed", "grant Write", "\"alerts\""];
    refused(&stage, &kafka, topic, &named);
    let positions = deny(TOPIC, "wasmill.position.alerts.records", WRITE);
    let named = ["grant Write", "topic \"wasmill.position.alerts.records\""];
    refused(&stage, &kafka, positions, &named);

    let mut host = stage.again();
    all_are_there(&mut host, 200).await;
    stops(host);
}

#[tokio::test]
async fn a_right_that_a_source_or_a_sink_needs_is_named_when_it_is_refused() {
    let Some((kafka, stage, file)) = staged().await else {
        return;
    };
    config(&stage, &kafka, &pipeline("alerts", &file, ""));
    let all_are_there = async |records: i64| {
        eventually(LONG, "all records are processed", async || {
            stage.positioned("alerts", records).await
        })
        .await;
        assert_eq!(
            stage.number("SELECT count(*) FROM alerts_log").await,
            records
        );
        assert_eq!(stage.dead().await, []);
    };
    let host = stage.again();
    all_are_there(100).await;
    stops(host);

    send(&stage, 100, 200);
    let read = deny(TOPIC, "records", READ);
    refused(&stage, &kafka, read, &["grant Read", "records"]);
    let group = deny(GROUP, "wasmill.alerts", READ);
    let named = ["grant Read on the group", "group \"wasmill.alerts\""];
    refused(&stage, &kafka, group, &named);
    let write = deny(TOPIC, "alerts", WRITE);
    refused(&stage, &kafka, write, &["grant Write", "topic \"alerts\""]);
    assert_eq!(
        stage.position("alerts").await,
        100,
        "nothing passed what was refused"
    );

    let host = stage.again();
    all_are_there(200).await;
    stops(host);
}
