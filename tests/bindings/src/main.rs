//! Writes the SDK's bindings anew.

use std::process::ExitCode;

fn main() -> ExitCode {
    let written = wasmill_bindings::generate().and_then(|files| {
        files.into_iter().try_for_each(|file| {
            std::fs::write(&file.path, file.text).map_err(|error| error.to_string())
        })
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bindings not written: {error}");
            ExitCode::FAILURE
        }
    }
}
