//! Every column type through a flight and back as the text the server prints.

use wasmill::anchor::CommitError;
use wasmill::manifest::Mode;
use wasmill::postgres::PostgresRoute;
use wasmill::record::{Op, RowBatch, cells};

use crate::support::{Is, Place, claim, columns, commit, ensure, push, route};

/// 2024-02-29 12:34:56.789012 UTC.
const MOMENT: i64 = 1_709_210_096_789_012;

fn list(items: &[Option<&[u8]>]) -> Vec<u8> {
    let mut out = i32::try_from(items.len()).unwrap().to_be_bytes().to_vec();
    for item in items {
        match item {
            Some(item) => cells::put(&mut out, item),
            None => cells::put_null(&mut out),
        }
    }
    out
}

fn decimal(scale: i32, unscaled: i128) -> Vec<u8> {
    let mut out = scale.to_be_bytes().to_vec();
    out.extend_from_slice(&unscaled.to_be_bytes());
    out
}

/// Type, value, what the server prints.
fn samples() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let map = {
        let mut out = 1_i32.to_be_bytes().to_vec();
        cells::put(&mut out, "k\"".as_bytes());
        cells::put(&mut out, &i64::MIN.to_be_bytes());
        out
    };
    vec![
        ("boolean", vec![1], "true"),
        ("int16", i16::MIN.to_be_bytes().to_vec(), "-32768"),
        ("int32", i32::MAX.to_be_bytes().to_vec(), "2147483647"),
        (
            "int64",
            i64::MIN.to_be_bytes().to_vec(),
            "-9223372036854775808",
        ),
        ("float32", 1.5_f32.to_be_bytes().to_vec(), "1.5"),
        (
            "float64",
            f64::NEG_INFINITY.to_be_bytes().to_vec(),
            "-Infinity",
        ),
        ("text", "snow ☃".as_bytes().to_vec(), "snow ☃"),
        (
            "json",
            br#"{"b": [1, null]}"#.to_vec(),
            r#"{"b": [1, null]}"#,
        ),
        ("bytes", vec![0, 255], r"\x00ff"),
        (
            "uuid",
            vec![0xab; 16],
            "abababab-abab-abab-abab-abababababab",
        ),
        (
            "timestamp",
            MOMENT.to_be_bytes().to_vec(),
            "2024-02-29 12:34:56.789012+00",
        ),
        ("date", (-1_i32).to_be_bytes().to_vec(), "1969-12-31"),
        (
            "time",
            86_399_999_999_i64.to_be_bytes().to_vec(),
            "23:59:59.999999",
        ),
        (
            "decimal(38,10)",
            decimal(10, -12_345_678_901_234_567_890),
            "-1234567890.1234567890",
        ),
        ("decimal(10,2)", decimal(-3, 7), "7000.00"),
        ("map<text,int64>", map, r#"{"k\"": -9223372036854775808}"#),
    ]
}

fn list_samples() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let mut samples = samples();
    samples.extend([
        (
            "list<text>",
            list(&[Some(b"a,b"), None, Some(b"")]),
            r#"{"a,b",NULL,""}"#,
        ),
        ("list<int64>", list(&[]), "{}"),
        (
            "set<timestamp>",
            list(&[Some(&MOMENT.to_be_bytes())]),
            r#"{"2024-02-29 12:34:56.789012+00"}"#,
        ),
        (
            "list<decimal(5,2)>",
            list(&[Some(&decimal(1, 15))]),
            "{1.50}",
        ),
        ("list<json>", list(&[Some(b"[1]")]), "{[1]}"),
    ]);
    samples
}

fn table_of(name: &str, samples: &[(&'static str, Vec<u8>, &'static str)]) -> PostgresRoute {
    let names: Vec<String> = (0..samples.len()).map(|at| format!("c{at}")).collect();
    let mut of = vec![("id", "int64", false)];
    of.extend(
        names
            .iter()
            .zip(samples)
            .map(|(name, sample)| (name.as_str(), sample.0, true)),
    );
    route(name, &[0], &of)
}

async fn round_trip(samples: Vec<(&'static str, Vec<u8>, &'static str)>) {
    let place = Place::new().await;
    let anchor = place.anchor(vec![table_of("samples", &samples)]).await;
    let owner = claim(&anchor, 0).await;
    let mut rows = RowBatch::default();
    let mut cells = vec![Is::Int(1)];
    cells.extend(samples.iter().map(|sample| Is::Bytes(sample.1.clone())));
    push(&mut rows, 0, Op::Write, &cells);
    let mut nulls = vec![Is::Int(2)];
    nulls.extend(samples.iter().map(|_| Is::Null));
    push(&mut rows, 0, Op::Write, &nulls);
    commit(&anchor, &owner, 100..101, &rows, &[]).await.unwrap();
    place
        .sql
        .batch_execute("SET TimeZone = 'UTC'")
        .await
        .unwrap();
    for (at, (ty, _, expected)) in samples.iter().enumerate() {
        let column = format!("SELECT c{at}::text FROM geo.samples WHERE id = ");
        assert_eq!(place.text(&format!("{column}1")).await, *expected, "{ty}");
        assert_eq!(place.text(&format!("{column}2")).await, "null", "{ty}");
    }
}

