//! The pipeline against fakes: lanes and supervisor with an anchor, a sink, a plugin and a source that fail as
//! they are told, and a checker of what is left in the end.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod behind;
mod careful;
mod duels;
mod fakes;
mod group;
mod guest;
mod handovers;
mod killed;
mod lanes;
mod mutation;
mod plans;
mod process;
mod quarantine;
mod random;
mod reservations;
mod retries;
mod scene;
mod seeds;
mod served;
mod shadow;
mod stand;
mod starts;
mod supervised;
mod swaps;
mod trial;
mod upgrades;
mod wanted;
mod watched;
mod whole;
mod witness;
mod world;

/// The pipeline of the tests with its positions there.
pub(in crate::pipeline) fn plan_with(anchor: super::AnchorPlan) -> super::Plan {
    super::Plan {
        anchor,
        ..world::plan(world::Sinks::Both)
    }
}
