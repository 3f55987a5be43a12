//! One plugin through the real API, with a host in memory behind it: both ends speak alike.

use std::path::Path;

use wasmill::admin::{Server, serve};
use wasmill::config::Config;

use super::{code, command, err, out, wasmill};

#[path = "../admin/fake.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the API's own tests look at more of it"
)]
mod fake;

fn json(host: &str, arguments: &[&str]) -> serde_json::Value {
    let arguments = [arguments, &["--json"]].concat();
    let output = wasmill(host, &arguments);
    assert_eq!(
        code(&output),
        0,
        "{arguments:?}: {}{}",
        out(&output),
        err(&output)
    );
    serde_json::from_str(&out(&output)).unwrap()
}

fn component(folder: &Path, text: &str) -> String {
    let path = folder.join("a.wasm");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn from_upload_to_remove() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::check(
        "host.id = \"t\"\n[http]\nlisten = \"127.0.0.1:0\"\n[kafka.main]\nbrokers = \"a:1\"\n",
        &|_| None,
    );
    let server = serve(
        &config.unwrap().http.unwrap(),
        dir.path(),
        fake::Fake::new(),
    )
    .unwrap();
    let host = format!("http://{}", server.addr());

    let file = component(dir.path(), "a@1.0.0\n");
    assert_eq!(json(&host, &["upload", &file])["created"], true);
    assert_eq!(json(&host, &["upload", &file])["created"], false);
    let other = component(dir.path(), "a@1.0.0\nother bytes\n");
    let refused = wasmill(&host, &["upload", &other]);
    assert_eq!(code(&refused), 5);
    assert!(
        err(&refused).contains("exists with other bytes"),
        "{}",
        err(&refused)
    );
    let broken = component(dir.path(), "no component");
    assert_eq!(code(&wasmill(&host, &["upload", &broken])), 4);

    assert_eq!(
        json(&host, &["deploy", "a@1.0.0", "--plan-only"])["seen"],
        0
    );
    assert_eq!(json(&host, &["deploy", "a@1.0.0"])["revision"], 1);
    let absent = wasmill(&host, &["deploy", "a@9.9.9"]);
    assert_eq!(code(&absent), 5, "{}", err(&absent));
    for (revision, word) in [(2, "pause"), (3, "resume"), (4, "rollback"), (5, "promote")] {
        assert_eq!(
            json(&host, &[word, "a", "--note", "n"])["revision"],
            revision,
            "{word}"
        );
    }
    assert_eq!(json(&host, &["position", "raise", "a"])["added"], 1);
    let late = wasmill(&host, &["pause", "a", "--seen", "2"]);
    assert_eq!(code(&late), 5);
    assert!(
        err(&late).contains("meanwhile: revision 5: promote a@1.0.0 by local"),
        "{}",
        err(&late)
    );

    assert_eq!(json(&host, &["list"])[0]["plugin"], "a@1.0.0");
    assert_eq!(json(&host, &["status"])[0]["revision"], 5);
    assert_eq!(json(&host, &["status", "a"])["name"], "a");
    assert_eq!(code(&wasmill(&host, &["status"])), 0);
    assert_eq!(
        json(&host, &["history", "a"])["revisions"][0]["action"],
        "promote"
    );
    assert_eq!(json(&host, &["remove", "a", "--yes"])["revision"], 6);
    assert_eq!(
        json(&host, &["audit", "--most", "1"])[0]["action"],
        "remove"
    );
    let nobody = wasmill(&host, &["status", "../x"]);
    assert_eq!(code(&nobody), 5, "{}", err(&nobody));
    drop(server);
}

/// A host that asks for a token, and one that may read.
struct Guarded {
    dir: tempfile::TempDir,
    token: String,
    host: String,
    server: Server,
}

