//! What the shipped plugins should make of records, computed here from the input alone: own date arithmetic,
//! own rules, no code of the program, its SDK or its plugins.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Value;

use crate::artifact::repository;

/// A flight as the tables should show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flight {
    /// Key of the record.
    pub id: String,
    /// Local wall clock as if it were UTC, microseconds since 1970.
    pub departure: i64,
    /// Days since 1970.
    pub day: i64,
    /// Airport code.
    pub origin: String,
    /// Airport code.
    pub destination: String,
    /// Minutes.
    pub delay: i64,
    /// Miles.
    pub distance: i64,
}

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

/// Days from 1970 to a date of the Gregorian calendar, counted year by year and month by month.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = |year: i64| (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let lengths = [
        31,
        if leap(year) { 29 } else { 28 },
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let index = usize::try_from(month - 1).ok()?;
    if !(1970..3000).contains(&year) || day < 1 || day > *lengths.get(index)? {
        return None;
    }
    let years: i64 = (1970..year)
        .map(|year| if leap(year) { 366 } else { 365 })
        .sum();
    Some(years + lengths[..index].iter().sum::<i64>() + day - 1)
}

impl Flight {
    /// The flight of a record, `None` where the record should be set aside.
    pub fn read(key: &str, value: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(value).ok()?;
        let date = value["date"].as_str()?;
        let number = |from: usize, to: usize| date.get(from..to)?.parse::<i64>().ok();
        if date.len() != 16
            || date
                .bytes()
                .any(|byte| !byte.is_ascii_digit() && !b"/: ".contains(&byte))
        {
            return None;
        }
        let day = days(number(0, 4)?, number(5, 7)?, number(8, 10)?)?;
        let (hour, minute) = (number(11, 13)?, number(14, 16)?);
        if !(0..24).contains(&hour) || !(0..60).contains(&minute) {
            return None;
        }
        let int32 = |value: &Value| {
            value
                .as_i64()
                .filter(|number| i32::try_from(*number).is_ok())
        };
        let airport = |value: &Value| {
            value
                .as_str()
                .filter(|code| code.len() == 3)
                .map(str::to_owned)
        };
        Some(Self {
            id: key.to_owned(),
            departure: day * DAY + (hour * 60 + minute) * 60_000_000,
            day,
            origin: airport(&value["origin"])?,
            destination: airport(&value["destination"])?,
            delay: int32(&value["delay"])?,
            distance: int32(&value["distance"])?,
        })
    }

    /// Its row of the table `flights`, as one line.
    pub fn line(&self) -> String {
        let Self {
            id,
            departure,
            day,
            origin,
            destination,
            delay,
            distance,
        } = self;
        format!("{id}|{departure}|{day}|{origin}|{destination}|{delay}|{distance}")
    }

    /// Its row of the table `flights_by_airport`, as one line.
    pub fn airport_line(&self) -> String {
        let Self {
            id,
            departure,
            day,
            origin,
            destination,
            delay,
            distance,
        } = self;
        format!("{origin}|{day}|{departure}|{id}|{destination}|{delay}|{distance}")
    }

    /// Its row of the table `flight_log`, as one line.
    pub fn log_line(&self, topic: &str, partition: i32, offset: i64) -> String {
        let Self {
            id,
            departure,
            delay,
            ..
        } = self;
        format!("{topic}|{partition}|{offset}|1.0.0|{id}|{departure}|{delay}")
    }
}

/// SQL expressions that make the same lines.
pub mod sql {
    /// Of `flights`.
    pub const FLIGHTS: &str = "concat_ws('|', id, (extract(epoch from departure) * 1000000)::int8, day - date '1970-01-01', origin, destination, delay, distance)";
    /// Of `flight_log`.
    pub const FLIGHT_LOG: &str = "concat_ws('|', topic, partition, \"offset\", version, id, (extract(epoch from departure) * 1000000)::int8, delay)";
}

/// Key and value of the n-th flight: the shipped ones, over and over, under keys of their own: `f-0`, `f-1`, …
pub fn shipped_flight(n: usize) -> (String, String) {
    static LINES: LazyLock<Vec<String>> = LazyLock::new(|| {
        let file = repository().join("plugins/flights/data/flights.ndjson");
        let text = std::fs::read_to_string(file).unwrap();
        text.lines().map(str::to_owned).collect()
    });
    (format!("f-{n}"), LINES[n % LINES.len()].clone())
}

/// The first `count` of them.
pub fn shipped_flights(count: usize) -> Vec<(String, String)> {
    (0..count).map(shipped_flight).collect()
}

/// The same as the tables should show them.
pub fn flights(count: usize) -> impl Iterator<Item = Flight> {
    let flights = (0..count).map(shipped_flight);
    flights.map(|(id, text)| Flight::read(&id, text.as_bytes()).expect("a shipped flight is good"))
}

/// The last line an id should show, folded in the order of the records.
pub fn latest<'r>(
    records: impl IntoIterator<Item = (&'r str, &'r [u8])>,
) -> BTreeMap<String, Flight> {
    let flights = records
        .into_iter()
        .filter_map(|(key, value)| Flight::read(key, value));
    flights.map(|flight| (flight.id.clone(), flight)).collect()
}

/// A quake as the table should show it: text as it stands in the file, numbers as JSON shows them.
pub fn quake_line(value: &str) -> Option<(String, String)> {
    let value: Value = serde_json::from_str(value).ok()?;
    let id = value["id"].as_str()?;
    let of = &value["properties"];
    let at = |index: usize| value["geometry"]["coordinates"][index].as_f64();
    let float = |number: Option<f64>| {
        number.map_or_else(
            || "null".to_owned(),
            |number| format!("{:016x}", number.to_bits()),
        )
    };
    let line = format!(
        "{id}|{}|{}|{}|{}|{}|{}|{}",
        float(of["mag"].as_f64()),
        of["place"].as_str().unwrap_or("null"),
        of["time"].as_i64()? * 1000,
        of["updated"].as_i64()? * 1000,
        float(at(0)),
        float(at(1)),
        float(at(2)),
    );
    Some((id.to_owned(), line))
}

/// The shipped quakes, one JSON text each.
pub fn shipped_quakes() -> Vec<String> {
    let text =
        std::fs::read_to_string(repository().join("plugins/earthquakes/data/earthquakes.ndjson"))
            .unwrap();
    text.lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_counted_right() {
        assert_eq!(days(1970, 1, 1), Some(0));
        assert_eq!(days(2001, 1, 1), Some(11_323));
        assert_eq!(days(2000, 2, 29), Some(11_016));
        assert_eq!(days(2001, 2, 29), None);
        assert_eq!(days(2001, 13, 1), None);
    }

    #[test]
    fn a_flight_is_read_and_a_bad_one_is_not() {
        let good = br#"{"date":"2001/01/01 00:47","delay":66,"distance":1750,"origin":"DTW","destination":"LAS"}"#;
        let flight = Flight::read("f-1", good).unwrap();
        assert_eq!(flight.line(), "f-1|978310020000000|11323|DTW|LAS|66|1750");
        assert_eq!(Flight::read("f-1", b"{}"), None);
        assert_eq!(Flight::read("f-1", br#"{"date":"2001/02/30 00:47","delay":66,"distance":1,"origin":"DTW","destination":"LAS"}"#), None);
    }
}
