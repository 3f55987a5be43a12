//! Strings and numbers as a JSON text writes them, and what they stand for.
//!
//! It knows escapes and digits. Where a token begins and ends the scanner has found out, so all that can fail here is
//! half a surrogate pair. It allocates nowhere but in the caller's buffer.

/// The inside of a string as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Str<'a> {
    /// Between the quotes.
    pub raw: &'a str,
    /// Whether `raw` contains escapes.
    pub escaped: bool,
}

/// A number as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number<'a> {
    /// All of it.
    pub raw: &'a str,
    /// Whether it has neither fraction nor exponent.
    pub integer: bool,
}

/// A `\u` escape of half a surrogate pair: legal JSON that no UTF-8 text can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoneSurrogate;

impl Str<'_> {
    /// Appends the string's text.
    ///
    /// # Errors
    /// An escape stands for half a surrogate pair; `out` then holds the text before it.
    pub fn unescape(&self, out: &mut Vec<u8>) -> Result<(), LoneSurrogate> {
        let mut rest = self.raw;
        while let Some(at) = rest.find('\\') {
            out.extend_from_slice(&rest.as_bytes()[..at]);
            let escape = rest.as_bytes()[at + 1];
            let mut taken = at + 2;
            let plain = match escape {
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'u' => {
                    let (letter, length) = letter_at(rest.as_bytes(), at).ok_or(LoneSurrogate)?;
                    taken = at + length;
                    out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                    rest = &rest[taken..];
                    continue;
                }
                same => same,
            };
            out.push(plain);
            rest = &rest[taken..];
        }
        out.extend_from_slice(rest.as_bytes());
        Ok(())
    }
}

impl Number<'_> {
    /// Its value, when it is written as an integer and fits.
    #[inline]
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        if !self.integer {
            return None;
        }
        let bytes = self.raw.as_bytes();
        let negative = bytes[0] == b'-';
        if bytes.len() > 18 {
            return self.raw.parse().ok();
        }
        let value = bytes[usize::from(negative)..]
            .iter()
            .fold(0_i64, |sum, digit| sum * 10 + i64::from(digit - b'0'));
        Some(if negative { -value } else { value })
    }
}

/// The character of the `\u` escape (or pair of them) at `at`, and how many bytes it takes.
fn letter_at(bytes: &[u8], at: usize) -> Option<(char, usize)> {
    let first = unit_at(bytes, at)?;
    if let Some(letter) = char::from_u32(u32::from(first)) {
        return Some((letter, 6));
    }
    let second = unit_at(bytes, at + 6)?;
    let letter = char::decode_utf16([first, second]).next()?.ok()?;
    Some((letter, 12))
}

/// The four hex digits of the `\u` escape at `at`.
pub(super) fn unit_at(bytes: &[u8], at: usize) -> Option<u16> {
    let [b'\\', b'u', hex @ ..] = bytes.get(at..at + 6)? else {
        return None;
    };
    hex.iter().try_fold(0_u16, |unit, digit| {
        let value = char::from(*digit).to_digit(16)?;
        Some((unit << 4) | u16::try_from(value).expect("a hex digit is below 16"))
    })
}
