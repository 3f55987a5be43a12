//! Wasmill: a stream processor.
pub mod anchor;
pub mod config;
pub mod decode;
pub mod error;
pub mod manifest;
pub mod plugin;
pub mod postgres;
pub mod record;
pub mod route;
pub mod sink;
pub mod source;
