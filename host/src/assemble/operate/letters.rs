//! Dead letters for the API: found where the pipeline's anchor keeps them, dropped, retried. The databases are looked
//! at by the control thread, whose runtime drives their connections; what was done is in the audit trail.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt as _;
use tokio::sync::OwnedSemaphorePermit;

use super::{Desk, refused};
use crate::admin::types::{
    DeadHeader, DeadLetter, DeadLetterPage, DeadLetterQuery, DeadRecord, DropRequest, Dropped,
    RetryOutcome, RetryReport, RetryRequest, RetryResult,
};
use crate::admin::{Kind, Refusal, micros};
use crate::anchor::{
    Coordinates, DeadLetters, Letter, LetterFilter, LetterPage, MemoryAnchor, Part,
};
use crate::assemble::hub::Hub;
use crate::assemble::releases::Loaded;
use crate::assemble::world::World;
use crate::control::{Change, Release};
use crate::error::{Error, Result};
use crate::pipeline::{Binding, Overwrite, Retried, retry};
use crate::record::cells::{Cell, Reader};
use crate::record::{Batch, Record};
use crate::task;

/// How long a look may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long retries or drops may take that were begun.
const WORK: Duration = Duration::from_secs(100);
/// After how long no further retry of a page is begun.
const PAGE: Duration = Duration::from_secs(30);
/// Letters of a page unless the request says.
const LIMIT: u32 = 100;
/// Bytes of a key that are shown in a list.
const SHOWN: u32 = 64;
/// Letters counted at once by a dry run.
const COUNTED: u32 = 1000;

/// A pipeline whose letters are asked for.
struct Place {
    hub: Arc<Hub>,
    loaded: Arc<Loaded>,
    world: Arc<World>,
    _turn: OwnedSemaphorePermit,
}

impl Desk {
    /// The letters of a pipeline that was ever deployed, kept by its release in force; `through` another version,
    /// where one is named.
    async fn place(
        &self,
        what: &str,
        pipeline: &str,
        through: Option<&str>,
    ) -> Result<Place, Refusal> {
        let revision = self.hub.control.state().pipeline(pipeline).cloned();
        let revision = revision.ok_or_else(|| self.no_pipeline(what, pipeline))?;
        let turn = Arc::clone(&self.letters).acquire_owned().await;
        let turn = turn.map_err(|error| Error::bug(what, error))?;
        let release = &revision.deployment.release;
        let mut loaded = self.hub.releases.load(pipeline, release).await?;
        if let Some(plugin) = through {
            let other = self.version(what, pipeline, plugin, release)?;
            let other = self.hub.releases.load(pipeline, &other).await?;
            same_place(what, pipeline, &loaded, &other)?;
            loaded = other;
        }
        let world = World::new(
            &loaded,
            &self.hub.releases,
            &self.hub.config,
            MemoryAnchor::new(),
        );
        Ok(Place {
            hub: Arc::clone(&self.hub),
            loaded,
            world: Arc::new(world),
            _turn: turn,
        })
    }

    /// An uploaded version with the overlay in force.
    fn version(
        &self,
        what: &str,
        pipeline: &str,
        plugin: &str,
        now: &Release,
    ) -> Result<Release, Refusal> {
        let state = self.hub.control.state();
        let known = plugin
            .split_once('@')
            .and_then(|(name, version)| state.version(name, version));
        let Some(known) = known else {
            let detail = format!("{plugin} was never uploaded");
            let error = Error::config(format!("{what} of pipeline {pipeline:?}"), detail);
            return Err(Refusal::new(
                Kind::NotFound,
                error.hint("`wasmill list` shows what there is"),
            ));
        };
        Ok(Release::new(
            plugin,
            known.digest.as_str(),
            now.overlay.as_str(),
        ))
    }