fn guarded() -> Guarded {
    let dir = tempfile::tempdir().unwrap();
    let token = wasmill(
        "http://127.0.0.1:1",
        &["token", "new", "--name", "eye", "--role", "read", "--json"],
    );
    let token: serde_json::Value = serde_json::from_str(&out(&token)).unwrap();
    let hash = token["hash"].as_str().unwrap();
    let text = format!(
        "host.id = \"t\"\n[http]\nlisten = \"127.0.0.1:0\"\ntokens = [{{ name = \"eye\", role = \"read\", hash = {hash:?} }}]\n[kafka.main]\nbrokers = \"a:1\"\n"
    );
    let config = Config::check(&text, &|_| None).unwrap();
    let server = serve(&config.http.unwrap(), dir.path(), fake::Fake::new()).unwrap();
    let host = format!("http://{}", server.addr());
    let token = token["token"].as_str().unwrap().to_owned();
    Guarded {
        dir,
        token,
        host,
        server,
    }
}

#[test]
fn a_token_is_wanted_and_its_role_counts() {
    let Guarded {
        dir,
        token,
        host,
        server: _server,
    } = guarded();

    let missing = wasmill(&host, &["list"]);
    assert_eq!(code(&missing), 5);
    assert!(err(&missing).contains("WASMILL_TOKEN"), "{}", err(&missing));
    let file = dir.path().join("token");
    std::fs::write(&file, format!("{token}\n")).unwrap();
    let file = file.display().to_string();
    assert_eq!(code(&wasmill(&host, &["list", "--token-file", &file])), 0);
    let upload = component(dir.path(), "a@1.0.0\n");
    let denied = wasmill(&host, &["upload", &upload, "--token-file", &file]);
    assert_eq!(code(&denied), 5, "{}", err(&denied));
    let wrong = command(&host, &["list"])
        .env("WASMILL_TOKEN", "wm_other")
        .output()
        .unwrap();
    assert_eq!(code(&wrong), 5);
}

#[test]
fn an_upload_that_is_refused_says_why_whatever_its_size() {
    let Guarded {
        dir,
        token,
        host,
        server: _server,
    } = guarded();
    for size in [50_000, 3_000_000] {
        let upload = component(dir.path(), &format!("a@1.0.0\n{}", "x".repeat(size)));
        for _ in 0..20 {
            let missing = wasmill(&host, &["upload", &upload]);
            assert_eq!(code(&missing), 5, "{size}: {}", err(&missing));
            let said = err(&missing);
            assert!(said.contains("there is no Authorization header"), "{said}");
            assert!(said.contains("WASMILL_TOKEN"), "{said}");
            let denied = command(&host, &["upload", &upload])
                .env("WASMILL_TOKEN", &token)
                .output()
                .unwrap();
            assert_eq!(code(&denied), 5, "{size}: {}", err(&denied));
            assert!(
                err(&denied).contains("this needs deploy"),
                "{}",
                err(&denied)
            );
        }
    }
}

#[test]
fn http_and_https_mixed_up_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let tls = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/admin/tls");
    let tls = format!(
        "tls = {{ certificate = {:?}, key = {:?} }}\n",
        tls.join("certificate.pem"),
        tls.join("key.pem")
    );
    for (lines, wrong, right) in [("", "https", "http"), (&*tls, "http", "https")] {
        let config = format!(
            "host.id = \"t\"\n[http]\nlisten = \"127.0.0.1:0\"\n{lines}[kafka.main]\nbrokers = \"a:1\"\n"
        );
        let config = Config::check(&config, &|_| None).unwrap().http.unwrap();
        let server = serve(&config, dir.path(), fake::Fake::new()).unwrap();
        let at = server.addr();
        let output = wasmill(&format!("{wrong}://{at}"), &["list"]);
        assert_eq!(code(&output), 1);
        let said = err(&output);
        eprintln!("{said}");
        assert!(
            said.contains(&format!(" hint: give {right}://{at}")),
            "{said}"
        );
    }
}
