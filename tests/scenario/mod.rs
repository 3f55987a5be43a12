//! Pipelines from end to end: what goes in, what has to come out.

pub(crate) mod bad_input;
mod demo;
pub(crate) mod flights;
mod neighbour;
mod real;
mod verify;
mod verify_kept;
mod zoo;
