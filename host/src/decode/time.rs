//! Dates and times from text, strictly: RFC 3339 and its parts.
//!
//! Own code, so that a replay reads a text as the first run did whatever library is updated meanwhile.
//! Refused: a missing offset, a leap second (`:60`), years outside 0000 to 9999, dates that do not exist.
//! Fractions finer than a microsecond are rounded down.

const MICROS_A_SECOND: i64 = 1_000_000;
/// Microseconds of a day.
pub(super) const MICROS_A_DAY: i64 = 86_400 * MICROS_A_SECOND;

/// `YYYY-MM-DDTHH:MM:SS[.fraction](Z|±HH:MM)` (`t`, `z` and a space for `T` too) as microseconds since
/// 1970-01-01 UTC.
pub(super) fn timestamp(text: &[u8]) -> Option<i64> {
    let (day, rest) = text.split_at_checked(10)?;
    let (separator, rest) = rest.split_first()?;
    if !matches!(separator, b'T' | b't' | b' ') {
        return None;
    }
    let (micros, rest) = clock(rest)?;
    let offset = match rest {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (two(*h1, *h2)?, two(*m1, *m2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = hours * 3600 + minutes * 60;
            if *sign == b'+' { seconds } else { -seconds }
        }
        _ => return None,
    };
    Some(i64::from(date(day)?) * MICROS_A_DAY + micros - offset * MICROS_A_SECOND)
}

/// `YYYY-MM-DD` as days since 1970-01-01.
pub(super) fn date(text: &[u8]) -> Option<i32> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text else {
        return None;
    };
    let year = two(*y1, *y2)? * 100 + two(*y3, *y4)?;
    let (month, day) = (two(*m1, *m2)?, two(*d1, *d2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if day < 1 || day > last {
        return None;
    }
    // Days since 0000-03-01, counted in years that end in February, so that the leap day comes last.
    let (year, month) = if month < 3 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let of_year = (153 * month + 2) / 5 + day - 1;
    let days =
        year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year;
    i32::try_from(days - 719_468).ok()
}

/// `HH:MM:SS[.fraction]` as microseconds since midnight.
pub(super) fn time(text: &[u8]) -> Option<i64> {
    let (micros, rest) = clock(text)?;
    rest.is_empty().then_some(micros)
}

fn clock(text: &[u8]) -> Option<(i64, &[u8])> {
    let [h1, h2, b':', m1, m2, b':', s1, s2, rest @ ..] = text else {
        return None;
    };
    let (hours, minutes, seconds) = (two(*h1, *h2)?, two(*m1, *m2)?, two(*s1, *s2)?);
    if hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    let whole = (hours * 3600 + minutes * 60 + seconds) * MICROS_A_SECOND;
    let Some((b'.', fraction)) = rest.split_first() else {
        return Some((whole, rest));
    };
    let length = fraction
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    if length == 0 {
        return None;
    }
    let (digits, rest) = fraction.split_at(length);
    let micros = (0..6).fold(0, |sum, at| {
        sum * 10 + digits.get(at).map_or(0, |digit| i64::from(digit - b'0'))
    });
    Some((whole + micros, rest))
}

fn two(tens: u8, ones: u8) -> Option<i64> {
    (tens.is_ascii_digit() && ones.is_ascii_digit())
        .then(|| i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_rfc_3339_says() {
        assert_eq!(timestamp(b"1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(timestamp(b"1970-01-01 00:00:01.5+00:00"), Some(1_500_000));
        assert_eq!(timestamp(b"1969-12-31T23:59:59.9999999Z"), Some(-1));
        assert_eq!(
            timestamp(b"2000-02-29t12:00:00+02:30"),
            Some(951_816_600_000_000)
        );
        assert_eq!(date(b"0000-01-01"), Some(-719_528));
        assert_eq!(time(b"23:59:59.999999"), Some(MICROS_A_DAY - 1));
        for text in [
            "",
            "1970-01-01",
            "1970-01-01T00:00:00",
            "1970-01-01T00:00Z",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:00:60Z",
            "1970-01-01T00:00:00.Z",
            "1970-02-30T00:00:00Z",
            "1970-01-01T00:00:00+0100",
            "1970-01-01T00:00:00+01:60",
            "1970-01-01T00:00:00Z ",
            "1970-1-01T00:00:00Z",
            "+970-01-01T00:00:00Z",
            "1970-01-01T00:00:00[UTC]",
        ] {
            assert_eq!(timestamp(text.as_bytes()), None, "{text}");
        }
        for text in [
            "1900-02-29",
            "2023-02-29",
            "2023-04-31",
            "2023-00-01",
            "2023-13-01",
            "2023-01-00",
        ] {
            assert_eq!(date(text.as_bytes()), None, "{text}");
        }
        for text in ["", "1:00:00", "00:00", "00:00:00.", "00:00:00 ", "24:00:00"] {
            assert_eq!(time(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_jiff(micros in -62_000_000_000_000_000_i64..253_000_000_000_000_000) {
            let text = jiff::Timestamp::from_microsecond(micros).unwrap().to_string();
            prop_assert_eq!(timestamp(text.as_bytes()), Some(micros));
            prop_assert_eq!(date(&text.as_bytes()[..10]), i32::try_from(micros.div_euclid(MICROS_A_DAY)).ok());
        }

        #[test]
        fn no_text_panics(text: Vec<u8>) {
            prop_assert!(timestamp(&text).is_none() || text.len() >= 20);
            prop_assert!(date(&text).is_none() || text.len() == 10);
            prop_assert!(time(&text).is_none() || text.len() >= 8);
        }
    }
}
