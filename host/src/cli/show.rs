//! How the API's answers look to a person: tables, counts, sizes, times. Pure: values in, text out.

use comfy_table::{CellAlignment, Table, presets};

/// A table with plain lines; columns named in `right` are numbers.
pub(super) fn table<const N: usize>(
    header: [&str; N],
    right: &[&str],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    // Never wrapped to a terminal's width: what is shown is the same in a pipe.
    table.force_no_tty();
    table.set_header(header);
    for (index, name) in header.iter().enumerate() {
        if right.contains(name)
            && let Some(column) = table.column_mut(index)
        {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for row in rows {
        table.add_row(row);
    }
    let drawn = table.to_string();
    let lines: Vec<_> = drawn.lines().map(str::trim_end).collect();
    lines.join("\n")
}

/// A count with separators between thousands.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// How many of something: `1 record`, `2,000 records`, `0 retries`.
pub(super) fn number_of(number: u64, one: &str) -> String {
    let number = count(number);
    match (number.as_str(), one.strip_suffix('y')) {
        ("1", _) => format!("1 {one}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        (_, None) => format!("{number} {one}s"),
    }
}

/// Bytes in the unit that leaves up to four digits.
pub(super) fn size(bytes: u64) -> String {
    let units = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    for (unit, factor) in units {
        if bytes >= factor {
            // Tenths, rounded down, without floating point.
            let tenths = u128::from(bytes) * 10 / u128::from(factor);
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}

/// A rate: whole numbers from 100 a second on, one decimal below.
pub(super) fn rate(per_second: f64) -> String {
    if per_second >= 100.0 {
        format!("{per_second:.0}")
    } else {
        format!("{per_second:.1}")
    }
}

/// A value that may be missing.
pub(super) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| value.to_string())
}

/// A list of texts, or a dash.
pub(super) fn list(texts: &[String]) -> String {
    if texts.is_empty() {
        "–".to_owned()
    } else {
        texts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_a_person_reads_them() {
        assert_eq!(
            [count(0), count(999), count(1000), count(12_345_678)].join(" "),
            "0 999 1,000 12,345,678"
        );
        assert_eq!(
            [size(1023), size(1024), size(1_600_000), size(u64::MAX)].join(" | "),
            "1023 B | 1.0 KiB | 1.5 MiB | 17179869183.9 GiB"
        );
        assert_eq!(
            [rate(0.0), rate(99.94), rate(1234.5)].join(" "),
            "0.0 99.9 1234"
        );
        assert_eq!(
            [0, 1, 2000].map(|number| number_of(number, "dead letter")),
            ["0 dead letters", "1 dead letter", "2,000 dead letters"]
        );
        assert_eq!(
            [0, 1].map(|number| number_of(number, "retry")),
            ["0 retries", "1 retry"]
        );
        assert_eq!(or_dash(None::<u8>), "–");
        assert_eq!(or_dash(Some(3)), "3");
    }

    #[test]
    fn a_table_is_the_same_everywhere() {
        let drawn = table(
            ["name", "n"],
            &["n"],
            [
                ["a".to_owned(), "5".to_owned()],
                ["long name".to_owned(), "12".to_owned()],
            ],
        );
        let lines: Vec<_> = drawn.lines().collect();
        assert!(lines.iter().any(|line| line.ends_with("  5")), "{drawn}");
        assert!(lines.iter().all(|line| *line == line.trim_end()), "{drawn}");
    }
}
