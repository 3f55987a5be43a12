//! Fakes with a script, one a file: the anchor (and how it is lazy, and what reaches it late), the sink written ahead,
//! the source. What anchor and sink were given is in the [`Store`](store::Store) they share; what goes wrong is in
//! [`script`].

mod anchor;
mod late;
mod lazy;
mod script;
mod sink;
mod source;
mod store;

pub(super) use anchor::FakeAnchor;
pub(super) use script::{Broken, Fault};
pub(super) use sink::FakeSink;
pub(super) use source::{Script, Scripted, Stage};
pub(super) use store::Shared;

use crate::error::Error;
use crate::record::cells::{Cell, Reader};

/// The cells of a row of 64-bit numbers.
pub(super) fn numbers(cells: &[u8]) -> Vec<i64> {
    let mut cells_left = Reader::new(cells);
    let mut all = Vec::new();
    while let Ok(Cell::Value(bytes)) = cells_left.cell() {
        all.push(i64::from_be_bytes(bytes.try_into().unwrap()));
    }
    all
}

fn outside(detail: &str) -> Error {
    Error::outside("fake", detail)
}
