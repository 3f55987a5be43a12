//! Partitions that belong to nobody, although the group has members.
//!
//! A cooperative group shares out in two turns: an older member gives partitions up, and joins again so that they are
//! given to their new owner. If it ends in between and is static, its successor takes its place without another turn
//! (KIP-345), and what was given up belongs to nobody until a member comes or goes. So every static member looks after
//! it has joined, and makes the group share out again where that is so: whoever left such partitions behind is always
//! one that has just joined, or its session ends.

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::groups::GroupInfo;

use super::logs::Logs;
use super::source::KafkaSourceSettings;
use crate::task;

/// How long the cluster may take for each of two answers.
const ANSWER: Duration = Duration::from_secs(5);

/// Whether there are some, `None` where it could not be told.
pub(super) type Answer = mpsc::Receiver<Option<bool>>;

/// When to look: twice, since partitions on their way from one member to another belong to nobody for a moment.
#[derive(Debug)]
pub(super) struct Lookout {
    pause: Duration,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Before a look; since when this has been a member, as far as was looked.
    Waits { since: Option<Instant>, again: bool },
    /// Somebody was asked.
    Asked { answer: Answer, again: bool },
    /// Seen, and acted on where there were some twice: a second time would not help.
    Over,
}

impl Lookout {
    /// Looks `pause` after having joined, and once more as long after that.
    pub(super) fn new(pause: Duration) -> Self {
        let state = State::Waits {
            since: None,
            again: false,
        };
        Self { pause, state }
    }

    /// Never looks.
    pub(super) fn none() -> Self {
        Self {
            pause: Duration::ZERO,
            state: State::Over,
        }
    }

    /// Whether the group has to share out again; to be called now and then by somebody who `is_member` or not. Does
    /// not block. What cannot be told is asked again, ever more rarely.
    pub(super) fn has_found(&mut self, is_member: bool, ask: impl FnOnce() -> Answer) -> bool {
        let waits = |since, again| State::Waits { since, again };
        let (state, found) = match &mut self.state {
            State::Over => return false,
            State::Waits { .. } | State::Asked { .. } if !is_member => (waits(None, false), false),
            State::Waits { since, again } => {
                if since.get_or_insert_with(Instant::now).elapsed() < self.pause {
                    return false;
                }
                let (answer, again) = (ask(), *again);
                (State::Asked { answer, again }, false)
            }
            State::Asked { answer, again } => match (answer.try_recv(), *again) {
                (Err(mpsc::TryRecvError::Empty), _) => return false,
                (Ok(Some(true)), true) => (State::Over, true),
                (Ok(Some(true)), false) => (waits(Some(Instant::now()), true), false),
                (Ok(Some(false)), _) => (State::Over, false),
                (Ok(None) | Err(mpsc::TryRecvError::Disconnected), _) => {
                    self.pause *= 2;
                    (waits(None, false), false)
                }
            },
        };
        self.state = state;
        found
    }
}

/// Asks the cluster, on a thread of its own: where a broker is away, that takes its time.
pub(super) fn ask(settings: &KafkaSourceSettings) -> Answer {
    let (told, answer) = mpsc::channel();
    let config = settings.kafka.client_config();
    let (group, topic) = (settings.group.clone(), settings.topic.clone());
    let asks = move || {
        let client = config.create_with_context(Logs);
        let some = client.and_then(|client| are_some(&client, &group, &topic));
        told.send(some.unwrap_or(None)).ok();
    };
    // No thread is no answer.
    task::aside("ownerless", asks);
    answer
}

/// Whether partitions of the topic belong to no member of the group; `None` while it shares out, or where members say
/// what they hold in a way not known here. Blocks.
fn are_some(
    client: &BaseConsumer<Logs>,
    group: &str,
    topic: &str,
) -> Result<Option<bool>, KafkaError> {
    let metadata = client.fetch_metadata(Some(topic), ANSWER)?;
    let Some(found) = metadata.topics().first() else {
        return Ok(None);
    };
    let groups = client.fetch_group_list(Some(group), ANSWER)?;
    let mut stable = groups
        .groups()
        .iter()
        .filter(|group| group.state() == "Stable");
    let owned = stable.next().and_then(|group| owned(group, topic));
    Ok(owned.map(|owned| {
        let mut partitions = found.partitions().iter();
        partitions.any(|partition| !owned.contains(&partition.id()))
    }))
}

fn owned(group: &GroupInfo, topic: &str) -> Option<BTreeSet<i32>> {
    let mut all = BTreeSet::new();
    for member in group.members() {
        all.extend(assigned(member.assignment().unwrap_or_default(), topic)?);
    }
    Some(all)
}

