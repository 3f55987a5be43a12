//! [`Progress`]: how far a host has come since it was started: what it waits for and since when, what ended its start,
//! its hub once it is there. It waits for nothing itself, and knows no pipeline.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::Mutex;

use super::hub::Hub;
use super::operate;
use crate::admin::types::HostStatus;
use crate::clock;
use crate::config::Config;
use crate::error::Error;

/// See the module.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) config: Arc<Config>,
    pub(super) started: Instant,
    // For a moment: a step begins, an attempt fails, a probe asks.
    step: Mutex<Step>,
    hub: OnceLock<Arc<Hub>>,
    failure: OnceLock<Error>,
}

/// What a host is at while it starts.
#[derive(Debug)]
struct Step {
    doing: &'static str,
    /// Seconds since 1970-01-01 UTC.
    since: i64,
    /// Why it is not done yet, as far as it was tried.
    why: Option<Error>,
}

impl Step {
    fn new(doing: &'static str) -> Self {
        Self {
            doing,
            since: clock::now_micros() / 1_000_000,
            why: None,
        }
    }
}

impl Progress {
    /// Of a host that starts now.
    pub(super) fn new(config: Arc<Config>) -> Self {
        Self {
            config,
            started: Instant::now(),
            step: Mutex::new(Step::new("reading the config's plugins")),
            hub: OnceLock::new(),
            failure: OnceLock::new(),
        }
    }

    /// The next step begins.
    pub(super) fn at(&self, doing: &'static str) {
        *self.step.lock() = Step::new(doing);
    }

    /// The step could not be done yet.
    pub(super) fn not_yet(&self, why: Error) {
        self.step.lock().why = Some(why);
    }

    /// The host is there.
    pub(super) fn arrived(&self, hub: Arc<Hub>) {
        self.hub.get_or_init(|| hub);
    }

    /// What pipelines share, once the host is there.
    pub(super) fn hub(&self) -> Option<&Arc<Hub>> {
        self.hub.get()
    }

    /// The host ends with this, unless something failed before.
    pub(super) fn failed(&self, error: Error) {
        match self.hub() {
            Some(hub) => hub.failed(error),
            None => {
                self.failure.get_or_init(|| error);
            }
        }
    }

    /// What ended the start, or the first failure of a host that was there.
    pub(super) fn failure(&self) -> Option<Error> {
        let of_start = self.failure.get().cloned();
        of_start.or_else(|| self.hub()?.failure())
    }

    /// The host as it is now.
    pub(super) fn status(&self) -> HostStatus {
        match self.hub() {
            Some(hub) => operate::host(hub),
            None => operate::starting(&self.config, self.started, vec![self.reason()]),
        }
    }

    /// Why it does not do its work yet.
    fn reason(&self) -> String {
        if let Some(error) = self.failure.get() {
            return format!("the host ends: {error}");
        }
        let step = self.step.lock();
        let since = operate::time(step.since * 1000);
        match &step.why {
            None => format!("{} since {since}", step.doing),
            Some(why) => format!("{} since {since}: {why}", step.doing),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn a_host_that_starts_says_what_it_waits_for_since_when_and_why() {
        let text = "[host]\nid = \"h1\"\n\n[kafka.main]\nbrokers = \"127.0.0.1:1\"\n\n[http]\n";
        let config = Config::check(text, &|_| None).unwrap();
        let progress = Progress::new(Arc::new(config));
        let reason = || progress.status().reasons.remove(0);
        assert!(reason().starts_with("reading the config's plugins since 20"));
        progress.at("waiting for the control log");
        let bare = reason();
        assert!(bare.starts_with("waiting for the control log since 20") && bare.ends_with('Z'));
        progress.not_yet(Error::outside("open it", "nobody answers"));
        assert_eq!(reason(), format!("{bare}: open it: nobody answers"));
        progress.at("loading the config's plugins");
        assert!(!reason().contains("nobody"), "{}", reason());
        assert_eq!(progress.failure(), None);
        let wrong = Error::config("load a", "it is none");
        progress.failed(wrong.clone());
        assert_eq!(reason(), "the host ends: load a: it is none");
        assert_eq!(progress.failure(), Some(wrong));
        let status = progress.status();
        assert_eq!((status.id.as_str(), status.ready), ("h1", false));
    }
}
