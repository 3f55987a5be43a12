//! `wasmill plugin new`: a project that builds, with the SDK, its macros and the WIT files of this very
//! Wasmill vendored. It never writes into a folder that has something in it.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};

/// Path and text of every vendored file, made by this crate's build script.
const VENDORED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/vendored.rs"));
/// Where they go in a project.
const VENDOR: &str = "vendor/wasmill";

/// The project itself; `{{name}}` is the plugin's name.
const TEMPLATE: [(&str, &str); 9] = [
    ("Cargo.toml", include_str!("template/Cargo.toml.txt")),
    ("src/lib.rs", include_str!("template/lib.rs.txt")),
    ("plugin.toml", include_str!("template/plugin.toml.txt")),
    ("README.md", include_str!("template/README.md.txt")),
    (".gitignore", include_str!("template/gitignore.txt")),
    (
        "rust-toolchain.toml",
        include_str!("template/rust-toolchain.toml.txt"),
    ),
    (
        "data/readings.ndjson",
        include_str!("template/data/readings.ndjson"),
    ),
    (
        "fixtures/readings.in.ndjson",
        include_str!("template/fixtures/readings.in.ndjson"),
    ),
    (
        "fixtures/readings.out.json",
        include_str!("template/fixtures/readings.out.json"),
    ),
];

/// Writes a new plugin project called `name` into `dir`, which must not exist or be empty.
///
/// # Errors
/// Config: the name is no plugin name, or the folder is not empty. Outside: the disk refuses.
pub fn scaffold(dir: &Path, name: &str) -> Result<()> {
    let what = format!("make the plugin project `{}`", dir.display());
    if !is_name(name) {
        return Err(Error::config(what, format!("{name:?} is no name for a plugin"))
            .hint("use lower-case letters, digits and `-`, a letter first, at most 63, e.g. `paid-orders`"));
    }
    let outside = |error: std::io::Error| Error::outside(what.as_str(), error);
    fs::create_dir_all(dir).map_err(outside)?;
    if fs::read_dir(dir).map_err(outside)?.next().is_some() {
        return Err(Error::config(what, "the folder is not empty")
            .hint("choose another folder; nothing was written"));
    }
    for (path, text) in TEMPLATE {
        write(&dir.join(path), &text.replace("{{name}}", name)).map_err(outside)?;
    }
    for (path, text) in VENDORED {
        write(&dir.join(VENDOR).join(path), text).map_err(outside)?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text)
}

/// As the manifest has it, and as cargo takes it.
fn is_name(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::manifest::Manifest;

    #[test]
    fn a_project_has_its_name_its_sdk_and_a_sound_manifest() {
        let dir = tempfile::tempdir().unwrap();
        scaffold(dir.path(), "hot-sensors").unwrap();
        let read = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap();
        assert!(read("Cargo.toml").contains("name = \"hot-sensors\""));
        assert!(read("vendor/wasmill/wit/since-v0.1/transform.wit").contains("run: func"));
        assert!(read("vendor/wasmill/sdk/rust/Cargo.toml").contains("wasmill-sdk-macros"));
        let outline = Manifest::check_without_describe(&read("plugin.toml")).unwrap();
        assert_eq!(outline.name, "hot-sensors");
        for (path, _) in TEMPLATE {
            assert!(!read(path).contains("{{"), "{path}");
        }
    }

    #[test]
    fn a_full_folder_and_a_bad_name_are_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["", "Big", "1st", "a_b", "a/b", &"n".repeat(64)] {
            let inside = dir.path().join("new");
            assert!(scaffold(&inside, name).is_err(), "{name}");
            assert!(!inside.exists());
        }
        fs::write(dir.path().join("mine"), "x").unwrap();
        let error = scaffold(dir.path(), "good").unwrap_err();
        assert!(error.detail().contains("not empty"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
