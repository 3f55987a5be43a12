//! Version pinning (delivery rule 4), explored exhaustively: every interleaving of two workers that both may
//! think they own a partition, of requests that are late or lost, of lost replies and of upgrades.
//!
//! The lists of cuts are made and read by the product's own [`crate::anchor::cuts`]; everything around them (row, lane,
//! wire) is modelled. Records lie at offsets with gaps and arrive one by one, so that the lane may be idle at
//! any point. Rows that two releases wrote at one offset are a ghost for good (the later release routes
//! elsewhere), so one release an offset is checked at every state. Hosts may be late to learn what is deployed: what
//! an owner has left behind must not come back. Each rule is also taken away, to see the exploration find what it
//! prevents.

pub(super) mod protocol;

use protocol::{Bad, Goal, Pinning, RULES, Rules, Sent, Upgrade};

use super::explore::{Verdict, explore};

/// The owner pins upgrades itself, in one compare-and-set: the protocol that is built.
const PINS: Rules = Rules {
    upgrade: Upgrade::Pin,
    ..RULES
};

fn safe(name: &str, rules: Rules, goals: &[Goal]) {
    let model = Pinning::new(rules);
    assert_eq!(explore(name, &model, goals).0, Verdict::Safe, "{name}");
}

fn violated(name: &str, rules: Rules, bad: Bad, steps: usize) {
    assert_eq!(
        explore(name, &Pinning::new(rules), &[]),
        (Verdict::Violated(bad), steps),
        "{name}"
    );
}

fn stuck(name: &str, rules: Rules, goal: Goal) {
    assert_eq!(
        explore(name, &Pinning::new(rules), &[goal]).0,
        Verdict::Stuck(goal),
        "{name}"
    );
}

/// One fault, two upgrades.
fn twice(rules: Rules) -> Rules {
    Rules {
        faults: 1,
        upgrades: 2,
        ..rules
    }
}

/// No fault, two upgrades, three records close together.
fn close(rules: Rules) -> Rules {
    Rules {
        faults: 0,
        upgrades: 2,
        records: [0, 1, 3],
        reach: 2,
        ..rules
    }
}

/// Hosts read the control log late; the first release is deployed again after the second.
const LATE: Rules = Rules {
    faults: 1,
    upgrades: 2,
    deployments: [1, 2, 1],
    late: true,
    records: [0, 1, 3],
    ..PINS
};

#[test]
fn a_host_that_is_behind_brings_nothing_back() {
    safe("S0", LATE, &[Goal::Drained, Goal::Idle]);
}

#[test]
fn a_host_that_is_behind_needs_the_order_and_a_release_deployed_again_needs_a_note() {
    let unordered = Rules {
        ordered: false,
        ..LATE
    };
    violated("S1", unordered, Bad::Late, 12);
    let unnoted = Rules {
        noted: false,
        ..LATE
    };
    violated("S2", unnoted, Bad::Late, 13);
    // Where no release is deployed again the order alone is enough.
    let forth = Rules {
        deployments: [1, 2, 3],
        ..unnoted
    };
    safe("S2b", forth, &[]);
}

#[test]
fn every_rule_kept_two_faults() {
    safe("C0", RULES, &[]);
}

#[test]
fn every_rule_kept_two_upgrades() {
    safe("C0b", twice(RULES), &[]);
    let idle_only = Rules {
        idle_only: true,
        ..twice(RULES)
    };
    safe("C0c", idle_only, &[Goal::Drained, Goal::Idle]);
    safe("C0d", twice(RULES), &[Goal::Drained, Goal::Idle]);
}

#[test]
fn the_owner_pins_upgrades_two_faults() {
    safe("P0", PINS, &[]);
}

#[test]
fn the_owner_pins_upgrades_twice() {
    safe("P0b", twice(PINS), &[Goal::Drained, Goal::Idle]);
    let unlisted = Rules {
        lower_cuts: false,
        ..close(PINS)
    };
    safe("P1", unlisted, &[]);
}

