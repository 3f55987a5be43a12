//! The two workers of a model, by number: each may think that it owns the partition, and each may be dead.

use std::ops::{Index, IndexMut};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Workers<W>([Option<W>; 2]);

impl<W: Copy> Workers<W> {
    pub(super) fn new(first: Option<W>, second: Option<W>) -> Self {
        Self([first, second])
    }

    /// None is alive yet.
    pub(super) fn none() -> Self {
        Self([None; 2])
    }

    /// None where it is dead, or where nobody is meant.
    pub(super) fn get(&self, worker: u8) -> Option<W> {
        self.0.get(usize::from(worker)).copied().flatten()
    }

    /// One that is alive.
    pub(super) fn live(&mut self, worker: u8) -> &mut W {
        self[worker].as_mut().expect("only live workers act")
    }

    /// Those that are alive.
    pub(super) fn iter(&self) -> impl Iterator<Item = &W> {
        self.0.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut W> {
        self.0.iter_mut().flatten()
    }
}

impl<W> Index<u8> for Workers<W> {
    type Output = Option<W>;

    fn index(&self, worker: u8) -> &Option<W> {
        &self.0[usize::from(worker)]
    }
}

impl<W> IndexMut<u8> for Workers<W> {
    fn index_mut(&mut self, worker: u8) -> &mut Option<W> {
        &mut self.0[usize::from(worker)]
    }
}
