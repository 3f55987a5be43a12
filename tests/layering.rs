//! Who may import whom in `host/src`, checked by reading the source: the picture of the architecture as a test.
//!
//! It owns the table of layers below. It reads text only: comments and strings are blanked, test modules are
//! left out, `crate::` and `super::` paths are resolved to top-level modules. A rule nobody can break is no
//! rule, so the last tests hand it made-up files and expect it to object.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use wasmill_tests::artifact::repository;

/// Layers from the lowest up; a module may import its own layer and everything below.
const LAYERS: [&[&str]; 3] = [
    &["error", "task", "clock", "record"],
    &["config", "manifest", "telemetry", "decode", "toml_check"],
    &["source", "sink", "anchor", "route", "plugin"],
];

/// One adapter a foreign system; they know the layers above this line, and never each other.
const ADAPTERS: [&str; 3] = ["kafka", "postgres", "cassandra"];

/// Know contracts only.
const CORE: [&str; 3] = ["pipeline", "control", "verify"];

/// Where everything meets; only `assemble` names concrete adapters.
const EDGE: [&str; 7] = [
    "admin", "cli", "assemble", "author", "upload", "main", "lib",
];

/// Who may name the adapters; a folder ends in `/`. The demo plays the operator around a host: it makes topics and
/// looks into tables by itself; `feed` produces; `dev` does and reads the newest records again.
const PICKS_ADAPTERS: [&str; 5] = [
    "assemble.rs",
    "assemble/",
    "cli/demo/",
    "cli/dev/",
    "cli/feed.rs",
];

/// Imports against the picture that are meant, with the reason.
const EXCEPTIONS: [(&str, &str, &str); 2] = [
    (
        "decode",
        "route",
        "a record that does not decode becomes a dead letter: the decoder names its code",
    ),
    (
        "kafka",
        "control",
        "the contract of the control log lies with its reader and writer; Kafka is one such log",
    ),
];

/// A crate that only some modules may name.
struct CrateRule {
    name: &'static str,
    modules: &'static [&'static str],
}

const CRATES: [CrateRule; 6] = [
    CrateRule {
        name: "rdkafka",
        modules: &["kafka"],
    },
    CrateRule {
        name: "rdkafka_sys",
        modules: &["kafka"],
    },
    CrateRule {
        name: "wasmtime",
        modules: &["plugin"],
    },
    CrateRule {
        name: "scylla",
        modules: &["cassandra"],
    },
    CrateRule {
        name: "tokio_postgres",
        modules: &["postgres"],
    },
    CrateRule {
        name: "anyhow",
        modules: &["cli", "admin", "assemble", "main"],
    },
];

/// Words that only some files may contain; a folder ends in `/`.
struct WordRule {
    words: &'static [&'static str],
    places: &'static [&'static str],
    why: &'static str,
}

const WORDS: [WordRule; 3] = [
    WordRule {
        words: &[
            "tokio::spawn",
            "thread::spawn",
            "thread::Builder",
            "spawn_local",
            "spawn_blocking",
        ],
        places: &["task.rs"],
        why: "only task.rs spawns: what it starts is named, owned and joined",
    },
    WordRule {
        words: &["unsafe"],
        places: &[
            "kafka/native.rs",
            "kafka/native/",
            "plugin/cache.rs",
            "plugin/compile.rs",
        ],
        why: "unsafe lives in the file that fetches batches and the one that loads cached native code",
    },
    WordRule {
        words: &[
            "std::env",
            "env::var",
            "env::vars",
            "env::temp_dir",
            "env::current_dir",
        ],
        places: &["config/", "cli/", "main.rs"],
        why: "the environment is read in one place",
    },
];

/// A source file of the host.
struct Source {
    /// Relative to `host/src`, with `/`.
    path: String,
    /// Without comments, strings and test modules.
    code: String,
    /// As it is.
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            code: without_test_module(&blanked(text)),
            text: text.to_owned(),
        }
    }

    /// Its path of modules: `postgres/anchor.rs` is `["postgres", "anchor"]`.
    fn modules(&self) -> Vec<&str> {
        let path = self.path.trim_end_matches(".rs");
        let path = path.strip_suffix("/mod").unwrap_or(path);
        path.split('/').collect()
    }

    fn top(&self) -> &str {
        self.modules()[0]
    }
}

