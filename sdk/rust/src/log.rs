//! Words for the operator: `log::info!("{} of {}", …)` or `log::info("…")`. The host caps their rate and length;
//! below the pipeline's level nothing is formatted. Natively they go to standard error.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};

pub use crate::{__debug as debug, __error as error, __info as info, __warn as warn};

/// How much a message matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// For the author.
    Debug,
    /// Worth knowing.
    Info,
    /// Somebody should look.
    Warn,
    /// Data is at risk.
    Error,
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);

/// Whether messages of a level are wanted.
#[inline]
#[must_use]
pub fn enabled(level: Level) -> bool {
    level as u8 >= LEVEL.load(Ordering::Relaxed)
}

/// Takes the pipeline's level over; an unknown word means `info`.
#[cfg_attr(
    not(target_arch = "wasm32"),
    allow(dead_code, reason = "only a component has a pipeline")
)]
pub(crate) fn set_level(word: &str) {
    let level = match word {
        "debug" => Level::Debug,
        "warn" => Level::Warn,
        "error" => Level::Error,
        _ => Level::Info,
    };
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Writes one message when its level is wanted.
pub fn write(level: Level, message: fmt::Arguments<'_>) {
    if !enabled(level) {
        return;
    }
    #[cfg(target_arch = "wasm32")]
    {
        use crate::bindings::wasmill::plugin::log;
        let level = match level {
            Level::Debug => log::Level::Debug,
            Level::Info => log::Level::Info,
            Level::Warn => log::Level::Warn,
            Level::Error => log::Level::Error,
        };
        match message.as_str() {
            Some(text) => log::write(level, text),
            None => log::write(level, &message.to_string()),
        }
    }
    #[cfg(not(target_arch = "wasm32"))]
    eprintln!("[{level:?}] {message}");
}

/// For the author.
pub fn debug(message: impl fmt::Display) {
    write(Level::Debug, format_args!("{message}"));
}

/// Worth knowing.
pub fn info(message: impl fmt::Display) {
    write(Level::Info, format_args!("{message}"));
}

/// Somebody should look.
pub fn warn(message: impl fmt::Display) {
    write(Level::Warn, format_args!("{message}"));
}

/// Data is at risk.
pub fn error(message: impl fmt::Display) {
    write(Level::Error, format_args!("{message}"));
}

/// For the author. Formatted like `println!`.
#[doc(hidden)]
#[macro_export]
macro_rules! __debug {
    ($($arg:tt)*) => {
        $crate::log::write($crate::log::Level::Debug, ::std::format_args!($($arg)*))
    };
}

/// Worth knowing. Formatted like `println!`.
#[doc(hidden)]
#[macro_export]
macro_rules! __info {
    ($($arg:tt)*) => {
        $crate::log::write($crate::log::Level::Info, ::std::format_args!($($arg)*))
    };
}

/// Somebody should look. Formatted like `println!`.
#[doc(hidden)]
#[macro_export]
macro_rules! __warn {
    ($($arg:tt)*) => {
        $crate::log::write($crate::log::Level::Warn, ::std::format_args!($($arg)*))
    };
}

/// Data is at risk. Formatted like `println!`.
#[doc(hidden)]
#[macro_export]
macro_rules! __error {
    ($($arg:tt)*) => {
        $crate::log::write($crate::log::Level::Error, ::std::format_args!($($arg)*))
    };
}
