//! Producers' ids and the transactions of those that have a transactional id: who is fenced, which partitions and
//! offsets the open transaction holds, and when it times out.
//!
//! Owns no records: ending a transaction yields what is to be done ([`Ended`]), and the state applies it to the
//! logs and the groups. Never reads a clock.
//!
//! Source: KIP-98, KIP-360, KIP-447.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use kafka_protocol::error::ResponseError;

use crate::batch::Outcome;
use crate::offsets::Committed;

/// A producer's id and epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Producer {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
}

/// An offset committed inside a transaction, not yet in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PendingOffset {
    pub(crate) group: String,
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) committed: Committed,
}

/// A transaction that just ended: markers are to be written to `partitions`, and `offsets` committed or dropped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) producer: Producer,
    pub(crate) outcome: Outcome,
    pub(crate) partitions: BTreeSet<(String, i32)>,
    pub(crate) offsets: Vec<PendingOffset>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// None was begun since the last `init`.
    Idle,
    /// Begun, and to be aborted at this time.
    Open { until: Instant },
    /// The last one ended so; a repeated end is acknowledged again.
    Ended(Outcome),
}

#[derive(Debug)]
struct Transaction {
    producer: Producer,
    timeout: Duration,
    phase: Phase,
    partitions: BTreeSet<(String, i32)>,
    groups: BTreeSet<String>,
    offsets: Vec<PendingOffset>,
}

impl Transaction {
    fn end(&mut self, outcome: Outcome) -> Ended {
        self.phase = Phase::Ended(outcome);
        self.groups.clear();
        Ended {
            producer: self.producer,
            outcome,
            partitions: std::mem::take(&mut self.partitions),
            offsets: std::mem::take(&mut self.offsets),
        }
    }

    fn abort_if_open(&mut self) -> Option<Ended> {
        matches!(self.phase, Phase::Open { .. }).then(|| self.end(Outcome::Abort))
    }

    fn open(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Open { .. }) {
            self.phase = Phase::Open {
                until: now + self.timeout,
            };
        }
    }
}

/// All producers that asked for an id.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    last_id: i64,
    by_name: HashMap<String, Transaction>,
}

impl Transactions {
    /// An id for a producer without a transactional id.
    pub(crate) fn new_producer(&mut self) -> Producer {
        self.last_id += 1;
        Producer {
            id: self.last_id,
            epoch: 0,
        }
    }

    /// The id of a transactional producer, one epoch on, which fences whoever used it before; the transaction it
    /// left open is aborted. `expected` is what a producer that recovers believes itself to be.
    ///
    /// # Errors
    /// `InvalidTransactionTimeout` for zero, `InvalidProducerEpoch` when `expected` is fenced already.
    pub(crate) fn init(
        &mut self,
        name: &str,
        timeout: Duration,
        expected: Option<Producer>,
    ) -> Result<(Producer, Option<Ended>), ResponseError> {
        if timeout.is_zero() {
            return Err(ResponseError::InvalidTransactionTimeout);
        }
        let fresh = self.new_producer();
        let Some(transaction) = self.by_name.get_mut(name) else {
            let transaction = Transaction {
                producer: fresh,
                timeout,
                phase: Phase::Idle,
                partitions: BTreeSet::new(),
                groups: BTreeSet::new(),
                offsets: Vec::new(),
            };
            self.by_name.insert(name.to_owned(), transaction);
            return Ok((fresh, None));
        };
        if expected.is_some_and(|expected| expected != transaction.producer) {
            return Err(ResponseError::InvalidProducerEpoch);
        }
        let ended = transaction.abort_if_open();
        transaction.producer = match transaction.producer.epoch.checked_add(1) {
            Some(epoch) if epoch < i16::MAX => Producer {
                epoch,
                ..transaction.producer
            },
            Some(_) | None => fresh,
        };
        transaction.timeout = timeout;
        transaction.phase = Phase::Idle;
        Ok((transaction.producer, ended))
    }

    /// The producer is about to write to a partition.
    ///
    /// # Errors
    /// The protocol's error for a producer that is unknown or fenced.
    pub(crate) fn add_partition(
        &mut self,
        now: Instant,
        name: &str,
        producer: Producer,
        partition: (String, i32),
    ) -> Result<(), ResponseError> {
        let transaction = self.authentic(name, producer)?;
        transaction.open(now);
        transaction.partitions.insert(partition);
        Ok(())
    }

