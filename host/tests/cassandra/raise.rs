//! Write times lifted after a topic gained partitions.

use wasmill::anchor::{Anchor, CommitError};

use super::anchor::{anchor, commit, nothing, seed};
use super::support::World;

pub(crate) fn every_partition_writes_after_the_greatest(world: &World) {
    world.block(async {
        let session = world.session().await;
        let running = anchor(&session, "raised").await;
        let first: Vec<_> = (0..3).map(|partition| seed(partition, 100)).collect();
        running.seed(&first).await.unwrap();
        let owner = running.claim(&[1]).await.unwrap().remove(0);
        commit(&running, &owner, 100..105, &[], nothing())
            .await
            .unwrap();
        running.settle(&owner).await.unwrap();

        let other = anchor(&session, "raised").await;
        let added = [seed(3, 0), seed(4, 0)];
        let greatest = 1_104_000;
        assert_eq!(other.raise(&added).await.unwrap(), greatest);
        let found: Vec<(i32, i64)> = other
            .stored()
            .await
            .unwrap()
            .iter()
            .map(|stored| (stored.partition, stored.next))
            .collect();
        assert_eq!(found, [(0, 100), (1, 105), (2, 100), (3, 0), (4, 0)]);

        // Whoever ran meanwhile would store a lower time.
        let late = commit(&running, &owner, 105..106, &[], nothing()).await;
        let late = match late {
            Ok(()) => running.settle(&owner).await,
            failed => failed,
        };
        assert!(matches!(late, Err(CommitError::Fenced(_))), "{late:?}");
        for claim in other.claim(&[0, 1, 2, 3, 4]).await.unwrap() {
            assert_eq!(claim.hlc, greatest, "{}", claim.partition);
        }
        assert_eq!(other.raise(&[]).await.unwrap(), greatest, "once more");
    });
}
