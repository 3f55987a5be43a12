//! Wasmill: a stream processor. A host reads Kafka topics, runs users' transforms compiled to WebAssembly
//! components, and writes what they emit to Postgres and Cassandra tables and to topics, as each plugin's manifest
//! says. Transforms are uploaded to running hosts, and replaced between two batches.
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
//!                    5 ahead    other sinks (Cassandra, Kafka) written and acknowledged
//!                    6 commit   the anchor, last
//!                    └─ failure: classify (data | plugin | outside | config) → bisect, retry or stop; never guess
//!
//! HTTP ──▶ admin ──▶ upload (checked in a process of its own) ──▶ control log (compacted topic) ◀── config file
//!            │ plans, changes, status                                 │ followed by every host
//!            └──────────────── assemble ◀─────────────────────────────┘
//!                                  └─ which release a partition should run ──▶ lanes
//!                                                 from which offset on: the anchor's cuts
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
//! | retry | a dead letter through a release once more | [`pipeline`] |
//! | ledger | what became of every record below a position; moves with it | [`anchor`] |
//! | quarantine | the thread of lanes that were a burden to others | [`pipeline`] |
//! | version | `name@version` of an uploaded component; immutable | [`control`] |
//! | overlay | a pipeline's section as TOML without `file` and `plugin`, secrets unresolved | [`config`], [`control`] |
//! | release | a version bound to an overlay; its id is what cuts name | [`control`], [`pipeline`] |
//! | deployment, revision | what a pipeline shall do, in full; its number, from 1 | [`control`] |
//! | cut | from which offset on a release processes a partition | [`anchor`] |
//! | verdict | how a row of a table compares with what its records become | [`verify`] |
//! | segment | the offsets of a partition that one release processed; history for people | [`control`] |
//! | canary | a release on trial on whole partitions, compared with the others | [`control`] |
//! | shadow | a release on trial on all batches, its sinks off | [`pipeline`] |
//! | control log | the entries that say what exists and what should run; one state on every host | [`control`] |
//! | paused, parked, stopped | by an operator; after failures of the plugin; until an operator acts | [`assemble`] |
//!
//! # What is guaranteed
//!
//! With a deterministic plugin every record ends as exactly one of *emitted*, *filtered*, *dead-lettered*, and each
//! table ends as a failure-free run would have left it, whatever is killed; a topic beside a table holds every message
//! at least once. In Postgres that holds at every instant, because rows, dead letters and the position commit in one
//! transaction, by compare-and-set under an epoch. Cassandra converges to it: it is written ahead, idempotently, with
//! timestamps that are a function of the record. Where only topics are written, messages, dead letters and the position
//! are one Kafka transaction.
//!
//! Each record is processed by the release that the cuts of its partition name, also when it is processed again after a
//! crash. The control log decides what is wanted, and only the anchor from where: a host that lags behind in the log
//! cannot bring an older release back.
//!
//! # Layers
//!
//! `error task clock record` ← `config manifest telemetry decode` ← contracts (`source sink anchor route plugin`) ←
//! adapters (`kafka postgres cassandra`, the engine in `plugin`), which never import each other. `pipeline`,
//! `control` and `verify` know contracts only; `control` is a state machine and the trait of its log, which `kafka` implements.
//! `admin author upload cli assemble` know all, but only `assemble` picks adapters (the demo, `dev` and `feed` look at
//! servers by themselves). `admin` defines `Operator`, what the API asks of a host; `assemble` implements it, and `cli`
//! is a client of the API. A test holds it.

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
pub mod verify;
