//! Lines of text to captures: bytes in any WHATWG encoding, one line ending stripped, one regular expression.
//!
//! Owns the pattern and its buffers. Refused: byte sequences the encoding does not know (nothing is
//! replaced), lines the pattern does not match. A capture that takes no part in the match is absent.

use encoding_rs::{DecoderResult, Encoding, UTF_8};
use regex::{CaptureLocations, Regex};

use super::fail::{Fail, Part};
use super::scalar::excerpt;
use crate::manifest::TextFormat;

/// Reads lines; holds the line last read.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    encoding: &'static Encoding,
    pattern: Option<(Regex, CaptureLocations)>,
    /// The line last read, when it had to be converted.
    converted: Vec<u8>,
}

/// A line and its captures.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    text: &'a str,
    captures: Option<&'a CaptureLocations>,
}

impl Lines {
    /// `Err` explains the encoding or pattern that is none.
    pub(super) fn compile(format: &TextFormat) -> Result<Self, String> {
        let encoding = Encoding::for_label(format.encoding.as_bytes())
            .ok_or_else(|| format!("encoding {:?} is not known", format.encoding))?;
        let pattern = match &format.pattern {
            Some(pattern) => {
                let regex = Regex::new(pattern).map_err(|error| error.to_string())?;
                let captures = regex.capture_locations();
                Some((regex, captures))
            }
            None => None,
        };
        Ok(Self {
            encoding,
            pattern,
            converted: Vec::new(),
        })
    }

    /// The number of a named capture.
    pub(super) fn capture(&self, name: &str) -> Option<usize> {
        let (regex, _) = self.pattern.as_ref()?;
        regex
            .capture_names()
            .position(|capture| capture == Some(name))
    }

    /// Converts, strips one LF or CRLF, and matches.
    pub(super) fn read<'a>(&'a mut self, value: &'a [u8]) -> Result<Line<'a>, Fail> {
        let text = if self.encoding == UTF_8 {
            std::str::from_utf8(value).ok()
        } else {
            convert(self.encoding, value, &mut self.converted)
        };
        let Some(text) = text else {
            let what = format!("not valid {}", self.encoding.name());
            return Err(Fail::malformed(Part::Value, what));
        };
        let text = match text.strip_suffix('\n') {
            Some(line) => line.strip_suffix('\r').unwrap_or(line),
            None => text,
        };
        let captures = match &mut self.pattern {
            None => None,
            Some((regex, captures)) => {
                if regex.captures_read(captures, text).is_none() {
                    let what = format!("a line the pattern does not match: {}", excerpt(text));
                    return Err(Fail::malformed(Part::Value, what));
                }
                Some(&*captures)
            }
        };
        Ok(Line { text, captures })
    }
}

impl<'a> Line<'a> {
    /// The whole line without its ending.
    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    /// What the capture took, `None` when it took no part.
    pub(super) fn capture(&self, number: usize) -> Option<&'a str> {
        let (from, to) = self.captures?.get(number)?;
        Some(&self.text[from..to])
    }
}

/// Converts all of `bytes` into `buffer`; `None` for a malformed sequence.
fn convert<'a>(
    encoding: &'static Encoding,
    bytes: &[u8],
    buffer: &'a mut Vec<u8>,
) -> Option<&'a str> {
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let room = decoder.max_utf8_buffer_length_without_replacement(bytes.len())?;
    buffer.clear();
    buffer.resize(room, 0);
    let (result, _, written) = decoder.decode_to_utf8_without_replacement(bytes, buffer, true);
    if result != DecoderResult::InputEmpty {
        return None;
    }
    std::str::from_utf8(&buffer[..written]).ok()
}