/// Comments, strings and character literals as spaces; lines stay where they are.
fn blanked(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let length = match rest {
            [b'/', b'/', ..] => rest
                .iter()
                .position(|byte| *byte == b'\n')
                .unwrap_or(rest.len()),
            [b'/', b'*', ..] => block_comment(rest),
            [b'r', b'"' | b'#', ..] if !is_word(bytes, at) => raw_string(rest),
            [b'"', ..] => string(rest),
            [b'\'', b'\\', _, ..] => {
                2 + rest[3..]
                    .iter()
                    .position(|byte| *byte == b'\'')
                    .map_or(1, |end| end + 2)
            }
            [b'\'', _, b'\'', ..] => 3,
            _ => 0,
        };
        if length == 0 {
            out.push(char::from(if rest[0].is_ascii() { rest[0] } else { b'?' }));
            at += 1;
        } else {
            let end = (at + length).min(bytes.len());
            out.extend(
                bytes[at..end]
                    .iter()
                    .map(|byte| if *byte == b'\n' { '\n' } else { ' ' }),
            );
            at = end;
        }
    }
    out
}

fn is_word(bytes: &[u8], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_')
}

fn block_comment(rest: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at + 1 < rest.len() {
        match &rest[at..at + 2] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// The length of `r"…"` or `r#"…"#`; 0 for a raw identifier.
fn raw_string(rest: &[u8]) -> usize {
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let mut close = vec![b'"'];
    close.resize(1 + hashes, b'#');
    let body = 2 + hashes;
    let end = rest[body..]
        .windows(close.len())
        .position(|window| window == close);
    end.map_or(rest.len(), |end| body + end + close.len())
}

fn string(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Cuts `#[cfg(test)] mod … { … }`.
fn without_test_module(code: &str) -> String {
    let mut kept = String::new();
    let mut rest = code;
    while let Some(start) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..start]);
        let after = &rest[start..];
        let open = after.find('{');
        let semicolon = after.find(';');
        rest = match (open, semicolon) {
            (Some(open), Some(end)) if end < open => &after[end + 1..],
            (Some(open), _) => &after[open + matching_brace(&after[open..])..],
            (None, Some(end)) => &after[end + 1..],
            (None, None) => "",
        };
    }
    kept.push_str(rest);
    kept
}

fn matching_brace(text: &str) -> usize {
    let mut depth = 0_i32;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    text.len()
}

/// Names below the crate's root that the file mentions: `crate::plugin::Engine` is `plugin::Engine`.
fn imports(source: &Source) -> BTreeSet<String> {
    let depth = source.modules().len();
    let mut found = BTreeSet::new();
    let code = &source.code;
    for (at, _) in code.match_indices("crate::") {
        if !is_word(code.as_bytes(), at) && !code[..at].ends_with("::") {
            collect("", &code[at + "crate::".len()..], &mut found);
        }
    }
    let climb = "super::".repeat(depth);
    if depth > 0 {
        for (at, _) in code.match_indices(&climb) {
            if !code[..at].ends_with("::") {
                collect("", &code[at + climb.len()..], &mut found);
            }
        }
    }
    found
}

/// Adds the paths a use tree starts with: `a::B`, `a::{B, C}`, `{a::B, c}`.
fn collect(prefix: &str, tree: &str, found: &mut BTreeSet<String>) {
    let tree = tree.trim_start();
    if let Some(group) = tree.strip_prefix('{') {
        let end = matching_brace(tree).saturating_sub(2);
        for part in split_group(&group[..end.min(group.len())]) {
            collect(prefix, part, found);
        }
        return;
    }
    let name: String = tree
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect();
    if name.is_empty() {
        return;
    }
    let path = if prefix.is_empty() {
        name.clone()
    } else {
        format!("{prefix}::{name}")
    };
    match tree[name.len()..].strip_prefix("::") {
        Some(below) if prefix.is_empty() => collect(&path, below, found),
        _ => {
            found.insert(path);
        }
    }
}

fn split_group(group: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, byte) in group.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b',' if depth == 0 => {
                parts.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&group[start..]);
    parts
}

