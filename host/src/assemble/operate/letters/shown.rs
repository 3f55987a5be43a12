//! Letters and what came of them in the words of the API. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::page::asked;
use crate::admin::types::{
    DeadHeader, DeadLetter, DeadLetterQuery, DeadRecord, RetryOutcome, RetryReport, RetryResult,
};
use crate::anchor::{Coordinates, Letter, Part};
use crate::error::Result;
use crate::pipeline::Retried;
use crate::record::Record;
use crate::record::cells::{Cell, Reader};

/// Bytes of a key that are shown in a list.
pub(super) const SHOWN: u32 = 64;

/// A letter without its record.
pub(super) fn letter(topic: &str, letter: &Letter) -> DeadLetter {
    let size = |part: &Part| match part {
        Part::Bytes { size, .. } => Some(*size),
        Part::Null | Part::LeftOut => None,
    };
    let at = |micros: i64| jiff::Timestamp::from_microsecond(micros).ok();
    let time = |micros: Option<i64>| Some(at(micros?)?.to_string());
    let first = usize::try_from(SHOWN).unwrap_or_default();
    let key = letter.key.bytes().map(|key| &key[..key.len().min(first)]);
    DeadLetter {
        topic: topic.to_owned(),
        partition: letter.at.partition,
        offset: letter.at.offset,
        index: letter.at.index,
        class: letter.class.clone(),
        code: letter.code.clone(),
        reason: letter.reason.clone(),
        plugin: letter.plugin.clone(),
        digest: letter.digest.clone(),
        at: time(letter.set_aside),
        tried_at: time(letter.tried),
        timestamp_ms: (letter.timestamp >= 0).then_some(letter.timestamp),
        key: key.map(|key| String::from_utf8_lossy(key).into_owned()),
        value_bytes: size(&letter.value),
        truncated: letter.cut,
        record: None,
    }
}

/// What a letter kept of its record, and why there is no more.
pub(super) fn missing(letter: &Letter, why: String) -> DeadRecord {
    DeadRecord {
        key: letter.key.bytes().map(|bytes| STANDARD.encode(bytes)),
        value: letter.value.bytes().map(|bytes| STANDARD.encode(bytes)),
        headers: headers(letter.headers.as_deref().unwrap_or_default()),
        from: "letter".to_owned(),
        missing: Some(why),
    }
}

pub(super) fn bytes(record: Record<'_>, from: &str) -> DeadRecord {
    DeadRecord {
        key: record.key.map(|bytes| STANDARD.encode(bytes)),
        value: record.value.map(|bytes| STANDARD.encode(bytes)),
        headers: headers(record.headers),
        from: from.to_owned(),
        missing: None,
    }
}

/// The headers of a cell value: a count, then names and values.
fn headers(cell: &[u8]) -> Vec<DeadHeader> {
    let mut reader = Reader::new(cell.get(4..).unwrap_or_default());
    let mut found = Vec::new();
    while !reader.is_empty() {
        let (Ok(Cell::Value(name)), Ok(value)) = (reader.cell(), reader.cell()) else {
            break;
        };
        found.push(DeadHeader {
            name: String::from_utf8_lossy(name).into_owned(),
            value: match value {
                Cell::Value(value) => Some(STANDARD.encode(value)),
                _ => None,
            },
        });
    }
    found
}

/// What came of one retry.
pub(super) fn result(at: Coordinates, retried: Result<Retried>) -> RetryResult {
    let mut result = RetryResult {
        partition: at.partition,
        offset: at.offset,
        index: at.index,
        outcome: RetryOutcome::Refused,
        rows: 0,
        code: None,
        reason: None,
    };
    match retried {
        Ok(Retried::Emitted(rows)) => {
            result.outcome = RetryOutcome::Emitted;
            result.rows = rows;
        }
        Ok(Retried::Filtered) => result.outcome = RetryOutcome::Filtered,
        Ok(Retried::Dead(dead)) => {
            result.outcome = RetryOutcome::Dead;
            result.code = Some(dead.code.into_owned());
            result.reason = Some(dead.reason);
        }
        Ok(Retried::Gone(why)) => {
            result.outcome = RetryOutcome::Gone;
            result.reason = why.map(str::to_owned);
        }
        Ok(Retried::Refused(error)) | Err(error) => {
            let hint = error.hint_text().map(|hint| format!("; {hint}"));
            result.reason = Some(format!("{}{}", error.detail(), hint.unwrap_or_default()));
        }
    }
    result
}

/// What came of a page of retries, for the audit trail.
pub(super) fn summary(report: &RetryReport, query: &DeadLetterQuery) -> String {
    let count = |outcome| {
        let results = report.results.iter();
        results.filter(|one| one.outcome == outcome).count()
    };
    format!(
        "{} emitted, {} filtered, {} still dead, {} gone, {} refused, through {}: {}",
        count(RetryOutcome::Emitted),
        count(RetryOutcome::Filtered),
        count(RetryOutcome::Dead),
        count(RetryOutcome::Gone),
        count(RetryOutcome::Refused),
        report.plugin,
        asked(query)
    )
}
