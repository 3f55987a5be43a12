//! The manifest: what a plugin's author declares, checked, with the columns the component describes.
//!
//! [`Manifest`] is the checked form and the only one the rest of the host sees. The raw TOML, the
//! diagnostics and the embedded section live in this module's private files; nothing here does I/O.
//!
//! * [`Manifest::check`] joins `plugin.toml` with what the component describes;
//! * [`Manifest::check_without_describe`] reads the file alone, before anything is built;
//! * [`embed`] and [`extract`] put both texts into the component and take them out again;
//! * [`embed_fixtures`] and [`extract_fixtures`] do so with its fixtures.

mod check;
mod describe;
mod embedded;
mod hand;
mod input;
mod policy;
mod route;
mod source;
mod topic;
mod types;

pub use check::Outline;
pub use embedded::{
    Digest, Embedded, FIXTURES_SECTION, MAX_FIXTURES, ParseDigestError, SECTION, digest, embed,
    embed_fixtures, extract, extract_fixtures,
};
pub use input::PATTERN_SIZE_LIMIT;
pub use source::ParseSourceError;
pub use types::{
    CassandraTable, ConfigItem, Create, DataPolicy, Delivery, ErrorPolicy, Field, FieldSource,
    Format, Input, KafkaTopic, KeyFormat, Limits, Manifest, Mode, PostgresTable, Route, Start,
    Target, TextFormat, Tombstones, Unit, ValueFormat,
};
