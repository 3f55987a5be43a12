//! Plans and setups: what is bound to what, what is promised, and what is refused before anything runs.

use std::collections::BTreeMap;
use std::time::Duration;

use super::world::{append_route, input, keyed_route, topic_route};
use crate::config::{
    CassandraConnection, Ceilings, Config, HostConfig, InputBinding, KafkaCluster, Membership,
    PipelineConfig, PostgresConnection, RouteBinding, Secret,
};
use crate::error::{Blame, Error};
use crate::manifest::{
    ConfigItem, DataPolicy, Delivery, ErrorPolicy, Limits, Manifest, Route, Target,
};
use crate::pipeline::{AnchorPlan, Binding, Plan, out_of_reach, setup};
use crate::record::Type;

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
fn a_topic_is_at_least_once_beside_the_database_that_holds_the_position() {
    let both = manifest(vec![topic_route(), append_route()]);
    let bound = pipeline(&[("alerts", "kafka:prod.alerts"), ("rows", "p1")]);
    let planned = plan(&bound, &both).unwrap();
    assert_eq!(
        promises(&planned),
        "anchor postgres.p1\n\
         alerts -> kafka prod.alerts: at least once; written ahead and acknowledged; the position commits after, so a \
         message may come again, with the same wasmill-coordinates header to drop it by\n\
         rows -> postgres s.rows: exactly once; rows, dead letters and the position commit in one transaction\n"
    );
    assert_eq!(planned.routes[0].binding, Binding::Ahead("main".to_owned()));
    assert!(planned.writes_ahead() && !planned.routes[0].merges());
    // Unbound it goes to the only cluster, under its own name.
    let unbound = plan(&pipeline(&[("rows", "p1")]), &both).unwrap();
    assert_eq!(unbound.routes[0].table(), "alerts");
    let beside = manifest(vec![topic_route(), keyed_route()]);
    let beside = plan(
        &pipeline(&[("alerts", "kafka:x"), ("keyed", "c1")]),
        &beside,
    )
    .unwrap();
    assert_eq!(beside.anchor, AnchorPlan::Cassandra("c1".to_owned()));
}

#[test]
fn topics_alone_on_the_inputs_cluster_are_written_in_transactions() {
    let mut both = manifest(vec![topic_route(), append_route()]);
    both.delivery = Some(Delivery::ExactlyOnce);
    let bound = pipeline(&[("alerts", "kafka:x"), ("rows", "discard")]);
    let alone = plan(&bound, &both).unwrap();
    assert_eq!(
        promises(&alone),
        "anchor kafka.main\n\
         alerts -> kafka x: exactly once for read_committed readers; messages, dead letters and the position commit \
         in one transaction of Kafka; others see what is not committed, too\n\
         rows -> postgres rows: discarded; the operator bound it to discard: rows are counted, not written\n"
    );
    assert_eq!(alone.routes[0].binding, Binding::Here);
    assert!(!alone.writes_ahead());
    assert_eq!(alone.anchor, AnchorPlan::Kafka("main".to_owned()));
    // Whoever wants only topics may be promised it; a topic beside a table never is.
    assert_eq!(out_of_reach(&both), ["alerts"]);
    both.routes.pop();
    assert_eq!(out_of_reach(&both), Vec::<&str>::new());

    let route = |kafka: &str, topic: &str| RouteBinding::Topic {
        kafka: kafka.to_owned(),
        topic: Some(topic.to_owned()),
    };
    let mut elsewhere = pipeline(&[]);
    elsewhere.routes = [("alerts".to_owned(), route("far", "x"))].into();
    let mut config = config();
    let far = config.kafka["main"].clone();
    config.kafka.insert("far".to_owned(), far);
    let error = Plan::new(&elsewhere, &config, &both, "sha".to_owned()).unwrap_err();
    assert_eq!(error.blame(), Blame::Config);
    assert!(
        error
            .detail()
            .contains("to cluster \"far\", while its input is on \"main\""),
        "{error}"
    );
    let mut long = pipeline(&[("alerts", "kafka:x")]);
    let bound = long.inputs.get_mut("in").unwrap();
    bound.topic = Some("t".repeat(249));
    assert!(refused(&long, &both).contains("characters together"));
    let bound = long.inputs.get_mut("in").unwrap();
    bound.topic = Some("t".repeat(249 - "wasmill.dead-letter.web.".len()));
    assert!(plan(&long, &both).is_ok());
    elsewhere.routes = [("alerts".to_owned(), route("main", "clicks-v2"))].into();
    assert!(refused(&elsewhere, &both).contains("which the pipeline reads"));
}

