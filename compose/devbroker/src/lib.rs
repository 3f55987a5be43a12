//! A Kafka-protocol broker in one process, in memory, for `wasmill demo`, `wasmill dev` and tests.
//!
//! It speaks enough of the protocol for unmodified librdkafka clients: topics with ids, idempotent produce, long-poll
//! fetch, consumer groups with static members, committed offsets and transactions. It starts in milliseconds, needs
//! nothing installed, and is gone with its records when it stops.
//!
//! It never listens on anything but loopback, never writes to disk, never replicates, never deletes by age or
//! size, and accepts topic configs without acting on them (no compaction, no retention). It is no substitute for
//! Kafka where durability, several brokers or Kafka's own quirks are the point of a test.
//!
//! ```
//! use wasmill_devbroker::{Broker, Options};
//!
//! let broker = Broker::start(Options::default())?;
//! broker.create_topic("orders", 4)?;
//! assert!(broker.bootstrap().starts_with("127.0.0.1:"));
//! assert_eq!(broker.log_end("orders", 0), Some(0));
//! broker.stop();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How it is built
//! ```text
//! Broker (handle, own thread) ── server (accept, frames) ── dispatch (versions, decode, encode) ── handlers
//!                                                                                                    │
//!            pure, no I/O, time passed in:  topics → log → sequence, batch    groups → group, offsets    transactions
//! ```
//! One lock guards all state; it is taken by handlers and by the handle's helpers, never across a wait.
//!
//! Limits: requests up to 100 MiB; 10,000 partitions a topic; array lengths inside a request are checked against its
//! size before anything is allocated for them. A request that cannot be understood closes its connection and is
//! logged. All else is bounded by memory only: what is produced stays until its topic is deleted or its start moves.

mod batch;
mod broker;
mod dispatch;
mod group;
mod groups;
mod guard;
mod handlers;
mod log;
mod offsets;
mod refused;
mod sequence;
mod server;
mod state;
mod topics;
mod transactions;

pub use broker::{Broker, Options};
pub use refused::Refused;
