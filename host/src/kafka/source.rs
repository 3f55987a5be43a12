//! The Kafka source: one thread, two handles. It serves the group through [`Membership`], reads through
//! [`Fetching`] from the positions it is told, and watches the topic's [`Identity`]. Nothing here waits longer
//! than one round, except a revocation for the lanes that have to finish.

use std::sync::mpsc as blocking;
use std::time::{Duration, Instant};

use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use tokio::sync::mpsc;

use super::advice::Advice;
use super::fetching::Fetching;
use super::identity::{Identity, is_unknown};
use super::logs::Logs;
use super::membership::Membership;
use super::native::FetchQueue;
use super::ownerless::{self, Lookout};
use super::{KafkaSettings, client_error};
use crate::config::Membership as MembershipMode;
use crate::error::{Blame, Error};
use crate::source::{Source, SourceCommand, SourceEvent};

/// How long a round waits for a first message: also how late a command is seen when nothing comes.
const WAIT: Duration = Duration::from_millis(10);
/// How much longer than the session a fenced member stays away: what it may have left behind is forgotten then.
const AWAY: Duration = Duration::from_secs(1);
/// Between advisory commits.
const ADVISE: Duration = Duration::from_secs(1);
/// How long partitions may be on their way from one member to another: as long as lanes may take to end.
const HANDED_OVER: Duration = Duration::from_secs(12);

/// What a Kafka source needs to know.
#[derive(Clone, Debug)]
pub struct KafkaSourceSettings {
    /// The cluster.
    pub kafka: KafkaSettings,
    /// The topic.
    pub topic: String,
    /// The consumer group.
    pub group: String,
    /// Said with every offset that is committed to the group: which anchor holds the position.
    pub mark: String,
    /// Static instance id (`pipeline/host.id`), used when membership is static.
    pub instance: String,
    /// How to join.
    pub membership: MembershipMode,
    /// Whether records carry headers.
    pub headers: bool,
    /// Largest record fetched in one piece is bounded by the broker; this bounds what waits in memory, KiB.
    pub queued_kbytes: u32,
}

/// See the module.
#[derive(Debug)]
pub struct KafkaSource {
    settings: KafkaSourceSettings,
    topic_id: Option<String>,
}

impl KafkaSource {
    /// A source; connects when run.
    #[must_use]
    pub fn new(settings: KafkaSourceSettings) -> Self {
        Self {
            settings,
            topic_id: None,
        }
    }

    /// The identity the stored positions belong to. Without it the source takes the first it finds, and a
    /// topic recreated between the look-up of positions and then goes unnoticed.
    #[must_use]
    pub fn expect_topic(mut self, id: Option<String>) -> Self {
        self.topic_id = id;
        self
    }

    fn membership(
        &self,
        events: mpsc::UnboundedSender<SourceEvent>,
    ) -> Result<Membership, KafkaError> {
        let mut config = self.settings.kafka.client_config();
        let session = self.settings.kafka.session_timeout.as_millis();
        config
            .set("group.id", &self.settings.group)
            .set("session.timeout.ms", session.to_string())
            .set(
                "heartbeat.interval.ms",
                (session / 6).clamp(100, 3000).to_string(),
            )
            .set("max.poll.interval.ms", session.max(300_000).to_string())
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // This handle never fetches: its partitions are paused, its queues hold one message.
            .set("auto.offset.reset", "latest")
            .set("queued.min.messages", "1")
            .set("queued.max.messages.kbytes", "1")
            .set("fetch.message.max.bytes", "1024");
        if self.settings.membership == MembershipMode::Static {
            config.set("group.instance.id", &self.settings.instance);
        }
        let Self { settings, .. } = self;
        Membership::new(&config, &settings.topic, &settings.mark, events)
    }

    fn lookout(&self) -> Lookout {
        match self.settings.membership {
            MembershipMode::Static => {
                Lookout::new((self.settings.kafka.session_timeout / 2).min(HANDED_OVER))
            }
            // One that ends has left, or the group shares out when its session has ended.
            MembershipMode::Dynamic => Lookout::none(),
        }
    }

