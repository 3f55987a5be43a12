//! The proleptic Gregorian calendar without leap seconds: days and microseconds to year, month, day and back.
//! Pure arithmetic; knows no cells and no time zones.
//!
//! Days: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms",
//! <https://howardhinnant.github.io/date_algorithms.html>.

/// Microseconds in a second.
pub(crate) const SECOND: i64 = 1_000_000;
/// Microseconds in a day.
pub(crate) const DAY: i64 = 86_400 * SECOND;

/// A day of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Civil {
    /// Astronomical year.
    pub(crate) year: i32,
    /// 1 to 12.
    pub(crate) month: u8,
    /// 1 to 31.
    pub(crate) day: u8,
}

/// Days since 1970-01-01; `None` for a day that does not exist or whose number leaves `i32`.
pub(crate) fn days(civil: Civil) -> Option<i32> {
    let Civil { year, month, day } = civil;
    if day == 0 || day > month_length(year, month)? {
        return None;
    }
    let (month, day) = (i64::from(month), i64::from(day));
    let year = i64::from(year) - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    i32::try_from(era * 146_097 + day_of_era - 719_468).ok()
}

/// The day that lies `days` after 1970-01-01.
pub(crate) fn civil(days: i32) -> Civil {
    let days = i64::from(days) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let small = |number: i64| u8::try_from(number).expect("a month or a day of one is below 32");
    let day = small(day_of_year - (153 * shifted + 2) / 5 + 1);
    let month = small(if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    });
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let year = i32::try_from(year).expect("2^31 days are fewer than six million years");
    Civil { year, month, day }
}

/// Microseconds since midnight; `None` for a time that does not exist (leap seconds included).
pub(crate) fn micros(hour: u8, minute: u8, second: u8, micro: u32) -> Option<i64> {
    if hour > 23 || minute > 59 || second > 59 || micro >= 1_000_000 {
        return None;
    }
    let seconds = (i64::from(hour) * 60 + i64::from(minute)) * 60 + i64::from(second);
    Some(seconds * SECOND + i64::from(micro))
}

fn month_length(year: i32, month: u8) -> Option<u8> {
    Some(match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(year: i32, month: u8, day: u8) -> Option<i32> {
        days(Civil { year, month, day })
    }

    #[test]
    fn known_days() {
        assert_eq!(at(1970, 1, 1), Some(0));
        assert_eq!(at(2000, 2, 29), Some(11_016));
        assert_eq!(at(2001, 1, 1), Some(11_323));
        assert_eq!(at(1969, 12, 31), Some(-1));
        assert_eq!(at(1900, 2, 29), None);
        assert_eq!(at(2001, 13, 1), None);
        assert_eq!(at(2001, 0, 1), None);
        assert_eq!(at(2001, 4, 31), None);
        assert_eq!(at(i32::MAX, 1, 1), None);
    }

    #[test]
    fn every_day_of_four_centuries_comes_back() {
        for day in -150_000..150_000 {
            assert_eq!(days(civil(day)), Some(day));
        }
        assert_eq!(days(civil(i32::MIN)), Some(i32::MIN));
        assert_eq!(days(civil(i32::MAX)), Some(i32::MAX));
    }

    #[test]
    fn times_stay_within_a_day() {
        assert_eq!(micros(23, 59, 59, 999_999), Some(DAY - 1));
        assert_eq!(micros(24, 0, 0, 0), None);
        assert_eq!(micros(0, 0, 60, 0), None);
    }
}
