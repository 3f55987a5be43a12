//! The composition root: the only module that names concrete adapters. It turns a checked config into
//! running pipelines and nothing else decides which broker, engine or database stands behind a contract.
//!
//! [`plans`] opens only files; [`Host::start`] runs everything a config names until it is told to stop.

mod host;
mod load;
mod world;

pub use host::Host;
pub use load::{Loaded, load, plans};
