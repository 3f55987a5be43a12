//! What is wrong with a file, and where: [`Problem`] is one finding, [`Report`] gathers them during a
//! check, [`Problems`] is the finished, never empty list. Nothing here reads a table.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::DeTable;

use crate::error::{Blame, Error};

/// Greatest size of a file that is looked at, in bytes; a real one has a few KiB.
pub(crate) const MAX_TEXT: usize = 1 << 20;

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong, a lowercase fragment.
    pub message: String,
    /// Byte range in the text; `None` when it lies in no particular place.
    pub span: Option<Range<usize>>,
    /// What stands at the caret.
    pub label: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Problem {
    /// A finding at a place.
    pub(crate) fn at(span: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            span: Some(span),
            label: String::from("here"),
            hint: None,
        }
    }

    /// A finding about the file as a whole.
    pub(crate) fn anywhere(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            span: None,
            label: String::new(),
            hint: None,
        }
    }

    /// Sets what stands at the caret.
    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Sets what to do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Sets what to do, if anything is known.
    pub(crate) fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }
}

/// Everything that is wrong with one file; at least one finding, in the order of the text.
///
/// `Display` is the plain rendering; `Debug` shows neither the text nor anything else that may be secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Problems {
    pub(super) name: String,
    /// The text with secret values starred out, same length.
    pub(super) text: String,
    pub(super) found: Vec<Problem>,
}

impl Problems {
    /// The findings in the order of the text; those without a place come first.
    #[must_use]
    pub fn found(&self) -> &[Problem] {
        &self.found
    }
}

impl fmt::Debug for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Problems")
            .field("name", &self.name)
            .field("found", &self.found)
            .finish_non_exhaustive()
    }
}

impl std::error::Error for Problems {}

impl From<Problems> for Error {
    /// The plain rendering as detail; the fix lies with whoever wrote the file.
    fn from(problems: Problems) -> Self {
        let what = format!("check {}", problems.name);
        Self::new(Blame::Config, what, format_args!("\n{problems}"))
    }
}

/// One file while it is checked.
#[derive(Debug)]
pub(crate) struct Report<'t> {
    name: String,
    text: &'t str,
    /// A cell, so that several open sections may report at once.
    found: RefCell<Vec<Problem>>,
    secret: RefCell<Vec<Range<usize>>>,
    holds_secrets: bool,
}

impl<'t> Report<'t> {
    /// Starts a check of `text`, shown as `name`.
    pub(crate) fn new(name: &str, text: &'t str) -> Self {
        Self {
            name: name.to_owned(),
            text,
            found: RefCell::default(),
            secret: RefCell::default(),
            holds_secrets: false,
        }
    }

    /// Says that the text may hold secrets: values of unknown keys are starred out too, one of them may be
    /// a misspelt `password`.
    pub(crate) fn with_secrets(mut self) -> Self {
        self.holds_secrets = true;
        self
    }

    /// Whether values must not be shown unless they are known to be harmless.
    pub(crate) fn holds_secrets(&self) -> bool {
        self.holds_secrets
    }

    /// Reads the text as TOML; reports every syntax error and then returns `None`, since what could be
    /// recovered around one would only cause findings that are not there.
    pub(crate) fn parse(&self) -> Option<Spanned<DeTable<'t>>> {
        if self.text.len() > MAX_TEXT {
            self.add(
                Problem::anywhere(format!(
                    "the file has {} bytes; at most {MAX_TEXT} are read",
                    self.text.len()
                ))
                .hint("check that this is the right file"),
            );
            return None;
        }
        let (table, errors) = DeTable::parse_recoverable(self.text);
        if errors.is_empty() {
            return Some(table);
        }
        if self.holds_secrets {
            self.hide_suspicious_lines();
        }
        for error in errors {
            let message = error.message().replace('\n', "; ");
            let problem = match error.span() {
                Some(span) => Problem::at(span, format!("not TOML: {message}")),
                None => Problem::anywhere(format!("not TOML: {message}")),
            };
            let twice = message.contains("duplicate key");
            let hint = twice.then(|| String::from("remove or rename one of the two"));
            self.add(problem.maybe_hint(hint));
        }
        None
    }

    /// Adds a finding.
    pub(crate) fn add(&self, problem: Problem) {
        self.found.borrow_mut().push(problem);
    }

    /// Adds a finding when there is none yet.
    pub(crate) fn add_if_clean(&self, message: &str) {
        if self.found.borrow().is_empty() {
            self.add(Problem::anywhere(message));
        }
    }

    /// Stars out a range whenever the text is shown.
    pub(crate) fn hide(&self, span: Range<usize>) {
        self.secret.borrow_mut().push(span);
    }

    /// Ends the check: the value when nothing was reported.
    ///
    /// # Errors
    /// Everything that was reported.
    pub(crate) fn finish<T>(self, value: T) -> Result<T, Problems> {
        let mut found = self.found.into_inner();
        if found.is_empty() {
            return Ok(value);
        }
        found.sort_by_key(|problem| problem.span.as_ref().map(|span| (span.start, span.end)));
        let mut bytes = self.text.as_bytes().to_vec();
        for span in self.secret.into_inner() {
            for byte in bytes.get_mut(span).into_iter().flatten() {
                if *byte != b'\n' {
                    *byte = b'*';
                }
            }
        }
        Err(Problems {
            name: self.name,
            text: String::from_utf8_lossy(&bytes).into_owned(),
            found,
        })
    }

    /// In a text that does not parse nobody knows where secrets end: hide what follows the `=` on every
    /// line that could hold one.
    fn hide_suspicious_lines(&self) {
        let mut start = 0;
        for line in self.text.split_inclusive('\n') {
            let lower = line.to_ascii_lowercase();
            let suspicious = ["pass", "url", "secret", "token", "key", "://"]
                .iter()
                .any(|word| lower.contains(word));
            if suspicious && let Some(equals) = line.find('=') {
                self.hide(start + equals + 1..start + line.len());
            }
            start += line.len();
        }
    }
}