/// Partitions of the topic in an assignment of the consumer protocol; `None`: it is none. Empty: a member that got none.
fn assigned(mut bytes: &[u8], topic: &str) -> Option<Vec<i32>> {
    let mut found = Vec::new();
    if bytes.is_empty() {
        return Some(found);
    }
    let _version = i16::from_be_bytes(take(&mut bytes)?);
    for _ in 0..i32::from_be_bytes(take(&mut bytes)?) {
        let length = usize::try_from(i16::from_be_bytes(take(&mut bytes)?)).ok()?;
        let name;
        (name, bytes) = bytes.split_at_checked(length)?;
        for _ in 0..i32::from_be_bytes(take(&mut bytes)?) {
            let partition = i32::from_be_bytes(take(&mut bytes)?);
            if name == topic.as_bytes() {
                found.push(partition);
            }
        }
    }
    Some(found)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use std::thread;

    use super::*;

    fn says(some: Option<bool>) -> Answer {
        let (told, answer) = mpsc::channel();
        told.send(some).unwrap();
        answer
    }

    /// What a lookout that does not wait makes of answers; it must ask for each.
    fn hears(lookout: &mut Lookout, answers: &[Option<bool>]) -> Vec<bool> {
        let found = |answer: &Option<bool>| {
            let mut asked = false;
            assert!(!lookout.has_found(true, || {
                asked = true;
                says(*answer)
            }));
            assert!(asked);
            lookout.has_found(true, || unreachable!("it has an answer"))
        };
        answers.iter().map(found).collect()
    }

    fn is_over(lookout: &mut Lookout) -> bool {
        !lookout.has_found(true, || unreachable!("it asks again"))
    }

    #[test]
    fn only_what_is_seen_twice_is_acted_on_and_once() {
        let mut lookout = Lookout::new(Duration::ZERO);
        let answers = [Some(true), None, Some(true), Some(true)];
        assert_eq!(hears(&mut lookout, &answers), [false, false, false, true]);
        assert!(is_over(&mut lookout));
        // On their way.
        let mut lookout = Lookout::new(Duration::ZERO);
        let answers = [Some(true), Some(false)];
        assert_eq!(hears(&mut lookout, &answers), [false, false]);
        assert!(is_over(&mut lookout));
        assert!(is_over(&mut Lookout::none()));
    }

    #[test]
    fn it_looks_a_while_after_it_joined_and_ever_more_rarely_where_nothing_is_told() {
        let never = Duration::from_secs(3600);
        let asks = |lookout: &mut Lookout, is_member| {
            let mut asked = false;
            assert!(!lookout.has_found(is_member, || {
                asked = true;
                says(None)
            }));
            asked
        };
        assert!(!asks(&mut Lookout::new(never), true));
        let mut lookout = Lookout::new(Duration::ZERO);
        assert!(!asks(&mut lookout, false));
        // What was seen before it was a member no more does not count.
        assert_eq!(hears(&mut lookout, &[Some(true)]), [false]);
        assert!(!asks(&mut lookout, false));
        assert_eq!(
            hears(&mut lookout, &[Some(true), Some(true)]),
            [false, true]
        );
        let mut lookout = Lookout::new(Duration::from_millis(1));
        thread::sleep(Duration::from_millis(1));
        assert!(!asks(&mut lookout, true));
        thread::sleep(Duration::from_millis(1));
        assert!(asks(&mut lookout, true));
        assert!(!asks(&mut lookout, true));
        assert_eq!(lookout.pause, Duration::from_millis(2));
    }

    #[test]
    fn an_assignment_is_read_and_anything_else_is_none() {
        let mut bytes = vec![0, 1, 0, 0, 0, 2];
        for (name, partitions) in [("other", vec![7]), ("topic", vec![0, 300])] {
            bytes.extend([0, 5]);
            bytes.extend(name.as_bytes());
            bytes.extend([0, 0, 0, u8::try_from(partitions.len()).unwrap()]);
            bytes.extend(partitions.iter().flat_map(|one: &i32| one.to_be_bytes()));
        }
        assert_eq!(assigned(&bytes, "topic"), Some(vec![0, 300]));
        assert_eq!(assigned(&bytes, "other"), Some(vec![7]));
        assert_eq!(assigned(&bytes, "none"), Some(vec![]));
        for cut in 1..bytes.len() {
            assert_eq!(assigned(&bytes[..cut], "topic"), None, "{cut}");
        }
        assert_eq!(assigned(&[], "topic"), Some(vec![]));
        // What members say may be counted with the rest: user data.
        bytes.extend([0, 0, 0, 0]);
        assert_eq!(assigned(&bytes, "topic"), Some(vec![0, 300]));
        assert_eq!(assigned(&[0, 1, 0, 0, 0, 1, 255, 255], "topic"), None);
    }
}
