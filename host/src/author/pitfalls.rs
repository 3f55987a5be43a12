//! What breaks when ordinary crates meet wasm32-unknown-unknown, recognised by the text it fails with, and
//! the line that fixes it. It only reads texts.

use crate::error::Error;

/// A known failure: all of `marks` in the text (lower case) mean it.
struct Pitfall {
    marks: &'static [&'static str],
    fix: &'static str,
}

/// Most specific first.
const PITFALLS: [Pitfall; 10] = [
    Pitfall {
        marks: &["toolchain", "is not installed"],
        fix: "run `rustup toolchain install` in the plugin's folder: its rust-toolchain.toml names the version",
    },
    Pitfall {
        marks: &["can't find crate for `core`", "wasm32-unknown-unknown"],
        fix: "install the target: `rustup target add wasm32-unknown-unknown`",
    },
    Pitfall {
        marks: &["can't find crate for `std`", "wasm32-unknown-unknown"],
        fix: "install the target: `rustup target add wasm32-unknown-unknown`",
    },
    Pitfall {
        marks: &["wasm", "targets are not supported by default", "getrandom"],
        fix: "a dependency wants random numbers, which a plugin does not have (replay must be exact); find it \
              with `cargo tree --target wasm32-unknown-unknown -i getrandom` and switch it off, e.g. \
              `uuid = { version = \"1\", default-features = false }`",
    },
    Pitfall {
        marks: &["to use `uuid` on", "source of randomness"],
        fix: "a plugin has no random numbers (replay must be exact): take ids from the record, or derive them with \
              `uuid = { version = \"1\", features = [\"v5\"] }`; drop the feature `v4`",
    },
    Pitfall {
        marks: &["__wbindgen"],
        fix: "a dependency was built for a browser; most often it is chrono's default features: \
              `chrono = { version = \"0.4\", default-features = false, features = [\"alloc\"] }`, otherwise find \
              it with `cargo tree --target wasm32-unknown-unknown -i wasm-bindgen`",
    },
    Pitfall {
        marks: &["time not implemented on this platform"],
        fix: "a plugin has no clock (replay must be exact): use the record's own timestamp instead of \
              `SystemTime::now()` and `Instant::now()`",
    },
    Pitfall {
        marks: &["wasi_snapshot_preview1"],
        fix: "something in the crate was built for WASI, which plugins do not have: build for \
              wasm32-unknown-unknown, and look for a C library among the dependencies (`cargo tree`)",
    },
    Pitfall {
        marks: &["module requires an import interface named `env`"],
        fix: "the crate calls a C function that nobody defines: look for a `-sys` crate with `cargo tree` and \
              switch it off",
    },
    Pitfall {
        marks: &["linking with `cc` failed"],
        fix: "a dependency compiles C code: look for a `-sys` crate with `cargo tree` and switch it off",
    },
];

/// The line that fixes a known failure, from the text it came with.
pub(super) fn fix(text: &str) -> Option<&'static str> {
    let text = text.to_lowercase();
    PITFALLS
        .iter()
        .find(|pitfall| pitfall.marks.iter().all(|mark| text.contains(mark)))
        .map(|pitfall| pitfall.fix)
}

/// The error with the line that fixes it, where its text is known.
pub(super) fn advised(error: Error) -> Error {
    match fix(error.detail()) {
        Some(line) => error.hint(line),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn known_failures_lead_to_their_fix() {
        for (text, part) in [
            (
                "error: toolchain '1.95.0-x86_64-unknown-linux-gnu' is not installed",
                "rustup toolchain install",
            ),
            (
                "error[E0463]: can't find crate for `core`\n = note: the `wasm32-unknown-unknown` target may not be installed",
                "rustup target add",
            ),
            (
                "error: the wasm*-unknown-unknown targets are not supported by default, you may need to enable the \"js\" feature\n --> getrandom-0.2.15/src/lib.rs",
                "uuid = {",
            ),
            (
                "error: to use `uuid` on `wasm32-unknown-unknown`, specify a source of randomness using one of",
                "v5",
            ),
            (
                "module requires an import interface named `__wbindgen_placeholder__`",
                "default-features = false",
            ),
            (
                "unreachable; its last message: panicked: time not implemented on this platform",
                "record's own timestamp",
            ),
        ] {
            assert!(fix(text).unwrap().contains(part), "{text}");
        }
        assert_eq!(fix("error[E0425]: cannot find value `x`"), None);
    }
}
