//! Our own value types: [`Timestamp`], [`Date`], [`Time`], [`Uuid`], [`Json`], [`Update`], and the markers that
//! make the host copy a part of the source record. Each is a number or bytes with a name; none knows a database.

use std::fmt;
use std::marker::PhantomData;

use crate::cell::{SOURCE_KEY, SOURCE_TIMESTAMP, SOURCE_VALUE, put_bytes, put_code, put_unset};
use crate::civil::{self, Civil, DAY, SECOND};
use crate::types::{Absent, Column, Field, Typed, text};

/// A moment: microseconds since 1970-01-01 UTC (column type `timestamp`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

/// A day: days since 1970-01-01 (column type `date`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date(pub i32);

/// A time of day: microseconds since midnight (column type `time`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub i64);

/// Sixteen bytes in network order (column type `uuid`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub [u8; 16]);

/// The text of one JSON value, not parsed (column type `json`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Json<'a>(pub &'a str);

/// A column to leave alone or to set; as a field, a path that is not there or one that is.
///
/// `Update<Option<T>>` tells an absent path (`Keep`) from an explicit null (`Set(None)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Update<T> {
    /// Leave the column as it is.
    #[default]
    Keep,
    /// Set it to this.
    Set(T),
}

/// A column of a row that the host fills with the source record's key: nothing is copied by the plugin.
/// `T` is `Vec<u8>` (column type `bytes`) or `String` (`text`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceKey<T = Vec<u8>>(PhantomData<T>);

/// A column of a row that the host fills with the source record's value; see [`SourceKey`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceValue<T = Vec<u8>>(PhantomData<T>);

/// A column of a row that the host fills with the source record's timestamp (column type `timestamp`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceTimestamp;

impl Timestamp {
    /// From milliseconds since 1970-01-01 UTC; past the range of microseconds it stops at its ends.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1000))
    }

    /// A day and a time of it, read as UTC.
    #[must_use]
    pub const fn from_parts(date: Date, time: Time) -> Self {
        Self((date.0 as i64).saturating_mul(DAY).saturating_add(time.0))
    }

    /// Milliseconds since 1970-01-01 UTC, rounded down.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// The UTC day it lies in.
    #[must_use]
    pub fn date(self) -> Date {
        let days = self.0.div_euclid(DAY);
        Date(i32::try_from(days).expect("2^63 microseconds are 107 million days"))
    }

    /// Its UTC time of day.
    #[must_use]
    pub const fn time(self) -> Time {
        Time(self.0.rem_euclid(DAY))
    }
}

impl Date {
    /// A day of the Gregorian calendar; `None` for one that does not exist.
    #[must_use]
    pub fn from_ymd(year: i32, month: u8, day: u8) -> Option<Self> {
        civil::days(Civil { year, month, day }).map(Self)
    }

    /// Year, month (1 to 12) and day (1 to 31).
    #[must_use]
    pub fn to_ymd(self) -> (i32, u8, u8) {
        let Civil { year, month, day } = civil::civil(self.0);
        (year, month, day)
    }
}

impl Time {
    /// A time of day; `None` for one that does not exist (a second 60 does not).
    #[must_use]
    pub fn from_hms(hour: u8, minute: u8, second: u8) -> Option<Self> {
        civil::micros(hour, minute, second, 0).map(Self)
    }
}

/// `2001-01-01T00:47:00.000000Z`: RFC 3339 with microseconds, always UTC.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}T{}Z", self.date(), self.time())
    }
}

/// `2001-01-01`.
impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.to_ymd();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

/// `00:47:00.000000`.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.div_euclid(SECOND);
        let micros = self.0.rem_euclid(SECOND);
        write!(
            f,
            "{:02}:{:02}:{:02}.{micros:06}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        )
    }
}

/// `67e55044-10b1-426f-9247-bb680e5fe0c8`.
impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

macro_rules! newtype {
    ($($rust:ident, $inner:ty, $name:literal;)*) => {$(
        impl Typed for $rust {
            fn type_name(out: &mut String) {
                out.push_str($name);
            }
        }
        impl Field<'_> for $rust {
            #[inline]
            fn from_value(value: &[u8]) -> Option<Self> {
                <$inner>::from_value(value).map(Self)
            }
        }
        impl Column for $rust {
            #[inline]
            fn put(&self, out: &mut Vec<u8>) {
                self.0.put(out);
            }
        }
    )*};
}

