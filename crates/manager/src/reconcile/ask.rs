//! Why something has failed, and where the state of what has ended lies: asked beside the rounds, as a cluster that is ill may
//! take long to answer for each of many. The definition's next step waits for it, but not for ever: an answer that does not
//! come is done without.

use std::time::Duration;

use tokio::sync::Semaphore;

use super::act;
use crate::lifecycle::record::Record;
use crate::manager::Shared;
use crate::store::StoreError;

/// Definitions of one engine that are asked about at once.
pub(super) const AT_ONCE: usize = 4;
/// How long a definition waits for its answer, its turn included.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is to be known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    /// Where the state of a job that has ended lies: it says so for the last time, and what was noted before may be
    /// overwritten by now.
    pub about_state: bool,
}

/// Asks, and writes down what is said.
pub(super) async fn why(shared: &Shared, record: Record, question: Question, room: &Semaphore) {
    let asked = async {
        // Closed by nobody.
        let _turn = room.acquire().await;
        let kept = async {
            match (&record.job_id, question.about_state) {
                (Some(job_id), true) => act::kept(shared, &record, job_id).await,
                _ => Vec::new(),
            }
        };
        tokio::join!(act::cause(shared, &record), kept)
    };
    let Ok((cause, points)) = tokio::time::timeout(PATIENCE, asked).await else {
        return tracing::debug!(stream = record.name, "the engine does not say why");
    };
    let written = async {
        let mut record = record.clone();
        loop {
            record.last_error = cause.clone().or(record.last_error.take());
            if shared.store.see(&mut record).await? && shared.store.note_restore(&record, &points).await? {
                return Ok::<(), StoreError>(());
            }
            // Somebody has written it meanwhile. If it is another job by now, the answer is nobody's.
            let about = (record.attempt, record.job_id);
            match shared.store.get(&record.id).await? {
                Some(again) if (again.attempt, &again.job_id) == (about.0, &about.1) => record = again,
                _ => return Ok(()),
            }
        }
    };
    if let Err(error) = written.await {
        tracing::warn!(stream = record.name, error = %error, "why a stream has failed could not be written down");
    }
}
