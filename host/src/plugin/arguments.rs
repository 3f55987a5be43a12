//! [`Arguments`]: the flat lists of one guest call, borrowed from the batch wherever they lie there as the
//! guest needs them and gathered into reused buffers where they do not. It calls nothing.

use super::GuestBatch;
use super::abi::wasmill::plugin::types;
use super::instance::InputSettings;

/// Buffers reused from call to call.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    field_ends: Vec<u32>,
    data: Vec<u8>,
    ends: Vec<u32>,
    marks: Vec<u8>,
    timestamps: Vec<i64>,
    offsets: Vec<i64>,
    header_data: Vec<u8>,
    header_ends: Vec<u32>,
}

impl Arguments {
    /// The lists for the records of `input`, whose range is not empty.
    pub(super) fn lower<'a>(
        &'a mut self,
        input: &GuestBatch<'a>,
        settings: InputSettings,
    ) -> types::Batch<'a> {
        let (batch, fields) = (input.batch, input.fields);
        let kept = &fields.kept[input.range.clone()];
        self.fill_raw(input, kept, settings);
        let first = kept[0] as usize;
        let last = kept[kept.len() - 1] as usize;
        let (marks, timestamps, offsets) = if last - first + 1 == kept.len() {
            (
                &batch.marks()[first..=last],
                &batch.timestamps()[first..=last],
                &batch.offsets()[first..=last],
            )
        } else {
            gather(&mut self.marks, batch.marks(), kept);
            gather(&mut self.timestamps, batch.timestamps(), kept);
            gather(&mut self.offsets, batch.offsets(), kept);
            (&self.marks[..], &self.timestamps[..], &self.offsets[..])
        };
        let ends = &fields.ends[input.range.clone()];
        let start = match input.range.start {
            0 => 0,
            start => fields.ends[start - 1],
        };
        let stop = ends[ends.len() - 1];
        let field_ends = if start == 0 {
            ends
        } else {
            self.field_ends.clear();
            self.field_ends.extend(ends.iter().map(|end| end - start));
            &self.field_ends[..]
        };
        types::Batch {
            input: input.input,
            partition: batch.partition().cast_unsigned(),
            fields: &fields.cells[start as usize..stop as usize],
            field_ends,
            data: &self.data,
            ends: &self.ends,
            marks,
            timestamps,
            offsets,
            headers: settings.headers.then_some(types::Headers {
                data: &self.header_data,
                ends: &self.header_ends,
            }),
        }
    }

    /// Key, value and header bytes, where the input asks for them.
    fn fill_raw(&mut self, input: &GuestBatch<'_>, kept: &[u32], settings: InputSettings) {
        self.data.clear();
        self.ends.clear();
        self.header_data.clear();
        self.header_ends.clear();
        if !settings.raw && !settings.headers {
            return;
        }
        for index in kept {
            let record = input.batch.record(*index as usize);
            if settings.raw {
                self.data.extend_from_slice(record.key.unwrap_or_default());
                self.ends.push(end(&self.data));
                self.data
                    .extend_from_slice(record.value.unwrap_or_default());
                self.ends.push(end(&self.data));
            }
            if settings.headers {
                self.header_data.extend_from_slice(match record.headers {
                    // Not fetched: still a well-formed `headers` value, of none.
                    [] => &[0; 4],
                    headers => headers,
                });
                self.header_ends.push(end(&self.header_data));
            }
        }
    }
}

fn gather<T: Copy>(out: &mut Vec<T>, from: &[T], kept: &[u32]) {
    out.clear();
    out.extend(kept.iter().map(|index| from[*index as usize]));
}

fn end(data: &[u8]) -> u32 {
    u32::try_from(data.len()).expect("a call holds a part of a batch, which is far below 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Batch, Fields, Record};

    fn batch() -> Batch {
        let mut batch = Batch::new(7, 100);
        for (index, value) in [Some(&b"aa"[..]), None, Some(b"b"), Some(b"")]
            .into_iter()
            .enumerate()
        {
            let offset = 100 + 2 * i64::try_from(index).unwrap_or_default();
            batch.push(Record {
                key: Some(b"k"),
                value,
                timestamp: offset * 10,
                offset,
                headers: b"",
                marks: 0,
            });
        }
        batch
    }

    fn fields(kept: &[u32]) -> Fields {
        let mut fields = Fields::default();
        for index in kept {
            fields
                .cells
                .extend_from_slice(format!("cell{index}").as_bytes());
            fields.ends.push(end(&fields.cells));
            fields.kept.push(*index);
        }
        fields
    }

    const RAW: InputSettings = InputSettings {
        raw: true,
        headers: true,
    };

    #[test]
    fn a_contiguous_range_is_borrowed_and_its_ends_start_at_zero() {
        let (batch, fields) = (batch(), fields(&[0, 1, 2, 3]));
        let mut arguments = Arguments::default();
        let call = GuestBatch {
            input: 0,
            batch: &batch,
            fields: &fields,
            range: 1..3,
        };
        let lists = arguments.lower(&call, InputSettings::default());
        assert_eq!(lists.fields, b"cell1cell2");
        assert_eq!(lists.field_ends, [5, 10]);
        assert_eq!(lists.offsets, [102, 104]);
        assert_eq!(lists.offsets.as_ptr(), batch.offsets()[1..].as_ptr());
        assert_eq!(
            (lists.data.len(), lists.ends.len(), lists.partition),
            (0, 0, 7)
        );
        assert!(lists.headers.is_none());
    }

    #[test]
    fn a_range_with_gaps_is_gathered() {
        let (batch, fields) = (batch(), fields(&[0, 1, 3]));
        let mut arguments = Arguments::default();
        let call = GuestBatch {
            input: 0,
            batch: &batch,
            fields: &fields,
            range: 0..3,
        };
        // Twice: what the first call left in the buffers must not show in the second.
        for _ in 0..2 {
            let lists = arguments.lower(&call, RAW);
            assert_eq!(lists.field_ends, [5, 10, 15]);
            assert_eq!(lists.offsets, [100, 102, 106]);
            assert_eq!(lists.timestamps, [1000, 1020, 1060]);
            assert_eq!(lists.marks, [0, 2, 0]);
            assert_eq!(lists.data, b"kaakk");
            assert_eq!(lists.ends, [1, 3, 4, 4, 5, 5]);
            let headers = lists.headers.expect("asked for");
            assert_eq!(
                (headers.data, headers.ends),
                (&[0; 12][..], &[4, 8, 12][..])
            );
        }
    }
}
