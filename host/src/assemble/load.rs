//! A host's config file, read with what only the adapters know of its values. It connects to nothing.

use std::path::Path;

use crate::config::{Config, LoadError};
use crate::postgres;

/// Reads and checks a config file with this process's environment, urls of databases included.
///
/// # Errors
/// The file cannot be read, or everything that is wrong with it.
pub fn load(path: &Path) -> Result<Config, LoadError> {
    Config::load(path, postgres::check_url)
}
