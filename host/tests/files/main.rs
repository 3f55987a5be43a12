//! The two files people write, `plugin.toml` and `wasmill.toml`: what the checker says about good ones and
//! bad ones, word for word, and that no text or component makes it panic.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod golden;
mod hostile;
