//! The native test harness: a plugin's own function on records written as JSON, without a host and without
//! WebAssembly. It decodes the declared fields as the host does, shows rows as JSON, and in the end replays all
//! records in other batches: a plugin whose rows depend on how records are batched fails its test.
//!
//! It stands in for formats with JSON: a capture `/status` of a text pattern is the member `status` here.
//! Tombstones always pass.

use std::marker::PhantomData;

use serde_json::{Map, Value};

use crate::config::{Configuration, Setup};
use crate::metrics;
use crate::plugin::{Plugin, Ran, run};
use crate::spec::{InputSpec, RouteSpec};
use crate::test_batch::{Packed, Stored};
use crate::test_decode::{self, Origin};
use crate::test_show;

pub use crate::test_fixtures::fixtures;
pub use serde_json::json;

/// How often [`Harness::finish`] replays everything, each time in other batches.
const REPLAYS: u64 = 16;

/// One row that a plugin wrote or deleted, for a person.
#[derive(Clone, Debug, PartialEq)]
pub struct RowSeen {
    /// The route's name.
    pub route: String,
    /// Whether it deletes; then `columns` holds the key alone.
    pub delete: bool,
    /// Columns by name; one that is left alone is not there.
    pub columns: Map<String, Value>,
}

/// A record set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead {
    /// The plugin's code, or the host's (`field-missing`, `field-type`, `malformed`).
    pub code: String,
    /// One sentence.
    pub reason: String,
}

/// What became of one record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Rows in the order they were written; none: filtered, or set aside.
    pub rows: Vec<RowSeen>,
    /// Why it was set aside.
    pub dead: Option<Dead>,
    /// The text of a fatal error: the pipeline would stop here.
    pub fatal: Option<String>,
}

impl Seen {
    /// The code it was set aside with.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.dead.as_ref().map(|dead| dead.code.as_str())
    }

    /// The columns of the rows written to a route.
    #[must_use]
    pub fn written(&self, route: &str) -> Vec<&Map<String, Value>> {
        let rows = self
            .rows
            .iter()
            .filter(|row| row.route == route && !row.delete);
        rows.map(|row| &row.columns).collect()
    }
}

/// A plugin under test.
///
/// Dropped without [`Harness::finish`], it finishes itself, unless the test has failed already.
#[derive(Debug)]
pub struct Harness<P: Plugin> {
    config: ConfigCell<P>,
    inputs: &'static [InputSpec],
    routes: &'static [RouteSpec],
    stored: Vec<(Stored, Seen)>,
    all: Vec<Seen>,
    finished: bool,
}

/// The configuration, which need not be `Debug`.
struct ConfigCell<P: Plugin>(P::Config);

impl<P: Plugin> std::fmt::Debug for ConfigCell<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("configuration")
    }
}

impl<P: Plugin> Default for Harness<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Plugin> Harness<P> {
    /// A plugin with the defaults of its configuration.
    ///
    /// # Panics
    /// When a value has no default, or the plugin refuses them.
    #[must_use]
    pub fn new() -> Self {
        Self::with_config(json!({}))
    }

    /// A plugin with some values of its configuration, `json!({"name": value})`.
    ///
    /// # Panics
    /// When a value is missing, unknown or of another type, or the plugin refuses it.
    #[must_use]
    pub fn with_config(config: Value) -> Self {
        match Self::try_with_config(&config) {
            Ok(harness) => harness,
            Err(reason) => panic!("the plugin does not start: {reason}"),
        }
    }

    /// As [`Harness::with_config`], with the refusal as a text.
    ///
    /// # Errors
    /// What is missing, unknown, of another type, or refused by the plugin.
    pub fn try_with_config(config: &Value) -> Result<Self, String> {
        let setup = test_decode::setup(P::Config::ITEMS, config)?;
        Ok(Self {
            config: ConfigCell(Setup::<P::Config>::read(&setup)?.config),
            inputs: P::INPUTS,
            routes: P::ROUTES,
            stored: Vec::new(),
            all: Vec::new(),
            finished: false,
        })
    }

