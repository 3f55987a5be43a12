//! What has to be in every sink, computed from the input alone, and compared with what is there: the invariants of a
//! pipeline of the guest `witness`. Pure: it is given what was read, and never reads anything itself.
//!
//! ```text
//! input     Input: the n-th record of a partition, and its fate (emitted, filtered, dead)
//! live      Live: one consistent snapshot after the other, from the last checked offset on
//! fold      Fold: the last row of every key
//! messages  Messages: a topic written at least once
//! fault     Fault: what does not hold, by kind
//! ```
//!
//! | | invariant | held by |
//! |---|---|---|
//! | I1 | nothing is lost | `Live` over the whole table, `Messages` |
//! | I2 | nothing is doubled | `Live` |
//! | I3 | rows of a partition, and of a key, come in order | `Live`, `Messages` |
//! | I4 | in every snapshot rows, dead letters, ledger and the fold agree with the position | `Live` |
//! | I5 | an upserted table is the fold of its input, without ghosts | `Fold` |
//! | I7 | a record is emitted, filtered or dead, and never two of them | `Live` |

mod fault;
mod fold;
mod input;
mod live;
#[cfg(test)]
mod live_tests;
mod messages;

pub use fault::{Fault, Faults, Kind};
pub use fold::{Fold, Last};
pub use input::{Emitted, Fate, Input, crc32};
pub use live::{Letter, Live, Position, Row, Snapshot};
pub use messages::{Messages, Said};
