//! Writes the SDK's bindings anew.

use std::process::ExitCode;

fn main() -> ExitCode {
    let written = wasmill_bindings::generate().and_then(|text| {
        std::fs::write(wasmill_bindings::checked_in(), text).map_err(|error| error.to_string())
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bindings not written: {error}");
            ExitCode::FAILURE
        }
    }
}
