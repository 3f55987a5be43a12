//! One session: how it is opened, what is pinned in it, what it has prepared.
//!
//! It owns the socket's task and the statements prepared through it: two of the host's own and at most two
//! a route, each once. Dropping it closes the socket; the server then rolls back what was open.

use std::rc::Rc;

use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, NoTls, Statement};

use crate::error::{Blame, Error, Result};
use crate::task;

use super::plan::{RoutePlan, Shape};
use super::settings::{Durability, Settings};
use super::{failure, url};

/// Silence after which the kernel probes the peer, and between probes; a dead peer is known after 15 s.
const KEEPALIVE: std::time::Duration = std::time::Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 2;

/// Oldest server whose features are used (`plan_cache_mode`).
const OLDEST_SERVER: i32 = 120_000;

/// Stores a grant and a list of cuts as they are given, whatever was there.
const PIN: &str = "UPDATE wasmill.position SET reserved = $7::int8, cuts = $8::text::jsonb, updated_at = pg_catalog.now() \
     WHERE pipeline = $1::text AND topic = $2::text AND partition = $3::int4 AND epoch = $4::int8 \
     AND claim_id = $5::uuid AND next = $6::int8";

/// What a connection prepared for one route.
#[derive(Debug)]
pub(super) struct RouteStatements {
    pub(super) write: Statement,
    pub(super) delete: Option<Statement>,
    /// Row-wise routes: for each field of the table's row type its OID and the route's column, if any.
    pub(super) fields: Vec<(u32, Option<usize>)>,
}

impl RouteStatements {
    /// Whether rows encoded for one are what the other takes.
    pub(super) fn takes_the_same(&self, other: &Self) -> bool {
        self.write.params() == other.write.params() && self.fields == other.fields
    }
}

/// A session with everything pinned.
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) pin: Statement,
    pub(super) letters: Statement,
    pub(super) routes: Vec<Option<Rc<RouteStatements>>>,
    /// Numbers the flights of this session.
    pub(super) flights: u64,
    _driver: task::Driver,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("flights", &self.flights)
            .finish_non_exhaustive()
    }
}

/// Reads the url and adds what the operator left open.
///
/// # Errors
/// As [`url::read`].
pub(super) fn configure(settings: &Settings) -> Result<Config> {
    let mut config = url::read(settings.url.expose())?;
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(settings.timeouts.connect);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(3 * KEEPALIVE);
    }
    if config.get_application_name().is_none() {
        config.application_name(format!("wasmill/{}", settings.pipeline));
    }
    config
        .keepalives(true)
        .keepalives_idle(KEEPALIVE)
        .keepalives_interval(KEEPALIVE)
        .keepalives_retries(KEEPALIVE_PROBES);
    Ok(config)
}

/// Where a server is looked for, without anything secret.
fn address(config: &Config) -> String {
    let ports = config.get_ports();
    let hosts = config.get_hosts().iter().enumerate().map(|(index, host)| {
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        match host {
            Host::Tcp(name) => format!("{name}:{port}"),
            Host::Unix(folder) => format!("{}, port {port}", folder.display()),
        }
    });
    hosts.collect::<Vec<_>>().join(", ")
}

/// A bare session: connected and with its parameters pinned, nothing prepared.
pub(super) struct Session {
    pub(super) client: Client,
    driver: task::Driver,
}

