//! Tables against routes: what is created, what is refused and the DDL that repairs it.

use wasmill::config::Secret;
use wasmill::error::{Blame, Error};
use wasmill::manifest::Create;
use wasmill::postgres::{PostgresAnchor, PostgresRoute};

use crate::support::{Place, quakes, route};

async fn refused(place: &Place, routes: Vec<PostgresRoute>) -> Error {
    let anchor = PostgresAnchor::open(place.settings(routes)).await.unwrap();
    let error = anchor.ensure_tables().await.unwrap_err();
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
    let anchor = PostgresAnchor::open(place.settings(vec![by_hand, log]))
        .await
        .unwrap();
    let reports = anchor.ensure_tables().await.unwrap();
    let created: Vec<bool> = reports.iter().map(|report| report.created).collect();
    assert_eq!(created, [false, true]);
    assert!(
        reports.iter().all(|report| report.notes.is_empty()),
        "{reports:?}"
    );
    assert!(
        anchor
            .ensure_tables()
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
             needed text NOT NULL, at timestamptz)",
        )
        .await
        .unwrap();
    let columns = [
        ("id", "int64", false),
        ("place", "text", true),
        ("mag", "float64", true),
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
    let anchor = PostgresAnchor::open(place.settings(vec![route]))
        .await
        .unwrap();
    anchor.ensure_tables().await.unwrap();
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
    let anchor = PostgresAnchor::open(place.settings(vec![quakes()]))
        .await
        .unwrap();
    let reports = anchor.ensure_tables().await.unwrap();
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
    let anchor = PostgresAnchor::open(place.settings(vec![quakes()]))
        .await
        .unwrap();
    let notes = anchor.ensure_tables().await.unwrap().remove(0).notes;
    assert_eq!(notes.len(), 1, "{notes:?}");
    let error = refused(&place, vec![route("view", &[], &[("id", "int32", false)])]).await;
    assert!(error.detail().contains("not a table"), "{error}");
}

#[tokio::test]
async fn eight_hosts_create_the_schema_and_the_tables_at_once() {
    let place = Place::new().await;
    let hosts = (0..8).map(|_| async {
        let anchor = PostgresAnchor::open(place.settings(vec![quakes()])).await?;
        anchor.ensure_tables().await
    });
    let reports = futures_util::future::join_all(hosts).await;
    assert!(reports.iter().all(Result::is_ok), "{reports:?}");
    assert_eq!(
        place
            .text("SELECT version::text FROM wasmill.schema_version ORDER BY 1")
            .await,
        "1 2"
    );
}

#[tokio::test]
async fn a_schema_of_a_newer_host_is_left_alone() {
    let place = Place::new().await;
    PostgresAnchor::open(place.settings(Vec::new()))
        .await
        .unwrap();
    place
        .sql
        .execute("INSERT INTO wasmill.schema_version VALUES (99)", &[])
        .await
        .unwrap();
    let error = PostgresAnchor::open(place.settings(Vec::new()))
        .await
        .unwrap_err();
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
    let error = PostgresAnchor::open(settings.clone()).await.unwrap_err();
    assert_eq!(error.blame(), Blame::Config);
    assert!(
        error.detail().contains("42501") && error.hint_text().unwrap().contains("GRANT CREATE"),
        "{error:?}"
    );
    place.anchor(vec![quakes()]).await;
    let error = PostgresAnchor::open(settings.clone()).await.unwrap_err();
    assert!(error.hint_text().unwrap().contains("GRANT"), "{error:?}");
    place
        .sql
        .batch_execute(
            "GRANT USAGE ON SCHEMA wasmill, geo TO poor; \
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA wasmill TO poor",
        )
        .await
        .unwrap();
    let anchor = PostgresAnchor::open(settings.clone()).await.unwrap();
    let error = anchor.ensure_tables().await.unwrap_err();
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
    let error = PostgresAnchor::open(settings).await.unwrap_err();
    assert_eq!(error.blame(), Blame::Config);
    assert!(
        error.hint_text().unwrap().contains("create the database"),
        "{error:?}"
    );
}
