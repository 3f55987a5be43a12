//! What the servers of a plan say they keep when they crash, and what that takes away from what is promised there.

use std::collections::BTreeMap;

use crate::config::Config;
use crate::error::{Blame, Error};
use crate::kafka::{AnchorTopics, Content, KafkaSettings, TopicAsked};
use crate::manifest::Target;
use crate::pipeline::{AnchorPlan, Binding, Plan};
use crate::task;
use crate::{cassandra, kafka, postgres};

/// A database of a plan, or a topic.
#[derive(Clone, Debug)]
pub struct Durability {
    /// `postgres.NAME`, `cassandra.NAME`, `kafka.NAME` or `kafka.NAME topic TOPIC`.
    pub place: String,
    /// Settings as they are there, or why they are not known.
    pub settings: Result<Vec<(&'static str, String)>, Unread>,
    /// What they take away, each with what to do; empty where the promise holds as it is.
    pub takes_away: Vec<String>,
}

/// Settings that are not known.
#[derive(Clone, Debug)]
pub struct Unread {
    /// Why; nothing where nobody asked.
    pub why: Option<Error>,
    /// What has to hold there.
    pub needed: &'static str,
}

impl Unread {
    /// Whether nobody asked, or nobody answered: any other answer is one.
    #[must_use]
    pub fn is_away(&self) -> bool {
        let why = self.why.as_ref();
        why.is_none_or(|error| error.blame() == Blame::Outside)
    }
}

/// Whether servers are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Every database and cluster of a plan, once.
    Servers,
    /// Nobody.
    Nobody,
}

/// Asks the databases of each plan, in the plans' order.
///
/// # Errors
/// Only when no runtime can be started: a server that does not answer is part of the result.
pub fn durability(
    config: &Config,
    plans: &[Plan],
    ask: Ask,
) -> Result<Vec<Vec<Durability>>, Error> {
    task::block_on(async {
        // Plans share databases; one that is away is waited for once.
        let mut known = BTreeMap::new();
        let mut all = Vec::new();
        for plan in plans {
            let mut of_plan = Vec::new();
            for place in places(plan) {
                let key = (place, plan.writes_ahead());
                if !known.contains_key(&key) {
                    let found = read(config, &key.0, key.1, ask).await;
                    known.insert(key.clone(), found);
                }
                of_plan.extend(known.get(&key).into_iter().flatten().cloned());
            }
            all.push(of_plan);
        }
        Ok(all)
    })
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Postgres(String),
    Cassandra(String),
    /// Topics of a cluster.
    Kafka(String, Vec<TopicAsked>),
}

/// The databases and clusters of a plan, that of the position first.
fn places(plan: &Plan) -> Vec<Place> {
    let mut places = Vec::new();
    let mut topics: BTreeMap<String, Vec<TopicAsked>> = BTreeMap::new();
    match &plan.anchor {
        AnchorPlan::Postgres(name) => places.push(Place::Postgres(name.clone())),
        AnchorPlan::Cassandra(name) => places.push(Place::Cassandra(name.clone())),
        AnchorPlan::Kafka(name) => {
            let own = AnchorTopics::of(&plan.pipeline, &plan.input.topic);
            let asked = |topic, content| TopicAsked {
                topic,
                content,
                replication: None,
            };
            let all = topics.entry(name.clone()).or_default();
            all.push(asked(own.positions, Content::Positions));
            all.push(asked(own.dead_letters, Content::DeadLetters));
        }
        AnchorPlan::Memory => {}
    }
    for route in &plan.routes {
        let name = match (&route.binding, &plan.anchor) {
            (Binding::Ahead(name), _) | (Binding::Here, AnchorPlan::Kafka(name)) => name,
            _ => continue,
        };
        let place = Place::Cassandra(name.clone());
        match &route.route.target {
            Target::Kafka(topic) => {
                let all = topics.entry(name.clone()).or_default();
                if !all.iter().any(|known| known.topic == topic.topic) {
                    all.push(TopicAsked {
                        topic: topic.topic.clone(),
                        content: Content::Messages,
                        replication: topic.replication,
                    });
                }
            }
            _ if route.kind() == "cassandra" && !places.contains(&place) => places.push(place),
            _ => {}
        }
    }
    places.extend(
        topics
            .into_iter()
            .map(|(name, topics)| Place::Kafka(name, topics)),
    );
    places
}

/// What one place says: of a cluster a line for each topic.
async fn read(config: &Config, place: &Place, writes_ahead: bool, ask: Ask) -> Vec<Durability> {
    let (name, needed) = match place {
        Place::Postgres(name) => (format!("postgres.{name}"), postgres::NEEDED),
        Place::Cassandra(name) => (format!("cassandra.{name}"), cassandra::NEEDED),
        Place::Kafka(name, _) => (format!("kafka.{name}"), kafka::NEEDED),
    };
    let answer = match ask {
        Ask::Servers => asked(config, place, &name, writes_ahead)
            .await
            .map_err(Some),
        Ask::Nobody => Err(None),
    };
    answer.unwrap_or_else(|why| {
        vec![Durability {
            place: name,
            settings: Err(Unread { why, needed }),
            takes_away: Vec::new(),
        }]
    })
}

async fn asked(
    config: &Config,
    place: &Place,
    shown: &str,
    writes_ahead: bool,
) -> Result<Vec<Durability>, Error> {
    let missing = || Error::bug("find a database", "the plan names one the config lacks");
    let told = |place: String, settings, takes_away| Durability {
        place,
        settings: Ok(settings),
        takes_away,
    };
    Ok(match place {
        Place::Postgres(name) => {
            let connection = config.postgres.get(name).ok_or_else(missing)?;
            let keeps = postgres::keeps(connection, writes_ahead).await?;
            let taken = keeps.takes_away(writes_ahead);
            vec![told(shown.to_owned(), keeps.settings(), taken)]
        }
        Place::Cassandra(name) => {
            let connection = config.cassandra.get(name).ok_or_else(missing)?;
            let facts = cassandra::keeps(connection).await?;
            vec![told(shown.to_owned(), facts.settings(), facts.takes_away())]
        }
        Place::Kafka(name, topics) => {
            let cluster = config.kafka.get(name).ok_or_else(missing)?;
            let settings = KafkaSettings::new(cluster, "wasmill/explain");
            let all = kafka::keeps(&settings, topics).await?.into_iter();
            all.map(|one| {
                let place = format!("{shown} topic {}", one.asked.topic);
                told(place, one.settings(), one.takes_away())
            })
            .collect()
        }
    })
}
