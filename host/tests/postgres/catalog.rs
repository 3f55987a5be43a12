//! Tables against routes: what is created, what is refused and the DDL that repairs it.

use std::time::Duration;

use wasmill::config::Secret;
use wasmill::error::{Blame, Error};
use wasmill::manifest::Create;
use wasmill::postgres::{PostgresRoute, Tables};

use crate::support::{Place, ensure, quakes, route};

async fn refused(place: &Place, routes: Vec<PostgresRoute>) -> Error {
    let error = ensure(&place.settings(routes)).await.unwrap_err();
    assert_eq!(error.blame(), Blame::Config);
    error
}

#[tokio::test]
async fn a_missing_table_is_created_or_its_ddl_is_shown_and_works() {
    let place = Place::new().await;
    let mut by_hand = quakes();
    by_hand.create = Create::Never;
    let error = refused(&place, vec![by_hand.clone()]).await;
    assert!(error.detail().contains("does not exist"), "{error}");
    let ddl = error
        .hint_text()
        .unwrap()
        .split_once('\n')
        .unwrap()
        .1
        .to_owned();
    assert_eq!(
        ddl,
        "CREATE TABLE IF NOT EXISTS \"geo\".\"quakes\" (\n  \"id\" bigint NOT NULL,\n  \"place\" text,\n  PRIMARY KEY (\"id\")\n);"
    );
    place.sql.batch_execute("CREATE SCHEMA geo").await.unwrap();
    place.sql.batch_execute(&ddl).await.unwrap();
    let log = route(
        "log",
        &[],
        &[("id", "int64", false), ("tags", "list<text>", true)],
    );
    let settings = place.settings(vec![by_hand, log]);
    let reports = ensure(&settings).await.unwrap();
    let created: Vec<bool> = reports.iter().map(|report| report.created).collect();
    assert_eq!(created, [false, true]);
    assert!(
        reports.iter().all(|report| report.notes.is_empty()),
        "{reports:?}"
    );
    assert!(
        ensure(&settings)
            .await
            .unwrap()
            .iter()
            .all(|report| !report.created)
    );
}

#[tokio::test]
async fn every_difference_is_named_at_once_and_the_ddl_removes_it() {
    let place = Place::new().await;
    place
        .sql
        .batch_execute(
            "CREATE SCHEMA geo; CREATE UNLOGGED TABLE geo.quakes (id integer NOT NULL, place text NOT NULL, \
             needed text NOT NULL, at timestamptz); INSERT INTO geo.quakes VALUES (1, 'here', 'x', now())",
        )
        .await
        .unwrap();
    let columns = [
        ("id", "int64", false),
        ("place", "text", true),
        ("mag", "float64", false),
        ("at", "timestamp", false),
    ];
    let mut route = route("quakes", &[0], &columns);
    route.guard = Some(3);
    let error = refused(&place, vec![route.clone()]).await;
    for part in [
        "unlogged",
        "column \"id\" is integer, the route needs bigint",
        "column \"place\" is NOT NULL",
        "column \"mag\" is missing",
        "guard column \"at\" takes nulls",
        "column \"needed\" is NOT NULL, has no default",
        "no unique index on exactly the key (\"id\")",
    ] {
        assert!(error.detail().contains(part), "{part}: {error}");
    }
    let ddl = error
        .hint_text()
        .unwrap()
        .split_once('\n')
        .unwrap()
        .1
        .to_owned();
    place.sql.batch_execute(&ddl).await.unwrap();
    ensure(&place.settings(vec![route])).await.unwrap();
}

#[tokio::test]
async fn what_could_refuse_at_commit_is_refused_at_deploy() {
    let place = Place::new().await;
    place
        .sql
        .batch_execute(
            "CREATE SCHEMA geo; CREATE TABLE geo.other (id bigint PRIMARY KEY); \
             CREATE TABLE geo.quakes (id bigint PRIMARY KEY REFERENCES geo.other DEFERRABLE, \
             place text UNIQUE DEFERRABLE, more int GENERATED ALWAYS AS IDENTITY, doubled bigint GENERATED ALWAYS AS (id * 2) STORED)",
        )
        .await
        .unwrap();
    let error = refused(&place, vec![quakes()]).await;
    assert!(
        error.detail().contains("quakes_id_fkey") && error.detail().contains("quakes_place_key"),
        "{error}"
    );
    let ddl = error
        .hint_text()
        .unwrap()
        .split_once('\n')
        .unwrap()
        .1
        .to_owned();
    place.sql.batch_execute(&ddl).await.unwrap();
    let reports = ensure(&place.settings(vec![quakes()])).await.unwrap();
    assert!(
        reports[0]
            .notes
            .iter()
            .any(|note| note.contains("generated")),
        "{reports:?}"
    );
    let mut written = quakes();
    written.columns.extend(crate::support::columns(&[
        ("doubled", "int64", true),
        ("more", "int32", false),
    ]));
    let error = refused(&place, vec![written]).await;
    assert!(
        error.detail().matches("is generated").count() == 2,
        "{error}"
    );
    place
        .sql
        .batch_execute(error.hint_text().unwrap().split_once('\n').unwrap().1)
        .await
        .unwrap();
}

