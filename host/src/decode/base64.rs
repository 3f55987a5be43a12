//! Base64 of RFC 4648 §4, strictly: standard alphabet, padded, no white space, no bits left over.

/// Appends the bytes that `text` stands for; `None` when it is not base64 (`out` may then hold a part).
pub(super) fn decode(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    if padding > 2 {
        return None;
    }
    for group in text[..text.len() - padding].chunks(4) {
        let mut bits = 0_u32;
        for byte in group {
            bits = (bits << 6) | u32::from(value(*byte)?);
        }
        bits <<= 6 * (4 - group.len());
        let [_, bytes @ ..] = bits.to_be_bytes();
        let (kept, rest) = bytes.split_at(group.len() - 1);
        if rest.iter().any(|byte| *byte != 0) {
            return None;
        }
        out.extend_from_slice(kept);
    }
    Some(())
}

fn value(byte: u8) -> Option<u8> {
    Some(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use proptest::prelude::*;

    fn decoded(text: &str) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        decode(text.as_bytes(), &mut out).map(|()| out)
    }

    #[test]
    fn vectors_of_rfc_4648_and_nothing_else() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(decoded(text).unwrap(), bytes.as_bytes());
        }
        assert_eq!(decoded("+/+/").unwrap(), [0xfb, 0xff, 0xbf]);
        for text in [
            "Zg", "Zg=", "Z===", "====", "Zh==", "Zm9=", "Zg==Zg==", "Zm 9", "-_-_", "Zm9v\n",
        ] {
            assert_eq!(decoded(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(text: Vec<u8>) {
            let mut out = Vec::new();
            if decode(&text, &mut out).is_some() {
                prop_assert_eq!(out.len(), text.len() / 4 * 3 - text.iter().filter(|byte| **byte == b'=').count());
            }
        }
    }
}
