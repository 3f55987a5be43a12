//! Swaps in a row, faster than anybody swaps: at first undisturbed, then with kills among them.

use std::time::{Duration, Instant};

use super::running::{Running, Speed};
use crate::dice::Dice;
use crate::latency;
use crate::versions::Version;

/// What they showed.
pub(super) struct Storm {
    /// From the deploy request of a version to its rows in every partition; without kills.
    pub(super) deploy_to_effect: Vec<Duration>,
    /// From a kill until the swapped version is seen in every partition.
    pub(super) kill_to_effect: Vec<Duration>,
    /// Deploy requests that were cut off by a kill, and went on all the same.
    pub(super) survived: u32,
    /// Records processed a second before the first kill.
    pub(super) rate_before: f64,
    /// When kills began, or all swaps were done.
    pub(super) begun: i64,
}

/// Goes through the versions of a round, round and round; the speed is measured from where that was taken.
pub(super) async fn swaps(running: &mut Running<'_>, round: &[Version], speed: &Speed) -> Storm {
    let options = running.options;
    let mut dice = Dice::new(options.seed);
    let spared = if options.kills == 0 {
        options.swaps
    } else {
        options.swaps / 3
    };
    let between = ((options.swaps - spared) / options.kills.max(1)).max(1);
    let mut kills = 0;
    let mut storm = Storm {
        deploy_to_effect: Vec::new(),
        kill_to_effect: Vec::new(),
        survived: 0,
        rate_before: 0.0,
        begun: 0,
    };
    for swap in 0..options.swaps {
        let version = &round[usize::try_from(swap).unwrap() % round.len()];
        let before = running.eye.reached(&version.number).await;
        if swap == spared {
            storm.begins(running, speed).await;
            running.tell(format!(
                "{spared} swaps without kills done; {:.0} records/s meanwhile",
                storm.rate_before
            ));
        }
        if swap >= spared && kills < options.kills && (swap - spared) % between == 0 {
            kills += 1;
            let moment = Duration::from_millis(dice.below(120));
            let (took, lived) = running.kill_during_deploy(version, moment, &before).await;
            storm.kill_to_effect.push(took);
            storm.survived += u32::from(lived);
            continue;
        }
        let asked = Instant::now();
        running.deploy(version);
        // Some follow at once, before anybody has seen the one before.
        if dice.below(4) > 0 || swap + 1 == options.swaps {
            running.wait_effective(version, &before).await;
            if swap < spared {
                storm.deploy_to_effect.push(asked.elapsed());
            }
        }
    }
    if spared == options.swaps {
        storm.begins(running, speed).await;
    }
    storm
}

impl Storm {
    async fn begins(&mut self, running: &Running<'_>, speed: &Speed) {
        self.begun = latency::now();
        self.rate_before = speed.rate(running).await;
    }
}
