//! The last act: the dead letters that a mended version takes are listed, run through it once more, and counted as
//! emitted. It speaks to the host as a person's commands do, and says which those are.

use serde_json::{Value, json};

use super::feed::Sent;
use super::servers::Servers;
use crate::admin::types::{
    DeadLetterPage, DeadLetterQuery, RetryOutcome, RetryReport, RetryRequest, Uploaded,
};
use crate::cli::client::{Client, Method, path};
use crate::cli::{Failure, Voice, deadletter, report, upload};
use crate::error::Error;
use crate::pipeline::Plan;
use crate::postgres;
use crate::task;

/// The pipeline whose plugin is mended.
pub(super) const PIPELINE: &str = "flights";
/// Folder of the mended plugin, beside the others.
pub(super) const MENDED: &str = "flights-mended";
/// What the old version says of the records that the new one takes, and of one that nothing can mend.
const CODE: &str = "bad-date";

/// What became of them.
pub(super) struct Again {
    retried: RetryReport,
    ledger: Ledger,
    /// Numbers that do not add up.
    pub(super) mismatches: Vec<String>,
}

/// The stored ledger of the pipeline, all partitions together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ledger {
    records: u64,
    emitted: u64,
    filtered: u64,
    dead: u64,
    /// Of the dead ones, those that were processed since.
    retried: u64,
}

impl Ledger {
    /// As they count now: what was dead and became rows is emitted.
    fn line(self) -> String {
        format!(
            "{PIPELINE}: {} in = {} emitted ({} of them retried) + {} filtered + {} dead",
            self.records,
            self.emitted + self.retried,
            self.retried,
            self.filtered,
            self.dead.saturating_sub(self.retried)
        )
    }
}

/// Uploads the mended component and runs the letters through it.
pub(super) fn through_mended(
    client: &Client,
    servers: &Servers,
    component: &std::path::Path,
    (plan, sent): (&Plan, Sent),
    voice: Voice,
) -> Result<Again, Failure> {
    let say = |text: String| {
        if !voice.json {
            report::line(text);
        }
    };
    let before = ledger(servers)?;
    say(String::new());
    say(format!(
        "$ wasmill deadletter list {PIPELINE} --code {CODE}"
    ));
    let page = list(client)?;
    say(deadletter::drawn(&page.letters));
    say(
        "flights 1.1 takes dates with dashes; a day that does not exist stays what it is"
            .to_owned(),
    );
    say(format!("$ wasmill upload {}", component.display()));
    let uploaded: Uploaded = upload::send(client, component, None, Voice { json: true })?.read()?;
    say(format!("uploaded {}", uploaded.plugin));
    // `--force`: the table is an upsert without a guard, where a retry might overwrite what is newer.
    say(format!(
        "$ wasmill deadletter retry {PIPELINE} --code {CODE} --through {} --force",
        uploaded.plugin
    ));
    let retried = retry(client, uploaded.plugin)?;
    if !voice.json {
        deadletter::retried(&retried);
    }
    let after = ledger(servers)?;
    say(after.line());
    let mut again = Again {
        mismatches: Vec::new(),
        retried,
        ledger: after,
    };
    again.check(
        before,
        sent,
        u64::try_from(page.letters.len()).unwrap_or(u64::MAX),
    );
    again.look(servers, plan, sent)?;
    Ok(again)
}

fn query() -> DeadLetterQuery {
    DeadLetterQuery {
        code: Some(CODE.to_owned()),
        ..DeadLetterQuery::default()
    }
}

fn list(client: &Client) -> Result<DeadLetterPage, Failure> {
    let asked = [("code", CODE.to_owned())];
    client
        .get(&path::dead_letters(PIPELINE, &asked), "list dead letters")?
        .read()
}

fn retry(client: &Client, through: String) -> Result<RetryReport, Failure> {
    let request = RetryRequest {
        letters: query(),
        plugin: Some(through),
        force: true,
    };
    let path = path::of_dead_letters(PIPELINE, "retry");
    client
        .send(Method::Post, &path, &request, "retry dead letters")?
        .read()
}

/// The first row of an answer, as numbers.
fn numbers(servers: &Servers, sql: &str) -> Result<Vec<u64>, Error> {
    let answer = task::block_on(postgres::query_text(&servers.postgres(), sql))?;
    let first = answer.rows.into_iter().next().unwrap_or_default();
    let number = |text: &String| {
        text.parse()
            .map_err(|_| Error::bug("check the demo", format!("{sql}: {text:?} is no number")))
    };
    first.iter().map(number).collect()
}

fn ledger(servers: &Servers) -> Result<Ledger, Error> {
    let sql = format!(
        "SELECT sum(records), sum(emitted), sum(filtered), sum(dead), sum(retried) FROM wasmill.position \
         WHERE pipeline = '{PIPELINE}'"
    );
    let found = numbers(servers, &sql)?;
    let [records, emitted, filtered, dead, retried] = found[..] else {
        return Err(Error::bug("check the demo", "the ledger is not there"));
    };
    Ok(Ledger {
        records,
        emitted,
        filtered,
        dead,
        retried,
    })
}

impl Again {
    /// Records that were dead and are emitted now.
    pub(super) fn retried(&self) -> u64 {
        self.ledger.retried
    }

    fn compare(&mut self, what: &str, found: u64, wanted: u64) {
        if found != wanted {
            self.mismatches
                .push(format!("{PIPELINE}: {what} is {found}, expected {wanted}"));
        }
    }

    /// The answers and the ledger, against what was sent.
    fn check(&mut self, before: Ledger, sent: Sent, listed: u64) {
        let results = self.retried.results.iter();
        let emitted = results.filter(|one| one.outcome == RetryOutcome::Emitted);
        let emitted = emitted.count() as u64;
        let now = self.ledger;
        self.compare("retried and emitted", emitted, sent.mendable);
        self.compare("letters listed", listed, self.retried.results.len() as u64);
        self.compare("records in the ledger", now.records, sent.records);
        let settled = now.emitted + now.filtered + now.dead;
        self.compare(
            "emitted + filtered + dead in the ledger",
            settled,
            now.records,
        );
        self.compare("dead in the ledger", now.dead, sent.bad);
        self.compare("retried before", before.retried, 0);
        self.compare("retried in the ledger", now.retried, sent.mendable);
    }

    /// What is in the tables now.
    fn look(&mut self, servers: &Servers, plan: &Plan, sent: Sent) -> Result<(), Error> {
        let letters =
            format!("SELECT count(*) FROM wasmill.dead_letter WHERE pipeline = '{PIPELINE}'");
        let left = numbers(servers, &letters)?;
        self.compare(
            "dead letters left",
            left.iter().sum(),
            sent.bad - sent.mendable,
        );
        for route in plan
            .routes
            .iter()
            .filter(|route| route.kind() == "postgres")
        {
            let count = format!("SELECT count(*) FROM {}", route.table());
            let rows = numbers(servers, &count)?.iter().sum();
            let what = format!("rows in {} after the retry", route.table());
            self.compare(&what, rows, sent.rows + sent.mendable);
        }
        Ok(())
    }

    /// For programs.
    pub(super) fn document(&self) -> Value {
        let Ledger {
            records,
            emitted,
            filtered,
            dead,
            retried,
        } = self.ledger;
        json!({
            "retry": self.retried,
            "ledger": {
                "records": records, "emitted": emitted, "filtered": filtered, "dead": dead, "retried": retried,
            },
        })
    }
}
