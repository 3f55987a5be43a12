//! The checker both TOML files share: read a table strictly, gather every problem with its place.
//!
//! * [`Report`] owns one file's text while it is checked and collects [`Problem`]s;
//! * [`Section`] reads one table: typed getters that report what is wrong and go on, and
//!   [`Section::finish`], which reports every key nobody asked for;
//! * [`Problems`] is the result of a failed check, with the renderer a person sees;
//! * [`units`] and [`names`] hold the text forms both files use.
//!
//! It knows neither the manifest nor the config, does no I/O and reads no environment. A getter that
//! reports a problem returns `None` (or a harmless stand-in), so that checking goes on; whatever was built
//! is thrown away in [`Report::finish`] when anything was reported.

mod getters;
pub(crate) mod names;
mod problems;
mod render;
mod section;
pub(crate) mod units;
mod value;

pub(crate) use problems::{MAX_TEXT, Report};
pub use problems::{Problem, Problems};
pub use render::Look;
pub(crate) use section::Section;
pub(crate) use value::{At, Entry, kind_of};

/// Whether a text may name a pipeline.
#[must_use]
pub fn is_pipeline_name(text: &str) -> bool {
    names::PIPELINE.fits(text)
}
