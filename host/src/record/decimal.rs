//! [`Exact`]: a decimal number without rounding, between its text and its cell.
//!
//! It owns the arithmetic of `decimal(p,s)` and of numbers that become integers or times. It never goes
//! through a binary float, and it refuses what 38 digits do not hold instead of rounding.

/// Digits that an `i128` always holds, and the greatest precision of a column.
pub const MAX_DIGITS: u32 = 38;

/// `digits × 10^exponent`, with no trailing zero in `digits` (zero has exponent 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exact {
    digits: i128,
    exponent: i32,
}

impl Exact {
    /// Reads `-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?`; every JSON number is of this form.
    ///
    /// `None` for another form, more than 38 significant digits, or an exponent beyond ±1,000,000.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (number, exponent) = match text.find(['e', 'E']) {
            Some(at) => (&text[..at], parse_exponent(&text[at + 1..])?),
            None => (text, 0),
        };
        let (whole, fraction) = match number.split_once('.') {
            Some((_, "")) => return None,
            Some(parts) => parts,
            None => (number, ""),
        };
        if whole.is_empty() {
            return None;
        }
        let mut value = Self {
            digits: 0,
            exponent: 0,
        };
        // Zeros are held back until a digit follows, so that trailing ones cost no digits.
        let mut zeros = 0_u32;
        for byte in whole.bytes().chain(fraction.bytes()) {
            match byte {
                b'0' => zeros += u32::from(value.digits != 0),
                b'1'..=b'9' => {
                    let shift = 10_i128.checked_pow(zeros + 1)?;
                    value.digits = value.digits.checked_mul(shift)? + i128::from(byte - b'0');
                    zeros = 0;
                }
                _ => return None,
            }
            if value.digits.unsigned_abs() >= 10_u128.pow(MAX_DIGITS) {
                return None;
            }
        }
        if value.digits != 0 {
            let point = i32::try_from(fraction.len()).ok()?;
            let zeros = i32::try_from(zeros).ok()?;
            value.exponent = exponent.checked_sub(point)?.checked_add(zeros)?;
        }
        if negative {
            value.digits = -value.digits;
        }
        Some(value)
    }

    /// The value of a decimal cell's parts.
    #[must_use]
    pub fn from_parts(unscaled: i128, scale: i32) -> Option<Self> {
        let mut value = Self {
            digits: unscaled,
            exponent: scale.checked_neg()?,
        };
        while value.digits != 0 && value.digits % 10 == 0 {
            value.digits /= 10;
            value.exponent = value.exponent.checked_add(1)?;
        }
        if value.digits == 0 {
            value.exponent = 0;
        }
        Some(value)
    }

    /// The value times `10^scale`, when that is a whole number of at most 38 digits.
    #[must_use]
    pub fn unscaled(&self, scale: i32) -> Option<i128> {
        let shift = u32::try_from(self.exponent.checked_add(scale)?).ok();
        if self.digits == 0 {
            return Some(0);
        }
        self.shifted(shift?)
    }

    /// As [`Exact::unscaled`], rounded down (towards −∞) to a whole number.
    #[must_use]
    pub fn floor(&self, scale: i32) -> Option<i128> {
        let shift = self.exponent.checked_add(scale)?;
        match u32::try_from(shift) {
            Ok(shift) => self.shifted(shift),
            Err(_) => Some(match 10_i128.checked_pow(shift.unsigned_abs()) {
                Some(divisor) => self.digits.div_euclid(divisor),
                None if self.digits < 0 => -1,
                None => 0,
            }),
        }
    }

    /// The value in units of `10^-scale`, when it has at most `scale` digits after the point and at most
    /// `precision` in all.
    #[must_use]
    pub fn fit(&self, precision: u8, scale: u8) -> Option<i128> {
        let unscaled = self.unscaled(i32::from(scale))?;
        (unscaled.unsigned_abs() < 10_u128.pow(u32::from(precision))).then_some(unscaled)
    }

    fn shifted(&self, shift: u32) -> Option<i128> {
        if self.digits == 0 {
            return Some(0);
        }
        let value = self.digits.checked_mul(10_i128.checked_pow(shift)?)?;
        (value.unsigned_abs() < 10_u128.pow(MAX_DIGITS)).then_some(value)
    }
}

