//! Test guest for guarded routes: a record is the word about its key at a time of its own, or says that it is gone since.

use wasmill_sdk::prelude::*;

#[derive(Fields)]
struct Entry<'a> {
    #[field(from = "key")]
    id: &'a str,
    at: i64,
    text: Option<&'a str>,
}

/// A delete says the guard as well.
#[derive(Row)]
struct Newest<'a> {
    #[row(key)]
    id: &'a str,
    #[row(key)]
    at: i64,
    text: &'a str,
}

#[plugin(inputs(records: Entry), routes(newest: Newest))]
fn kept(_: &Config, rec: Record<Entry<'_>>, out: &mut Out) -> Result {
    match rec.text {
        Some(text) => out.newest.write(&Newest {
            id: rec.id,
            at: rec.at,
            text,
        }),
        None => out.newest.delete(Newest::key(rec.id, rec.at)),
    }
}
