//! The link to Postgres fails in the moment of a commit, and requests arrive after their sender's death.

use std::time::Duration;

use wasmill_tests::Stage;
use wasmill_tests::flow::Flow;
use wasmill_tests::host::Host;
use wasmill_tests::proxy::{Hold, Link, Outcome, Proxy, Request};
use wasmill_tests::wait::eventually;

use super::flights::{balanced, ends_exact, flowing, passes};
use crate::scenario::flights::flights_in_postgres;

const SOON: Duration = Duration::from_secs(60);

/// What the host logs when a COMMIT was sent and its reply never came.
const IN_DOUBT: &str = "outcome of a commit unknown";

async fn linked_flights() -> (Stage, Flow) {
    let stage = Stage::linked();
    let flow = flowing(&stage, 2).await;
    (stage, flow)
}

fn to_postgres(stage: &Stage) -> &Proxy {
    &stage.links.as_ref().unwrap().postgres
}

/// The commit of whatever is open.
fn is_commit(request: &Request<'_>) -> bool {
    request.bytes[0] == b'Q' && request.contains(b"COMMIT\0")
}

/// What begins a flight.
fn is_flight(request: &Request<'_>) -> bool {
    request.contains(b"BEGIN; SET LOCAL wasmill.flight")
}

/// Waits until every partition has moved on from where it was: nobody is claiming.
async fn all_move(stage: &Stage) {
    let smallest = "SELECT coalesce(min(next), 0)::int8 FROM wasmill.position";
    let before = stage.number(smallest).await;
    eventually(SOON, "every partition moves", async || {
        match stage.try_rows(smallest).await?[0].get::<_, i64>(0) {
            now if now > before => Ok(()),
            now => Err(format!("one is at {now}")),
        }
    })
    .await;
}

