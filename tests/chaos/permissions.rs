//! Privileges that are taken from the host's user while records flow: the pipeline stops and says which table, nothing is
//! lost, and once they are granted again a restart is all it takes.

use std::collections::BTreeSet;
use std::time::Duration;

use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use wasmill_local::{Access, Cassandra, CassandraOptions};
use wasmill_tests::host::{Exit, Host};
use wasmill_tests::records::Made;
use wasmill_tests::skip::skip;
use wasmill_tests::stage::pipeline;
use wasmill_tests::wait::eventually;
use wasmill_tests::{Stage, artifact, versioned};

const SOON: Duration = Duration::from_secs(90);

/// The host's end, which has to be an operator's to mend and say all of `words`.
fn stopped(host: Host, words: &[&str]) -> Exit {
    let exit = host.wait(SOON);
    exit.refused(words);
    exit.refused(&["hint"]);
    exit
}

/// Produces this many more of the records `r-N`.
fn more(stage: &Stage, made: &mut i64, count: i64) {
    let records = (*made..*made + count).map(|n| Made::new(format!("r-{n}"), "{}"));
    stage.feed.send("records", &records.collect::<Vec<_>>());
    *made += count;
}

#[tokio::test]
async fn what_a_postgres_user_may_no_longer_do_stops_the_pipeline_and_loses_nothing() {
    let stage = Stage::new();
    stage.feed.topic("records", 1).await;
    stage
        .execute(
            "CREATE TABLE seen (id text); CREATE ROLE clerk LOGIN; GRANT CREATE ON DATABASE postgres TO clerk; \
             GRANT SELECT, INSERT ON seen TO clerk",
        )
        .await;
    let address = stage.postgres.tcp_address().unwrap();
    let bind = "bind.route.seen = { connection = \"main\", table = \"seen\" }";
    let text = format!(
        "{}\n{}",
        stage.connections(),
        pipeline("p", &artifact::plugin("tests/guests/trap"), bind)
    );
    let text = text.replace(
        &stage.postgres.url(),
        &format!("postgres://clerk@{address}/postgres"),
    );
    std::fs::write(stage.path("wasmill.toml"), text).unwrap();
    let mut made = 0;
    more(&stage, &mut made, 50);
    let mut host = stage.again();
    // Once the schema is the host's, somebody else may own it.
    eventually(SOON, "records are processed", async || {
        stage.positioned("p", made).await
    })
    .await;
    stage
        .execute(
            "ALTER SCHEMA wasmill OWNER TO postgres; ALTER TABLE wasmill.position OWNER TO postgres; \
             ALTER TABLE wasmill.dead_letter OWNER TO postgres; ALTER TABLE wasmill.schema_version OWNER TO postgres; \
             GRANT USAGE ON SCHEMA wasmill TO clerk; \
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA wasmill TO clerk",
        )
        .await;
    for (privilege, table, at_start) in [
        ("INSERT", "seen", &["GRANT INSERT", "seen"][..]),
        ("UPDATE", "wasmill.position", &["position", "GRANT"]),
        ("SELECT", "wasmill.position", &["position", "GRANT"]),
    ] {
        let name = table.trim_start_matches("wasmill.");
        let revoke = format!("REVOKE {privilege} ON {table} FROM clerk");
        stage.execute(&revoke).await;
        let held = made;
        more(&stage, &mut made, 50);
        stopped(
            host,
            &[&format!("permission denied for table {name}"), "GRANT"],
        );
        assert_eq!(stage.position("p").await, held, "{revoke}");
        stopped(stage.again(), at_start);
        assert_eq!(stage.position("p").await, held, "{revoke}");
        stage
            .execute(&format!("GRANT {privilege} ON {table} TO clerk"))
            .await;
        host = stage.again();
        eventually(SOON, "it goes on", async || {
            stage.positioned("p", made).await
        })
        .await;
        for count in ["count(*)", "count(DISTINCT id)"] {
            let sql = format!("SELECT {count} FROM seen");
            assert_eq!(stage.number(&sql).await, made, "{revoke}: {sql}");
        }
    }
    assert_eq!(stage.dead().await, []);
    assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
}

