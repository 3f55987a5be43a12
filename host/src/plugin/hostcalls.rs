//! What a guest may call: `log` and `metrics`, always linked, capped in rate, length and names.
//!
//! [`HostState`] is the data of one store; [`Voice`] is shared by all instances of a plugin in a
//! pipeline; [`Counters`] is the part of it that metrics read. Nothing here fails a guest: what is too
//! much is counted and dropped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::abi::wasmill::plugin::{log, metrics, types};
use super::limits::Meter;
use crate::telemetry::GUEST;

/// Longest message written, bytes; the rest is cut (`log.wit`).
const LONGEST_MESSAGE: usize = 4096;
/// Counter names a plugin may use (`metrics.wit`).
const MOST_NAMES: usize = 64;
/// Longest counter name, bytes (`metrics.wit`).
const LONGEST_NAME: usize = 64;

/// Which of a plugin's messages are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// Worth knowing and worse.
    #[default]
    Info,
    /// Somebody should look, and worse.
    Warn,
    /// Data is at risk.
    Error,
}

impl LogLevel {
    /// The name a guest's `init` is told.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// Counters of a plugin in one pipeline, over all its instances.
#[derive(Debug, Default)]
pub struct Counters {
    // A lock, not atomics: names are the guest's, and it adds once a batch.
    table: Mutex<CounterTable>,
}

#[derive(Debug, Default)]
struct CounterTable {
    values: BTreeMap<String, u64>,
    refused: u64,
}

impl Counters {
    /// Every counter and its value, in name order.
    #[must_use]
    pub fn snapshot(&self) -> Vec<(String, u64)> {
        let table = self.table.lock();
        table
            .values
            .iter()
            .map(|(name, value)| (name.clone(), *value))
            .collect()
    }

    /// How many additions were dropped: a name that is not `[a-z][a-z0-9_]{0,63}`, or past 64 names.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.table.lock().refused
    }

    fn add(&self, additions: &[(String, u64)]) {
        let mut table = self.table.lock();
        for (name, amount) in additions {
            if let Some(value) = table.values.get_mut(name) {
                *value = value.saturating_add(*amount);
            } else if is_name(name) && table.values.len() < MOST_NAMES {
                table.values.insert(name.clone(), *amount);
            } else {
                table.refused += 1;
            }
        }
    }
}

fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.len() <= LONGEST_NAME
        && bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'_')
}

/// How a plugin's instances speak to the operator.
#[derive(Debug)]
pub(super) struct Voice {
    pipeline: String,
    plugin: String,
    level: LogLevel,
    /// Messages written in one second, at most.
    lines_per_second: u32,
    // A lock, not atomics: start and counts move together, and messages are rare.
    window: Mutex<Window>,
    pub(super) counters: Arc<Counters>,
    /// Linear memory of all live instances, bytes.
    pub(super) memory: Arc<std::sync::atomic::AtomicU64>,
}

/// Messages of the running second.
#[derive(Debug)]
struct Window {
    start: Instant,
    written: u32,
    dropped: u64,
}

/// What becomes of a message.
#[derive(Debug, PartialEq, Eq)]
enum Admitted {
    /// It is written, after saying how many were dropped before it.
    Yes {
        dropped_before: u64,
    },
    No,
}

impl Window {
    fn admit(&mut self, now: Instant, most: u32) -> Admitted {
        let mut dropped_before = 0;
        if now.duration_since(self.start) >= Duration::from_secs(1) {
            dropped_before = std::mem::take(&mut self.dropped);
            self.start = now;
            self.written = 0;
        }
        if self.written >= most {
            self.dropped += 1;
            return Admitted::No;
        }
        self.written += 1;
        Admitted::Yes { dropped_before }
    }
}

impl Voice {
    pub(super) fn new(
        pipeline: &str,
        plugin: &str,
        level: LogLevel,
        lines_per_second: u32,
    ) -> Self {
        Self {
            pipeline: pipeline.to_owned(),
            plugin: plugin.to_owned(),
            level,
            lines_per_second,
            window: Mutex::new(Window {
                start: Instant::now(),
                written: 0,
                dropped: 0,
            }),
            counters: Arc::default(),
            memory: Arc::default(),
        }
    }

