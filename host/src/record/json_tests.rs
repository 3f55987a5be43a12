//! Tests of the JSON scanner, most of them against `serde_json`.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
use super::*;
use proptest::prelude::*;

fn reference(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

#[test]
fn agrees_with_serde_json_on_what_is_json() {
    for text in [
        "",
        " ",
        "null",
        "nul",
        "nulll",
        "true false",
        "0",
        "-0",
        "01",
        "-",
        "1.",
        ".5",
        "+1",
        "1e5",
        "1e",
        "1e+",
        "1E-07",
        "1.5e3",
        "\"",
        "\"a\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u00e9\"",
        "\"\\ud83d\\ude00\"",
        "\"tab\there\"",
        "\"\u{1}\"",
        "[]",
        "[ ]",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{}",
        "{ }",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{\"a\":1 \"b\":2}",
        "{a:1}",
        "[}",
        "{]",
        "[1",
        "{\"a\":[{\"b\":null},[true,[]]]} ",
        "\u{feff}1",
        "NaN",
        "[[]",
        "[[],[{}],{\"x\":{}}]",
        "\"long enough for two words of eight bytes \\n and more\"",
    ] {
        assert_eq!(check(text).is_ok(), reference(text), "{text:?}");
    }
}

#[test]
fn depth_is_bounded() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert!(check(&nested(127)).is_ok());
    assert!(check(&nested(128)).is_err());
    assert!(check(&"[".repeat(100_000)).is_err());
    assert!(check(&"{\"a\":".repeat(100_000)).is_err());
}

#[test]
fn strings_unescape_and_oddities_are_seen() {
    let text = r#""a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00z""#;
    let string = Scanner::new(text).string().unwrap();
    let mut out = Vec::new();
    string.unescape(&mut out).unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        serde_json::from_str::<String>(text).unwrap()
    );
    assert!(check(r#"["\u0000"]"#).unwrap().nul);
    for lone in [r#""\ud800""#, r#""\udc00x""#, r#""\ud800\u0041""#] {
        assert!(check(lone).unwrap().lone_surrogate, "{lone}");
        let string = Scanner::new(lone).string().unwrap();
        assert_eq!(string.unescape(&mut Vec::new()), Err(LoneSurrogate));
    }
    assert_eq!(check(r#""\ud83d\ude00""#).unwrap(), Oddities::default());
}

fn jsonish() -> impl Strategy<Value = String> {
    proptest::collection::vec(
        prop_oneof![
            Just("{".to_owned()),
            Just("}".to_owned()),
            Just("[".to_owned()),
            Just("]".to_owned()),
            Just(",".to_owned()),
            Just(":".to_owned()),
            Just("\"a\"".to_owned()),
            Just("\"\\u0041é\"".to_owned()),
            Just("-1.5e3".to_owned()),
            Just("0".to_owned()),
            Just("null".to_owned()),
            Just("true".to_owned()),
            Just(" ".to_owned()),
            "\\PC{0,3}",
        ],
        0..12,
    )
    .prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn never_disagrees_with_serde_json(text in jsonish()) {
        prop_assert_eq!(check(&text).is_ok(), reference(&text));
    }

    #[test]
    fn strings_round_trip_through_serde_json(text in ".*") {
        let quoted = serde_json::to_string(&text).unwrap();
        let string = Scanner::new(&quoted).string().unwrap();
        let mut out = Vec::new();
        string.unescape(&mut out).unwrap();
        prop_assert_eq!(out, text.into_bytes());
    }

    #[test]
    fn integers_read_exactly(value: i64) {
        let text = value.to_string();
        prop_assert_eq!(Scanner::new(&text).number().unwrap().as_i64(), Some(value));
    }
}
