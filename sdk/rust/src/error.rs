//! How a plugin says no: [`Error::Data`] to one record, [`Error::Fatal`] to all of them.

use std::borrow::Cow;
use std::fmt;

/// What a plugin's function answers; `?` on any standard error rejects the record at hand.
pub type Result<T = (), E = Error> = std::result::Result<T, E>;

/// Code of a rejection that named none.
const REJECTED: &str = "rejected";
/// Greatest length of a code (`wit/since-v0.1/types.wit`).
const CODE_LENGTH: usize = 32;

/// Why a record, or the plugin, cannot go on.
///
/// It is not itself a `std::error::Error`, so that `?` may turn every such error into one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// This record is refused: its rows are dropped, it becomes a dead letter, the batch goes on.
    Data {
        /// `[a-z0-9-]{1,32}`, stable: operators filter and alert on it.
        code: Cow<'static, str>,
        /// One sentence for a person.
        reason: String,
    },
    /// No record can be processed: the pipeline stops and an operator decides.
    Fatal(String),
}

/// A rejection of this record with a stable code.
///
/// Characters outside `[a-z0-9-]` in `code` become `-`, and it is cut at 32.
pub fn reject(code: impl Into<Cow<'static, str>>, reason: impl fmt::Display) -> Error {
    coded(code.into(), reason.to_string())
}

#[cold]
#[inline(never)]
fn coded(code: Cow<'static, str>, reason: String) -> Error {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let code = if code.is_empty() {
        Cow::Borrowed(REJECTED)
    } else if code.len() <= CODE_LENGTH && code.bytes().all(fits) {
        code
    } else {
        let letter = |c: char| {
            let c = c.to_ascii_lowercase();
            if u8::try_from(c).is_ok_and(fits) {
                c
            } else {
                '-'
            }
        };
        Cow::Owned(code.chars().take(CODE_LENGTH).map(letter).collect())
    };
    Error::Data { code, reason }
}

impl Error {
    /// A rejection of this record under the code `rejected`.
    pub fn data(reason: impl fmt::Display) -> Self {
        Self::Data {
            code: Cow::Borrowed(REJECTED),
            reason: reason.to_string(),
        }
    }

    /// The end of the pipeline until an operator acts.
    pub fn fatal(reason: impl fmt::Display) -> Self {
        Self::Fatal(reason.to_string())
    }
}

impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        let mut reason = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            reason.push_str(": ");
            reason.push_str(&inner.to_string());
            cause = inner.source();
        }
        Self::data(reason)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data { code, reason } => write!(f, "{reason} ({code})"),
            Self::Fatal(reason) => write!(f, "fatal: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(error: Error) -> String {
        match error {
            Error::Data { code, .. } => code.into_owned(),
            Error::Fatal(_) => String::new(),
        }
    }

    #[test]
    fn codes_always_fit_the_interface() {
        assert_eq!(code(reject("bad-date", "x")), "bad-date");
        assert_eq!(code(reject("Bad Date!", "x")), "bad-date-");
        assert_eq!(code(reject("", "x")), "rejected");
        assert_eq!(code(reject("a".repeat(40), "x")).len(), 32);
    }

    #[test]
    fn a_standard_error_rejects_the_record() {
        fn parse(text: &str) -> Result<i32> {
            Ok(text.parse::<i32>()?)
        }
        assert_eq!(parse("7"), Ok(7));
        assert_eq!(parse("x").map_err(code), Err("rejected".to_owned()));
    }
}
