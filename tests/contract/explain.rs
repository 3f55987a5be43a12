//! What `wasmill explain` says of each example, word for word, and what it says of servers as they are set up; and that
//! a plugin that asks for more than its sinks give is refused, with reason and fix. `WASMILL_BLESS=1` writes the texts
//! anew: look at the difference before committing it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use wasmill_tests::artifact::{authors_target, must, plugin, repository, wasmill};
use wasmill_tests::ring::RealServers;
use wasmill_tests::site::Plot;
use wasmill_tests::stage::pipeline;
use wasmill_tests::{Site, Stage};

use super::{NOWHERE, refused, run};

/// A Cassandra that is not there.
const NO_RING: &str = "[cassandra.main]\nhosts = [\"127.0.0.1:1\"]\nkeyspace = \"k\"\n";
/// Routes of the flights that go to Postgres.
const NO_POSTGRES: &str = "bind.route.flights = \"discard\"\nbind.route.flight_log = \"discard\"\n";

fn explained(config: &str, arguments: &[&str]) -> String {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("wasmill.toml"), config).unwrap();
    let output = run(&folder, &[&["explain"], arguments].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    String::from_utf8(output.stdout).unwrap()
}

fn golden(name: &str, found: &str) {
    let path = repository().join(format!("tests/golden/explain/{name}.txt"));
    if std::env::var_os("WASMILL_BLESS").is_some() {
        fs::write(&path, found).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        found, written,
        "{name}: not as written down (WASMILL_BLESS=1 accepts)"
    );
}

/// The plugin that `plugin new` makes, built.
fn template(folder: &TempDir) -> PathBuf {
    let made = folder.path().join("sensors");
    let mut new = wasmill();
    must(
        new.args(["plugin", "new", "sensors"])
            .current_dir(folder.path()),
    );
    let file = folder.path().join("sensors.wasm");
    let mut build = wasmill();
    build.args(["plugin", "build"]).arg(&made).arg("--out");
    must(build.arg(&file).env("CARGO_TARGET_DIR", authors_target()));
    file
}

#[test]
fn every_example_is_told_what_holds_and_why() {
    let folder = TempDir::new().unwrap();
    let flights = plugin("plugins/flights");
    let template = template(&folder);
    let alone = "bind.route.log = \"discard\"";
    let examples: [(&str, &Path, &str); 6] = [
        ("flights", &flights, ""),
        ("flights-cassandra-only", &flights, NO_POSTGRES),
        ("earthquakes", &plugin("plugins/earthquakes"), ""),
        ("topic-beside-a-table", &plugin("tests/guests/alerts"), ""),
        ("topics-alone", &plugin("tests/guests/alerts"), alone),
        ("template", &template, ""),
    ];
    for (name, file, bound) in examples {
        let config = format!("{NOWHERE}{NO_RING}{}", pipeline("example", file, bound));
        golden(name, &explained(&config, &["--offline"]));
    }
}

#[test]
fn a_database_that_is_away_is_said_to_be_and_what_it_would_have_to_keep() {
    let flights = plugin("plugins/flights");
    let config = format!("{NOWHERE}{NO_RING}{}", pipeline("p", &flights, ""));
    let plans: Value = serde_json::from_str(&explained(&config, &["--json"])).unwrap();
    let databases = plans[0]["databases"].as_array().unwrap();
    let told = |place: &str, field: &str| {
        let found = databases.iter().find(|one| one["place"] == place);
        found.unwrap()[field].as_str().unwrap().to_owned()
    };
    for (place, needs) in [
        ("postgres.main", "fsync"),
        ("cassandra.main", "replication factor 3"),
    ] {
        let why = told(place, "not_read");
        assert!(why.contains("127.0.0.1:1"), "{place}: {why}");
        let needed = told(place, "needed");
        assert!(needed.contains(needs), "{place}: {needed}");
    }
    // Nobody knows whether its tables fit, and that is no failure.
    for route in plans[0]["routes"].as_array().unwrap() {
        assert_eq!(route["fits"], Value::Null, "{route}");
    }
    let said = explained(&config, &[]);
    assert!(
        said.contains("and tables that fit their routes, which nobody could look at"),
        "{said}"
    );
}

