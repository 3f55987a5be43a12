//! An order-independent hash of a table: every row as one canonical line, the first eight bytes of the line's
//! SHA-256 as a number, summed modulo 2⁶⁴. The same lines can be made by SQL, from Cassandra and by Python.

use sha2::{Digest as _, Sha256};

/// Count and hash of a set of lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableHash {
    /// Rows.
    pub rows: u64,
    /// Sum of the lines' hashes modulo 2⁶⁴.
    pub sum: u64,
}

impl TableHash {
    /// Adds a line.
    pub fn add(&mut self, line: &str) {
        let digest = Sha256::digest(line.as_bytes());
        let first: [u8; 8] = digest[..8].try_into().expect("a digest has 32 bytes");
        self.rows += 1;
        self.sum = self.sum.wrapping_add(u64::from_be_bytes(first));
    }

    /// Of all lines of an iterator.
    pub fn of<S: AsRef<str>>(lines: impl IntoIterator<Item = S>) -> Self {
        let mut hash = Self::default();
        lines.into_iter().for_each(|line| hash.add(line.as_ref()));
        hash
    }
}

/// SQL that returns rows and hash (as text) of the lines that `line`, an SQL expression over `table`, makes.
pub fn sql(line: &str, table: &str) -> String {
    let number = format!(
        "('x' || encode(substr(sha256(convert_to({line}, 'UTF8')), 1, 8), 'hex'))::bit(64)::int8"
    );
    let modulus = "18446744073709551616";
    format!(
        "SELECT count(*), mod(mod(coalesce(sum({number}::numeric), 0), {modulus}) + {modulus}, {modulus})::text FROM {table}"
    )
}

impl std::fmt::Display for TableHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} rows {:016x}", self.rows, self.sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_and_everything_else_does() {
        let hash = TableHash::of(["a|1", "b|2", "c|3"]);
        assert_eq!(hash, TableHash::of(["c|3", "a|1", "b|2"]));
        let others = [
            TableHash::of(["a|1", "b|2"]),
            TableHash::of(["a|1", "b|2", "c|3", "c|3"]),
            TableHash::of(["a|1", "b|2", "c|4"]),
            TableHash::of(["a|1", "a|1", "c|3"]),
        ];
        assert!(others.iter().all(|other| *other != hash));
    }

    #[test]
    fn the_sum_is_the_one_that_python_makes() {
        // python3 -c 'import hashlib; print(int.from_bytes(hashlib.sha256(b"a|1").digest()[:8], "big"))'
        let digest = TableHash::of(["a|1"]);
        assert_eq!(
            digest,
            TableHash {
                rows: 1,
                sum: 16_088_270_529_115_459_560
            }
        );
    }
}
