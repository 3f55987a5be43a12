//! Test guest: imports an interface that no host of ours provides; it must be refused when it is loaded.
#[allow(
    unsafe_code,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
mod foreign;

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
    // Reached only on a host that wrongly links it.
    let random = foreign::wasi::random::random::get_random_u64();
    log::info!("{} {:?} {random}", rec.id, rec.mark);
    out.seen.write(&Seen { id: rec.id })
}
