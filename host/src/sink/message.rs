//! A row as a Kafka message: [`MessageFormat`] knows how, [`Message`] holds one.
//!
//! Pure and exact: the same row gives the same bytes at every replay. Rows come checked; key columns are never null.
//! A message's buffers are kept from row to row, so that a warm one allocates nothing. It knows no client, and not
//! the headers that the sink adds of its own.

use std::ops::Range;

use crate::manifest::{KafkaTopic, KeyFormat, ValueFormat};
use crate::record::cells::json::{put_json, put_json_cell, put_string, put_text};
use crate::record::cells::{Cell, Items, Reader, get_text};
use crate::record::{Column, Op, Type};

/// Most bytes of a message's key, value and headers, the host's own headers included: below `message.max.bytes` of
/// clients (1,000,000 by default) and, with what a record batch adds, below `max.message.bytes` of topics (1,048,588
/// by default; <https://kafka.apache.org/documentation/#topicconfigs_max.message.bytes>).
pub const MAX_MESSAGE: usize = 1_000_000;
/// Room in it for the host's own headers: names, a topic of 249 characters, two numbers, a pipeline, a plugin.
pub const HOST_HEADERS: usize = 1024;
/// By how much a cell with its length may grow as text: a control character takes six in JSON.
const GROWTH: usize = 6;

/// How rows of one route become messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageFormat {
    columns: Vec<Column>,
    /// `"name":` of each column.
    names: Vec<Vec<u8>>,
    key: Vec<usize>,
    key_format: KeyFormat,
    value: ValueFormat,
    headers: Vec<(String, usize)>,
    /// Columns of type headers.
    passed: Vec<usize>,
    /// Bytes of all names, and of what stands around them.
    around: usize,
}

/// One message. Reused from row to row.
#[derive(Clone, Debug, Default)]
pub struct Message {
    bytes: Vec<u8>,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    headers: Vec<(Range<usize>, Option<Range<usize>>)>,
    /// What stands in each column of the row.
    cells: Vec<At>,
}

/// What stands in a column, as places in the row.
#[derive(Clone, Debug)]
enum At {
    Value(Range<usize>),
    Null,
    Unset,
}

impl Message {
    /// The key; `None` where the route has none.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.key.clone().map(|range| &self.bytes[range])
    }

    /// The value; `None`: a tombstone.
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        self.value.clone().map(|range| &self.bytes[range])
    }

    /// Headers in order: name and value.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&str, Option<&[u8]>)> {
        self.headers.iter().map(|(name, value)| {
            let value = value.clone().map(|range| &self.bytes[range]);
            (get_text(&self.bytes[name.clone()]), value)
        })
    }

    /// Bytes of key, value and headers.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    fn cell<'a>(&self, row: &'a [u8], column: usize) -> Cell<'a> {
        match &self.cells[column] {
            At::Value(range) => Cell::Value(&row[range.clone()]),
            At::Null => Cell::Null,
            At::Unset => Cell::Unset,
        }
    }

    /// Appends by `put` and returns where that is.
    fn part(&mut self, put: impl FnOnce(&mut Vec<u8>)) -> Range<usize> {
        let start = self.bytes.len();
        put(&mut self.bytes);
        start..self.bytes.len()
    }
}

impl MessageFormat {
    /// The format of a route with these columns.
    #[must_use]
    pub fn of(columns: &[Column], topic: &KafkaTopic) -> Self {
        let names: Vec<Vec<u8>> = columns
            .iter()
            .map(|column| {
                let mut name = Vec::new();
                put_string(&mut name, column.name.as_bytes());
                name.push(b':');
                name
            })
            .collect();
        let passed = (0..columns.len()).filter(|index| columns[*index].ty == Type::Headers);
        let of_headers: usize = topic.headers.iter().map(|(name, _)| name.len()).sum();
        Self {
            columns: columns.to_vec(),
            passed: passed.collect(),
            key: topic.key.clone(),
            key_format: topic.key_format,
            value: topic.value,
            headers: topic.headers.clone(),
            around: 2 * names.iter().map(|name| name.len() + 2).sum::<usize>() + of_headers + 4,
            names,
        }
    }

    /// The column that is the whole value, where one is.
    #[must_use]
    pub fn payload(&self) -> Option<usize> {
        match self.value {
            ValueFormat::Bytes(column) => Some(column),
            ValueFormat::Json | ValueFormat::Csv => None,
        }
    }

    /// Whether a checked row fits into one message. Rows far below the limit are not looked at.
    #[must_use]
    pub fn fits(&self, op: Op, cells: &[u8]) -> bool {
        let room = MAX_MESSAGE - HOST_HEADERS;
        let copies = 2 + self.headers.len();
        if cells.len() * GROWTH * copies + self.around <= room {
            return true;
        }
        let mut message = Message::default();
        self.encode(op, cells, &mut message);
        message.size() <= room
    }