    pub(super) async fn letters(
        &self,
        pipeline: &str,
        query: DeadLetterQuery,
    ) -> Result<DeadLetterPage, Refusal> {
        const WHAT: &str = "list dead letters";
        let place = self.place(WHAT, pipeline, None).await?;
        let hub = Arc::clone(&self.hub);
        let page = hub.at_work(WHAT, PATIENCE, move || {
            async move {
                let letters = place.open().await?;
                let found = page(&*letters, &query, LIMIT, SHOWN).await?;
                let shown = found.letters.iter().map(|letter| place.shown(letter));
                Ok(DeadLetterPage {
                    letters: shown.collect(),
                    next: found.next,
                })
            }
            .boxed_local()
        });
        Ok(page.await?)
    }

    pub(super) async fn letter(
        &self,
        pipeline: &str,
        (partition, offset, index): (i32, i64, i32),
    ) -> Result<DeadLetter, Refusal> {
        const WHAT: &str = "show a dead letter";
        let place = self.place(WHAT, pipeline, None).await?;
        let at = Coordinates {
            partition,
            offset,
            index,
        };
        let hub = Arc::clone(&self.hub);
        let found = hub.at_work(WHAT, PATIENCE, move || {
            async move {
                let letters = place.open().await?;
                Ok(match whole(&*letters, at).await? {
                    Some(letter) => Some(place.whole(&letter).await),
                    None => None,
                })
            }
            .boxed_local()
        });
        found.await?.ok_or_else(|| {
            let error = Error::config(
                format!("{WHAT} of pipeline {pipeline:?}"),
                format!("there is none at {partition}:{offset}:{index}"),
            );
            let hint = format!("`wasmill deadletter list {pipeline}` shows what there is");
            Refusal::new(Kind::NotFound, error.hint(hint))
        })
    }

    pub(super) async fn drop_letters(
        &self,
        by: &str,
        pipeline: &str,
        request: DropRequest,
    ) -> Result<Dropped, Refusal> {
        const WHAT: &str = "drop dead letters";
        let place = self.place(WHAT, pipeline, None).await?;
        let (hub, by, pipeline) = (Arc::clone(&self.hub), by.to_owned(), pipeline.to_owned());
        let dropped = hub.at_work(WHAT, WORK, move || {
            async move {
                let letters = place.open().await?;
                if request.dry_run {
                    return count(&*letters, request.letters).await;
                }
                let found = page(&*letters, &request.letters, LIMIT, 0).await?;
                if found.letters.is_empty() {
                    return Ok(Dropped::default());
                }
                let dropped = letters.remove(&found.letters).await?;
                let outcome = format!("{dropped} dropped: {}", asked(&request.letters));
                place.audit(&by, &pipeline, WHAT, outcome).await;
                Ok(Dropped {
                    dropped,
                    next: found.next,
                })
            }
            .boxed_local()
        });
        Ok(dropped.await?)
    }

    pub(super) async fn retry_letters(
        &self,
        by: &str,
        pipeline: &str,
        request: RetryRequest,
    ) -> Result<RetryReport, Refusal> {
        const WHAT: &str = "retry dead letters";
        let place = self
            .place(WHAT, pipeline, request.plugin.as_deref())
            .await?;
        supported(WHAT, pipeline, &place.loaded)?;
        let (hub, by, pipeline) = (Arc::clone(&self.hub), by.to_owned(), pipeline.to_owned());
        let report = hub.at_work(WHAT, WORK, move || {
            async move {
                let letters = place.open().await?;
                // Each is read alone: a thousand of them may have gigabytes.
                let found = page(&*letters, &request.letters, LIMIT, 0).await?;
                let release = &place.loaded.release;
                let mut report = RetryReport {
                    plugin: release.plan.plugin.clone(),
                    release: release.id.to_string(),
                    results: Vec::new(),
                    next: found.next,
                };
                let begun = Instant::now();
                let all = found.letters.len();
                for at in found.letters.iter().map(|letter| letter.at) {
                    let one = match whole(&*letters, at).await {
                        Ok(Some(letter)) => place.retry(&*letters, &letter, request.force).await,
                        Ok(None) => Ok(Retried::Gone(None)),
                        Err(error) => Err(error),
                    };
                    report.results.push(result(at, one));
                    if begun.elapsed() > PAGE && report.results.len() < all {
                        report.next = Some(cursor(at));
                        break;
                    }
                }
                if !report.results.is_empty() {
                    let outcome = summary(&report, &request.letters);
                    place.audit(&by, &pipeline, WHAT, outcome).await;
                }
                Ok(report)
            }
            .boxed_local()
        });
        Ok(report.await?)
    }
}

