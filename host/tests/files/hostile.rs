//! Texts and components nobody would write: whatever comes in, a value or findings come out.

use proptest::prelude::*;
use proptest::sample::Index;
use wasmill::config::Config;
use wasmill::manifest::{Manifest, embed, extract};
use wasmill::toml_check::Look;

const MANIFEST: &str = include_str!("../golden/manifest/ok-full.toml");
const DESCRIBE: &str = include_str!("../golden/manifest/default.describe.json");
const CONFIG: &str = include_str!("../golden/config/ok-full.toml");

/// Pieces that mean something to the parsers, and some that break them.
const PIECES: [&str; 24] = [
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    "\"",
    "'''",
    "\n",
    ".",
    ",",
    "#",
    "ü",
    "\u{0}",
    "\u{1F980}",
    "-1",
    "1e400",
    "0x_",
    "true",
    "key",
    "route",
    "99999999999999999999",
    "null",
];

#[derive(Clone, Debug)]
enum Change {
    Insert(Index, usize),
    Remove(Index, Index),
    Double(Index, Index),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let one = prop_oneof![
        (any::<Index>(), 0..PIECES.len()).prop_map(|(at, piece)| Change::Insert(at, piece)),
        (any::<Index>(), any::<Index>()).prop_map(|(a, b)| Change::Remove(a, b)),
        (any::<Index>(), any::<Index>()).prop_map(|(a, b)| Change::Double(a, b)),
    ];
    prop::collection::vec(one, 1..4)
}

/// Applies changes at character boundaries; ranges are short so that most of the file survives.
fn changed(text: &str, changes: &[Change]) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for change in changes {
        let at = |index: &Index| index.index(chars.len() + 1);
        let range = |from: &Index, length: &Index| {
            let from = at(from);
            from..(from + length.index(40)).min(chars.len())
        };
        match change {
            Change::Insert(index, piece) => {
                let at = at(index);
                chars.splice(at..at, PIECES[*piece].chars());
            }
            Change::Remove(from, length) => {
                chars.drain(range(from, length));
            }
            Change::Double(from, length) => {
                let range = range(from, length);
                let copy: Vec<char> = chars[range.clone()].to_vec();
                chars.splice(range.end..range.end, copy);
            }
        }
    }
    chars.into_iter().collect()
}

/// Checks and renders; findings are never empty and always print.
fn check_all(toml: &str, describe: &str) {
    let env = |name: &str| Some(format!("value of {name}"));
    let problems = [
        Manifest::check(toml, describe).err(),
        Manifest::check_without_describe(toml).err(),
        Config::check(toml, &env).err(),
    ];
    for problems in problems.into_iter().flatten() {
        assert!(!problems.found().is_empty());
        assert!(problems.render(Look::Plain).len() > 5);
        assert!(problems.render(Look::Colour).len() > 5);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_text_is_answered(toml in "\\PC{0,200}", describe in "\\PC{0,200}") {
        check_all(&toml, &describe);
    }

    #[test]
    fn any_pieces_are_answered(pieces in prop::collection::vec(0..PIECES.len(), 0..60)) {
        let text: String = pieces.iter().map(|piece| PIECES[*piece]).collect();
        check_all(&text, &text);
    }

    #[test]
    fn changed_files_are_answered(changes in changes(), described in changes()) {
        check_all(&changed(MANIFEST, &changes), DESCRIBE);
        check_all(MANIFEST, &changed(DESCRIBE, &described));
        check_all(&changed(CONFIG, &changes), DESCRIBE);
    }

    #[test]
    fn any_bytes_are_extracted_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        after_header in any::<bool>(),
    ) {
        let mut component = Vec::new();
        if after_header {
            component.extend_from_slice(b"\0asm\x0d\0\x01\0");
        }
        component.extend_from_slice(&bytes);
        if extract(&component).is_ok() {
            prop_assert!(after_header);
        }
        if let Ok(out) = embed(&component, MANIFEST, DESCRIBE) {
            let embedded = extract(&out).unwrap();
            prop_assert_eq!(embedded.manifest.as_str(), MANIFEST);
        }
    }

    #[test]
    fn damaged_components_are_extracted_or_refused(
        at in any::<Index>(), byte in any::<u8>(), cut in any::<Index>(),
    ) {
        let mut component = embed(b"\0asm\x0d\0\x01\0", MANIFEST, DESCRIBE).unwrap();
        let at = at.index(component.len());
        component[at] = byte;
        component.truncate(component.len() - cut.index(64));
        if let Ok(embedded) = extract(&component) {
            check_all(&embedded.manifest, &embedded.describe);
        }
    }
}

#[test]
fn deep_and_long_texts_are_refused() {
    let deep = format!("a = {}", "[".repeat(100_000));
    check_all(&deep, &"[".repeat(100_000));
    let keys: String = (0..5_000).map(|n| format!("k{n} = 1\n")).collect();
    check_all(&keys, "{}");
    let long = format!("a = \"{}\"", "x".repeat(2 << 20));
    let problems = Config::check(&long, &|_| None).unwrap_err();
    assert!(
        problems.to_string().contains("at most 1048576 are read"),
        "{problems}"
    );
}
