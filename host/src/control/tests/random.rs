//! Random writers, cleaners and readers: every follower, whenever it starts and whatever compaction has left, ends
//! with the same state, and each accepted chain has no gap.

use proptest::prelude::*;

use super::*;

/// One step of the world.
#[derive(Clone, Debug)]
enum Step {
    /// A writer reads on, so many records at most.
    Read { writer: usize, records: usize },
    /// A writer deploys at the revision it believes is next.
    Deploy { writer: usize, pipeline: usize },
    /// A writer uploads one of two contents under one of two versions.
    Upload {
        writer: usize,
        version: usize,
        content: usize,
    },
    /// A writer notes a segment.
    Segment {
        writer: usize,
        partition: i32,
        at: i64,
        release: u64,
    },
    /// A writer notes what its config file says.
    Note { writer: usize, release: u64 },
    /// A writer removes its own records that it has seen lose.
    Withdraw { writer: usize },
    /// A writer removes what says nothing any more, or begins to and dies after so many.
    Tidy { writer: usize, dies_after: usize },
}

const WRITERS: usize = 3;
const PIPELINES: [&str; 2] = ["orders", "returns"];

fn step() -> impl Strategy<Value = Step> {
    let writer = 0..WRITERS;
    prop_oneof![
        4 => (writer.clone(), 0_usize..20).prop_map(|(writer, records)| Step::Read { writer, records }),
        6 => (writer.clone(), 0..PIPELINES.len()).prop_map(|(writer, pipeline)| Step::Deploy { writer, pipeline }),
        1 => (writer.clone(), 0_usize..2, 0_usize..2)
            .prop_map(|(writer, version, content)| Step::Upload { writer, version, content }),
        1 => (writer.clone(), 0..2, 0_i64..5, 0_u64..3)
            .prop_map(|(writer, partition, at, release)| Step::Segment { writer, partition, at, release }),
        1 => (writer.clone(), 0_u64..3).prop_map(|(writer, release)| Step::Note { writer, release }),
        2 => writer.clone().prop_map(|writer| Step::Withdraw { writer }),
        1 => (writer, 0_usize..12).prop_map(|(writer, dies_after)| Step::Tidy { writer, dies_after }),
    ]
}

#[derive(Default)]
struct Writer {
    state: State,
    read: usize,
    /// Keys of its own records that have not been seen to win or lose.
    open: Vec<String>,
    lost: Vec<String>,
}

impl Writer {
    fn read(&mut self, paper: &Paper, records: usize) {
        for (offset, (key, value)) in paper.0.iter().skip(self.read).take(records) {
            let applied = self.state.apply(*offset, key, value.as_deref());
            self.read += 1;
            let text = String::from_utf8(key.clone()).unwrap();
            if value.is_some() && self.open.contains(&text) {
                self.open.retain(|open| *open != text);
                if matches!(applied, Applied::Rejected { .. }) {
                    self.lost.push(text);
                }
            }
        }
    }

    fn write(&mut self, paper: &mut Paper, change: Change) {
        // As `Control::submit` does: what must lose is not written.
        let entry = entry(change);
        if self.state.judge(&entry.change, entry.id) == Applied::Accepted {
            self.open.push(entry.key());
            paper.push(super::write(&entry));
        }
    }
}

/// A long history that lies before the steps, so that age matters.
fn before(revisions: u64) -> Paper {
    let mut paper = Paper::default();
    for revision in 1..=revisions {
        paper.push(write(&entry(deploy("orders", revision, revision))));
    }
    paper
}

fn run(mut paper: Paper, steps: Vec<Step>) -> Paper {
    let mut writers: Vec<Writer> = (0..WRITERS).map(|_| Writer::default()).collect();
    for writer in &mut writers {
        writer.read(&paper, usize::MAX);
    }
    for (number, step) in (0..).zip(steps) {
        match step {
            Step::Read { writer, records } => writers[writer].read(&paper, records),
            Step::Deploy { writer, pipeline } => {
                let writer = &mut writers[writer];
                let last = writer
                    .state
                    .pipeline(PIPELINES[pipeline])
                    .map_or(0, |last| last.revision);
                writer.write(&mut paper, deploy(PIPELINES[pipeline], last + 1, number));
            }
            Step::Upload {
                writer,
                version: of,
                content,
            } => {
                let change = version("clean", ["1.0.0", "2.0.0"][of], [b"a", b"b"][content]);
                writers[writer].write(&mut paper, change);
            }
            Step::Segment {
                writer,
                partition,
                at,
                release: of,
            } => {
                let (pipeline, release) = ("orders".to_owned(), release(of).id);
                writers[writer].write(
                    &mut paper,
                    Change::Segment {
                        pipeline,
                        partition,
                        at,
                        release,
                    },
                );
            }
            Step::Note {
                writer,
                release: of,
            } => {
                let change = Change::Published {
                    pipeline: "orders".to_owned(),
                    host: format!("h{writer}"),
                    hash: release(of).id,
                    revision: number,
                };
                writers[writer].write(&mut paper, change);
            }
            Step::Withdraw { writer } => {
                for key in std::mem::take(&mut writers[writer].lost) {
                    paper.push((key.into_bytes(), None));
                }
            }
            Step::Tidy { writer, dies_after } => {
                for key in writers[writer]
                    .state
                    .removable()
                    .into_iter()
                    .take(dies_after)
                {
                    paper.push((key.into_bytes(), None));
                }
            }
        }
    }
    paper
}

fn check(paper: &Paper, cleaned: &[usize]) -> Result<(), TestCaseError> {
    let whole = paper.state();
    prop_assert_eq!(whole.garbage().records, 0);
    for pipeline in PIPELINES {
        let chain: Vec<u64> = whole
            .history(pipeline)
            .iter()
            .map(|found| found.revision)
            .collect();
        prop_assert!(
            chain.windows(2).all(|pair| pair[1] == pair[0] + 1),
            "{:?}",
            chain
        );
    }
    let mut compacted = paper.clone();
    for end in cleaned {
        // Each time the cleaner gets a little further, over what it left the last time.
        compacted = compacted.compacted(*end % (compacted.0.len() + 1));
        prop_assert_eq!(seen(&compacted.state()), seen(&whole));
    }
    let all = compacted.compacted(usize::MAX);
    prop_assert_eq!(seen(&all.state()), seen(&whole));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_follower_ends_with_the_same_state(
        steps in prop::collection::vec(step(), 0..120),
        cleaned in prop::collection::vec(any::<usize>(), 0..4),
    ) {
        check(&run(Paper::default(), steps), &cleaned)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn age_makes_no_difference(
        steps in prop::collection::vec(step(), 60..200),
        cleaned in prop::collection::vec(any::<usize>(), 0..3),
    ) {
        check(&run(before(KEPT_REVISIONS as u64 - 3), steps), &cleaned)?;
    }
}
