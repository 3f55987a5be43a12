//! The JSON grammar (RFC 8259), once: a scanner that walks one value and copies nothing.
//!
//! It owns what is and what is not JSON: the cell check uses it to judge, the decoder to find its fields. What a string
//! or a number stands for, [`Str`] and [`Number`] tell. It never builds a tree, never recurses and never allocates.
//! Refused: trailing bytes, control characters in strings, numbers such as `01`, `+1`, `.5`, `1.`, `NaN`, and more than
//! [`MAX_DEPTH`] levels. Text that is not UTF-8 cannot get here (`&str`).

mod token;

use token::unit_at;
pub use token::{LoneSurrogate, Number, Str};

/// Greatest depth of nested arrays and objects; `serde_json` stops at the same one.
pub const MAX_DEPTH: u32 = 127;

/// Text that is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct Malformed {
    /// Byte position from the start of the text.
    pub at: usize,
    /// What stands there, or what is missing.
    pub what: &'static str,
}

/// What a valid JSON text contains that some readers of JSON refuse (Postgres `jsonb` does).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Oddities {
    /// A string holds `\u0000`.
    pub nul: bool,
    /// A string holds half a surrogate pair.
    pub lone_surrogate: bool,
}

/// Walks one JSON text from its start.
#[derive(Clone, Debug)]
pub struct Scanner<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
    oddities: Oddities,
}

/// Checks that `text` is one JSON value with nothing but white space around it.
///
/// # Errors
/// Where it stops being JSON.
pub fn check(text: &str) -> Result<Oddities, Malformed> {
    let mut scanner = Scanner::new(text);
    scanner.skip_value()?;
    scanner.finish()?;
    Ok(scanner.oddities)
}