    /// The producer is about to commit offsets of a group.
    ///
    /// # Errors
    /// The protocol's error for a producer that is unknown or fenced.
    pub(crate) fn add_group(
        &mut self,
        now: Instant,
        name: &str,
        producer: Producer,
        group: &str,
    ) -> Result<(), ResponseError> {
        let transaction = self.authentic(name, producer)?;
        transaction.open(now);
        transaction.groups.insert(group.to_owned());
        Ok(())
    }

    /// Keeps an offset until the transaction ends.
    ///
    /// # Errors
    /// The protocol's error for a producer that is unknown or fenced, `InvalidTxnState` when the group was not
    /// added first.
    pub(crate) fn add_offset(
        &mut self,
        name: &str,
        producer: Producer,
        offset: PendingOffset,
    ) -> Result<(), ResponseError> {
        let transaction = self.authentic(name, producer)?;
        if !transaction.groups.contains(&offset.group) {
            return Err(ResponseError::InvalidTxnState);
        }
        transaction.offsets.push(offset);
        Ok(())
    }

    /// Whether the producer may write to the partition in its open transaction.
    ///
    /// # Errors
    /// The protocol's error for a producer that is unknown or fenced, `InvalidTxnState` when the partition was not
    /// added first.
    pub(crate) fn check_write(
        &mut self,
        name: &str,
        producer: Producer,
        partition: &(String, i32),
    ) -> Result<(), ResponseError> {
        let transaction = self.authentic(name, producer)?;
        let added = matches!(transaction.phase, Phase::Open { .. })
            && transaction.partitions.contains(partition);
        if added {
            Ok(())
        } else {
            Err(ResponseError::InvalidTxnState)
        }
    }

    /// Ends the open transaction; `None` when this end is a repeat.
    ///
    /// # Errors
    /// The protocol's error for a producer that is unknown or fenced, `InvalidTxnState` when there is nothing to
    /// end, or it ended the other way.
    pub(crate) fn end(
        &mut self,
        name: &str,
        producer: Producer,
        outcome: Outcome,
    ) -> Result<Option<Ended>, ResponseError> {
        let transaction = self.authentic(name, producer)?;
        match transaction.phase {
            Phase::Open { .. } => Ok(Some(transaction.end(outcome))),
            Phase::Ended(last) if last == outcome => Ok(None),
            Phase::Ended(_) | Phase::Idle => Err(ResponseError::InvalidTxnState),
        }
    }

    /// Aborts the transactions that took too long, and fences their producers.
    pub(crate) fn tick(&mut self, now: Instant) -> Vec<Ended> {
        let mut ended = Vec::new();
        for (name, transaction) in &mut self.by_name {
            if matches!(transaction.phase, Phase::Open { until } if until <= now) {
                tracing::info!(transaction = name, "transaction timed out and was aborted");
                ended.push(transaction.end(Outcome::Abort));
                transaction.producer.epoch = transaction.producer.epoch.saturating_add(1);
            }
        }
        ended
    }

