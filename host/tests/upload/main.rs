//! Uploads against the real checking process: files that are no plugin, that lie, that are made to hurt the
//! compiler; fixtures, the cache, and what a host keeps of it.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod cache;
mod fixtures;
mod hostile;
mod limits;
mod made;
mod measure;
mod refused;
mod signed;
