//! What happened to the records of a pipeline, counted when it is committed and never before.
//!
//! The balance `received = emitted + filtered + dead` holds at every instant a reader looks at committed
//! flights; a lane adds one flight's numbers under one short lock so that no reader sees half of them.

use parking_lot::Mutex;

/// Committed numbers of a pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    /// Records read and settled.
    pub received: u64,
    /// Records that became at least one row.
    pub emitted: u64,
    /// Records the plugin dropped on purpose.
    pub filtered: u64,
    /// Records set aside.
    pub dead: u64,
    /// Rows by route index, before merging.
    pub rows: Vec<u64>,
    /// Flights committed.
    pub flights: u64,
    /// Attempts that had to be repeated.
    pub retries: u64,
}

/// Shared counters of a pipeline.
#[derive(Debug)]
pub struct Counters {
    // Taken once a flight, never across an await.
    totals: Mutex<Totals>,
}

impl Counters {
    /// Zero everywhere.
    #[must_use]
    pub fn new(routes: usize) -> Self {
        Self {
            totals: Mutex::new(Totals {
                rows: vec![0; routes],
                ..Totals::default()
            }),
        }
    }

    /// Adds a committed flight.
    pub fn add(&self, flight: &Totals) {
        let mut totals = self.totals.lock();
        totals.received += flight.received;
        totals.emitted += flight.emitted;
        totals.filtered += flight.filtered;
        totals.dead += flight.dead;
        totals.flights += flight.flights;
        for (all, added) in totals.rows.iter_mut().zip(&flight.rows) {
            *all += added;
        }
    }

    /// Counts one attempt that has to be repeated.
    pub fn retry(&self) {
        self.totals.lock().retries += 1;
    }

    /// The numbers now.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals.lock().clone()
    }
}
