//! The pipeline against fakes.
