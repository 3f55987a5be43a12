//! Whether the topic being read is still the one it was: asked at a slow interval, and at once when the
//! client reports it unknown.
//!
//! librdkafka follows a recreated topic without a word, and right after a creation or during an election a
//! broker may not know a topic that exists. So one error proves nothing: [`Identity`] asks, without ever
//! blocking the loop, and decides.

use std::time::{Duration, Instant};

use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;

use super::native::{Describe, Described};
use crate::error::Error;

/// Between questions when all is well.
const INTERVAL: Duration = Duration::from_secs(10);
/// Between questions while in doubt.
const DOUBT_INTERVAL: Duration = Duration::from_millis(500);
/// How long a topic may be unknown before that is believed.
const DOUBT: Duration = Duration::from_secs(5);
/// How long a broker may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// The same where something else says already that it may not.
const SOON: Duration = Duration::from_secs(2);

/// What is known of the topic's identity.
#[derive(Debug)]
pub(super) struct Identity {
    topic: String,
    expected: Option<String>,
    asked: Option<Describe>,
    next: Instant,
    /// Whether brokers may be away: an answer is wanted sooner.
    hurry: bool,
    /// Whether a broker answered the last question; taken by who wants to know.
    heard: Option<Result<(), RDKafkaErrorCode>>,
    /// Since when the topic, or a partition of it, has been unknown, and what said so.
    doubt: Option<(Instant, RDKafkaErrorCode)>,
}

impl Identity {
    /// `expected`: the identity the positions belong to; without one the first answer sets it.
    pub(super) fn new(topic: &str, expected: Option<String>) -> Self {
        Self {
            topic: topic.to_owned(),
            expected,
            asked: None,
            next: Instant::now(),
            hurry: false,
            heard: None,
            doubt: None,
        }
    }

    /// A handle says the topic or one of its partitions is unknown.
    pub(super) fn doubt(&mut self, code: RDKafkaErrorCode) {
        if self.doubt.is_none() {
            let now = Instant::now();
            self.doubt = Some((now, code));
            self.next = now;
        }
    }

    /// A handle says that a broker does not answer. One of many may be away, or a connection was closed: only the
    /// question tells whether any does.
    pub(super) fn hurry(&mut self) {
        if !self.hurry {
            self.hurry = true;
            self.next = self.next.min(Instant::now() + DOUBT_INTERVAL);
        }
    }

    /// Whether a broker answered, where that became known since the last call.
    pub(super) fn heard(&mut self) -> Option<Result<(), RDKafkaErrorCode>> {
        self.heard.take()
    }

    /// Takes the question back: its client is about to go.
    pub(super) fn withdraw(&mut self) {
        self.asked = None;
        self.next = Instant::now();
    }

    /// Asks when it is time and looks at an answer that has come; never waits. `highest` is the highest
    /// partition being fetched.
    ///
    /// # Errors
    /// `Config`: the topic is another one, or gone for longer than an election takes.
    pub(super) fn tick<C: ClientContext>(
        &mut self,
        client: &Client<C>,
        highest: Option<i32>,
    ) -> Result<(), Error> {
        if let Some(asked) = &self.asked {
            let Some(answer) = asked.answer(Duration::ZERO) else {
                return Ok(());
            };
            self.asked = None;
            let silent = answer.as_ref().err().filter(|code| is_silence(**code));
            self.hurry = silent.is_some();
            self.heard = Some(silent.map_or(Ok(()), |code| Err(*code)));
            return self.judge(answer, highest, Instant::now());
        }
        if Instant::now() >= self.next {
            let limit = if self.hurry { SOON } else { ANSWER };
            self.asked = Describe::ask(client, &self.topic, limit);
            self.next = Instant::now() + INTERVAL;
        }
        Ok(())
    }

    fn judge(
        &mut self,
        answer: Result<Described, RDKafkaErrorCode>,
        highest: Option<i32>,
        now: Instant,
    ) -> Result<(), Error> {
        let code = match answer {
            Ok(described) => {
                if let (Some(expected), Some(found)) = (&self.expected, &described.id)
                    && expected != found
                {
                    return Err(self.recreated(expected, found));
                }
                self.expected = self.expected.take().or(described.id);
                let fits = highest
                    .and_then(|highest| usize::try_from(highest).ok())
                    .is_none_or(|highest| highest < described.partitions);
                if fits {
                    self.doubt = None;
                    self.next = now + INTERVAL;
                    return Ok(());
                }
                RDKafkaErrorCode::UnknownPartition
            }
            Err(code) if is_unknown(code) => code,
            Err(code) => {
                tracing::debug!(topic = self.topic, error = %code, "cannot ask for the topic's identity");
                // No answer is no proof: the doubt begins anew when the broker is back.
                self.doubt = self.doubt.map(|(_, first)| (now, first));
                self.next = now + DOUBT_INTERVAL;
                return Ok(());
            }
        };
        let (since, _) = *self.doubt.get_or_insert((now, code));
        if now.duration_since(since) >= DOUBT {
            return Err(self.gone(code));
        }
        self.next = now + DOUBT_INTERVAL;
        Ok(())
    }

