//! What the guest `versioned` has to write, known from a record's place alone: the n-th record of a partition is
//! made here from partition and n, so that every row of the table can be checked without the input at hand.

use std::collections::BTreeMap;

use crate::Stage;
use crate::records::Made;

/// The table of the route `log`.
pub const TABLE: &str = "versioned_log";

/// One record in this many becomes a row.
pub const KEPT: i64 = 5;

/// Makes records as long as those of real topics.
const FILLER: &str = "Lorem ipsum dolor sit amet, consetetur sadipscing elitr, sed diam nonumy eirmod tempor \
    invidunt ut labore et dolore magna aliquyam erat, sed diam voluptua. At vero eos et accusam et justo";

/// Key of the n-th record of a partition.
fn id(partition: i32, n: i64) -> String {
    format!("{partition}-{n}")
}

/// Field `text` of the n-th record of a partition.
fn text(partition: i32, n: i64) -> String {
    format!("{n}:{partition} {FILLER}")
}

/// The n-th record of a partition: its offset is n where nothing else writes to the topic.
pub fn record(partition: i32, n: i64) -> Made {
    let value = format!(
        r#"{{"seq":{n},"text":"{}","more":[1,2,{{"a":null}}]}}"#,
        text(partition, n)
    );
    Made::new(id(partition, n), value).on(partition)
}

/// FNV-1a, as the guest computes it.
fn hash(partition: i32, n: i64) -> i64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    add(id(partition, n).as_bytes());
    add(&n.to_be_bytes());
    add(text(partition, n).as_bytes());
    hash.cast_signed()
}

/// Creates the table, with an index that finds the first row of a version at once. It is not unique: a row written
/// twice has to be seen, not refused.
pub async fn create_table(stage: &Stage) {
    let sql = format!(
        "CREATE TABLE {TABLE} (id text NOT NULL, partition int NOT NULL, \"offset\" bigint NOT NULL, \
         version text NOT NULL, hash bigint NOT NULL); CREATE INDEX ON {TABLE} (version, partition, \"offset\")"
    );
    stage.execute(&sql).await;
}

/// Overlay of a pipeline of the guest that reads `topic` and writes [`TABLE`] only.
pub fn overlay(topic: &str) -> String {
    format!(
        "bind.input.records = {{ kafka = \"main\", topic = \"{topic}\" }}\n\
         bind.route.log = {{ connection = \"main\", table = \"{TABLE}\" }}\n\
         bind.route.copies = \"discard\"\n"
    )
}

/// A run of offsets of one partition that one version wrote, as the rows show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The version that wrote it.
    pub version: String,
    /// Offset of its first row.
    pub first: i64,
    /// Offset of its last row.
    pub last: i64,
}

/// What the table holds.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// Rows.
    pub rows: u64,
    /// By partition, in offset order.
    pub runs: BTreeMap<i32, Vec<Run>>,
    /// What must not be: lost, doubled, changed or foreign rows; empty when all is well. The first few.
    pub faults: Vec<String>,
    /// How many faults there are.
    pub fault_count: u64,
}

/// Faults that are told in words.
const TOLD: usize = 10;

impl Written {
    fn fault(&mut self, text: String) {
        self.fault_count += 1;
        if self.faults.len() < TOLD {
            self.faults.push(text);
        }
    }

    /// Adds the next row, in the order of partition and offset; `wanted` is the offset the row should have.
    fn add(&mut self, partition: i32, offset: i64, wanted: i64, version: &str) {
        let place = format!("partition {partition} offset {offset}");
        let last = self.runs.entry(partition).or_default().last();
        if let Some(last) = last.filter(|last| last.last == offset) {
            let fault = format!("{place}: written by {} and by {version}", last.version);
            self.fault(fault);
        } else if offset != wanted {
            self.fault(format!("{place}: the next row should be {wanted}"));
        }
        self.rows += 1;
        let runs = self.runs.entry(partition).or_default();
        match runs.last_mut() {
            Some(run) if run.version == version => run.last = offset,
            _ => runs.push(Run {
                version: version.to_owned(),
                first: offset,
                last: offset,
            }),
        }
    }
}

/// Reads the whole table and compares each row with what its place says. `records` is how many records each partition
/// holds.
pub async fn written(stage: &Stage, records: &BTreeMap<i32, i64>) -> Written {
    let mut written = Written::default();
    for (partition, count) in records {
        let sql = format!(
            "SELECT \"offset\", version, hash, id FROM {TABLE} WHERE partition = {partition} \
             ORDER BY \"offset\", version"
        );
        let mut wanted = 0;
        for row in stage.rows(&sql).await {
            let (offset, version): (i64, &str) = (row.get(0), row.get(1));
            written.add(*partition, offset, wanted, version);
            let same = row.get::<_, i64>(2) == hash(*partition, offset)
                && row.get::<_, &str>(3) == id(*partition, offset);
            if !same {
                written.fault(format!(
                    "partition {partition} offset {offset}: another id or hash"
                ));
            }
            wanted = offset + KEPT;
        }
        if wanted < *count {
            written.fault(format!(
                "partition {partition}: rows end before {wanted} of {count}"
            ));
        }
    }
    let partitions: Vec<String> = records.keys().map(ToString::to_string).collect();
    let foreign = format!(
        "SELECT count(*) FROM {TABLE} WHERE partition NOT IN ({})",
        partitions.join(", ")
    );
    let foreign = stage.number(&foreign).await;
    if foreign > 0 {
        written.fault(format!("{foreign} rows of partitions that are not there"));
    }
    written
}

/// Rows that so many records become.
pub fn rows_of(records: &BTreeMap<i32, i64>) -> i64 {
    records
        .values()
        .map(|count| (count + KEPT - 1) / KEPT)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rows: &[(i64, &str)]) -> Written {
        let mut written = Written::default();
        let mut wanted = 0;
        for (offset, version) in rows {
            written.add(0, *offset, wanted, version);
            wanted = offset + KEPT;
        }
        written
    }

    #[test]
    fn a_table_as_it_should_be_has_runs_and_no_faults() {
        let good = of(&[(0, "a"), (5, "a"), (10, "b")]);
        assert_eq!(good.fault_count, 0, "{:?}", good.faults);
        let run = |version: &str, first, last| Run {
            version: version.to_owned(),
            first,
            last,
        };
        assert_eq!(good.runs[&0], [run("a", 0, 5), run("b", 10, 10)]);
    }

    #[test]
    fn lost_doubled_and_mixed_rows_are_seen() {
        assert_eq!(of(&[(0, "a"), (10, "a")]).fault_count, 1);
        assert_eq!(of(&[(0, "a"), (0, "a")]).fault_count, 1);
        assert_eq!(of(&[(0, "a"), (0, "b"), (5, "b")]).fault_count, 1);
        assert_eq!(of(&[(3, "a")]).fault_count, 1);
    }

    #[test]
    fn the_hash_is_fnv() {
        // python3: h = 0xcbf29ce484222325; for b in b"…": h = (h ^ b) * 0x100000001b3 % 2**64
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in b"a" {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        assert_eq!(
            hash, 0xaf63_dc4c_8601_ec8c,
            "the published value of FNV-1a for `a`"
        );
    }

    #[test]
    fn rows_are_counted_a_partition() {
        assert_eq!(rows_of(&BTreeMap::from([(0, 10), (1, 11), (2, 0)])), 5);
    }
}
