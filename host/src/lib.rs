//! Wasmill: a stream processor.
pub mod anchor;
pub mod clock;
pub mod config;
pub mod decode;
pub mod error;
pub mod kafka;
pub mod manifest;
pub mod pipeline;
pub mod plugin;
pub mod record;
pub mod route;
pub mod sink;
pub mod source;
pub mod task;
pub mod toml_check;
