//! Embeds what `wasmill plugin new` unpacks: the SDK, its macros and the WIT files, as one generated list
//! of (path, text). Reads only those folders of this repository.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders of the repository that a plugin project needs.
const FOLDERS: [&str; 3] = ["sdk/rust", "sdk/rust-macros", "wit/since-v0.1"];
/// What lies in them and is not source.
const SKIPPED: [&str; 3] = ["target", "Cargo.lock", "tests"];

fn main() {
    let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let root = here
        .parent()
        .expect("this crate is a folder of the repository");
    let mut files = Vec::new();
    for folder in FOLDERS {
        println!("cargo::rerun-if-changed={}", root.join(folder).display());
        collect(&root.join(folder), &mut files);
    }
    files.sort();
    let mut list = String::from("&[\n");
    for file in &files {
        let name = file.strip_prefix(root).expect("collected below the root");
        list.push_str(&format!("    ({name:?}, include_str!({file:?})),\n"));
    }
    list.push_str("]\n");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    fs::write(out.join("vendored.rs"), list).expect("cargo made the folder for us");
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the repository") {
        let path = entry.expect("a readable folder").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') || SKIPPED.contains(&&*name) {
            continue;
        }
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}
