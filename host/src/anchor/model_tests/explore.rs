//! Breadth-first search through all states of a variant: what is found first has a shortest trace.

use std::collections::HashMap;

use super::protocol::{Bad, Goal, Label, Model, NORMAL, Rules, State};

/// What the search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Safe,
    Violated(Bad),
    Stuck(Goal),
}

/// Explores a variant; its verdict and the number of steps of a shortest trace to what is wrong.
pub(super) fn explore(name: &str, rules: Rules, goals: &[Goal]) -> (Verdict, usize) {
    let model = Model::new(rules);
    let mut ids = HashMap::from([(Model::start(), 0_usize)]);
    let mut states = vec![Model::start()];
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
            if kind == NORMAL && !goals.is_empty() {
                edges.push((at, id));
            }
        }
        at += 1;
    }
    if end.0 == Verdict::Safe {
        for goal in goals {
            if let Some(stuck) = never(&model, *goal, &states, &edges) {
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
fn never(model: &Model, goal: Goal, states: &[State], edges: &[(usize, usize)]) -> Option<usize> {
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
