//! Which letters a request means, page by page, in the words of the contract. It changes nothing.

use crate::admin::micros;
use crate::admin::types::DeadLetterQuery;
use crate::anchor::{Coordinates, DeadLetters, Letter, LetterFilter, LetterPage};
use crate::error::Result;

/// Letters counted at once by a dry run.
const COUNTED: u32 = 1000;

/// Letters of a page, and where the next one begins.
pub(super) struct Found {
    pub(super) letters: Vec<Letter>,
    pub(super) next: Option<String>,
}

/// One letter with all of its bytes.
pub(super) async fn whole(letters: &dyn DeadLetters, at: Coordinates) -> Result<Option<Letter>> {
    let page = LetterPage {
        after: None,
        most: 1,
        bytes: u32::MAX,
    };
    Ok(letters.list(&LetterFilter::only(at), page).await?.pop())
}

pub(super) async fn page(
    letters: &dyn DeadLetters,
    query: &DeadLetterQuery,
    limit: u32,
    bytes: u32,
) -> Result<Found> {
    let limit = query.limit.unwrap_or(limit);
    let page = LetterPage {
        after: query.cursor.as_deref().map(after),
        most: limit.saturating_add(1),
        bytes,
    };
    let mut found = letters.list(&filter(query), page).await?;
    let more = found.len() > usize::try_from(limit).unwrap_or(usize::MAX);
    if more {
        found.pop();
    }
    let next = found.last().filter(|_| more).map(|last| cursor(last.at));
    Ok(Found {
        letters: found,
        next,
    })
}

/// How many there are in all, whatever the page.
pub(super) async fn count(letters: &dyn DeadLetters, mut query: DeadLetterQuery) -> Result<u64> {
    query.limit = Some(COUNTED);
    let mut all = 0;
    loop {
        let found = page(letters, &query, COUNTED, 0).await?;
        all += found.letters.len() as u64;
        query.cursor = found.next;
        if query.cursor.is_none() {
            return Ok(all);
        }
    }
}

/// How many come after a page whose last letter is at `next`; `None` where that was not asked.
pub(super) async fn left(
    letters: &dyn DeadLetters,
    query: &DeadLetterQuery,
    next: Option<&str>,
) -> Result<Option<u64>> {
    let after = |next: &str| DeadLetterQuery {
        cursor: Some(next.to_owned()),
        ..query.clone()
    };
    match (query.count, next) {
        (false, _) => Ok(None),
        (true, None) => Ok(Some(0)),
        (true, Some(next)) => Ok(Some(count(letters, after(next)).await?)),
    }
}

fn filter(query: &DeadLetterQuery) -> LetterFilter {
    let time = |text: &Option<String>| micros(text.as_deref()?);
    LetterFilter {
        partition: query.partition,
        from: query.from,
        to: query.to,
        index: query.index,
        class: query.class.clone(),
        code: query.code.clone(),
        plugin: query.plugin.clone(),
        digest: query.digest.clone(),
        since: time(&query.since),
        until: time(&query.until),
    }
}

pub(super) fn cursor(at: Coordinates) -> String {
    format!("{}:{}:{}", at.partition, at.offset, at.index)
}

/// The place a cursor names; one past every letter where a number is too large for one.
fn after(cursor: &str) -> Coordinates {
    let mut parts = cursor.split(':');
    let mut next = || parts.next().unwrap_or_default();
    Coordinates {
        partition: next().parse().unwrap_or(i32::MAX),
        offset: next().parse().unwrap_or(i64::MAX),
        index: next().parse().unwrap_or(i32::MAX),
    }
}

/// Which letters were asked for, for the audit trail.
pub(super) fn asked(query: &DeadLetterQuery) -> String {
    let query = DeadLetterQuery {
        limit: None,
        cursor: None,
        count: false,
        ..query.clone()
    };
    match serde_json::to_string(&query).as_deref() {
        Ok("{}") | Err(_) => "all".to_owned(),
        Ok(text) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_and_one_past_everything_finds_nothing() {
        let at = Coordinates {
            partition: 3,
            offset: 1200,
            index: 1,
        };
        assert_eq!(cursor(at), "3:1200:1");
        assert_eq!(after(&cursor(at)), at);
        let past = after("9999999999:9999999999999999999:9999999999");
        assert_eq!(
            (past.partition, past.offset, past.index),
            (i32::MAX, i64::MAX, i32::MAX)
        );
    }

    #[test]
    fn what_was_asked_is_said_without_the_page() {
        let query = DeadLetterQuery {
            code: Some("trap".to_owned()),
            limit: Some(5),
            cursor: Some("0:1:0".to_owned()),
            count: true,
            ..DeadLetterQuery::default()
        };
        assert_eq!(asked(&query), r#"{"code":"trap"}"#);
        assert_eq!(asked(&DeadLetterQuery::default()), "all");
    }
}
