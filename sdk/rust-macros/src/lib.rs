//! wasmill-sdk-macros
