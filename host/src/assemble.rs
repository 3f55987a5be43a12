//! The composition root: the only module that names concrete adapters. It turns a checked config and the control
//! log into running pipelines; nothing else decides which broker, engine or database stands behind a contract.
//!
//! [`Host`] follows the control log: one `running` task a pipeline does what its deployment says. [`plans`] opens
//! only files; [`durability`] asks the databases of a plan what they keep, [`fits`] compares its tables and topics.

mod boot;
mod canaries;
mod control_thread;
mod durability;
mod fit;
mod host;
mod hub;
mod jobs;
mod load;
mod log;
mod operate;
mod plans;
mod progress;
mod publish;
mod releases;
mod retries;
mod running;
mod seen;
mod servers;
mod starts;
mod verify;
mod world;

pub use durability::{Ask, Durability, durability};
pub use fit::{Fit, fits};
pub use host::Host;
pub use load::load;
pub use plans::plans;
pub use verify::{VerifyOptions, VerifyProgress, VerifyStep, verify};