impl Place {
    async fn open(&self) -> Result<Box<dyn DeadLetters>> {
        self.world.letters(&self.loaded.release.plan).await
    }

    /// What was done is said in the control log; that it cannot be is no reason to undo it.
    async fn audit(&self, by: &str, pipeline: &str, action: &str, outcome: String) {
        tracing::info!(by, pipeline, outcome, "{action}");
        let change = Change::Done {
            pipeline: pipeline.to_owned(),
            action: action.to_owned(),
            outcome,
        };
        if let Err(error) = self.hub.control.submit(by, change).await {
            tracing::warn!(by, pipeline, action, error = %error, "not kept in the audit trail");
        }
    }

    async fn retry(
        &self,
        letters: &dyn DeadLetters,
        letter: &Letter,
        force: bool,
    ) -> Result<Retried> {
        let release = &self.loaded.release;
        let wants = release.plan.input.input.needs_headers() && letter.headers.is_none();
        let batch = match letter.record() {
            Some(batch) if !wants => batch,
            _ => match self.from_topic(letter).await? {
                Ok(batch) => batch,
                Err(why) => {
                    let what = format!("retry dead letter {}", cursor(letter.at));
                    let error = Error::config(what, why);
                    return Ok(Retried::Refused(
                        error.hint("send the record again, then drop it"),
                    ));
                }
            },
        };
        let overwrite = if force {
            Overwrite::Allow
        } else {
            Overwrite::Refuse
        };
        retry(release, letters, letter, batch, overwrite).await
    }

    /// The record of a letter that kept not all of it; the inner error says why it cannot be had.
    async fn from_topic(&self, letter: &Letter) -> Result<Result<Batch, String>> {
        let (world, at) = (Arc::clone(&self.world), letter.at);
        let found = task::blocking(move || world.record(at.partition, at.offset)).await??;
        let Some(batch) = found else {
            let why = "it was too large to be kept whole, and the topic does not hold it any more";
            return Ok(Err(why.to_owned()));
        };
        let record = batch.record(0);
        let kept = [(&letter.key, record.key), (&letter.value, record.value)];
        let same = kept.iter().all(|(part, found)| match part {
            Part::Null => found.is_none(),
            Part::Bytes { bytes, .. } => *found == Some(bytes),
            Part::LeftOut => found.is_some(),
        });
        if same && record.timestamp == letter.timestamp {
            return Ok(Ok(batch));
        }
        let why = "it was too large to be kept whole, and another record lies at its offset now";
        Ok(Err(why.to_owned()))
    }

    /// A letter without its record.
    fn shown(&self, letter: &Letter) -> DeadLetter {
        let size = |part: &Part| match part {
            Part::Bytes { size, .. } => Some(*size),
            Part::Null | Part::LeftOut => None,
        };
        let at = |micros: i64| jiff::Timestamp::from_microsecond(micros).ok();
        let time = |micros: Option<i64>| Some(at(micros?)?.to_string());
        let first = usize::try_from(SHOWN).unwrap_or_default();
        let key = letter.key.bytes().map(|key| &key[..key.len().min(first)]);
        DeadLetter {
            topic: self.loaded.release.plan.input.topic.clone(),
            partition: letter.at.partition,
            offset: letter.at.offset,
            index: letter.at.index,
            class: letter.class.clone(),
            code: letter.code.clone(),
            reason: letter.reason.clone(),
            plugin: letter.plugin.clone(),
            digest: letter.digest.clone(),
            at: time(letter.set_aside),
            tried_at: time(letter.tried),
            timestamp_ms: (letter.timestamp >= 0).then_some(letter.timestamp),
            key: key.map(|key| String::from_utf8_lossy(key).into_owned()),
            value_bytes: size(&letter.value),
            truncated: letter.cut,
            record: None,
        }
    }