fn parse_exponent(text: &str) -> Option<i32> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let exponent: i32 = text.parse().ok()?;
    (exponent.abs() <= 1_000_000).then_some(exponent)
}

/// The shortest two's complement form of `value`: where it starts in the big-endian bytes.
#[must_use]
pub fn minimal(value: i128) -> ([u8; 16], usize) {
    let bytes = value.to_be_bytes();
    let sign = if value < 0 { 0xff } else { 0 };
    let mut start = 0;
    while start < 15 && bytes[start] == sign && (bytes[start + 1] ^ sign) & 0x80 == 0 {
        start += 1;
    }
    (bytes, start)
}

/// Reads 1 to 16 bytes of two's complement, shortest form or not.
#[must_use]
pub fn from_twos_complement(bytes: &[u8]) -> Option<i128> {
    if bytes.is_empty() || bytes.len() > 16 {
        return None;
    }
    let fill = if bytes[0] & 0x80 == 0 { 0 } else { 0xff };
    let mut wide = [fill; 16];
    wide[16 - bytes.len()..].copy_from_slice(bytes);
    Some(i128::from_be_bytes(wide))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_become_exact_values() {
        let fit = |text: &str| Exact::parse(text).and_then(|value| value.fit(10, 2));
        assert_eq!(fit("12.34"), Some(1234));
        assert_eq!(fit("-0.5"), Some(-50));
        assert_eq!(fit("1e3"), Some(100_000));
        assert_eq!(fit("1.230000"), Some(123));
        assert_eq!(fit("0012.5"), Some(1250));
        assert_eq!(fit("0e999999"), Some(0));
        assert_eq!(fit("0.000"), Some(0));
        assert_eq!(fit("12345e-4"), None, "three digits after the point");
        assert_eq!(fit("123456789"), None, "eleven digits in all");
        for text in [
            "",
            "-",
            ".5",
            "1.",
            "1e",
            "1e+",
            "+1",
            "1_0",
            "NaN",
            "1e9999999",
            "0x1",
        ] {
            assert_eq!(Exact::parse(text), None, "{text}");
        }
        let nines = "9".repeat(38);
        assert_eq!(Exact::parse(&nines).unwrap().fit(38, 0), nines.parse().ok());
        assert_eq!(Exact::parse(&"9".repeat(39)), None);
        assert_eq!(Exact::parse(&"9".repeat(5000)), None);
        assert!(
            Exact::parse(&format!("1{}", "0".repeat(5000))).is_none_or(|v| v.fit(38, 0).is_none())
        );
    }

    #[test]
    fn floor_goes_down_on_both_sides_of_zero() {
        let floor = |text: &str, scale| Exact::parse(text).unwrap().floor(scale);
        assert_eq!(floor("1.9999999", 6), Some(1_999_999));
        assert_eq!(floor("-1.9999999", 6), Some(-2_000_000));
        assert_eq!(floor("1e-100", 6), Some(0));
        assert_eq!(floor("-1e-100", 6), Some(-1));
        assert_eq!(floor("1e100", 6), None);
        assert_eq!(
            floor("1700000000123456789", -3),
            Some(1_700_000_000_123_456)
        );
        assert_eq!(floor("0", -3), Some(0));
    }

    proptest! {
        #[test]
        fn twos_complement_round_trips_in_its_shortest_form(value: i128) {
            let (bytes, start) = minimal(value);
            prop_assert_eq!(from_twos_complement(&bytes[start..]), Some(value));
            if start < 15 {
                prop_assert_ne!(from_twos_complement(&bytes[start + 1..]), Some(value));
            }
        }

        #[test]
        fn printing_and_reading_agree(unscaled in -10_i128.pow(37)..10_i128.pow(37), scale in 0_i32..30) {
            let value = Exact::from_parts(unscaled, scale).unwrap();
            let text = format!("{unscaled}e-{scale}");
            prop_assert_eq!(Exact::parse(&text), Some(value));
            prop_assert_eq!(value.unscaled(scale), Some(unscaled));
        }

        #[test]
        fn no_text_panics(text in "[-+0-9.eE]{0,50}") {
            if let Some(value) = Exact::parse(&text) {
                let (down, up) = (value.floor(-3), value.floor(6));
                prop_assert!(up.is_none() || down.is_some());
                prop_assert!(value.fit(38, 10).is_none_or(|fit| value.floor(10) == Some(fit)));
            }
        }
    }
}
