//! Record bytes to field cells, natively, before any guest runs: [`Decoder`].
//!
//! Owns the reading of every format. It is compiled once from an input's declaration and keeps its buffers
//! from record to record, so the good path allocates nothing; a record's outcome depends on that record
//! alone, never on the batch around it. It never guesses: each record either gives all its fields, each of
//! its type, or exactly one dead letter that names the field, its path and what was found.
//!
//! What each kind of source refuses is listed where it is read: `json` and `json_value` (values and keys as JSON), `text`
//! (lines and patterns), `scalar` (headers, text keys, captures), `time`, `base64`. In all of them:
//! absent is −2, null is −1, and either in a field that is not nullable is a dead letter, **also** in a
//! tombstone that passes (so a field that is not nullable always has a value in the guest). Fixed-size
//! types, text and bytes come from a `bytes` key or value as raw big-endian bytes of exactly their size.
//! A value or key no field asks for is not looked at.

mod base64;
mod compile;
mod fail;
mod json;
mod json_value;
mod scalar;
mod text;
mod time;

use crate::error::Result;
use crate::manifest::{Input, Tombstones, Unit};
use crate::record::cells::{Headers, check, put, put_int32, put_int64, put_null, put_unset};
use crate::record::{Batch, Fields, Record, Type};
use crate::route::DeadLetter;
use fail::{Fail, Part};
use scalar::{BytesAs, Unfit, put_scalar};

/// Decodes the records of one input. One per lane: it holds buffers, so it is cloned, not shared.
#[derive(Clone, Debug)]
pub struct Decoder {
    fields: Vec<Field>,
    tombstones: Tombstones,
    key: Option<json::Plan>,
    value: Option<json::Plan>,
    lines: Option<text::Lines>,
    /// Whether any field comes from a JSON key or value.
    walks: bool,
    scratch: Buffers,
}

/// A declared field, ready to be read.
#[derive(Clone, Debug)]
struct Field {
    name: String,
    /// As in the manifest, for reasons: `value:/path`.
    from: String,
    ty: Type,
    nullable: bool,
    unit: Option<Unit>,
    place: Place,
}

/// Where a field is read.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// By the walk over the JSON key or value.
    Json,
    /// The key as it is, a text or raw bytes.
    Key(Raw),
    /// The value as raw bytes.
    Value,
    /// The line.
    Line,
    /// A numbered capture of the line.
    Capture(usize),
    Header(String),
    Topic,
    Partition,
    Offset,
    Timestamp,
}

/// How bytes that are one value are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Raw {
    Text,
    Bytes,
}

#[derive(Clone, Debug, Default)]
struct Buffers {
    spans: Vec<json::Span>,
    key: json::Scratch,
    value: json::Scratch,
    reorder: Vec<u8>,
}

impl Decoder {
    /// Compiles an input's fields.
    ///
    /// # Errors
    /// [`crate::error::Blame::Config`] when a field cannot be read as declared: a path into a format
    /// without paths, a capture the pattern does not have, a type its source cannot give.
    pub fn new(input: &Input) -> Result<Self> {
        compile::compile(input)
    }

    /// Decodes every record of `batch`: appends its cells to `out`, or one dead letter to `dead`.
    ///
    /// Both are appended to, in record order, never cleared.
    pub fn decode(
        &mut self,
        batch: &Batch,
        topic: &str,
        out: &mut Fields,
        dead: &mut Vec<DeadLetter>,
    ) {
        for index in 0..batch.len() {
            let source = u32::try_from(index).expect("a batch is far below 2^32 records");
            let record = batch.record(index);
            let start = out.cells.len();
            match self.record(&record, (topic, batch.partition()), &mut out.cells) {
                Ok(()) => {
                    let end = u32::try_from(out.cells.len());
                    out.ends
                        .push(end.expect("a batch is far below 4 GiB: the source bounds it"));
                    out.kept.push(source);
                }
                Err(fail) => {
                    out.cells.truncate(start);
                    dead.push(fail.dead_letter(source, &self.fields));
                }
            }
        }
    }

