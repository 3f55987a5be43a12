//! The operator's file of a host, checked.
//!
//! [`Config`] is the checked form and the only one `assemble` accepts. The raw TOML and the diagnostics live
//! in this module's private files. The environment is read here and nowhere else.

mod types;

pub use types::{
    CassandraConnection, Ceilings, Config, HostConfig, InputBinding, KafkaCluster, Membership,
    PipelineConfig, PostgresConnection, RouteBinding, Secret,
};