/// The next request of which `wanted` is true, on its way; nobody is claiming.
async fn caught(stage: &Stage, wanted: fn(&Request<'_>) -> bool) -> Hold {
    all_move(stage).await;
    let hold = to_postgres(stage).hold(wanted);
    hold.caught(SOON).await;
    hold
}

async fn says(host: &Host, text: &str, times: usize) {
    eventually(
        SOON,
        &format!("the host says {text:?}"),
        async || match host.stderr().matches(text).count() {
            seen if seen >= times => Ok(()),
            seen => Err(format!("{seen} times instead of {times}")),
        },
    )
    .await;
}

/// A request that was held in an open transaction arrives. On a machine so busy that the server's patience with an idle
/// transaction (25 s) has ended before, it never does, which is as harmless.
async fn arrived(hold: &Hold) {
    let outcome = hold.outcome(SOON).await;
    assert!(
        matches!(outcome, Outcome::Delivered | Outcome::ServerGone),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_commit_whose_reply_is_lost_is_found_done() {
    let (stage, flow) = linked_flights().await;
    let mut host = stage.host(&flights_in_postgres());
    let link = to_postgres(&stage);
    for round in 1..=3 {
        let hold = caught(&stage, is_commit).await;
        let before = stage.position("flights").await;
        link.set(Link::half_open());
        hold.let_go();
        assert_eq!(hold.outcome(SOON).await, Outcome::Delivered);
        passes(&stage, before + 1).await;
        link.heal();
        says(&host, IN_DOUBT, round).await;
        balanced(&stage).await;
    }
    assert!(link.counts().replies_swallowed > 0);
    ends_exact(&stage, &flow.stop()).await;
    host.alive().unwrap();
}

#[tokio::test]
async fn a_commit_that_never_arrives_is_found_undone() {
    let (stage, flow) = linked_flights().await;
    let mut host = stage.host(&flights_in_postgres());
    let link = to_postgres(&stage);
    for round in 1..=3 {
        let hold = caught(&stage, is_commit).await;
        link.close_all();
        assert_eq!(hold.outcome(SOON).await, Outcome::Closed);
        says(&host, IN_DOUBT, round).await;
        balanced(&stage).await;
    }
    ends_exact(&stage, &flow.stop()).await;
    host.alive().unwrap();
}

#[tokio::test]
async fn a_commit_that_arrives_after_its_sender_died_is_waited_for_by_the_next_claim() {
    let (stage, flow) = linked_flights().await;
    let host = stage.host(&flights_in_postgres());
    let link = to_postgres(&stage);
    let hold = caught(&stage, is_commit).await;
    host.kill();
    hold.orphaned(SOON).await;
    let mut successor = stage.again();
    // The open transaction holds the row: the claim has to wait, whatever it decides.
    let what = "the successor's claim waits";
    let waits = "SELECT count(*) FILTER (WHERE wait_event_type = 'Lock' AND query LIKE '%AS held%'), \
        count(*) FILTER (WHERE state = 'idle in transaction') FROM pg_stat_activity";
    let open = eventually(SOON, what, async || {
        let rows = stage.try_rows(waits).await?;
        match (rows[0].get::<_, i64>(0), rows[0].get::<_, i64>(1)) {
            (0, 1..) => Err("nobody waits".to_owned()),
            (_, open) => Ok(open),
        }
    })
    .await;
    let before = stage.position("flights").await;
    hold.let_go();
    arrived(&hold).await;
    if open > 0 {
        passes(&stage, before + 1).await;
    }
    ends_exact(&stage, &flow.stop()).await;
    balanced(&stage).await;
    assert_eq!(link.counts().let_go_orphaned, 1);
    successor.alive().unwrap();
}

#[tokio::test]
async fn a_flight_that_arrives_after_its_sender_died_is_fenced() {
    let (stage, flow) = linked_flights().await;
    let host = stage.host(&flights_in_postgres());
    let link = to_postgres(&stage);
    // With it waits all that was sent in the same breath: the advance, the rows.
    let hold = caught(&stage, is_flight).await;
    let claims = "SELECT string_agg(claim_id::text, ',') FROM wasmill.position";
    let claims: String = stage.try_rows(claims).await.unwrap()[0].get(0);
    host.kill();
    hold.orphaned(SOON).await;
    let mut successor = stage.again();
    // That positions move says nothing: another flight of the dead may have been on its way, and would be taken.
    let owned =
        format!("SELECT count(*) FROM wasmill.position WHERE claim_id = ANY ('{{{claims}}}')");
    eventually(SOON, "every partition is claimed anew", async || {
        stage.reaches(&owned, 0).await
    })
    .await;
    hold.let_go();
    assert_eq!(hold.outcome(SOON).await, Outcome::Delivered);
    eventually(SOON, "Postgres refuses the late flight", async || {
        let log = std::fs::read_to_string(stage.postgres.log()).unwrap();
        if log.contains("the flight comes from") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    ends_exact(&stage, &flow.stop()).await;
    balanced(&stage).await;
    assert_eq!(link.counts().let_go_orphaned, 1);
    successor.alive().unwrap();
}

#[tokio::test]
async fn a_claim_that_arrives_after_its_sender_died_takes_nothing_from_its_successor() {
    let (stage, flow) = linked_flights().await;
    let link = to_postgres(&stage);
    let hold = link.hold(|request| {
        request.bytes[0] == b'B' && request.contains(b"UPDATE wasmill.position AS held")
    });
    let host = stage.host(&flights_in_postgres());
    hold.caught(SOON).await;
    host.kill();
    hold.orphaned(SOON).await;
    let mut successor = stage.again();
    passes(&stage, 1).await;
    hold.let_go();
    arrived(&hold).await;
    ends_exact(&stage, &flow.stop()).await;
    balanced(&stage).await;
    assert_eq!(link.counts().let_go_orphaned, 1);
    successor.alive().unwrap();
    let refused = successor.stderr().matches("fenced").count();
    assert_eq!(refused, 0, "the late claim took a partition");
}
