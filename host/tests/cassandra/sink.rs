//! Rows on their way into tables.

use scylla::value::{CqlDate, CqlDecimal, CqlTime, CqlTimestamp, CqlValue};
use wasmill::error::Blame;
use wasmill::record::{Op, RowBatch, cells};

use super::support::{Put, World, add, declared, one, route, sink, write};

/// 2026-01-01 in microseconds.
const NOW: i64 = 1_767_225_600_000_000;

fn text(value: &str) -> Option<CqlValue> {
    Some(CqlValue::Text(value.to_owned()))
}

fn list(items: &[&[u8]]) -> Vec<u8> {
    let mut out = i32::try_from(items.len()).unwrap().to_be_bytes().to_vec();
    for item in items {
        cells::put(&mut out, item);
    }
    out
}

pub(crate) fn every_type(world: &World) {
    world.block(async {
        let (session, eye) = (world.session().await, world.eye().await);
        let table = route(
            &[
                "id text",
                "a boolean",
                "b int16",
                "c int32",
                "d int64",
                "e float32",
                "f float64",
                "g json",
                "h bytes",
                "i uuid",
                "j timestamp",
                "k date",
                "l time",
                "m decimal(10,2)",
                "n list<timestamp>",
                "o set<text>",
                "p map<text,list<date>>",
                "q bytes",
            ],
            &declared("every_type", 0, None),
        );
        let sink = sink(&session, &table).await;
        let uuid = uuid::Uuid::from_u128(0x1234_5678_9abc_4ef0_8234_5678_9abc_def0);
        let mut map = 1_i32.to_be_bytes().to_vec();
        cells::put(&mut map, b"days");
        cells::put(
            &mut map,
            &list(&[&(-1_i32).to_be_bytes(), &1_i32.to_be_bytes()]),
        );
        let mut decimal = 2_i32.to_be_bytes().to_vec();
        decimal.extend_from_slice(&(-12_345_i16).to_be_bytes());
        let row: &[&[u8]] = &[
            b"k",
            &[1],
            &(-2_i16).to_be_bytes(),
            &3_i32.to_be_bytes(),
            &i64::MIN.to_be_bytes(),
            &1.5_f32.to_be_bytes(),
            &(-2.5_f64).to_be_bytes(),
            b"{\"a\":1}",
            &[0, 255],
            uuid.as_bytes(),
            &1_500_999_i64.to_be_bytes(),
            &20_000_i32.to_be_bytes(),
            &1_000_001_i64.to_be_bytes(),
            &decimal,
            &list(&[&1_000_i64.to_be_bytes(), &(-1_i64).to_be_bytes()]),
            &list(&[b"x", b"y"]),
            &map,
            b"",
        ];
        let row: Vec<Put<'_>> = row.iter().map(|value| Put::Value(value)).collect();
        write(&sink, &one(Op::Write, &row), &[NOW], NOW)
            .await
            .unwrap();
        let rows = eye
            .rows("SELECT id,a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,writetime(a) FROM KS.every_type")
            .await;
        let day = |days: i64| CqlValue::Date(CqlDate(u32::try_from((1_i64 << 31) + days).unwrap()));
        let stamp = |millis| CqlValue::Timestamp(CqlTimestamp(millis));
        let want = vec![
            text("k"),
            Some(CqlValue::Boolean(true)),
            Some(CqlValue::SmallInt(-2)),
            Some(CqlValue::Int(3)),
            Some(CqlValue::BigInt(i64::MIN)),
            Some(CqlValue::Float(1.5)),
            Some(CqlValue::Double(-2.5)),
            text("{\"a\":1}"),
            Some(CqlValue::Blob(vec![0, 255])),
            Some(CqlValue::Uuid(uuid)),
            Some(stamp(1_500)),
            Some(day(20_000)),
            Some(CqlValue::Time(CqlTime(1_000_001_000))),
            Some(CqlValue::Decimal(
                CqlDecimal::from_signed_be_bytes_slice_and_exponent(
                    &(-12_345_i16).to_be_bytes(),
                    2,
                ),
            )),
            Some(CqlValue::List(vec![stamp(1), stamp(-1)])),
            Some(CqlValue::Set(vec![
                CqlValue::Text("x".into()),
                CqlValue::Text("y".into()),
            ])),
            Some(CqlValue::Map(vec![(
                CqlValue::Text("days".into()),
                CqlValue::List(vec![day(-1), day(1)]),
            )])),
            Some(CqlValue::Blob(Vec::new())),
            Some(CqlValue::BigInt(NOW + 1)),
        ];
        assert_eq!(rows, vec![want]);
    });
}

