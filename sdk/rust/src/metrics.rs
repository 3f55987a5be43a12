//! Counters for the operator: [`count`] adds up inside a call, one message a call crosses the border.
//! They never influence rows; what a rejected record counted stays counted.

use std::cell::RefCell;

thread_local! {
    /// A plugin has at most 64 names, so a search beats a map. One thread runs an instance.
    static COUNTERS: RefCell<Vec<(String, u64)>> = const { RefCell::new(Vec::new()) };
}

/// Adds `n` to the counter `name`, `[a-z][a-z0-9_]{0,63}`; at most 64 names a plugin (the host drops the rest).
pub fn count(name: &str, n: u64) {
    COUNTERS.with_borrow_mut(|counters| {
        match counters.iter_mut().find(|(known, _)| known == name) {
            Some((_, sum)) => *sum = sum.saturating_add(n),
            None => counters.push((name.to_owned(), n)),
        }
    });
}

/// Hands what was counted since the last call to the host.
#[cfg(target_arch = "wasm32")]
pub(crate) fn flush() {
    COUNTERS.with_borrow_mut(|counters| {
        if counters.iter().any(|(_, sum)| *sum > 0) {
            crate::bindings::wasmill::plugin::metrics::add(counters);
            for (_, sum) in counters {
                *sum = 0;
            }
        }
    });
}

/// Takes what was counted on this thread.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn take() -> Vec<(String, u64)> {
    COUNTERS.with_borrow_mut(std::mem::take)
}