#[test]
fn a_topic_that_loops_collides_or_is_asked_too_much_of_is_refused() {
    let mut both = manifest(vec![topic_route(), append_route()]);
    both.delivery = Some(Delivery::ExactlyOnce);
    let bound = pipeline(&[("alerts", "kafka:prod.alerts"), ("rows", "p1")]);
    let asked = refused(&bound, &both);
    assert!(
        asked.contains(
            "delivery = \"exactly-once\", and route \"alerts\" is at least once: right after a failure its rows may come again"
        ),
        "{asked}"
    );
    // Discarded it promises nothing, and so breaks no promise.
    assert!(plan(&pipeline(&[("alerts", "discard"), ("rows", "p1")]), &both).is_ok());
    both.delivery = None;
    assert_eq!(
        refused(
            &pipeline(&[("alerts", "kafka:clicks-v2"), ("rows", "p1")]),
            &both
        ),
        "plan pipeline \"web\": route \"alerts\" writes topic \"clicks-v2\", which the pipeline reads"
    );
    assert!(
        refused(
            &pipeline(&[("alerts", "kafka:wasmill.position.a.b"), ("rows", "p1")]),
            &both
        )
        .contains("which the host keeps its own in")
    );
    both.routes.push(named(topic_route(), "more"));
    let twice = pipeline(&[("alerts", "kafka:x"), ("more", "kafka:x"), ("rows", "p1")]);
    assert!(refused(&twice, &both).contains("\"alerts\" and \"more\" both write topic \"x\""));
    let apart = pipeline(&[("alerts", "kafka:x"), ("more", "kafka:y"), ("rows", "p1")]);
    assert!(plan(&apart, &both).is_ok());
    assert!(
        refused(&pipeline(&[("alerts", "p1"), ("rows", "p1")]), &both).contains("writes to kafka")
    );
}

#[test]
fn limits_are_tightened_never_widened_and_stay_below_the_ceilings() {
    let manifest = manifest(vec![append_route()]);
    let mut tight = pipeline(&[("rows", "p1")]);
    tight.memory = Some(16 << 20);
    tight.run_time = Some(Duration::from_millis(100));
    let limits = plan(&tight, &manifest).unwrap().limits;
    assert_eq!((limits.memory, limits.recycle_after), (16 << 20, 16 << 20));
    assert_eq!(limits.run_time, Duration::from_millis(100));
    let mut wide = pipeline(&[("rows", "p1")]);
    wide.memory = Some((64 << 20) + 1);
    assert!(refused(&wide, &manifest).contains("is more than the plugin asks for (67108864)"));
    let mut wide = pipeline(&[("rows", "p1")]);
    wide.run_time = Some(Duration::from_secs(2));
    assert!(refused(&wide, &manifest).contains("limits.run_time = 2s is more"));
    for (change, text) in [
        (
            (|limits| limits.memory = 1 << 40) as fn(&mut Limits),
            "asks for memory",
        ),
        (
            |limits| limits.run_time = Duration::from_secs(11),
            "asks for run_time 11s, the ceiling is 10s",
        ),
        (
            |limits| limits.output_bytes = 1 << 40,
            "asks for output_bytes",
        ),
    ] {
        let mut greedy = manifest.clone();
        change(&mut greedy.limits);
        assert!(
            refused(&pipeline(&[("rows", "p1")]), &greedy).contains(text),
            "{text}"
        );
    }
}

#[test]
fn what_is_not_granted_bound_or_supported_is_refused() {
    let mut headers = manifest(vec![append_route()]);
    headers.inputs[0].headers = true;
    let mut bound = pipeline(&[("rows", "p1")]);
    assert!(refused(&bound, &headers).contains("asks for headers"));
    bound.grants = vec!["headers".to_owned()];
    assert!(plan(&bound, &headers).is_ok());
    let one = manifest(vec![append_route()]);
    assert!(refused(&pipeline(&[]), &one).contains("rows"));
    assert!(refused(&pipeline(&[("rows", "p1"), ("rowz", "p1")]), &one).contains("rowz"));
    assert!(refused(&pipeline(&[("rows", "c1")]), &one).contains("no [postgres.c1]"));
    let mut inputs = one.clone();
    inputs.inputs.push(crate::manifest::Input {
        name: "in2".to_owned(),
        ..input()
    });
    assert!(refused(&pipeline(&[("rows", "p1")]), &inputs).contains("has 2 inputs"));
}

/// What was logged meanwhile, one JSON object a line.
fn logged(act: impl FnOnce()) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    let writer = file.reopen().unwrap();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_writer(std::sync::Mutex::new(writer))
        .finish();
    tracing::subscriber::with_default(subscriber, act);
    std::fs::read_to_string(file.path()).unwrap()
}

