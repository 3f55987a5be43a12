//! Test guest: `mark = "hog"` allocates until it is refused and traps; `mark = "grow"` keeps 40 MiB and goes on,
//! which is below the default limit and past the default recycle mark.
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

/// Takes and touches bytes for good.
fn take(bytes: usize) {
    std::mem::forget(std::hint::black_box(vec![1_u8; bytes]));
}

#[plugin(inputs(records: Marked), routes(seen: Seen))]
fn run(_: &Config, rec: Record<Marked<'_>>, out: &mut Out) -> Result {
    match rec.mark {
        Some("hog") => loop {
            take(1 << 20);
        },
        Some("grow") => take(40 << 20),
        _ => {}
    }
    out.seen.write(&Seen { id: rec.id })
}
