//! Grants and cuts: stored exactly, under epoch and position, and untouched by everything else.

use wasmill::anchor::{Anchor, Claim, CommitError, Cut, Epoch, Pin, Stored};
use wasmill::cassandra::{CassandraAnchor, CassandraSession, Patience, ensure_keyspace};
use wasmill::error::Blame;

use super::anchor::{anchor, commit, nothing, seed};
use super::support::{KEYSPACE, World};

fn cuts(list: &[(i64, &str)]) -> Vec<Cut> {
    list.iter()
        .map(|(at, release)| Cut::new(*at, (*release).to_owned()))
        .collect()
}

pub(crate) async fn pin(
    anchor: &CassandraAnchor,
    owner: &Claim,
    next: i64,
    reserved: i64,
    list: &[(i64, &str)],
) -> Result<(), CommitError> {
    let cuts = cuts(list);
    let pin = Pin {
        reserved,
        cuts: &cuts,
    };
    anchor.pin(owner, next, pin).await
}

async fn claim(anchor: &CassandraAnchor) -> Claim {
    anchor.claim(&[0]).await.unwrap().remove(0)
}

fn assert_fenced(outcome: &Result<(), CommitError>) {
    assert!(
        matches!(outcome, Err(CommitError::Fenced(_))),
        "{outcome:?}"
    );
}

pub(crate) fn a_pin_stores_exactly_what_it_says(world: &World) {
    world.block(async {
        let session = world.session().await;
        let (anchor, other) = (
            anchor(&session, "pins").await,
            anchor(&session, "pins").await,
        );
        anchor.seed(&[seed(0, 100), seed(1, 100)]).await.unwrap();
        let mut owner = claim(&anchor).await;
        assert_eq!((owner.reserved, &owner.cuts), (100, &Vec::new()));
        let raised = [(100, "a"), (500, "b \"quoted\""), (300, "c")];
        for (reserved, list) in [
            (500, &raised[..]),
            (300, &raised[..1]),
            (300, &[]),
            (100, &[]),
            (700, &raised[..]),
        ] {
            pin(&anchor, &owner, 100, reserved, list).await.unwrap();
            let stored = other.stored().await.unwrap();
            assert_eq!(stored[0].cuts, cuts(list), "in listing order");
            assert_eq!(stored[1].cuts, [], "other partitions stay");
            owner = claim(&anchor).await;
            assert_eq!((owner.reserved, &owner.cuts), (reserved, &cuts(list)));
        }
        // a flight touches no cuts and lowers no grant
        commit(&anchor, &owner, 100..101, &[], nothing())
            .await
            .unwrap();
        anchor.settle(&owner).await.unwrap();
        let next = claim(&anchor).await;
        assert_eq!(
            (next.next, next.reserved, next.cuts),
            (101, 700, cuts(&raised))
        );
    });
}

pub(crate) fn what_is_held_back_goes_first(world: &World) {
    world.block(async {
        let session = world.session().await;
        let anchor = anchor(&session, "pin-held").await;
        anchor.seed(&[seed(0, 0)]).await.unwrap();
        let owner = claim(&anchor).await;
        commit(&anchor, &owner, 0..5, &[], nothing()).await.unwrap();
        commit(&anchor, &owner, 5..8, &[], nothing()).await.unwrap();
        assert_eq!(anchor.stored().await.unwrap()[0].next, 0, "held back");
        assert_fenced(&pin(&anchor, &owner, 0, 50, &[]).await);
        // the lane's own position, and a grant below the one it held back
        pin(&anchor, &owner, 8, 8, &[(8, "a")]).await.unwrap();
        let stored = anchor.stored().await.unwrap();
        assert_eq!((stored[0].next, &stored[0].cuts), (8, &cuts(&[(8, "a")])));
        // the next flight needs a grant again, and has it stored before it sends
        commit(&anchor, &owner, 8..9, &[], nothing()).await.unwrap();
        let next = claim(&anchor).await;
        assert_eq!(
            (next.next, next.reserved, next.cuts),
            (8, 19, cuts(&[(8, "a")]))
        );
    });
}