pub(crate) fn the_greatest_time_wins(world: &World) {
    world.block(async {
        let (session, eye) = (world.session().await, world.eye().await);
        let table = route(&["id text", "v text"], &declared("times", 0, None));
        let sink = sink(&session, &table).await;
        let put = async |value: &str, stamp: i64| {
            let row = one(Op::Write, &[Put::Value(b"k"), Put::Value(value.as_bytes())]);
            write(&sink, &row, &[stamp], NOW).await.unwrap();
        };
        put("newer", NOW + 2).await;
        put("older", NOW).await;
        assert_eq!(
            eye.rows("SELECT v FROM KS.times").await,
            vec![vec![text("newer")]]
        );
        put("newest", NOW + 4).await;
        put("newer", NOW + 2).await;
        assert_eq!(
            eye.rows("SELECT v FROM KS.times").await,
            vec![vec![text("newest")]]
        );
    });
}

pub(crate) fn a_write_outlives_a_delete(world: &World) {
    world.block(async {
        let (session, eye) = (world.session().await, world.eye().await);
        let table = route(
            &["id text", "at int64", "v text"],
            &declared("deletes", 1, None),
        );
        let sink = sink(&session, &table).await;
        let at = 7_i64.to_be_bytes();
        let full = one(
            Op::Write,
            &[Put::Value(b"k"), Put::Value(&at), Put::Value(b"v")],
        );
        let gone = one(Op::Delete, &[Put::Value(b"k"), Put::Value(&at), Put::Unset]);
        // in one record, whatever arrives first
        write(&sink, &full, &[NOW], NOW).await.unwrap();
        write(&sink, &gone, &[NOW], NOW).await.unwrap();
        assert_eq!(eye.count("deletes").await, 1);
        // a later record deletes, and an older write that arrives late changes nothing
        write(&sink, &gone, &[NOW + 2], NOW).await.unwrap();
        assert_eq!(eye.count("deletes").await, 0);
        write(&sink, &full, &[NOW], NOW).await.unwrap();
        assert_eq!(eye.count("deletes").await, 0);
        write(&sink, &full, &[NOW + 4], NOW).await.unwrap();
        assert_eq!(eye.count("deletes").await, 1);
    });
}

pub(crate) fn time_to_live(world: &World) {
    world.block(async {
        let (session, eye) = (world.session().await, world.eye().await);
        let table = route(
            &["id text", "v text"],
            &declared("expiring", 0, Some(1_000)),
        );
        let sink = sink(&session, &table).await;
        let row = one(Op::Write, &[Put::Value(b"k"), Put::Value(b"v")]);
        write(&sink, &row, &[NOW], NOW + 400_000_000).await.unwrap();
        let rows = eye
            .rows("SELECT v, TTL(v), writetime(v) FROM KS.expiring")
            .await;
        let Some(CqlValue::Int(left)) = rows[0][1] else {
            panic!("{rows:?}")
        };
        assert!((590..=600).contains(&left), "{left}");
        assert_eq!(rows[0][2], Some(CqlValue::BigInt(NOW + 1)));
        // a record that is over when it arrives takes the row with it
        let late = NOW + 2 + 1_000_000_000;
        write(&sink, &row, &[NOW + 2], late).await.unwrap();
        assert_eq!(eye.count("expiring").await, 0);
        write(&sink, &row, &[NOW], NOW).await.unwrap();
        assert_eq!(
            eye.count("expiring").await,
            0,
            "an older write arrived late"
        );
    });
}

pub(crate) fn unset_leaves_a_column(world: &World) {
    world.block(async {
        let (session, eye) = (world.session().await, world.eye().await);
        let table = route(
            &["id text", "v text", "w text"],
            &declared("partial", 0, None),
        );
        let sink = sink(&session, &table).await;
        let put = async |v: Put<'_>, w: Put<'_>, stamp: i64| {
            let row = one(Op::Write, &[Put::Value(b"k"), v, w]);
            write(&sink, &row, &[stamp], NOW).await.unwrap();
        };
        put(Put::Value(b"1"), Put::Value(b"1"), NOW).await;
        put(Put::Unset, Put::Value(b"2"), NOW + 2).await;
        let rows = eye.rows("SELECT v, w, writetime(v) FROM KS.partial").await;
        assert_eq!(
            rows,
            vec![vec![text("1"), text("2"), Some(CqlValue::BigInt(NOW + 1))]]
        );
        put(Put::Null, Put::Unset, NOW + 4).await;
        assert_eq!(
            eye.rows("SELECT v, w FROM KS.partial").await,
            vec![vec![None, text("2")]]
        );
    });
}

