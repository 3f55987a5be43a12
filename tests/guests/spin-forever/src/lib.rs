//! Test guest: `mark = "spin"` never returns.
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
    while rec.mark == Some("spin") {
        std::hint::black_box(rec.id);
    }
    out.seen.write(&Seen { id: rec.id })
}
