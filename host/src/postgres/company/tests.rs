//! [`Company`] on a made-up server: lanes that are fenced, refused, dropped at any moment and left in doubt, by seeds.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::cell::Cell;
use std::collections::BTreeMap;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::*;
use crate::error::Error;

const PARTITIONS: i32 = 6;
const RECORDS: i64 = 30;
/// The server refuses this record of every partition.
const REFUSED: i64 = 17;

#[derive(Clone, Debug)]
struct Parcel {
    partition: i32,
    epoch: u32,
    from: i64,
    to: i64,
    sets_aside: bool,
    bytes: usize,
}

impl Load for Parcel {
    fn partition(&self) -> i32 {
        self.partition
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A server with two connections, and what goes wrong there.
struct Server {
    connections: Semaphore,
    dice: Cell<u64>,
    faults: Cell<u32>,
    /// Epoch and next offset.
    positions: RefCell<BTreeMap<i32, (u32, i64)>>,
    /// How often each record's row is there.
    rows: RefCell<BTreeMap<(i32, i64), u32>>,
    dead: RefCell<Vec<(i32, i64)>>,
    /// Partitions of every transaction that came.
    carried: RefCell<Vec<Vec<i32>>>,
}

impl Server {
    fn new(seed: u64) -> Self {
        let positions = (0..PARTITIONS).map(|partition| (partition, (0, 0)));
        Self {
            connections: Semaphore::new(2),
            dice: Cell::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            faults: Cell::new(0),
            positions: RefCell::new(positions.collect()),
            rows: RefCell::default(),
            dead: RefCell::default(),
            carried: RefCell::default(),
        }
    }

    fn roll(&self, sides: u64) -> u64 {
        let mut state = self.dice.get();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.dice.set(state);
        (state >> 11) % sides
    }

    /// Whether a fault that is left happens now.
    fn fails(&self, sides: u64) -> bool {
        let fails = self.faults.get() > 0 && self.roll(sides) == 0;
        if fails {
            self.faults.set(self.faults.get() - 1);
        }
        fails
    }

    async fn rest(&self, most: u64) {
        for _ in 0..self.roll(most) {
            tokio::task::yield_now().await;
        }
    }

    fn claim(&self, partition: i32) -> (u32, i64) {
        let mut positions = self.positions.borrow_mut();
        let position = positions.get_mut(&partition).unwrap();
        position.0 += 1;
        *position
    }

    fn next(&self, partition: i32) -> i64 {
        self.positions.borrow()[&partition].1
    }

    fn execute(&self, flights: &[Parcel]) -> Result<(), CommitError> {
        let error = |what: &str| Error::outside("fly", what);
        let mut positions = self.positions.borrow_mut();
        for flight in flights {
            if positions[&flight.partition] != (flight.epoch, flight.from) {
                return Err(CommitError::Fenced(error("fenced")));
            }
            if (flight.from..flight.to).contains(&REFUSED) && !flight.sets_aside {
                return Err(CommitError::Refused(error("refused")));
            }
        }
        for flight in flights {
            positions.get_mut(&flight.partition).unwrap().1 = flight.to;
            for offset in flight.from..flight.to {
                let at = (flight.partition, offset);
                if flight.sets_aside {
                    self.dead.borrow_mut().push(at);
                } else {
                    *self.rows.borrow_mut().entry(at).or_default() += 1;
                }
            }
        }
        Ok(())
    }
}

impl<'a> Carrier for &'a Server {
    type Lease = SemaphorePermit<'a>;
    type Cargo = Parcel;

    async fn lease(&self) -> Result<Self::Lease, CommitError> {
        let permit = self.connections.acquire().await.unwrap();
        self.rest(4).await;
        if self.fails(40) {
            let error = Error::outside("connect", "no connection");
            return Err(CommitError::RolledBack(error));
        }
        Ok(permit)
    }

    async fn carry(&self, _lease: Self::Lease, flights: &[Parcel]) -> Result<(), CommitError> {
        let partitions = flights.iter().map(Load::partition).collect();
        self.carried.borrow_mut().push(partitions);
        self.rest(12).await;
        if self.fails(40) {
            return Err(failure::unknown("the connection ended on the way there"));
        }
        if self.fails(40) {
            let error = Error::outside("fly", "deadlock");
            return Err(CommitError::RolledBack(error));
        }
        let outcome = self.execute(flights);
        self.rest(6).await;
        if self.fails(40) {
            return Err(failure::unknown("the connection ended on the way back"));
        }
        outcome
    }

    fn unload(&self, _: Vec<Parcel>) {}
}

/// As the anchor does it.
async fn commit(
    server: &Server,
    company: &Company<Parcel>,
    flight: &Parcel,
) -> Result<(), CommitError> {
    if company.takes(flight.partition)
        && let Fate::Known(outcome) = company.fly(&server, flight.clone()).await
    {
        return outcome;
    }
    let lease = (&server).lease().await?;
    let outcome = (&server).carry(lease, std::slice::from_ref(flight)).await;
    if outcome.is_err() {
        company.set_apart(flight.partition);
    }
    outcome
}

/// Brings a partition to its end, claiming anew whenever it does not know where it stands.
async fn lane(server: &Server, company: &Company<Parcel>, partition: i32) {
    'claims: loop {
        let (epoch, mut next) = server.claim(partition);
        let mut most = 3;
        while next < RECORDS {
            let to = (next + 1 + i64::try_from(server.roll(most)).unwrap()).min(RECORDS);
            let mut flight = Parcel {
                partition,
                epoch,
                from: next,
                to,
                sets_aside: false,
                bytes: 10,
            };
            loop {
                let dropped = async {
                    if !server.fails(30) {
                        std::future::pending::<()>().await;
                    }
                    server.rest(20).await;
                };
                let outcome = tokio::select! {
                    biased;
                    outcome = commit(server, company, &flight) => outcome,
                    () = dropped => continue 'claims,
                };
                match outcome {
                    Ok(()) => {
                        let (newest, next) = server.positions.borrow()[&partition];
                        assert!(newest != epoch || next == flight.to, "told wrong");
                        break;
                    }
                    Err(CommitError::RolledBack(_)) => {}
                    Err(CommitError::Refused(_)) if flight.to > flight.from + 1 => {
                        flight.to = flight.from + 1;
                        most = 1;
                    }
                    Err(CommitError::Refused(_)) => {
                        assert_eq!(flight.from, REFUSED, "of {partition}: another's fault");
                        flight.sets_aside = true;
                    }
                    Err(_) => continue 'claims,
                }
            }
            next = flight.to;
        }
        return;
    }
}

/// Another host that claims now and then, and gives up.
async fn rival(server: &Server) {
    for _ in 0..server.roll(4) {
        server.rest(60).await;
        server.claim(i32::try_from(server.roll(6)).unwrap());
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().build().unwrap();
    let limit = std::time::Duration::from_secs(60);
    let ended = runtime.block_on(async { tokio::time::timeout(limit, future).await });
    ended.expect("a lane hangs")
}

#[test]
fn random_faults_lose_and_double_nothing() {
    let mut together = 0;
    for seed in 0..1500 {
        let server = Server::new(seed);
        server.faults.set(u32::try_from(server.roll(7)).unwrap());
        let company = Company::default();
        block_on(async {
            let lanes = (0..PARTITIONS).map(|partition| lane(&server, &company, partition));
            futures_util::join!(futures_util::future::join_all(lanes), rival(&server));
        });
        let rows = server.rows.borrow();
        for partition in 0..PARTITIONS {
            assert_eq!(server.next(partition), RECORDS, "seed {seed}");
            for offset in 0..RECORDS {
                let times = rows.get(&(partition, offset)).copied().unwrap_or(0);
                let wanted = u32::from(offset != REFUSED);
                assert_eq!(times, wanted, "seed {seed}: {partition}/{offset}");
            }
        }
        let mut dead = server.dead.take();
        dead.sort_unstable();
        let wanted = (0..PARTITIONS).map(|partition| (partition, REFUSED));
        assert_eq!(dead, wanted.collect::<Vec<_>>(), "seed {seed}");
        assert!(company.waiting.borrow().is_empty() && !company.led.get());
        let carried = server.carried.take();
        assert!(carried.iter().all(|partitions| partitions.is_sorted()));
        together += carried.iter().filter(|flights| flights.len() > 1).count();
    }
    assert!(together > 1500, "{together}");
}

fn parcel(partition: i32, bytes: usize) -> Parcel {
    Parcel {
        partition,
        epoch: 0,
        from: 0,
        to: 1,
        sets_aside: false,
        bytes,
    }
}

/// Flights of these bytes that wait while the only connection is taken; the transactions they make.
fn carried(bytes: &[usize]) -> Vec<usize> {
    let server = Server::new(1);
    let more = i32::try_from(bytes.len()).unwrap();
    let positions = (0..more).map(|partition| (partition, (0, 0)));
    server.positions.replace(positions.collect());
    let (company, carrier) = (Company::default(), &server);
    let fates = block_on(async {
        server.connections.forget_permits(1);
        let taken = server.connections.acquire().await.unwrap();
        let flights = (0..)
            .zip(bytes)
            .map(|(partition, bytes)| company.fly(&carrier, parcel(partition, *bytes)));
        let free = async {
            tokio::task::yield_now().await;
            drop(taken);
        };
        futures_util::join!(futures_util::future::join_all(flights), free).0
    });
    assert!(fates.iter().all(|fate| matches!(fate, Fate::Known(Ok(())))));
    let carried = server.carried.take();
    carried.iter().map(Vec::len).collect()
}

#[test]
fn a_transaction_is_bounded_in_flights_and_bytes() {
    assert_eq!(carried(&[1; 5]), [5]);
    let three = MOST_BYTES / 3;
    assert_eq!(carried(&[three; 7]), [3, 3, 1]);
    assert_eq!(carried(&[MOST_BYTES; 3]), [1, 1, 1]);
    assert_eq!(carried(&[1; MOST_FLIGHTS + 2]), [MOST_FLIGHTS, 2]);
}

#[test]
fn a_flight_does_not_wait_for_company() {
    let server = Server::new(1);
    let company = Company::default();
    block_on(async {
        for partition in 0..3 {
            let fate = company.fly(&&server, parcel(partition, 1)).await;
            assert!(matches!(fate, Fate::Known(Ok(()))), "{fate:?}");
        }
    });
    assert_eq!(server.carried.take(), [[0], [1], [2]]);
}

#[test]
fn a_lane_whose_flight_fails_without_company_takes_nobody_along_next() {
    let server = Server::new(1);
    let company = Company::default();
    let mut flight = parcel(3, 1);
    flight.epoch = 7;
    let fate = block_on(company.fly(&&server, flight));
    assert!(
        matches!(fate, Fate::Known(Err(CommitError::Fenced(_)))),
        "{fate:?}"
    );
    assert!(!company.takes(3) && company.takes(2));
}