pub(crate) fn many_rows_of_few_keys(world: &World) {
    world.block(async {
        let (session, eye) = (world.session().await, world.eye().await);
        let table = route(
            &["id text", "n int32", "v text"],
            &declared("grouped", 1, None),
        );
        let sink = sink(&session, &table).await;
        let mut rows = RowBatch::default();
        let mut stamps = Vec::new();
        for source in 0..1_000_u32 {
            let key = if source % 10 == 9 {
                format!("single{source}")
            } else {
                format!("k{}", source % 3)
            };
            let n = source.to_be_bytes();
            let row = [Put::Value(key.as_bytes()), Put::Value(&n), Put::Value(b"v")];
            add(&mut rows, source, Op::Write, &row);
            stamps.push(NOW + 2 * i64::from(source));
        }
        write(&sink, &rows, &stamps, NOW).await.unwrap();
        assert_eq!(eye.count("grouped").await, 1_000);
        let singles = eye
            .rows("SELECT writetime(v) FROM KS.grouped WHERE id = 'single509'")
            .await;
        assert_eq!(
            singles,
            vec![vec![Some(CqlValue::BigInt(NOW + 2 * 509 + 1))]]
        );
        // writes and deletes of one partition key in one request
        let mut mixed = RowBatch::default();
        for source in 0..60_u32 {
            let n = (source * 30).to_be_bytes();
            let (op, v) = if source % 2 == 0 {
                (Op::Delete, Put::Unset)
            } else {
                (Op::Write, Put::Value(b"w"))
            };
            add(
                &mut mixed,
                source,
                op,
                &[Put::Value(b"k0"), Put::Value(&n), v],
            );
        }
        let stamps: Vec<i64> = (0..60).map(|source| NOW + 10_000 + 2 * source).collect();
        write(&sink, &mixed, &stamps, NOW).await.unwrap();
        let left = eye
            .rows("SELECT n, v FROM KS.grouped WHERE id = 'k0'")
            .await;
        let of = |n: i32| left.iter().find(|row| row[0] == Some(CqlValue::Int(n)));
        assert!(of(0).is_none() && of(60).is_none());
        assert_eq!(of(30).unwrap()[1], text("w"));
        assert_eq!(of(3).unwrap()[1], text("v"));
        assert_eq!(
            of(1_770).unwrap()[1],
            text("w"),
            "written beyond the first thousand"
        );
    });
}

pub(crate) fn refusals_name_the_record(world: &World) {
    world.block(async {
        let (session, eye) = (world.session().await, world.eye().await);
        let table = route(
            &["id text", "n int32", "v decimal(5,0)"],
            &declared("refusing", 1, None),
        );
        let sink = sink(&session, &table).await;
        let mut rows = RowBatch::default();
        let good = [0, 0, 0, 0, 5];
        for source in 0..5_u32 {
            // two bytes are no decimal, which only the server finds
            let v: &[u8] = if source == 3 { &[0, 0] } else { &good };
            let n = source.to_be_bytes();
            add(
                &mut rows,
                source + 40,
                Op::Write,
                &[Put::Value(b"k"), Put::Value(&n), Put::Value(v)],
            );
        }
        let error = write(&sink, &rows, &[NOW; 45], NOW).await.unwrap_err();
        assert_eq!(error.blame(), Blame::Config, "{error}");
        assert!(
            error.detail().starts_with("record 43 of the batch: "),
            "{error}"
        );
        let large = one(
            Op::Write,
            &[
                Put::Value(&vec![b'k'; 70_000]),
                Put::Value(&[0; 4]),
                Put::Null,
            ],
        );
        let error = write(&sink, &large, &[NOW], NOW).await.unwrap_err();
        assert_eq!(error.blame(), Blame::Config);
        assert!(
            error.detail().contains("a partition key of 70000 bytes"),
            "{error}"
        );
        eye.run("DROP TABLE KS.refusing").await;
        let row = one(
            Op::Write,
            &[Put::Value(b"k"), Put::Value(&[0; 4]), Put::Null],
        );
        let error = write(&sink, &row, &[NOW], NOW).await.unwrap_err();
        assert_eq!(error.blame(), Blame::Config, "{error}");
        assert!(error.hint_text().is_some());
    });
}
