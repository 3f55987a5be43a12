//! Versions of the guest `versioned`, and of others that are built like it: one build, then its version number
//! replaced in the component's bytes, in the manifest and in the code's data alike. A hundred plugins that really
//! differ cost one compilation of Rust.

use std::fs;
use std::path::PathBuf;

use crate::artifact;

/// The version that the guests are built with; nothing else in the component looks like it.
const BUILT: &[u8] = b"1.100.0";

/// Most versions there are.
pub const MOST: u32 = 900;

/// The guest's plugin name.
pub const NAME: &str = "versioned";

/// `versioned@1.N.0` as a file; `index` counts from 0. Later versions sort later, as text too.
///
/// # Panics
/// The guest cannot be built, or does not carry its version as expected.
pub fn version(index: u32) -> Version {
    of(NAME, index)
}

/// The same of another guest that carries its version in the same way.
///
/// # Panics
/// As [`version`].
pub fn of(guest: &'static str, index: u32) -> Version {
    assert!(
        index < MOST,
        "version numbers have three digits, so that they all have one length"
    );
    let number = format!("1.{}.0", 100 + index);
    let built = artifact::plugin(&format!("tests/guests/{guest}"));
    let file = built.with_file_name(format!("{guest}-{number}.wasm"));
    let mut bytes = fs::read(built).unwrap();
    let places: Vec<usize> = (0..bytes.len() - BUILT.len())
        .filter(|at| bytes[*at..].starts_with(BUILT))
        .collect();
    assert!(
        places.len() >= 2,
        "the version stands in the manifest and in the code: found {} times",
        places.len()
    );
    for at in places {
        bytes[at..at + BUILT.len()].copy_from_slice(number.as_bytes());
    }
    if fs::read(&file).ok().as_ref() != Some(&bytes) {
        // Whole or not at all: tests run side by side.
        let half = file.with_extension(format!("{}.half", std::process::id()));
        fs::write(&half, bytes).unwrap();
        fs::rename(half, &file).unwrap();
    }
    Version {
        name: guest,
        number,
        file,
    }
}

/// The guest `traps-sometimes`: version 2.0.0 of the same plugin.
pub fn trapping() -> Version {
    Version {
        name: NAME,
        number: "2.0.0".to_owned(),
        file: artifact::plugin("tests/guests/traps-sometimes"),
    }
}

/// The guest `says-otherwise`: version 3.0.0 of the same plugin.
pub fn differing() -> Version {
    Version {
        name: NAME,
        number: "3.0.0".to_owned(),
        file: artifact::plugin("tests/guests/says-otherwise"),
    }
}

/// The guest `wasteful`: version 4.0.0 of the same plugin.
pub fn wasteful() -> Version {
    Version {
        name: NAME,
        number: "4.0.0".to_owned(),
        file: artifact::plugin("tests/guests/wasteful"),
    }
}

/// The guest `spins-sometimes`: version 5.0.0 of the same plugin.
pub fn spinning() -> Version {
    Version {
        name: NAME,
        number: "5.0.0".to_owned(),
        file: artifact::plugin("tests/guests/spins-sometimes"),
    }
}

/// A built version of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The plugin's name.
    pub name: &'static str,
    /// Such as `1.100.0`.
    pub number: String,
    /// The component.
    pub file: PathBuf,
}

impl Version {
    /// `name@version`.
    pub fn plugin(&self) -> String {
        format!("{}@{}", self.name, self.number)
    }
}