#[tokio::test]
async fn every_type_in_columns() {
    round_trip(samples()).await;
}

#[tokio::test]
async fn every_type_in_rows() {
    round_trip(list_samples()).await;
}

#[tokio::test]
async fn wider_tables_take_what_loses_nothing() {
    let place = Place::new().await;
    place
        .sql
        .batch_execute(
            "CREATE SCHEMA geo; CREATE TABLE geo.wide (extra serial, id bigint PRIMARY KEY, \
             t timestamp, v varchar(5), j json, d numeric, gone text, more text NOT NULL DEFAULT 'x'); \
             ALTER TABLE geo.wide DROP COLUMN gone",
        )
        .await
        .unwrap();
    let of = [
        ("id", "int16", false),
        ("t", "timestamp", true),
        ("v", "text", true),
        ("j", "json", true),
        ("d", "decimal(10,2)", true),
    ];
    let anchor = place.anchor(vec![route("wide", &[0], &of)]).await;
    let owner = claim(&anchor, 0).await;
    let mut rows = RowBatch::default();
    let row = |text| {
        [
            Is::Bytes(7_i16.to_be_bytes().to_vec()),
            Is::Int(MOMENT),
            Is::Text(text),
            Is::Text("{}"),
            Is::Bytes(decimal(2, 150)),
        ]
    };
    push(&mut rows, 0, Op::Write, &row("short"));
    commit(&anchor, &owner, 100..101, &rows, &[]).await.unwrap();
    assert_eq!(
        place
            .text("SELECT concat_ws('|', extra, id, t, v, j, d, more) FROM geo.wide")
            .await,
        "1|7|2024-02-29 12:34:56.789012|short|{}|1.50|x"
    );
    rows.clear();
    push(&mut rows, 0, Op::Write, &row("too long"));
    let outcome = commit(&anchor, &owner, 101..102, &rows, &[]).await;
    assert!(
        matches!(outcome, Err(CommitError::Refused(_))),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn row_wise_tables_may_have_more_columns_in_another_order() {
    let place = Place::new().await;
    place
        .sql
        .batch_execute(
            "CREATE SCHEMA geo; CREATE TABLE geo.tags (extra int DEFAULT 5, tags varchar[], gone int, tagged text[], \
             id bigint PRIMARY KEY, at timestamp); ALTER TABLE geo.tags DROP COLUMN gone",
        )
        .await
        .unwrap();
    let of = [
        ("id", "int64", false),
        ("at", "timestamp", true),
        ("tagged", "list<text>", true),
    ];
    let anchor = place.anchor(vec![route("tags", &[0], &of)]).await;
    let owner = claim(&anchor, 0).await;
    for (step, tag) in (100..).zip(["a", "b"]) {
        let mut rows = RowBatch::default();
        for id in 0..3 {
            push(
                &mut rows,
                0,
                Op::Write,
                &[
                    Is::Int(id),
                    Is::Int(MOMENT),
                    Is::Bytes(list(&[Some(tag.as_bytes())])),
                ],
            );
        }
        commit(&anchor, &owner, step..step + 1, &rows, &[])
            .await
            .unwrap();
    }
    assert_eq!(
        place
            .text("SELECT concat_ws('|', extra, tagged, id, at) FROM geo.tags ORDER BY id LIMIT 1")
            .await,
        "5|{b}|0|2024-02-29 12:34:56.789012"
    );
    let mut wrong = route(
        "tags",
        &[0],
        &[("id", "int64", false), ("tags", "list<text>", true)],
    );
    wrong.mode = Mode::Upsert;
    wrong.columns = columns(&[("id", "int64", false), ("tags", "list<text>", true)]);
    let error = ensure(&place.settings(vec![wrong])).await.unwrap_err();
    assert!(error.detail().contains("character varying[]"), "{error}");
}

#[tokio::test]
async fn values_the_server_does_not_have_are_refused_with_their_offset() {
    let place = Place::new().await;
    let of = [
        ("id", "int64", false),
        ("at", "timestamp", true),
        ("v", "text", true),
        ("d", "decimal(4,2)", true),
    ];
    let anchor = place.anchor(vec![route("odd", &[0], &of)]).await;
    let owner = claim(&anchor, 0).await;
    for (at, text, number) in [
        (i64::MIN + 946_684_800_000_000, "x", decimal(0, 1)),
        (i64::MIN, "x", decimal(0, 1)),
        (0, "nul\0", decimal(0, 1)),
        (0, "x", decimal(3, 1)),
        (0, "x", decimal(0, 100)),
    ] {
        let mut rows = RowBatch::default();
        push(
            &mut rows,
            0,
            Op::Write,
            &[Is::Int(1), Is::Int(at), Is::Text(text), Is::Bytes(number)],
        );
        let outcome = commit(&anchor, &owner, 100..101, &rows, &[]).await;
        let Err(CommitError::Refused(error)) = outcome else {
            panic!("{outcome:?}")
        };
        if text == "x" {
            assert!(error.detail().contains("offset 100"), "{error}");
        }
    }
    assert_eq!(
        (
            place.next(0).await,
            place.text("SELECT id::text FROM geo.odd").await
        ),
        (100, String::new())
    );
}
