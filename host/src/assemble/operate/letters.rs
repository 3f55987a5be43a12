//! Dead letters for the API: found where the pipeline's anchor keeps them, dropped, retried. The databases are looked
//! at by the control thread, whose runtime drives their connections; what was done is in the audit trail.
//!
//! `page`: which letters a request means; `shown`: letters and outcomes in the words of the API.

mod page;
mod shown;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use tokio::sync::OwnedSemaphorePermit;

use self::page::{asked, count, cursor, left, page, whole};
use self::shown::SHOWN;
use super::{Desk, refused};
use crate::admin::types::{
    DeadLetter, DeadLetterPage, DeadLetterQuery, DropRequest, Dropped, RetryReport, RetryRequest,
};
use crate::admin::{Kind, Refusal};
use crate::anchor::{Coordinates, DeadLetters, Letter, MemoryAnchor, Part};
use crate::assemble::hub::Hub;
use crate::assemble::releases::Loaded;
use crate::assemble::world::World;
use crate::control::{Change, Release};
use crate::error::{Error, Result};
use crate::pipeline::{AnchorPlan, Overwrite, Retried, RetrySinks, open_ahead, retry};
use crate::record::Batch;
use crate::task;

/// How long a look may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long retries or drops may take that were begun.
pub(super) const WORK: Duration = Duration::from_secs(100);
/// After how long no further retry of a page is begun.
const PAGE: Duration = Duration::from_secs(30);
/// Letters of a page unless the request says.
const LIMIT: u32 = 100;

/// A pipeline whose letters are asked for.
pub(super) struct Place {
    hub: Arc<Hub>,
    pub(super) loaded: Arc<Loaded>,
    pub(super) world: Arc<World>,
    _turn: Option<OwnedSemaphorePermit>,
}

