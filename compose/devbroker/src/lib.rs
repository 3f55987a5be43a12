//! wasmill-devbroker
