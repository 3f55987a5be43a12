//! How commands speak to a person or, with `--json`, to a program.

use std::io::Write as _;

use super::{Failure, Remote, Voice};
use crate::config::look_of_stderr;
use crate::error::Error;
use crate::toml_check::Look;

/// Prints a result as JSON.
pub(super) fn json(value: &serde_json::Value) {
    line(format_args!("{value:#}"));
}

/// Prints a line of a result. A reader that has gone (`wasmill … | head`) is no failure of the command.
pub(super) fn line(text: impl std::fmt::Display) {
    writeln!(std::io::stdout(), "{text}").ok();
}

/// Prints why a command failed: what, detail, what to do.
pub(super) fn failure(failure: &Failure, voice: Voice) {
    let shown = matches!(failure, Failure::Shown(_));
    if voice.json && !shown {
        let document = match failure {
            Failure::Error(error) | Failure::Shown(error) => document(error, error.blame().word()),
            Failure::Usage(error) => document(error, "usage"),
            Failure::Refused(error) => document(error, "refused"),
            Failure::Remote(remote) => {
                let mut document = document(&remote.error, blame_of(remote.exit));
                document["error"]["status"] = remote.status.into();
                document["error"]["code"] = remote.code.clone().into();
                document
            }
            Failure::Problems(problems) => {
                serde_json::json!({"error": {"problems": problems.to_string()}})
            }
            // The document with the mismatches stands on standard output already.
            Failure::Mismatch(detail) | Failure::Differs(detail) | Failure::Unfit(detail) => {
                eprintln!("error: {detail}");
                return;
            }
        };
        json(&document);
        return;
    }
    match failure {
        Failure::Error(error)
        | Failure::Shown(error)
        | Failure::Usage(error)
        | Failure::Refused(error)
        | Failure::Remote(Remote { error, .. }) => {
            eprintln!("{} {error}", paint("error:", "1;31"));
            if let Some(hint) = error.hint_text() {
                eprintln!("{} {hint}", paint(" hint:", "1;36"));
            }
        }
        Failure::Problems(problems) => eprintln!("{}", problems.render(look_of_stderr())),
        Failure::Mismatch(detail) | Failure::Differs(detail) | Failure::Unfit(detail) => {
            eprintln!("{} {detail}", paint("error:", "1;31"))
        }
    }
}

/// An error for programs.
fn document(error: &Error, blame: &str) -> serde_json::Value {
    serde_json::json!({
        "error": {"what": error.what(), "detail": error.detail(), "hint": error.hint_text(), "blame": blame}
    })
}

/// The word for an exit code of the published list.
fn blame_of(exit: u8) -> &'static str {
    match exit {
        2 => "usage",
        3 => "config",
        4 => "plugin",
        5 => "refused",
        70 => "bug",
        _ => "outside",
    }
}

/// Colour on a terminal that wants it.
pub(super) fn paint(text: &str, code: &str) -> String {
    if colour() {
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    } else {
        text.to_owned()
    }
}

/// Whether standard error shows colour: a terminal, and no `NO_COLOR`.
pub(super) fn colour() -> bool {
    look_of_stderr() == Look::Colour
}
