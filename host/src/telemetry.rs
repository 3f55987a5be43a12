//! Where logs go, set up once; events that programs look for, each with its fields in one place.

use tracing_subscriber::EnvFilter;

use crate::config::look_of_stderr;
use crate::toml_check::Look;

/// Target of the event that a plugin asked for a capability nobody granted.
pub const DENIED: &str = "wasmill::denied";

/// Says that a plugin asked for a capability it was not granted, and which key of the config grants it.
pub fn denied(pipeline: &str, capability: &str, key: &str) {
    tracing::warn!(target: DENIED, pipeline, capability, key, "capability denied");
}

/// Logs to standard error: text for people, or one JSON object a line. A filter that is not understood falls
/// back to `info`. librdkafka's own chatter is kept to warnings.
pub fn log_to_stderr(filter: &str, json: bool) {
    let filter = EnvFilter::try_new(format!("{filter},librdkafka=warn"))
        .unwrap_or_else(|_| EnvFilter::new("info,librdkafka=warn"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second call (tests) leaves the first in place.
    if json {
        builder.json().flatten_event(true).try_init().ok();
    } else {
        let colour = look_of_stderr() == Look::Colour;
        builder.with_ansi(colour).with_target(false).try_init().ok();
    }
}
