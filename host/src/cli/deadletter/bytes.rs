//! Bytes of unknown origin as a person reads them on a terminal: text where they are text, a hex dump otherwise, and
//! never anything that a terminal obeys. Pure.

/// Bytes a line of a dump.
const LINE: usize = 16;

/// What comes from a record or a plugin, on one line: control characters as escapes.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            out.extend(letter.escape_default());
        } else {
            out.push(letter);
        }
    }
    out
}

/// The text that bytes are: UTF-8 without control characters but line ends and tabs.
pub(super) fn text(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let odd = |letter: char| letter.is_control() && !matches!(letter, '\n' | '\r' | '\t');
    (!text.contains(odd)).then_some(text)
}

/// Bytes as lines, each indented.
pub(super) fn lines(bytes: &[u8]) -> Vec<String> {
    match text(bytes) {
        Some(text) => text
            .lines()
            .map(|line| format!("  {}", line.trim_end_matches('\r')))
            .collect(),
        None => dump(bytes),
    }
}

/// A hex dump: where, what, and what of it is printable.
fn dump(bytes: &[u8]) -> Vec<String> {
    let line = |(at, bytes): (usize, &[u8])| {
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let printable = |byte: &u8| match byte {
            b' '..=b'~' => char::from(*byte),
            _ => '.',
        };
        let shown: String = bytes.iter().map(printable).collect();
        format!("  {:08x}  {:<47}  |{shown}|", at * LINE, hex.join(" "))
    };
    bytes.chunks(LINE).enumerate().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_text_and_the_rest_is_a_dump() {
        assert_eq!(lines("{\"a\":\n1}".as_bytes()), ["  {\"a\":", "  1}"]);
        assert_eq!(lines("größe".as_bytes()), ["  größe"]);
        assert_eq!(
            lines(b"\x1b[31mred\xff and what follows"),
            [
                "  00000000  1b 5b 33 31 6d 72 65 64 ff 20 61 6e 64 20 77 68  |.[31mred. and wh|",
                "  00000010  61 74 20 66 6f 6c 6c 6f 77 73                    |at follows|",
            ]
        );
        assert_eq!(lines(b""), Vec::<String>::new());
    }

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through() {
        assert_eq!(plain("a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(text(b"\x1b[2J"), None);
    }
}
