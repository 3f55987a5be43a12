//! The catalog: keyspaces and tables as they are, checked against what routes need, or created.
//!
//! It reads `system_schema` (Cassandra's own description of itself) and writes DDL only where manifest or
//! config allow it. It never alters or drops anything. Call it from one place a deployment, not from every
//! shard: Cassandra does not like the same table created twice at the same moment on different nodes.

use super::identifier::{self, TableName};
use super::schema::{LiveColumn, RouteTable};
use super::session::CassandraSession;
use crate::error::{Blame, Error, Result};
use crate::manifest::Create;

/// What a cluster says about how safe its data are; `explain` prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whether writes to the keyspace reach the commit log at all.
    pub durable_writes: bool,
    /// The replication options as text, e.g. `class=SimpleStrategy, replication_factor=3`.
    pub replication: String,
    /// The smallest number of replicas in a datacenter, where the options say it.
    pub replication_factor: Option<u32>,
    /// `batch`, `group` or `periodic` (then acknowledged rows may be lost with a node); `None` when the
    /// server does not tell.
    pub commit_log: Option<String>,
    /// Version of the node asked.
    pub release: Option<String>,
}

/// Checks that the session's keyspace exists, or creates it with `replicas` copies.
///
/// # Errors
/// `Config` when it is missing and may not be created, with the statement that creates it.
pub async fn ensure_keyspace(session: &CassandraSession, replicas: Option<u32>) -> Result<()> {
    let name = session.keyspace();
    let quoted = identifier::keyspace(name)?;
    if keyspace_row(session, name).await?.is_some() {
        return Ok(());
    }
    let ddl = |replicas: u32| {
        format!(
            "CREATE KEYSPACE IF NOT EXISTS {quoted} WITH replication = \
             {{'class': 'NetworkTopologyStrategy', 'replication_factor': {replicas}}}"
        )
    };
    let Some(replicas) = replicas else {
        return Err(
            Error::config(format!("cassandra keyspace {name:?}"), "does not exist").hint(format!(
                "create it, or set create_keyspace = 3 on this connection: {};",
                ddl(3)
            )),
        );
    };
    session.query("create the keyspace", &ddl(replicas)).await?;
    Ok(())
}

/// As [`ensure_table`], but creates nothing: what would be created is fine, a keyspace too where the connection
/// says with how many replicas.
///
/// # Errors
/// As [`ensure_table`].
pub async fn look_at_table(
    session: &CassandraSession,
    table: &RouteTable,
    create: Create,
    replicas: Option<u32>,
) -> Result<()> {
    let keyspace = keyspace_row(session, table.name().keyspace()).await?;
    if keyspace.is_none() && replicas.is_some() && create == Create::IfMissing {
        return Ok(());
    }
    let there = keyspace.is_none() || read_table(session, table.name()).await?.is_some();
    if there || create == Create::Never {
        ensure_table(session, table, Create::Never).await
    } else {
        Ok(())
    }
}

/// Checks a route's table against the live one, or creates it where the manifest allows.
///
/// # Errors
/// `Config` with every difference at once and the CQL that repairs it; `Outside` when no node answers.
pub async fn ensure_table(
    session: &CassandraSession,
    table: &RouteTable,
    create: Create,
) -> Result<()> {
    let what = format!(
        "cassandra table {} of route {:?}",
        table.name(),
        table.route
    );
    if keyspace_row(session, table.name().keyspace())
        .await?
        .is_none()
    {
        return Err(Error::config(
            what,
            format!("keyspace {:?} does not exist", table.name().keyspace()),
        )
        .hint("create the keyspace first"));
    }
    let Some(live) = read_table(session, table.name()).await? else {
        if create == Create::Never {
            return Err(Error::config(what, "does not exist and create = \"never\"")
                .hint(format!("create it: {};", table.ddl())));
        }
        return session.query(&what, &table.ddl()).await.map(drop);
    };
    let mut problems = table.differences(&live.columns);
    if live.counter {
        problems
            .push("it is a counter table, and a repeated count is not the same count".to_owned());
    }
    if live.default_ttl != 0 {
        problems.push(format!(
            "its rows expire {} s after they arrive; ALTER TABLE {} WITH default_time_to_live = 0; and set ttl \
             in the route, which counts from the record's own time",
            live.default_ttl,
            table.name()
        ));
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::config(what, problems.join("; ")).hint(format!(
        "repair it as said, or bind the route to another table; a new one is: {};",
        table.ddl()
    )))
}

/// What the cluster says about the durability of the session's keyspace.
///
/// # Errors
/// `Config` when the keyspace does not exist, `Outside` when no node answers.
pub async fn facts(session: &CassandraSession) -> Result<Facts> {
    let name = session.keyspace();
    let Some((durable_writes, replication)) = keyspace_row(session, name).await? else {
        return Err(
            Error::config(format!("cassandra keyspace {name:?}"), "does not exist")
                .hint("create it, or set create_keyspace on this connection"),
        );
    };
    let factors = replication.iter().filter(|(option, _)| option != "class");
    let factors = factors.filter_map(|(_, value)| value.split('/').next()?.parse::<u32>().ok());
    let text = replication.iter().map(|(option, value)| {
        let class = value.rsplit('.').next().unwrap_or(value);
        format!("{option}={class}")
    });
    Ok(Facts {
        durable_writes,
        replication_factor: factors.min(),
        replication: text.collect::<Vec<_>>().join(", "),
        commit_log: setting(session, "commitlog_sync").await,
        release: release(session).await?,
    })
}

