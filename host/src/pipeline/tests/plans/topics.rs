//! Routes to topics: beside a database, alone in transactions, and refused.

use super::super::world::{append_route, keyed_route, topic_route};
use super::{config, manifest, named, pipeline, plan, promises, refused};
use crate::config::RouteBinding;
use crate::error::Blame;
use crate::manifest::Delivery;
use crate::pipeline::{AnchorPlan, Binding, Plan, out_of_reach};

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
