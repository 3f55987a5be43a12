//! The operator's file of a host, checked.
//!
//! [`Config`] is the checked form and the only one `assemble` accepts. The raw TOML and the diagnostics live
//! in this module's private files. The environment is read here and nowhere else.
//!
//! * [`Config::load`] reads a file with this process's environment; [`Config::check`] is its pure core;
//! * [`Config::bind`] joins a pipeline's bindings with the names its plugin has.

mod bind;
mod check;
mod connections;
mod control;
mod environment;
mod http;
mod pipelines;
mod signing;
mod types;

pub use bind::{Bindings, ConnectionKind};
pub use check::{Surroundings, UrlCheck};
pub use control::ControlConfig;
pub use environment::{LoadError, look_of_stderr};
pub use http::{HttpConfig, HttpLimits, Role, TlsFiles, TokenConfig, TokenHash};
pub use types::{
    CassandraConnection, Ceilings, Config, HostConfig, InputBinding, KafkaCluster, Membership,
    PipelineConfig, PluginSource, PostgresConnection, RouteBinding, Secret, SigningRule,
};
