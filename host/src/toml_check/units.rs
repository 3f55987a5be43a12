//! Durations and sizes as people write them.
//!
//! A duration is a whole number and one of `ms`, `s`, `m`, `h`, `d`: `"250ms"`, `"5s"`, `"10m"`, `"2h"`,
//! `"7d"`. A size is a whole number and one of `B`, `kB`/`KB` (10³), `MB` (10⁶), `GB` (10⁹), `KiB` (2¹⁰),
//! `MiB` (2²⁰), `GiB` (2³⁰): `"32MB"` is 32,000,000 bytes, `"32MiB"` 33,554,432. One space before the
//! unit is allowed; fractions and sums of units are not.

use std::time::Duration;

const MILLIS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

const BYTES: [(&str, u64); 8] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Reads a duration; the error is the hint.
pub(crate) fn duration(text: &str) -> Result<Duration, &'static str> {
    scaled(text, &MILLIS)
        .map(Duration::from_millis)
        .ok_or("a whole number and ms, s, m, h or d, e.g. \"250ms\", \"5s\", \"7d\"")
}

/// Reads a size in bytes; the error is the hint.
pub(crate) fn size(text: &str) -> Result<u64, &'static str> {
    scaled(text, &BYTES).ok_or(
        "a whole number and B, kB, MB, GB (powers of 1000) or KiB, MiB, GiB (powers of 1024), e.g. \"32MiB\"",
    )
}

/// A duration in its largest whole unit.
pub(crate) fn show_duration(value: Duration) -> String {
    let millis = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
    show(millis, &MILLIS)
}

/// A size in its largest whole unit.
pub(crate) fn show_size(value: u64) -> String {
    show(value, &BYTES)
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn show(value: u64, units: &[(&str, u64)]) -> String {
    let whole = |(_, factor): &&(&str, u64)| value >= *factor && value.is_multiple_of(*factor);
    match units.iter().find(whole) {
        Some((name, factor)) => format!("{}{name}", value / factor),
        None => format!("0{}", units.last().map_or("", |(name, _)| name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print() {
        for (text, millis) in [
            ("250ms", 250),
            ("5s", 5_000),
            ("10m", 600_000),
            ("2h", 7_200_000),
            ("7d", 604_800_000),
            ("0ms", 0),
        ] {
            let value = Duration::from_millis(millis);
            assert_eq!(duration(text), Ok(value));
            assert_eq!(show_duration(value), text);
        }
        assert_eq!(duration("5 s"), Ok(Duration::from_secs(5)));
        for text in [
            "",
            "5",
            "s",
            "-5s",
            "1.5s",
            "5S",
            "5  s",
            "1h30m",
            "99999999999999999d",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn decimal_and_binary_sizes_differ() {
        assert_eq!(size("32MB"), Ok(32_000_000));
        assert_eq!(size("32MiB"), Ok(32 << 20));
        assert_eq!(size("1 kB"), Ok(1_000));
        assert_eq!(size("1KB"), size("1kB"));
        assert_eq!(show_size(64 << 20), "64MiB");
        assert_eq!(show_size(1_500), "1500B");
        assert_eq!(show_size(0), "0B");
        for text in ["32M", "32mb", "", "MB", "1.5GB", "99999999999GiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
