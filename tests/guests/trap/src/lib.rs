//! Test guest: `mark = "trap"` traps, `mark = "panic"` panics with a message (which reaches the log first).
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
    match rec.mark {
        Some("trap") => std::process::abort(),
        Some("panic") => panic!("record {} asked for it", rec.id),
        _ => out.seen.write(&Seen { id: rec.id }),
    }
}
