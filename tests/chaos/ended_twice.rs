//! The connection to Kafka breaks under the end of a transaction: the client sends the end again by itself, and the first
//! one arrives while the next transaction of its id is open. Needs Java.
//!
//! ```text
//! EndTxn ──▶ caught, its sender cut off ───────────────────────────────▶ let go: it arrives in the middle
//!              └─▶ pause ──▶ EndTxn again ──▶ answered ──▶ next one: … Produce of the position, caught ──▶ let go
//! ```
//! Of the same producer, that first one would commit what is there of the next transaction, without its position.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use wasmill_tests::proxy::{Outcome, Proxy, Request};

use super::transactions::{POSITIONS, alerts, ends_exact, linked, passes};

/// How often it happens: once a partition, since the pause of its clients grows each time.
const TIMES: i32 = 6;
const SOON: Duration = Duration::from_secs(60);

/// API keys (Kafka's protocol guide).
const PRODUCE: i16 = 0;
const END_TXN: i16 = 26;
/// What EndTxn ends with, up to version 2: producer id (8 bytes), its epoch (2), commit or abort (1).
const TOLD: usize = 11;

/// What the host says of a producer that it ends because of it.
const ENDED: &str = "it may have been asked for twice";

/// A request of this kind under this transactional id.
fn is(request: &Request<'_>, kind: i16, id: &str) -> bool {
    request.api_key() == Some(kind) && request.contains(id.as_bytes())
}

/// What an EndTxn says of its transaction.
fn told<'a>(request: &Request<'a>) -> &'a [u8] {
    &request.bytes[request.bytes.len() - TOLD..]
}

/// The module's picture, once.
async fn breaks_under_the_end(link: &Proxy, partition: i32) {
    let id: Arc<str> = format!("wasmill/alerts/records/{partition}").into();
    let ended: Arc<OnceLock<Vec<u8>>> = Arc::default();
    let (theirs, first) = (Arc::clone(&id), Arc::clone(&ended));
    let end = link.hold(move |request| {
        is(request, END_TXN, &theirs) && first.set(told(request).to_vec()).is_ok()
    });
    end.caught(SOON).await;
    let theirs = Arc::clone(&id);
    let again = link.hold(move |request| {
        is(request, END_TXN, &theirs) && ended.get().is_some_and(|first| first == told(request))
    });
    end.cut_off();
    end.orphaned(SOON).await;
    again.caught(SOON).await;
    let next = link
        .hold(move |request| is(request, PRODUCE, &id) && request.contains(POSITIONS.as_bytes()));
    again.let_go();
    assert_eq!(again.outcome(SOON).await, Outcome::Delivered);
    next.caught(SOON).await;
    end.let_go();
    assert_eq!(end.outcome(SOON).await, Outcome::Delivered);
    end.answered(SOON).await;
}

#[tokio::test]
async fn an_end_that_arrives_in_the_next_transaction_commits_nothing_of_it() {
    let Some((_kafka, stage, flow)) = linked(TIMES).await else {
        return;
    };
    let mut host = stage.host(&alerts());
    passes(&stage, 2_000).await;
    let link = &stage.links.as_ref().unwrap().kafka;
    for partition in 0..TIMES {
        breaks_under_the_end(link, partition).await;
        host.alive().unwrap();
    }
    let counts = link.counts();
    let times = u64::try_from(TIMES).unwrap();
    assert_eq!((counts.held, counts.let_go_orphaned), (3 * times, times));
    ends_exact(&stage, &flow.stop()).await;
    let exit = host.stop(Duration::from_secs(25));
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let ended = exit.stderr.matches(ENDED).count();
    assert!(ended >= usize::try_from(TIMES).unwrap(), "{ended}");
}
