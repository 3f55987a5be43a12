//! Where a pipeline starts: decided once, from what the anchor stores and what the topic holds, never
//! guessed. Pure.

use crate::anchor::{Cut, Stored};
use crate::error::Error;
use crate::manifest::Start;
use crate::source::TopicInfo;

/// Positions to store before the first fetch, each with the release that begins there: all partitions of a new pipeline, the added ones of a known
/// pipeline, none when everything is in place.
///
/// # Errors
/// A data-loss stop: the topic was recreated, a position lies outside the log, or one is missing in between.
pub(super) fn seeds(
    topic: &str,
    stored: &[Stored],
    info: &TopicInfo,
    start: Start,
    first: impl Fn(i32, i64) -> Cut,
) -> Result<Vec<Stored>, Error> {
    let number =
        |partition: usize| i32::try_from(partition).expect("partitions are counted in i32");
    let seed = |partition: usize, next: i64| Stored {
        partition: number(partition),
        next,
        cuts: vec![first(number(partition), next)],
        topic_id: info.id.clone(),
    };
    if stored.is_empty() {
        return Ok(info
            .watermarks
            .iter()
            .enumerate()
            .map(|(partition, (low, high))| match start {
                Start::Earliest => seed(partition, *low),
                Start::Latest => seed(partition, *high),
            })
            .collect());
    }
    let known = stored.iter().map(|s| s.partition + 1).max().unwrap_or(0);
    for (partition, (low, high)) in info.watermarks.iter().enumerate() {
        let Some(position) = stored.iter().find(|s| s.partition == number(partition)) else {
            if number(partition) < known {
                return Err(loss(
                    topic,
                    number(partition),
                    "the anchor holds no position for it although it holds later ones".to_owned(),
                ));
            }
            continue;
        };
        check_identity(topic, position, info)?;
        if position.next < *low {
            return Err(loss(
                topic,
                number(partition),
                format!(
                    "position {} is below the log start {low}: {} records are gone",
                    position.next,
                    low - position.next
                ),
            ));
        }
        if position.next > *high {
            return Err(loss(
                topic,
                number(partition),
                format!("position {} is past the log end {high}", position.next),
            ));
        }
    }
    if usize::try_from(known).unwrap_or(usize::MAX) > info.watermarks.len() {
        return Err(loss(
            topic,
            known - 1,
            format!("the topic has only {} partitions", info.watermarks.len()),
        ));
    }
    // Partitions added since the deploy start at 0: nothing was ever skipped in them.
    Ok((usize::try_from(known).unwrap_or(0)..info.watermarks.len())
        .map(|partition| seed(partition, 0))
        .collect())
}

/// First positions of the partitions that a topic gained since its pipeline was deployed; which release they belong to
/// is decided when they are claimed.
///
/// # Errors
/// As when a pipeline starts: a data-loss stop; also for a pipeline that has no position at all.
pub fn added(topic: &str, stored: &[Stored], info: &TopicInfo) -> Result<Vec<Stored>, Error> {
    if stored.is_empty() {
        return Err(Error::config(
            format!("find the positions of topic {topic:?}"),
            "the pipeline has none: it never ran",
        )
        .hint("start it: a new pipeline needs nothing raised"));
    }
    let mut added = seeds(topic, stored, info, Start::Earliest, |_, _| Cut::new(0, ""))?;
    added.iter_mut().for_each(|stored| stored.cuts.clear());
    Ok(added)
}

/// Refuses to go on with a topic that gained partitions while a route depends on the order within one.
///
/// Keys move between partitions then, and write times are chained within a partition only: a moved key's rows
/// could carry lower times than those its old partition wrote, and the sink would drop them without a word.
///
/// # Errors
/// `Config`, naming the route, when there are stored positions and new ones to add.
pub(super) fn refuse_growth(
    topic: &str,
    stored: &[Stored],
    seeds: &[Stored],
    route: Option<&str>,
) -> Result<(), Error> {
    let Some(route) = route.filter(|_| !stored.is_empty() && !seeds.is_empty()) else {
        return Ok(());
    };
    Err(Error::config(
        format!("start on topic {topic:?}"),
        format!(
            "it has {} partitions more than when the pipeline was deployed, and route {route:?} writes to Cassandra \
             with times that are ordered within one partition",
            seeds.len()
        ),
    )
    .hint(
        "run `wasmill position raise PIPELINE`, then `wasmill resume PIPELINE`: rows of keys that moved win over what was \
         written before; or, if order between partitions does not matter, rebuild the plugin with \
         cross_partition_keys = true on that route",
    ))
}

