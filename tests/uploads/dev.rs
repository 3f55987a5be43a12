//! `wasmill dev` as an author uses it: on a new plugin, until its rows are in the table, and through saves.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_postgres::NoTls;
use wasmill_tests::artifact::{authors_target, must, wasmill};
use wasmill_tests::wait::{eventually, same};

use super::SOON;

/// How long a build with everything after it may take: the first one compiles the SDK.
const BUILD: Duration = Duration::from_secs(240);

/// A running `wasmill dev --json`. It ends when this is dropped, and its servers with it.
struct Dev {
    child: Child,
    documents: mpsc::Receiver<Value>,
    log: PathBuf,
}

impl Dev {
    fn start(folder: &Path, log: PathBuf) -> Self {
        let mut command = wasmill();
        command
            .args(["dev", "--json", "--plugin"])
            .arg(folder)
            .env("CARGO_TARGET_DIR", authors_target())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (tell, documents) = mpsc::channel();
        std::thread::spawn(move || {
            let all = serde_json::Deserializer::from_reader(stdout).into_iter::<Value>();
            all.map_while(Result::ok)
                .try_for_each(|document| tell.send(document))
        });
        Self {
            child,
            documents,
            log,
        }
    }

    /// What it says next on standard output.
    fn next(&self) -> Value {
        let next = self.documents.recv_timeout(BUILD);
        next.unwrap_or_else(|error| panic!("{error}:\n{}", self.said()))
    }

    /// What it said for people.
    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Ctrl-C, and how it ended.
    fn stop(&mut self) -> Option<ExitStatus> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-INT", &pid]).status().ok();
        let start = Instant::now();
        while start.elapsed() < SOON {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.stop();
        }
    }
}

/// The table as one text.
async fn table(url: &str) -> Result<String, String> {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let sql =
        "SELECT string_agg(sensor || '=' || fahrenheit, ' ' ORDER BY sensor) FROM latest_readings";
    let row = client.query_one(sql, &[]).await;
    drop(client);
    driver.await.unwrap().ok();
    let text = row.and_then(|row| row.try_get::<_, Option<String>>(0));
    Ok(text.map_err(|error| error.to_string())?.unwrap_or_default())
}

#[tokio::test]
async fn a_new_plugin_is_deployed_and_a_save_shows_the_rows_that_changed() {
    let scratch = TempDir::with_prefix("wasmill-test-").unwrap();
    must(
        wasmill()
            .args(["plugin", "new", "sensors"])
            .current_dir(&scratch),
    );
    let folder = scratch.path().join("sensors");
    let (data, code) = (
        folder.join("data/readings.ndjson"),
        folder.join("src/lib.rs"),
    );
    let records = fs::read_to_string(&data).unwrap();
    fs::write(&data, records.replace("\"sensor\"", "\"name\"")).unwrap();
    let mut dev = Dev::start(&folder, scratch.path().join("dev.log"));

    // Records without the key that the plugin reads would all be dead letters.
    let error = dev.next()["error"].clone();
    assert_eq!(
        error["detail"],
        "it has nothing at /sensor",
        "{error:#}\n{}",
        dev.said()
    );
    let hint = error["hint"].as_str().unwrap();
    assert!(hint.contains("--key"), "{hint}");

    // As `plugin new` wrote them they hold it, under the name that the plugin calls it by.
    fs::write(&data, records).unwrap();
    let first = dev.next();
    assert_eq!(
        first["plugin"],
        "sensors@0.1.0-dev.2",
        "{first:#}\n{}",
        dev.said()
    );
    let (latest, dead) = ("latest (postgres latest_readings)", "(dead letters)");
    assert_eq!(
        first["rows"],
        json!({ latest: 4, dead: 2 }),
        "{}",
        dev.said()
    );
    assert_eq!(first["changes"], Value::Null);
    let said = dev.said();
    let deployed = "sensors@0.1.0-dev.2 in pipeline sensors, revision 1";
    assert!(said.contains(deployed), "{said}");
    let url = said
        .lines()
        .find_map(|line| line.strip_prefix("psql"))
        .unwrap();
    let url = url.trim().trim_matches('"').to_owned();
    eventually(SOON, "the rows are in the table", async || {
        same(
            &table(&url).await?.as_str(),
            &"attic=66.2 cellar=51.8 garden=23.9",
        )
    })
    .await;

    // The garden at -4.5 °C is not to be believed any more.
    let text = fs::read_to_string(&code).unwrap();
    let colder = "rec.celsius < -273.15";
    assert!(text.contains(colder), "{text}");
    fs::write(&code, text.replace(colder, "rec.celsius < -4.0")).unwrap();
    let second = dev.next();
    assert_eq!(
        second["plugin"],
        "sensors@0.1.0-dev.3",
        "{second:#}\n{}",
        dev.said()
    );
    assert_eq!(second["before"], "sensors@0.1.0-dev.2");
    assert_eq!(second["rows"], json!({ latest: 3, dead: 3 }), "{second:#}");
    let changes = second["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 2, "{second:#}");
    assert_eq!(changes[0]["route"], dead, "{second:#}");
    assert_eq!(changes[0]["added"]["code"], "too-cold", "{second:#}");
    assert_eq!(changes[1]["route"], "latest", "{second:#}");
    assert_eq!(changes[1]["removed"]["sensor"], "garden", "{second:#}");
    assert_eq!(changes[1]["removed"]["fahrenheit"], 23.9, "{second:#}");
    assert_eq!(changes[1]["added"], Value::Null, "{second:#}");
    let said = dev.said();
    let deployed = "sensors@0.1.0-dev.3 in pipeline sensors, revision 2";
    assert!(said.contains(deployed), "{said}");

    let ended = dev.stop();
    assert_eq!(
        ended.and_then(|status| status.code()),
        Some(0),
        "{}",
        dev.said()
    );
    let left = table(&url).await;
    assert!(left.is_err(), "its Postgres goes with it: {left:?}");
}
