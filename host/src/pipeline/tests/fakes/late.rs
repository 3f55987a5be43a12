//! Requests on their way without their senders: they arrive with the next one, after a later claim or before it.

use super::anchor::FakeAnchor;
use super::lazy::Mark;
use super::script::Broken;
use crate::anchor::{Claim, Cut, Ledger, Pin};

/// A commit on its way without its sender.
#[derive(Debug)]
pub(super) struct Late {
    pub(super) claim: Claim,
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) hlc: i64,
    pub(super) ledger: Ledger,
    pub(super) here: Vec<(i64, i64)>,
    pub(super) dead: Vec<(i64, String)>,
    pub(super) release: i64,
}

/// A pin on its way without its sender.
#[derive(Debug)]
pub(super) struct LatePin {
    pub(super) claim: Claim,
    pub(super) next: i64,
    pub(super) reserved: i64,
    pub(super) cuts: Vec<Cut>,
}

impl FakeAnchor {
    /// What was on its way arrives now.
    pub(super) async fn arrive(&self) {
        let (late, pins) = {
            let mut store = self.store.lock();
            (
                std::mem::take(&mut store.late),
                std::mem::take(&mut store.late_pins),
            )
        };
        for late in late {
            let unchecked = self.store.lock().broken == Broken::CompareAndSet;
            let to = Mark {
                next: late.to,
                reserved: 0,
                hlc: late.hlc,
                ledger: late.ledger,
            };
            let landed = self.move_position(&late.claim, late.from, to).await;
            if landed.is_ok() || unchecked {
                let range = (late.from, late.to);
                self.record(range, late.hlc, &late.here, late.dead, late.release);
            }
        }
        for late in pins {
            let pin = Pin {
                reserved: late.reserved,
                cuts: &late.cuts,
            };
            self.store_pin(&late.claim, late.next, pin).await.ok();
        }
    }
}
