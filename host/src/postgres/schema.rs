//! The host's own schema in Postgres: positions and dead letters, with a version. It only ever adds.
//!
//! Several hosts may start at once: an advisory lock lets one create while the others wait and look again.

use tokio_postgres::Client;

use crate::error::{Error, Result};

use super::failure;

/// Version this host writes.
const VERSION: i32 = 3;

/// Key of the advisory lock under which hosts create tables: "wasmill" in ASCII.
pub(super) const LOCK: i64 = 0x77_6173_6d69_6c6c;

/// What leads from each version to the next, from nothing on.
const STEPS: [&str; 3] = [CREATE, LEDGER, FILTERED];

/// `position`: one row a partition, small pages so that updates stay on theirs (HOT). `cuts` is an array of
/// `{"at": offset, "release": "…"}` in listing order, changed by pins only; `plugin` is the digest last used.
/// `dead_letter`: `headers` is a headers cell (s32 count, then name and value cells), kept byte by byte.
const CREATE: &str = r#"
CREATE TABLE wasmill.schema_version (
  version int4 PRIMARY KEY,
  applied_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);
CREATE TABLE wasmill.position (
  pipeline text NOT NULL,
  topic text NOT NULL,
  topic_id text,
  partition int4 NOT NULL,
  epoch int8 NOT NULL DEFAULT 0,
  claim_id uuid,
  next int8 NOT NULL CHECK (next >= 0),
  reserved int8 NOT NULL DEFAULT 0,
  cuts jsonb NOT NULL DEFAULT '[]',
  plugin text,
  hlc int8 NOT NULL DEFAULT 0,
  updated_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
  PRIMARY KEY (pipeline, topic, partition)
) WITH (fillfactor = 50);
CREATE TABLE wasmill.dead_letter (
  pipeline text NOT NULL,
  topic text NOT NULL,
  partition int4 NOT NULL,
  "offset" int8 NOT NULL,
  index int4 NOT NULL,
  class text NOT NULL,
  code text NOT NULL,
  reason text NOT NULL,
  key bytea,
  value bytea,
  headers bytea,
  null_key boolean NOT NULL,
  null_value boolean NOT NULL,
  truncated boolean NOT NULL,
  record_timestamp timestamptz,
  plugin text NOT NULL,
  digest text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
  retried_at timestamptz,
  PRIMARY KEY (pipeline, topic, partition, "offset", index)
);
CREATE FUNCTION wasmill.advance(
  a_flight text, a_pipeline text, a_topic text, a_partition int4, a_epoch int8, a_claim uuid,
  a_from int8, a_to int8, a_reserved int8, a_hlc int8, a_plugin text
) RETURNS void LANGUAGE plpgsql AS $advance$
DECLARE
  stored record;
BEGIN
  IF pg_catalog.current_setting('wasmill.flight', true) IS DISTINCT FROM a_flight THEN
    RAISE EXCEPTION 'flight % is not the open transaction', a_flight USING ERRCODE = 'WM002';
  END IF;
  UPDATE wasmill.position
     SET next = a_to, reserved = greatest(reserved, a_reserved), hlc = a_hlc, plugin = a_plugin,
         updated_at = pg_catalog.now()
   WHERE pipeline = a_pipeline AND topic = a_topic AND partition = a_partition
     AND next = a_from AND epoch = a_epoch AND claim_id = a_claim;
  IF NOT FOUND THEN
    SELECT next, epoch INTO stored FROM wasmill.position
     WHERE pipeline = a_pipeline AND topic = a_topic AND partition = a_partition;
    RAISE EXCEPTION 'partition % of % stands at % under epoch %, the flight comes from % under epoch %',
      a_partition, a_topic, stored.next, stored.epoch, a_from, a_epoch USING ERRCODE = 'WM001';
  END IF;
END
$advance$;
INSERT INTO wasmill.schema_version (version) VALUES (1);
"#;

/// The ledger: what became of the records below `next`, moved with it. Positions of before begin theirs where they
/// stand. `retried` counts dead letters that were processed again since, by whoever did it. Of a dead letter: `stamp` is
/// its record's write time at sinks written ahead, `begun` the release that began to send it there by a retry.
const LEDGER: &str = r#"
ALTER TABLE wasmill.position
  ADD COLUMN records int8 NOT NULL DEFAULT 0,
  ADD COLUMN emitted int8 NOT NULL DEFAULT 0,
  ADD COLUMN filtered int8 NOT NULL DEFAULT 0,
  ADD COLUMN dead int8 NOT NULL DEFAULT 0,
  ADD COLUMN retried int8 NOT NULL DEFAULT 0,
  ADD CONSTRAINT position_balances CHECK (records = emitted + filtered + dead AND retried BETWEEN 0 AND dead);
