//! What happens to a component before anything of it runs on a host: it is examined in a child process that
//! can be killed, its embedded fixtures are replayed, and its signature is checked.
//!
//! | file | owns |
//! |---|---|
//! | `checker` | [`Checker`]: the parent's side; starts the child, limits it, reads how it ended |
//! | `wire` | what parent and child tell each other |
//! | `confine` | the child's own limits, set before it reads a byte of the upload |
//! | `asks` | what a manifest asks for against what a host gives: limits, delivery |
//! | `examine` | the checks themselves, in their order |
//! | `report` | [`UploadReport`]: what the checks found |
//! | `signature` | [`verify`] and [`sign`]: ed25519 over the digest |
//! | `keys` | key files |
//!
//! Nothing here knows HTTP, the control log or a running pipeline. Tables, connections and bindings are not
//! looked at either: that is the plan's part, at deploy.

mod asks;
mod checker;
mod confine;
mod examine;
mod keys;
mod report;
mod signature;
mod wire;

pub(crate) use checker::STAGE;
pub use checker::{CheckLimits, Checker, MAX_COMPONENT, check};
pub use confine::confine;
pub use examine::examine;
pub use keys::{PublicKey, SecretKey};
pub use report::{
    ColumnReport, ConfigReport, FixtureRun, InputReport, LimitsReport, RouteReport, UploadReport,
};
pub use signature::{Signature, sign, verify};
pub use wire::{Answer, Parts, Request, WireCeilings};
