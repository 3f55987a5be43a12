//! Test guest: `mark = "fatal"` says that no record can be processed.
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
    if rec.mark == Some("fatal") {
        return Err(Error::fatal("the record says that nothing can go on"));
    }
    out.seen.write(&Seen { id: rec.id })
}
