//! Every text a command prints, beside `tests/golden/cli/NAME.txt`: arguments, exit code, standard output,
//! standard error. `WASMILL_BLESS=1` writes them anew: look at the difference before committing it.

use std::path::Path;

use super::answers as a;
use super::scripted::{Answer, Scripted};
use super::{code, err, out, wasmill};

const PIPELINE: &str = "GET /v1/pipelines/quakes";
const HISTORY: &str = "GET /v1/pipelines/quakes/history";
const PLAN: &str = "POST /v1/pipelines/quakes/plan";
const DEPLOY: &str = "PUT /v1/pipelines/quakes/deployment";
const LETTER: &str = "GET /v1/pipelines/quakes/dead-letters/0/1200?index=0";
const RETRY: &str = "POST /v1/pipelines/quakes/dead-letters/retry";
const DROP: &str = "POST /v1/pipelines/quakes/dead-letters/drop";

struct Case {
    name: &'static str,
    arguments: &'static str,
    answers: Vec<Answer>,
}

fn cases(component: &str) -> Vec<(Case, Vec<String>)> {
    let case = |name, arguments: &'static str, answers: &[Answer]| {
        let case = Case {
            name,
            arguments,
            answers: answers.to_vec(),
        };
        let arguments = arguments
            .split_whitespace()
            .map(|word| word.replace("FILE", component))
            .collect();
        (case, arguments)
    };
    let mut warned = a::plan();
    warned["warnings"] = serde_json::json!(["the memory limit is tightened"]);
    let mut problems = a::plan();
    problems["ddl"] = serde_json::json!(["ALTER TABLE geo.quakes ADD COLUMN depth float8;"]);
    let away = serde_json::json!({"class": "outside", "what": "connect to postgres (db:5432)", "detail": "connection refused",
        "hint": "is the database up, and its address right?"});
    let mut absent = a::plan();
    absent["problems"] = serde_json::json!([away]);
    problems["problems"] = serde_json::json!([
        away,
        {"class": "config", "what": "route \"quakes\"", "detail": "table geo.quakes has no column \"depth\"", "hint": "run this, or change the routes:\nALTER TABLE geo.quakes ADD COLUMN depth float8;"},
        {"class": "config", "what": "grants", "detail": "it asks for headers"},
    ]);
    let mut empty = a::plan();
    empty["changes"] = serde_json::json!([]);
    let mut fresh = a::plan();
    fresh["seen"] = 0.into();
    let mut parked = a::status();
    parked["state"] = "parked".into();
    parked["last_error"]["class"] = "plugin".into();
    let mut behind = a::status();
    behind["behind"] =
        "revision 4 is in force, this host runs 3: reach table \"geo.quakes\": no such table; create it".into();
    let waiting = a::waiting();
    let conflict = a::problem(409, "conflict", "revision 2 was seen, 4 stands");
    vec![
        case(
            "upload",
            "upload FILE",
            &[("PUT /v1/plugins", 201, a::uploaded(true))],
        ),
        case(
            "upload-again",
            "upload FILE",
            &[("PUT /v1/plugins", 200, a::uploaded(false))],
        ),
        case(
            "upload-json",
            "upload FILE --json",
            &[("PUT /v1/plugins", 201, a::uploaded(true))],
        ),
        case(
            "upload-plugin-at-fault",
            "upload FILE",
            &[(
                "PUT /v1/plugins",
                422,
                a::problem(422, "plugin", "the module has no manifest"),
            )],
        ),
        case(
            "plan-only",
            "deploy quakes@1.2.0 --plan-only",
            &[(PLAN, 200, a::plan())],
        ),
        case(
            "plan-new",
            "deploy quakes@1.2.0 --plan-only",
            &[(PLAN, 200, fresh)],
        ),
        case(
            "plan-json",
            "deploy quakes@1.2.0 --plan-only --json",
            &[(PLAN, 200, a::plan())],
        ),
        case(
            "plan-problems",
            "deploy quakes@1.2.0",
            &[(PLAN, 200, problems)],
        ),
        case(
            "plan-away",
            "deploy quakes@1.2.0 --plan-only",
            &[(PLAN, 200, absent.clone())],
        ),
        case(
            "plan-away-json",
            "deploy quakes@1.2.0 --plan-only --json",
            &[(PLAN, 200, absent)],
        ),
        case(
            "deploy-away",
            "deploy quakes@1.2.0 --yes",
            &[
                (PLAN, 200, a::plan()),
                (
                    DEPLOY,
                    503,
                    a::problem(503, "unavailable", "connection refused"),
                ),
            ],
        ),
        case(
            "deploy",
            "deploy quakes@1.2.0 --no-wait",
            &[(PLAN, 200, a::plan()), (DEPLOY, 200, a::deployed(true))],
        ),
        case(
            "deploy-json",
            "deploy quakes@1.2.0 --json",
            &[
                (PLAN, 200, a::plan()),
                (DEPLOY, 200, a::deployed(true)),
                (PIPELINE, 200, a::swapping(true)),
            ],
        ),
        case(
            "deploy-nothing-to-do",
            "deploy quakes@1.2.0 --no-wait",
            &[(PLAN, 200, empty), (DEPLOY, 200, a::deployed(false))],
        ),
        case(
            "deploy-warned",
            "deploy quakes@1.2.0 --no-wait",
            &[(PLAN, 200, warned)],
        ),
        case(
            "deploy-conflict",
            "deploy quakes@1.2.0 --yes",
            &[
                (PLAN, 200, a::plan()),
                (DEPLOY, 409, conflict.clone()),
                (HISTORY, 200, a::history()),
            ],
        ),
        case(
            "deploy-parked",
            "deploy quakes@1.2.0 --yes",
            &[
                (PLAN, 200, a::plan()),
                (DEPLOY, 200, a::deployed(true)),
                (PIPELINE, 200, parked),
            ],
        ),
        case(
            "deploy-not-in-time",
            "deploy quakes@1.2.0 --yes --wait-for 300ms",
            &[
                (PLAN, 200, a::plan()),
                (DEPLOY, 200, a::deployed(true)),
                (PIPELINE, 200, a::swapping(false)),
            ],
        ),
        case("deploy-malformed-version", "deploy quakes", &[]),
        case(
            "promote",
            "promote quakes --no-wait",
            &[("POST /v1/pipelines/quakes/promote", 200, a::deployed(true))],
        ),
        case(
            "rollback-nothing",
            "rollback quakes --no-wait",
            &[(
                "POST /v1/pipelines/quakes/rollback",
                200,
                a::deployed(false),
            )],
        ),
        case(
            "pause",
            "pause quakes",
            &[("POST /v1/pipelines/quakes/pause", 200, a::deployed(true))],
        ),
        case(
            "resume-conflict",
            "resume quakes --seen 2",
            &[
                ("POST /v1/pipelines/quakes/resume", 409, conflict),
                (HISTORY, 200, a::history()),
            ],
        ),
        case(
            "position-raise",
            "position raise quakes",
            &[("POST /v1/pipelines/quakes/raise", 200, a::raised())],
        ),
        case("remove-unasked", "remove quakes", &[]),
        case(
            "remove",
            "remove quakes --yes",
            &[("DELETE /v1/pipelines/quakes", 200, a::deployed(true))],
        ),
        case("list", "list", &[("GET /v1/plugins", 200, a::versions())]),
        case(
            "list-one-json",
            "list other --json",
            &[("GET /v1/plugins", 200, a::versions())],
        ),
        case(
            "list-empty",
            "list",
            &[("GET /v1/plugins", 200, serde_json::json!([]))],
        ),
        case(
            "status",
            "status",
            &[
                (
                    "GET /v1/pipelines",
                    200,
                    serde_json::json!([a::status(), a::canary()]),
                ),
                ("GET /v1/host", 200, a::host()),
            ],
        ),
        case(
            "status-one",
            "status quakes",
            &[(PIPELINE, 200, a::status())],
        ),
        case("status-behind", "status quakes", &[(PIPELINE, 200, behind)]),
        case(
            "status-waiting",
            "status",
            &[
                (
                    "GET /v1/pipelines",
                    200,
                    serde_json::json!([waiting, a::status()]),
                ),
                ("GET /v1/host", 200, a::host()),
            ],
        ),
        case(
            "status-waiting-one",
            "status quakes",
            &[(PIPELINE, 200, a::waiting())],
        ),
        case(
            "status-json",
            "status quakes --json",
            &[(PIPELINE, 200, a::status())],
        ),
        case(
            "status-canary",
            "status quakes",
            &[(PIPELINE, 200, a::canary())],
        ),
        case(
            "status-shadow",
            "status quakes",
            &[(PIPELINE, 200, a::shadow())],
        ),
        case("history", "history quakes", &[(HISTORY, 200, a::history())]),
        case(
            "audit",
            "audit --most 5",
            &[("GET /v1/audit?most=5", 200, a::audit())],
        ),
        case(
            "deadletter-list",
            "deadletter list quakes --code malformed --from 1200 --since 2026-01-01T00:00:00Z",
            &[(
                "GET /v1/pipelines/quakes/dead-letters?from=1200&code=malformed&since=2026-01-01T00%3A00%3A00Z&limit=100",
                200,
                a::letters(None),
            )],
        ),
        case(
            "deadletter-list-more",
            "deadletter list quakes --limit 2",
            &[(
                "GET /v1/pipelines/quakes/dead-letters?limit=2",
                200,
                a::letters(Some("0:1201:1")),
            )],
        ),
        case(
            "deadletter-list-json",
            "deadletter list quakes --limit 3 --json",
            &[
                (
                    "GET /v1/pipelines/quakes/dead-letters?limit=3",
                    200,
                    a::letters(Some("0:1201:1")),
                ),
                (
                    "GET /v1/pipelines/quakes/dead-letters?limit=1&cursor=0%3A1201%3A1",
                    200,
                    serde_json::json!({"letters": []}),
                ),
            ],
        ),
        case(
            "deadletter-list-empty",
            "deadletter list quakes",
            &[(
                "GET /v1/pipelines/quakes/dead-letters?limit=100",
                200,
                serde_json::json!({"letters": []}),
            )],
        ),
        case(
            "deadletter-show",
            "deadletter show quakes 0:1200",
            &[(LETTER, 200, a::whole())],
        ),
        case(
            "deadletter-show-raw",
            "deadletter show quakes 0:1200:0 --raw",
            &[(LETTER, 200, a::whole())],
        ),
        case(
            "deadletter-show-missing",
            "deadletter show quakes 0:1200",
            &[(LETTER, 200, a::missing())],
        ),
        case("deadletter-show-where", "deadletter show quakes 1200", &[]),
        case(
            "deadletter-retry",
            "deadletter retry quakes --code malformed --through quakes@1.2.1",
            &[
                (RETRY, 200, a::retried(Some("0:1201:0"))),
                (RETRY, 200, a::retried(None)),
            ],
        ),
        case(
            "deadletter-retry-limit",
            "deadletter retry quakes --all --limit 2",
            &[(RETRY, 200, {
                let mut first = a::retried(Some("0:1201:0"));
                first["left"] = 3.into();
                first
            })],
        ),
        case("deadletter-retry-which", "deadletter retry quakes", &[]),
        case(
            "deadletter-drop-unasked",
            "deadletter drop quakes 0:1200 0:1201",
            &[(DROP, 200, serde_json::json!({"dropped": 1}))],
        ),
        case(
            "deadletter-drop",
            "deadletter drop quakes --all --yes",
            &[
                (
                    DROP,
                    200,
                    serde_json::json!({"dropped": 1000, "next": "0:5:0"}),
                ),
                (DROP, 200, serde_json::json!({"dropped": 7})),
            ],
        ),
        case(
            "deadletter-drop-limit",
            "deadletter drop quakes --all --limit 1002 --yes",
            &[
                (
                    DROP,
                    200,
                    serde_json::json!({"dropped": 1000, "next": "0:5:0"}),
                ),
                (DROP, 200, serde_json::json!({"dropped": 2, "left": 0})),
            ],
        ),
        case(
            "deadletter-drop-limit-unasked",
            "deadletter drop quakes --all --limit 10",
            &[(DROP, 200, serde_json::json!({"dropped": 250}))],
        ),
        case(
            "deadletter-drop-limit-of-named",
            "deadletter drop quakes 0:1200 --limit 1",
            &[],
        ),
        case(
            "deadletter-drop-both",
            "deadletter drop quakes 0:1 --all --yes",
            &[],
        ),
        case(
            "error-json",
            "status quakes --json",
            &[(
                PIPELINE,
                404,
                a::problem(404, "not-found", "there is no \"quakes\""),
            )],
        ),
        case(
            "token-missing",
            "status quakes",
            &[(
                PIPELINE,
                401,
                a::problem(401, "token-missing", "the request has no token"),
            )],
        ),
        case(
            "bug",
            "status quakes",
            &[(
                PIPELINE,
                500,
                a::problem(500, "bug", "an invariant does not hold"),
            )],
        ),
        case(
            "not-a-host",
            "status quakes",
            &[(PIPELINE, 502, serde_json::json!("bad gateway"))],
        ),
    ]
}