    fn fetch(&self) -> Result<FetchQueue, KafkaError> {
        let consumer: BaseConsumer<Logs> = self
            .settings
            .kafka
            .client_config()
            // Wanted by librdkafka for manual assignment. This handle never joins and never commits; the same
            // name as the member's, so that an operator has to grant one group only.
            .set("group.id", &self.settings.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("check.crcs", "true")
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.wait.max.ms", "100")
            .set(
                "queued.max.messages.kbytes",
                self.settings.queued_kbytes.to_string(),
            )
            .create_with_context(Logs)?;
        Ok(FetchQueue::new(consumer, self.settings.headers))
    }
}

impl Source for KafkaSource {
    fn run(
        self: Box<Self>,
        events: mpsc::UnboundedSender<SourceEvent>,
        commands: blocking::Receiver<SourceCommand>,
    ) -> Result<(), Error> {
        let KafkaSourceSettings { topic, group, .. } = &self.settings;
        let what = format!("consume topic {topic:?} as group {group:?}");
        let failed = |error: KafkaError| client_error(&what, &error);
        let membership = self.membership(events.clone()).map_err(failed)?;
        membership.join().map_err(failed)?;
        let fetch = self.fetch().map_err(failed)?;
        let mut running = Running {
            identity: Identity::new(&self.settings.topic, self.topic_id.clone()),
            fetching: Fetching::new(&self.settings.topic, fetch, events.clone()),
            membership,
            lookout: self.lookout(),
            away: None,
            silent: false,
            events,
            advice: Advice::default(),
            what,
            source: *self,
        };
        let mut committed_at = Instant::now();
        loop {
            running.serve_group()?;
            loop {
                match commands.try_recv() {
                    // A supervisor that is gone wants nothing any more.
                    Ok(SourceCommand::Shutdown) | Err(blocking::TryRecvError::Disconnected) => {
                        running.leave();
                        return Ok(());
                    }
                    Ok(command) => running.command(command)?,
                    Err(blocking::TryRecvError::Empty) => break,
                }
            }
            running.read()?;
            if committed_at.elapsed() >= ADVISE {
                running.advise();
                running.look_around()?;
                committed_at = Instant::now();
            }
        }
    }
}

/// A source at work. Fields are dropped in this order: the question and the fetch handle before the member
/// leaves its group.
struct Running {
    identity: Identity,
    fetching: Fetching,
    membership: Membership,
    lookout: Lookout,
    /// Since when, and why, this member is not in the group.
    away: Option<(Instant, Error)>,
    /// Whether it was told that no broker answers.
    silent: bool,
    events: mpsc::UnboundedSender<SourceEvent>,
    advice: Advice,
    what: String,
    source: KafkaSource,
}

impl Running {
    /// Serves callbacks and errors of the group. What was taken away is not fetched any more, whatever the
    /// supervisor makes of it.
    fn serve_group(&mut self) -> Result<(), Error> {
        if let Some(error) = self.membership.poll(Duration::ZERO) {
            self.group_error(&error)?;
        }
        for partition in self.membership.gone() {
            self.fetching.stop(partition);
        }
        match self.membership.fatal() {
            None => self.come_back(),
            Some(error) if self.membership.is_fenced() => self.stay_away(error),
            Some(error) => Err(error),
        }
    }

    /// Leaves the group without being asked. If nobody else has this host's id, what fenced it was its own shadow, and
    /// that is known once its session has ended.
    fn stay_away(&mut self, error: Error) -> Result<(), Error> {
        tracing::warn!(topic = self.source.settings.topic, %error, "fenced from the group; looking whether it was another host");
        let fresh = self.source.membership(self.events.clone());
        let fresh = fresh.map_err(|failed| client_error(&self.what, &failed))?;
        self.identity.withdraw();
        let lost = std::mem::replace(&mut self.membership, fresh).abandon();
        for partition in &lost {
            self.fetching.stop(*partition);
        }
        self.events.send(SourceEvent::Lost(lost)).ok();
        self.advice.withdraw();
        self.lookout = self.source.lookout();
        self.away = Some((Instant::now(), error));
        Ok(())
    }

