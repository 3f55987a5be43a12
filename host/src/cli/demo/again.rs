//! The last act: the dead letters that a mended version takes are listed, run through it once more, and counted as
//! emitted. It speaks to the host as a person's commands do, and says which those are.

use serde_json::{Value, json};

use super::feed::Sent;
use super::servers::Servers;
use crate::admin::types::{
    DeadLetterPage, DeadLetterQuery, Ledger, PipelineStatus, RetryOutcome, RetryReport,
    RetryRequest, Uploaded,
};
use crate::cli::client::{Client, Method, path};
use crate::cli::{Failure, Voice, deadletter, report, status, upload};
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
    before: Ledger,
    ledger: Ledger,
    /// Numbers that do not add up.
    pub(super) mismatches: Vec<String>,
}

/// What became of them, as the host's status tells it.
fn line(ledger: Ledger) -> String {
    format!(
        "{PIPELINE}: {} in = {} emitted ({} of them retried) + {} filtered + {} dead",
        ledger.records, ledger.emitted, ledger.retried, ledger.filtered, ledger.dead
    )
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
    let before = ledger(client)?;
    say(String::new());
    say(line(before));
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
    let after = ledger(client)?;
    say(line(after));
    let mut again = Again {
        mismatches: Vec::new(),
        retried,
        before,
        ledger: after,
    };
    again.check(sent, u64::try_from(page.letters.len()).unwrap_or(u64::MAX));
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

/// The ledger of the pipeline, all partitions together.
fn ledger(client: &Client) -> Result<Ledger, Failure> {
    let status: PipelineStatus = client
        .get(&path::pipeline(PIPELINE), "ask for the ledger")?
        .read()?;
    let missing = || Error::bug("check the demo", "the ledger is not there").into();
    status::ledger(&status.partitions).ok_or_else(missing)
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
    fn check(&mut self, sent: Sent, listed: u64) {
        let results = self.retried.results.iter();
        let emitted = results.filter(|one| one.outcome == RetryOutcome::Emitted);
        let emitted = emitted.count() as u64;
        let (before, now) = (self.before, self.ledger);
        self.compare("retried and emitted", emitted, sent.mendable);
        self.compare("letters listed", listed, self.retried.results.len() as u64);
        for ledger in [before, now] {
            let settled = ledger.emitted + ledger.filtered + ledger.dead;
            self.compare("records in the ledger", ledger.records, sent.records);
            self.compare("emitted + filtered + dead", settled, ledger.records);
        }
        let mended = sent.mendable;
        self.compare("dead before", before.dead, sent.bad);
        self.compare("retried before", before.retried, 0);
        self.compare("dead after", now.dead, sent.bad - mended);
        self.compare("emitted after", now.emitted, before.emitted + mended);
        self.compare("retried after", now.retried, mended);
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
        json!({
            "retry": self.retried,
            "before": self.before,
            "ledger": self.ledger,
        })
    }
}
