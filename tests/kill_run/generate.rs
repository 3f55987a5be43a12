//! The input of a kill run: flights made from the shipped sample, written to a file that the independent
//! computation reads, and produced from that file.
//!
//! A line is `partition TAB key TAB value`. The n-th line of a partition becomes its offset n: the partition is
//! chosen here, one producer writes, and it keeps the order.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;
use std::sync::mpsc::Receiver;

use wasmill_tests::artifact::repository;
use wasmill_tests::dice::Dice;
use wasmill_tests::records::{Feed, Made};

/// Partitions of the topic.
pub(crate) const PARTITIONS: usize = 4;

/// One record in this many publishes a flight of the same partition again, with another delay.
const UPDATE: u64 = 20;

/// One record in this many has a date that does not exist.
const BAD: u64 = 5_000;

/// How far from its place in the sample's order a flight may be taken: real topics are nearly sorted by time.
const JITTER: u64 = 300;

/// How many flights of a partition an update chooses from.
const RECENT: usize = 4_000;

/// Writes `records` lines.
pub(crate) fn write(file: &Path, records: u64, dice: &mut Dice) -> anyhow::Result<()> {
    let sample = std::fs::read_to_string(repository().join("plugins/flights/data/flights.ndjson"))?;
    let sample: Vec<&str> = sample.lines().collect();
    let length = sample.len() as u64;
    let mut out = BufWriter::new(File::create(file)?);
    let mut recent: Vec<Vec<(u64, usize)>> = vec![Vec::new(); PARTITIONS];
    for index in 0..records {
        let partition = usize::try_from(index)? % PARTITIONS;
        let near = (index * length / records + dice.below(JITTER)) % length;
        let (mut id, mut line) = (index, usize::try_from(near)?);
        let known = &mut recent[partition];
        if dice.below(UPDATE) == 0 && !known.is_empty() {
            (id, line) = known[usize::try_from(dice.below(known.len() as u64))?];
        } else if known.len() < RECENT {
            known.push((id, line));
        } else {
            known[usize::try_from(dice.below(RECENT as u64))?] = (id, line);
        }
        let (before, delay, after) = cut_delay(sample[line]);
        let delay = if id == index {
            delay
        } else {
            i64::try_from(dice.below(2_000))? - 500
        };
        let value = format!("{before}{delay}{after}");
        let value = if dice.below(BAD) == 0 {
            value.replacen("/0", "/9", 1)
        } else {
            value
        };
        writeln!(out, "{partition}\tf-{id}\t{value}")?;
    }
    out.flush()?;
    Ok(())
}

/// The text before the delay, the delay, and the text after it.
fn cut_delay(line: &str) -> (&str, i64, &str) {
    let start = line
        .find("\"delay\":")
        .expect("every sample line has a delay")
        + "\"delay\":".len();
    let end = start
        + line[start..]
            .find(',')
            .expect("delay is not the last field");
    (
        &line[..start],
        line[start..end].parse().expect("delay is an integer"),
        &line[end..],
    )
}

/// Records that are held back until the sender of `until` is dropped.
pub(crate) struct Rest {
    pub(crate) from: usize,
    pub(crate) until: Receiver<()>,
}

/// Produces the file's lines; returns how many were stored.
pub(crate) fn produce(file: &Path, feed: &Feed, topic: &str, rest: Rest) -> anyhow::Result<usize> {
    for (index, line) in BufReader::new(File::open(file)?).lines().enumerate() {
        if index == rest.from {
            rest.until.recv().ok(); // nothing is ever sent
        }
        let line = line?;
        let mut parts = line.splitn(3, '\t');
        let mut part = || parts.next().expect("three parts a line");
        let partition: i32 = part().parse()?;
        let made = Made::new(part(), part()).on(partition);
        feed.enqueue(topic, &made, index);
    }
    Ok(feed.settle())
}
