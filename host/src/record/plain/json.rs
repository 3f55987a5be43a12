//! JSON in one form: names ascending and each once (the last counts), numbers shortest, texts without needless escapes.
//!
//! Its own reader, so that a check does not lean on the code it checks. Numbers never go through a binary float.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Deeper than any JSON that a record may hold (see [`crate::record::json::MAX_DEPTH`]).
const MAX_DEPTH: usize = 256;

/// The text in its one form; `None` where it is no JSON.
pub(super) fn canonical(text: &str) -> Option<String> {
    let mut reader = Reader {
        rest: text,
        depth: 0,
    };
    let mut out = String::with_capacity(text.len());
    reader.value(&mut out)?;
    reader.skip();
    reader.rest.is_empty().then_some(out)
}

struct Reader<'a> {
    rest: &'a str,
    depth: usize,
}

impl Reader<'_> {
    fn skip(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn take(&mut self, token: &str) -> Option<()> {
        self.skip();
        self.rest = self.rest.strip_prefix(token)?;
        Some(())
    }

    fn value(&mut self, out: &mut String) -> Option<()> {
        self.skip();
        match self.rest.as_bytes().first()? {
            b'{' => self.nested(|reader| reader.object(out)),
            b'[' => self.nested(|reader| reader.array(out)),
            b'"' => {
                let text = self.text()?;
                quote(out, &text);
                Some(())
            }
            b't' => self.word("true", out),
            b'f' => self.word("false", out),
            b'n' => self.word("null", out),
            _ => self.number(out),
        }
    }

    fn nested(&mut self, read: impl FnOnce(&mut Self) -> Option<()>) -> Option<()> {
        self.depth += 1;
        let read = (self.depth <= MAX_DEPTH).then(|| read(self)).flatten();
        self.depth -= 1;
        read
    }

    fn word(&mut self, word: &str, out: &mut String) -> Option<()> {
        self.take(word)?;
        out.push_str(word);
        Some(())
    }

    fn object(&mut self, out: &mut String) -> Option<()> {
        self.take("{")?;
        let mut items = BTreeMap::new();
        if self.take("}").is_none() {
            loop {
                self.skip();
                let name = self.text()?;
                self.take(":")?;
                let mut value = String::new();
                self.value(&mut value)?;
                items.insert(name, value);
                if self.take(",").is_none() {
                    break;
                }
            }
            self.take("}")?;
        }
        out.push('{');
        for (at, (name, value)) in items.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            quote(out, name);
            out.push(':');
            out.push_str(value);
        }
        out.push('}');
        Some(())
    }

    fn array(&mut self, out: &mut String) -> Option<()> {
        self.take("[")?;
        out.push('[');
        if self.take("]").is_none() {
            loop {
                self.value(out)?;
                if self.take(",").is_none() {
                    break;
                }
                out.push(',');
            }
            self.take("]")?;
        }
        out.push(']');
        Some(())
    }

    fn number(&mut self, out: &mut String) -> Option<()> {
        let end = self
            .rest
            .find(|c: char| !matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E'))
            .unwrap_or(self.rest.len());
        let (number, rest) = self.rest.split_at(end);
        if number.is_empty() {
            return None;
        }
        self.rest = rest;
        match super::decimal(number) {
            Some(number) => write!(out, "{number}").ok(),
            // More digits than are counted here: as it is written.
            None => {
                out.push_str(number);
                Some(())
            }
        }
    }

    fn text(&mut self) -> Option<String> {
        self.rest = self.rest.strip_prefix('"')?;
        let mut text = String::new();
        loop {
            let at = self.rest.find(['"', '\\'])?;
            text.push_str(&self.rest[..at]);
            let escape = self.rest.as_bytes()[at] == b'\\';
            self.rest = &self.rest[at + 1..];
            if !escape {
                return Some(text);
            }
            let mut chars = self.rest.chars();
            let escaped = chars.next()?;
            self.rest = chars.as_str();
            text.push(match escaped {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'b' => '\u{8}',
                'f' => '\u{c}',
                'u' => self.unicode()?,
                other => other,
            });
        }
    }

    fn unicode(&mut self) -> Option<char> {
        let high = self.unit()?;
        if !(0xd800..0xdc00).contains(&high) {
            return char::from_u32(high);
        }
        self.rest = self.rest.strip_prefix("\\u")?;
        let low = self.unit()?;
        let low = (0xdc00..0xe000).contains(&low).then_some(low)?;
        char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00))
    }

    fn unit(&mut self) -> Option<u32> {
        let unit = u32::from_str_radix(self.rest.get(..4)?, 16).ok()?;
        self.rest = &self.rest[4..];
        Some(unit)
    }
}

fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => {
                write!(out, "\\u{:04x}", u32::from(c)).expect("a String takes every write");
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn what_jsonb_holds_to_be_the_same_reads_the_same() {
        for (one, other) in [
            (
                r#" { "b" : [ 1 , 2.50 ] , "a" : "\u0041\/" } "#,
                r#"{"a":"A/","b":[1,2.5]}"#,
            ),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            ("1e2", "100"),
            ("-0.0", "0"),
            (r#""\ud83d\ude00""#, r#""😀""#),
            ("[]", "[ ]"),
            ("{}", "{ }"),
            ("0.1000000000000000001", "0.10000000000000000010"),
        ] {
            assert_eq!(canonical(one), canonical(other), "{one} {other}");
            assert!(canonical(one).is_some(), "{one}");
        }
    }

    #[test]
    fn what_differs_reads_otherwise() {
        for (one, other) in [
            ("1", "\"1\""),
            ("0.1000000000000000001", "0.1"),
            ("[1,2]", "[2,1]"),
            ("null", "{}"),
            (r#""a\\n""#, r#""a\n""#),
        ] {
            assert_ne!(canonical(one), canonical(other), "{one} {other}");
        }
    }

    #[test]
    fn what_is_no_json_is_told() {
        for text in ["", "{", "[1,]", "\"\\ud800\"", "tru", "1 2", "{\"a\" 1}"] {
            assert_eq!(canonical(text), None, "{text}");
        }
        assert_eq!(canonical(&"[".repeat(100_000)), None);
    }
}
