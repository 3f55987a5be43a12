//! What the driver and the server do not say by themselves, shown first without the anchor, then through it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::SinkExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_postgres::{Client, CopyInSink};
use wasmill::anchor::{Ahead, Anchor, CommitError};
use wasmill::config::Secret;
use wasmill::postgres::PostgresAnchor;
use wasmill::record::{Op, RowBatch};
use wasmill::route::{DeadClass, DeadLetter};

use crate::support::{Is, Place, claim, commit, connect, fly, push, quake_rows, quakes};

fn letter(source: u32) -> DeadLetter {
    DeadLetter {
        source,
        class: DeadClass::Data,
        code: "malformed".into(),
        reason: "test".to_owned(),
    }
}

/// Rows, letters and position as one text: `at 100` when nothing was ever stored.
async fn everything(place: &Place) -> String {
    place
        .text(
            "SELECT concat('at ', (SELECT next FROM wasmill.position WHERE partition = 0), \
             (SELECT string_agg(' row ' || id, '' ORDER BY id) FROM geo.quakes), \
             (SELECT string_agg(' letter ' || \"offset\", '' ORDER BY \"offset\") FROM wasmill.dead_letter))",
        )
        .await
}

/// A connection without an anchor, and table `plain`.
async fn driver_alone(place: &Place) -> Client {
    let driver = connect(&place.server.socket_url()).await;
    driver
        .batch_execute("CREATE TABLE plain (id int8 PRIMARY KEY)")
        .await
        .unwrap();
    driver
}

/// What is committed in table `plain`.
async fn committed(place: &Place) -> String {
    place.text("SELECT id::text FROM plain").await
}

#[tokio::test]
async fn an_error_that_was_swallowed_is_never_committed_as_ok() {
    let place = Place::new().await;
    // The driver: the server rolled back, and commit() says Ok.
    let mut driver = driver_alone(&place).await;
    let transaction = driver.transaction().await.unwrap();
    let insert = "INSERT INTO plain VALUES (1)";
    transaction.execute(insert, &[]).await.unwrap();
    transaction.execute(insert, &[]).await.unwrap_err();
    transaction.commit().await.unwrap();
    assert_eq!(committed(&place).await, "");

    // A flight: whichever of its requests fails, it is refused, nothing is sent ahead, and nothing stays.
    let anchor = place.anchor(vec![quakes()]).await;
    place
        .sql
        .batch_execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             RAISE EXCEPTION 'not this one' USING ERRCODE = '23514'; END $$",
        )
        .await
        .unwrap();
    let each = [
        ("wasmill.position", "UPDATE"),
        ("geo.quakes", "INSERT"),
        ("geo.quakes", "DELETE"),
        ("wasmill.dead_letter", "INSERT"),
    ];
    for ((table, on), goes_ahead) in each.into_iter().flat_map(|one| [(one, true), (one, false)]) {
        place
            .sql
            .batch_execute("TRUNCATE geo.quakes; INSERT INTO geo.quakes VALUES (3, 'there')")
            .await
            .unwrap();
        let owner = claim(&anchor, 0).await;
        place
            .sql
            .batch_execute(&format!(
                "CREATE TRIGGER refuse BEFORE {on} ON {table} FOR EACH ROW EXECUTE FUNCTION refuse()"
            ))
            .await
            .unwrap();
        let mut rows = quake_rows(&[(1, "one"), (2, "two")]);
        push(&mut rows, 2, Op::Delete, &[Is::Int(3), Is::Unset]);
        // Where nothing goes ahead COMMIT is on its way behind the error, and the driver says Ok for it.
        let ahead = if goes_ahead {
            Ahead::writes(async { panic!("sent ahead of a transaction that cannot commit") })
        } else {
            Ahead::nothing()
        };
        let outcome = fly(&anchor, &owner, 100..104, &rows, &[letter(3)], ahead).await;
        assert!(
            matches!(&outcome, Err(CommitError::Refused(error)) if error.detail().contains("not this one")),
            "{on} on {table}: {outcome:?}"
        );
        assert_eq!(everything(&place).await, "at 100 row 3", "{on} on {table}");
        place
            .sql
            .batch_execute(&format!("DROP TRIGGER refuse ON {table}"))
            .await
            .unwrap();
    }
    // The same connection goes on.
    let sessions =
        "SELECT count(*)::text FROM pg_stat_activity WHERE application_name LIKE 'wasmill/%'";
    assert_eq!(place.text(sessions).await, "1");
    let owner = claim(&anchor, 0).await;
    let rows = quake_rows(&[(1, "one")]);
    commit(&anchor, &owner, 100..102, &rows, &[letter(1)])
        .await
        .unwrap();
    assert_eq!(everything(&place).await, "at 102 row 1 row 3 letter 101");
}

/// Why no flight uses COPY through the driver's own transaction.
#[tokio::test]
async fn a_copy_that_was_dropped_commits_as_ok_with_the_driver_alone() {
    let place = Place::new().await;
    let mut driver = driver_alone(&place).await;
    let transaction = driver.transaction().await.unwrap();
    transaction
        .execute("INSERT INTO plain VALUES (1)", &[])
        .await
        .unwrap();
    let copy: CopyInSink<&[u8]> = transaction.copy_in("COPY plain FROM STDIN").await.unwrap();
    let mut copy = Box::pin(copy);
    copy.send(&b"2\n"[..]).await.unwrap();
    drop(copy);
    transaction.commit().await.unwrap();
    assert_eq!(committed(&place).await, "");
}

