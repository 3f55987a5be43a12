//! Epochs of a model that counts them up: renumbered, so that its states have an end.

/// Numbers those that somebody may still use from 1 on: nothing but their order matters. One that is out of use falls
/// on the next above it.
pub(super) fn ranks(mut alive: Vec<u8>) -> impl Fn(u8) -> u8 {
    alive.sort_unstable();
    alive.dedup();
    move |epoch| {
        let below = alive.partition_point(|known| *known < epoch);
        u8::try_from(below).expect("few epochs are alive") + 1
    }
}