    fn record(
        &mut self,
        record: &Record<'_>,
        place: (&str, i32),
        out: &mut Vec<u8>,
    ) -> Result<(), Fail> {
        if record.value.is_none() && self.tombstones == Tombstones::DeadLetter {
            return Err(Fail::Tombstone);
        }
        let line = match (&mut self.lines, record.value) {
            (Some(lines), Some(value)) => Some(lines.read(value)?),
            _ => None,
        };
        let source = Source {
            record,
            place,
            line,
        };
        if !self.walks {
            for (index, field) in self.fields.iter().enumerate() {
                source.put(index, field, out)?;
            }
            return Ok(());
        }
        let buffers = &mut self.scratch;
        let start = out.len();
        buffers.spans.clear();
        buffers.spans.resize(self.fields.len(), json::ABSENT);
        // Fields in front of the first JSON field go out at once, so that the usual record needs no sorting.
        let json = |field: &Field| field.place == Place::Json;
        let first = self
            .fields
            .iter()
            .position(json)
            .unwrap_or(self.fields.len());
        let put = |range: std::ops::Range<usize>, spans: &mut [json::Span], out: &mut Vec<u8>| {
            for index in range {
                if !json(&self.fields[index]) {
                    let start = out.len();
                    source.put(index, &self.fields[index], out)?;
                    spans[index] = (start, out.len());
                }
            }
            Ok::<(), Fail>(())
        };
        put(0..first, &mut buffers.spans, out)?;
        let halves = [
            (&self.key, record.key, &mut buffers.key),
            (&self.value, record.value, &mut buffers.value),
        ];
        for (plan, bytes, scratch) in halves {
            match (plan, bytes) {
                (Some(plan), Some(bytes)) => {
                    plan.walk(&self.fields, bytes, scratch, (out, &mut buffers.spans))?;
                }
                (Some(plan), None) => {
                    for index in plan.fields() {
                        let start = out.len();
                        null(index, &self.fields[index], out)?;
                        buffers.spans[index] = (start, out.len());
                    }
                }
                (None, _) => {}
            }
        }
        put(first..self.fields.len(), &mut buffers.spans, out)?;
        self.arrange(start, out)
    }

    /// Fills in absent fields and brings the cells after `start` into the order of the fields.
    fn arrange(&mut self, start: usize, out: &mut Vec<u8>) -> Result<(), Fail> {
        let mut at = start;
        let ordered = self.scratch.spans.iter().all(|(from, to)| {
            let next = *from == at;
            at = *to;
            next
        });
        if ordered {
            return Ok(());
        }
        let sorted = &mut self.scratch.reorder;
        sorted.clear();
        for (index, span) in self.scratch.spans.iter().enumerate() {
            if *span == json::ABSENT {
                absent(index, &self.fields[index], sorted)?;
            } else {
                sorted.extend_from_slice(&out[span.0..span.1]);
            }
        }
        out.truncate(start);
        out.extend_from_slice(sorted);
        Ok(())
    }
}

/// A record and all there is around it.
struct Source<'a> {
    record: &'a Record<'a>,
    place: (&'a str, i32),
    line: Option<text::Line<'a>>,
}