newtype! {
    Timestamp, i64, "timestamp";
    Date, i32, "date";
    Time, i64, "time";
}

impl Typed for Uuid {
    fn type_name(out: &mut String) {
        out.push_str("uuid");
    }
}

impl Field<'_> for Uuid {
    #[inline]
    fn from_value(value: &[u8]) -> Option<Self> {
        value.try_into().ok().map(Self)
    }
}

impl Column for Uuid {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, &self.0);
    }
}

impl Typed for Json<'_> {
    fn type_name(out: &mut String) {
        out.push_str("json");
    }
}

impl<'a> Field<'a> for Json<'a> {
    #[inline]
    fn from_value(value: &'a [u8]) -> Option<Self> {
        text(value).map(Self)
    }
}

impl Column for Json<'_> {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
}

impl<T: Typed> Typed for Update<T> {
    const NULLABLE: bool = T::NULLABLE;

    fn type_name(out: &mut String) {
        T::type_name(out);
    }
}

impl<'a, T: Field<'a>> Field<'a> for Update<T> {
    #[inline]
    fn from_value(value: &'a [u8]) -> Option<Self> {
        T::from_value(value).map(Self::Set)
    }

    #[inline]
    fn from_absent(absent: Absent) -> Option<Self> {
        match absent {
            Absent::Unset => Some(Self::Keep),
            Absent::Null => T::from_absent(absent).map(Self::Set),
        }
    }
}

impl<T: Column> Column for Update<T> {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Keep => put_unset(out),
            Self::Set(value) => value.put(out),
        }
    }
}

macro_rules! source {
    ($($marker:ident, $code:ident;)*) => {$(
        impl<T> $marker<T> {
            /// The marker.
            #[must_use]
            pub const fn new() -> Self {
                Self(PhantomData)
            }
        }
        // Null where the record's is: the column has to allow it.
        impl<T: Typed> Typed for $marker<T> {
            const NULLABLE: bool = true;

            fn type_name(out: &mut String) {
                T::type_name(out);
            }
        }
        impl<T: Typed> Column for $marker<T> {
            #[inline]
            fn put(&self, out: &mut Vec<u8>) {
                put_code(out, $code);
            }
        }
    )*};
}

source! {
    SourceKey, SOURCE_KEY;
    SourceValue, SOURCE_VALUE;
}

impl Typed for SourceTimestamp {
    const NULLABLE: bool = true;

    fn type_name(out: &mut String) {
        out.push_str("timestamp");
    }
}

impl Column for SourceTimestamp {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        put_code(out, SOURCE_TIMESTAMP);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn text_forms() {
        let day = Date::from_ymd(2001, 1, 1).unwrap();
        let moment = Timestamp::from_parts(day, Time::from_hms(0, 47, 5).unwrap());
        assert_eq!(moment.to_string(), "2001-01-01T00:47:05.000000Z");
        assert_eq!(Timestamp(-1).to_string(), "1969-12-31T23:59:59.999999Z");
        assert_eq!((moment.date(), Timestamp(-1).as_millis()), (day, -1));
        assert_eq!(
            Uuid([0xab; 16]).to_string(),
            "abababab-abab-abab-abab-abababababab"
        );
        assert!(!Timestamp(i64::MAX).to_string().is_empty());
    }

    #[test]
    fn an_update_tells_absent_from_null() {
        let absent = <Update<Option<i32>>>::from_absent(Absent::Unset);
        let null = <Update<Option<i32>>>::from_absent(Absent::Null);
        assert_eq!(
            (absent, null),
            (Some(Update::Keep), Some(Update::Set(None)))
        );
        assert_eq!(<Update<i32>>::from_absent(Absent::Null), None);
        let mut out = Vec::new();
        Update::<i32>::Keep.put(&mut out);
        SourceKey::<String>::new().put(&mut out);
        assert_eq!(out, [255, 255, 255, 254, 255, 255, 255, 253]);
    }
}
