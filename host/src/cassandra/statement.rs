//! The two statements of a route and the values bound to them, written straight from cells.
//!
//! A [`Plan`] knows how a row of a [`RouteTable`] is checked and written; [`Bound`] is one row with its write
//! time. Writes and deletes name their time always; nothing here reads a clock or talks to a server.

use scylla::serialize::SerializationError;
use scylla::serialize::row::{RowSerializationContext, SerializeRow};
use scylla::serialize::writers::RowWriter;

use super::schema::{RouteTable, quoted};
use super::wire::{Wire, WireError};
use crate::record::cells::{Cell, Reader};
use crate::record::{Op, RowRef};
use crate::route::{CASSANDRA_MAX_KEY, CASSANDRA_MAX_ROW};

/// Microseconds a second.
const MICROS: i64 = 1_000_000;

/// How rows of a route become requests.
#[derive(Debug)]
pub(super) struct Plan {
    wires: Vec<Wire>,
    names: Vec<String>,
    /// Partition key, then clustering key.
    keys: Vec<usize>,
    partition_keys: usize,
    ttl: Option<i64>,
}

/// One row bound to its statement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound<'a> {
    plan: &'a Plan,
    cells: &'a [u8],
    /// Index of the record in its batch.
    pub(super) source: u32,
    /// Which statement.
    pub(super) op: Op,
    time: i64,
    ttl: i32,
}

/// A row that cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RowError {
    /// A cell has no CQL value.
    #[error("column {column:?}: {error}")]
    Cell { column: String, error: WireError },
    /// A key column without a value.
    #[error("key column {0:?} has no value")]
    NoKey(String),
    /// An empty partition key.
    #[error("the partition key is empty")]
    EmptyKey,
    /// A key too large.
    #[error("a {kind} key of {bytes} bytes, at most {CASSANDRA_MAX_KEY} are possible")]
    Key { kind: &'static str, bytes: usize },
    /// Bytes after the last column.
    #[error("{0} bytes follow its last column")]
    Extra(usize),
    /// A row too large.
    #[error("a row of {0} bytes, at most {CASSANDRA_MAX_ROW} are sent")]
    Row(usize),
}

impl Plan {
    /// The plan of a table.
    pub(super) fn new(table: &RouteTable) -> Self {
        let keys = table.partition_key.iter().chain(&table.clustering_key);
        Self {
            wires: table
                .columns
                .iter()
                .map(|column| Wire::of(&column.ty))
                .collect(),
            names: table
                .columns
                .iter()
                .map(|column| column.name.clone())
                .collect(),
            keys: keys.copied().collect(),
            partition_keys: table.partition_key.len(),
            ttl: table.ttl.map(|ttl| {
                i64::try_from(ttl.as_micros()).expect("at most 20 years: RouteTable checked it")
            }),
        }
    }

    /// From now on values of the column are checked to be of version 1.
    pub(super) fn is_timeuuid(&mut self, column: usize) {
        self.wires[column] = Wire::TimeUuid;
    }

    /// The statement that writes a row.
    pub(super) fn insert(table: &RouteTable) -> String {
        let names = table.columns.iter().map(quoted).collect::<Vec<_>>();
        let ttl = if table.ttl.is_some() {
            " AND TTL ?"
        } else {
            ""
        };
        format!(
            "INSERT INTO {} ({}) VALUES ({}) USING TIMESTAMP ?{ttl}",
            table.name,
            names.join(", "),
            vec!["?"; names.len()].join(", "),
        )
    }

    /// The statement that deletes a row.
    pub(super) fn delete(table: &RouteTable) -> String {
        let keys = table.partition_key.iter().chain(&table.clustering_key);
        let conditions = keys.map(|key| format!("{} = ?", quoted(&table.columns[*key])));
        format!(
            "DELETE FROM {} USING TIMESTAMP ? WHERE {}",
            table.name,
            conditions.collect::<Vec<_>>().join(" AND ")
        )
    }

