//! Test guest: one record in five becomes a row that says which version wrote it; every record's bytes are hashed.
//!
//! Its version is patched into the built component (`tests/src/versions.rs`), so that a hundred versions cost one
//! build: the text below has a length of its own and is read through [`black_box`], or the optimiser would spread its
//! bytes over instructions.

use std::hint::black_box;

use wasmill_sdk::prelude::*;

mod rows;

use rows::{Entry, Seen};

/// The version that wrote a row.
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[plugin(inputs(records: Entry), routes(log: Seen, copies: Seen))]
fn versioned(_: &Config, rec: Record<Entry<'_>>, out: &mut Out) -> Result {
    let Some(row) = Seen::of(&rec, black_box(VERSION)) else {
        return Ok(());
    };
    out.log.write(&row)?;
    out.copies.write(&row)
}
