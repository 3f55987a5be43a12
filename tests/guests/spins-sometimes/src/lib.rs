//! Test guest: what `versioned` writes, but one record of each partition never ends: whoever kills the host while it
//! runs makes it a record that kills the host.

use wasmill_sdk::prelude::*;

#[path = "../../versioned/src/rows.rs"]
mod rows;

use rows::{Entry, Seen};

/// The version that wrote a row.
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[plugin(inputs(records: Entry), routes(log: Seen, copies: Seen))]
fn spins_sometimes(_: &Config, rec: Record<Entry<'_>>, out: &mut Out) -> Result {
    while rec.offset == 250 {
        std::hint::black_box(rec.offset);
    }
    let Some(row) = Seen::of(&rec, VERSION) else {
        return Ok(());
    };
    out.log.write(&row)?;
    out.copies.write(&row)
}
