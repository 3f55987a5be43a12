//! The protocols of delivery, explored exhaustively: every interleaving of a few workers, requests and faults. Each
//! model is safe as it is built, and each rule is also taken away, to see the exploration find what it prevents.
//!
//! [`explore`] searches; `wire`, `workers` and `epochs` are what states are made of; every other module is one protocol
//! and what was found out about it.

mod company;
mod epochs;
pub(crate) mod explore;
mod letters;
mod lightweight;
mod mixed;
mod mutation;
mod owned;
mod pinning;
mod state;
mod transaction;
mod wire;
mod workers;
