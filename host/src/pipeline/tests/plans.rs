//! Plans and setups: what is bound to what, what is promised, and what is refused before anything runs. Here is what
//! the tests plan, and what databases are promised.

mod limits;
mod setups;
mod topics;

use std::collections::BTreeMap;
use std::time::Duration;

use super::world::{append_route, input, keyed_route};
use crate::config::{
    CassandraConnection, Ceilings, Config, HostConfig, InputBinding, KafkaCluster, Membership,
    PipelineConfig, PostgresConnection, RouteBinding, Secret,
};
use crate::error::{Blame, Error};
use crate::manifest::{DataPolicy, Delivery, ErrorPolicy, Limits, Manifest, Route, Target};
use crate::pipeline::{AnchorPlan, Binding, Plan};

fn named(route: Route, name: &str) -> Route {
    Route {
        name: name.to_owned(),
        ..route
    }
}

fn manifest(routes: Vec<Route>) -> Manifest {
    Manifest {
        name: "clicks".to_owned(),
        version: semver::Version::new(1, 2, 3),
        description: None,
        license: None,
        authors: Vec::new(),
        sdk: "rust 0.1.0".to_owned(),
        inputs: vec![input()],
        routes,
        config: Vec::new(),
        limits: Limits::default(),
        errors: ErrorPolicy {
            data: DataPolicy::DeadLetter,
            max_rate: None,
        },
        delivery: None,
    }
}

fn config() -> Config {
    let postgres = || PostgresConnection {
        url: Secret::new("postgres://".to_owned()),
    };
    let cassandra = || CassandraConnection {
        hosts: vec!["c:9042".to_owned()],
        keyspace: "ks".to_owned(),
        create_keyspace: None,
        login: None,
    };
    let names = |names: [&str; 2]| names.map(str::to_owned);
    Config {
        host: HostConfig {
            id: "h".to_owned(),
            shards: 1,
            cache: "cache".into(),
        },
        kafka: BTreeMap::from([(
            "main".to_owned(),
            KafkaCluster {
                brokers: "b:9092".to_owned(),
                security: BTreeMap::new(),
                session_timeout: Duration::from_secs(45),
            },
        )]),
        postgres: names(["p1", "p2"]).map(|name| (name, postgres())).into(),
        cassandra: names(["c1", "c2"]).map(|name| (name, cassandra())).into(),
        pipelines: Vec::new(),
        ceilings: Ceilings::default(),
        signing: Vec::new(),
        http: None,
        control: None,
    }
}

fn pipeline(routes: &[(&str, &str)]) -> PipelineConfig {
    let bind = |(name, to): &(&str, &str)| {
        let binding = match *to {
            "discard" => RouteBinding::Discard,
            topic if topic.starts_with("kafka:") => RouteBinding::Topic {
                kafka: "main".to_owned(),
                topic: Some(topic["kafka:".len()..].to_owned()),
            },
            connection => RouteBinding::Connection {
                connection: connection.to_owned(),
                table: Some(format!("s.{name}")),
            },
        };
        ((*name).to_owned(), binding)
    };
    PipelineConfig {
        name: "web".to_owned(),
        plugin: crate::config::PluginSource::File("clicks.wasm".into()),
        overlay: String::new(),
        inputs: BTreeMap::from([(
            "in".to_owned(),
            InputBinding {
                kafka: "main".to_owned(),
                topic: Some("clicks-v2".to_owned()),
            },
        )]),
        routes: routes.iter().map(bind).collect(),
        grants: Vec::new(),
        memory: None,
        run_time: None,
        config: BTreeMap::new(),
        membership: Membership::Static,
    }
}

fn plan(pipeline: &PipelineConfig, manifest: &Manifest) -> Result<Plan, Error> {
    Plan::new(pipeline, &config(), manifest, "sha".to_owned())
}

fn refused(pipeline: &PipelineConfig, manifest: &Manifest) -> String {
    let error = plan(pipeline, manifest).unwrap_err();
    assert_eq!(error.blame(), Blame::Config);
    assert!(error.hint_text().is_some(), "{error}: no hint");
    error.to_string()
}

/// Route, where, what, why: as `explain` prints them.
fn promises(plan: &Plan) -> String {
    let line = |route: &crate::pipeline::RoutePlan| {
        format!(
            "{} -> {} {}: {}; {}\n",
            route.route.name,
            route.kind(),
            route.table(),
            route.guarantee,
            route.why
        )
    };
    format!(
        "anchor {}\n{}",
        plan.anchor,
        plan.routes.iter().map(line).collect::<String>()
    )
}

