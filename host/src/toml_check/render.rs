//! Problems as a person sees them: line, caret, hint. Pure: whether colour is wanted is decided by
//! `config`, which reads the environment.

use std::fmt;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource};

use super::problems::{Problem, Problems};

/// Most findings printed; more say nothing new.
const MAX_SHOWN: usize = 50;

/// How findings are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// No colour: for files, pipes, `NO_COLOR` and golden tests.
    Plain,
    /// With colour, for a terminal.
    Colour,
}

impl Problems {
    /// Every finding with its line, a caret and the hint; ends with a newline.
    #[must_use]
    pub fn render(&self, look: Look) -> String {
        let theme = match look {
            Look::Plain => GraphicalTheme::unicode_nocolor(),
            Look::Colour => GraphicalTheme::unicode(),
        };
        let handler = GraphicalReportHandler::new_themed(theme)
            .with_width(100)
            .with_links(false)
            .with_context_lines(1)
            .without_syntax_highlighting();
        let source = NamedSource::new(&self.name, self.text.clone());
        let mut out = String::new();
        for problem in self.found.iter().take(MAX_SHOWN) {
            let shown = Shown {
                problem,
                source: &source,
                name: &self.name,
            };
            let mut one = String::new();
            if handler.render_report(&mut one, &shown).is_err() {
                one = format!("  × {shown}\n");
            }
            out.push_str(&without_trailing_space(&one));
        }
        let more = self.found.len().saturating_sub(MAX_SHOWN);
        if more > 0 {
            out.push_str(&format!("  … and {more} more\n"));
        }
        out
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Look::Plain))
    }
}

fn without_trailing_space(text: &str) -> String {
    text.lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

/// One finding in the form `miette` prints.
#[derive(Debug)]
struct Shown<'a> {
    problem: &'a Problem,
    source: &'a NamedSource<String>,
    name: &'a str,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problem.span {
            Some(_) => f.write_str(&self.problem.message),
            None => write!(f, "{}: {}", self.name, self.problem.message),
        }
    }
}

impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let hint = self.problem.hint.as_ref()?;
        Some(Box::new(hint))
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.problem.span.as_ref()?;
        Some(self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.problem.span.clone()?;
        let label = LabeledSpan::new_with_span(Some(self.problem.label.clone()), span);
        Some(Box::new(std::iter::once(label)))
    }
}
