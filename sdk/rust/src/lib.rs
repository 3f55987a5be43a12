//! wasmill-sdk