#[tokio::test]
async fn a_live_postgres_is_asked_what_it_takes_away() {
    let stage = Stage::new();
    let explain = |more: &str| {
        let quakes = pipeline("quakes", &plugin("plugins/earthquakes"), "");
        explained(&format!("{}\n{more}{quakes}", stage.connections()), &[])
    };
    // A throw-away server of the tests.
    let said = explain("");
    assert!(
        said.contains("synchronous_commit = on, fsync = off") && said.contains("set fsync = on"),
        "{said}"
    );
    let lazy = "ALTER DATABASE postgres SET synchronous_commit = off";
    let database: String = stage.rows("SELECT current_database()").await[0].get(0);
    stage
        .execute(&lazy.replace("DATABASE postgres", &format!("DATABASE {database:?}")))
        .await;
    let said = explain("");
    assert!(
        said.contains("synchronous_commit = off")
            && said.contains("nothing is lost or doubled there"),
        "{said}"
    );
    // With rows written ahead every flight waits for the disk, whatever the server says.
    let flights = pipeline("flights", &plugin("plugins/flights"), "");
    let config = format!("{}\n{NO_RING}{flights}", stage.connections());
    let said = explained(&config, &["flights"]);
    assert!(
        said.contains("synchronous_commit = on")
            && !said.contains("takes away: synchronous_commit"),
        "{said}"
    );
}

/// Statements among lines of a hint.
fn statements(said: &str) -> String {
    let lines = said.lines().map(str::trim);
    let from = lines.skip_while(|line| !line.starts_with("CREATE ") && !line.starts_with("ALTER "));
    let mut statements = Vec::new();
    for line in from {
        statements.push(line);
        if line.ends_with(';') {
            break;
        }
    }
    statements.join(" ")
}

#[tokio::test]
async fn a_table_that_is_missing_or_does_not_fit_is_said_beside_its_guarantee() {
    let stage = Stage::new();
    let folder = TempDir::new().unwrap();
    let copies = pipeline("copies", &plugin("tests/guests/identity"), "");
    let config = format!("{}\n{copies}", stage.connections());
    fs::write(folder.path().join("wasmill.toml"), config).unwrap();
    let explain = |more: &[&str]| {
        let output = run(&folder, &[&["explain"], more].concat());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let (code, said, error) = explain(&[]);
    assert_eq!(code, Some(3), "{said}{error}");
    assert!(
        said.contains("exactly once, once its table fits") && said.contains("does not exist"),
        "{said}"
    );
    assert!(error.contains("does not fit its route"), "{error}");
    let (code, said, _) = explain(&["--json"]);
    let plans: Value = serde_json::from_str(&said).unwrap();
    let route = &plans[0]["routes"][0];
    assert_eq!(
        (code, &route["fits"], &route["problem"]["class"]),
        (Some(3), &false.into(), &"config".into())
    );
    let (code, said, error) = explain(&["--offline"]);
    assert_eq!(code, Some(0), "{said}{error}");
    assert!(said.contains("and tables that fit their routes"), "{said}");

    // It looked and no more.
    let made = "SELECT count(*) FROM pg_namespace WHERE nspname = 'wasmill'";
    assert_eq!(stage.number(made).await, 0);
    let (_, said, _) = explain(&[]);
    stage.execute(&statements(&said)).await;
    let (code, said, error) = explain(&[]);
    assert_eq!(code, Some(0), "{said}{error}");
    assert!(!said.contains("once its table fits"), "{said}");
    stage
        .execute("ALTER TABLE identity ADD COLUMN must text NOT NULL")
        .await;
    let (code, said, _) = explain(&[]);
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("\"must\"") && said.contains("DROP NOT NULL"),
        "{said}"
    );
}

/// Each route of the only pipeline with whether its table or topic fits, and the exit code.
fn fits(config: &str) -> (Option<i32>, Vec<(String, Value, String)>) {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("wasmill.toml"), config).unwrap();
    let output = run(&folder, &["explain", "--json"]);
    let plans: Value = serde_json::from_slice(&output.stdout).unwrap();
    let routes = plans[0]["routes"].as_array().unwrap().iter();
    let route = |route: &Value| {
        let name = route["name"].as_str().unwrap().to_owned();
        (name, route["fits"].clone(), route["problem"].to_string())
    };
    (output.status.code(), routes.map(route).collect())
}

#[tokio::test]
async fn a_topic_that_does_not_fit_is_said_to_beside_a_table_that_will() {
    let stage = Stage::new();
    // The route needs three partitions.
    stage.feed.topic("alerts", 1).await;
    let alerts = pipeline("p", &plugin("tests/guests/alerts"), "");
    let (code, found) = fits(&format!("{}\n{alerts}", stage.connections()));
    let [log, topic] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(code, Some(3), "{found:?}");
    assert_eq!((log.0.as_str(), &log.1), ("log", &true.into()), "{log:?}");
    assert_eq!((topic.0.as_str(), &topic.1), ("alerts", &false.into()));
    assert!(
        topic.2.contains("1 partitions") && topic.2.contains("--alter"),
        "{topic:?}"
    );
}

