//! The HTTP API of a running host: upload, deploy, watch. It owns requests, answers, access and the OpenAPI
//! document; what is asked for is done by an [`Operator`]. It never touches the control log or a pipeline.

pub mod operator;
pub mod types;

pub use operator::{Answer, Kind, NewUpload, Operator, Refusal};
