//! Topics that routes write to: what should have been sent there, and what is there.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::super::releases::Loaded;
use super::super::world::World;
use super::derive::Deriver;
use crate::error::Result;
use crate::kafka::{COORDINATES, WRITER};
use crate::manifest::Target;
use crate::pipeline::Binding;
use crate::record::cells::Headers;
use crate::record::{Batch, RowBatch};
use crate::task;
use crate::verify::{At, Coordinates, Difference, DifferenceKind, Messages, Report, TableReport};

/// Takes the rows of a route as the messages they should be, where it goes to a topic.
pub(super) fn derived(
    topics: &mut Vec<Messages>,
    loaded: &Loaded,
    route: usize,
    rows: &RowBatch,
    at: impl Fn(u32) -> Option<At>,
) {
    let bound = &loaded.release.plan.routes[route];
    let (Binding::Ahead(cluster), Target::Kafka(topic)) = (&bound.binding, &bound.route.target)
    else {
        return;
    };
    let name = &bound.route.name;
    let same = |known: &Messages| {
        (&known.route, &known.topic, &known.cluster) == (name, &topic.topic, cluster)
    };
    let place = topics.iter().position(same).unwrap_or_else(|| {
        topics.push(Messages::new(name, &topic.topic, cluster));
        topics.len() - 1
    });
    let (mut source, mut index) = (u32::MAX, 0);
    for row in rows.iter() {
        index = if row.source == source { index + 1 } else { 0 };
        source = row.source;
        if let Some(at) = at(source) {
            topics[place].derived(Coordinates { at, index });
        }
    }
}

/// Reads the topics and compares.
pub(super) async fn compare(
    report: &mut Report,
    deriver: &mut Deriver<'_>,
    world: &Arc<World>,
    past: bool,
    keep: usize,
) -> Result<()> {
    for mut messages in std::mem::take(&mut deriver.topics) {
        let lossy = read(&mut messages, deriver, world, past, keep).await?;
        let missing = messages.finish(lossy, keep);
        let differ = |kind, coordinates: &Coordinates, detail: &str| Difference {
            kind,
            table: messages.topic.clone(),
            at: Some(coordinates.at),
            row: vec![
                ("route".to_owned(), messages.route.clone()),
                ("index".to_owned(), coordinates.index.to_string()),
            ],
            columns: Vec::new(),
            detail: detail.to_owned(),
        };
        let missing = missing.iter().map(|one| {
            differ(
                DifferenceKind::Missing,
                one,
                "no message has its coordinates",
            )
        });
        let extra = messages.extra.iter().map(|one| {
            differ(
                DifferenceKind::Extra,
                one,
                "its record makes no such message",
            )
        });
        let left = keep.saturating_sub(report.differences.len());
        report.differences.extend(missing.chain(extra).take(left));
        report.tables.push(TableReport {
            kind: "kafka",
            connection: messages.cluster.clone(),
            table: messages.topic.clone(),
            expected: messages.expected(),
            tally: messages.tally,
        });
    }
    Ok(())
}

/// Reads a topic to the end it has now; whether it drops messages by itself.
async fn read(
    messages: &mut Messages,
    deriver: &Deriver<'_>,
    world: &Arc<World>,
    past: bool,
    keep: usize,
) -> Result<bool> {
    let (world, cluster, topic) = (
        Arc::clone(world),
        messages.cluster.clone(),
        messages.topic.clone(),
    );
    let (send, mut receive) = tokio::sync::mpsc::channel::<Batch>(4);
    let reading = task::thread("verify-topic", move || {
        let (ranges, watermarks) = world.output_ranges(&cluster, &topic)?;
        let mut lossy = false;
        for (partition, (low, high)) in (0..).zip(watermarks) {
            let mut count = 0;
            ranges.read(partition, &(low..high), |batch| {
                count += i64::try_from(batch.len()).unwrap_or(i64::MAX);
                match send.blocking_send(batch) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                }
            })?;
            // Retention, or compaction.
            lossy |= low > 0 || count < high - low;
        }
        Ok(lossy)
    })?;
    while let Some(batch) = receive.recv().await {
        for record in batch.iter() {
            if let Some(coordinates) = coordinates(messages, deriver, record.headers) {
                let of = deriver.origin(coordinates.at, past);
                messages.found(coordinates, of, keep);
            }
        }
    }
    reading.join()?
}

/// Where a message comes from, if it is one of the route's.
fn coordinates(messages: &Messages, deriver: &Deriver<'_>, headers: &[u8]) -> Option<Coordinates> {
    let (mut from, mut writer) = (None, None);
    for header in Headers::new(headers).ok()? {
        match header.ok()? {
            (name, Some(value)) if name == COORDINATES.as_bytes() => from = Some(value),
            (name, Some(value)) if name == WRITER.as_bytes() => writer = Some(value),
            _ => {}
        }
    }
    let writer = std::str::from_utf8(writer?).ok()?;
    let of = format!("{}/{}/", deriver.pipeline(), messages.route);
    if !writer.starts_with(&of) {
        return None;
    }
    let from = std::str::from_utf8(from?).ok()?;
    from.strip_prefix(deriver.topic())
        .filter(|rest| rest.starts_with('/'))?;
    from.parse().ok()
}
