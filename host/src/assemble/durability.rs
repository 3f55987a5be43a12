//! What the servers of a plan say they keep when they crash, and what that takes away from what is promised there.

use std::collections::BTreeMap;

use crate::config::Config;
use crate::error::Error;
use crate::pipeline::{AnchorPlan, Binding, Plan};
use crate::task;
use crate::{cassandra, postgres};

/// A database of a plan.
#[derive(Clone, Debug)]
pub struct Durability {
    /// `postgres.NAME` or `cassandra.NAME`.
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

/// Whether servers are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Every database of a plan, once.
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
                of_plan.extend(known.get(&key).cloned());
            }
            all.push(of_plan);
        }
        Ok(all)
    })
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Database {
    Postgres(String),
    Cassandra(String),
}

/// The databases of a plan, that of the position first.
fn places(plan: &Plan) -> Vec<Database> {
    let anchor = match &plan.anchor {
        AnchorPlan::Postgres(name) => Some(Database::Postgres(name.clone())),
        AnchorPlan::Cassandra(name) => Some(Database::Cassandra(name.clone())),
        AnchorPlan::Kafka(_) | AnchorPlan::Memory => None,
    };
    let mut places: Vec<_> = anchor.into_iter().collect();
    for route in &plan.routes {
        if let (Binding::Ahead(name), "cassandra") = (&route.binding, route.kind()) {
            let place = Database::Cassandra(name.clone());
            if !places.contains(&place) {
                places.push(place);
            }
        }
    }
    places
}

async fn read(config: &Config, database: &Database, writes_ahead: bool, ask: Ask) -> Durability {
    type Answer = (Vec<(&'static str, String)>, Vec<String>);
    let missing = || Error::bug("find a database", "the plan names one the config lacks");
    let (place, needed) = match database {
        Database::Postgres(name) => (format!("postgres.{name}"), postgres::NEEDED),
        Database::Cassandra(name) => (format!("cassandra.{name}"), cassandra::NEEDED),
    };
    let asked = async || -> Result<Answer, Error> {
        match database {
            Database::Postgres(name) => {
                let connection = config.postgres.get(name).ok_or_else(missing)?;
                let keeps = postgres::keeps(connection, writes_ahead).await?;
                Ok((keeps.settings(), keeps.takes_away(writes_ahead)))
            }
            Database::Cassandra(name) => {
                let connection = config.cassandra.get(name).ok_or_else(missing)?;
                let facts = cassandra::keeps(connection).await?;
                Ok((facts.settings(), facts.takes_away()))
            }
        }
    };
    let answer = match ask {
        Ask::Servers => asked().await.map_err(Some),
        Ask::Nobody => Err(None),
    };
    let (settings, takes_away) = match answer {
        Ok((settings, takes_away)) => (Ok(settings), takes_away),
        Err(why) => (Err(Unread { why, needed }), Vec::new()),
    };
    Durability {
        place,
        settings,
        takes_away,
    }
}
