//! Decimal cells as Postgres `numeric` in binary.
//!
//! Owns the conversion from (scale, two's complement) to base-10000 digits; never rounds: a value with more
//! digits after the point than its column is refused, because Postgres would round it silently.
//! Format: `numeric_recv` in `src/backend/utils/adt/numeric.c`.

/// Sign word of a negative `numeric`.
const NEGATIVE: u16 = 0x4000;

/// Decimal digits in one base-10000 digit.
const GROUP: usize = 4;

/// Greatest number of digits the cell may carry: 38, and the zeros that a negative scale appends.
const MAX_DIGITS: usize = 80;

/// Appends the length and the binary form of a decimal cell.
///
/// # Errors
/// What is wrong with the bytes, as a fragment for a person.
pub(super) fn put(
    out: &mut Vec<u8>,
    cell: &[u8],
    precision: u8,
    scale: u8,
) -> Result<(), &'static str> {
    let (cell_scale, unscaled) = split(cell)?;
    if cell_scale > i32::from(scale) {
        return Err("a decimal with more digits after the point than its column");
    }
    let mut digits = Digits::of(unscaled.unsigned_abs());
    let fraction = usize::try_from(cell_scale).unwrap_or(0);
    digits.append_zeros(usize::try_from(-i64::from(cell_scale)).unwrap_or(0))?;
    if digits.len().saturating_sub(fraction) > usize::from(precision - scale) {
        return Err("a decimal with more digits before the point than its column");
    }
    digits.append_zeros((GROUP - fraction % GROUP) % GROUP)?;
    encode(out, digits.as_slice(), fraction, unscaled < 0);
    Ok(())
}

/// Splits a cell into scale and unscaled value; accepts redundant sign bytes.
fn split(cell: &[u8]) -> Result<(i32, i128), &'static str> {
    let (scale, unscaled) = cell
        .split_first_chunk::<4>()
        .ok_or("a decimal shorter than its scale")?;
    let (first, _) = unscaled
        .split_first()
        .ok_or("a decimal without an unscaled value")?;
    let sign = if first & 0x80 == 0 { 0x00 } else { 0xff };
    let extra = unscaled.len().saturating_sub(16);
    let (head, tail) = unscaled.split_at(extra);
    let mut bytes = [sign; 16];
    bytes[16 - tail.len()..].copy_from_slice(tail);
    let value = i128::from_be_bytes(bytes);
    if head.iter().any(|byte| *byte != sign) || (value < 0) != (sign == 0xff) {
        return Err("a decimal of more than 38 digits");
    }
    Ok((i32::from_be_bytes(*scale), value))
}

/// Decimal digits, most significant first, without leading zeros; empty for zero.
struct Digits {
    digits: [u8; MAX_DIGITS],
    len: usize,
}

impl Digits {
    fn of(mut value: u128) -> Self {
        let mut reversed = [0_u8; 40];
        let mut len = 0;
        while value > 0 {
            reversed[len] = u8::try_from(value % 10).expect("a digit is below 10");
            value /= 10;
            len += 1;
        }
        let mut digits = [0; MAX_DIGITS];
        for (to, from) in digits.iter_mut().zip(reversed[..len].iter().rev()) {
            *to = *from;
        }
        Self { digits, len }
    }

    fn len(&self) -> usize {
        self.len
    }

    fn as_slice(&self) -> &[u8] {
        &self.digits[..self.len]
    }

    /// Multiplies by a power of ten; zero stays zero.
    fn append_zeros(&mut self, zeros: usize) -> Result<(), &'static str> {
        if self.len == 0 {
            return Ok(());
        }
        if zeros > MAX_DIGITS - self.len {
            return Err("a decimal of more digits than its column");
        }
        self.len += zeros;
        Ok(())
    }
}