impl Desk {
    /// The letters of a pipeline that was ever deployed, kept by its release in force; `through` another version,
    /// where one is named.
    pub(super) async fn place(
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
            if !is_same_place(&loaded, &other) {
                return Err(other_place(what, pipeline, &loaded, &other));
            }
            loaded = other;
        }
        Ok(Place::of(&self.hub, loaded, Some(turn)))
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
        let name = |plugin: &str| plugin.split_once('@').map(|(name, _)| name.to_owned());
        if name(plugin) != name(&now.plugin) {
            let detail = format!(
                "{plugin} is another plugin than {}, which is deployed",
                now.plugin
            );
            let hint = "a version of the same plugin; deploy the other one to retry through it";
            return Err(refused(what, pipeline, &detail, hint));
        }
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
        let page = hub.jobs.at_work(WHAT, PATIENCE, move || {
            async move {
                let letters = place.open().await?;
                let found = page(&*letters, &query, LIMIT, SHOWN).await?;
                let left = left(&*letters, &query, found.next.as_deref()).await?;
                let topic = &place.loaded.release.plan.input.topic;
                let shown = found
                    .letters
                    .iter()
                    .map(|letter| shown::letter(topic, letter));
                Ok(DeadLetterPage {
                    letters: shown.collect(),
                    next: found.next,
                    left,
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
        let found = hub.jobs.at_work(WHAT, PATIENCE, move || {
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
        let dropped = hub.jobs.at_work(WHAT, WORK, move || {
            async move {
                let letters = place.open().await?;
                if request.dry_run {
                    let left = request.letters.count.then_some(0);
                    return Ok(Dropped {
                        dropped: count(&*letters, request.letters).await?,
                        next: None,
                        left,
                    });
                }
                let found = page(&*letters, &request.letters, LIMIT, 0).await?;
                // Counted before anything is done: what was done is told, whatever fails.
                let left = left(&*letters, &request.letters, found.next.as_deref()).await?;
                let mut dropped = 0;
                if !found.letters.is_empty() {
                    dropped = letters.remove(&found.letters).await?;
                    let outcome = format!("{dropped} dropped: {}", asked(&request.letters));
                    place.audit(&by, &pipeline, WHAT, outcome).await;
                }
                Ok(Dropped {
                    dropped,
                    next: found.next,
                    left,
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
        let report = hub.jobs.at_work(WHAT, WORK, move || {
            async move {
                let letters = place.open().await?;
                let ahead = open_ahead(&*place.world, &place.loaded.release.plan).await?;
                let sinks = RetrySinks {
                    letters: &*letters,
                    ahead: &ahead,
                };
                // Each is read alone: a thousand of them may have gigabytes.
                let found = page(&*letters, &request.letters, LIMIT, 0).await?;
                let release = &place.loaded.release;
                let mut report = RetryReport {
                    plugin: release.plan.plugin.clone(),
                    release: release.id.to_string(),
                    results: Vec::new(),
                    left: left(&*letters, &request.letters, found.next.as_deref()).await?,
                    next: found.next,
                };
                let begun = Instant::now();
                let all = found.letters.len();
                for at in found.letters.iter().map(|letter| letter.at) {
                    let one = match whole(&*letters, at).await {
                        Ok(Some(letter)) => match place.finisher(&letter, &request).await {
                            Ok(Some(other)) => other.finish(&letter, request.force).await,
                            Ok(None) => place.retry(sinks, &letter, request.force).await,
                            Err(error) => Err(error),
                        },
                        Ok(None) => Ok(Retried::Gone(None)),
                        Err(error) => Err(error),
                    };
                    report.results.push(shown::result(at, one));
                    if begun.elapsed() > PAGE && report.results.len() < all {
                        report.next = Some(cursor(at));
                        let not_begun = (all - report.results.len()) as u64;
                        report.left = report.left.map(|left| left + not_begun);
                        break;
                    }
                }
                place.hub.retried();
                if !report.results.is_empty() {
                    let outcome = shown::summary(&report, &request.letters);
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
    fn of(hub: &Arc<Hub>, loaded: Arc<Loaded>, turn: Option<OwnedSemaphorePermit>) -> Self {
        let world = World::new(&loaded, &hub.releases, &hub.servers, MemoryAnchor::new());
        Self {
            hub: Arc::clone(hub),
            loaded,
            world: Arc::new(world),
            _turn: turn,
        }
    }

    async fn open(&self) -> Result<Box<dyn DeadLetters>> {
        self.world.letters(&self.loaded.release.plan).await
    }

    /// What was done is said in the control log; that it cannot be is no reason to undo it.
    pub(super) async fn audit(&self, by: &str, pipeline: &str, action: &str, outcome: String) {
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

    /// The release that began to retry a letter, where that is another one and no version was asked for: only it may
    /// finish.
    async fn finisher(&self, letter: &Letter, request: &RetryRequest) -> Result<Option<Place>> {
        let here = &self.loaded.release;
        let begun = letter.begun.as_deref().filter(|begun| **begun != *here.id);
        let (Some(begun), None) = (begun, &request.plugin) else {
            return Ok(None);
        };
        // Where nobody knows it, the retry is refused and says so.
        let earlier = self.hub.releases.earlier(&here.plan.pipeline, begun);
        let Ok(loaded) = earlier.await else {
            return Ok(None);
        };
        let same = is_same_place(&self.loaded, &loaded);
        Ok(same.then(|| Place::of(&self.hub, loaded, None)))
    }

    /// Retries one letter through sinks of its own.
    async fn finish(&self, letter: &Letter, force: bool) -> Result<Retried> {
        let letters = self.open().await?;
        let ahead = open_ahead(&*self.world, &self.loaded.release.plan).await?;
        let sinks = RetrySinks {
            letters: &*letters,
            ahead: &ahead,
        };
        self.retry(sinks, letter, force).await
    }

    async fn retry(&self, sinks: RetrySinks<'_>, letter: &Letter, force: bool) -> Result<Retried> {
        let release = &self.loaded.release;
        let wants = release.plan.input.input.needs_headers() && letter.headers.is_none();
        let batch = match letter.record() {
            Some(batch) if !wants => batch,
            _ => match self.read_back(letter).await? {
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
        retry(release, sinks, letter, batch, overwrite).await
    }

    /// The record of a letter that kept not all of it; the inner error says why it cannot be had.
    async fn read_back(&self, letter: &Letter) -> Result<Result<Batch, String>> {
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

    /// A letter with its record, out of the topic where it was too large.
    async fn whole(&self, letter: &Letter) -> DeadLetter {
        let topic = &self.loaded.release.plan.input.topic;
        let mut shown = shown::letter(topic, letter);
        shown.record = Some(match letter.record() {
            Some(batch) => shown::bytes(batch.record(0), "letter"),
            None => match self.read_back(letter).await {
                Ok(Ok(batch)) => shown::bytes(batch.record(0), "topic"),
                Ok(Err(why)) => shown::missing(letter, why),
                Err(error) => shown::missing(letter, error.to_string()),
            },
        });
        shown
    }
}

/// A version may be bound otherwise than the one in force: then its rows would go elsewhere.
fn is_same_place(now: &Loaded, then: &Loaded) -> bool {
    let (now, then) = (&now.release.plan, &then.release.plan);
    now.anchor == then.anchor && now.input.topic == then.input.topic
}

fn other_place(what: &str, pipeline: &str, now: &Loaded, then: &Loaded) -> Refusal {
    let (now, then) = (&now.release.plan, &then.release.plan);
    let detail = format!(
        "{} would read {} and keep its position in {}, the release in force {} and {}",
        then.plugin, then.input.topic, then.anchor, now.input.topic, now.anchor
    );
    refused(what, pipeline, &detail, "choose another version")
}

/// Rows and removal have to be one transaction.
fn supported(what: &str, pipeline: &str, loaded: &Loaded) -> Result<(), Refusal> {
    let place = match loaded.release.plan.anchor {
        AnchorPlan::Cassandra(_) => "Cassandra",
        AnchorPlan::Kafka(_) => "Kafka",
        AnchorPlan::Postgres(_) | AnchorPlan::Memory => return Ok(()),
    };
    let detail = &format!(
        "it keeps its position in {place}, where rows and the letter's removal cannot be one step yet"
    );
    let hint = "send the record again to the topic, corrected, then drop the letter";
    Err(refused(what, pipeline, detail, hint))
}
