//! Requests on their way: a set, so that nothing depends on the order they were sent in.

/// Whose request it is once its sender died or gave up: it may still arrive, or never.
pub(super) const NOBODY: u8 = u8::MAX;

/// A request knows its sender.
pub(super) trait Sent: Copy + Ord {
    fn who(&mut self) -> &mut u8;
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Wire<M>(Vec<M>);

impl<M: Sent> Wire<M> {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn send(&mut self, message: M) {
        if let Err(at) = self.0.binary_search(&message) {
            self.0.insert(at, message);
        }
    }

    pub(super) fn remove(&mut self, at: usize) -> M {
        self.0.remove(at)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = M> + '_ {
        self.0.iter().copied()
    }

    /// Whether somebody has something on its way.
    pub(super) fn has(&self, who: u8) -> bool {
        self.iter().any(|mut message| *message.who() == who)
    }

    pub(super) fn rewrite(&mut self, change: impl FnMut(&mut M)) {
        self.0.iter_mut().for_each(change);
        self.0.sort_unstable();
        self.0.dedup();
    }

    /// What a sender has on its way never arrives, where `of` says so.
    pub(super) fn drop_of(&mut self, who: u8, of: impl Fn(&M) -> bool) {
        self.0
            .retain_mut(|message| *message.who() != who || !of(message));
    }

    /// What a sender has on its way is nobody's any more.
    pub(super) fn orphan(&mut self, who: u8) {
        self.orphan_of(who, |_| true);
    }

    /// The same, where `of` says so.
    pub(super) fn orphan_of(&mut self, who: u8, of: impl Fn(&M) -> bool) {
        self.rewrite(|message| {
            if *message.who() == who && of(message) {
                *message.who() = NOBODY;
            }
        });
    }
}
