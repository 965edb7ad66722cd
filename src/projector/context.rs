//! What every part of one running view shares.

use std::collections::HashMap;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::config::{DatabaseSettings, GapPolicy, KafkaSettings, ProjectorSettings};
use crate::domain::meaning::Meaning;
use crate::domain::units::Partition;
use crate::engine::fold::FoldLimits;
use crate::projector::compaction::CompactionCheck;
use crate::projector::guard::LogGuard;
use crate::schemas::SchemaSource;
use crate::status::ViewStatus;
use crate::store::blocked::SkippedRange;
use crate::store::progress::BuildSource;
use crate::telemetry::metrics::Metrics;

/// Offsets that no build applies, by partition.
pub type SkippedRanges = HashMap<Partition, Vec<SkippedRange>>;

/// Shared by lanes, coordinator, relay and observer of one view.
pub struct ViewContext {
    /// View, build and topic.
    pub source: BuildSource,
    /// Dead-letter topic.
    pub dlq_topic: String,
    /// This process, as progress rows and logs name it.
    pub owner: String,
    /// State for the rest of the process.
    pub status: Arc<ViewStatus>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Settings.
    pub kafka: KafkaSettings,
    /// Settings.
    pub database: DatabaseSettings,
    /// Settings.
    pub settings: ProjectorSettings,
    /// What the rows of the build mean.
    pub meaning: Meaning,
    /// What is done about proven gaps.
    pub gap_policy: GapPolicy,
    /// Watches the log's identity.
    pub guard: LogGuard,
    /// Whether the broker compacts the topic.
    pub compaction: CompactionCheck,
    /// Schemas of framed records.
    pub schemas: SchemaSource,
    /// Wakes the relay after a commit with dead letters.
    pub new_dead_letters: Notify,
    /// Events parked over all partitions, as last counted plus what this process changed since.
    pub parked_total: AtomicI64,
    /// Whether the build is being filled in bulk by us: nobody else may take partitions over meanwhile.
    pub is_filling: bool,
    /// What operators have skipped. It changes only together with the fence, so each takeover reads it anew.
    pub skipped: Mutex<SkippedRanges>,
}

impl ViewContext {
    /// Bounds for one fold.
    pub fn fold_limits(&self) -> FoldLimits {
        let parked = self.parked_total.load(std::sync::atomic::Ordering::Relaxed);
        FoldLimits {
            history: self.meaning.rules.history,
            record: crate::codec::Limits {
                max_record_bytes: self.settings.max_record_bytes,
                first_sequence: self.meaning.rules.first_sequence,
            },
            max_parked_per_key: i32::try_from(self.settings.max_parked_per_key).unwrap_or(i32::MAX),
            parked_budget: i64::try_from(self.settings.max_parked_total).unwrap_or(i64::MAX) - parked,
        }
    }

    /// What operators have skipped, as of the last takeover of each partition.
    pub fn skipped(&self) -> SkippedRanges {
        self.skipped.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what operators have skipped of a partition.
    pub fn set_skipped(&self, partition: Partition, ranges: Vec<SkippedRange>) {
        let mut skipped = self.skipped.lock().unwrap_or_else(PoisonError::into_inner);
        if ranges.is_empty() {
            skipped.remove(&partition)
        } else {
            skipped.insert(partition, ranges)
        };
    }
}