    /// Checks a row and binds it to its write time; appends the bytes of its partition key to `key`.
    ///
    /// A write whose time to live is over by `now` is bound as a delete at the time of the write: in the
    /// table it then is what the write would have become.
    ///
    /// # Errors
    /// What of the row cannot be sent.
    pub(super) fn bind<'a>(
        &'a self,
        row: RowRef<'a>,
        stamp: i64,
        now: i64,
        key: &mut Vec<u8>,
    ) -> Result<Bound<'a>, RowError> {
        if row.cells.len() > CASSANDRA_MAX_ROW {
            return Err(RowError::Row(row.cells.len()));
        }
        let mut reader = Reader::new(row.cells);
        for (column, wire) in self.wires.iter().enumerate() {
            let checked = reader
                .cell()
                .map_err(WireError::from)
                .and_then(|cell| match cell {
                    Cell::Value(value) => wire.check(value),
                    Cell::Null | Cell::Unset => Ok(()),
                    _ => Err(WireError::Range("a reference to the source record")),
                });
            checked.map_err(|error| RowError::Cell {
                column: self.names[column].clone(),
                error,
            })?;
        }
        if !reader.is_empty() {
            return Err(RowError::Extra(reader.rest().len()));
        }
        // of a composite key the server stores two bytes of length and a closing zero a column
        let overhead = if self.partition_keys > 1 {
            3 * self.partition_keys
        } else {
            0
        };
        let (mut partition, mut clustering) = (0, 0);
        for (place, column) in self.keys.iter().enumerate() {
            let Some(value) = value_at(row.cells, *column) else {
                return Err(RowError::NoKey(self.names[*column].clone()));
            };
            if place < self.partition_keys {
                // lengths keep ("a", "bc") and ("ab", "c") apart
                key.extend_from_slice(&value.len().to_be_bytes());
                key.extend_from_slice(value);
                partition += value.len();
            } else {
                clustering += value.len();
            }
        }
        if partition == 0 && self.partition_keys == 1 {
            return Err(RowError::EmptyKey);
        }
        for (kind, bytes) in [
            ("partition", partition + overhead),
            ("clustering", clustering),
        ] {
            if bytes > CASSANDRA_MAX_KEY {
                return Err(RowError::Key { kind, bytes });
            }
        }
        let mut bound = Bound {
            plan: self,
            cells: row.cells,
            source: row.source,
            op: row.op,
            // odd for writes: in one record a write outlives a delete
            time: if row.op == Op::Write {
                stamp + 1
            } else {
                stamp
            },
            ttl: 0,
        };
        if let (Op::Write, Some(ttl)) = (row.op, self.ttl) {
            let left = (stamp + ttl - now + MICROS - 1).div_euclid(MICROS);
            let longest = (ttl + MICROS - 1).div_euclid(MICROS);
            match i32::try_from(left.min(longest)) {
                Ok(left) if left > 0 => bound.ttl = left,
                _ => bound.op = Op::Delete,
            }
        }
        Ok(bound)
    }
}

impl SerializeRow for Bound<'_> {
    fn serialize(
        &self,
        _: &RowSerializationContext<'_>,
        writer: &mut RowWriter<'_>,
    ) -> Result<(), SerializationError> {
        let number = |writer: &mut RowWriter<'_>, bytes: &[u8]| {
            let proof = writer.make_cell_writer().set_value(bytes).map(drop);
            proof.map_err(SerializationError::new)
        };
        if self.op == Op::Delete {
            number(writer, &self.time.to_be_bytes())?;
            for column in &self.plan.keys {
                let value = value_at(self.cells, *column).unwrap_or_default();
                self.plan.wires[*column].write(value, writer.make_cell_writer())?;
            }
            return Ok(());
        }
        let mut reader = Reader::new(self.cells);
        for wire in &self.plan.wires {
            let cell = writer.make_cell_writer();
            match reader.cell().map_err(WireError::from)? {
                Cell::Value(value) => wire.write(value, cell)?,
                Cell::Null => drop(cell.set_null()),
                _ => drop(cell.set_unset()),
            }
        }
        number(writer, &self.time.to_be_bytes())?;
        if self.plan.ttl.is_some() {
            number(writer, &self.ttl.to_be_bytes())?;
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        false
    }
}

impl Bound<'_> {
    /// Bytes of its cells.
    pub(super) fn bytes(&self) -> usize {
        self.cells.len()
    }
}

