//! Test guest: a record with `rows = n` becomes n rows, numbered.

use wasmill_sdk::prelude::*;

#[derive(Fields)]
struct Wanted<'a> {
    #[field(from = "key")]
    id: &'a str,
    rows: i32,
}

#[derive(Row)]
struct Numbered<'a> {
    id: &'a str,
    number: i32,
}

#[plugin(inputs(records: Wanted), routes(seen: Numbered))]
fn fanout(_: &Config, rec: Record<Wanted<'_>>, out: &mut Out) -> Result {
    for number in 0..rec.rows {
        out.seen.write(&Numbered { id: rec.id, number })?;
    }
    Ok(())
}
