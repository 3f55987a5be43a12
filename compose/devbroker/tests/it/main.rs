//! The broker against unmodified librdkafka: every promise of the crate that a client can see.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod clients;
mod describe;
mod faults;
mod groups;
mod records;
mod topics;
mod transactions;
mod wire;
