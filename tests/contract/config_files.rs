//! `wasmill.toml` gone wrong: exit code 3, every problem at once, each with its line and a caret.

use tempfile::TempDir;
use wasmill_tests::artifact::{plugin, wasmill};

use super::{NOWHERE, refused, run};

#[test]
fn a_syntax_error_shows_its_line() {
    let said = refused("[kafka.main\nbrokers = \"x:1\"\n", 3);
    assert!(
        said.contains("wasmill.toml") && said.contains("[kafka.main"),
        "{said}"
    );
    assert!(said.contains('1'), "the line's number: {said}");
}

#[test]
fn all_problems_are_shown_at_once_with_a_suggestion_each() {
    let text = "[kafka.main]\nbrokres = \"localhost:9092\"\n[postgres.main]\nurl_env = 5\n[pipline.p]\nfile = \"p.wasm\"\n";
    let said = refused(text, 3);
    for words in ["brokres", "did you mean", "brokers", "url_env", "pipline"] {
        assert!(said.contains(words), "{words:?} is not said:\n{said}");
    }
    for place in [
        "wasmill.toml:2:1",
        "wasmill.toml:4:11",
        "wasmill.toml:5:2",
        "[pipline.p]",
    ] {
        assert!(
            said.contains(place),
            "the place {place:?} is not shown:\n{said}"
        );
    }
    // It may be a misspelt password.
    assert!(
        !said.contains("localhost"),
        "the value of an unknown key is shown:\n{said}"
    );
}

#[test]
fn a_secret_is_never_shown() {
    let text = "[kafka.main]\nbrokers = \"h:1\"\n[postgres.main]\nurl = \"mysql://root:hunter2@h/d\"\nbogus = 1\n";
    let said = refused(text, 3);
    assert!(said.contains("bogus"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn connections_that_cannot_be_used_are_refused_together_each_in_its_section() {
    let folder = TempDir::new().unwrap();
    let text = "[host]\nid = \"h\"\n[kafka.main]\nbrokers = \"broker-without-port\"\n\
                [postgres.port]\nurl = \"postgres://u:hunter2@h:54x/d\"\n\
                [postgres.tls]\nurl = \"host=h user=u password=hunter2 sslmode=require\"\n\
                [postgres.word]\nurl = \"host=h password=a hunter2=x\"\n\
                [postgres.env]\nurl_env = \"WASMILL_TEST_URL\"\n\
                [cassandra.main]\nhosts = [\"a:b\"]\nkeyspace = \"k\"\n";
    std::fs::write(folder.path().join("wasmill.toml"), text).unwrap();
    for command in [&["run"][..], &["explain", "--offline"], &["verify", "p"]] {
        let output = wasmill()
            .args(command)
            .env(
                "WASMILL_TEST_URL",
                "postgres://u:hunter2@:5432/d?sslrootcert=x",
            )
            .current_dir(&folder)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{said}");
        for words in [
            "broker-without-port",
            "wasmill.toml:6:7",
            "the url of [postgres.port]: invalid value for option `port`",
            "wasmill.toml:8:7",
            "the url of [postgres.tls]: it asks for TLS",
            "wasmill.toml:10:7",
            "the url of [postgres.word]: it has a parameter that is not known here",
            "wasmill.toml:12:11",
            "the url of [postgres.env]: it asks for TLS",
            "\"a:b\" is no host and port",
        ] {
            assert!(
                said.contains(words),
                "{words:?} is not said by {command:?}:\n{said}"
            );
        }
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn a_component_that_is_not_there_is_told_where_one_comes_from() {
    let output = run(
        &TempDir::new().unwrap(),
        &["plugin", "inspect", "nowhere.wasm"],
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(
        said.contains("nowhere.wasm") && said.contains("wasmill plugin build"),
        "{said}"
    );
}

#[test]
fn an_empty_config_has_nothing_to_run() {
    let said = refused(NOWHERE, 3);
    assert!(said.contains("pipeline"), "{said}");
}

#[test]
fn a_missing_config_is_named() {
    let folder = TempDir::new().unwrap();
    let output = run(&folder, &["run", "-c", "nowhere.toml"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(
        said.contains("nowhere.toml") && said.contains("hint"),
        "{said}"
    );
}

#[test]
fn a_binding_the_plugin_does_not_have_is_named() {
    let file = plugin("plugins/flights");
    let text = format!(
        "{NOWHERE}[pipeline.p]\nfile = {:?}\nbind.route.by_airprot = \"discard\"\n",
        file.display().to_string()
    );
    let said = refused(&text, 3);
    assert!(
        said.contains("by_airprot") && said.contains("by_airport"),
        "{said}"
    );
}

#[test]
fn a_route_without_a_connection_is_named() {
    let file = plugin("plugins/flights");
    let said = refused(
        &format!(
            "{NOWHERE}[pipeline.p]\nfile = {:?}\n",
            file.display().to_string()
        ),
        3,
    );
    assert!(
        said.contains("by_airport") && said.contains("cassandra"),
        "{said}"
    );
}

#[test]
fn usage_errors_end_with_two() {
    let folder = TempDir::new().unwrap();
    for arguments in [&["rnu"][..], &["run", "--nonsense"], &[]] {
        let output = run(&folder, arguments);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    assert_eq!(run(&folder, &["--version"]).status.code(), Some(0));
}

#[test]
fn explain_says_what_is_guaranteed_and_opens_nothing() {
    let folder = TempDir::new().unwrap();
    let file = plugin("plugins/flights");
    let ring = "[cassandra.main]\nhosts = [\"127.0.0.1:1\"]\nkeyspace = \"k\"\n";
    let text = format!(
        "{NOWHERE}{ring}[pipeline.p]\nfile = {:?}\n",
        file.display().to_string()
    );
    std::fs::write(folder.path().join("wasmill.toml"), text).unwrap();
    let output = run(&folder, &["explain", "--json"]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let plans: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let guarantees: Vec<(&str, &str)> = plans[0]["routes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|route| {
            (
                route["name"].as_str().unwrap(),
                route["guarantee"].as_str().unwrap(),
            )
        })
        .collect();
    let wanted = [
        ("flights", "exactly once"),
        ("flight_log", "exactly once"),
        ("by_airport", "converges to exactly once"),
    ];
    assert_eq!(guarantees, wanted);
    assert_eq!(plans[0]["anchor"], "postgres.main");
}
