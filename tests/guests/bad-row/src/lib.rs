//! Test guest on the bare interface: a batch's rows are malformed in the way that a record's `mark` names.
//!
//! Plugin faults: `ends` (an end past the cells), `ends-descending`, `cells-after` (bytes after the last row),
//! `counts` (fewer sources than rows), `route` (unknown), `routes-short`, `op` (unknown), `source` (past the batch),
//! `sources-descending`, `times-short`, `reject-source` (past the batch), `reject-code` (not `[a-z0-9-]{1,32}`),
//! `reject-and-row`, `reject-descending`.
//! Rows that do not fit (`row-refused`): `type` (a number of 3 bytes), `few` (a cell too few), `many` (a cell too many),
//! `reserved` (length code −9), `null` (null in a column that is not nullable), `not-utf8`, `cell-past` (a cell longer
//! than its row), `delete-without-key`. `retry` fails as only lookups may.
#![cfg(target_arch = "wasm32")]

use bindings::exports::wasmill::plugin::describe::Guest as Describe;
use bindings::exports::wasmill::plugin::transform::{Batch, Failure, Guest as Transform, Output};
use bindings::wasmill::plugin::types::{Reject, Rows};
use wasmill_sdk::__guest::bindings;

struct BadRow;

bindings::export_component!(BadRow with_types_in bindings);

impl Describe for BadRow {
    fn describe() -> String {
        concat!(
            r#"{"sdk":"rust 0.1.0","inputs":[{"name":"records","fields":["#,
            r#"{"name":"id","type":"text","nullable":false,"from":"key"},"#,
            r#"{"name":"mark","type":"text","nullable":true,"from":"value:/mark"}],"raw":false,"headers":false}],"#,
            r#""routes":[{"name":"seen","columns":[{"name":"id","type":"text","nullable":false},"#,
            r#"{"name":"number","type":"int64","nullable":false}]}],"config":[]}"#,
        )
        .to_owned()
    }
}

impl Transform for BadRow {
    fn init(_setup: Vec<u8>) -> Result<(), String> {
        Ok(())
    }

    fn run(batch: Batch) -> Result<Output, Failure> {
        let mut marks = Vec::new();
        let mut rows = Rows {
            cells: Vec::new(),
            ends: Vec::new(),
            sources: Vec::new(),
            routes: Vec::new(),
            ops: Vec::new(),
            times: Vec::new(),
        };
        let mut start = 0;
        for (source, end) in (0_u32..).zip(&batch.field_ends) {
            let cells = &batch.fields[start..*end as usize];
            start = *end as usize;
            let (id, rest) = cell(cells);
            let mark = String::from_utf8_lossy(cell(rest).0).into_owned();
            row(&mut rows, id, &mark);
            rows.ends
                .push(u32::try_from(rows.cells.len()).unwrap_or(u32::MAX));
            rows.sources.push(source);
            marks.push(mark);
        }
        let mut output = Output {
            rows,
            rejects: Vec::new(),
        };
        for (source, mark) in (0_u32..).zip(&marks) {
            if mark == "retry" {
                return Err(Failure::Retry("later, perhaps".to_owned()));
            }
            spoil(&mut output, source, mark);
        }
        Ok(output)
    }
}

/// The first cell's bytes, and what follows.
fn cell(cells: &[u8]) -> (&[u8], &[u8]) {
    let Some((length, rest)) = cells.split_first_chunk::<4>() else {
        return (&[], &[]);
    };
    let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
    rest.split_at_checked(length).unwrap_or((rest, &[]))
}

fn put(cells: &mut Vec<u8>, length: i32, value: &[u8]) {
    cells.extend_from_slice(&length.to_be_bytes());
    cells.extend_from_slice(value);
}

/// One row's cells, right or wrong by themselves.
fn row(rows: &mut Rows, id: &[u8], mark: &str) {
    let cells = &mut rows.cells;
    match mark {
        "not-utf8" => put(cells, 1, &[0xff]),
        "delete-without-key" => put(cells, -2, &[]),
        _ => put(cells, i32::try_from(id.len()).unwrap_or(0), id),
    }
    match mark {
        "type" => put(cells, 3, b"abc"),
        "few" => {}
        "reserved" => put(cells, -9, &[]),
        "null" => put(cells, -1, &[]),
        "cell-past" => put(cells, 1000, &7_i64.to_be_bytes()),
        _ => put(cells, 8, &7_i64.to_be_bytes()),
    }
    if mark == "many" {
        put(cells, -1, &[]);
    }
}

/// Spoils the lists around the rows.
fn spoil(output: &mut Output, source: u32, mark: &str) {
    let rows = &mut output.rows;
    let (count, at) = (rows.ends.len(), source as usize);
    let reject = |source: u32, code: &str| Reject {
        source,
        code: code.to_owned(),
        reason: String::new(),
    };
    match mark {
        "ends" => rows.ends[at] = u32::MAX,
        "ends-descending" => {
            rows.ends.push(0);
            rows.sources.push(source);
        }
        "cells-after" => rows.cells.push(0),
        "counts" => drop(rows.sources.pop()),
        "route" => rows.routes = vec![9; count],
        "routes-short" => rows.routes = vec![0; count + 1],
        "op" => rows.ops = vec![7; count],
        "delete-without-key" => {
            rows.ops = vec![0; count];
            rows.ops[at] = 1;
        }
        "source" => rows.sources[count - 1] = 1_000_000,
        "sources-descending" => {
            let end = rows.ends[count - 1];
            rows.ends.push(end);
            rows.sources[count - 1] = source + 1;
            rows.sources.push(source);
        }
        "times-short" => rows.times = vec![0; count + 1],
        "reject-source" => output.rejects.push(reject(1_000_000, "far-away")),
        "reject-code" => output.rejects.push(reject(source, "Not A Code")),
        "reject-and-row" => output.rejects.push(reject(source, "both")),
        "reject-descending" => {
            output.rejects.push(reject(source + 1, "after"));
            output.rejects.push(reject(source, "before"));
        }
        _ => {}
    }
}
