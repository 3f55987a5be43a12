//! Records of the harness as one batch in the layout of the interface.

use crate::plugin::BatchView;
use crate::test_decode::{self, Origin};

/// A record that decoded, as the guest would get it.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    /// Index of its input.
    pub(crate) input: u16,
    /// Cells of its fields.
    pub(crate) cells: Vec<u8>,
    /// Where it came from.
    pub(crate) origin: Origin,
}

/// A batch in the layout of the interface.
#[derive(Debug, Default)]
pub(crate) struct Packed {
    fields: Vec<u8>,
    field_ends: Vec<u32>,
    data: Vec<u8>,
    ends: Vec<u32>,
    marks: Vec<u8>,
    timestamps: Vec<i64>,
    offsets: Vec<i64>,
    headers: Vec<u8>,
    header_ends: Vec<u32>,
}

impl Packed {
    /// Packs records of one input and partition.
    pub(crate) fn new(records: &[&Stored]) -> Self {
        let mut packed = Self::default();
        let end =
            |data: &Vec<u8>| u32::try_from(data.len()).expect("a test's batch is below 4 GiB");
        for Stored { cells, origin, .. } in records {
            packed.fields.extend_from_slice(cells);
            packed.field_ends.push(end(&packed.fields));
            packed
                .data
                .extend_from_slice(origin.key.as_deref().unwrap_or_default());
            packed.ends.push(end(&packed.data));
            packed
                .data
                .extend_from_slice(&origin.value_bytes().unwrap_or_default());
            packed.ends.push(end(&packed.data));
            let null_value = if origin.value.is_none() { 2 } else { 0 };
            packed
                .marks
                .push(u8::from(origin.key.is_none()) | null_value);
            packed.timestamps.push(origin.timestamp);
            packed.offsets.push(origin.offset);
            test_decode::headers(&origin.headers, &mut packed.headers);
            packed.header_ends.push(end(&packed.headers));
        }
        packed
    }

    /// The batch as a call gets it.
    pub(crate) fn view<'a>(&'a self, records: &[&Stored]) -> BatchView<'a> {
        BatchView {
            input: records.first().map_or(0, |record| record.input),
            partition: records.first().map_or(0, |record| record.origin.partition),
            fields: &self.fields,
            field_ends: &self.field_ends,
            data: &self.data,
            ends: &self.ends,
            marks: &self.marks,
            timestamps: &self.timestamps,
            offsets: &self.offsets,
            headers: &self.headers,
            header_ends: &self.header_ends,
        }
    }
}
