//! The one integration binary: a folder an area, see README.md.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod chaos;
mod contract;
mod layering;
mod scenario;
mod uploads;