ALTER TABLE wasmill.dead_letter ADD COLUMN stamp int8, ADD COLUMN begun text;
CREATE FUNCTION wasmill.advance(
  a_flight text, a_pipeline text, a_topic text, a_partition int4, a_epoch int8, a_claim uuid,
  a_from int8, a_to int8, a_reserved int8, a_hlc int8, a_plugin text,
  a_records int8, a_emitted int8, a_filtered int8, a_dead int8
) RETURNS void LANGUAGE plpgsql AS $advance$
DECLARE
  stored record;
BEGIN
  IF pg_catalog.current_setting('wasmill.flight', true) IS DISTINCT FROM a_flight THEN
    RAISE EXCEPTION 'flight % is not the open transaction', a_flight USING ERRCODE = 'WM002';
  END IF;
  UPDATE wasmill.position
     SET next = a_to, reserved = greatest(reserved, a_reserved), hlc = a_hlc, plugin = a_plugin,
         records = a_records, emitted = a_emitted, filtered = a_filtered, dead = a_dead,
         updated_at = pg_catalog.now()
   WHERE pipeline = a_pipeline AND topic = a_topic AND partition = a_partition
     AND next = a_from AND epoch = a_epoch AND claim_id = a_claim;
  IF NOT FOUND THEN
    SELECT next, epoch INTO stored FROM wasmill.position
     WHERE pipeline = a_pipeline AND topic = a_topic AND partition = a_partition;
    RAISE EXCEPTION 'partition % of % stands at % under epoch %, the flight comes from % under epoch %',
      a_partition, a_topic, stored.next, stored.epoch, a_from, a_epoch USING ERRCODE = 'WM001';
  END IF;
END
$advance$;
INSERT INTO wasmill.schema_version (version) VALUES (2);
"#;

/// Of the `retried` records, those of which the plugin made no row: they are filtered, the others are emitted.
const FILTERED: &str = "
ALTER TABLE wasmill.position
  ADD COLUMN retried_filtered int8 NOT NULL DEFAULT 0,
  ADD CONSTRAINT position_retried CHECK (retried_filtered BETWEEN 0 AND retried);
INSERT INTO wasmill.schema_version (version) VALUES (3);
";

/// Makes sure the schema is there in this version.
///
/// # Errors
/// `Config` when a newer host made it, or the user may not create it; `Outside` when the server is away.
pub(super) async fn ensure(client: &Client) -> Result<()> {
    if version(client).await? == Some(VERSION) {
        return Ok(());
    }
    let failed = |error: tokio_postgres::Error| create_failed(&error);
    client
        .batch_execute(&format!(
            "BEGIN; SELECT pg_catalog.pg_advisory_xact_lock({LOCK})"
        ))
        .await
        .map_err(failed)?;
    let found = version(client).await?;
    if found.is_none() {
        let schema: bool = client
            .query_one(
                "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'wasmill')",
                &[],
            )
            .await
            .map_err(failed)?
            .get(0);
        if !schema {
            client
                .batch_execute("CREATE SCHEMA wasmill")
                .await
                .map_err(failed)?;
        }
    }
    let done = usize::try_from(found.unwrap_or(0)).unwrap_or(0);
    for step in STEPS.iter().skip(done) {
        client.batch_execute(step).await.map_err(failed)?;
    }
    if done < STEPS.len() {
        tracing::info!(
            from = done,
            to = VERSION,
            "schema wasmill in postgres made or upgraded"
        );
    }
    client
        .batch_execute("SET LOCAL synchronous_commit = on; COMMIT")
        .await
        .map_err(failed)
}

/// Whether the schema was made. A scan of the catalog, not `to_regclass`: that answers from a cache which,
/// after waiting for the advisory lock, does not know yet what the host before us has created.
const EXISTS: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c \
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE n.nspname = 'wasmill' AND c.relname = 'schema_version')";

/// The stored version, `None` where there is no schema yet.
async fn version(client: &Client) -> Result<Option<i32>> {
    let what = "read the version of schema wasmill in postgres";
    let exists: bool = client
        .query_one(EXISTS, &[])
        .await
        .map_err(|error| failure::error(what, &error))?
        .get(0);
    if !exists {
        return Ok(None);
    }
    let version: Option<i32> = client
        .query_one("SELECT max(version) FROM wasmill.schema_version", &[])
        .await
        .map_err(|error| failure::error(what, &error).hint(GRANTS))?
        .get(0);
    match version {
        Some(version) if version > VERSION => Err(Error::config(
            what,
            format!("it is {version}, this host knows {VERSION}"),
        )
        .hint("upgrade this host: a newer one has been here")),
        version => Ok(version),
    }
}

/// What a user needs who is not the owner.
const GRANTS: &str = "as its owner: GRANT USAGE ON SCHEMA wasmill TO …; GRANT SELECT, INSERT, UPDATE, DELETE ON \
                      ALL TABLES IN SCHEMA wasmill TO …";

fn create_failed(error: &tokio_postgres::Error) -> Error {
    let denied = failure::sqlstate(error) == Some("42501");
    let error = failure::error("create schema wasmill in postgres", error);
    if denied {
        return error.hint(
            "GRANT CREATE ON DATABASE … TO the connection's user, or let a user who may run the host once",
        );
    }
    error
}
