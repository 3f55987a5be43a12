//! Things that are taken away while a pipeline runs.

mod absent;
mod kill;
mod taken_away;
