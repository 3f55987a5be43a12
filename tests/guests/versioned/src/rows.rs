//! What the versions of `versioned` have in common, this one and those of the guests beside it: the record and the row.

use wasmill_sdk::prelude::*;

#[derive(Fields)]
pub(crate) struct Entry<'a> {
    #[field(from = "key")]
    pub(crate) id: &'a str,
    pub(crate) seq: i64,
    pub(crate) text: &'a str,
    #[field(from = "partition")]
    pub(crate) partition: i32,
    #[field(from = "offset")]
    pub(crate) offset: i64,
}

/// A row of the log, and a copy in Cassandra.
#[derive(Row)]
pub(crate) struct Seen<'a> {
    #[row(key)]
    pub(crate) id: &'a str,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) version: &'a str,
    pub(crate) hash: i64,
}

impl<'a> Seen<'a> {
    /// The row of a record: one in five has one. Every record's bytes are hashed, for the work.
    pub(crate) fn of(rec: &Entry<'a>, version: &'a str) -> Option<Self> {
        let hash = hash(rec.id, rec.seq, rec.text);
        (rec.offset % 5 == 0).then_some(Self {
            id: rec.id,
            partition: rec.partition,
            offset: rec.offset,
            version,
            hash,
        })
    }
}

/// FNV-1a of the record's key, number and text: <http://www.isthe.com/chongo/tech/comp/fnv/>.
fn hash(id: &str, seq: i64, text: &str) -> i64 {
    let parts = [id.as_bytes(), &seq.to_be_bytes(), text.as_bytes()];
    let bytes = parts.into_iter().flatten();
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.cast_signed()
}
