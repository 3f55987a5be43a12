//! [`Servers`]: what the pipelines of a host share of the servers around them: a catalog of topics for each Kafka
//! cluster and a producer where routes write there, a look at tables for each Postgres database. Nothing is connected before a pipeline asks.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::kafka::{Catalog, KafkaSettings, Producers};
use crate::postgres::Tables;

/// The servers of a config, by the names it gives them.
#[derive(Debug)]
pub(super) struct Servers {
    pub(super) config: Arc<Config>,
    catalogs: BTreeMap<String, Catalog>,
    tables: BTreeMap<String, Tables>,
    /// What all routes to Kafka are written through.
    pub(super) producers: Producers,
}

impl Servers {
    pub(super) fn new(config: &Arc<Config>) -> Self {
        let client = format!("wasmill/catalog/{}", config.host.id);
        let catalog = |cluster| Catalog::new(KafkaSettings::new(cluster, &client));
        let catalogs = config.kafka.iter();
        let tables = config.postgres.keys();
        Self {
            config: Arc::clone(config),
            catalogs: catalogs
                .map(|(name, cluster)| (name.clone(), catalog(cluster)))
                .collect(),
            tables: tables
                .map(|name| (name.clone(), Tables::default()))
                .collect(),
            producers: Producers::default(),
        }
    }

    /// Topics of a cluster.
    pub(super) fn catalog(&self, kafka: &str) -> Result<&Catalog> {
        self.catalogs.get(kafka).ok_or_else(|| {
            Error::bug(
                "find a kafka cluster",
                "the plan names one the config lacks",
            )
        })
    }

    /// Tables of a database.
    pub(super) fn tables(&self, postgres: &str) -> Result<&Tables> {
        self.tables.get(postgres).ok_or_else(|| {
            Error::bug(
                "find a postgres connection",
                "the plan names one the config lacks",
            )
        })
    }
}