/// COMMIT is sent, and its reply does not come in time because a standby is waited for. Until then everyone else
/// reads the position of before; only who waits for the row's lock learns what becomes of it.
#[tokio::test]
async fn a_commit_that_timed_out_may_still_happen_and_only_a_locking_read_knows() {
    let place = Place::new().await;
    let mut settings = place.settings(vec![quakes()]);
    settings.timeouts.statement = Duration::from_millis(100);
    let anchor = place.anchor_of(settings).await;
    place
        .sql
        .batch_execute("SET synchronous_commit = local")
        .await
        .unwrap();
    let driver = driver_alone(&place).await;
    let owner = claim(&anchor, 0).await;
    let standby = async |names: &str| {
        for sql in [
            &*format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'"),
            "SELECT pg_reload_conf()",
        ] {
            place.sql.batch_execute(sql).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    standby("nobody").await;
    driver
        .batch_execute("BEGIN; INSERT INTO plain VALUES (1)")
        .await
        .unwrap();
    let plain = tokio::time::timeout(Duration::from_millis(300), driver.batch_execute("COMMIT"));
    let rows = quake_rows(&[(1, "one")]);
    let flight = commit(&anchor, &owner, 100..101, &rows, &[]);
    let (plain, outcome) = tokio::join!(plain, flight);
    plain.unwrap_err();
    let Err(CommitError::Unknown(_)) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(
        (
            everything(&place).await,
            anchor.stored().await.unwrap()[0].next
        ),
        ("at 100".to_owned(), 100),
        "a plain read is stale"
    );
    assert_eq!(committed(&place).await, "");
    let start = Instant::now();
    let decide = async {
        tokio::time::sleep(Duration::from_millis(600)).await;
        standby("").await;
    };
    let (anew, ()) = tokio::join!(claim(&anchor, 0), decide);
    assert!(start.elapsed() > Duration::from_millis(500), "it waited");
    assert_eq!(anew.next, 101);
    assert_eq!(everything(&place).await, "at 101 row 1");
    assert_eq!(committed(&place).await, "1");
}

/// Stands between an anchor and its server, and replaces one text in what the anchor sends.
struct Between {
    _folder: tempfile::TempDir,
    url: String,
    replaced: Arc<AtomicUsize>,
}

impl Between {
    fn new(place: &Place, find: &'static str, put: &'static str) -> Self {
        assert_eq!(find.len(), put.len());
        let url = place.server.socket_url();
        let server = url.split('\'').nth(1).unwrap().to_owned();
        let port: u16 = url
            .split_whitespace()
            .find_map(|part| part.strip_prefix("port=")?.parse().ok())
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let socket = format!(".s.PGSQL.{port}");
        let listener = UnixListener::bind(folder.path().join(&socket)).unwrap();
        let replaced = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&replaced);
        let to = format!("{server}/{socket}");
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (to, counter) = (to.clone(), Arc::clone(&counter));
                tokio::spawn(async move {
                    let (mut up, mut down) = UnixStream::connect(to).await.unwrap().into_split();
                    let (mut read, mut write) = client.into_split();
                    let back = async { tokio::io::copy(&mut up, &mut write).await.ok() };
                    let forth = async {
                        let mut buffer = vec![0; 1 << 20];
                        while let Ok(size @ 1..) = read.read(&mut buffer).await {
                            let sent = &mut buffer[..size];
                            let at = sent
                                .windows(find.len())
                                .position(|window| window == find.as_bytes());
                            if let Some(at) = at {
                                sent[at..at + find.len()].copy_from_slice(put.as_bytes());
                                counter.fetch_add(1, Ordering::SeqCst);
                            }
                            if down.write_all(sent).await.is_err() {
                                return;
                            }
                        }
                    };
                    tokio::join!(back, forth);
                });
            }
        });
        Self {
            url: url.replace(&server, folder.path().to_str().unwrap()),
            _folder: folder,
            replaced,
        }
    }
}

/// Everything behind a BEGIN that did nothing would commit by itself, piece by piece.
#[tokio::test]
async fn a_begin_that_is_lost_takes_the_whole_flight_with_it() {
    let begin = "BEGIN; SET LOCAL wasmill.flight";
    for (instead, why) in [
        ("       SET LOCAL wasmill.flight", "no error at all"),
        (
            "BEGAN; SET LOCAL wasmill.flight",
            "an error among good replies",
        ),
        (
            "BEGIN; SET LOCAL wasmill.fligth",
            "another transaction's flight",
        ),
    ] {
        for goes_ahead in [true, false] {
            let place = Place::new().await;
            let direct = place.anchor(vec![quakes()]).await;
            let between = Between::new(&place, begin, instead);
            let mut settings = place.settings(vec![quakes()]);
            settings.url = Secret::new(between.url.clone());
            let anchor = PostgresAnchor::new(settings).unwrap();
            let owner = claim(&anchor, 0).await;
            place
                .sql
                .batch_execute("INSERT INTO geo.quakes VALUES (3, 'there')")
                .await
                .unwrap();
            let mut rows: RowBatch = quake_rows(&[(1, "one"), (2, "two")]);
            push(&mut rows, 2, Op::Delete, &[Is::Int(3), Is::Unset]);
            let ahead = if goes_ahead {
                Ahead::writes(async { panic!("sent ahead of no transaction") })
            } else {
                Ahead::nothing()
            };
            let outcome = fly(&anchor, &owner, 100..104, &rows, &[letter(3)], ahead).await;
            assert_eq!(between.replaced.load(Ordering::SeqCst), 1, "{why}");
            assert!(
                matches!(
                    &outcome,
                    Err(CommitError::RolledBack(_) | CommitError::Stop(_))
                ),
                "{why}: {outcome:?}"
            );
            assert_eq!(everything(&place).await, "at 100 row 3", "{why}");
            commit(&direct, &owner, 100..104, &rows, &[letter(3)])
                .await
                .unwrap();
        }
    }
}