/// Every rule the file breaks.
fn violations(source: &Source, contract: &BTreeSet<String>) -> Vec<String> {
    let top = source.top();
    let mut wrong = Vec::new();
    for import in imports(source) {
        let target = import.split("::").next().unwrap_or_default();
        let picks = ADAPTERS.contains(&target) && is_in(&source.path, &PICKS_ADAPTERS);
        if target != top && is_module(target) && !picks && !may_import(top, target) {
            wrong.push(format!("{}: {top} imports crate::{import}", source.path));
        }
        let below = import
            .strip_prefix("plugin::")
            .filter(|_| CORE.contains(&top));
        if let Some(name) = below.filter(|name| !contract.contains(*name)) {
            wrong.push(format!(
                "{}: {top} knows plugin's contract only, not plugin::{name}",
                source.path
            ));
        }
    }
    for rule in &CRATES {
        if has_word(&source.code, rule.name) && !rule.modules.contains(&top) {
            wrong.push(format!(
                "{}: names {}, which belongs to {}",
                source.path,
                rule.name,
                rule.modules.join(", ")
            ));
        }
    }
    for rule in &WORDS {
        let word = rule.words.iter().find(|word| has_word(&source.code, word));
        if let Some(word) = word.filter(|_| !is_in(&source.path, rule.places)) {
            wrong.push(format!("{}: {word}: {}", source.path, rule.why));
        }
    }
    if !is_module(top) {
        wrong.push(format!(
            "{}: module {top} is in no layer: give it a place in tests/layering.rs",
            source.path
        ));
    }
    if !source.text.starts_with("//!") {
        wrong.push(format!(
            "{}: opens without `//!`: what it is, owns, and never does",
            source.path
        ));
    }
    wrong
}