impl Session {
    /// Connects and pins the session's parameters.
    ///
    /// # Errors
    /// `Outside` when the server cannot be reached, `Config` when it refuses us or is too old.
    pub(super) async fn open(config: &Config, settings: &Settings) -> Result<Self> {
        let (client, connection) = config.connect(NoTls).await.map_err(|error| {
            let error = failure::error("connect to postgres", &error).about(address(config));
            match error.hint_text() {
                None if error.blame() == Blame::Outside => {
                    error.hint("is the database up, and its address right?")
                }
                _ => error,
            }
        })?;
        let session = Self {
            client,
            driver: drive(connection),
        };
        let version: i32 = session
            .client
            .simple_query("SHOW server_version_num")
            .await
            .map_err(|error| failure::error("ask postgres for its version", &error))?
            .iter()
            .find_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
                _ => None,
            })
            .unwrap_or(0);
        if version < OLDEST_SERVER {
            return Err(Error::config(
                "connect to postgres",
                format!(
                    "the server says it has version {version}, at least {OLDEST_SERVER} is needed"
                ),
            )
            .hint("upgrade the server to Postgres 12 or newer"));
        }
        session
            .client
            .batch_execute(&session_sql(settings))
            .await
            .map_err(|error| failure::error("set up a postgres session", &error))?;
        Ok(session)
    }

    /// Which process of which server answers.
    ///
    /// # Errors
    /// `Outside` when it does not.
    pub(super) async fn backend(&self) -> Result<String> {
        const WHAT: &str = "ask postgres for its process";
        let sql = "SELECT pg_catalog.pg_backend_pid()::text || ' of a server started ' \
                   || pg_catalog.pg_postmaster_start_time()::text";
        let answer = self.client.simple_query(sql).await;
        let answer = answer.map_err(|error| failure::error(WHAT, &error))?;
        let backend = answer.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        backend.ok_or_else(|| Error::outside(WHAT, "an answer without a row"))
    }

    /// Prepares the host's own statements; the schema is there by now.
    ///
    /// # Errors
    /// As the server refuses.
    pub(super) async fn prepare(self, routes: usize) -> Result<Connection> {
        let prepared = futures_util::future::try_join(
            self.client.prepare(PIN),
            self.client.prepare(super::letters::INSERT),
        )
        .await;
        let (pin, letters) = prepared.map_err(|error| {
            failure::error("prepare the statements of wasmill's schema", &error)
        })?;
        Ok(Connection {
            client: self.client,
            pin,
            letters,
            routes: std::iter::repeat_with(|| None).take(routes).collect(),
            flights: 0,
            _driver: self.driver,
        })
    }
}

/// What every session is pinned to. Plans are generic: a flight's arrays tell the planner nothing worth
/// planning for again. The last part needs a server of 14 or newer on a system that can do it.
fn session_sql(settings: &Settings) -> String {
    let timeouts = &settings.timeouts;
    let synchronous = match settings.durability {
        Durability::Server => "",
        Durability::Disk => {
            "SELECT pg_catalog.set_config('synchronous_commit', 'on', false) \
             WHERE pg_catalog.current_setting('synchronous_commit') IN ('off', 'local');"
        }
    };
    format!(
        "SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = off; \
         SET search_path = pg_catalog, public; SET TimeZone = 'UTC'; SET client_encoding = 'UTF8'; \
         SET statement_timeout = {}; SET lock_timeout = {}; SET idle_in_transaction_session_timeout = {}; \
         SET plan_cache_mode = force_generic_plan; SET client_min_messages = warning; {synchronous} \
         DO $$ BEGIN PERFORM pg_catalog.set_config('client_connection_check_interval', '2s', false); \
         EXCEPTION WHEN OTHERS THEN NULL; END $$",
        timeouts.statement.as_millis(),
        timeouts.lock.as_millis(),
        timeouts.idle_in_transaction.as_millis(),
    )
}

impl Connection {
    /// Prepares what a route needs.
    ///
    /// # Errors
    /// `Config` where the table is missing or no longer fits.
    pub(super) async fn prepare_route(
        &mut self,
        at: usize,
        plan: &RoutePlan,
    ) -> Result<Rc<RouteStatements>> {
        let what = || {
            format!(
                "prepare route {:?} to postgres table {}",
                plan.route.name, plan.route.table
            )
        };
        let failed = |error: tokio_postgres::Error| failure::error(what(), &error);
        let write = self.client.prepare(&plan.write).await.map_err(failed)?;
        let delete = match &plan.delete {
            Some(sql) => Some(self.client.prepare(sql).await.map_err(failed)?),
            None => None,
        };
        let fields = match plan.shape {
            Shape::Columns => Vec::new(),
            Shape::Rows => super::rows::fields(plan, &write.params()[0]).map_err(|detail| {
                Error::config(what(), detail)
                    .hint("restart the host: it prints the DDL that repairs it")
            })?,
        };
        let statements = Rc::new(RouteStatements {
            write,
            delete,
            fields,
        });
        self.routes[at] = Some(Rc::clone(&statements));
        Ok(statements)
    }
}

/// Drives a connection's socket until it is closed.
fn drive<S, T>(connection: tokio_postgres::Connection<S, T>) -> task::Driver
where
    tokio_postgres::Connection<S, T>:
        Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
{
    task::drive(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = failure::detail(&error), "postgres connection ended");
        }
    })
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}
