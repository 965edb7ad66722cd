//! Takes partitions over from their last owner: reads where they stand, becomes their owner in Postgres, and judges
//! whether the log is still the one that progress was made on. Gives them to nobody: the coordinator does.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::identity::{Evidence, Fingerprint, Mismatch, judge};
use crate::failure::{Backoff, Failure};
use crate::platforms::kafka::log::LogReader;
use crate::projector::context::ViewContext;
use crate::projector::guard;
use crate::projector::state::{Halt, ViewState};
use crate::store::pool;
use crate::store::progress::{self, Acquired};
use crate::store::sqlstate::classify;

/// Partitions that the group gave us and has not taken back.
pub type Wanted = Arc<Mutex<BTreeSet<i32>>>;
/// What a takeover gives: the partitions, or why the view has to halt.
pub type Takeover = Result<Vec<Acquired>, Halt>;

/// The halt for a log that lost what we need.
pub fn truncated(detail: &str) -> Failure {
    Failure::halt(
        "log_truncated",
        detail,
        "restore the records, or rebuild the view from what is left; nothing more is applied until then",
    )
}

/// Takes all `partitions` over, waiting for Postgres and Kafka as long as it takes, or as long as they are `wanted`:
/// a late takeover would fence the next owner.
pub async fn acquire_all(context: &ViewContext, log: &Arc<LogReader>, partitions: &[i32], wanted: &Wanted) -> Takeover {
    let mut backoff = Backoff::default();
    loop {
        match try_acquire(context, log, partitions, wanted).await {
            Ok(acquired) => return Ok(acquired),
            Err(Failure::Halt(halt)) => return Err(halt),
            Err(Failure::KafkaAway(reason)) => context.wait_for(ViewState::WaitingForKafka, &reason),
            Err(Failure::Retry(reason)) => context.wait_for(ViewState::WaitingForDatabase, &reason),
            Err(other) => context.wait_for(ViewState::WaitingForDatabase, &format!("{other:?}")),
        }
        tokio::time::sleep(backoff.next_wait()).await;
    }
}

async fn try_acquire(
    context: &ViewContext,
    log: &Arc<LogReader>,
    partitions: &[i32],
    wanted: &Wanted,
) -> Result<Vec<Acquired>, Failure> {
    let topic_id = context.guard.current().await?;
    let fail = |error| classify(error, None);
    let client = pool::connect_writer(&context.database, "public").await.map_err(fail)?;
    let mut acquired = Vec::new();
    for partition in partitions {
        if !wanted.lock().unwrap_or_else(PoisonError::into_inner).contains(partition) {
            continue;
        }
        let marks = {
            let (log, partition) = (Arc::clone(log), *partition);
            blocking(move || log.watermarks(partition)).await?
        };
        // No progress yet means: from the beginning of the log.
        let row =
            progress::acquire(&client, &context.source, *partition, marks.low, (topic_id.as_deref(), &context.owner))
                .await
                .map_err(fail)?;
        let at_anchor = match row.anchor.filter(|anchor| anchor.offset >= marks.low && anchor.offset < marks.high) {
            None => None,
            Some(anchor) => {
                let (log, partition) = (Arc::clone(log), *partition);
                blocking(move || log.record_at(partition, anchor.offset)).await?
            }
        };
        let print = |anchor: progress::Anchor| Fingerprint {
            offset: anchor.offset,
            crc: anchor.crc,
            timestamp_ms: anchor.timestamp_ms,
        };
        let evidence = Evidence {
            next_offset: row.next_offset,
            low: marks.low,
            high: marks.high,
            known_topic_id: row.topic_id.clone(),
            topic_id: topic_id.clone(),
            anchor: row.anchor.map(print),
            at_anchor: at_anchor.map(print),
        };
        judge(*partition, &evidence).map_err(|mismatch| match mismatch {
            Mismatch::IdentityChanged(detail) => guard::changed(&detail),
            Mismatch::Truncated(detail) => truncated(&detail),
        })?;
        acquired.push(row);
    }
    if let Some(topic_id) = topic_id {
        context.guard.expect(&topic_id);
    }
    Ok(acquired)
}

async fn blocking<T: Send + 'static, E: std::fmt::Display + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| Failure::KafkaAway(format!("Kafka does not answer: {error}"))),
        Err(panic) => Err(Failure::Retry(format!("a log reader failed: {panic}"))),
    }
}
