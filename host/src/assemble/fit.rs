//! The live tables and topics of plans against their routes, for people. It creates and changes nothing, and asks only
//! servers that have answered already.

use super::durability::Durability;
use super::world::{look_outside, postgres_route};
use crate::config::Config;
use crate::error::{Blame, Error};
use crate::manifest::Target;
use crate::pipeline::{AnchorPlan, Binding, Plan};
use crate::{postgres, task};

/// What a look at the table or topic of a route found.
#[derive(Clone, Debug)]
pub enum Fit {
    /// It takes what the route writes, or is made when the pipeline starts.
    Fits,
    /// It is missing or differs: what is promised there does not hold as it is. The hint repairs it.
    Differs(Error),
    /// Nobody could look, and why, where somebody tried.
    Unknown(Option<Error>),
    /// The route writes nowhere.
    Nowhere,
}

/// Looks at the table or topic of every route of each plan, in the plans' and the routes' order. A server that was not
/// asked for its settings, or did not answer (`databases`, of each plan), is left alone.
///
/// # Errors
/// Only when no runtime can be started.
pub fn fits(
    config: &Config,
    plans: &[Plan],
    databases: &[Vec<Durability>],
) -> Result<Vec<Vec<Fit>>, Error> {
    task::block_on(async {
        let mut all = Vec::with_capacity(plans.len());
        for (plan, databases) in plans.iter().zip(databases) {
            let mut of_plan = Vec::with_capacity(plan.routes.len());
            for index in 0..plan.routes.len() {
                of_plan.push(fit(config, plan, index, databases).await);
            }
            all.push(of_plan);
        }
        Ok(all)
    })
}

async fn fit(config: &Config, plan: &Plan, index: usize, databases: &[Durability]) -> Fit {
    let bound = &plan.routes[index];
    let name = match (&bound.binding, &plan.anchor) {
        (Binding::Discard, _) | (Binding::Here, AnchorPlan::Memory) => return Fit::Nowhere,
        (Binding::Ahead(name), _) => name,
        (
            Binding::Here,
            AnchorPlan::Postgres(name) | AnchorPlan::Cassandra(name) | AnchorPlan::Kafka(name),
        ) => name,
    };
    if is_away(databases, &format!("{}.{name}", bound.kind())) {
        return Fit::Unknown(None);
    }
    let looked = match &bound.route.target {
        Target::Postgres(table) => match (
            config.postgres.get(name),
            postgres_route(index, bound, table),
        ) {
            (Some(database), Ok(route)) => postgres::look_at_table(database, &route).await,
            (_, Err(error)) => Err(error),
            (None, _) => Err(Error::bug(
                "find a database",
                "the plan names one the config lacks",
            )),
        },
        Target::Cassandra(_) | Target::Kafka(_) => look_outside(config, plan, index, name).await,
    };
    match looked {
        Ok(()) => Fit::Fits,
        Err(error) if error.blame() == Blame::Outside => Fit::Unknown(Some(error)),
        Err(error) => Fit::Differs(error),
    }
}

/// Whether a database or cluster was not asked, or did not answer.
fn is_away(databases: &[Durability], place: &str) -> bool {
    databases.iter().any(|one| match &one.settings {
        Err(unread) => one.place == place && unread.is_away(),
        Ok(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::super::durability::Unread;
    use super::*;

    #[test]
    fn a_server_is_left_alone_when_it_was_not_asked_or_did_not_answer() {
        let unread = |why| Durability {
            place: "postgres.main".to_owned(),
            settings: Err(Unread { why, needed: "" }),
            takes_away: Vec::new(),
        };
        let away = |why| is_away(&[unread(why)], "postgres.main");
        assert!(away(None));
        assert!(away(Some(Error::outside("connect", "refused"))));
        // It answered: what else is wrong there is worth a look.
        assert!(!away(Some(Error::config("read settings", "denied"))));
        assert!(!is_away(&[unread(None)], "postgres.other"));
    }
}