impl<'a> Scanner<'a> {
    /// A scanner before the first byte of `text`.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            depth: 0,
            oddities: Oddities::default(),
        }
    }

    /// Position in bytes.
    #[must_use]
    pub fn at(&self) -> usize {
        self.at
    }

    /// Goes back to a position [`Scanner::at`] gave, at the same depth.
    pub fn rewind(&mut self, at: usize) {
        self.at = at;
    }

    /// The text from `from` to here.
    #[must_use]
    pub fn since(&self, from: usize) -> &'a str {
        &self.text[from..self.at]
    }

    /// The next byte that is not white space, not taken; `None` at the end.
    #[inline]
    pub fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            match byte {
                b' ' | b'\n' | b'\r' | b'\t' => self.at += 1,
                byte => return Some(*byte),
            }
        }
        None
    }

    /// Takes the byte `peek` has just shown.
    #[inline]
    pub fn take(&mut self) {
        self.at += 1;
    }

    /// Takes `byte`, which has to come next.
    ///
    /// # Errors
    /// `what` when something else comes.
    #[inline]
    pub fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), Malformed> {
        if self.peek() == Some(byte) {
            self.at += 1;
            Ok(())
        } else {
            Err(self.malformed(what))
        }
    }

    /// Takes the bracket that opens an array or object.
    ///
    /// # Errors
    /// Deeper than [`MAX_DEPTH`].
    #[inline]
    pub fn enter(&mut self) -> Result<(), Malformed> {
        if self.depth == MAX_DEPTH {
            return Err(self.malformed("more than 127 nested levels"));
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    /// Takes the bracket that closes it.
    #[inline]
    pub fn leave(&mut self) {
        self.depth -= 1;
        self.at += 1;
    }

    /// After an element: takes a comma (true) or the closing bracket (false).
    ///
    /// # Errors
    /// Anything else comes.
    #[inline]
    pub fn more(&mut self, close: u8) -> Result<bool, Malformed> {
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(byte) if byte == close => {
                self.leave();
                Ok(false)
            }
            _ => Err(self.malformed("no comma or closing bracket")),
        }
    }

    /// Takes a key and its colon.
    ///
    /// # Errors
    /// No key, or no colon.
    #[inline]
    pub fn key(&mut self) -> Result<Str<'a>, Malformed> {
        if self.peek() != Some(b'"') {
            return Err(self.malformed("no key"));
        }
        let key = self.string()?;
        self.expect(b':', "no colon after a key")?;
        Ok(key)
    }

    /// Takes the string whose opening quote comes next.
    ///
    /// # Errors
    /// It has no end, a bad escape or a control character.
    #[inline]
    pub fn string(&mut self) -> Result<Str<'a>, Malformed> {
        let start = self.at + 1;
        self.at = start;
        let mut escaped = false;
        loop {
            self.at = plain_until(self.text.as_bytes(), self.at);
            match self.text.as_bytes().get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(self.malformed("a control character in a string")),
                None => return Err(self.malformed("a string without end")),
            }
        }
        let raw = &self.text[start..self.at];
        self.at += 1;
        Ok(Str { raw, escaped })
    }

    #[cold]
    fn escape(&mut self) -> Result<(), Malformed> {
        match self.text.as_bytes().get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let Some(unit) = unit_at(self.text.as_bytes(), self.at) else {
                    return Err(self.malformed("a bad escape"));
                };
                self.at += 6;
                match unit {
                    0 => self.oddities.nul = true,
                    0xd800..0xdc00 => match unit_at(self.text.as_bytes(), self.at) {
                        Some(0xdc00..0xe000) => self.at += 6,
                        _ => self.oddities.lone_surrogate = true,
                    },
                    0xdc00..0xe000 => self.oddities.lone_surrogate = true,
                    _ => {}
                }
            }
            _ => return Err(self.malformed("a bad escape")),
        }
        Ok(())
    }

    /// Takes the number whose first byte (a digit or `-`) comes next.
    ///
    /// # Errors
    /// It is not a JSON number.
    #[inline]
    pub fn number(&mut self) -> Result<Number<'a>, Malformed> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let mut at = start + usize::from(bytes.get(start) == Some(&b'-'));
        let mut integer = true;
        at = match bytes.get(at) {
            Some(b'0') => at + 1,
            Some(b'1'..=b'9') => digits(bytes, at + 1),
            _ => return Err(self.malformed("a bad number")),
        };
        if bytes.get(at) == Some(&b'.') {
            integer = false;
            at = self.some_digits(at + 1)?;
        }
        if let Some(b'e' | b'E') = bytes.get(at) {
            integer = false;
            at += 1;
            at += usize::from(matches!(bytes.get(at), Some(b'+' | b'-')));
            at = self.some_digits(at)?;
        }
        if let Some(b'0'..=b'9') = bytes.get(at) {
            return Err(self.malformed("a number with a leading zero"));
        }
        self.at = at;
        Ok(Number {
            raw: &self.text[start..at],
            integer,
        })
    }

    fn some_digits(&self, from: usize) -> Result<usize, Malformed> {
        let to = digits(self.text.as_bytes(), from);
        if to == from {
            return Err(self.malformed("a bad number"));
        }
        Ok(to)
    }

    /// Takes `true`, `false` or `null`.
    ///
    /// # Errors
    /// Something else comes.
    #[inline]
    pub fn literal(&mut self, word: &'static str) -> Result<(), Malformed> {
        if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(())
        } else {
            Err(self.malformed("no JSON value"))
        }
    }

    /// Takes one whole value, whatever it is.
    ///
    /// # Errors
    /// It is not JSON.
    pub fn skip_value(&mut self) -> Result<(), Malformed> {
        let outside = self.depth;
        // Bit n: whether the n-th level below `outside` is an object.
        let mut objects = 0_u128;
        loop {
            let opened = match self.peek() {
                Some(b'"') => {
                    self.string()?;
                    false
                }
                Some(b'-' | b'0'..=b'9') => {
                    self.number()?;
                    false
                }
                Some(b'{') => {
                    self.enter()?;
                    objects = (objects << 1) | 1;
                    true
                }
                Some(b'[') => {
                    self.enter()?;
                    objects <<= 1;
                    true
                }
                Some(b't') => {
                    self.literal("true")?;
                    false
                }
                Some(b'f') => {
                    self.literal("false")?;
                    false
                }
                Some(b'n') => {
                    self.literal("null")?;
                    false
                }
                _ => return Err(self.malformed("no JSON value")),
            };
            let mut first = opened;
            loop {
                if self.depth == outside {
                    return Ok(());
                }
                let object = objects & 1 == 1;
                let close = if object { b'}' } else { b']' };
                let another = if first {
                    self.peek() != Some(close)
                } else {
                    self.more(close)?
                };
                if another {
                    if object {
                        self.key()?;
                    }
                    break;
                }
                if first {
                    self.leave();
                    first = false;
                }
                objects >>= 1;
            }
        }
    }

    /// Checks that nothing but white space is left.
    ///
    /// # Errors
    /// Something is.
    pub fn finish(&mut self) -> Result<(), Malformed> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.malformed("more after the end of the value")),
        }
    }

    /// What was met so far.
    #[must_use]
    pub fn oddities(&self) -> Oddities {
        self.oddities
    }

    /// A fault at the current position.
    #[cold]
    #[must_use]
    pub fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { at: self.at, what }
    }
}

#[inline]
fn digits(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b'0'..=b'9') = bytes.get(at) {
        at += 1;
    }
    at
}

/// First position at or after `at` of a quote, a backslash or a control character, eight bytes a step.
#[inline]
fn plain_until(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::MAX / 255;
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        // A borrow marks bytes above the first hit at most, so the lowest mark is always right.
        let below = |word: u64, than: u8| word.wrapping_sub(ONES * u64::from(than)) & !word;
        let hit = below(word, 0x20)
            | below(word ^ (ONES * u64::from(b'"')), 1)
            | below(word ^ (ONES * u64::from(b'\\')), 1);
        let hit = hit & (ONES << 7);
        if hit != 0 {
            return at + hit.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while let Some(byte) = bytes.get(at) {
        if *byte < 0x20 || *byte == b'"' || *byte == b'\\' {
            break;
        }
        at += 1;
    }
    at
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