#[test]
fn the_greatest_cut_deciding_needs_pending_cuts_lowered() {
    let greatest = Rules {
        last_listed: false,
        ..close(RULES)
    };
    let left = Rules {
        lower_cuts: false,
        ..greatest
    };
    violated("C1", left, Bad::Back, 19);
    safe("C1f", greatest, &[]);
    let last_listed = Rules {
        lower_cuts: false,
        ..close(RULES)
    };
    safe("C1g", last_listed, &[]);
}

#[test]
fn an_idle_partition_upgrades_at_once_unless_an_owner_died() {
    let left = Rules {
        lower_cuts: false,
        faults: 0,
        upgrades: 2,
        ..RULES
    };
    stuck("C2", left, Goal::Idle);
    let died = Rules { faults: 1, ..RULES };
    stuck("C3", died, Goal::IdleAlways);
    stuck("P3", Rules { faults: 1, ..PINS }, Goal::IdleAlways);
}

#[test]
fn a_cut_at_the_committed_position_leaves_ghosts() {
    let at_next = |upgrade| Rules { upgrade, ..RULES };
    violated("C4", at_next(Upgrade::AtNext), Bad::Ghost, 10);
    violated("P4", at_next(Upgrade::PinAtNext), Bad::Ghost, 12);
}

#[test]
fn a_grant_that_was_used_is_not_given_up() {
    let used = |rules| Rules {
        sent: Sent::NotNow,
        ..rules
    };
    violated("C5", used(RULES), Bad::Ghost, 14);
    violated("P5", used(PINS), Bad::Ghost, 14);
    // Unless whatever was sent is still waiting to be sent again.
    let idle = Rules {
        idle_only: true,
        ..used(RULES)
    };
    safe("C5f", idle, &[]);
}

#[test]
fn a_grant_that_an_earlier_owner_may_have_used_is_not_given_up() {
    let early = |rules| Rules {
        past_found: false,
        faults: 1,
        ..rules
    };
    violated("C6", early(RULES), Bad::Ghost, 14);
    violated("P6", early(PINS), Bad::Ghost, 14);
}

#[test]
fn an_unknown_outcome_needs_a_new_claim() {
    let reads = |rules| Rules {
        claim_anew: false,
        ..rules
    };
    violated("C7", reads(RULES), Bad::Ghost, 16);
    violated("P7", reads(PINS), Bad::Ghost, 16);
}

#[test]
fn lowering_needs_the_epoch() {
    let without = |rules| Rules {
        epoch: false,
        faults: 1,
        ..rules
    };
    violated("C8", without(RULES), Bad::Ghost, 14);
    violated("P8", without(PINS), Bad::Ghost, 14);
}

#[test]
fn none_of_this_hangs_on_pending_cuts() {
    let left = |rules| Rules {
        lower_cuts: false,
        ..rules
    };
    let finds_a_ghost = |name, rules| {
        let found = explore(name, &Pinning::new(left(rules)), &[]).0;
        assert_eq!(found, Verdict::Violated(Bad::Ghost), "{name}");
    };
    let sent = Sent::NotNow;
    finds_a_ghost("C5w", Rules { sent, ..RULES });
    let past_found = false;
    finds_a_ghost(
        "C6w",
        Rules {
            past_found,
            ..RULES
        },
    );
    let claim_anew = false;
    finds_a_ghost(
        "C7w",
        Rules {
            claim_anew,
            ..RULES
        },
    );
    let (epoch, faults) = (false, 1);
    finds_a_ghost(
        "C8w",
        Rules {
            epoch,
            faults,
            ..RULES
        },
    );
}

#[test]
fn without_lowering_the_epoch_is_not_needed_for_safety() {
    let never = Rules {
        epoch: false,
        lowers: false,
        ..RULES
    };
    safe("C8n", never, &[]);
    let forgets = Rules {
        keeps_grant: false,
        faults: 1,
        ..RULES
    };
    safe("C9", forgets, &[]);
}

#[test]
fn grants_of_their_own_count_from_the_record() {
    let never = Rules {
        grants: false,
        faults: 1,
        ..RULES
    };
    stuck("C10", never, Goal::Drained);
    let from_position = Rules {
        from_record: false,
        faults: 1,
        ..RULES
    };
    stuck("C11", from_position, Goal::Drained);
}