    /// A record of the first input; finish it with [`Draft::send`].
    pub fn record(&mut self) -> Draft<'_, P> {
        Draft::new(self, 0)
    }

    /// A record of the input `name`.
    ///
    /// # Panics
    /// When the plugin has no such input.
    pub fn record_of(&mut self, name: &str) -> Draft<'_, P> {
        let index = self.inputs.iter().position(|input| input.name == name);
        let index = index.unwrap_or_else(|| panic!("the plugin has no input {name:?}"));
        Draft::new(self, index)
    }

    /// Sends a value without a key to the first input.
    pub fn send(&mut self, value: Value) -> Seen {
        self.record().value(value).send()
    }

    /// What became of every record so far, in order.
    #[must_use]
    pub fn seen(&self) -> &[Seen] {
        &self.all
    }

    /// All rows written to a route so far.
    #[must_use]
    pub fn rows(&self, route: &str) -> Vec<&Map<String, Value>> {
        self.all
            .iter()
            .flat_map(|seen| seen.written(route))
            .collect()
    }

    /// Records set aside so far: index of the record, and why.
    #[must_use]
    pub fn dead(&self) -> Vec<(usize, &Dead)> {
        let dead = self.all.iter().enumerate();
        dead.filter_map(|(index, seen)| Some((index, seen.dead.as_ref()?)))
            .collect()
    }

    /// What the plugin counted since the last call, by name.
    pub fn counted(&mut self) -> Vec<(String, u64)> {
        metrics::take()
    }

    /// What the component will answer to `describe`.
    #[must_use]
    pub fn describe(&self) -> String {
        crate::spec::describe::<P>()
    }

    /// Replays all records in other batches and compares.
    ///
    /// # Panics
    /// When rows or rejections differ: the plugin keeps something between records, or reads a clock.
    pub fn finish(mut self) {
        self.check();
    }

    fn check(&mut self) {
        self.finished = true;
        for seed in 1..=REPLAYS {
            let mut dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut from = 0;
            while from < self.stored.len() {
                let to = self.batch_end(from, &mut dice);
                self.compare(from, to);
                from = to;
            }
        }
    }

    /// A random end of the batch that starts at `from`: records of one input and partition, offsets ascending.
    fn batch_end(&self, from: usize, dice: &mut u64) -> usize {
        // xorshift64: any cut will do, but the same cuts at every run.
        *dice ^= *dice << 13;
        *dice ^= *dice >> 7;
        *dice ^= *dice << 17;
        let most = usize::try_from(*dice % 64).map_or(1, |most| most + 1);
        let first = &self.stored[from].0;
        let alike = self.stored[from..]
            .iter()
            .take(most)
            .take_while(|(next, _)| {
                next.input == first.input && next.origin.partition == first.origin.partition
            });
        from + alike.count()
    }

    fn compare(&self, from: usize, to: usize) {
        let records: Vec<&Stored> = self.stored[from..to]
            .iter()
            .map(|(stored, _)| stored)
            .collect();
        for (at, (again, (_, seen))) in self
            .call(&records)
            .iter()
            .zip(&self.stored[from..to])
            .enumerate()
        {
            assert!(
                again == seen,
                "record {} came out differently in a batch of {}: the plugin must be a function of the record \
                 alone\nbefore: {seen:?}\nnow:    {again:?}",
                self.stored[from + at].0.origin.offset,
                to - from,
            );
        }
    }

    /// One call with records of one input and partition.
    fn call(&self, records: &[&Stored]) -> Vec<Seen> {
        let batch = Packed::new(records);
        match run::<P>(&self.config.0, &batch.view(records)) {
            Ok(ran) => self.unpack(records, &ran),
            Err(reason) => vec![
                Seen {
                    fatal: Some(reason),
                    ..Seen::default()
                };
                records.len()
            ],
        }
    }

    fn unpack(&self, records: &[&Stored], ran: &Ran) -> Vec<Seen> {
        let mut all = vec![Seen::default(); records.len()];
        for reject in &ran.rejects {
            let dead = Dead {
                code: reject.code.clone(),
                reason: reject.reason.clone(),
            };
            all[reject.source as usize].dead = Some(dead);
        }
        let mut start = 0;
        for (row, end) in ran.rows.ends.iter().enumerate() {
            let source = ran.rows.sources[row] as usize;
            let route = &self.routes[ran
                .rows
                .routes
                .get(row)
                .map_or(0, |route| usize::from(*route))];
            let cells = &ran.rows.cells[start..*end as usize];
            start = *end as usize;
            all[source].rows.push(RowSeen {
                route: route.name.to_owned(),
                delete: ran.rows.ops.get(row).is_some_and(|op| *op == 1),
                columns: test_show::row(route.columns, cells, &records[source].origin),
            });
        }
        all
    }

    /// Decodes and runs one record.
    pub(crate) fn take(&mut self, input: usize, mut origin: Origin) -> Seen {
        origin.offset = i64::try_from(self.all.len()).unwrap_or(i64::MAX);
        let seen = match test_decode::fields(&self.inputs[input], &origin) {
            Err(dead) => Seen {
                dead: Some(dead),
                ..Seen::default()
            },
            Ok(cells) => {
                let input = u16::try_from(input).expect("describe has at most 2^16 inputs");
                let stored = Stored {
                    input,
                    cells,
                    origin,
                };
                let seen = self.call(&[&stored]).pop().unwrap_or_default();
                if seen.fatal.is_none() {
                    self.stored.push((stored, seen.clone()));
                }
                seen
            }
        };
        self.all.push(seen.clone());
        seen
    }
}

