//! Things that are taken away while a pipeline runs.
