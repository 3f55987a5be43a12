//! The Postgres adapter against a real server: each test starts its own and throws it away.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(
    clippy::large_futures,
    reason = "tests hold whole scenarios in one future"
)]

mod catalog;
mod company;
mod contract;
mod cost;
mod deleted;
mod failures;
mod faults;
mod keyed;
mod letters;
mod pin;
mod pooled;
mod raise;
mod retried;
mod support;
mod traps;
mod types;