/// A session of a user, once the server knows it.
async fn login(cassandra: &Cassandra, user: &str, password: &str) -> Session {
    eventually(SOON, &format!("{user} may log in"), async || {
        let builder = SessionBuilder::new().known_node(cassandra.contact_point());
        let session = builder.user(user, password).build().await;
        session.map_err(|error| error.to_string())
    })
    .await
}

async fn execute(session: &Session, cql: &str) {
    let done = session.query_unpaged(cql, ()).await;
    done.unwrap_or_else(|error| panic!("{cql}: {error}"));
}

/// The ids in the table.
async fn ids(session: &Session) -> Result<BTreeSet<String>, String> {
    let query = "SELECT id FROM guarded.versioned_copies";
    let rows = session.query_unpaged(query, ()).await;
    // The host makes the table.
    let rows = rows.map_err(|error| error.to_string())?;
    let rows = rows.into_rows_result().unwrap();
    let rows = rows.rows::<(String,)>().unwrap();
    Ok(rows.map(|row| row.unwrap().0).collect())
}

#[tokio::test]
async fn what_a_cassandra_role_may_not_do_stops_the_pipeline_and_loses_nothing() {
    if let Err(missing) = Cassandra::available() {
        skip(format_args!("{missing}; {}", missing.hint));
        return;
    }
    let options = CassandraOptions {
        access: Access::Roles,
        heap_mb: 256,
        ..CassandraOptions::default()
    };
    let cassandra = Cassandra::start(&options).unwrap();
    let admin = login(&cassandra, "cassandra", "cassandra").await;
    for cql in [
        "CREATE KEYSPACE guarded WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}",
        "CREATE ROLE clerk WITH PASSWORD = 'right' AND LOGIN = true",
        "GRANT CREATE ON KEYSPACE guarded TO clerk",
    ] {
        execute(&admin, cql).await;
    }
    let stage = Stage::new();
    stage.feed.topic("records", 1).await;
    let host = |password: &str| {
        let connection = format!(
            "[cassandra.main]\nhosts = [{:?}]\nkeyspace = \"guarded\"\nusername = \"clerk\"\npassword = {password:?}\n",
            cassandra.contact_point()
        );
        let bind = "bind.route.log = \"discard\"\n\
                    bind.route.copies = { connection = \"main\", table = \"versioned_copies\" }";
        let plugin = artifact::plugin("tests/guests/versioned");
        stage.host(&format!("{connection}\n{}", pipeline("p", &plugin, bind)))
    };
    let mut made = 0;
    let mut send = || {
        let records = (made..made + 100).map(|n| versioned::record(0, n));
        stage.feed.send("records", &records.collect::<Vec<_>>());
        made += 100;
        made
    };
    let all = async |until: i64| {
        let kept = (0..until).filter(|n| n % versioned::KEPT == 0);
        let wanted: BTreeSet<String> = kept.map(|n| format!("0-{n}")).collect();
        eventually(SOON, "every row is there", async || {
            let found = ids(&admin).await?;
            match found == wanted {
                true => Ok(()),
                false => Err(format!("{} of {}", found.len(), wanted.len())),
            }
        })
        .await;
    };
    stopped(host("wrong"), &["`username` and `password`"]);
    let mut running = host("right");
    all(send()).await;
    // Who made the tables has every privilege on them.
    for (privilege, table) in [
        ("MODIFY", "versioned_copies"),
        ("MODIFY", "wasmill_position"),
        ("SELECT", "wasmill_position"),
    ] {
        let of = format!("{privilege} ON guarded.{table}");
        execute(&admin, &format!("REVOKE {of} FROM clerk")).await;
        let held = ids(&admin).await.unwrap().len();
        let until = send();
        let told = [
            &format!("no {privilege} permission on <table guarded.{table}>"),
            "grant MODIFY and SELECT",
        ];
        stopped(running, &told);
        stopped(host("right"), &told);
        // Rows are written ahead of the position; without their table's privilege there is none.
        if table == "versioned_copies" {
            assert_eq!(ids(&admin).await.unwrap().len(), held, "{of}");
        }
        execute(&admin, &format!("GRANT {of} TO clerk")).await;
        running = host("right");
        all(until).await;
    }
    assert_eq!(running.stop(Duration::from_secs(25)).code, Some(0));
}
