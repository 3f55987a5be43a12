//! Where logs go, set up once.

use tracing_subscriber::EnvFilter;

use crate::config::look_of_stderr;
use crate::toml_check::Look;

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