#[tokio::test]
async fn a_cassandra_table_that_does_not_fit_is_said_to_and_a_missing_keyspace_is_made_later() {
    let Some(servers) = RealServers::get() else {
        return;
    };
    let stage = Stage::new();
    let flights = pipeline("p", &plugin("plugins/flights"), NO_POSTGRES);
    let ring = servers.connection("explained");
    let config = format!("{}\n{ring}{flights}", stage.connections());
    let (code, found) = fits(&config);
    assert_eq!((code, &found[2].1), (Some(0), &true.into()), "{found:?}");
    let session = servers.session().await;
    for cql in [
        "CREATE KEYSPACE explained WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}",
        "CREATE TABLE explained.flights_by_airport (origin text PRIMARY KEY)",
    ] {
        session.query_unpaged(cql, ()).await.unwrap();
    }
    let (code, found) = fits(&config);
    assert_eq!((code, &found[2].1), (Some(3), &false.into()), "{found:?}");
    assert!(
        found[2].2.contains("\"config\"") && found[2].2.contains("ALTER TABLE"),
        "{found:?}"
    );
    session
        .query_unpaged("DROP KEYSPACE explained", ())
        .await
        .unwrap();
}

/// The component, asking for exactly-once: the line takes the place of the end of its description. The manifest stands in
/// it as a JSON text.
fn strict(folder: &TempDir, component: &Path) -> PathBuf {
    const ASKS: &str = r#"delivery = \"exactly-once\"\n"#;
    let mut bytes = fs::read(component).unwrap();
    let find = |within: &[u8], text: &str| {
        let text = text.as_bytes();
        within.windows(text.len()).position(|here| here == text)
    };
    let from = find(&bytes, r"manifest = 1\n").unwrap();
    let described = r#"description = \""#;
    let text = from + find(&bytes[from..], described).unwrap() + described.len();
    let to = text + find(&bytes[text..], r#"\"\n"#).unwrap();
    let kept = bytes[from..to - ASKS.len()].to_vec();
    bytes[from..from + ASKS.len()].copy_from_slice(ASKS.as_bytes());
    bytes[from + ASKS.len()..to].copy_from_slice(&kept);
    let file = folder.path().join("strict.wasm");
    fs::write(&file, bytes).unwrap();
    file
}

#[test]
fn asking_for_more_than_a_sink_gives_is_refused_with_reason_and_fix() {
    let folder = TempDir::new().unwrap();
    let flights = strict(&folder, &plugin("plugins/flights"));
    let other = TempDir::new().unwrap();
    let alerts = strict(&other, &plugin("tests/guests/alerts"));
    let cases = [
        (&flights, "", "\"by_airport\" converges to exactly once"),
        (
            &flights,
            NO_POSTGRES,
            "\"by_airport\" converges to exactly once",
        ),
        (&alerts, "", "\"alerts\" is at least once"),
    ];
    for (file, bound, reason) in cases {
        let config = format!("{NOWHERE}{NO_RING}{}", pipeline("p", file, bound));
        let by_run = refused(&config, 3);
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("wasmill.toml"), config).unwrap();
        let output = run(&folder, &["explain"]);
        let by_explain = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{by_explain}");
        for said in [by_run, by_explain] {
            for part in [
                "asks for delivery = \"exactly-once\"",
                reason,
                "bind the route to \"discard\"",
                "take delivery out of plugin.toml",
            ] {
                assert!(said.contains(part), "{part}: {said}");
            }
        }
    }
    // What is left gives it.
    let bound = "bind.route.by_airport = \"discard\"\n";
    let config = format!("{NOWHERE}{}", pipeline("p", &flights, bound));
    let said = explained(&config, &["--offline"]);
    assert!(said.contains("the plugin asks for exactly-once"), "{said}");
}

#[tokio::test]
async fn a_host_refuses_to_deploy_what_asks_for_too_much() {
    let stage = Stage::new();
    let folder = TempDir::new().unwrap();
    let alerts = strict(&folder, &plugin("tests/guests/alerts"));
    let site = Site::new(&stage, &Plot::new("strict"));
    let (_host, _) = site.up();
    site.api.upload_file(&alerts);
    let deploy = |bind: &str| {
        let overlay = folder.path().join("overlay.toml");
        fs::write(&overlay, bind).unwrap();
        let mut command = wasmill();
        command.args(["deploy", "alerts@0.1.0", "--yes", "--overlay"]);
        let command = command.arg(&overlay).env("WASMILL_HOST", site.api.base());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let (code, said) = deploy("");
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("\"alerts\" is at least once")
            && said.contains("take delivery out of plugin.toml"),
        "{said}"
    );
    let deployed = site.api.get("/v1/pipelines").unwrap().ok();
    assert!(!deployed.to_string().contains("alerts"), "{deployed:#}");
}
