//! Test guest: what `versioned` writes, but every twentieth record traps: a canary that has to be noticed.

use wasmill_sdk::prelude::*;

#[path = "../../versioned/src/rows.rs"]
mod rows;

use rows::{Entry, Seen};

/// The version that wrote a row.
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[plugin(inputs(records: Entry), routes(log: Seen, copies: Seen))]
fn traps_sometimes(_: &Config, rec: Record<Entry<'_>>, out: &mut Out) -> Result {
    if rec.offset % 20 == 7 {
        std::process::abort();
    }
    let Some(row) = Seen::of(&rec, VERSION) else {
        return Ok(());
    };
    out.log.write(&row)?;
    out.copies.write(&row)
}
