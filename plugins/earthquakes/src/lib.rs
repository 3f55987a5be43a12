//! Earthquakes of the US Geological Survey: nested GeoJSON into one Postgres table that always shows what is
//! known now. A quake is published again whenever it is reviewed; one that turns out not to have happened is
//! published as a tombstone, and its row goes away.

use wasmill_sdk::prelude::*;

#[derive(Fields)]
struct Quake<'a> {
    #[field(from = "key")]
    key: &'a str,
    #[field(path = "/id")]
    id: Option<&'a str>,
    #[field(path = "/properties/mag")]
    mag: Option<f64>,
    #[field(path = "/properties/place")]
    place: Option<&'a str>,
    #[field(path = "/properties/time", unit = "ms")]
    time: Option<Timestamp>,
    #[field(path = "/properties/updated", unit = "ms")]
    updated: Option<Timestamp>,
    #[field(path = "/geometry/coordinates/0")]
    longitude: Option<f64>,
    #[field(path = "/geometry/coordinates/1")]
    latitude: Option<f64>,
    #[field(path = "/geometry/coordinates/2")]
    depth: Option<f64>,
}

#[derive(Row)]
struct QuakeRow<'a> {
    #[row(key)]
    id: &'a str,
    /// Unknown for some: null, not zero.
    mag: Option<f64>,
    place: Option<&'a str>,
    time: Timestamp,
    updated: Timestamp,
    longitude: f64,
    latitude: f64,
    /// Kilometres below the surface; null where it was not computed.
    depth: Option<f64>,
}

#[plugin(inputs(quakes: Quake), routes(quakes: QuakeRow))]
fn quakes(_: &Config, rec: Record<Quake<'_>>, out: &mut Out) -> Result {
    if rec.is_tombstone() {
        return out.quakes.delete(QuakeRow::key(rec.key));
    }
    // The key decides which partition, and so which order; an id that differs would be overwritten out of turn.
    if rec.id != Some(rec.key) {
        return Err(reject(
            "key-is-not-id",
            format_args!("key {:?}, id {:?}", rec.key, rec.id),
        ));
    }
    let (Some(time), Some(updated)) = (rec.time, rec.updated) else {
        return Err(reject(
            "no-time",
            "a quake has a time, and a time of its last update",
        ));
    };
    let (Some(longitude), Some(latitude)) = (rec.longitude, rec.latitude) else {
        return Err(reject("no-place", "a quake has a longitude and a latitude"));
    };
    out.quakes.write(&QuakeRow {
        id: rec.key,
        mag: rec.mag,
        place: rec.place,
        time,
        updated,
        longitude,
        latitude,
        depth: rec.depth,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quake_becomes_a_row_and_a_tombstone_deletes_it() {
        let mut harness = Harness::<Plugin>::new();
        let quake = harness
            .record()
            .key("us1")
            .field("id", "us1")
            .field("mag", 2.5)
            .field("time", 1_517_966_773_840_i64)
            .field("updated", 1_517_966_996_303_i64)
            .field("longitude", -118.5)
            .field("latitude", 34)
            .send();
        let row = quake.written("quakes")[0];
        assert_eq!((&row["mag"], &row["depth"]), (&json!(2.5), &json!(null)));
        assert_eq!(row["time"], "2018-02-07T01:26:13.840000Z");
        let gone = harness.record().key("us1").tombstone().send();
        assert!(gone.rows[0].delete);
        assert_eq!(
            gone.rows[0].columns,
            *json!({"id": "us1"}).as_object().expect("an object")
        );
        harness.finish();
    }

    #[test]
    fn a_quake_that_says_too_little_is_rejected() {
        let mut harness = Harness::<Plugin>::new();
        let code = |seen: wasmill_sdk::test::Seen| seen.code().map(str::to_owned);
        assert_eq!(
            code(harness.record().key("a").field("id", "b").send()).as_deref(),
            Some("key-is-not-id")
        );
        assert_eq!(
            code(harness.record().key("a").field("id", "a").send()).as_deref(),
            Some("no-time")
        );
        let timed = harness
            .record()
            .key("a")
            .field("id", "a")
            .field("time", 1)
            .field("updated", 2);
        assert_eq!(code(timed.send()).as_deref(), Some("no-place"));
        assert_eq!(harness.rows("quakes").len(), 0);
    }

    #[test]
    fn fixtures() {
        wasmill_sdk::test::fixtures::<Plugin>(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
    }
}
