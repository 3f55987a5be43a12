//! A node that stalls, and one that dies.

use std::time::{Duration, Instant};

use wasmill::anchor::{Anchor, CommitError};
use wasmill::cassandra::{CassandraSession, Patience};
use wasmill::error::Blame;
use wasmill::record::{Op, RowBatch};

use super::anchor::{anchor, commit, nothing, seed};
use super::pin::pin;
use super::support::{Put, World, add, declared, route, sink, write};

pub(crate) fn a_change_without_an_answer(world: &mut World) {
    let mut server = world.server.take().unwrap();
    world.block(async {
        let session = world.session().await;
        let anchor = anchor(&session, "stalled").await;
        anchor.seed(&[seed(0, 0)]).await.unwrap();
        let claim = anchor.claim(&[0]).await.unwrap().remove(0);
        pin(&anchor, &claim, 0, 1_000, &[]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(210)).await;
        server.pause().unwrap();
        // the lane is dropped while its position is on the wire
        let waited = commit(&anchor, &claim, 0..5, &[], nothing());
        let answered = tokio::time::timeout(Duration::from_millis(300), waited).await;
        assert!(answered.is_err(), "{answered:?}");
        server.resume().unwrap();
        let unknown = commit(&anchor, &claim, 0..5, &[], nothing())
            .await
            .unwrap_err();
        assert!(matches!(unknown, CommitError::Unknown(_)), "{unknown}");
        let unknown = anchor.settle(&claim).await.unwrap_err();
        assert!(matches!(unknown, CommitError::Unknown(_)), "{unknown}");
        let claim = anchor.claim(&[0]).await.unwrap().remove(0);
        assert!([0, 5].contains(&claim.next), "{claim:?}");
        commit(&anchor, &claim, claim.next..9, &[], nothing())
            .await
            .unwrap();
        assert_eq!(anchor.stored().await.unwrap()[0].next, 9);

        // an answer that comes after the time-out: read back, or repeated as it was
        tokio::time::sleep(Duration::from_millis(210)).await;
        server.pause().unwrap();
        let resumed = async {
            tokio::time::sleep(Duration::from_secs(4)).await;
            server.resume().unwrap();
        };
        let flight = commit(&anchor, &claim, 9..20, &[], nothing());
        let (result, ()) = futures_util::future::join(flight, resumed).await;
        result.unwrap();
        assert_eq!(anchor.stored().await.unwrap()[0].next, 20);
    });
    world.server = Some(server);
}

pub(crate) fn a_pin_without_an_answer(world: &mut World) {
    let mut server = world.server.take().unwrap();
    world.block(async {
        let session = world.session().await;
        let anchor = anchor(&session, "stalled-pin").await;
        anchor.seed(&[seed(0, 0)]).await.unwrap();
        let claim = anchor.claim(&[0]).await.unwrap().remove(0);
        // the lane is dropped while a pin is on the wire
        server.pause().unwrap();
        let waited = pin(&anchor, &claim, 0, 50, &[(0, "a")]);
        assert!(
            tokio::time::timeout(Duration::from_millis(300), waited)
                .await
                .is_err()
        );
        server.resume().unwrap();
        for _ in 0..2 {
            let unknown = pin(&anchor, &claim, 0, 60, &[]).await.unwrap_err();
            assert!(matches!(unknown, CommitError::Unknown(_)), "{unknown}");
            let unknown = commit(&anchor, &claim, 0..5, &[], nothing())
                .await
                .unwrap_err();
            assert!(matches!(unknown, CommitError::Unknown(_)), "{unknown}");
        }
        let claim = anchor.claim(&[0]).await.unwrap().remove(0);
        assert!(
            (claim.reserved == 50 && claim.cuts.len() == 1)
                || (claim.reserved == 0 && claim.cuts.is_empty()),
            "all of it or nothing: {claim:?}"
        );
        pin(&anchor, &claim, 0, 70, &[(0, "b")]).await.unwrap();

        // an answer that comes after the time-out is read back
        server.pause().unwrap();
        let resumed = async {
            tokio::time::sleep(Duration::from_secs(4)).await;
            server.resume().unwrap();
        };
        let pinned = pin(&anchor, &claim, 0, 80, &[(0, "b"), (80, "c")]);
        let (result, ()) = futures_util::future::join(pinned, resumed).await;
        match result {
            Ok(()) => {}
            // the node reads before it applies: then only a claim tells
            Err(CommitError::Unknown(_)) => {
                let unknown = anchor.settle(&claim).await.unwrap_err();
                assert!(matches!(unknown, CommitError::Unknown(_)), "{unknown}");
            }
            Err(other) => panic!("{other:?}"),
        }
        let claim = anchor.claim(&[0]).await.unwrap().remove(0);
        assert!(
            (claim.reserved == 80 && claim.cuts.len() == 2)
                || (claim.reserved == 70 && claim.cuts.len() == 1),
            "{claim:?}"
        );
    });
    world.server = Some(server);
}

pub(crate) fn a_node_killed_under_writes(world: &mut World) {
    const ROUNDS: u32 = 400;
    let mut server = world.server.take().unwrap();
    let (session, table) = world.block(async {
        let session = world.patient(Duration::from_secs(90)).await;
        (
            session,
            route(
                &["id text", "n int32", "v text"],
                &declared("killed", 1, None),
            ),
        )
    });
    let sink = world.block(sink(&session, &table));
    let anchor = world.block(async {
        let anchor = anchor(&session, "killed").await;
        anchor.seed(&[seed(0, 0)]).await.unwrap();
        anchor
    });
    let claim = world.block(anchor.claim(&[0])).unwrap().remove(0);
    let connection = world.connection();
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(400));
        server.kill().unwrap();
        // with nobody there, connecting fails as something that passes
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let error = runtime
            .block_on(CassandraSession::connect(&connection, Patience::default()))
            .expect_err("the server is dead");
        assert_eq!(error.blame(), Blame::Outside);
        assert!(error.hint_text().is_some());
        server.restart().unwrap();
        server
    });
    let start = Instant::now();
    let mut longest = Duration::ZERO;
    let mut written = 0;
    world.block(async {
        for round in 0..ROUNDS {
            let mut rows = RowBatch::default();
            for source in 0..20_u32 {
                let key = format!("k{}", source % 12);
                let n = (round * 20 + source).to_be_bytes();
                add(
                    &mut rows,
                    source,
                    Op::Write,
                    &[Put::Value(key.as_bytes()), Put::Value(&n), Put::Value(b"v")],
                );
            }
            let stamps = [i64::from(round) * 2; 20];
            let began = Instant::now();
            let ahead = wasmill::anchor::Ahead::writes(write(&sink, &rows, &stamps, 0));
            let from = i64::from(round);
            commit(&anchor, &claim, from..from + 1, &[], ahead)
                .await
                .unwrap();
            longest = longest.max(began.elapsed());
            written += 20;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        anchor.settle(&claim).await.unwrap();
    });
    let server = killer.join().unwrap();
    eprintln!(
        "  {written} rows in {:?}, the longest flight {longest:?}",
        start.elapsed()
    );
    assert!(
        longest > Duration::from_secs(2),
        "the node was not missed: {longest:?}"
    );
    world.server = Some(server);
    world.block(async {
        let eye = world.eye().await;
        assert_eq!(eye.count("killed").await, written);
        assert_eq!(anchor.stored().await.unwrap()[0].next, i64::from(ROUNDS));
    });
}