    /// A letter with its record, out of the topic where it was too large.
    async fn whole(&self, letter: &Letter) -> DeadLetter {
        let mut shown = self.shown(letter);
        shown.record = Some(match letter.record() {
            Some(batch) => bytes(batch.record(0), "letter"),
            None => match self.from_topic(letter).await {
                Ok(Ok(batch)) => bytes(batch.record(0), "topic"),
                Ok(Err(why)) => missing(letter, why),
                Err(error) => missing(letter, error.to_string()),
            },
        });
        shown
    }
}

/// What a letter kept of its record, and why there is no more.
fn missing(letter: &Letter, why: String) -> DeadRecord {
    DeadRecord {
        key: letter.key.bytes().map(|bytes| STANDARD.encode(bytes)),
        value: letter.value.bytes().map(|bytes| STANDARD.encode(bytes)),
        headers: headers(letter.headers.as_deref().unwrap_or_default()),
        from: "letter".to_owned(),
        missing: Some(why),
    }
}

fn bytes(record: Record<'_>, from: &str) -> DeadRecord {
    DeadRecord {
        key: record.key.map(|bytes| STANDARD.encode(bytes)),
        value: record.value.map(|bytes| STANDARD.encode(bytes)),
        headers: headers(record.headers),
        from: from.to_owned(),
        missing: None,
    }
}

/// The headers of a cell value: a count, then names and values.
fn headers(cell: &[u8]) -> Vec<DeadHeader> {
    let mut reader = Reader::new(cell.get(4..).unwrap_or_default());
    let mut found = Vec::new();
    while !reader.is_empty() {
        let (Ok(Cell::Value(name)), Ok(value)) = (reader.cell(), reader.cell()) else {
            break;
        };
        found.push(DeadHeader {
            name: String::from_utf8_lossy(name).into_owned(),
            value: match value {
                Cell::Value(value) => Some(STANDARD.encode(value)),
                _ => None,
            },
        });
    }
    found
}

/// Letters of a page, and where the next one begins.
struct Found {
    letters: Vec<Letter>,
    next: Option<String>,
}

/// One letter with all of its bytes.
async fn whole(letters: &dyn DeadLetters, at: Coordinates) -> Result<Option<Letter>> {
    let page = LetterPage {
        after: None,
        most: 1,
        bytes: u32::MAX,
    };
    Ok(letters.list(&LetterFilter::only(at), page).await?.pop())
}

async fn page(
    letters: &dyn DeadLetters,
    query: &DeadLetterQuery,
    limit: u32,
    bytes: u32,
) -> Result<Found> {
    let limit = query.limit.unwrap_or(limit);
    let page = LetterPage {
        after: query.cursor.as_deref().map(after),
        most: limit.saturating_add(1),
        bytes,
    };
    let mut found = letters.list(&filter(query), page).await?;
    let more = found.len() > usize::try_from(limit).unwrap_or(usize::MAX);
    if more {
        found.pop();
    }
    let next = found.last().filter(|_| more).map(|last| cursor(last.at));
    Ok(Found {
        letters: found,
        next,
    })
}

/// How many there are in all.
async fn count(letters: &dyn DeadLetters, mut query: DeadLetterQuery) -> Result<Dropped> {
    query.limit = Some(COUNTED);
    let mut all = 0;
    loop {
        let found = page(letters, &query, COUNTED, 0).await?;
        all += found.letters.len() as u64;
        query.cursor = found.next;
        if query.cursor.is_none() {
            return Ok(Dropped {
                dropped: all,
                next: None,
            });
        }
    }
}

fn filter(query: &DeadLetterQuery) -> LetterFilter {
    let time = |text: &Option<String>| micros(text.as_deref()?);
    LetterFilter {
        partition: query.partition,
        from: query.from,
        to: query.to,
        index: query.index,
        class: query.class.clone(),
        code: query.code.clone(),
        plugin: query.plugin.clone(),
        digest: query.digest.clone(),
        since: time(&query.since),
        until: time(&query.until),
    }
}

