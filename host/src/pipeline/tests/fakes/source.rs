//! [`Scripted`]: a source that does as a script says, on its own thread as real ones; [`Stage`] is what scripts use.

use std::cell::Cell;
use std::sync::mpsc as blocking;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::error::Error;
use crate::source::{Inlet, Source, SourceCommand, SourceEvent};

/// What a script of a source uses.
pub(in super::super) struct Stage {
    pub(in super::super) events: mpsc::UnboundedSender<SourceEvent>,
    pub(in super::super) commands: blocking::Receiver<SourceCommand>,
    over: Cell<bool>,
}

impl Stage {
    pub(in super::super) fn assign(&self, partitions: &[i32]) {
        self.events
            .send(SourceEvent::Assigned(partitions.to_vec()))
            .unwrap();
    }

    /// Waits for a start; everything else on the way is passed over.
    pub(in super::super) fn started(&self) -> (i32, i64, Inlet) {
        loop {
            match self.commands.recv_timeout(Duration::from_secs(5)).unwrap() {
                SourceCommand::Start {
                    partition,
                    position,
                    inlet,
                } => return (partition, position, inlet),
                SourceCommand::Advise {
                    taken: Some(taken), ..
                } => drop(taken.send(true)),
                _ => {}
            }
        }
    }

    /// Whether a start comes within a time.
    pub(in super::super) fn starts_within(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        while Instant::now() < until {
            if let Ok(SourceCommand::Start { .. }) =
                self.commands.recv_timeout(Duration::from_millis(5))
            {
                return true;
            }
        }
        false
    }

    pub(in super::super) fn revoke(&self, partitions: &[i32]) -> blocking::Receiver<()> {
        let (done, answered) = blocking::sync_channel(1);
        let partitions = partitions.to_vec();
        self.events
            .send(SourceEvent::Revoked { partitions, done })
            .unwrap();
        answered
    }

    pub(in super::super) fn until_shutdown(&self) {
        while !self.over.get() {
            let command = self.commands.recv_timeout(Duration::from_secs(10)).unwrap();
            self.over.set(matches!(command, SourceCommand::Shutdown));
        }
    }
}

pub(in super::super) type Script = Box<dyn FnOnce(&Stage) + Send>;

pub(in super::super) struct Scripted(pub(in super::super) Script);

impl Source for Scripted {
    fn run(
        self: Box<Self>,
        events: mpsc::UnboundedSender<SourceEvent>,
        commands: blocking::Receiver<SourceCommand>,
    ) -> Result<(), Error> {
        let over = Cell::new(false);
        let stage = Stage {
            events,
            commands,
            over,
        };
        (self.0)(&stage);
        stage.until_shutdown();
        Ok(())
    }
}