#[tokio::test]
async fn indexes_that_are_not_exactly_the_key_do_not_do() {
    let place = Place::new().await;
    place
        .sql
        .batch_execute(
            "CREATE SCHEMA geo; CREATE TABLE geo.quakes (id bigint NOT NULL, place text); \
             CREATE UNIQUE INDEX ON geo.quakes (id, place); CREATE UNIQUE INDEX ON geo.quakes (id) WHERE id > 0; \
             CREATE UNIQUE INDEX ON geo.quakes (abs(id)); CREATE VIEW geo.view AS SELECT 1 AS id",
        )
        .await
        .unwrap();
    let error = refused(&place, vec![quakes()]).await;
    assert!(error.detail().contains("exactly the key"), "{error}");
    place
        .sql
        .batch_execute("CREATE UNIQUE INDEX ON geo.quakes (id) INCLUDE (place)")
        .await
        .unwrap();
    let notes = ensure(&place.settings(vec![quakes()]))
        .await
        .unwrap()
        .remove(0)
        .notes;
    assert_eq!(notes.len(), 1, "{notes:?}");
    let error = refused(&place, vec![route("view", &[], &[("id", "int32", false)])]).await;
    assert!(error.detail().contains("not a table"), "{error}");
}

#[tokio::test]
async fn eight_hosts_create_the_schema_and_the_tables_at_once() {
    let place = Place::new().await;
    let settings = place.settings(vec![quakes()]);
    let hosts = (0..8).map(|_| ensure(&settings));
    let reports = futures_util::future::join_all(hosts).await;
    assert!(reports.iter().all(Result::is_ok), "{reports:?}");
    assert_eq!(
        place
            .text("SELECT version::text FROM wasmill.schema_version ORDER BY 1")
            .await,
        "1 2 3"
    );
}

#[tokio::test]
async fn a_schema_of_a_newer_host_is_left_alone() {
    let place = Place::new().await;
    ensure(&place.settings(Vec::new())).await.unwrap();
    place
        .sql
        .execute("INSERT INTO wasmill.schema_version VALUES (99)", &[])
        .await
        .unwrap();
    let error = ensure(&place.settings(Vec::new())).await.unwrap_err();
    assert_eq!(error.blame(), Blame::Config);
    assert!(error.hint_text().unwrap().contains("upgrade"), "{error:?}");
}

#[tokio::test]
async fn a_user_without_privileges_is_told_which() {
    let place = Place::new().await;
    place
        .sql
        .batch_execute("CREATE ROLE poor LOGIN")
        .await
        .unwrap();
    let mut settings = place.settings(vec![quakes()]);
    settings.url = Secret::new(
        place
            .server
            .socket_url()
            .replace("user=postgres", "user=poor"),
    );
    let error = ensure(&settings).await.unwrap_err();
    assert_eq!(error.blame(), Blame::Config);
    assert!(
        error.detail().contains("42501") && error.hint_text().unwrap().contains("GRANT CREATE"),
        "{error:?}"
    );
    place.anchor(vec![quakes()]).await;
    let error = ensure(&settings).await.unwrap_err();
    assert!(error.hint_text().unwrap().contains("GRANT"), "{error:?}");
    place
        .sql
        .batch_execute(
            "GRANT USAGE ON SCHEMA wasmill, geo TO poor; \
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA wasmill TO poor",
        )
        .await
        .unwrap();
    let error = ensure(&settings).await.unwrap_err();
    assert!(
        error
            .detail()
            .contains("lacks INSERT, SELECT, UPDATE, DELETE"),
        "{error}"
    );
    settings.url = Secret::new(
        place
            .server
            .socket_url()
            .replace("dbname=postgres", "dbname=nowhere"),
    );
    let error = ensure(&settings).await.unwrap_err();
    assert_eq!(error.blame(), Blame::Config);
    assert!(
        error.hint_text().unwrap().contains("create the database"),
        "{error:?}"
    );
}

#[tokio::test]
async fn many_looks_share_a_few_sessions_and_leave_none() {
    let place = Place::new().await;
    let settings = place.settings(vec![quakes()]);
    ensure(&settings).await.unwrap();
    // Counted when a session has ended.
    let opened = "SELECT sessions::text FROM pg_stat_database WHERE datname = current_database()";
    let open =
        "SELECT count(*)::text FROM pg_stat_activity WHERE application_name LIKE 'wasmill/%'";
    let ended = async || {
        for _ in 0..500 {
            if place.text(open).await == "0" {
                return place.text(opened).await.parse::<u32>().unwrap();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("sessions stay open");
    };
    let before = ended().await;
    let tables = Tables::default();
    let looks = (0..40).map(|_| tables.look(&settings));
    let reports = futures_util::future::join_all(looks).await;
    assert!(reports.iter().all(Result::is_ok), "{reports:?}");
    let after = ended().await;
    // One of them to see whether a pool is in between.
    assert!((2..=5).contains(&(after - before)), "{before} to {after}");
    // One that is given up in the middle leaves nothing to the next.
    let given_up = tokio::time::timeout(Duration::ZERO, tables.look(&settings));
    assert!(given_up.await.is_err(), "it needs an answer of the server");
    tables.look(&settings).await.unwrap();
    ended().await;
}