/// Appends length and value; `digits` ends at a group border, `fraction` digits of the value lie behind the
/// point.
fn encode(out: &mut Vec<u8>, digits: &[u8], fraction: usize, negative: bool) {
    let mut groups = [0_u16; MAX_DIGITS / GROUP + 1];
    let mut count = 0;
    let first = match digits.len() % GROUP {
        0 => GROUP,
        rest => rest,
    };
    let mut rest = digits;
    while !rest.is_empty() {
        let take = if count == 0 { first } else { GROUP };
        let (group, tail) = rest.split_at(take.min(rest.len()));
        groups[count] = group
            .iter()
            .fold(0, |sum, digit| sum * 10 + u16::from(*digit));
        count += 1;
        rest = tail;
    }
    let fraction_groups = fraction.div_ceil(GROUP);
    let weight = i16::try_from(count).expect("at most 21 groups")
        - i16::try_from(fraction_groups).expect("at most 10 groups: a scale is at most 38")
        - 1;
    while count > 0 && groups[count - 1] == 0 {
        count -= 1;
    }
    let groups = &groups[..count];
    let words = |value: usize| u16::try_from(value).expect("at most 38");
    let length = i32::try_from(8 + 2 * groups.len()).expect("at most 50 bytes");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&words(groups.len()).to_be_bytes());
    let weight = if groups.is_empty() { 0 } else { weight };
    out.extend_from_slice(&weight.to_be_bytes());
    out.extend_from_slice(&if negative { NEGATIVE } else { 0 }.to_be_bytes());
    out.extend_from_slice(&words(fraction).to_be_bytes());
    for group in groups {
        out.extend_from_slice(&group.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    pub(super) fn cell(scale: i32, unscaled: i128) -> Vec<u8> {
        let mut cell = scale.to_be_bytes().to_vec();
        cell.extend_from_slice(&unscaled.to_be_bytes());
        cell
    }

    /// Decodes the binary form the way the server does.
    fn decoded(bytes: &[u8]) -> String {
        let words: Vec<i16> = bytes[4..]
            .chunks(2)
            .map(|pair| i16::from_be_bytes([pair[0], pair[1]]))
            .collect();
        assert_eq!(
            usize::try_from(i32::from_be_bytes(bytes[..4].try_into().unwrap())).unwrap(),
            bytes.len() - 4
        );
        assert_eq!(usize::try_from(words[0]).unwrap(), words.len() - 4);
        let (weight, fraction) = (i32::from(words[1]), usize::try_from(words[3]).unwrap());
        let digit_at = |group: i32| -> i16 {
            usize::try_from(weight - group)
                .ok()
                .and_then(|at| words.get(4 + at))
                .copied()
                .unwrap_or(0)
        };
        let mut whole = String::new();
        for group in (0..=weight.max(0)).rev() {
            whole.push_str(&format!("{:04}", digit_at(group)));
        }
        let mut part = String::new();
        for group in 1..=i32::try_from(fraction.div_ceil(4)).unwrap() {
            part.push_str(&format!("{:04}", digit_at(-group)));
        }
        part.truncate(fraction);
        let whole = whole.trim_start_matches('0');
        let sign = if words[2] == 0 { "" } else { "-" };
        let whole = if whole.is_empty() { "0" } else { whole };
        let point = if fraction == 0 { "" } else { "." };
        format!("{sign}{whole}{point}{part}")
    }

    #[test]
    fn the_server_reads_what_was_written() {
        for (scale, unscaled, expected) in [
            (0, 0, "0"),
            (2, 0, "0.00"),
            (0, 10_000, "10000"),
            (2, 12_345, "123.45"),
            (2, -5, "-0.05"),
            (5, 123_456_789, "1234.56789"),
            (4, 10_000, "1.0000"),
            (-3, 12, "12000"),
            (10, -1, "-0.0000000001"),
            (
                0,
                99_999_999_999_999_999_999_999_999_999_999_999_999,
                &"9".repeat(38),
            ),
        ] {
            let cell = cell(scale, unscaled);
            let mut out = Vec::new();
            put(&mut out, &cell, 38, u8::try_from(scale.max(0)).unwrap()).unwrap();
            assert_eq!(decoded(&out), expected);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let refused = |cell: &[u8]| put(&mut Vec::new(), cell, 4, 2).is_err();
        assert!(refused(&cell(3, 1)), "would be rounded");
        assert!(refused(&cell(0, 100)), "three digits before the point");
        assert!(!refused(&cell(0, 99)));
        assert!(refused(&cell(i32::MIN, 1)));
        assert!(!refused(&cell(i32::MIN, 0)), "zero at any scale is zero");
        assert!(refused(b"\0\0\0"));
        assert!(refused(b"\0\0\0\0"));
        assert!(refused(&[
            0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
        ]));
        assert!(!refused(&[
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7
        ]));
    }
}
