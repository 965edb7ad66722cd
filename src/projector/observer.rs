//! Watches a view from outside its lanes: lag, gauges, and whether Kafka and Postgres answer. Runs in every process,
//! also where nothing is projected.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::config::KafkaSettings;
use crate::crash;
use crate::domain::held::HeldReason;
use crate::domain::lag::{LagHistory, PartitionLag, PartitionPosition};
use crate::domain::units::{NextOffset, Partition};
use crate::failure::Waiting;
use crate::platforms::kafka::log::{LogError, LogReader, Watermarks, no_topic};
use crate::projector::supervisor;
use crate::status::{Pause, Reporter, StatusSnapshot, ViewState, ViewStatus};
use crate::store::observation::{self, Counts, Position};
use crate::store::progress::BuildSource;
use crate::store::read::ReadPool;
use crate::store::sqlstate::describe_read;
use crate::telemetry::metrics::Metrics;

const INTERVAL: Duration = Duration::from_secs(1);
/// Kafka counts as away after this many silent rounds, and lag that was not observed in so many is not shown.
const PATIENCE: u32 = 2;

/// The observer of one view.
pub struct Observer {
    /// View, build and topic.
    pub source: BuildSource,
    /// What it observes into.
    pub status: Arc<ViewStatus>,
    /// Gauges.
    pub metrics: Arc<Metrics>,
    /// Reads Postgres.
    pub pool: ReadPool,
    /// For its log reader.
    pub kafka: KafkaSettings,
    /// Told of the number of parked events, if this process projects.
    pub on_parked: Box<dyn Fn(i64) + Send + Sync>,
}

