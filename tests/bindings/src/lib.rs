//! The generator of the Rust SDK's bindings: turns `wit/since-v0.1` into the text of `sdk/rust/src/bindings.rs`.
//! It owns the options of that generation and nothing else; the checked-in file is what guests compile.
//!
//! `cargo test` compares; `cargo run` writes the file anew.

use std::path::{Path, PathBuf};

use wit_bindgen_core::wit_parser::Resolve;
use wit_bindgen_core::{Files, WorldGenerator as _};

/// What stands above the generated text.
const HEADER: &str = "\
//! Bindings of the world `transform-plugin`, GENERATED from `wit/since-v0.1`: do not edit.
//! `cargo run` in `tests/bindings` writes this file anew, `cargo test` there compares.

";

/// The repository's root.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .components()
        .collect()
}

/// Where the bindings are checked in.
#[must_use]
pub fn checked_in() -> PathBuf {
    root().join("sdk/rust/src/bindings.rs")
}

/// Generates the text of the bindings.
///
/// # Errors
/// What the WIT parser or the generator says, as text.
pub fn generate() -> Result<String, String> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve
        .push_path(root().join("wit/since-v0.1"))
        .map_err(|error| format!("{error:#}"))?;
    let world = resolve
        .select_world(&[package], Some("transform-plugin"))
        .map_err(|error| format!("{error:#}"))?;
    let mut files = Files::default();
    let options = wit_bindgen_rust::Opts {
        format: true,
        pub_export_macro: true,
        export_macro_name: Some("export_component".to_owned()),
        default_bindings_module: Some("wasmill_sdk::__guest::bindings".to_owned()),
        disable_run_ctors_once_workaround: true,
        ..Default::default()
    };
    options
        .build()
        .generate(&mut resolve, world, &mut files)
        .map_err(|error| format!("{error:#}"))?;
    let (_, text) = files
        .iter()
        .next()
        .ok_or("the generator wrote no file: its output layout changed")?;
    let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
    Ok(format!("{HEADER}{text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checked_in_bindings_are_the_generated_ones() {
        let generated = generate().expect("the WIT parses and generates");
        let found = std::fs::read_to_string(checked_in()).expect("the bindings are checked in");
        assert!(
            generated == found,
            "sdk/rust/src/bindings.rs differs from wit/since-v0.1: run `cargo run` in tests/bindings"
        );
    }
}
