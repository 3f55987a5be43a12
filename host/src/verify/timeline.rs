//! [`Timeline`]: which release made which offsets of a partition.
//!
//! The anchor's cuts decide, as far back as they are kept; before the first of them the history of the control log says
//! what began where. Below both nobody knows. Pure.

use std::ops::Range;

use crate::anchor::{Cut, cuts};

/// Offsets that one release made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Half-open.
    pub offsets: Range<i64>,
    /// Id of the release.
    pub release: String,
}

/// What is known of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeline {
    /// Without a gap, ascending; empty where nothing is known.
    pub spans: Vec<Span>,
}

impl Timeline {
    /// The releases of `[0, to)`. `cuts` are the anchor's, `began` what the history says: first offsets and release ids.
    #[must_use]
    pub fn new(list: &[Cut], began: &[(i64, String)], to: i64) -> Self {
        let mut edges: Vec<i64> = began
            .iter()
            .map(|(at, _)| *at)
            .chain(list.iter().map(|cut| cut.at))
            .filter(|at| *at < to)
            .collect();
        edges.sort_unstable();
        edges.dedup();
        let release = |at: i64| {
            let told = began.iter().filter(|(from, _)| *from <= at);
            let told = told.max_by_key(|(from, _)| *from);
            cuts::release_at(list, at).or(told.map(|(_, release)| release.as_str()))
        };
        let mut spans: Vec<Span> = Vec::new();
        for (index, from) in edges.iter().enumerate() {
            let end = edges.get(index + 1).copied().unwrap_or(to);
            let Some(release) = release(*from) else {
                continue;
            };
            match spans.last_mut() {
                Some(last) if last.release == release => last.offsets.end = end,
                _ => spans.push(Span {
                    offsets: *from..end,
                    release: release.to_owned(),
                }),
            }
        }
        Self { spans }
    }

    /// Only what lies above the last span whose release is not there; the release, where there is one.
    #[must_use]
    pub fn without(mut self, is_there: impl Fn(&str) -> bool) -> (Self, Option<Span>) {
        let missing = self.spans.iter().rposition(|span| !is_there(&span.release));
        let missing = missing.map(|at| {
            let rest = self.spans.split_off(at + 1);
            std::mem::replace(&mut self.spans, rest).pop()
        });
        (self, missing.flatten())
    }

    /// Cut to `[from, to)`.
    #[must_use]
    pub fn within(mut self, range: &Range<i64>) -> Self {
        for span in &mut self.spans {
            span.offsets.start = span.offsets.start.max(range.start);
            span.offsets.end = span.offsets.end.min(range.end);
        }
        self.spans.retain(|span| !span.offsets.is_empty());
        self
    }

    /// The first offset that is known.
    #[must_use]
    pub fn from(&self) -> Option<i64> {
        self.spans.first().map(|span| span.offsets.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(list: &[(i64, &str)], began: &[(i64, &str)], to: i64) -> Vec<(i64, i64, String)> {
        let cuts: Vec<Cut> = list.iter().map(|(at, id)| Cut::new(*at, *id)).collect();
        let began: Vec<_> = began
            .iter()
            .map(|(at, id)| (*at, (*id).to_owned()))
            .collect();
        let timeline = Timeline::new(&cuts, &began, to);
        let spans = timeline.spans.into_iter();
        spans
            .map(|span| (span.offsets.start, span.offsets.end, span.release))
            .collect()
    }

    fn span(from: i64, to: i64, release: &str) -> (i64, i64, String) {
        (from, to, release.to_owned())
    }

    #[test]
    fn cuts_decide_and_the_history_says_what_they_forgot() {
        assert_eq!(spans(&[(5, "a")], &[], 9), [span(5, 9, "a")]);
        assert_eq!(
            spans(
                &[(50, "c")],
                &[(0, "a"), (20, "b"), (30, "b"), (50, "c")],
                70
            ),
            [span(0, 20, "a"), span(20, 50, "b"), span(50, 70, "c")]
        );
        // A lane told of its release where its position was, below the cut.
        assert_eq!(
            spans(&[(50, "a"), (60, "b")], &[(0, "a"), (58, "b")], 70),
            [span(0, 60, "a"), span(60, 70, "b")]
        );
        // What waits above the position made nothing yet.
        assert_eq!(spans(&[(0, "a"), (60, "b")], &[], 40), [span(0, 40, "a")]);
        assert_eq!(spans(&[], &[], 40), []);
    }

    #[test]
    fn what_lies_below_a_release_that_is_gone_is_not_known() {
        let cuts = [Cut::new(30, "c")];
        let began = [(0, "a".to_owned()), (10, "b".to_owned())];
        let timeline = Timeline::new(&cuts, &began, 40);
        let (all, none) = timeline.clone().without(|_| true);
        assert_eq!((all.from(), none), (Some(0), None));
        let (rest, missing) = timeline.clone().without(|release| release != "b");
        assert_eq!(rest.from(), Some(30));
        assert_eq!(missing.map(|span| span.offsets), Some(10..30));
        let (nothing, _) = timeline.clone().without(|release| release != "c");
        assert_eq!(nothing.from(), None);
        assert_eq!(timeline.within(&(12..35)).from(), Some(12));
    }
}
