//! The one error type of the library: what failed, the detail, what to do; whose fault it is and
//! whether trying again helps. It never decides what happens next: the pipeline does, from [`Blame`]
//! and [`Retry`]. `anyhow` is for the edges where a person reads.

use std::fmt;

/// Whose fault a failure is; decides who is told and what the pipeline does (delivery classes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The plugin trapped, ran past a limit, or returned something malformed.
    Plugin,
    /// The record itself: it does not decode, fit or was refused; it ends as a dead letter.
    Data,
    /// A manifest, a config, a table or a permission: an operator has to act, the pipeline stops.
    Config,
    /// A broker, a database, a disk, the network: the world comes back, we wait.
    Outside,
    /// An invariant of ours: stop, lose nothing.
    Bug,
}

impl Blame {
    /// The word for it, the same in every answer, document and log.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Plugin => "plugin",
            Self::Data => "data",
            Self::Config => "config",
            Self::Outside => "outside",
            Self::Bug => "bug",
        }
    }

    /// What a word stands for.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        [
            Self::Plugin,
            Self::Data,
            Self::Config,
            Self::Outside,
            Self::Bug,
        ]
        .into_iter()
        .find(|blame| blame.word() == word)
    }
}

/// Whether doing the same again can succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    /// The same attempt fails the same way.
    Never,
    /// Worth repeating after a pause.
    Backoff,
}

/// A failure with the three parts every person sees.
///
/// `Display` prints *what* and *detail* on one line; the hint is shown below it by the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    inner: Box<Parts>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Parts {
    blame: Blame,
    retry: Retry,
    what: String,
    detail: String,
    hint: Option<String>,
    server: Option<String>,
}

/// The result of everything in this library that can fail for more than one reason.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failure of the given blame; `Outside` is worth a retry, everything else is not.
    ///
    /// `what` is a lowercase fragment that names what was attempted, `detail` what came back.
    pub fn new(blame: Blame, what: impl Into<String>, detail: impl fmt::Display) -> Self {
        let retry = if blame == Blame::Outside {
            Retry::Backoff
        } else {
            Retry::Never
        };
        Self {
            inner: Box::new(Parts {
                blame,
                retry,
                what: what.into(),
                detail: detail.to_string(),
                hint: None,
                server: None,
            }),
        }
    }

    /// An operator has to act.
    pub fn config(what: impl Into<String>, detail: impl fmt::Display) -> Self {
        Self::new(Blame::Config, what, detail)
    }

    /// The surroundings failed; trying again helps.
    pub fn outside(what: impl Into<String>, detail: impl fmt::Display) -> Self {
        Self::new(Blame::Outside, what, detail)
    }

    /// The plugin is at fault.
    pub fn plugin(what: impl Into<String>, detail: impl fmt::Display) -> Self {
        Self::new(Blame::Plugin, what, detail)
    }

    /// The record is at fault.
    pub fn data(what: impl Into<String>, detail: impl fmt::Display) -> Self {
        Self::new(Blame::Data, what, detail)
    }

    /// An invariant of ours does not hold.
    pub fn bug(what: impl Into<String>, detail: impl fmt::Display) -> Self {
        Self::new(Blame::Bug, what, detail)
    }

    /// Adds what to do about it, as an action.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.inner.hint = Some(hint.into());
        self
    }

    /// Adds what the attempt was about: a file, an address.
    #[must_use]
    pub fn about(mut self, subject: impl fmt::Display) -> Self {
        self.inner.what = format!("{} ({subject})", self.inner.what);
        self
    }

    /// Says which server failed, in the words of the config: `postgres.main`. Who is nearest to it is right: a server that
    /// is named already stays.
    #[must_use]
    pub fn on(mut self, server: impl fmt::Display) -> Self {
        let named = &mut self.inner.server;
        named.get_or_insert_with(|| server.to_string());
        self
    }

    /// Overrides whether a retry helps.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.inner.retry = retry;
        self
    }

    /// Whose fault.
    #[must_use]
    pub fn blame(&self) -> Blame {
        self.inner.blame
    }

    /// Whether a retry helps.
    #[must_use]
    pub fn retry(&self) -> Retry {
        self.inner.retry
    }

    /// What was attempted.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.inner.what
    }

    /// What came back.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.inner.detail
    }

    /// Which server failed, where somebody said so.
    #[must_use]
    pub fn server(&self) -> Option<&str> {
        self.inner.server.as_deref()
    }

    /// What to do, where something can be done.
    #[must_use]
    pub fn hint_text(&self) -> Option<&str> {
        self.inner.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.inner.what, self.inner.detail)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_blame_has_a_word_that_leads_back_to_it() {
        for (blame, word) in [
            (Blame::Plugin, "plugin"),
            (Blame::Data, "data"),
            (Blame::Config, "config"),
            (Blame::Outside, "outside"),
            (Blame::Bug, "bug"),
        ] {
            assert_eq!((blame.word(), Blame::of(word)), (word, Some(blame)));
        }
        assert_eq!(Blame::of("outsid"), None);
    }

    #[test]
    fn only_outside_is_worth_a_retry_by_default() {
        for blame in [Blame::Plugin, Blame::Data, Blame::Config, Blame::Bug] {
            assert_eq!(Error::new(blame, "a", "b").retry(), Retry::Never);
        }
        let error = Error::outside("connect to postgres", "refused").hint("start it");
        assert_eq!(error.retry(), Retry::Backoff);
        assert_eq!(error.to_string(), "connect to postgres: refused");
        assert_eq!(error.hint_text(), Some("start it"));
        let named = error.on("postgres.main").on("kafka.main");
        assert_eq!(named.server(), Some("postgres.main"), "the nearest knows");
    }
}