fn check_identity(topic: &str, position: &Stored, info: &TopicInfo) -> Result<(), Error> {
    match (&position.topic_id, &info.id) {
        (Some(stored), Some(now)) if stored != now => Err(loss(
            topic,
            position.partition,
            format!("the topic was recreated: its id is {now}, the position belongs to {stored}"),
        )),
        _ => Ok(()),
    }
}

fn loss(topic: &str, partition: i32, detail: String) -> Error {
    Error::config(format!("data loss: {topic} partition {partition}"), detail).hint(
        "nothing was skipped and nothing will be: find out what happened to the topic or the anchor, then set the \
         position on purpose or give the pipeline a new name",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn info(id: &str, watermarks: &[(i64, i64)]) -> TopicInfo {
        TopicInfo {
            id: Some(id.to_owned()),
            watermarks: watermarks.to_vec(),
        }
    }

    fn first(partition: i32, next: i64) -> Cut {
        Cut::new(next, format!("r{partition}"))
    }

    fn stored(partition: i32, next: i64) -> Stored {
        Stored {
            partition,
            next,
            cuts: Vec::new(),
            topic_id: Some("a".to_owned()),
        }
    }

    #[test]
    fn a_new_pipeline_starts_where_it_says() {
        let info = info("a", &[(5, 9), (0, 0)]);
        let at = |start| -> Vec<i64> {
            seeds("t", &[], &info, start, first)
                .unwrap()
                .iter()
                .map(|s| s.next)
                .collect()
        };
        assert_eq!(at(Start::Earliest), [5, 0]);
        assert_eq!(at(Start::Latest), [9, 0]);
    }

    #[test]
    fn a_known_pipeline_goes_on_and_added_partitions_start_at_zero() {
        let seeded = seeds(
            "t",
            &[stored(0, 7)],
            &info("a", &[(5, 9), (0, 3)]),
            Start::Latest,
            first,
        )
        .unwrap();
        assert_eq!(
            seeded,
            [Stored {
                partition: 1,
                next: 0,
                cuts: vec![Cut::new(0, "r1".to_owned())],
                topic_id: Some("a".into())
            }]
        );
    }

    #[test]
    fn a_grown_topic_stops_where_write_times_decide() {
        let (old, new) = ([stored(0, 7)], [stored(1, 0)]);
        let error = refuse_growth("t", &old, &new, Some("by_airport")).unwrap_err();
        assert!(error.to_string().contains("1 partitions more"), "{error}");
        assert!(error.to_string().contains("by_airport"), "{error}");
        assert!(refuse_growth("t", &old, &new, None).is_ok());
        assert!(refuse_growth("t", &[], &new, Some("by_airport")).is_ok());
        assert!(refuse_growth("t", &old, &[], Some("by_airport")).is_ok());
    }

    #[test]
    fn what_a_topic_gained_is_added_and_nothing_is_guessed() {
        let grown = info("a", &[(0, 9), (0, 3), (0, 0)]);
        let added = |stored: &[Stored], info| super::added("t", stored, info);
        let new: Vec<_> = added(&[stored(0, 7)], &grown)
            .unwrap()
            .iter()
            .map(|s| (s.partition, s.next, s.cuts.len()))
            .collect();
        assert_eq!(new, [(1, 0, 0), (2, 0, 0)]);
        assert!(added(&[], &grown).is_err(), "never ran");
        assert!(added(&[stored(0, 10)], &grown).is_err(), "a loss");
        assert_eq!(added(&[stored(0, 7)], &info("a", &[(0, 9)])).unwrap(), []);
    }

    #[test]
    fn loss_is_never_papered_over() {
        let check = |stored: &[Stored], info: &TopicInfo| {
            seeds("t", stored, info, Start::Earliest, first)
                .unwrap_err()
                .to_string()
        };
        assert!(check(&[stored(0, 4)], &info("a", &[(5, 9)])).contains("1 records are gone"));
        assert!(check(&[stored(0, 10)], &info("a", &[(5, 9)])).contains("past the log end 9"));
        assert!(check(&[stored(0, 7)], &info("b", &[(5, 9)])).contains("recreated"));
        assert!(
            check(&[stored(1, 0)], &info("a", &[(0, 0), (0, 0)])).contains("holds no position")
        );
        assert!(check(&[stored(0, 0), stored(1, 0)], &info("a", &[(0, 0)])).contains("only 1"));
    }
}