    fn say(&self, level: LogLevel, message: &str) {
        if level < self.level {
            return;
        }
        let admitted = self
            .window
            .lock()
            .admit(Instant::now(), self.lines_per_second);
        let Admitted::Yes { dropped_before } = admitted else {
            return;
        };
        let (pipeline, plugin) = (self.pipeline.as_str(), self.plugin.as_str());
        if dropped_before > 0 {
            tracing::warn!(
                target: GUEST,
                pipeline,
                plugin,
                dropped = dropped_before,
                "plugin wrote too many messages, some were dropped"
            );
        }
        match level {
            LogLevel::Debug => tracing::debug!(target: GUEST, pipeline, plugin, "{message}"),
            LogLevel::Info => tracing::info!(target: GUEST, pipeline, plugin, "{message}"),
            LogLevel::Warn => tracing::warn!(target: GUEST, pipeline, plugin, "{message}"),
            LogLevel::Error => tracing::error!(target: GUEST, pipeline, plugin, "{message}"),
        }
    }
}

/// The data of one store.
#[derive(Debug)]
pub(super) struct HostState {
    pub(super) meter: Meter,
    /// The last message of the running call: a panic hook writes one before the trap.
    pub(super) last_message: Option<String>,
    voice: Arc<Voice>,
}

impl HostState {
    pub(super) fn new(meter: Meter, voice: Arc<Voice>) -> Self {
        Self {
            meter,
            last_message: None,
            voice,
        }
    }

    /// Starts the account of a new call.
    pub(super) fn begin(&mut self) {
        self.meter.begin();
        self.last_message = None;
    }
}

impl log::Host for HostState {
    fn write(&mut self, level: log::Level, mut message: String) {
        cut(&mut message);
        one_line(&mut message);
        let level = match level {
            log::Level::Debug => LogLevel::Debug,
            log::Level::Info => LogLevel::Info,
            log::Level::Warn => LogLevel::Warn,
            log::Level::Error => LogLevel::Error,
        };
        self.voice.say(level, &message);
        self.last_message = Some(message);
    }
}

/// Cuts at the last character that fits.
fn cut(message: &mut String) {
    if message.len() > LONGEST_MESSAGE {
        message.truncate(message.floor_char_boundary(LONGEST_MESSAGE));
        message.push('…');
    }
}

/// What a plugin says is one line of the log and of a dead letter's reason: it cannot pass for a line of the host's, and
/// a panic stands behind its place.
fn one_line(message: &mut String) {
    if message.contains(char::is_control) {
        let words = message.split(char::is_control);
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        *message = words.join(" ");
    }
}

impl metrics::Host for HostState {
    fn add(&mut self, counters: Vec<(String, u64)>) {
        self.voice.counters.add(&counters);
    }
}

impl types::Host for HostState {}

/// How generated linking code finds the state in a store.
pub(super) struct Here;

impl wasmtime::component::HasData for Here {
    type Data<'a> = &'a mut HostState;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_bounded_in_names_and_checked() {
        let counters = Counters::default();
        let add = |name: &str| counters.add(&[(name.to_owned(), 2)]);
        add("good_1");
        add("good_1");
        for bad in ["", "1x", "Upper", "a-b", "a\n"] {
            add(bad);
        }
        add(&"n".repeat(65));
        for index in 0..80 {
            add(&format!("name_{index:02}"));
        }
        let snapshot = counters.snapshot();
        assert_eq!(snapshot.len(), 64);
        assert_eq!(snapshot[0], ("good_1".to_owned(), 4));
        assert_eq!(counters.refused(), 5 + 1 + 17);
    }

    #[test]
    fn messages_past_the_rate_are_counted_and_told_later() {
        let start = Instant::now();
        let mut window = Window {
            start,
            written: 0,
            dropped: 0,
        };
        for _ in 0..7 {
            assert_eq!(window.admit(start, 7), Admitted::Yes { dropped_before: 0 });
        }
        assert_eq!(window.admit(start, 7), Admitted::No);
        assert_eq!(window.admit(start, 7), Admitted::No);
        let later = start + Duration::from_secs(1);
        assert_eq!(window.admit(later, 7), Admitted::Yes { dropped_before: 2 });
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let mut message = "ä".repeat(3000);
        cut(&mut message);
        assert_eq!(message.len(), LONGEST_MESSAGE + '…'.len_utf8());
        let mut short = "ok".to_owned();
        cut(&mut short);
        assert_eq!(short, "ok");
    }

    #[test]
    fn a_message_is_one_line() {
        let mut message =
            "panicked at src/lib.rs:26:31:\nboom\r\n\u{1b}[31mERROR disk is gone".to_owned();
        one_line(&mut message);
        assert_eq!(
            message,
            "panicked at src/lib.rs:26:31: boom [31mERROR disk is gone"
        );
    }
}
