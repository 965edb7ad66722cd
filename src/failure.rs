//! Whose fault an error is, whether to try again, and what the operator does next.

use crate::domain::units::{Offset, Partition};

use std::any::Any;
use std::time::Duration;

/// Why a view stopped itself rather than be wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Halt {
    /// Stable name: `log_identity_changed`, `log_truncated`, `permission_denied`, `part_ended`, ...
    pub code: &'static str,
    /// One sentence with partition and offsets.
    pub detail: String,
    /// What the operator does next.
    pub next_step: &'static str,
}

/// What somebody waits for; the first of several is the one that a view is said to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Waiting {
    /// Postgres, without which nothing at all goes on.
    Database,
    /// Kafka, without which nothing new comes.
    Kafka,
    /// The schema registry, without which records of unknown schemas stand.
    Registry,
}

/// What went wrong with a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Postgres does not take the batch now: wait, then try it again.
    Retry(String),
    /// Postgres lets this session read only, as it does after a failover: wait, then try again with another session.
    ReadOnly(String),
    /// Kafka does not answer: wait, then try again.
    KafkaAway(String),
    /// The schema registry does not answer as it should: wait, then try again.
    RegistryAway(String),
    /// The registry is well and does not know the schema of this record: its partition stops before it, nobody else does.
    UnknownSchema {
        /// Its partition.
        partition: Partition,
        /// Where it stands there.
        offset: Offset,
        /// What the registry says, and what can be done.
        detail: String,
    },
    /// The first so many records of the attempt can go; what stands behind them cannot yet.
    FirstOnly(usize),
    /// Postgres gave up on the batch for its size or time: try less of it.
    TooMuch(String),
    /// A record of the batch: find it, dead-letter it.
    Record(String),
    /// An event id of the batch is the latest of another key: find out whose, dead-letter the event.
    ReusedEventId {
        /// What Postgres says.
        detail: String,
        /// The ids that the batch wrote.
        event_ids: Vec<String>,
    },
    /// The cached state is not what is stored: load again, try again.
    Stale,
    /// Something was decided after the batch was folded: fold it again. The new number of decisions by partition.
    Decided(Vec<(Partition, i64)>),
    /// Another instance owns these partitions: let them go.
    Fenced(Vec<Partition>),
    /// Going on would be wrong.
    Halt(Halt),
}

impl Failure {
    /// A halt.
    pub fn halt(code: &'static str, detail: impl Into<String>, next_step: &'static str) -> Failure {
        Failure::Halt(Halt { code, detail: detail.into(), next_step })
    }

    /// A stable name, for whoever looks at traces; a halt has its code.
    pub fn name(&self) -> &'static str {
        match self {
            Failure::Retry(_) => "database_away",
            Failure::ReadOnly(_) => "database_read_only",
            Failure::KafkaAway(_) => "kafka_away",
            Failure::RegistryAway(_) => "registry_away",
            Failure::UnknownSchema { .. } => "unknown_schema",
            Failure::FirstOnly(_) => "schema_needed",
            Failure::TooMuch(_) => "too_much",
            Failure::Record(_) => "record_refused",
            Failure::ReusedEventId { .. } => "event_id_reused",
            Failure::Stale => "stale",
            Failure::Decided(_) => "decided_meanwhile",
            Failure::Fenced(_) => "fenced",
            Failure::Halt(halt) => halt.code,
        }
    }

    /// What follows for a part that has no batch to halve and no record to refuse: it waits and tries again, or the view
    /// halts.
    pub fn wait_or_halt(self) -> Result<(Waiting, String), Halt> {
        match self {
            Failure::Halt(halt) => Err(halt),
            Failure::KafkaAway(reason) => Ok((Waiting::Kafka, reason)),
            Failure::RegistryAway(reason) => Ok((Waiting::Registry, reason)),
            Failure::Retry(reason) | Failure::ReadOnly(reason) | Failure::TooMuch(reason) | Failure::Record(reason) => {
                Ok((Waiting::Database, reason))
            }
            other => Ok((Waiting::Database, format!("{other:?}"))),
        }
    }
}

/// What a panic said.
pub fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text").to_owned()
}

/// Exponential backoff with full jitter: 50 ms doubling to 5 s, each wait drawn between half and all of it.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// How long to wait after one more failure.
    pub fn next_wait(&mut self) -> Duration {
        let ceiling = 50u64.saturating_mul(1 << self.failures.min(10)).min(5_000);
        self.failures = self.failures.saturating_add(1);
        Duration::from_millis(fastrand::u64(ceiling / 2..=ceiling))
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

/// So many times in a row may what was loaded not be what is stored: two lanes on one key take turns.
const MOST_STALE: u32 = 20;

/// Attempts at one thing that have failed since the last one that did not.
#[derive(Debug, Default)]
pub struct Tries {
    backoff: Backoff,
    stale: u32,
}

impl Tries {
    /// Counts one attempt that has failed.
    pub fn count(&mut self, failure: &Failure) {
        // Whoever waited for somebody who was away has not met anybody on its key meanwhile.
        self.stale = if matches!(failure, Failure::Stale) { self.stale.saturating_add(1) } else { 0 };
    }

    /// Whether what was loaded is not what is stored again and again: nobody else is that often in between.
    pub fn are_stale_for_ever(&self) -> bool {
        self.stale > MOST_STALE
    }

    /// How long to wait for the next one.
    pub fn next_wait(&mut self) -> Duration {
        self.backoff.next_wait()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_bounded() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..20).map(|_| backoff.next_wait().as_millis()).collect();
        assert!((25..=50).contains(&waits[0]), "{waits:?}");
        assert!(waits[10..].iter().all(|wait| (2_500..=5_000).contains(wait)), "{waits:?}");
    }

    #[test]
    fn only_stale_attempts_in_a_row_are_a_bug() {
        let mut tries = Tries::default();
        let mut fail = |failure: &Failure, times: u32| {
            for _ in 0..times {
                tries.count(failure);
                tries.next_wait();
            }
            tries.are_stale_for_ever()
        };
        let away = Failure::KafkaAway("no broker answers".to_owned());
        assert!(!fail(&away, 100), "nobody is on the key");
        assert!(!fail(&Failure::Stale, 1), "the first one behind an outage");
        assert!(!fail(&Failure::Stale, MOST_STALE - 1));
        assert!(!fail(&away, 1) && !fail(&Failure::Stale, MOST_STALE), "counted anew");
        assert!(fail(&Failure::Stale, 1));
    }
}