/// Creates a table of the host's own in the session's keyspace, unless it is there: even `IF NOT EXISTS` takes
/// a schema change to all nodes, and two at once may collide.
pub(super) async fn create_table(session: &CassandraSession, table: &str, ddl: &str) -> Result<()> {
    let name = TableName::parse(table, session.keyspace())?;
    if read_table(session, &name).await?.is_none() {
        session
            .query(&format!("create cassandra table {name}"), ddl)
            .await?;
    }
    Ok(())
}

/// Adds a column to a table of the host's own that an earlier version made, unless it has it. Another host may
/// be adding it at the same moment: what counts is that the column is there afterwards.
pub(super) async fn add_column(
    session: &CassandraSession,
    table: &str,
    column: &str,
    ty: &str,
) -> Result<()> {
    let name = TableName::parse(table, session.keyspace())?;
    let there = async || {
        let live = read_table(session, &name).await?;
        let has = |live: LiveTable| live.columns.iter().any(|live| live.name == column);
        Ok::<bool, Error>(live.is_some_and(has))
    };
    if there().await? {
        return Ok(());
    }
    // not `ADD IF NOT EXISTS`: Cassandra 4.0 does not have it
    let ddl = format!("ALTER TABLE {name} ADD {column} {ty}");
    let added = session
        .query(
            &format!("add column {column} to cassandra table {name}"),
            &ddl,
        )
        .await;
    match added {
        Ok(_) => Ok(()),
        Err(_) if there().await? => Ok(()),
        Err(error) => Err(error.hint(format!("let a user who may alter the table run: {ddl};"))),
    }
}

struct LiveTable {
    columns: Vec<LiveColumn>,
    counter: bool,
    default_ttl: i32,
}

/// Replication options in name order, and whether writes are durable.
type Keyspace = (bool, Vec<(String, String)>);

async fn keyspace_row(session: &CassandraSession, name: &str) -> Result<Option<Keyspace>> {
    let what = "read the keyspaces of cassandra";
    identifier::keyspace(name)?;
    let text = format!(
        "SELECT durable_writes, replication FROM system_schema.keyspaces WHERE keyspace_name = '{name}'"
    );
    let rows = session.query(what, &text).await?;
    let row = rows.and_then(|rows| {
        rows.maybe_first_row::<(bool, std::collections::BTreeMap<String, String>)>()
            .transpose()
    });
    let row = row.transpose().map_err(|error| Error::bug(what, error))?;
    Ok(row.map(|(durable, options)| (durable, options.into_iter().collect())))
}

async fn read_table(session: &CassandraSession, name: &TableName) -> Result<Option<LiveTable>> {
    let what = format!("read the columns of cassandra table {name}");
    // both names are letters, digits and underscores: TableName checked them
    let condition = format!(
        "keyspace_name = '{}' AND table_name = '{}'",
        name.keyspace(),
        name.table()
    );
    let bug = |error: &dyn std::fmt::Display| Error::bug(&what, error);
    let text =
        format!("SELECT flags, default_time_to_live FROM system_schema.tables WHERE {condition}");
    let Some(rows) = session.query(&what, &text).await? else {
        return Ok(None);
    };
    let row = rows.maybe_first_row::<(Option<Vec<String>>, Option<i32>)>();
    let Some((flags, ttl)) = row.map_err(|error| bug(&error))? else {
        return Ok(None);
    };
    let text = format!(
        "SELECT column_name, kind, position, type FROM system_schema.columns WHERE {condition}"
    );
    let Some(rows) = session.query(&what, &text).await? else {
        return Ok(None);
    };
    let mut columns = Vec::new();
    for row in rows
        .rows::<(String, String, i32, String)>()
        .map_err(|error| bug(&error))?
    {
        let (name, kind, position, ty) = row.map_err(|error| bug(&error))?;
        columns.push(LiveColumn {
            name,
            kind,
            position,
            ty,
        });
    }
    Ok(Some(LiveTable {
        columns,
        counter: flags
            .unwrap_or_default()
            .iter()
            .any(|flag| flag == "counter"),
        default_ttl: ttl.unwrap_or_default(),
    }))
}

/// A setting of the node, where it tells (Cassandra 4 and later; a refusal is not an error).
async fn setting(session: &CassandraSession, name: &str) -> Option<String> {
    let text = format!("SELECT value FROM system_views.settings WHERE name = '{name}'");
    let rows = session.query("read a setting", &text).await.ok()??;
    rows.maybe_first_row::<(Option<String>,)>().ok()??.0
}

async fn release(session: &CassandraSession) -> Result<Option<String>> {
    let what = "read cassandra's version";
    let text = "SELECT release_version FROM system.local";
    let Some(rows) = session.query(what, text).await? else {
        return Ok(None);
    };
    let row = rows.maybe_first_row::<(Option<String>,)>();
    let row = row.map_err(|error| Error::new(Blame::Bug, what, error))?;
    Ok(row.and_then(|row| row.0))
}
