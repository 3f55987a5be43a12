//! Wasmill: a stream processor. A host reads Kafka topics, runs users' transforms compiled to WebAssembly
//! components, and writes what they emit to Postgres and Cassandra tables, as each plugin's manifest says.
//!
//! ```text
//! Kafka ──fetch──▶ source (1 thread a pipeline, always polling)
//!                    │ batches by topic-partition, bounded in records AND bytes; full lane = pause that partition
//!                    ▼
//!                  lane on its shard ───────────────────────────────────────────────────────────────────────┐
//!                    1 decode   declared fields, natively → typed cells; a bad record → dead letter
//!                    2 run      one guest call a batch: run time, memory and output capped
//!                    3 check    every row's cells against the route's columns; a misfit dead-letters its record
//!                    4 flight   the anchor opens: position + rows + dead letters in ONE transaction
//!                    5 ahead    idempotent sinks (Cassandra) written and acknowledged
//!                    6 commit   the anchor, last
//!                    └─ failure: classify (data | plugin | outside | config) → bisect, retry or stop; never guess
//! ```
//!
//! # Words
//!
//! | word | meaning | where |
//! |---|---|---|
//! | record, batch | one Kafka message; an ordered run of one partition's | [`record`] |
//! | field, row, cell | a typed value for the plugin; a typed output; one encoded value | [`record`], [`decode`] |
//! | position | next offset to read; ranges are half-open | [`anchor`] |
//! | plugin, instance | a component with its manifest; one live store of it | [`plugin`], [`manifest`] |
//! | route | a plugin's named output with its columns | [`route`] |
//! | pipeline | source + plugin + routes bound to real sinks | [`pipeline`] |
//! | lane, shard | the work of one partition; the thread that owns lanes | [`pipeline`] |
//! | sink | where rows are written | [`sink`] |
//! | anchor, claim | the one place that holds positions; owning a partition under an epoch | [`anchor`] |
//! | dead letter | a record set aside with its bytes, coordinates and reason | [`route`] |
//!
//! # What is guaranteed
//!
//! With a deterministic plugin every record ends as exactly one of *emitted*, *filtered*, *dead-lettered*, and each
//! sink ends as a failure-free run would have left it, whatever is killed. In Postgres that holds at every
//! instant, because rows, dead letters and the position commit in one transaction, by compare-and-set under
//! an epoch. Cassandra converges to it: it is written ahead, idempotently, with timestamps that are a function
//! of the record.
//!
//! # Layers
//!
//! `error task clock record` ← `config manifest telemetry decode` ← contracts (`source sink anchor route plugin`) ←
//! adapters (`kafka postgres cassandra`, the engine in `plugin`), which never import each other; `pipeline` knows
//! contracts only; `author upload cli assemble` know all, and only `assemble` picks adapters (the demo looks into tables
//! by itself). A test holds it.

pub mod admin;
pub mod anchor;
pub mod assemble;
pub mod author;
pub mod cassandra;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod decode;
pub mod error;
pub mod kafka;
pub mod manifest;
pub mod pipeline;
pub mod plugin;
pub mod postgres;
pub mod record;
pub mod route;
pub mod sink;
pub mod source;
pub mod task;
pub mod telemetry;
pub mod toml_check;
pub mod upload;
