//! Test guest: `mib = n` returns n MiB in rows of 64 KiB.

use wasmill_sdk::prelude::*;

/// Bytes of one row's payload.
const ROW: usize = 64 << 10;

#[derive(Fields)]
struct Wanted<'a> {
    #[field(from = "key")]
    id: &'a str,
    mib: i32,
}

#[derive(Row)]
struct Big<'a> {
    id: &'a str,
    payload: &'a [u8],
}

#[plugin(inputs(records: Wanted), routes(seen: Big))]
fn giant_output(_: &Config, rec: Record<Wanted<'_>>, out: &mut Out) -> Result {
    let payload = vec![b'x'; ROW];
    for _ in 0..rec.mib * 16 {
        out.seen.write(&Big {
            id: rec.id,
            payload: &payload,
        })?;
    }
    Ok(())
}
