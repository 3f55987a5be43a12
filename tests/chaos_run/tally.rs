//! Which faults were tried, which were seen to have happened, and how long it took until all was well again.

use std::collections::BTreeMap;
use std::time::Duration;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    /// SIGKILL of a host that had moved a position within the second before; it is started again at once, or soon.
    Kill,
    /// The same; it is left dead until another host has its partitions.
    Takeover,
    /// SIGKILL of a host while a server is away.
    KillBeside,
    /// SIGTERM of a host, and its start.
    Drain,
    /// A host frozen until another has its partitions, then thawed: it has to find out, or to be told by the fence.
    Zombie,
    /// A third host comes and goes.
    Storm,
    /// Another version, or the one before, and a host killed meanwhile.
    Swap,
    /// Records that cannot be anything but dead letters.
    Dead,
    /// The broker killed and started again.
    Broker,
    /// The broker frozen.
    BrokerFrozen,
    /// Postgres stopped as `-m immediate` does, and started again.
    Postgres,
    /// Postgres frozen.
    PostgresFrozen,
    /// The sessions of hosts in Postgres terminated.
    Sessions,
    /// Cassandra killed and started again.
    Cassandra,
    /// Cassandra frozen.
    CassandraFrozen,
    /// All connections of a link closed.
    LinkClosed,
    /// A link that delays.
    LinkSlow,
    /// A link on which nothing moves until it heals.
    LinkStalled,
    /// A link that swallows both directions.
    LinkDead,
    /// A link that swallows answers.
    LinkHalfOpen,
    /// A flight held on its way until its host is dead and another goes on, then let go: the fence has to refuse it.
    Late,
}

impl Trouble {
    /// For the report.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Kill => "host: SIGKILL, started again",
            Self::Takeover => "host: SIGKILL, left dead until another has its partitions",
            Self::KillBeside => "host: SIGKILL while a server is away",
            Self::Drain => "host: SIGTERM, started again",
            Self::Zombie => "host: frozen until another had its partitions, thawed",
            Self::Storm => "group: a third host comes and goes",
            Self::Swap => "version: deployed or rolled back while a host is killed",
            Self::Dead => "records: nothing but dead letters can be made of them",
            Self::Broker => "Kafka: SIGKILL, started again",
            Self::BrokerFrozen => "Kafka: frozen",
            Self::Postgres => "Postgres: stopped at once (`-m immediate`), started again",
            Self::PostgresFrozen => "Postgres: frozen",
            Self::Sessions => "Postgres: sessions of hosts terminated",
            Self::Cassandra => "Cassandra: SIGKILL, started again",
            Self::CassandraFrozen => "Cassandra: frozen",
            Self::LinkClosed => "link: all connections closed",
            Self::LinkSlow => "link: delayed",
            Self::LinkStalled => "link: stalled, then all arrives at once",
            Self::LinkDead => "link: swallows everything",
            Self::LinkHalfOpen => "link: swallows the answers",
            Self::Late => "link: a flight arrives after its sender's death and is fenced (WM001)",
        }
    }
}

/// How often a kind was tried and seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Count {
    pub(crate) tried: u32,
    pub(crate) observed: u32,
    /// From its end until every partition had gone on; from the kill where a host was killed.
    pub(crate) recovered: Vec<Duration>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(pub(crate) BTreeMap<Trouble, Count>);

impl Tally {
    /// Adds one.
    pub(crate) fn add(&mut self, trouble: Trouble, observed: bool, recovered: Option<Duration>) {
        let count = self.0.entry(trouble).or_default();
        count.tried += 1;
        count.observed += u32::from(observed);
        count.recovered.extend(recovered);
    }

    /// How often a kind was seen.
    pub(crate) fn observed(&self, trouble: Trouble) -> u32 {
        self.0.get(&trouble).map_or(0, |count| count.observed)
    }

    /// Kills of hosts while records flowed.
    pub(crate) fn kills(&self) -> u32 {
        [Trouble::Kill, Trouble::Takeover, Trouble::Swap]
            .map(|trouble| self.observed(trouble))
            .iter()
            .sum()
    }

    /// Kinds that were seen.
    pub(crate) fn kinds(&self) -> usize {
        self.0.values().filter(|count| count.observed > 0).count()
    }
}

/// Half are below, and the greatest.
pub(crate) fn median_and_worst(times: &[Duration]) -> Option<(Duration, Duration)> {
    wasmill_tests::swaps::median_and_max(times)
}
