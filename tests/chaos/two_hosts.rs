//! Two hosts share a topic: joining, leaving and dying move partitions, never rows.

use std::time::Duration;

use wasmill_tests::Stage;
use wasmill_tests::host::Host;
use wasmill_tests::wait::eventually;

use super::flights::{balanced, ends_exact, flowing, more, passes};
use crate::scenario::flights::flights_in_postgres;

/// A second host of the same pipelines.
pub(super) fn second(stage: &Stage) -> Host {
    let first = std::fs::read_to_string(stage.path("wasmill.toml")).unwrap();
    let folder = stage.path("second");
    std::fs::create_dir_all(&folder).unwrap();
    let config = folder.join("wasmill.toml");
    std::fs::write(
        &config,
        first.replace("id = \"test-host\"", "id = \"other-host\""),
    )
    .unwrap();
    Host::start(&config)
}

#[tokio::test]
async fn a_second_host_joins_and_the_first_dies() {
    let stage = Stage::new();
    let flow = flowing(&stage, 4).await;
    let first = stage.host(&flights_in_postgres());
    passes(&stage, 500).await;
    let mut other = second(&stage);
    // Whoever owns a partition has claimed it: a second claim says that the partition moved.
    let what = "the second host claims a partition and leaves one to the first";
    eventually(Duration::from_secs(60), what, async || {
        other.alive()?;
        let moved = "SELECT count(*) FROM wasmill.position WHERE epoch > 1";
        let moved: i64 = stage.try_rows(moved).await?[0].get(0);
        if (1..4).contains(&moved) {
            Ok(())
        } else {
            Err(format!("{moved} of 4 moved"))
        }
    })
    .await;
    first.kill();
    // Those of the dead one's partitions among them.
    let mut places = flow.stop();
    more(&stage, 1_000, &mut places);
    ends_exact(&stage, &places).await;
    balanced(&stage).await;
    assert_eq!(other.stop(Duration::from_secs(25)).code, Some(0));
}
