//! SIGINT and SIGTERM for commands that run until they are told to stop.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::Error;
use crate::task;

/// Both signals, from the moment this was made: one that comes while nobody waits is seen by the next wait.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes the signals over from the system's default of ending the process. Needs a runtime around it.
    pub(super) fn listen() -> Result<Self, Error> {
        let listen =
            |kind| signal(kind).map_err(|error| Error::outside("listen for signals", error));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Waits for either. Safe to drop at any await.
    pub(super) async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits for either, on a runtime of its own.
pub(super) fn wait() -> Result<(), Error> {
    task::block_on(async {
        Signals::listen()?.any().await;
        Ok(())
    })
}
