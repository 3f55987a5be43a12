//! A plugin that writes a topic, before anything is reached: its fixtures, its guarantee, and what is refused.

use tempfile::TempDir;
use wasmill_tests::artifact::{plugin, repository};
use wasmill_tests::stage::pipeline;

use super::{NOWHERE, refused, run};

fn bound(more: &str) -> String {
    let file = plugin("tests/guests/alerts");
    format!("{NOWHERE}{}", pipeline("alerts", &file, more))
}

#[test]
fn rows_of_a_topic_are_compared_with_a_fixture_like_any_other() {
    let folder = repository().join("tests/guests/alerts");
    let folder = folder.display().to_string();
    let output = run(&TempDir::new().unwrap(), &["plugin", "test", &folder]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let said = format!("{said}{}", String::from_utf8_lossy(&output.stdout));
    assert!(said.contains("messages"), "{said}");
}

#[test]
fn a_topic_is_explained_by_its_coordinates() {
    let folder = TempDir::new().unwrap();
    let bind = "bind.route.alerts = { topic = \"prod.alerts\" }";
    std::fs::write(folder.path().join("wasmill.toml"), bound(bind)).unwrap();
    let output = run(&folder, &["explain", "--json"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let plans: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plans[0]["anchor"], "postgres.main");
    let route = &plans[0]["routes"][1];
    assert_eq!(route["kind"], "kafka");
    assert_eq!(route["table"], "prod.alerts");
    assert_eq!(route["guarantee"], "at least once");
    assert!(
        route["why"]
            .as_str()
            .unwrap()
            .contains("wasmill-coordinates")
    );
}

#[test]
fn a_loop_and_a_topic_on_another_cluster_are_refused_before_anything_is_reached() {
    let said = refused(&bound("bind.route.alerts = { topic = \"records\" }"), 3);
    assert!(
        said.contains("route \"alerts\" writes topic \"records\", which the pipeline reads")
            && said.contains("bind the route to another topic"),
        "{said}"
    );
    let far = "[kafka.far]\nbrokers = \"far:9092\"\n\n";
    let bind = "bind.route.log = \"discard\"\nbind.route.alerts = { kafka = \"far\" }\nbind.input.records = { kafka = \"main\" }";
    let said = refused(&format!("{far}{}", bound(bind)), 3);
    assert!(
        said.contains("writes to Kafka only, and to cluster \"far\"")
            && said.contains("bind the route to the input's cluster"),
        "{said}"
    );
}

#[test]
fn topics_alone_are_explained_by_their_transaction() {
    let folder = TempDir::new().unwrap();
    let bind = "bind.route.log = \"discard\"";
    std::fs::write(folder.path().join("wasmill.toml"), bound(bind)).unwrap();
    let output = run(&folder, &["explain", "--json"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let plans: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plans[0]["anchor"], "kafka.main");
    let route = &plans[0]["routes"][1];
    assert_eq!(
        route["guarantee"],
        "exactly once for read_committed readers"
    );
    assert!(route["why"].as_str().unwrap().contains("one transaction"));
}
