//! [`TextTable`]: rows as text, for people; what adapters answer when somebody looks.

/// Columns and rows as text; null is shown as `∅`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextTable {
    /// Column names.
    pub columns: Vec<String>,
    /// Rows, one text a column.
    pub rows: Vec<Vec<String>>,
}

impl TextTable {
    /// The number in the first row's first column, 0 where there is none: the answer to a count.
    #[must_use]
    pub fn first_number(&self) -> u64 {
        self.rows
            .first()
            .and_then(|row| row.first())
            .and_then(|text| text.parse().ok())
            .unwrap_or(0)
    }
}