/// The value of the cell of a column, `None` when it has none.
fn value_at(cells: &[u8], column: usize) -> Option<&[u8]> {
    let mut reader = Reader::new(cells);
    for _ in 0..column {
        reader.cell().ok()?;
    }
    match reader.cell() {
        Ok(Cell::Value(value)) => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::manifest::{CassandraTable, Create};
    use crate::record::{Column, cells};
    use std::time::Duration;

    fn table(ttl: Option<u64>, partition_key: Vec<usize>) -> RouteTable {
        let column = |name: &str, ty: &str| Column {
            name: name.to_owned(),
            ty: ty.parse().unwrap(),
            nullable: true,
        };
        let columns = [
            column("note", "text"),
            column("id", "text"),
            column("at", "timestamp"),
        ];
        let declared = CassandraTable {
            table: "t".to_owned(),
            partition_key,
            clustering_key: vec![2],
            ttl: ttl.map(Duration::from_secs),
            consistency: "one".to_owned(),
            create: Create::Never,
            cross_partition_keys: false,
        };
        RouteTable::new("r", &columns, &declared, None, "k").unwrap()
    }

    fn cells(id: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        cells::put_unset(&mut out);
        cells::put(&mut out, id);
        cells::put(&mut out, &7_000_i64.to_be_bytes());
        out
    }

    fn written(bound: &Bound<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        bound
            .serialize(
                &RowSerializationContext::empty(),
                &mut RowWriter::new(&mut out),
            )
            .unwrap();
        out
    }

    fn row(cells: &[u8], op: Op) -> RowRef<'_> {
        RowRef {
            cells,
            source: 3,
            op,
        }
    }

    #[test]
    fn statements_name_their_time() {
        let with = table(Some(60), vec![1]);
        assert_eq!(
            Plan::insert(&with),
            "INSERT INTO \"k\".\"t\" (\"note\", \"id\", \"at\") VALUES (?, ?, ?) USING TIMESTAMP ? AND TTL ?"
        );
        assert_eq!(
            Plan::delete(&with),
            "DELETE FROM \"k\".\"t\" USING TIMESTAMP ? WHERE \"id\" = ? AND \"at\" = ?"
        );
    }

    #[test]
    fn a_write_is_its_cells_its_odd_time_and_what_is_left_to_live() {
        let table = table(Some(60), vec![1]);
        let plan = Plan::new(&table);
        let cells = cells(b"k1");
        let mut key = Vec::new();
        let bound = plan
            .bind(row(&cells, Op::Write), 1_000_000, 11_500_000, &mut key)
            .unwrap();
        let mut want = (-2_i32).to_be_bytes().to_vec();
        cells::put(&mut want, b"k1");
        cells::put(&mut want, &7_i64.to_be_bytes());
        cells::put(&mut want, &1_000_001_i64.to_be_bytes());
        cells::put(&mut want, &50_i32.to_be_bytes());
        assert_eq!(written(&bound), want);
        assert_eq!(key, [&2_usize.to_be_bytes()[..], b"k1"].concat());
        assert_eq!(bound.source, 3);
    }

    #[test]
    fn a_row_that_outlived_its_time_is_deleted_at_the_time_of_its_write() {
        let table = table(Some(60), vec![1]);
        let plan = Plan::new(&table);
        let cells = cells(b"k1");
        let bind = |now| {
            plan.bind(row(&cells, Op::Write), 2_000_000, now, &mut Vec::new())
                .unwrap()
        };
        assert_eq!(bind(61_999_999).op, Op::Write);
        assert_eq!(bind(61_999_999).ttl, 1);
        assert_eq!(bind(0).ttl, 60, "never longer than declared");
        let late = bind(62_000_000);
        assert_eq!(late.op, Op::Delete);
        let mut want = Vec::new();
        cells::put(&mut want, &2_000_001_i64.to_be_bytes());
        cells::put(&mut want, b"k1");
        cells::put(&mut want, &7_i64.to_be_bytes());
        assert_eq!(written(&late), want);
    }

    #[test]
    fn a_delete_takes_the_even_time() {
        let table = table(None, vec![1]);
        let plan = Plan::new(&table);
        let cells = cells(b"k1");
        let bound = plan
            .bind(row(&cells, Op::Delete), 2_000_000, 0, &mut Vec::new())
            .unwrap();
        assert_eq!(&written(&bound)[4..12], 2_000_000_i64.to_be_bytes());
    }

    #[test]
    fn keys_are_there_and_small() {
        let table_one = table(None, vec![1]);
        let plan = Plan::new(&table_one);
        let bind = |cells: &[u8]| {
            plan.bind(row(cells, Op::Write), 0, 0, &mut Vec::new())
                .map(|bound| bound.op)
        };
        assert_eq!(bind(&cells(b"")), Err(RowError::EmptyKey));
        assert!(bind(&cells(&vec![b'x'; 65_535])).is_ok());
        assert!(matches!(
            bind(&cells(&vec![b'x'; 65_536])),
            Err(RowError::Key { .. })
        ));
        assert!(matches!(
            bind(&cells(&vec![b'x'; CASSANDRA_MAX_ROW])),
            Err(RowError::Row(_))
        ));
        let mut no_key = Vec::new();
        cells::put(&mut no_key, b"note");
        cells::put_null(&mut no_key);
        cells::put(&mut no_key, &0_i64.to_be_bytes());
        assert_eq!(bind(&no_key), Err(RowError::NoKey("id".to_owned())));
        let long = [cells(b"k"), vec![0; 4]].concat();
        assert_eq!(bind(&long), Err(RowError::Extra(4)));
        // of two key columns, one may be empty
        let table_two = table(None, vec![1, 0]);
        let plan = Plan::new(&table_two);
        let mut row_cells = Vec::new();
        cells::put(&mut row_cells, b"note");
        cells::put(&mut row_cells, b"");
        cells::put(&mut row_cells, &0_i64.to_be_bytes());
        assert!(
            plan.bind(row(&row_cells, Op::Write), 0, 0, &mut Vec::new())
                .is_ok()
        );
        assert!(
            plan.bind(row(&row_cells[..3], Op::Write), 0, 0, &mut Vec::new())
                .is_err()
        );
    }
}
