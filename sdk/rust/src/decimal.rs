//! [`Decimal`]: exact numbers with a fixed number of digits after the point. It stores, compares, reads and
//! prints; arithmetic is done on the unscaled integer by whoever needs it.

use std::fmt;
use std::str::FromStr;

use crate::cell::put_nested;
use crate::types::{Column, Field, Typed};

/// An exact number of at most `P` digits, `S` of them after the point (column type `decimal(P,S)`).
///
/// `P` is 1 to 38 and `S` at most `P`; anything else does not compile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decimal<const P: u8, const S: u8>(i128);

/// A text that is no decimal number, or has too many digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseDecimalError(String);

impl<const P: u8, const S: u8> Decimal<P, S> {
    const CHECKED: () = assert!(
        P >= 1 && P <= 38 && S <= P,
        "decimal(P,S) wants 1 <= P <= 38 and S <= P"
    );

    /// From the number times 10^S: `Decimal::<10, 2>::from_unscaled(1999)` is 19.99. `None` past `P` digits.
    #[must_use]
    pub fn from_unscaled(unscaled: i128) -> Option<Self> {
        let () = Self::CHECKED;
        (unscaled.unsigned_abs() < 10_u128.pow(u32::from(P))).then_some(Self(unscaled))
    }

    /// The number times 10^S.
    #[must_use]
    pub const fn unscaled(self) -> i128 {
        self.0
    }

    /// The same number with `scale` digits after the point brought to `S`; `None` where digits would be lost.
    fn rescaled(unscaled: i128, scale: i32) -> Option<Self> {
        let steps = i32::from(S).checked_sub(scale)?;
        let factor = 10_i128.checked_pow(steps.unsigned_abs())?;
        if steps >= 0 {
            Self::from_unscaled(unscaled.checked_mul(factor)?)
        } else {
            (unscaled % factor == 0).then(|| Self::from_unscaled(unscaled / factor))?
        }
    }
}

impl<const P: u8, const S: u8> FromStr for Decimal<P, S> {
    type Err = ParseDecimalError;

    /// `-12.50`: an optional sign, digits, at most one point; no exponent.
    fn from_str(input: &str) -> Result<Self, ParseDecimalError> {
        let parse = || {
            let digits = input.strip_prefix(['-', '+']).unwrap_or(input);
            let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
            let all = whole.bytes().chain(fraction.bytes());
            if whole.len() + fraction.len() == 0 {
                return None;
            }
            let mut unscaled = 0_i128;
            for byte in all {
                if !byte.is_ascii_digit() {
                    return None;
                }
                unscaled = unscaled
                    .checked_mul(10)?
                    .checked_add(i128::from(byte - b'0'))?;
            }
            let sign = if input.starts_with('-') { -1 } else { 1 };
            Self::rescaled(sign * unscaled, i32::try_from(fraction.len()).ok()?)
        };
        parse().ok_or_else(|| ParseDecimalError(format!("{input:?} is no decimal({P},{S})")))
    }
}

impl<const P: u8, const S: u8> fmt::Display for Decimal<P, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let unit = 10_u128.pow(u32::from(S));
        let (whole, fraction) = (self.0.unsigned_abs() / unit, self.0.unsigned_abs() % unit);
        if S == 0 {
            return write!(f, "{sign}{whole}");
        }
        write!(
            f,
            "{sign}{whole}.{fraction:0width$}",
            width = usize::from(S)
        )
    }
}

impl fmt::Display for ParseDecimalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ParseDecimalError {}

impl<const P: u8, const S: u8> Typed for Decimal<P, S> {
    fn type_name(out: &mut String) {
        let () = Self::CHECKED;
        out.push_str(&format!("decimal({P},{S})"));
    }
}

impl<const P: u8, const S: u8> Field<'_> for Decimal<P, S> {
    fn from_value(value: &[u8]) -> Option<Self> {
        let (scale, number) = value.split_first_chunk::<4>()?;
        let first = *number.first()?;
        let fill = if first & 0x80 == 0 { 0 } else { 0xff };
        // More than 16 bytes only carry sign: what does not fit i128 has more than 38 digits.
        let (extra, number) = number.split_at(number.len().saturating_sub(16));
        if extra.iter().any(|byte| *byte != fill)
            || (!extra.is_empty() && (number[0] ^ fill) & 0x80 != 0)
        {
            return None;
        }
        let mut bytes = [fill; 16];
        bytes[16 - number.len()..].copy_from_slice(number);
        Self::rescaled(i128::from_be_bytes(bytes), i32::from_be_bytes(*scale))
    }
}

impl<const P: u8, const S: u8> Column for Decimal<P, S> {
    fn put(&self, out: &mut Vec<u8>) {
        let bytes = self.0.to_be_bytes();
        let fill = if self.0 < 0 { 0xff } else { 0 };
        // The shortest form keeps one byte whose top bit is the sign.
        let skip = (0..15)
            .find(|at| bytes[*at] != fill || (bytes[*at + 1] ^ fill) & 0x80 != 0)
            .unwrap_or(15);
        put_nested(out, |out| {
            out.extend_from_slice(&i32::from(S).to_be_bytes());
            out.extend_from_slice(&bytes[skip..]);
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::cell::Reader;
    use crate::types::read;

    type Money = Decimal<10, 2>;

    #[test]
    fn text_and_numbers() {
        for (text, unscaled) in [
            ("19.99", 1999),
            ("-0.05", -5),
            ("7", 700),
            ("+1.5", 150),
            ("1.500", 150),
        ] {
            assert_eq!(
                text.parse::<Money>().unwrap().unscaled(),
                unscaled,
                "{text}"
            );
        }
        assert_eq!("-0.05".parse::<Money>().unwrap().to_string(), "-0.05");
        for text in ["", ".", "1.005", "1e3", "x", "99999999999", "--1"] {
            assert!(text.parse::<Money>().is_err(), "{text}");
        }
    }

    #[test]
    fn cells_round_trip_in_the_shortest_form() {
        for unscaled in [
            0,
            1,
            -1,
            127,
            128,
            -128,
            -129,
            9_999_999_999,
            -9_999_999_999,
        ] {
            let value = Money::from_unscaled(unscaled).unwrap();
            let mut out = Vec::new();
            value.put(&mut out);
            assert_eq!(read::<Money>(&mut Reader::new(&out), "x"), Ok(value));
        }
        let mut out = Vec::new();
        Money::from_unscaled(128).unwrap().put(&mut out);
        assert_eq!(out, [0, 0, 0, 6, 0, 0, 0, 2, 0, 128]);
    }

    #[test]
    fn another_scale_is_brought_to_ours_or_refused() {
        assert_eq!(Money::from_value(&[0, 0, 0, 0, 7]).unwrap().unscaled(), 700);
        assert_eq!(Money::from_value(&[0, 0, 0, 3, 10]).unwrap().unscaled(), 1);
        assert_eq!(Money::from_value(&[0, 0, 0, 3, 7]), None);
        assert_eq!(Money::from_value(&[0, 0, 0, 0]), None);
    }
}