#[test]
fn a_denied_capability_is_an_event_that_names_the_key() {
    let mut headers = manifest(vec![append_route()]);
    headers.inputs[0].headers = true;
    let mut bound = pipeline(&[("rows", "p1")]);
    let said = logged(|| drop(plan(&bound, &headers).unwrap_err()));
    let event: serde_json::Value = serde_json::from_str(said.trim()).unwrap();
    assert_eq!(event["target"], crate::telemetry::DENIED);
    assert_eq!(event["level"], "WARN");
    assert_eq!(event["pipeline"], bound.name.as_str());
    assert_eq!(event["capability"], "headers");
    assert_eq!(event["key"], format!("pipeline.{}.grants", bound.name));
    bound.grants = vec!["headers".to_owned()];
    assert_eq!(logged(|| drop(plan(&bound, &headers).unwrap())), "");
}

#[test]
fn every_limit_has_a_ceiling_and_the_hint_says_who_can_lower_it() {
    type Change = fn(&mut crate::manifest::Limits);
    let cases: [(&str, Change, &str); 5] = [
        ("memory", |l| l.memory = 1 << 40, "[pipeline."),
        (
            "run_time",
            |l| l.run_time = Duration::from_hours(1),
            "[pipeline.",
        ),
        ("output_bytes", |l| l.output_bytes = 1 << 40, "manifest"),
        (
            "rows_per_record",
            |l| l.rows_per_record = 100_001,
            "manifest",
        ),
        (
            "log_lines_per_second",
            |l| l.log_lines_per_second = 1001,
            "manifest",
        ),
    ];
    for (limit, change, who) in cases {
        let mut greedy = manifest(vec![append_route()]);
        change(&mut greedy.limits);
        let error = plan(&pipeline(&[("rows", "p1")]), &greedy).unwrap_err();
        assert!(error.detail().contains(limit), "{error}");
        let hint = error.hint_text().unwrap();
        assert!(hint.contains(who) && hint.contains("[ceilings]"), "{hint}");
    }
}

fn item(name: &str, ty: Type, default: Option<serde_json::Value>) -> ConfigItem {
    ConfigItem {
        name: name.to_owned(),
        ty,
        default,
        secret: name == "token",
    }
}

fn encode(values: &str) -> Result<Vec<u8>, Error> {
    let mut manifest = manifest(vec![append_route()]);
    manifest.config = vec![
        item("limit", Type::Int64, Some(7.into())),
        item("ratio", Type::Float64, Some(0.5.into())),
        item("strict", Type::Boolean, Some(true.into())),
        item("token", Type::Text, None),
    ];
    let values: BTreeMap<String, toml::Value> = toml::from_str(values).unwrap();
    setup::encode("web", "info", &manifest, &values)
}

#[test]
fn setup_cells_come_in_describe_order_with_defaults() {
    let setup = encode("token = \"t\"\nratio = 2").unwrap();
    let expected = [
        &[0, 0, 0, 3][..],
        b"web",
        &[0, 0, 0, 4],
        b"info",
        &[0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 7],
        &[0, 0, 0, 8],
        &2.0_f64.to_be_bytes(),
        &[0, 0, 0, 1, 1],
        &[0, 0, 0, 1],
        b"t",
    ]
    .concat();
    assert_eq!(setup, expected);
}

#[test]
fn setup_errors_name_the_value_and_never_show_a_secret() {
    for (values, expected, hint) in [
        (
            "",
            "config.token (text) is not set",
            Some("set config.token in [pipeline.web]"),
        ),
        (
            "token = \"t\"\nlimits = 3",
            "config.limits is no configuration value of plugin \"clicks\"",
            Some("it has: limit, ratio, strict, token"),
        ),
        (
            "token = \"t\"\nlimit = \"3\"",
            "config.limit is a int64, found a string",
            None,
        ),
        (
            "token = \"t\"\nlimit = 1.5",
            "config.limit is a int64, found a number",
            None,
        ),
        (
            "token = \"t\"\nratio = nan",
            "config.ratio is a float64, found nothing",
            None,
        ),
        (
            "token = \"t\"\nstrict = 1",
            "config.strict is a boolean, found a number",
            None,
        ),
        (
            "token = 4711",
            "config.token is a text, found a number",
            None,
        ),
    ] {
        let error = encode(values).unwrap_err();
        assert_eq!(error.blame(), Blame::Config);
        assert_eq!(error.what(), "configure pipeline \"web\"");
        assert_eq!((error.detail(), error.hint_text()), (expected, hint));
    }
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