impl<P: Plugin> Drop for Harness<P> {
    fn drop(&mut self) {
        if !self.finished && !std::thread::panicking() {
            self.check();
        }
    }
}

/// A record being written.
#[derive(Debug)]
#[must_use = "a draft does nothing until it is sent"]
pub struct Draft<'h, P: Plugin> {
    harness: &'h mut Harness<P>,
    input: usize,
    origin: Origin,
    plugin: PhantomData<P>,
}

impl<'h, P: Plugin> Draft<'h, P> {
    fn new(harness: &'h mut Harness<P>, input: usize) -> Self {
        let origin = Origin {
            topic: harness.inputs[input].name.to_owned(),
            value: Some(json!({})),
            timestamp: -1,
            ..Origin::default()
        };
        Self {
            harness,
            input,
            origin,
            plugin: PhantomData,
        }
    }

    /// The key.
    pub fn key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.origin.key = Some(key.as_ref().to_vec());
        self
    }

    /// The whole value.
    pub fn value(mut self, value: Value) -> Self {
        self.origin.value = Some(value);
        self
    }

    /// No value: a tombstone.
    pub fn tombstone(mut self) -> Self {
        self.origin.value = None;
        self
    }

    /// A declared field that comes from the value, put where the plugin reads it.
    ///
    /// # Panics
    /// When no field of that name comes from the value.
    pub fn field(mut self, name: &str, value: impl Into<Value>) -> Self {
        let fields = &self.harness.inputs[self.input].fields;
        let from = fields
            .iter()
            .find(|field| field.column.name == name)
            .map(|field| field.from);
        let Some(pointer) = from.and_then(|from| from.strip_prefix("value:")) else {
            panic!(
                "no field {name:?} comes from the value (it comes from {from:?}): use key, header, value"
            );
        };
        let root = self.origin.value.get_or_insert_with(|| json!({}));
        *test_decode::place(root, pointer) = value.into();
        self
    }

    /// A header.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.origin
            .headers
            .push((name.to_owned(), Some(value.as_ref().to_vec())));
        self
    }

    /// Milliseconds since 1970-01-01 UTC.
    pub fn timestamp(mut self, millis: i64) -> Self {
        self.origin.timestamp = millis;
        self
    }

    /// The partition (0 otherwise). Offsets count records.
    pub fn partition(mut self, partition: u32) -> Self {
        self.origin.partition = partition;
        self
    }

    /// Runs it.
    pub fn send(self) -> Seen {
        self.harness.take(self.input, self.origin)
    }
}