impl Observer {
    /// Observes until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut histories: HashMap<Partition, LagHistory> = HashMap::new();
        let mut log: Option<Arc<LogReader>> = None;
        let (mut silent, mut unseen) = (0, 0);
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            crash::point("part.observer");
            let opened = match &log {
                Some(log) => Ok(Arc::clone(log)),
                None => LogReader::open(&self.kafka, &self.source.topic).map(Arc::new),
            };
            log = opened.as_ref().ok().cloned();
            let asked = Instant::now();
            let marks = watermarks(opened, &self.source.topic);
            let (marks, stored) = tokio::join!(marks, observation::observe(&self.pool, &self.source));
            match &marks {
                Ok(_) => {
                    silent = 0;
                    self.status.clear(Reporter::Log);
                }
                Err(reason) => {
                    silent += 1;
                    if silent >= PATIENCE {
                        self.status.report(Reporter::Log, Waiting::Kafka, reason);
                    }
                }
            }
            unseen = if marks.is_ok() && stored.is_ok() { 0 } else { unseen + 1 };
            match stored {
                Ok((positions, counts, meaning)) => {
                    self.status.clear(Reporter::Tables);
                    if let Some(meaning) = meaning {
                        self.status.learn(&meaning.or(&self.status.configured));
                    }
                    self.show_counts(counts);
                    if let Ok(marks) = marks {
                        self.show_lags(&mut histories, asked, &marks, &positions);
                    }
                }
                Err(error) => {
                    self.status.report(Reporter::Tables, Waiting::Database, &describe_read(&error));
                }
            }
            if unseen >= PATIENCE {
                self.hide_lags();
            }
            self.show_pauses();
        }
    }

    fn show_counts(&self, counts: Counts) {
        let view = self.source.view;
        for (reason, count) in HeldReason::WORDS.iter().zip(counts.held) {
            self.metrics.held_keys.with_label_values(&[view, reason]).set(count);
        }
        self.metrics.proven_gaps.with_label_values(&[view]).set(counts.proven);
        self.metrics.parked_events.with_label_values(&[view]).set(counts.parked);
        self.metrics.dead_letters_unpublished.with_label_values(&[view]).set(counts.unpublished);
        self.metrics.conservation_difference.with_label_values(&[view]).set(counts.difference);
        let differs = !self.status.differences().is_empty();
        self.metrics.configuration_differs.with_label_values(&[view]).set(differs.into());
        (self.on_parked)(counts.parked);
    }

    fn show_lags(
        &self,
        histories: &mut HashMap<Partition, LagHistory>,
        asked: Instant,
        marks: &[(Partition, Watermarks)],
        positions: &[Position],
    ) {
        let now = Timestamp::now();
        let snapshot = self.status.snapshot();
        let mut lags: Vec<PartitionLag> = Vec::with_capacity(marks.len());
        for (partition, marks) in marks {
            let stored = positions.iter().find(|row| row.partition == *partition);
            // What another process, the owner, found.
            let blocked = stored.and_then(|row| row.blocked.clone());
            let position = PartitionPosition {
                partition: *partition,
                next_offset: stored.map_or(NextOffset::before(marks.low), |row| row.next_offset),
                low_watermark: marks.low,
                high_watermark: marks.high,
                last_record_timestamp: stored.and_then(|row| row.last_record_timestamp),
            };
            let lag = histories.entry(*partition).or_default().observe(
                position,
                now,
                obstacle(&snapshot, *partition).or(blocked),
            );
            let labels = [self.status.group.as_str(), self.source.topic.as_str(), &partition.to_string()];
            self.metrics.consumer_lag.with_label_values(&labels).set(lag.lag);
            self.metrics.consumer_lag_seconds.with_label_values(&labels).set(lag.lag_seconds);
            self.metrics.next_offset.with_label_values(&labels).set(lag.position.next_offset.0);
            lags.push(lag);
        }
        self.status.observe_lags(asked, now, lags);
    }

    /// The last number would be taken for one of now. Other processes may see the same build still: theirs is shown then.
    fn hide_lags(&self) {
        // A build has metrics of its own, so these are all of this view.
        self.metrics.consumer_lag.reset();
        self.metrics.consumer_lag_seconds.reset();
        self.metrics.next_offset.reset();
    }

    fn show_pauses(&self) {
        let snapshot = self.status.snapshot();
        self.metrics.view_paused.with_label_values(&[self.source.view]).set(snapshot.paused.is_some().into());
        for code in Pause::CODES {
            let paused =
                snapshot.partitions.values().filter(|owned| owned.paused.as_ref().is_some_and(|p| p.code == code));
            self.metrics.partitions_paused.with_label_values(&[self.source.view, code]).set(paused.count() as i64);
        }
    }
}

/// Why nobody here consumes the partition, as far as this process knows.
fn obstacle(snapshot: &StatusSnapshot, partition: Partition) -> Option<String> {
    if let Some(standing) = &snapshot.stands {
        return Some(format!("{}: {}", standing.code, standing.detail));
    }
    if let Some(pause) = &snapshot.paused {
        return Some(pause.to_string());
    }
    match &snapshot.state {
        ViewState::Halted(halt) => Some(format!("halted: {}: {}", halt.code, halt.detail)),
        ViewState::WaitingForDatabase => Some("waiting for the database".to_owned()),
        ViewState::WaitingForKafka => Some("waiting for Kafka".to_owned()),
        ViewState::WaitingForRegistry => Some("waiting for the schema registry".to_owned()),
        _ => snapshot.partitions.get(&partition)?.paused.as_ref().map(|pause| format!("paused: {}", pause.detail)),
    }
}

async fn watermarks(
    log: Result<Arc<LogReader>, LogError>,
    topic: &str,
) -> Result<Vec<(Partition, Watermarks)>, String> {
    let log = log.map_err(|error| format!("no Kafka client: {error}"))?;
    match supervisor::blocking(move || log.extents()).await {
        Ok(marks) if marks.is_empty() => Err(no_topic(topic)),
        Ok(marks) => Ok(marks),
        Err(error) => Err(error.to_string()),
    }
}
