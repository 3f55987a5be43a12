//! Test guest on the bare interface: it describes a column of int32 and writes text into it, and describes itself
//! differently when asked a second time.
#![cfg(target_arch = "wasm32")]

use std::sync::atomic::{AtomicU32, Ordering};

use bindings::exports::wasmill::plugin::describe::Guest as Describe;
use bindings::exports::wasmill::plugin::transform::{Batch, Failure, Guest as Transform, Output};
use bindings::wasmill::plugin::types::Rows;
use wasmill_sdk::__guest::bindings;

static ASKED: AtomicU32 = AtomicU32::new(0);

struct Liar;

bindings::export_component!(Liar with_types_in bindings);

impl Describe for Liar {
    fn describe() -> String {
        let ty = if ASKED.fetch_add(1, Ordering::Relaxed) == 0 {
            "int32"
        } else {
            "text"
        };
        [
            r#"{"sdk":"rust 0.1.0","inputs":[{"name":"records","fields":[],"raw":false,"headers":false}],"#,
            r#""routes":[{"name":"seen","columns":[{"name":"id","type":""#,
            ty,
            r#"","nullable":false}]}],"config":[]}"#,
        ]
        .concat()
    }
}

impl Transform for Liar {
    fn init(_setup: Vec<u8>) -> Result<(), String> {
        Ok(())
    }

    fn run(batch: Batch) -> Result<Output, Failure> {
        let mut rows = Rows {
            cells: Vec::new(),
            ends: Vec::new(),
            sources: Vec::new(),
            routes: Vec::new(),
            ops: Vec::new(),
            times: Vec::new(),
        };
        for (source, _) in (0_u32..).zip(&batch.offsets) {
            rows.cells.extend_from_slice(b"\0\0\0\x05words");
            rows.ends
                .push(u32::try_from(rows.cells.len()).unwrap_or(u32::MAX));
            rows.sources.push(source);
        }
        Ok(Output {
            rows,
            rejects: Vec::new(),
        })
    }
}