    /// When [`Transactions::tick`] has something to do next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let until = |transaction: &Transaction| match transaction.phase {
            Phase::Open { until } => Some(until),
            Phase::Idle | Phase::Ended(_) => None,
        };
        self.by_name.values().filter_map(until).min()
    }

    /// Whether an open transaction holds an offset of the group for this partition: what is committed is unstable.
    pub(crate) fn holds_offset(&self, group: &str, topic: &str, partition: i32) -> bool {
        let holds =
            |o: &PendingOffset| o.group == group && o.topic == topic && o.partition == partition;
        self.by_name
            .values()
            .any(|transaction| transaction.offsets.iter().any(holds))
    }

    fn authentic(
        &mut self,
        name: &str,
        producer: Producer,
    ) -> Result<&mut Transaction, ResponseError> {
        let transaction = self
            .by_name
            .get_mut(name)
            .ok_or(ResponseError::InvalidProducerIdMapping)?;
        if transaction.producer.id != producer.id {
            return Err(ResponseError::InvalidProducerIdMapping);
        }
        if transaction.producer.epoch != producer.epoch {
            return Err(ResponseError::InvalidProducerEpoch);
        }
        Ok(transaction)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn offset(value: i64) -> PendingOffset {
        let committed = Committed {
            offset: value,
            leader_epoch: -1,
            metadata: String::new(),
        };
        PendingOffset {
            group: "g".into(),
            topic: "in".into(),
            partition: 0,
            committed,
        }
    }

    #[test]
    fn a_transaction_yields_its_partitions_and_offsets_once() {
        let now = Instant::now();
        let mut transactions = Transactions::default();
        let (producer, ended) = transactions.init("x", TIMEOUT, None).unwrap();
        assert_eq!((producer.epoch, ended), (0, None));
        let partition = ("out".to_owned(), 1);
        assert_eq!(
            transactions.check_write("x", producer, &partition),
            Err(ResponseError::InvalidTxnState)
        );
        transactions
            .add_partition(now, "x", producer, partition.clone())
            .unwrap();
        assert_eq!(transactions.check_write("x", producer, &partition), Ok(()));
        assert_eq!(
            transactions.add_offset("x", producer, offset(5)),
            Err(ResponseError::InvalidTxnState)
        );
        transactions.add_group(now, "x", producer, "g").unwrap();
        transactions.add_offset("x", producer, offset(5)).unwrap();
        assert!(
            transactions.holds_offset("g", "in", 0) && !transactions.holds_offset("g", "in", 1)
        );

        let ended = transactions
            .end("x", producer, Outcome::Commit)
            .unwrap()
            .unwrap();
        assert_eq!(
            (ended.partitions.len(), ended.offsets),
            (1, vec![offset(5)])
        );
        assert!(!transactions.holds_offset("g", "in", 0));
        assert_eq!(transactions.end("x", producer, Outcome::Commit), Ok(None));
        assert_eq!(
            transactions.end("x", producer, Outcome::Abort),
            Err(ResponseError::InvalidTxnState)
        );
    }

    #[test]
    fn init_fences_and_aborts() {
        let now = Instant::now();
        let mut transactions = Transactions::default();
        let (old, _) = transactions.init("x", TIMEOUT, None).unwrap();
        transactions
            .add_partition(now, "x", old, ("out".into(), 0))
            .unwrap();
        let (new, ended) = transactions.init("x", TIMEOUT, None).unwrap();
        assert_eq!(new, Producer { epoch: 1, ..old });
        assert_eq!(ended.unwrap().outcome, Outcome::Abort);
        let fenced = Err(ResponseError::InvalidProducerEpoch);
        assert_eq!(
            transactions.add_partition(now, "x", old, ("out".into(), 0)),
            fenced
        );
        assert_eq!(
            transactions.init("x", TIMEOUT, Some(old)).unwrap_err(),
            ResponseError::InvalidProducerEpoch
        );
        assert!(transactions.init("x", TIMEOUT, Some(new)).is_ok());
        let stranger = Producer { id: 99, epoch: 0 };
        assert_eq!(
            transactions.end("x", stranger, Outcome::Commit),
            Err(ResponseError::InvalidProducerIdMapping)
        );
    }

    #[test]
    fn a_transaction_past_its_time_is_aborted_and_its_producer_fenced() {
        let now = Instant::now();
        let mut transactions = Transactions::default();
        let (producer, _) = transactions.init("x", TIMEOUT, None).unwrap();
        assert_eq!(transactions.next_deadline(), None);
        transactions
            .add_partition(now, "x", producer, ("out".into(), 0))
            .unwrap();
        assert_eq!(transactions.next_deadline(), Some(now + TIMEOUT));
        assert!(
            transactions
                .tick(now + TIMEOUT - Duration::from_millis(1))
                .is_empty()
        );
        assert_eq!(transactions.tick(now + TIMEOUT).len(), 1);
        assert_eq!(
            transactions.end("x", producer, Outcome::Commit),
            Err(ResponseError::InvalidProducerEpoch)
        );
    }

    #[test]
    fn epochs_that_run_out_get_a_new_id() {
        let mut transactions = Transactions::default();
        let (first, _) = transactions.init("x", TIMEOUT, None).unwrap();
        transactions.by_name.get_mut("x").unwrap().producer.epoch = i16::MAX - 1;
        let (next, _) = transactions.init("x", TIMEOUT, None).unwrap();
        assert_ne!(next.id, first.id);
        assert_eq!(next.epoch, 0);
    }
}
