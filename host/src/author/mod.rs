//! What a plugin's author does with the command line: make a project, build it, test it as the real
//! component, look into a file. The library behind `wasmill plugin new | build | test | inspect`.
//!
//! | file | owns |
//! |---|---|
//! | `scaffold` | a new project from the template, SDK vendored |
//! | `build` | crate → component with its manifest inside |
//! | `pitfalls` | what breaks on wasm32-unknown-unknown, and the line that fixes it |
//! | `fixtures` | records in a file, or embedded, through the real component, compared with golden rows |
//! | `inspect` | what a file is |
//!
//! Everything here blocks and is meant for the command line, never for a shard's thread. Nothing is printed:
//! progress goes to a callback, results are returned.

mod build;
mod fixtures;
mod inspect;
mod pitfalls;
mod scaffold;
#[cfg(test)]
mod tests;

pub use build::{BuildOptions, Built, Progress, build};
pub use fixtures::{
    DEAD, Detail, EmbeddedFixture, FixtureReport, Gathered, Golden, Place, Report, Rerun, Rows,
    Runner, Verdict, embedded_fixtures, gather_fixtures, run_fixtures,
};
pub use inspect::{Inspection, inspect};
pub use scaffold::scaffold;
