//! Any bytes against every type: no panic, and what is accepted reads to its end.
//! `cargo +nightly fuzz run cells` in `host/`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wasmill::record::Type;
use wasmill::record::cells::{Items, check};

const TYPES: [&str; 20] = [
    "boolean",
    "int16",
    "int32",
    "int64",
    "float32",
    "float64",
    "text",
    "json",
    "bytes",
    "uuid",
    "timestamp",
    "date",
    "time",
    "decimal(38,0)",
    "decimal(9,4)",
    "list<text>",
    "set<int16>",
    "map<text,json>",
    "list<map<text,set<decimal(3,1)>>>",
    "headers",
];

fuzz_target!(|data: &[u8]| {
    for ty in TYPES {
        let ty: Type = ty.parse().expect("a type of the list");
        if check(&ty, data).is_ok()
            && matches!(
                ty,
                Type::List(_) | Type::Set(_) | Type::Map(..) | Type::Headers
            )
        {
            Items::new(data).for_each(drop);
        }
    }
});
