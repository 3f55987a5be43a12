//! wasmill-tests
