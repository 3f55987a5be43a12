//! Test guest: every record becomes one row of source references; no payload enters or leaves the guest.

use wasmill_sdk::prelude::*;

#[derive(Row)]
struct Copied {
    key: SourceKey<String>,
    value: SourceValue,
    at: SourceTimestamp,
}

#[plugin(inputs(records: ()), routes(copied: Copied))]
fn identity(_: &Config, _: Record<()>, out: &mut Out) -> Result {
    out.copied.write(&Copied {
        key: SourceKey::new(),
        value: SourceValue::new(),
        at: SourceTimestamp,
    })
}
