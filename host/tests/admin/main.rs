//! The HTTP API before a host in memory, driven over real sockets: what it answers, whom it lets in, and what
//! hostile clients can not do to it.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod access;
mod answers;
mod client;
mod dead_letters;
mod document;
mod early;
mod fake;
mod hostile;
mod starting;
mod uploads;
