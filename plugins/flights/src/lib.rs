//! US domestic flights, from one topic into three tables.
//!
//! * `flights` (Postgres, one row a flight): the flight as it is known now.
//! * `flight_log` (Postgres, append only): every record with the coordinates it came from; a record processed
//!   twice, or not at all, shows up here.
//! * `by_airport` (Cassandra): the departures of an airport on a day, in the order of departure.
//!
//! The key of a record is the flight's id. `date` is the local wall clock of the airport of departure and names
//! no zone, so `departure` and `day` hold that wall clock as if it were UTC: right for "what left this airport
//! that morning", wrong for subtracting the departures of two airports.

use wasmill_sdk::prelude::*;

/// The version that wrote a row of the log.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What may stand between the parts of a date. Version 1.1 (`../flights-mended`) takes the dashes of ISO 8601 too.
const SEPARATORS: &[u8] = if cfg!(feature = "dashes") {
    b"/-"
} else {
    b"/"
};

#[derive(Fields)]
struct Flight<'a> {
    #[field(from = "key")]
    id: &'a str,
    /// `2001/01/01 00:47`, local to the airport of departure.
    date: &'a str,
    /// Minutes late at arrival; below zero is early.
    delay: i32,
    /// Miles.
    distance: i32,
    origin: &'a str,
    destination: &'a str,
    #[field(from = "topic")]
    topic: &'a str,
    #[field(from = "partition")]
    partition: i32,
    #[field(from = "offset")]
    offset: i64,
}

#[derive(Row)]
struct FlightRow<'a> {
    #[row(key)]
    id: &'a str,
    departure: Timestamp,
    day: Date,
    origin: &'a str,
    destination: &'a str,
    delay: i32,
    distance: i32,
}

#[derive(Row)]
struct LogRow<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    version: &'static str,
    id: &'a str,
    departure: Timestamp,
    delay: i32,
}

#[derive(Row)]
struct DepartureRow<'a> {
    #[row(key)]
    origin: &'a str,
    #[row(key)]
    day: Date,
    #[row(key)]
    departure: Timestamp,
    #[row(key)]
    id: &'a str,
    destination: &'a str,
    delay: i32,
    distance: i32,
}

#[plugin(
    inputs(flights: Flight),
    routes(flights: FlightRow, flight_log: LogRow, by_airport: DepartureRow)
)]
fn flights(_: &Config, rec: Record<Flight<'_>>, out: &mut Out) -> Result {
    let departure = wall_clock(rec.date).ok_or_else(|| {
        reject(
            "bad-date",
            format_args!("date {:?} is no YYYY/MM/DD HH:MM of the calendar", rec.date),
        )
    })?;
    for airport in [rec.origin, rec.destination] {
        if !is_airport(airport) {
            return Err(reject(
                "bad-airport",
                format_args!("{airport:?} is no IATA code"),
            ));
        }
    }
    let day = departure.date();
    out.flights.write(&FlightRow {
        id: rec.id,
        departure,
        day,
        origin: rec.origin,
        destination: rec.destination,
        delay: rec.delay,
        distance: rec.distance,
    })?;
    out.flight_log.write(&LogRow {
        topic: rec.topic,
        partition: rec.partition,
        offset: rec.offset,
        version: VERSION,
        id: rec.id,
        departure,
        delay: rec.delay,
    })?;
    out.by_airport.write(&DepartureRow {
        origin: rec.origin,
        day,
        departure,
        id: rec.id,
        destination: rec.destination,
        delay: rec.delay,
        distance: rec.distance,
    })
}

/// `YYYY/MM/DD HH:MM`, or with another of [`SEPARATORS`], as if it were UTC.
fn wall_clock(text: &str) -> Option<Timestamp> {
    let [
        y1,
        y2,
        y3,
        y4,
        after_year,
        m1,
        m2,
        after_month,
        d1,
        d2,
        b' ',
        h1,
        h2,
        b':',
        n1,
        n2,
    ] = text.as_bytes()
    else {
        return None;
    };
    if after_year != after_month || !SEPARATORS.contains(after_year) {
        return None;
    }
    let year = i32::from(two(*y1, *y2)?) * 100 + i32::from(two(*y3, *y4)?);
    let date = Date::from_ymd(year, two(*m1, *m2)?, two(*d1, *d2)?)?;
    let time = Time::from_hms(two(*h1, *h2)?, two(*n1, *n2)?, 0)?;
    Some(Timestamp::from_parts(date, time))
}

fn two(tens: u8, ones: u8) -> Option<u8> {
    (tens.is_ascii_digit() && ones.is_ascii_digit()).then(|| (tens - b'0') * 10 + (ones - b'0'))
}

/// Three letters or digits, as IATA assigns them.
fn is_airport(code: &str) -> bool {
    code.len() == 3
        && code
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flight(date: &str) -> wasmill_sdk::test::Seen {
        let mut harness = Harness::<Plugin>::new();
        harness
            .record()
            .key("f-1")
            .value(json!({"date": date, "delay": 66, "distance": 1750, "origin": "DTW", "destination": "LAS"}))
            .send()
    }

    #[test]
    fn a_flight_reaches_all_three_tables() {
        let seen = flight("2001/01/01 00:47");
        assert_eq!(seen.rows.len(), 3);
        let row = seen.written("by_airport")[0];
        assert_eq!(row["departure"], "2001-01-01T00:47:00.000000Z");
        assert_eq!(
            (&row["day"], &row["origin"]),
            (&json!("2001-01-01"), &json!("DTW"))
        );
        let log = seen.written("flight_log")[0];
        assert_eq!(
            (&log["topic"], &log["offset"], &log["version"]),
            (&json!("flights"), &json!(0), &json!(VERSION))
        );
    }

    #[test]
    fn dates_that_do_not_exist_are_rejected_and_leave_no_row() {
        for date in [
            "2001/02/29 10:00",
            "2001-01/01 00:47",
            "2001/01/01 24:00",
            "2001/01/01",
            "",
            "２001/01/01 00:47",
        ] {
            let seen = flight(date);
            assert_eq!(
                (seen.code(), seen.rows.len()),
                (Some("bad-date"), 0),
                "{date}"
            );
        }
        assert_eq!(flight("2004/02/29 23:59").code(), None);
    }

    #[test]
    fn dates_with_dashes_are_for_version_1_1() {
        let seen = flight("2001-01-01 00:47");
        let wanted = if cfg!(feature = "dashes") {
            (None, 3)
        } else {
            (Some("bad-date"), 0)
        };
        assert_eq!((seen.code(), seen.rows.len()), wanted);
    }

    #[test]
    fn a_flight_without_a_key_never_reaches_the_plugin() {
        let seen = Harness::<Plugin>::new().send(json!({"date": "2001/01/01 00:47"}));
        assert_eq!(seen.code(), Some("field-missing"));
    }

    #[test]
    fn fixtures() {
        wasmill_sdk::test::fixtures::<Plugin>(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
    }
}
