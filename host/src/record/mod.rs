//! Records, rows and the types of their cells: the data that flows, without any I/O.
//!
//! [`Batch`] is what a source hands to a lane; [`Fields`] what the decoder made of it for the plugin;
//! [`RowBatch`] what the plugin's rows became after they were checked, one a route.

mod batch;
pub mod cells;
pub mod decimal;
pub mod json;
mod plain;
mod rows;
mod text;
mod types;

pub use batch::{Batch, Mark, Record};
pub use plain::Plain;
pub use rows::{Fields, Op, RowBatch, RowRef};
pub use text::TextTable;
pub use types::{Column, ParseTypeError, Type};