#[test]
fn every_text_is_as_written_down() {
    let bless = std::env::var_os("WASMILL_BLESS").is_some();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cli");
    let scratch = tempfile::tempdir().unwrap();
    let component = scratch.path().join("quakes.wasm");
    std::fs::write(&component, b"bytes").unwrap();
    let component = component.display().to_string();
    let mut differ = Vec::new();
    for (case, arguments) in cases(&component) {
        let host = Scripted::new(&case.answers);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let output = wasmill(&host.url, &arguments);
        let found = format!(
            "$ wasmill {}\nexit {}\n--- stdout\n{}--- stderr\n{}",
            case.arguments,
            code(&output),
            out(&output),
            err(&output)
        );
        let found = found.replace(&host.url, "HOST").replace(&component, "FILE");
        let found = without_seconds(&found);
        let path = folder.join(format!("{}.txt", case.name));
        if bless {
            std::fs::write(&path, &found).unwrap();
        } else if std::fs::read_to_string(&path).ok().as_deref() != Some(&found) {
            differ.push(format!("{}:\n{found}", path.display()));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    let files = std::fs::read_dir(&folder).unwrap().count();
    assert_eq!(files, cases("").len(), "files without a case");
}

/// How long a wait took is no part of a text.
fn without_seconds(text: &str) -> String {
    let lines = text.split_inclusive('\n').map(|line| {
        match line
            .rsplit_once(" after ")
            .filter(|(_, took)| took.ends_with(" s\n"))
        {
            Some((said, _)) => format!("{said} after N s\n"),
            None => line.to_owned(),
        }
    });
    lines.collect()
}
