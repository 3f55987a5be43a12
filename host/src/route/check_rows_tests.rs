//! Rows against the columns of their routes: which fit, and as which bytes they leave.

use super::*;
use crate::record::cells::{
    Cell, Reader, get_decimal, get_int64, put_decimal, put_int64, put_unset,
};

fn cells(bytes: &[u8]) -> Vec<Cell<'_>> {
    let mut reader = Reader::new(bytes);
    std::iter::from_fn(|| (!reader.is_empty()).then(|| reader.cell().unwrap())).collect()
}

/// The verdict on one write (or delete) of one record: its cells as they leave, or the reason.
fn one(route: &Route, op: u8, fill: impl FnOnce(&mut Vec<u8>)) -> Result<Vec<u8>, String> {
    let output = Guest::default().row(0, 0, op, fill).0;
    let (_, rows, mut dead) = judge(std::slice::from_ref(route), &output).unwrap();
    match dead.pop() {
        None => Ok(rows[0].row(0).cells.to_vec()),
        Some(dead) => {
            assert_eq!((&*dead.code, dead.source), (code::ROW_REFUSED, 0));
            assert!(rows[0].is_empty() && rows[0].bytes() == 0);
            Err(dead.reason)
        }
    }
}

#[test]
fn rows_that_do_not_fit_are_refused() {
    let list = [("id", "text"), ("n", "int32?")];
    let key = postgres(&list, &[0], None);
    let cql = cassandra(&list, &[0], &[]);
    let row = |id: &'static str, n: fn(&mut Vec<u8>)| {
        move |cells: &mut Vec<u8>| {
            put_text(cells, id);
            n(cells);
        }
    };
    let number: fn(&mut Vec<u8>) = |cells| put_int32(cells, 1);
    assert!(one(&key, 0, row("a", number)).is_ok());
    assert!(one(&key, 0, row("a", put_null)).is_ok());
    assert!(one(&cql, 0, row("a", put_unset)).is_ok());
    assert!(one(&key, 1, row("a", put_unset)).is_ok());
    assert!(
        one(&key, 0, row("a", put_unset)).is_err(),
        "unset into Postgres"
    );
    assert!(
        one(&key, 0, row("a\0", number)).is_err(),
        "NUL into Postgres"
    );
    assert!(
        one(&cql, 0, row("a\0", number)).is_ok(),
        "NUL into Cassandra"
    );
    assert!(one(&key, 0, row("", number)).is_err(), "empty key");
    assert!(
        one(&key, 1, row("a", number)).is_err(),
        "a value in a delete"
    );
    assert!(
        one(&key, 1, row("a", put_null)).is_err(),
        "null in a delete"
    );
    assert!(one(&key, 0, row("a", |_| {})).is_err(), "one cell");
    assert!(
        one(
            &key,
            0,
            row("a", |cells| {
                put_null(cells);
                put_null(cells);
            })
        )
        .is_err(),
        "three cells"
    );
    assert!(
        one(&key, 0, row("a", |cells| cells.extend_from_slice(&[0, 0]))).is_err(),
        "half a cell"
    );
    let append = postgres(&list, &[], None);
    assert!(
        one(&append, 1, row("a", put_unset)).is_err(),
        "a delete without key"
    );
    let json = postgres(&[("j", "json")], &[], None);
    assert!(one(&json, 0, |cells| put_text(cells, r#"["\u0000"]"#)).is_err());
    assert!(one(&json, 0, |cells| put_text(cells, r#"["\ud800"]"#)).is_err());
    let long = "x".repeat(65_536);
    let wide = cassandra(&[("a", "text"), ("b", "text")], &[0], &[1]);
    for (a, b, fits) in [
        (&long[1..], &long[1..], true),
        (&long, "b", false),
        ("a", &long, false),
    ] {
        let verdict = one(&wide, 0, |cells| {
            put_text(cells, a);
            put_text(cells, b);
        });
        assert_eq!(verdict.is_ok(), fits);
    }
    let lists = [("k", "int32"), ("l", "list<text>")];
    let inner = |item: fn(&mut Vec<u8>)| {
        move |cells: &mut Vec<u8>| {
            put_int32(cells, 1);
            let mut list = 1_i32.to_be_bytes().to_vec();
            item(&mut list);
            put(cells, &list);
        }
    };
    assert!(one(&postgres(&lists, &[0], None), 0, inner(put_null)).is_ok());
    assert!(one(&cassandra(&lists, &[0], &[]), 0, inner(put_null)).is_err());
    assert!(
        one(
            &postgres(&lists, &[0], None),
            0,
            inner(|cells| put_text(cells, "\0"))
        )
        .is_err()
    );
}

#[test]
fn a_guard_is_never_missing() {
    let mut route = postgres(&[("id", "int32"), ("at", "timestamp?")], &[0], Some(1));
    let row = |guard: fn(&mut Vec<u8>)| {
        move |cells: &mut Vec<u8>| {
            put_int32(cells, 1);
            guard(cells);
        }
    };
    let refused = one(&route, 1, row(|cells| put_int64(cells, 5))).unwrap_err();
    assert!(refused.contains("deleted_at"), "a hard delete: {refused}");
    if let Target::Postgres(table) = &mut route.target {
        table.deleted_at = Some("deleted_at".to_owned());
    }
    for op in [0, 1] {
        assert!(one(&route, op, row(|cells| put_int64(cells, 5))).is_ok());
        assert!(one(&route, op, row(put_null)).is_err());
        assert!(one(&route, op, row(put_unset)).is_err());
    }
}

#[test]
fn a_message_has_a_key_a_payload_and_a_size_or_its_record_is_dead() {
    let list = [("id", "text"), ("note", "text?"), ("trace", "headers?")];
    let json = kafka(&list, &[0], ValueFormat::Json);
    let row = |id: &'static str, note: String| {
        move |cells: &mut Vec<u8>| {
            put_text(cells, id);
            put_text(cells, &note);
            put(cells, &[0; 4]);
        }
    };
    assert!(one(&json, 0, row("k", "x".to_owned())).is_ok());
    assert!(
        one(&json, 0, row("", String::new()))
            .unwrap_err()
            .contains("an empty key")
    );
    let nothing = |cells: &mut Vec<u8>| (0..3).for_each(|_| put_null(cells));
    let why = one(&json, 0, nothing).unwrap_err();
    assert!(why.ends_with("column \"id\" (text): null"), "{why}");
    let rest = |key: fn(&mut Vec<u8>)| {
        move |cells: &mut Vec<u8>| {
            key(cells);
            put_unset(cells);
            put_unset(cells);
        }
    };
    assert!(one(&json, 0, rest(|cells| put_text(cells, "k"))).is_ok());
    assert!(
        one(&json, 1, rest(|cells| put_text(cells, "k"))).is_ok(),
        "a tombstone"
    );
    assert!(
        one(&json, 0, rest(put_unset))
            .unwrap_err()
            .contains("an unset cell")
    );
    let why = one(&json, 0, row("k", "\u{1}".repeat(200_000))).unwrap_err();
    assert!(
        why.contains("a message of more than 1000000 bytes"),
        "{why}"
    );
    assert!(one(&json, 0, row("k", "x".repeat(900_000))).is_ok());

    let bytes = kafka(
        &[("id", "text"), ("payload", "bytes")],
        &[0],
        ValueFormat::Bytes(1),
    );
    let payload = |put: fn(&mut Vec<u8>)| {
        move |cells: &mut Vec<u8>| {
            put_text(cells, "k");
            put(cells);
        }
    };
    assert!(one(&bytes, 0, payload(|cells| put(cells, &[0xff]))).is_ok());
    assert!(
        one(&bytes, 0, payload(put_unset))
            .unwrap_err()
            .contains("an unset cell")
    );
    assert!(
        one(&bytes, 0, payload(put_null))
            .unwrap_err()
            .contains("null")
    );

    let keyless = kafka(&[("id", "text")], &[], ValueFormat::Csv);
    let why = one(&keyless, 1, |cells| put_text(cells, "k")).unwrap_err();
    assert!(why.contains("a delete without a key"), "{why}");
}

#[test]
fn source_cells_are_resolved_by_the_host() {
    let code = |code: i32| move |cells: &mut Vec<u8>| cells.extend_from_slice(&code.to_be_bytes());
    let route = |ty| postgres(&[("c", ty)], &[], None);
    assert_eq!(
        cells(&one(&route("bytes"), 0, code(-3)).unwrap()),
        [Cell::Value(b"key")]
    );
    assert_eq!(
        cells(&one(&route("text"), 0, code(-4)).unwrap()),
        [Cell::Value(b"value")]
    );
    let micros = one(&route("timestamp"), 0, code(-5)).unwrap();
    assert_eq!(get_int64(&micros[4..]), 1_000_000);
    for (ty, number) in [
        ("int32", -3),
        ("json", -4),
        ("int64", -5),
        ("bytes", -6),
        ("text", -7),
    ] {
        assert!(one(&route(ty), 0, code(number)).is_err(), "{ty} {number}");
    }
    // The third record kept has a null key, the second no timestamp, the fourth a value that is not UTF-8.
    for (source, ty, number) in [(2, "bytes", -3), (1, "timestamp", -5), (3, "text", -4)] {
        let output = Guest::default().row(source, 0, 0, code(number)).0;
        let (tally, ..) = judge(&[route(ty)], &output).unwrap();
        assert_eq!(tally.dead, 1, "{ty} {number}");
    }
}

#[test]
fn equal_values_leave_as_equal_bytes() {
    let route = cassandra(
        &[("d", "decimal(9,2)"), ("f", "float64"), ("t", "timestamp")],
        &[0],
        &[1, 2],
    );
    let row = one(&route, 0, |cells| {
        put(cells, &[0, 0, 0, 1, 0, 0, 15]);
        put(cells, &(-0.0_f64).to_be_bytes());
        put_int64(cells, -1);
    })
    .unwrap();
    let same = one(&route, 0, |cells| {
        put_decimal(cells, 150, 2);
        put(cells, &0.0_f64.to_be_bytes());
        put_int64(cells, -1000);
    })
    .unwrap();
    assert_eq!(row, same);
    assert!(matches!(cells(&row)[0], Cell::Value(value) if get_decimal(value) == (150, 2)));
}