#[test]
fn the_anchor_is_where_rows_commit_and_promises_say_why() {
    let crossing = manifest(vec![keyed_route(), append_route()]);
    let across = plan(&pipeline(&[("keyed", "c1"), ("rows", "p2")]), &crossing).unwrap();
    assert!(
        promises(&across).contains("the one with the later timestamp stays"),
        "the limit of cross_partition_keys is told: {}",
        promises(&across)
    );
    let mut keyed = keyed_route();
    if let Target::Cassandra(table) = &mut keyed.target {
        table.cross_partition_keys = false;
    }
    let both = manifest(vec![keyed, append_route()]);
    let mixed = plan(&pipeline(&[("keyed", "c1"), ("rows", "p2")]), &both).unwrap();
    assert_eq!(
        promises(&mixed),
        "anchor postgres.p2\n\
         keyed -> cassandra s.keyed: converges to exactly once; written ahead with timestamps that are a function of \
         the record; the position commits after, in Postgres\n\
         rows -> postgres s.rows: exactly once; rows, dead letters and the position commit in one transaction\n"
    );
    assert_eq!(mixed.routes[0].binding, Binding::Ahead("c1".to_owned()));
    assert_eq!(mixed.routes[1].binding, Binding::Here);
    assert!(mixed.writes_ahead());
    assert_eq!(
        (mixed.input.topic.as_str(), mixed.input.group.as_str()),
        ("clicks-v2", "wasmill.web")
    );
    assert_eq!(mixed.plugin, "clicks@1.2.3");
    let cassandra = plan(&pipeline(&[("keyed", "c2"), ("rows", "discard")]), &both).unwrap();
    assert_eq!(
        promises(&cassandra),
        "anchor cassandra.c2\n\
         keyed -> cassandra s.keyed: converges to exactly once; written ahead with timestamps that are a function of \
         the record; the position follows by light-weight transaction\n\
         rows -> postgres rows: discarded; the operator bound it to discard: rows are counted, not written\n"
    );
    let postgres = plan(&pipeline(&[("keyed", "discard"), ("rows", "p1")]), &both).unwrap();
    assert_eq!(postgres.anchor, AnchorPlan::Postgres("p1".to_owned()));
    assert!(!postgres.writes_ahead());
    let nothing = plan(
        &pipeline(&[("keyed", "discard"), ("rows", "discard")]),
        &both,
    )
    .unwrap();
    assert_eq!(
        nothing.anchor.to_string(),
        "memory (nothing survives a restart)"
    );
}

#[test]
fn a_plugin_that_asks_for_more_than_a_route_gives_is_refused() {
    let mut strict = manifest(vec![keyed_route(), append_route()]);
    strict.delivery = Some(Delivery::ExactlyOnce);
    let error = plan(&pipeline(&[("keyed", "c1"), ("rows", "p1")]), &strict).unwrap_err();
    assert_eq!(error.blame(), Blame::Config);
    assert!(
        error
            .detail()
            .contains("route \"keyed\" converges to exactly once"),
        "{error}"
    );
    let hint = error.hint_text().unwrap();
    assert!(
        hint.contains("discard") && hint.contains("plugin.toml"),
        "{hint}"
    );
    // Where nothing is written nothing is doubled.
    let bound = plan(&pipeline(&[("keyed", "discard"), ("rows", "p1")]), &strict).unwrap();
    assert_eq!(bound.asks, Some(Delivery::ExactlyOnce));
    for asks in [None, Some(Delivery::AtLeastOnce)] {
        strict.delivery = asks;
        let all = plan(&pipeline(&[("keyed", "c1"), ("rows", "p1")]), &strict).unwrap();
        assert_eq!(all.asks, asks);
    }
}

#[test]
fn two_databases_that_would_both_hold_the_position_are_refused() {
    let two = manifest(vec![append_route(), named(append_route(), "more")]);
    let text = refused(&pipeline(&[("rows", "p1"), ("more", "p2")]), &two);
    assert_eq!(
        text,
        "plan pipeline \"web\": routes go to two Postgres databases, \"p1\" and \"p2\""
    );
    assert!(plan(&pipeline(&[("rows", "p1"), ("more", "p1")]), &two).is_ok());
    let two = manifest(vec![keyed_route(), named(keyed_route(), "more")]);
    assert!(
        refused(&pipeline(&[("keyed", "c1"), ("more", "c2")]), &two).contains("none to Postgres")
    );
    let three = manifest(vec![
        keyed_route(),
        named(keyed_route(), "more"),
        append_route(),
    ]);
    let bound = pipeline(&[("keyed", "c1"), ("more", "c2"), ("rows", "p1")]);
    // Two of them are fine where Postgres holds the position, whatever the order of the routes.
    let anchor = plan(&bound, &three).unwrap().anchor;
    assert_eq!(anchor, AnchorPlan::Postgres("p1".to_owned()));
}

#[test]
fn two_routes_that_write_one_table_by_key_are_refused() {
    let both = manifest(vec![keyed_route(), named(keyed_route(), "again")]);
    let mut bound = pipeline(&[("keyed", "c1"), ("again", "c1")]);
    plan(&bound, &both).unwrap();
    let there = |connection: &str| RouteBinding::Connection {
        connection: connection.to_owned(),
        table: Some("s.keyed".to_owned()),
    };
    bound.routes.insert("again".to_owned(), there("c1"));
    let said = refused(&bound, &both);
    assert!(
        said.contains("routes \"keyed\" and \"again\" both write table \"s.keyed\" by key"),
        "{said}"
    );
    bound
        .routes
        .insert("keyed".to_owned(), RouteBinding::Discard);
    plan(&bound, &both).unwrap();
    // Appended rows of several routes get along.
    let rows = manifest(vec![append_route(), named(append_route(), "more")]);
    let mut bound = pipeline(&[("rows", "p1"), ("more", "p1")]);
    for route in ["rows", "more"] {
        bound.routes.insert(route.to_owned(), there("p1"));
    }
    plan(&bound, &rows).unwrap();
}
