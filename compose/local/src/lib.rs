//! Real servers for tests, the demo, development and chaos: Postgres, Apache Kafka and Apache
//! Cassandra as plain processes on loopback, without containers.
//!
//! ```no_run
//! use wasmill_local::{Listen, Postgres, PostgresOptions};
//!
//! let options = PostgresOptions { listen: Listen::Loopback, ..PostgresOptions::default() };
//! let mut postgres = Postgres::start(&options)?;
//! println!("{}", postgres.url());
//! postgres.kill()?; // as a crash would
//! postgres.restart()?; // same address, same data
//! postgres.stop()?; // no process and no folder is left
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **What it owns.** Finding an installed server or Java, fetching what is missing through `mvn` into
//! a cache (`$WASMILL_CACHE`, else `$XDG_CACHE_HOME/wasmill`, else `~/.cache/wasmill`), free ports,
//! temporary folders, and the life of the processes: none outlives the process that started it, however
//! that one ends. Everything here blocks; call it from a plain thread or `spawn_blocking`.
//!
//! **What it never does.** It prints nothing (see [`Progress`]), listens on nothing but loopback and
//! installs nothing into the system. It knows Unix only. None of the servers asks for a password: they are for data that
//! may be read by whoever can log in to this machine.
//!
//! [`Postgres`], [`Kafka`] and [`Cassandra`] know how to be reached; what can be done to any of them is
//! [`LocalServer`]'s:
//!
//! | word | meaning |
//! |---|---|
//! | `stop` | end in good order; the temporary folder goes |
//! | `halt` | end in good order; data and address are kept for `restart` |
//! | `kill` | SIGKILL; data and address are kept for `restart` |
//! | `restart` | run again on the same data and address (after `halt` if it runs) |
//! | `pause`, `resume` | SIGSTOP and SIGCONT: connections hang, as with a stalled machine |
//! | drop | as `stop`, but without the wait for a good order where the data go anyway |

mod cache;
mod cassandra;
mod environment;
mod error;
mod family;
mod jars;
mod java;
mod kafka;
mod kafka_tools;
mod maven;
mod port;
mod postgres;
mod postgres_binaries;
mod process;
mod progress;
mod run_folder;
mod server;
mod user;

pub use cassandra::{Access, CASSANDRA_VERSION, Cassandra, CassandraOptions, CommitLogSync};
pub use error::{Missing, StartError};
pub use kafka::{KAFKA_VERSION, Kafka, KafkaOptions};
pub use kafka_tools::kafka_consumer_groups;
pub use postgres::{Listen, Postgres, PostgresOptions};
pub use postgres_binaries::PostgresSource;
pub use progress::Progress;
pub use run_folder::{Folder, Scratch};
pub use server::LocalServer;
