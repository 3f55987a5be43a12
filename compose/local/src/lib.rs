//! wasmill-local