/// Whether a file is one of the places; a folder ends in `/`.
fn is_in(path: &str, places: &[&str]) -> bool {
    places
        .iter()
        .any(|place| path == *place || (place.ends_with('/') && path.starts_with(place)))
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn is_module(name: &str) -> bool {
    layer(name).is_some()
        || ADAPTERS.contains(&name)
        || CORE.contains(&name)
        || EDGE.contains(&name)
}

fn may_import(from: &str, to: &str) -> bool {
    if EXCEPTIONS.iter().any(|(a, b, _)| (*a, *b) == (from, to)) || from == "lib" {
        return true;
    }
    match (layer(from), layer(to)) {
        (Some(from), Some(to)) => to <= from,
        (Some(_), None) => false,
        (None, Some(_)) => true,
        (None, None) if ADAPTERS.contains(&from) => false,
        (None, None) if ADAPTERS.contains(&to) => false,
        (None, None) if CORE.contains(&from) => CORE.contains(&to),
        (None, None) => true,
    }
}

fn has_word(code: &str, word: &str) -> bool {
    let bytes = code.as_bytes();
    code.match_indices(word).any(|(at, _)| {
        let end = at + word.len();
        !is_word(bytes, at)
            && !bytes
                .get(end)
                .is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
    })
}

/// Names that `plugin/mod.rs` defines itself: the contract, as opposed to the engine it re-exports.
fn contract_of(module: &str) -> BTreeSet<String> {
    let code = blanked(module);
    let kinds = ["pub trait ", "pub struct ", "pub enum ", "pub type "];
    let starts = kinds
        .iter()
        .flat_map(|kind| code.match_indices(kind).map(|(at, kind)| at + kind.len()));
    starts
        .map(|at| {
            code[at..]
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect()
        })
        .collect()
}

/// Files declared `#[cfg(test)] mod name;` in `text`, beside it.
fn test_files(folder: &str, text: &str) -> Vec<String> {
    let code = blanked(text);
    let declared = code
        .match_indices("#[cfg(test)]")
        .filter_map(|(at, attribute)| {
            let after = code[at + attribute.len()..].trim_start();
            let after = after
                .trim_start_matches("pub(crate) ")
                .trim_start_matches("pub(super) ");
            let name = after.strip_prefix("mod ")?.split(';').next()?;
            (!name.contains('{')).then(|| name.trim().to_owned())
        });
    declared.map(|name| format!("{folder}{name}")).collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)
        .expect("a folder of the repository")
        .flatten()
    {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() {
            if !["target", "vendor", "node_modules"]
                .iter()
                .any(|skip| name == *skip)
            {
                found.extend(rust_files(&path));
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn host_sources() -> Vec<Source> {
    let root = repository().join("host/src");
    let read = |path: &PathBuf| fs::read_to_string(path).expect("a file of the repository");
    let relative = |path: &PathBuf| {
        path.strip_prefix(&root)
            .expect("below the root")
            .display()
            .to_string()
    };
    let files = rust_files(&root);
    let mut tests = Vec::new();
    for file in &files {
        let path = relative(file);
        let own = path.trim_end_matches(".rs");
        let folder = match own.rsplit_once('/') {
            Some((folder, "mod")) => format!("{folder}/"),
            None if matches!(own, "lib" | "main") => String::new(),
            _ => format!("{own}/"),
        };
        tests.extend(test_files(&folder, &read(file)));
    }
    let is_test = |path: &str| {
        let own = path.trim_end_matches(".rs");
        tests
            .iter()
            .any(|test| own == test || own.starts_with(&format!("{test}/")))
    };
    let sources = files.iter().map(|file| (relative(file), read(file)));
    sources
        .filter(|(path, _)| !is_test(path))
        .map(|(path, text)| Source::new(&path, &text))
        .collect()
}

#[test]
fn every_file_of_the_host_keeps_to_its_layer() {
    let contract = fs::read_to_string(repository().join("host/src/plugin/mod.rs"))
        .expect("the plugin contract");
    let contract = contract_of(&contract);
    let sources = host_sources();
    assert!(sources.len() > 30, "only {} files were read", sources.len());
    let wrong: Vec<String> = sources
        .iter()
        .flat_map(|source| violations(source, &contract))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is() {
    let folders = ["compose", "sdk", "plugins", "tests"];
    let files = folders
        .iter()
        .flat_map(|folder| rust_files(&repository().join(folder)));
    let silent: Vec<String> = files
        .filter(|file| {
            !fs::read_to_string(file)
                .expect("a source file")
                .starts_with("//")
        })
        .map(|file| file.display().to_string())
        .collect();
    assert!(
        silent.is_empty(),
        "files without a head:\n{}",
        silent.join("\n")
    );
}

#[test]
fn made_up_violations_are_found() {
    let contract = BTreeSet::from(["Plugin".to_owned()]);
    let broken = [
        ("record/batch.rs", "//! x\nuse crate::anchor::Anchor;"),
        (
            "postgres/anchor.rs",
            "//! x\nuse crate::{error::Error, cassandra::Session};",
        ),
        (
            "postgres/anchor.rs",
            "//! x\nuse super::super::kafka::Source;",
        ),
        (
            "pipeline/lane.rs",
            "//! x\nfn f() { crate::postgres::open(); }",
        ),
        (
            "pipeline/lane.rs",
            "//! x\nuse crate::plugin::{Plugin, Engine};",
        ),
        ("cli/run.rs", "//! x\nuse crate::kafka::Catalog;"),
        ("pipeline/lane.rs", "//! x\nuse rdkafka::Message;"),
        ("config/check.rs", "//! x\nuse anyhow::Context;"),
        (
            "kafka/source.rs",
            "//! x\nfn f() { tokio::spawn(async {}); }",
        ),
        ("decode/json.rs", "//! x\nfn f() { unsafe { g() } }"),
        (
            "pipeline/lane.rs",
            "//! x\nfn f() { std::env::var(\"X\"); }",
        ),
        ("novelty/mod.rs", "//! x\n"),
        ("record/batch.rs", "use std::fmt;"),
    ];
    for (path, text) in broken {
        let found = violations(&Source::new(path, text), &contract);
        assert_eq!(found.len(), 1, "{path}: {text}: {found:?}");
    }
}

#[test]
fn what_is_allowed_is_not_reported() {
    let contract = BTreeSet::from(["Plugin".to_owned()]);
    let fine = [
        (
            "pipeline/lane.rs",
            "//! x\nuse crate::plugin::Plugin;\n// crate::kafka is only named here\n",
        ),
        (
            "pipeline/lane.rs",
            "//! x\nconst TEXT: &str = \"use crate::kafka::X; unsafe\";",
        ),
        (
            "pipeline/lane.rs",
            "//! x\nconst TEXT: &str = r#\"rdkafka \"quoted\" tokio::spawn\"#;",
        ),
        (
            "record/cells.rs",
            "//! x\nfn f() {}\n#[cfg(test)]\nmod tests { use crate::anchor::X; }",
        ),
        (
            "kafka/native.rs",
            "//! x\nuse rdkafka::client;\nfn f() { unsafe { g() } }",
        ),
        (
            "assemble.rs",
            "//! x\nuse crate::{kafka, postgres, cassandra, pipeline};",
        ),
        (
            "lib.rs",
            "//! x\nmod kafka;\nfn f<'a>(c: char) -> bool { c == '\"' || c == '\\'' }",
        ),
    ];
    for (path, text) in fine {
        let found = violations(&Source::new(path, text), &contract);
        assert_eq!(found, Vec::<String>::new(), "{path}: {text}");
    }
}
