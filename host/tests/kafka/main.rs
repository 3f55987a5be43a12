//! The Kafka source against the development broker and a real Kafka: what a pipeline relies on, seen from a
//! supervisor's side. Nothing here looks inside the source.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and a skipped test says so aloud"
)]

mod control;
mod delivery;
mod failures;
mod harness;
mod membership;
mod real;
mod records;
mod sink;
mod speed;
mod transactions;
