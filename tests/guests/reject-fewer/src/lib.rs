//! Test guest: `reject-some` mended: a record whose `mark` is `reject` is a row, any other mark has to be a number.
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
    if let Some(text) = rec.mark.filter(|mark| *mark != "reject") {
        let _: i64 = text.parse()?;
    }
    out.seen.write(&Seen { id: rec.id })
}
