//! Breadth-first search through all states of a model: what is found first has a shortest trace.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// What leads to a state: a name, who, and up to two numbers.
pub(crate) type Label = (&'static str, u8, i8, i8);

/// What kind of step leads to a state. What must always be within reach is so by [`Kind::Normal`] steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Normal,
    Fault,
    /// New input.
    Input,
}

/// One variant of a protocol.
pub(crate) trait Model {
    type State: Clone + Debug + Eq + Hash;
    /// What must never be.
    type Bad: Copy + Debug + PartialEq;
    /// What must always be within reach.
    type Goal: Copy + Debug + PartialEq;

    fn start(&self) -> Self::State;
    fn successors(&self, state: &Self::State, to: &mut Vec<(Label, Self::State, Kind)>);
    fn bad(&self, state: &Self::State) -> Option<Self::Bad>;
    fn reached(&self, goal: Self::Goal, state: &Self::State) -> bool;
}

/// What the search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict<B, G> {
    Safe,
    Violated(B),
    Stuck(G),
}

/// Explores a variant; its verdict and the number of steps of a shortest trace to what is wrong.
pub(crate) fn explore<M: Model>(
    name: &str,
    model: &M,
    goals: &[M::Goal],
) -> (Verdict<M::Bad, M::Goal>, usize) {
    let mut ids: HashMap<M::State, usize, BuildHasherDefault<Mix>> = HashMap::default();
    ids.insert(model.start(), 0);
    let mut states = vec![model.start()];
    let mut parents: Vec<(usize, Label)> = vec![(0, ("start", 0, 0, 0))];
    let mut edges: Vec<(usize, usize)> = Vec::new();
    let mut found = Vec::new();
    let mut at = 0;
    let mut end = (Verdict::Safe, 0);
    while at < states.len() {
        if let Some(bad) = model.bad(&states[at]) {
            end = (Verdict::Violated(bad), at);
            break;
        }
        model.successors(&states[at], &mut found);
        for (label, next, kind) in found.drain(..) {
            let id = *ids.entry(next).or_insert_with_key(|next| {
                states.push(next.clone());
                parents.push((at, label));
                states.len() - 1
            });
            if kind == Kind::Normal && !goals.is_empty() {
                edges.push((at, id));
            }
        }
        at += 1;
    }
    if end.0 == Verdict::Safe {
        for goal in goals {
            if let Some(stuck) = never(model, *goal, &states, &edges) {
                end = (Verdict::Stuck(*goal), stuck);
                break;
            }
        }
    }
    let mut trace = Vec::new();
    let mut at = end.1;
    while at > 0 {
        trace.push(parents[at].1);
        at = parents[at].0;
    }
    trace.reverse();
    eprintln!("{name}: {} states, {:?}, {trace:?}", states.len(), end.0);
    (end.0, trace.len())
}

/// The first state from which no wanted state can be reached.
fn never<M: Model>(
    model: &M,
    goal: M::Goal,
    states: &[M::State],
    edges: &[(usize, usize)],
) -> Option<usize> {
    let mut back = vec![Vec::new(); states.len()];
    for (from, to) in edges {
        back[*to].push(*from);
    }
    let wanted = |at: &usize| model.reached(goal, &states[*at]);
    let mut todo: Vec<usize> = (0..states.len()).filter(wanted).collect();
    let mut reaches = vec![false; states.len()];
    for at in &todo {
        reaches[*at] = true;
    }
    while let Some(at) = todo.pop() {
        for from in &back[at] {
            if !std::mem::replace(&mut reaches[*from], true) {
                todo.push(*from);
            }
        }
    }
    reaches.iter().position(|reaches| !reaches)
}

/// A fast hash: nobody attacks a model, and hashing is most of the search.
#[derive(Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64((*byte).into());
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn finish(&self) -> u64 {
        // The map takes the group from the low bits.
        self.0 ^ (self.0 >> 32)
    }
}