pub(crate) fn a_pin_is_checked_on_epoch_and_position(world: &World) {
    world.block(async {
        let session = world.session().await;
        let (one, two) = (
            anchor(&session, "pin-duel").await,
            anchor(&session, "pin-duel").await,
        );
        one.seed(&[seed(0, 100)]).await.unwrap();
        let older = claim(&one).await;
        pin(&one, &older, 100, 500, &[(100, "a")]).await.unwrap();
        for next in [99, 101] {
            assert_fenced(&pin(&one, &older, next, 600, &[]).await);
        }
        let newer = claim(&two).await;
        assert_eq!((newer.reserved, &newer.cuts), (500, &cuts(&[(100, "a")])));
        // one that would change nothing as well
        assert_fenced(&pin(&one, &older, 100, 500, &[(100, "a")]).await);
        assert_fenced(&pin(&one, &older, 100, 900, &[]).await);
        let same_number = Claim {
            epoch: Epoch {
                number: newer.epoch.number,
                id: older.epoch.id,
            },
            ..newer.clone()
        };
        let stranger = anchor(&session, "pin-duel").await;
        assert_fenced(&pin(&stranger, &same_number, 100, 900, &[]).await);
        pin(&two, &newer, 100, 100, &[(100, "b")]).await.unwrap();
        let last = claim(&one).await;
        assert_eq!((last.reserved, last.cuts), (100, cuts(&[(100, "b")])));
    });
}

/// The very request of a pin, as the wire may hold it back, sent after another claim.
pub(crate) fn a_pin_delayed_past_a_newer_claim(world: &World) {
    world.block(async {
        let session = world.session().await;
        let (anchor, eye) = (anchor(&session, "pin-late").await, world.eye().await);
        anchor.seed(&[seed(0, 100)]).await.unwrap();
        let older = claim(&anchor).await;
        let request = |epoch: &Epoch, next: i64| {
            format!(
                "UPDATE KS.wasmill_position SET reserved = 900, cuts = '[]' WHERE pipeline = 'pin-late' AND \
                 topic = 'quakes' AND \"partition\" = 0 IF epoch_number = {} AND epoch_id = {} AND next = {next}",
                epoch.number, epoch.id
            )
        };
        let newer = claim(&anchor).await;
        pin(&anchor, &newer, 100, 300, &[(100, "a")]).await.unwrap();
        eye.run(&request(&older.epoch, 100)).await;
        eye.run(&request(&newer.epoch, 99)).await;
        let now = claim(&anchor).await;
        assert_eq!((now.reserved, &now.cuts), (300, &cuts(&[(100, "a")])));
        // what shows that the request was a good one
        eye.run(&request(&now.epoch, 100)).await;
        assert_eq!(claim(&anchor).await.reserved, 900);
    });
}

pub(crate) fn seeds_store_cuts(world: &World) {
    world.block(async {
        let session = world.session().await;
        let anchor = anchor(&session, "pin-seeds").await;
        let with = |partition, list: &[(i64, &str)]| Stored {
            cuts: cuts(list),
            ..seed(partition, 10)
        };
        let first = [with(0, &[(10, "a"), (20, "b")]), with(1, &[])];
        anchor.seed(&first).await.unwrap();
        assert_eq!(anchor.stored().await.unwrap(), first);
        anchor.seed(&[with(0, &[(10, "other")])]).await.unwrap();
        assert_eq!(anchor.stored().await.unwrap(), first);
        assert_eq!(claim(&anchor).await.cuts, first[0].cuts);
    });
}

pub(crate) fn cuts_that_are_none(world: &World) {
    world.block(async {
        let session = world.session().await;
        let (anchor, eye) = (anchor(&session, "pin-broken").await, world.eye().await);
        anchor.seed(&[seed(0, 10)]).await.unwrap();
        let before = claim(&anchor).await;
        for broken in ["", "{}", "[1]", "[{\"at\": \"x\", \"release\": \"a\"}]"] {
            let write = |value: &str| {
                format!(
                    "UPDATE KS.wasmill_position SET cuts = {value} WHERE pipeline = 'pin-broken' AND \
                     topic = 'quakes' AND \"partition\" = 0 IF EXISTS"
                )
            };
            eye.run(&write(&format!("'{broken}'"))).await;
            for error in [
                anchor.claim(&[0]).await.unwrap_err(),
                anchor.stored().await.unwrap_err(),
            ] {
                assert_eq!(error.blame(), Blame::Config);
                assert!(error.what().contains("\"pin-broken\", quakes/0"), "{error}");
                assert!(error.hint_text().is_some_and(|hint| hint.contains("cuts")));
            }
            eye.run(&write("null")).await;
        }
        let after = claim(&anchor).await;
        assert_eq!(
            after.epoch.number,
            before.epoch.number + 1,
            "the failed claims took nothing"
        );
        assert_eq!(after.cuts, [], "null is none");
    });
}

