//! Pipelines from end to end: what goes in, what has to come out.

mod flights;