    /// Joins again after having been fenced, unless another host has this host's id.
    fn come_back(&mut self) -> Result<(), Error> {
        let settings = &self.source.settings;
        let Some((since, error)) = &self.away else {
            return Ok(());
        };
        if since.elapsed() < settings.kafka.session_timeout + AWAY {
            return Ok(());
        }
        match self
            .membership
            .is_taken(&settings.group, &settings.instance)
        {
            Ok(true) => return Err(error.clone()),
            Ok(false) => {}
            // the coordinator is away: ask again later
            Err(_) => {
                self.away = Some((Instant::now(), error.clone()));
                return Ok(());
            }
        }
        self.away = None;
        let joined = self.membership.join();
        joined.map_err(|failed| client_error(&self.what, &failed))
    }

    /// Looks, soon after having joined, whether partitions belong to nobody.
    fn look_around(&mut self) -> Result<(), Error> {
        let settings = &self.source.settings;
        let is_member = self.away.is_none() && self.membership.is_member();
        if !(self.lookout).has_found(is_member, || ownerless::ask(settings)) {
            return Ok(());
        }
        tracing::warn!(
            topic = settings.topic,
            "partitions belong to no member of the group, joining it anew"
        );
        let joined = self.membership.join_anew();
        joined.map_err(|failed| client_error(&self.what, &failed))
    }

    fn group_error(&mut self, error: &KafkaError) -> Result<(), Error> {
        if let Some(code) = error.rdkafka_error_code().filter(|code| is_unknown(*code)) {
            self.identity.doubt(code);
            return Ok(());
        }
        let error = client_error(&self.what, error);
        if error.blame() != Blame::Outside {
            return Err(error);
        }
        self.fetching.report(None, error);
        Ok(())
    }

    fn command(&mut self, command: SourceCommand) -> Result<(), Error> {
        match command {
            SourceCommand::Start {
                partition,
                position,
                inlet,
            } => {
                if !self.membership.holds(partition) {
                    // Taken away while the command was under way; dropping the inlet ends the lane.
                    return Ok(());
                }
                self.advice.hear(partition, position);
                self.fetching
                    .start(partition, position, inlet)
                    .map_err(|error| client_error(&self.what, &error))?;
            }
            SourceCommand::Stop { partition } => self.fetching.stop(partition),
            SourceCommand::Advise {
                partition,
                position,
                taken,
            } => {
                if position >= 0 {
                    self.advice.hear(partition, position);
                }
                if let Some(taken) = taken {
                    match self.advice.known(partition) {
                        Some(position) => self.membership.ask(partition, position, taken),
                        // Never started here: not ours.
                        None => drop(taken.send(false)),
                    }
                }
            }
            SourceCommand::Shutdown => {}
        }
        Ok(())
    }

    fn read(&mut self) -> Result<(), Error> {
        if let Some(code) = self.fetching.round(WAIT)? {
            self.identity.doubt(code);
        }
        if self.fetching.was_amiss() {
            self.identity.hurry();
        }
        self.identity
            .tick(self.membership.client(), self.fetching.highest())?;
        self.tell_whether_brokers_answer();
        Ok(())
    }

    fn tell_whether_brokers_answer(&mut self) {
        let answer = match self.identity.heard() {
            Some(Err(code)) => {
                self.silent = true;
                Err(Error::outside(&self.what, code).hint(
                    "see whether the brokers run and are reached at the addresses they advertise",
                ))
            }
            Some(Ok(())) if std::mem::take(&mut self.silent) => Ok(()),
            _ => return,
        };
        self.events.send(SourceEvent::Brokers(answer)).ok();
    }

    fn advise(&mut self) {
        // Of what was taken away, the next owner tells.
        let due = self
            .advice
            .due(|partition| self.membership.holds(partition));
        if !due.is_empty() {
            self.membership.commit(&due);
        }
    }

    fn leave(mut self) {
        // The last word too; where nobody hears it, the client would wait for an answer as long as its session.
        if self.membership.reaches() {
            self.advise();
        }
        drop((self.identity, self.fetching));
        self.membership.leave();
    }
}