    fn recreated(&self, expected: &str, found: &str) -> Error {
        Error::config(
            format!("data loss: topic {:?}", self.topic),
            format!("it was deleted and created again: its id was {expected}, now it is {found}"),
        )
        .hint(
            "the positions belong to the old topic, nothing of the new one was skipped; give the pipeline a new name, \
             or set its positions on purpose",
        )
    }

    fn gone(&self, code: RDKafkaErrorCode) -> Error {
        let what = format!("consume topic {:?}", self.topic);
        match code {
            RDKafkaErrorCode::UnknownPartition => {
                Error::config(what, "it has fewer partitions than the pipeline has positions for")
                    .hint("the topic was created again with fewer partitions: give the pipeline a new name, or set its positions on purpose")
            }
            _ => Error::config(what, code)
                .hint("create the topic first, or bind the input to the right one"),
        }
    }
}

/// Whether a code says that a topic or a partition does not exist.
pub(super) fn is_unknown(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition
    )
}

/// Whether a code says that no broker answered.
fn is_silence(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::RequestTimedOut
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::Resolve
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn found(id: Option<&str>, partitions: usize) -> Result<Described, RDKafkaErrorCode> {
        Ok(Described {
            id: id.map(str::to_owned),
            partitions,
        })
    }

    const UNKNOWN: Result<Described, RDKafkaErrorCode> =
        Err(RDKafkaErrorCode::UnknownTopicOrPartition);

    #[test]
    fn the_first_answer_sets_the_identity_and_another_one_stops() {
        let now = Instant::now();
        let mut identity = Identity::new("orders", None);
        identity.judge(found(None, 2), Some(1), now).unwrap();
        identity.judge(found(Some("one"), 2), Some(1), now).unwrap();
        identity.judge(found(Some("one"), 2), Some(1), now).unwrap();
        // A broker that tells none proves nothing.
        identity.judge(found(None, 2), Some(1), now).unwrap();
        let error = identity
            .judge(found(Some("two"), 2), Some(1), now)
            .unwrap_err();
        assert!(
            error.to_string().starts_with("data loss: topic \"orders\""),
            "{error}"
        );
        let mut identity = Identity::new("orders", Some("stored".to_owned()));
        identity
            .judge(found(Some("one"), 2), None, now)
            .unwrap_err();
    }

    #[test]
    fn an_unknown_topic_is_believed_after_a_while() {
        let now = Instant::now();
        let mut identity = Identity::new("orders", None);
        identity.judge(UNKNOWN, None, now).unwrap();
        identity.judge(UNKNOWN, None, now + DOUBT / 2).unwrap();
        identity
            .judge(found(None, 1), None, now + DOUBT / 2)
            .unwrap();
        identity.judge(UNKNOWN, None, now + DOUBT).unwrap();
        // A broker that is away does not count against the topic.
        let away = Err(RDKafkaErrorCode::BrokerTransportFailure);
        identity.judge(away, None, now + DOUBT * 2).unwrap();
        identity.judge(UNKNOWN, None, now + DOUBT * 2).unwrap();
        let error = identity.judge(UNKNOWN, None, now + DOUBT * 3).unwrap_err();
        assert!(error.hint_text().unwrap().contains("create the topic"));
    }

    #[test]
    fn only_silence_is_taken_for_brokers_that_are_away() {
        assert!(is_silence(RDKafkaErrorCode::OperationTimedOut));
        assert!(is_silence(RDKafkaErrorCode::BrokerTransportFailure));
        for answer in [
            RDKafkaErrorCode::UnknownTopicOrPartition,
            RDKafkaErrorCode::TopicAuthorizationFailed,
            RDKafkaErrorCode::UnsupportedVersion,
        ] {
            assert!(!is_silence(answer), "{answer}: somebody said so");
        }
    }

    #[test]
    fn fewer_partitions_than_are_read_stop() {
        let now = Instant::now();
        let mut identity = Identity::new("orders", None);
        identity.judge(found(None, 2), Some(2), now).unwrap();
        let error = identity
            .judge(found(None, 2), Some(2), now + DOUBT)
            .unwrap_err();
        assert!(error.to_string().contains("fewer partitions"), "{error}");
    }
}
