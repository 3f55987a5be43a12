//! One line to a person when something takes longer than a second.
//!
//! Owns the call-back type. Never prints: lines go to `tracing` and to the call-back, if there is one.

use std::{fmt, sync::Arc};

/// Receives one line a step, such as `fetching Apache Kafka 4.1.2 (43 MB)…`. The default receives
/// nothing; every line is also a `tracing` event of level info.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<Line>>);

type Line = dyn Fn(&str) + Send + Sync;

impl Progress {
    /// Calls `line` for each step, on the thread that starts the server.
    pub fn new(line: impl Fn(&str) + Send + Sync + 'static) -> Progress {
        Progress(Some(Arc::new(line)))
    }

    pub(crate) fn say(&self, line: &str) {
        tracing::info!("{line}");
        if let Some(call) = &self.0 {
            call(line);
        }
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Progress").field(&self.0.is_some()).finish()
    }
}