/// A table as version 0.1 made it gets its column, from several hosts at once, and keeps its rows.
pub(crate) fn tables_of_an_earlier_version(world: &World) {
    world.block(async {
        let mut connection = world.connection();
        connection.keyspace = format!("{KEYSPACE}_old");
        let connect = async || {
            CassandraSession::connect(&connection, Patience::default())
                .await
                .unwrap()
        };
        let session = connect().await;
        ensure_keyspace(&session, Some(1)).await.unwrap();
        let eye = world.eye().await;
        let table = format!("{KEYSPACE}_old.wasmill_position");
        eye.run(&format!(
            "CREATE TABLE {table} (pipeline text, topic text, \"partition\" int, epoch_number bigint, \
             epoch_id uuid, next bigint, reserved bigint, hlc bigint, plugin text, topic_id text, \
             PRIMARY KEY ((pipeline, topic, \"partition\")))"
        ))
        .await;
        eye.run(&format!(
            "INSERT INTO {table} (pipeline, topic, \"partition\", epoch_number, epoch_id, next, reserved, hlc) \
             VALUES ('old', 'quakes', 0, 4, 00000000-0000-0000-0000-000000000001, 70, 90, 5) IF NOT EXISTS"
        ))
        .await;
        let (first, second, third) = (connect().await, connect().await, connect().await);
        let (a, b, c) = futures_util::future::join3(
            CassandraAnchor::create_tables(&first),
            CassandraAnchor::create_tables(&second),
            CassandraAnchor::create_tables(&third),
        )
        .await;
        for created in [a, b, c] {
            created.unwrap();
        }
        let anchor = anchor(&session, "old").await;
        let owner = claim(&anchor).await;
        assert_eq!(
            (owner.next, owner.reserved, &owner.cuts, owner.epoch.number),
            (70, 90, &Vec::new(), 5)
        );
        pin(&anchor, &owner, 70, 95, &[(95, "a")]).await.unwrap();
        assert_eq!(claim(&anchor).await.cuts, cuts(&[(95, "a")]));
    });
}

pub(crate) fn a_lane_handed_over_and_back(world: &World) {
    world.block(async {
        let session = world.session().await;
        let (one, two) = (
            anchor(&session, "handed").await,
            anchor(&session, "handed").await,
        );
        one.seed(&[seed(0, 0)]).await.unwrap();
        let mut at = 0;
        let mut last: Option<Claim> = None;
        for round in 0..4_u8 {
            let (here, there) = if round % 2 == 0 {
                (&one, &two)
            } else {
                (&two, &one)
            };
            let owner = claim(here).await;
            assert_eq!(owner.next, at, "settled where it was before");
            if let Some(last) = &last {
                // the old object's lane is over; in the first round it is left not knowing that
                if round > 1 {
                    assert_fenced(&pin(there, last, at, at + 99, &[]).await);
                }
                assert_eq!(owner.cuts, cuts(&[(at, "a")]));
            }
            commit(here, &owner, at..at + 3, &[], nothing())
                .await
                .unwrap();
            commit(here, &owner, at + 3..at + 5, &[], nothing())
                .await
                .unwrap();
            at += 5;
            here.settle(&owner).await.unwrap();
            pin(here, &owner, at, at + 20, &[(at, "a")]).await.unwrap();
            last = Some(owner);
        }
        // a claim made elsewhere, as the supervisor makes it, and brought to an object that was fenced
        let supervisor = anchor(&session, "handed").await;
        let owner = claim(&supervisor).await;
        commit(&one, &owner, at..at + 1, &[], nothing())
            .await
            .unwrap();
        // and one that dies with something held back leaves nothing of it to the next claim of the same object
        one.settle(&owner).await.unwrap();
        commit(&one, &owner, at + 1..at + 4, &[], nothing())
            .await
            .unwrap();
        assert_eq!(supervisor.stored().await.unwrap()[0].next, at + 1);
        let owner = claim(&one).await;
        assert_eq!(owner.next, at + 1);
        commit(&one, &owner, at + 1..at + 2, &[], nothing())
            .await
            .unwrap();
        one.settle(&owner).await.unwrap();
        assert_eq!(supervisor.stored().await.unwrap()[0].next, at + 2);
    });
}
