//! The manifest: what a plugin's author declares, checked, with the columns the component describes.
//!
//! [`Manifest`] is the checked form and the only one the rest of the host sees. The raw TOML, the
//! diagnostics and the embedded section live in this module's private files; nothing here does I/O.

mod types;

pub use types::{
    CassandraTable, ConfigItem, Create, DataPolicy, Delivery, ErrorPolicy, Field, FieldSource,
    Format, Input, KeyFormat, Limits, Manifest, Mode, PostgresTable, Route, Start, Target,
    TextFormat, Tombstones, Unit,
};
