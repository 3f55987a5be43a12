//! `wasmill demo` as a newcomer sees it: its numbers add up, its dead letters run once more through a mended plugin and
//! count as emitted, and with `--stay` a person does that.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use wasmill_tests::artifact::{must, repository, wasmill};

fn demo(more: &[&str]) -> Command {
    let mut command = wasmill();
    command
        .args(["demo", "--no-cassandra", "--json"])
        .args(more)
        .current_dir(repository())
        .stdin(Stdio::null());
    command
}

#[test]
fn dead_letters_of_the_demo_become_rows_through_a_mended_plugin() {
    let output = must(&mut demo(&[]));
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown["ok"], true, "{shown:#}");
    let lines = |plugin: &str, file: &str| {
        let path = repository().join("plugins").join(plugin).join("data");
        let text = std::fs::read_to_string(path.join(file)).unwrap();
        text.lines().count() as u64
    };
    // Seven that nothing mends, and three with dashes in their date.
    let flights = lines("flights", "flights.ndjson");
    let first = &shown["pipelines"]["flights"];
    assert_eq!(
        (&first["received"], &first["emitted"], &first["dead"]),
        (&json!(flights + 10), &json!(flights), &json!(10)),
        "{shown:#}"
    );
    let again = &shown["again"];
    let ledger = |emitted: u64, dead: u64, retried: u64| {
        json!({
            "records": flights + 10, "emitted": emitted, "filtered": 0, "dead": dead, "retried": retried,
        })
    };
    assert_eq!(again["before"], ledger(flights, 10, 0));
    assert_eq!(again["ledger"], ledger(flights + 3, 7, 3));
    let results = again["retry"]["results"].as_array().unwrap();
    let count = |outcome: &str| {
        let of = results.iter().filter(|one| one["outcome"] == outcome);
        of.count()
    };
    assert_eq!((count("emitted"), count("dead")), (3, 1), "{again:#}");
    assert_eq!(again["retry"]["plugin"], "flights@1.1.0");
}

/// A demo that stays; killed where a test fails.
struct Staying(Child);

impl Drop for Staying {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn a_demo_that_stays_can_be_used_until_it_is_told_to_end() {
    let mut staying = Staying(demo(&["--stay"]).stdout(Stdio::piped()).spawn().unwrap());
    let mut out = BufReader::new(staying.0.stdout.take().unwrap());
    // A document over many lines, then one on a line of its own.
    let reached = loop {
        let mut line = String::new();
        assert!(out.read_line(&mut line).unwrap() > 0, "it ended");
        match serde_json::from_str::<Value>(&line) {
            Ok(found) if found["host"].is_string() => break found,
            _ => {}
        }
    };
    let run = |arguments: &[&str]| {
        let mut command = wasmill();
        command.args(arguments).arg("--json");
        let host = reached["host"].as_str().unwrap();
        let output = command.env("WASMILL_HOST", host).output().unwrap();
        let document: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code(), document)
    };
    let (_, listed) = run(&["deadletter", "list", "flights", "--code", "bad-date"]);
    assert_eq!(listed["letters"].as_array().unwrap().len(), 4, "{listed:#}");
    let letter = &listed["letters"][0];
    let at = format!("{}:{}", letter["partition"], letter["offset"]);
    let (code, shown) = run(&["deadletter", "show", "flights", &at]);
    assert_eq!((code, &shown["code"]), (Some(0), &json!("bad-date")));
    let mended = repository().join(reached["mended"].as_str().unwrap());
    assert_eq!(run(&["upload", mended.to_str().unwrap()]).0, Some(0));
    // All partitions together: emitted, dead, retried.
    let ledger = || {
        let (_, status) = run(&["status", "flights"]);
        let partitions = status["partitions"].as_array().unwrap().clone();
        let sum = |what: &str| -> u64 {
            let each = partitions.iter().map(|one| one["ledger"][what].as_u64());
            each.map(|count| count.unwrap_or_else(|| panic!("no {what}: {status:#}")))
                .sum()
        };
        assert_eq!(
            sum("records"),
            sum("emitted") + sum("filtered") + sum("dead"),
            "{status:#}"
        );
        [sum("emitted"), sum("dead"), sum("retried")]
    };
    let [emitted_before, dead, retried] = ledger();
    assert_eq!((dead, retried), (10, 0));
    let retry = ["deadletter", "retry", "flights", "--code", "bad-date"];
    let through = ["--through", "flights@1.1.0", "--force"];
    let (code, report) = run(&[&retry[..], &through].concat());
    assert_eq!(code, Some(1), "one is no date at all: {report:#}");
    let emitted = report["results"].as_array().unwrap().iter();
    let emitted = emitted.filter(|one| one["outcome"] == "emitted");
    assert_eq!(emitted.count(), 3, "{report:#}");
    let (_, listed) = run(&["deadletter", "list", "flights", "--code", "bad-date"]);
    assert_eq!(listed["letters"].as_array().unwrap().len(), 1);
    assert_eq!(ledger(), [emitted_before + 3, 7, 3]);

    must(Command::new("kill").args(["-TERM", &staying.0.id().to_string()]));
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(staying.0.wait().unwrap().code(), Some(0), "{rest}");
}
