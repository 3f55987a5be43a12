//! The generator of the Rust SDK's bindings: turns `wit/since-v0.1` into `sdk/rust/src/bindings.rs`
//! (and an interface of WASI into what the test guest `wants-foreign` imports).
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

/// The same for the guest that imports what it must not.
const FOREIGN_HEADER: &str = "\
//! Bindings of an interface that the host does not provide, GENERATED: do not edit.
//! `cargo run` in `tests/bindings` writes this file anew, `cargo test` there compares.

";

/// An interface of WASI that the host does not provide.
const FOREIGN: &str = "
package test:foreign;
world foreign {
    import wasi:random/random@0.2.0;
}
package wasi:random@0.2.0 {
    interface random {
        get-random-u64: func() -> u64;
    }
}
";

/// The repository's root.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .components()
        .collect()
}

/// A generated file: where it is checked in, and what has to stand there.
#[derive(Debug)]
pub struct Generated {
    /// The file.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// Generates every checked-in file.
///
/// # Errors
/// What the WIT parser or the generator says, as text.
pub fn generate() -> Result<Vec<Generated>, String> {
    Ok(vec![sdk()?, foreign()?])
}

/// The SDK's bindings.
fn sdk() -> Result<Generated, String> {
    let mut resolve = Resolve::default();
    resolve
        .push_path(root().join("wit/since-v0.1"))
        .map_err(|error| format!("{error:#}"))?;
    let options = wit_bindgen_rust::Opts {
        format: true,
        pub_export_macro: true,
        export_macro_name: Some("export_component".to_owned()),
        default_bindings_module: Some("wasmill_sdk::__guest::bindings".to_owned()),
        disable_run_ctors_once_workaround: true,
        ..Default::default()
    };
    Ok(Generated {
        path: root().join("sdk/rust/src/bindings.rs"),
        text: HEADER.to_owned() + &text(resolve, "transform-plugin", &options)?,
    })
}

/// What the test guest `wants-foreign` imports beside the SDK's world.
fn foreign() -> Result<Generated, String> {
    let mut resolve = Resolve::default();
    resolve
        .push_str("foreign.wit", FOREIGN)
        .map_err(|error| format!("{error:#}"))?;
    let options = wit_bindgen_rust::Opts {
        format: true,
        generate_all: true,
        runtime_path: Some("wasmill_sdk::__guest::rt".to_owned()),
        type_section_suffix: Some("foreign".to_owned()),
        ..Default::default()
    };
    Ok(Generated {
        path: root().join("tests/guests/wants-foreign/src/foreign.rs"),
        text: FOREIGN_HEADER.to_owned() + &text(resolve, "foreign", &options)?,
    })
}

fn text(
    mut resolve: Resolve,
    world: &str,
    options: &wit_bindgen_rust::Opts,
) -> Result<String, String> {
    let found = resolve.worlds.iter().find(|(_, one)| one.name == world);
    let (world, _) = found.ok_or_else(|| format!("the WIT has no world {world}"))?;
    let mut files = Files::default();
    options
        .clone()
        .build()
        .generate(&mut resolve, world, &mut files)
        .map_err(|error| format!("{error:#}"))?;
    let (_, text) = files
        .iter()
        .next()
        .ok_or("the generator wrote no file: its output layout changed")?;
    let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checked_in_files_are_the_generated_ones() {
        for Generated { path, text } in generate().expect("the WIT parses and generates") {
            let found = std::fs::read_to_string(&path).expect("the bindings are checked in");
            assert!(
                text == found,
                "{} is not what the WIT generates: run `cargo run` in tests/bindings",
                path.display()
            );
        }
    }
}
