//! The HTTP API of a running host: upload, deploy, watch. It owns requests, answers, access and the OpenAPI
//! document; what is asked for is done by an [`Operator`]. It never touches the control log or a pipeline.
//!
//! ```text
//! server      accepts, stops ── connection   TLS, HTTP/1.1, time-outs
//!                                 │
//!                                app   guard ▶ who (access) ▶ how often (rate) ▶ route + role ▶ form of the answer
//!                                 │
//!             document: routes ── plugins   pipelines   dead_letters   probes (+ metrics)    body: caps and clocks   query   problem: RFC 9457
//!                                 │
//!                               seat    who answers: nobody yet, then the operator
//!                              operator   the seam: `assemble` implements it
//! ```

mod access;
mod app;
mod body;
mod connection;
mod dead_letters;
mod denials;
mod document;
mod metrics;
pub mod operator;
mod pipelines;
mod plugins;
mod probes;
mod problem;
mod query;
mod rate;
mod seat;
mod server;
mod tls;
pub mod types;

pub use access::{hash_token, is_token_name, new_token};
pub use dead_letters::micros;
pub use document::document;
pub use operator::{Answer, Kind, NewUpload, Operator, Refusal, Step};
pub use seat::Seat;
pub use server::{Server, serve};
