//! Where running jobs keep their state, noted while they can be asked: a JobManager that is gone takes the answer with it.
//! Apart from the rounds, which ask for no single job.

use std::time::Instant;

use futures_util::StreamExt;
use tokio::task::AbortHandle;

use super::Memory;
use crate::definition::Intent;
use crate::engines::{EngineKind, ObservedState};
use crate::lifecycle::record::{Position, Record, Restore};
use crate::manager::Shared;
use crate::store::{Find, StoreError};

/// Jobs that are asked about at once.
const AT_ONCE: usize = 4;

pub(super) fn is_due(shared: &Shared, memory: &Memory) -> bool {
    let every = shared.parts.settings.reconcile.restore_points;
    // Where the engine keeps states at places.
    memory.can.as_ref().is_some_and(|can| can.can_savepoint)
        // Where an engine is slow they may take longer than that: the next ones begin when these are done.
        && memory.noting.as_ref().is_none_or(AbortHandle::is_finished)
        && memory.noted.is_none_or(|noted: Instant| noted.elapsed() >= every)
}

pub(super) async fn restore_points(shared: &Shared, engine: EngineKind) {
    let intent = Some(Intent::Running.word());
    let find = Find { engine: Some(engine), intent, for_a_round: true, ..Find::default() };
    let records = match shared.store.find(&find, i64::MAX).await {
        Ok(records) => records,
        Err(error) => return tracing::warn!(error = %error, "restore points could not be noted"),
    };
    // While a text is new on trial, the state that counts is that of the one before.
    let mine = records.into_iter().filter(|record| {
        // What is degraded is asked too: by this look it is seen to be well again.
        matches!(record.observed, ObservedState::Running | ObservedState::Degraded)
            && record.position == Position::Deployed
            && record.call.is_none()
            && record.previous_revision.is_none()
    });
    let notes = mine.map(|record| async move {
        if let Err(error) = note(shared, &record).await {
            tracing::warn!(stream = record.name, error = %error, "a restore point could not be noted");
        }
    });
    futures_util::stream::iter(notes).buffer_unordered(AT_ONCE).collect::<()>().await;
}

async fn note(shared: &Shared, record: &Record) -> Result<(), StoreError> {
    let (Some(job_id), Some(revision)) = (&record.job_id, record.deployed_revision) else { return Ok(()) };
    let Ok(engine) = shared.engine(record.engine) else { return Ok(()) };
    // An engine that does not answer now is asked again the next time.
    let points = match engine.checkpoint(job_id).await {
        Ok(kept) => kept.points,
        Err(trouble) => {
            tracing::debug!(stream = record.name, error = %trouble, "the engine does not say where a state is kept");
            return Ok(());
        }
    };
    let Some((point, others)) = points.split_first() else { return Ok(()) };
    let restore = Restore { others: others.to_vec(), ..Restore::at(point.clone(), revision) };
    if record.restore.as_ref() == Some(&restore) {
        return Ok(());
    }
    // Somebody may have written it meanwhile: then the next note is as good.
    shared.store.note_restore(record, &points).await.map(drop)
}
