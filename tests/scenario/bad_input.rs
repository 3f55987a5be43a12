//! Records that nobody should have produced. Each ends as a dead letter with the code that fits, its bytes and its
//! coordinates, and none of its neighbours is touched.

use std::time::Duration;

use wasmill_tests::records::Made;
use wasmill_tests::stage::pipeline;
use wasmill_tests::wait::eventually;
use wasmill_tests::{Stage, artifact, expected};

use super::flights::flights_in_postgres;

const SOON: Duration = Duration::from_secs(60);

fn flight(date: &str, delay: &str) -> String {
    format!(
        r#"{{"date":{date},"delay":{delay},"distance":1750,"origin":"DTW","destination":"LAS"}}"#
    )
}

/// Good records around bad ones: at most one in twenty is bad, as the plugin's `max_rate` allows.
fn mixed(bad: &[Made]) -> (Vec<Made>, usize) {
    let good = expected::shipped_flights(bad.len() * 40);
    let mut all = Vec::new();
    for (index, (id, text)) in good.iter().enumerate() {
        all.push(Made::new(id.as_bytes(), text.as_bytes()));
        if index % 40 == 39 {
            all.push(bad[index / 40].clone());
        }
    }
    (all, good.len())
}

#[tokio::test]
async fn every_bad_record_is_a_dead_letter_and_no_other() {
    let good_date = r#""2001/01/01 00:47""#;
    let huge = vec![b'x'; 5 << 20];
    let bad: Vec<(&str, Made)> = vec![
        (
            "malformed",
            Made::new("cut", r#"{"date":"2001/01/01 00:47","delay":6"#),
        ),
        ("malformed", Made::new("empty", "")),
        ("malformed", Made::new("text", "not json at all")),
        (
            "malformed",
            Made::new("twice", format!("{} {{}}", flight(good_date, "1"))),
        ),
        ("malformed", Made::new("huge", huge)),
        (
            "malformed",
            Made::new(
                "utf8",
                flight("\"2001\u{e9}\"", "1")
                    .into_bytes()
                    .into_iter()
                    .filter(|byte| *byte != 0xa9)
                    .collect::<Vec<u8>>(),
            ),
        ),
        (
            "malformed",
            Made::new(vec![0xff, 0xfe], flight(good_date, "1")),
        ),
        (
            "field-missing",
            Made {
                value: Some(flight(good_date, "1").into_bytes()),
                ..Made::default()
            },
        ),
        ("tombstone", Made::tombstone("gone")),
        (
            "field-type",
            Made::new("type", flight(good_date, "\"late\"")),
        ),
        (
            "field-type",
            Made::new("range", flight(good_date, "3000000000")),
        ),
        (
            "field-type",
            Made::new("fraction", flight(good_date, "1.5")),
        ),
        ("field-missing", Made::new("null", flight("null", "1"))),
        (
            "field-missing",
            Made::new(
                "absent",
                r#"{"delay":1,"distance":1,"origin":"DTW","destination":"LAS"}"#,
            ),
        ),
        (
            "row-refused",
            Made::new("nul\0in the key", flight(good_date, "1")),
        ),
        (
            "bad-date",
            Made::new("calendar", flight("\"2001/02/30 00:47\"", "1")),
        ),
        (
            "bad-airport",
            Made::new(
                "airport",
                r#"{"date":"2001/01/01 00:47","delay":1,"distance":1,"origin":"D\u0000W","destination":"LAS"}"#,
            ),
        ),
    ];
    let stage = Stage::new();
    stage.feed.topic("flights", 1).await;
    let records: Vec<Made> = bad.iter().map(|(_, made)| made.clone()).collect();
    let (all, good) = mixed(&records);
    let places = stage.feed.send("flights", &all);
    let host = stage.host(&flights_in_postgres());
    let total = i64::try_from(all.len()).unwrap();
    eventually(SOON, "all records are processed", async || {
        stage.positioned("flights", total).await
    })
    .await;

    let is_bad = |index: &usize| index % 41 == 40;
    let wanted: Vec<(String, i32, i64)> = (0..all.len())
        .filter(is_bad)
        .map(|index| {
            (
                bad[index / 41].0.to_owned(),
                places[index].partition,
                places[index].offset,
            )
        })
        .collect();
    assert_eq!(stage.dead().await, wanted, "{}", host.stderr());
    // In = emitted + dead, as the tables show it: nothing is lost, nothing counted twice.
    let rows = stage.number("SELECT count(*) FROM flight_log").await;
    assert_eq!(rows, i64::try_from(good).unwrap());
    assert_eq!(rows + i64::try_from(wanted.len()).unwrap(), total);

    let sql = "SELECT key, value, truncated, null_key, null_value, class, reason FROM wasmill.dead_letter ORDER BY \"offset\"";
    for ((code, made), row) in bad.iter().zip(stage.rows(sql).await) {
        let (key, value, truncated): (Option<Vec<u8>>, Option<Vec<u8>>, bool) =
            (row.get(0), row.get(1), row.get(2));
        let (null_key, null_value): (bool, bool) = (row.get(3), row.get(4));
        assert_eq!(row.get::<_, &str>(5), "data", "{code}");
        assert!(!row.get::<_, &str>(6).is_empty(), "{code} has a reason");
        assert_eq!(
            (null_key, null_value),
            (made.key.is_none(), made.value.is_none()),
            "{code}"
        );
        if truncated {
            assert!(
                made.value
                    .as_ref()
                    .is_some_and(|value| value.len() > 4 << 20),
                "{code} is small and was cut"
            );
        } else {
            assert_eq!(
                (key.unwrap_or_default(), value.unwrap_or_default()),
                (
                    made.key.clone().unwrap_or_default(),
                    made.value.clone().unwrap_or_default()
                ),
                "{code}"
            );
        }
    }
    assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
}

#[tokio::test]
async fn times_outside_the_calendar_are_dead_letters() {
    let quake = |id: &str, time: &str| {
        let value = format!(
            r#"{{"id":"{id}","properties":{{"mag":1,"place":"x","time":{time},"updated":1517966996303}},"geometry":{{"coordinates":[1,2,3]}}}}"#
        );
        Made::new(id.as_bytes().to_vec(), value)
    };
    let stage = Stage::new();
    stage.feed.topic("earthquakes", 1).await;
    let mut all: Vec<Made> = (0..100)
        .map(|index| quake(&format!("q{index}"), "1517966773840"))
        .collect();
    all.push(quake("past-int64", "9200000000000000000"));
    all.push(quake("past-postgres", "9224318016000000"));
    all.push(quake("before-postgres", "-210900000000000"));
    all.push(Made {
        timestamp: Some(4_102_444_800_000),
        ..quake("from-the-future", "1517966773840")
    });
    stage.feed.send("earthquakes", &all);
    let _host = stage.host(&pipeline(
        "quakes",
        &artifact::plugin("plugins/earthquakes"),
        "",
    ));
    let total = i64::try_from(all.len()).unwrap();
    eventually(SOON, "all records are processed", async || {
        stage.positioned("quakes", total).await
    })
    .await;

    let dead = stage.dead().await;
    let offsets: Vec<i64> = dead.iter().map(|(_, _, offset)| *offset).collect();
    assert_eq!(offsets, [100, 101, 102], "{dead:?}");
    assert_eq!(dead[0].0, "field-type");
    // The record's own timestamp is nobody's business while nothing is written ahead.
    assert_eq!(stage.number("SELECT count(*) FROM quakes").await, 101);
}

#[tokio::test]
async fn too_many_dead_letters_stop_the_pipeline_where_it_stands() {
    let stage = Stage::new();
    stage.feed.topic("flights", 1).await;
    let all: Vec<Made> = (0..3_000)
        .map(|index| Made::new(format!("k{index}"), "{"))
        .collect();
    stage.feed.send("flights", &all);
    let host = stage.host(&flights_in_postgres());
    let exit = host.wait(SOON);
    assert_eq!(exit.code, Some(3), "{}", exit.stderr);
    assert!(
        exit.stderr.contains("max_rate") || exit.stderr.contains("5%"),
        "{}",
        exit.stderr
    );
    let (dead, position) = (stage.dead().await.len(), stage.position("flights").await);
    assert!(dead < 3_000, "it went on to the end");
    assert_eq!(
        i64::try_from(dead).unwrap(),
        position,
        "what is behind the position is a dead letter"
    );
}