fn cursor(at: Coordinates) -> String {
    format!("{}:{}:{}", at.partition, at.offset, at.index)
}

/// The place a cursor names; one past every letter where a number is too large for one.
fn after(cursor: &str) -> Coordinates {
    let mut parts = cursor.split(':');
    let mut next = || parts.next().unwrap_or_default();
    Coordinates {
        partition: next().parse().unwrap_or(i32::MAX),
        offset: next().parse().unwrap_or(i64::MAX),
        index: next().parse().unwrap_or(i32::MAX),
    }
}

/// A version may be bound otherwise than the one in force: then its rows would go elsewhere.
fn same_place(what: &str, pipeline: &str, now: &Loaded, then: &Loaded) -> Result<(), Refusal> {
    let (now, then) = (&now.release.plan, &then.release.plan);
    if now.anchor == then.anchor && now.input.topic == then.input.topic {
        return Ok(());
    }
    let detail = format!(
        "{} would read {} and keep its position in {}, the release in force {} and {}",
        then.plugin, then.input.topic, then.anchor, now.input.topic, now.anchor
    );
    Err(refused(what, pipeline, &detail, "choose another version"))
}

/// Rows and removal have to be one transaction.
fn supported(what: &str, pipeline: &str, loaded: &Loaded) -> Result<(), Refusal> {
    let ahead = loaded
        .release
        .plan
        .routes
        .iter()
        .find(|route| matches!(route.binding, Binding::Ahead(_)));
    let Some(route) = ahead else {
        return Ok(());
    };
    let detail = format!(
        "route {:?} is written to Cassandra, where rows and the letter's removal cannot be one step yet",
        route.route.name
    );
    let hint = "send the record again to the topic, corrected, then drop the letter";
    Err(refused(what, pipeline, &detail, hint))
}

fn result(at: Coordinates, retried: Result<Retried>) -> RetryResult {
    let mut result = RetryResult {
        partition: at.partition,
        offset: at.offset,
        index: at.index,
        outcome: RetryOutcome::Refused,
        rows: 0,
        code: None,
        reason: None,
    };
    match retried {
        Ok(Retried::Emitted(rows)) => {
            result.outcome = RetryOutcome::Emitted;
            result.rows = rows;
        }
        Ok(Retried::Filtered) => result.outcome = RetryOutcome::Filtered,
        Ok(Retried::Dead(dead)) => {
            result.outcome = RetryOutcome::Dead;
            result.code = Some(dead.code.into_owned());
            result.reason = Some(dead.reason);
        }
        Ok(Retried::Gone(why)) => {
            result.outcome = RetryOutcome::Gone;
            result.reason = why.map(str::to_owned);
        }
        Ok(Retried::Refused(error)) | Err(error) => {
            let hint = error.hint_text().map(|hint| format!("; {hint}"));
            result.reason = Some(format!("{}{}", error.detail(), hint.unwrap_or_default()));
        }
    }
    result
}

/// Which letters were asked for, for the audit trail.
fn asked(query: &DeadLetterQuery) -> String {
    let query = DeadLetterQuery {
        limit: None,
        cursor: None,
        ..query.clone()
    };
    match serde_json::to_string(&query).as_deref() {
        Ok("{}") | Err(_) => "all".to_owned(),
        Ok(text) => text.to_owned(),
    }
}

fn summary(report: &RetryReport, query: &DeadLetterQuery) -> String {
    let count = |outcome| {
        let results = report.results.iter();
        results.filter(|one| one.outcome == outcome).count()
    };
    format!(
        "{} emitted, {} filtered, {} still dead, {} gone, {} refused, through {}: {}",
        count(RetryOutcome::Emitted),
        count(RetryOutcome::Filtered),
        count(RetryOutcome::Dead),
        count(RetryOutcome::Gone),
        count(RetryOutcome::Refused),
        report.plugin,
        asked(query)
    )
}
