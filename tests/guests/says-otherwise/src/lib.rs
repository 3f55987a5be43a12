//! Test guest: what `versioned` writes, but one row in ten has another hash: a shadow has to say which.

use wasmill_sdk::prelude::*;

#[path = "../../versioned/src/rows.rs"]
mod rows;

use rows::{Entry, Seen};

/// The version that wrote a row.
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[plugin(inputs(records: Entry), routes(log: Seen, copies: Seen))]
fn says_otherwise(_: &Config, rec: Record<Entry<'_>>, out: &mut Out) -> Result {
    let Some(mut row) = Seen::of(&rec, VERSION) else {
        return Ok(());
    };
    if rec.offset % 50 == 0 {
        row.hash = -row.hash;
    }
    out.log.write(&row)?;
    out.copies.write(&row)
}
