//! Test guest: writes a row, then rejects the record when `mark` is `reject`; the row must not be seen.
use wasmill_sdk::prelude::*;

#[derive(Fields)]
struct Marked<'a> {
    #[field(from = "key")]
    id: &'a str,
    mark: Option<&'a str>,
}

#[derive(Row)]
struct Seen<'a> {
    id: &'a str,
}

#[plugin(inputs(records: Marked), routes(seen: Seen))]
fn run(_: &Config, rec: Record<Marked<'_>>, out: &mut Out) -> Result {
    out.seen.write(&Seen { id: rec.id })?;
    match rec.mark {
        Some("reject") => Err(reject("marked", "the record says so")),
        Some(text) => {
            // Any standard error rejects: a mark is a number or `reject`.
            let _: i64 = text.parse()?;
            Ok(())
        }
        None => Ok(()),
    }
}