impl Source<'_> {
    /// Appends the cell of a field that is not in JSON.
    fn put(&self, index: usize, field: &Field, out: &mut Vec<u8>) -> Result<(), Fail> {
        match &field.place {
            Place::Json => Ok(()),
            Place::Topic => {
                put(out, self.place.0.as_bytes());
                Ok(())
            }
            Place::Partition => {
                put_int32(out, self.place.1);
                Ok(())
            }
            Place::Offset => {
                put_int64(out, self.record.offset);
                Ok(())
            }
            Place::Timestamp => put_timestamp(index, field, self.record.timestamp, out),
            Place::Key(raw) => match self.record.key {
                None => null(index, field, out),
                Some(key) => put_raw(index, field, (Part::Key, *raw), key, out),
            },
            Place::Value => match self.record.value {
                None => null(index, field, out),
                Some(value) => put_raw(index, field, (Part::Value, Raw::Bytes), value, out),
            },
            Place::Line => match self.line {
                None => null(index, field, out),
                Some(line) => put_text(index, field, line.text(), out),
            },
            Place::Capture(number) => match self.line {
                None => null(index, field, out),
                Some(line) => match line.capture(*number) {
                    None => absent(index, field, out),
                    Some(text) => put_text(index, field, text, out),
                },
            },
            Place::Header(name) => self.put_header(index, field, name, out),
        }
    }

    fn put_header(
        &self,
        index: usize,
        field: &Field,
        name: &str,
        out: &mut Vec<u8>,
    ) -> Result<(), Fail> {
        let broken =
            |error| Fail::unfit(index, Unfit(format!("headers that are no cells: {error}")));
        let mut last = None;
        for header in Headers::new(self.record.headers).map_err(broken)? {
            let (key, value) = header.map_err(broken)?;
            if key == name.as_bytes() {
                last = Some(value);
            }
        }
        match last {
            None => absent(index, field, out),
            Some(None) => null(index, field, out),
            Some(Some(bytes)) if field.ty == Type::Bytes => {
                put(out, bytes);
                Ok(())
            }
            Some(Some(bytes)) => match std::str::from_utf8(bytes) {
                Ok(text) => put_text(index, field, text, out),
                Err(_) => Err(not_utf8(index)),
            },
        }
    }
}

#[cold]
fn not_utf8(field: usize) -> Fail {
    Fail::unfit(field, Unfit("bytes that are not UTF-8".to_owned()))
}

fn put_text(index: usize, field: &Field, text: &str, out: &mut Vec<u8>) -> Result<(), Fail> {
    put_scalar(&field.ty, field.unit, BytesAs::Plain, text, out)
        .map_err(|unfit| Fail::unfit(index, unfit))
}

fn put_raw(
    index: usize,
    field: &Field,
    (part, raw): (Part, Raw),
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Fail> {
    match raw {
        Raw::Text => match std::str::from_utf8(bytes) {
            Ok(text) => put_text(index, field, text, out),
            Err(_) => Err(Fail::malformed(part, "not UTF-8")),
        },
        Raw::Bytes => match check(&field.ty, bytes) {
            Ok(()) => {
                put(out, bytes);
                Ok(())
            }
            Err(error) => Err(Fail::unfit(index, Unfit(error.to_string()))),
        },
    }
}

/// A Kafka timestamp (milliseconds, −1 for none) as a timestamp cell.
fn put_timestamp(index: usize, field: &Field, millis: i64, out: &mut Vec<u8>) -> Result<(), Fail> {
    if millis == -1 {
        return absent(index, field, out);
    }
    let micros = millis.checked_mul(1000);
    match micros.filter(|micros| *micros >= crate::record::cells::MIN_TIMESTAMP) {
        Some(micros) => {
            put_int64(out, micros);
            Ok(())
        }
        None => Err(Fail::unfit(index, Unfit(format!("timestamp {millis} ms")))),
    }
}

fn null(index: usize, field: &Field, out: &mut Vec<u8>) -> Result<(), Fail> {
    if !field.nullable {
        return Err(Fail::Missing {
            field: index,
            what: "null",
        });
    }
    put_null(out);
    Ok(())
}

fn absent(index: usize, field: &Field, out: &mut Vec<u8>) -> Result<(), Fail> {
    if !field.nullable {
        return Err(Fail::Missing {
            field: index,
            what: "absent",
        });
    }
    put_unset(out);
    Ok(())
}

#[cfg(test)]
mod tests;