    /// Makes `message` the message of a checked row.
    pub fn encode(&self, op: Op, cells: &[u8], message: &mut Message) {
        message.bytes.clear();
        message.headers.clear();
        message.cells.clear();
        let mut reader = Reader::new(cells);
        for _ in &self.columns {
            let cell = reader.cell().expect("a row batch holds checked cells");
            let end = cells.len() - reader.rest().len();
            message.cells.push(match cell {
                Cell::Value(value) => At::Value(end - value.len()..end),
                Cell::Unset => At::Unset,
                _ => At::Null,
            });
        }
        message.key = (!self.key.is_empty()).then(|| self.put_key(cells, message));
        message.value = match op {
            Op::Delete => None,
            Op::Write => Some(self.put_value(cells, message)),
        };
        self.put_headers(cells, message);
    }

    fn put_key(&self, row: &[u8], message: &mut Message) -> Range<usize> {
        let start = message.bytes.len();
        if self.key_format == KeyFormat::Json {
            for (index, column) in self.key.iter().enumerate() {
                let cell = message.cell(row, *column);
                message.bytes.push(if index == 0 { b'{' } else { b',' });
                message.bytes.extend_from_slice(&self.names[*column]);
                put_json_cell(&mut message.bytes, &self.columns[*column].ty, cell);
            }
            message.bytes.push(b'}');
        } else if let Cell::Value(value) = message.cell(row, self.key[0]) {
            put_plain(&mut message.bytes, &self.columns[self.key[0]].ty, value);
        }
        start..message.bytes.len()
    }

    fn put_value(&self, row: &[u8], message: &mut Message) -> Range<usize> {
        let start = message.bytes.len();
        match self.value {
            ValueFormat::Bytes(column) => {
                if let Cell::Value(value) = message.cell(row, column) {
                    message.bytes.extend_from_slice(value);
                }
            }
            ValueFormat::Json => {
                let mut next = b'{';
                for (index, column) in self.columns.iter().enumerate() {
                    let cell = message.cell(row, index);
                    if cell == Cell::Unset || column.ty == Type::Headers {
                        continue;
                    }
                    message.bytes.push(next);
                    next = b',';
                    message.bytes.extend_from_slice(&self.names[index]);
                    put_json_cell(&mut message.bytes, &column.ty, cell);
                }
                if next == b'{' {
                    message.bytes.push(b'{');
                }
                message.bytes.push(b'}');
            }
            ValueFormat::Csv => {
                let mut first = true;
                for (index, column) in self.columns.iter().enumerate() {
                    if column.ty == Type::Headers {
                        continue;
                    }
                    if !first {
                        message.bytes.push(b',');
                    }
                    first = false;
                    if let Cell::Value(value) = message.cell(row, index) {
                        put_csv(&mut message.bytes, &column.ty, value);
                    }
                }
            }
        }
        start..message.bytes.len()
    }

    fn put_headers(&self, row: &[u8], message: &mut Message) {
        for (name, column) in &self.headers {
            let cell = message.cell(row, *column);
            if cell == Cell::Unset {
                continue;
            }
            let name = message.part(|out| out.extend_from_slice(name.as_bytes()));
            let value = match cell {
                Cell::Value(value) => {
                    Some(message.part(|out| put_plain(out, &self.columns[*column].ty, value)))
                }
                _ => None,
            };
            message.headers.push((name, value));
        }
        for column in &self.passed {
            let Cell::Value(pairs) = message.cell(row, *column) else {
                continue;
            };
            let mut cells = Items::new(pairs);
            while let (Some(Cell::Value(name)), Some(value)) = (cells.next(), cells.next()) {
                let name = message.part(|out| out.extend_from_slice(name));
                let value = match value {
                    Cell::Value(value) => Some(message.part(|out| out.extend_from_slice(value))),
                    _ => None,
                };
                message.headers.push((name, value));
            }
        }
    }
}

/// A value by itself: bytes as they are, anything else as text.
fn put_plain(out: &mut Vec<u8>, ty: &Type, value: &[u8]) {
    if *ty == Type::Bytes {
        out.extend_from_slice(value);
    } else {
        put_text(out, ty, value);
    }
}

/// A field of RFC 4180, section 2: quoted where it has to be, quotes doubled. An empty text is quoted too, and so
/// differs from null.
fn put_csv(out: &mut Vec<u8>, ty: &Type, value: &[u8]) {
    let start = out.len();
    match ty {
        Type::List(_) | Type::Set(_) | Type::Map(..) => put_json(out, ty, value),
        _ => put_text(out, ty, value),
    }
    let special = |byte: &u8| matches!(byte, b'"' | b',' | b'\r' | b'\n');
    let field = &out[start..];
    if !field.is_empty() && !field.iter().any(special) {
        return;
    }
    // Moved apart from the end on: a quote before each quote, and one at each end.
    let quotes = field.iter().filter(|byte| **byte == b'"').count();
    let mut from = out.len();
    out.resize(from + quotes + 2, 0);
    let mut to = out.len() - 1;
    out[to] = b'"';
    while from > start {
        from -= 1;
        to -= 1;
        out[to] = out[from];
        if out[from] == b'"' {
            to -= 1;
            out[to] = b'"';
        }
    }
    out[start] = b'"';
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
