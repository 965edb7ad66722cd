//! Stops: with a savepoint under a trigger id that we chose, or for good; and removes what jobs leave on storage.
//!
//! A stop for good deletes nothing but the savepoint that it drained into itself. It has triggers of its own, so that this
//! one is told from the savepoint of a stop with state whose answer was lost.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::jobmanager::Progress;
use super::{Inner, causes, submitted};
use crate::engines::{Deployment, Handle, RestorePoint, StopMode, Stopped, Trouble};
use crate::names;

/// How long a savepoint is waited for in one call; it goes on, and the same call later finds it.
const SAVEPOINT_PATIENCE: Duration = Duration::from_secs(600);
/// How long a stop for good waits for it; then the job is cancelled.
const DRAIN_PATIENCE: Duration = Duration::from_secs(60);
const CANCEL_PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at what comes to an end: soon done in most cases, and a large state takes minutes.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LONGEST_LOOK: Duration = Duration::from_secs(1);
/// How often a savepoint that failed is asked for anew: Flink answers a trigger id it has seen with what came of it.
const TRIGGERS: u32 = 8;

/// Stops a deployment. Repeated, it finds the savepoint of the first time.
pub(super) async fn stop(
    flink: &Inner,
    deployment: &Deployment,
    handle: &Handle,
    mode: StopMode,
) -> Result<Stopped, Trouble> {
    let first =
        names::stop_trigger_id(&flink.address(), &deployment.definition, deployment.revision, deployment.attempt);
    let point = match mode {
        StopMode::Final => return stop_for_good(flink, &handle.job_id, &first).await,
        StopMode::KeepState => match with_savepoint(flink, &handle.job_id, &first).await? {
            Some(path) => Some(RestorePoint { path, savepoint: true }),
            // It was not whole, or is gone: what it wrote down last is what there is.
            None => without_savepoint(flink, &handle.job_id).await?,
        },
    };
    Ok(point.map_or(Stopped::WithoutState, Stopped::At))
}

/// Ends a job. A savepoint lets it write what it has read to its end, but is no condition: without one it is cancelled.
async fn stop_for_good(flink: &Inner, job_id: &str, first: &str) -> Result<Stopped, Trouble> {
    // A stop with state that was done, whose answer was lost: its savepoint is not ours to delete.
    if let Some(path) = kept_before(flink, job_id, first).await? {
        return Ok(Stopped::At(RestorePoint { path, savepoint: true }));
    }
    let trigger = trigger(first, FINAL);
    let mut progress = flink.jobmanager.savepoint(job_id, &trigger).await?;
    if progress == Progress::Unasked && is_running(flink, job_id).await? {
        // Refused or not, what came of it is seen below; only a lost answer is not known.
        match flink.jobmanager.stop(job_id, &trigger, &flink.settings.savepoint_dir, true).await {
            Ok(()) | Err(Trouble::Unavailable(_)) => {}
            Err(trouble) => return Err(trouble),
        }
        progress = until_done(flink, job_id, &trigger, Instant::now() + DRAIN_PATIENCE).await.map_err(submitted)?;
    }
    if let Progress::Done(path) = progress {
        until_over(flink, job_id).await.map_err(submitted)?;
        if let Some(path) = path {
            dispose_own(flink, &path).await?;
        }
        return Ok(Stopped::WithoutState);
    }
    // It fails, does not run, or its savepoint is not done in time.
    cancel(flink, job_id).await?;
    Ok(Stopped::WithoutState)
}

/// The savepoint of a stop with state of this deployment, if it was made.
async fn kept_before(flink: &Inner, job_id: &str, first: &str) -> Result<Option<String>, Trouble> {
    for number in 1..=TRIGGERS {
        match flink.jobmanager.savepoint(job_id, &trigger(first, number)).await? {
            Progress::Done(Some(path)) => {
                until_over(flink, job_id).await.map_err(submitted)?;
                return Ok(Some(path));
            }
            Progress::Failed(_) => {}
            // Further ones are asked for only after this one has failed. One that is under way ends with the job.
            Progress::Done(None) | Progress::UnderWay | Progress::Unasked => break,
        }
    }
    Ok(None)
}

/// Deletes the savepoint that a stop for good has drained into. That it stays does not keep the job from being stopped.
async fn dispose_own(flink: &Inner, path: &str) -> Result<(), Trouble> {
    match dispose(flink, path).await {
        Err(Trouble::Unavailable(why)) => {
            tracing::warn!(path, why, "the savepoint of a stop for good stays where it is");
            Ok(())
        }
        other => other,
    }
}

/// The savepoint of an orderly stop; `None` if there is none to be had, as the job does not run.
async fn with_savepoint(flink: &Inner, job_id: &str, first: &str) -> Result<Option<String>, Trouble> {
    let deadline = Instant::now() + SAVEPOINT_PATIENCE;
    let (mut number, mut is_asked) = (1, false);
    loop {
        let trigger = trigger(first, number);
        // Once it was asked for it may be done, however little is heard of it.
        let known = move |trouble: Trouble| if is_asked { submitted(trouble) } else { trouble };
        match until_done(flink, job_id, &trigger, deadline).await.map_err(known)? {
            Progress::Done(path) => {
                until_over(flink, job_id).await.map_err(submitted)?;
                return Ok(path);
            }
            Progress::UnderWay => {
                return Err(Trouble::Unknown("the savepoint of the stop is still being written".to_owned()));
            }
            // It failed when it was asked for before: the job may have been starting.
            Progress::Failed(_) if !is_asked && number < TRIGGERS => number += 1,
            Progress::Unasked | Progress::Failed(_) if !is_running(flink, job_id).await.map_err(known)? => {
                return Ok(None);
            }
            Progress::Failed(trace) => {
                return Err(Trouble::Unavailable(format!("no savepoint: {}", causes::last_cause(&trace))));
            }
            Progress::Unasked if is_asked => {
                return Err(Trouble::Unknown(
                    "Flink has forgotten the savepoint: its JobManager began anew".to_owned(),
                ));
            }
            Progress::Unasked => {
                flink.jobmanager.stop(job_id, &trigger, &flink.settings.savepoint_dir, false).await?;
                is_asked = true;
            }
        }
    }
}

async fn is_running(flink: &Inner, job_id: &str) -> Result<bool, Trouble> {
    Ok(flink.jobmanager.job(job_id).await?.is_some_and(|job| job.is_running()))
}

/// Waits until a savepoint has come to an end, or the deadline passes.
async fn until_done(flink: &Inner, job_id: &str, trigger: &str, deadline: Instant) -> Result<Progress, Trouble> {
    let mut looks = FIRST_LOOK;
    loop {
        let progress = flink.jobmanager.savepoint(job_id, trigger).await?;
        if progress != Progress::UnderWay || Instant::now() >= deadline {
            return Ok(progress);
        }
        until_next(&mut looks).await;
    }
}

/// Waits until the next look; each is twice as far away as the one before.
async fn until_next(looks: &mut Duration) {
    sleep(*looks).await;
    *looks = (*looks * 2).min(LONGEST_LOOK);
}

/// The number of the trigger of a stop for good.
const FINAL: u32 = 0;

/// The first trigger id is made from stored names; each further one is made from it, so that a call after a crash finds them all.
fn trigger(first: &str, number: u32) -> String {
    if number == 1 {
        return first.to_owned();
    }
    names::hashed(&format!("{first}/{number}"))
}

/// Cancels what may run, and gives what it wrote down last, or began with.
async fn without_savepoint(flink: &Inner, job_id: &str) -> Result<Option<RestorePoint>, Trouble> {
    if flink.jobmanager.job(job_id).await?.is_none() {
        return Ok(None);
    }
    cancel(flink, job_id).await?;
    Ok(flink.jobmanager.checkpoints(job_id).await.map_err(submitted)?.last())
}

/// Cancels a job, and waits for its end. One that is not known has ended.
pub(super) async fn cancel(flink: &Inner, job_id: &str) -> Result<(), Trouble> {
    if flink.jobmanager.job(job_id).await?.is_none_or(|job| job.is_over()) {
        return Ok(());
    }
    flink.jobmanager.cancel(job_id).await?;
    until_over(flink, job_id).await.map_err(submitted)
}

async fn until_over(flink: &Inner, job_id: &str) -> Result<(), Trouble> {
    let deadline = Instant::now() + CANCEL_PATIENCE;
    let mut looks = FIRST_LOOK;
    while flink.jobmanager.job(job_id).await?.is_some_and(|job| !job.is_over()) {
        if Instant::now() >= deadline {
            return Err(Trouble::Unknown(format!("job {job_id} has not ended in a minute")));
        }
        until_next(&mut looks).await;
    }
    Ok(())
}

/// Ends a job, and deletes what it and its forerunners left on storage.
pub(super) async fn remove(flink: &Inner, handle: &Handle, restore_points: &[RestorePoint]) -> Result<(), Trouble> {
    let mut paths: Vec<String> = restore_points.iter().map(|point| point.path.clone()).collect();
    if flink.jobmanager.job(&handle.job_id).await?.is_some() {
        cancel(flink, &handle.job_id).await?;
        // Kept after a cancellation, as they were asked to be.
        let own = flink.jobmanager.checkpoints(&handle.job_id).await?.own();
        paths.extend(own.into_iter().map(|point| point.path));
    }
    paths.sort();
    paths.dedup();
    for path in paths {
        dispose(flink, &path).await?;
    }
    Ok(())
}

/// Deletes a savepoint or a checkpoint. That it is gone already is fine.
async fn dispose(flink: &Inner, path: &str) -> Result<(), Trouble> {
    let request = flink.jobmanager.dispose(path).await?;
    let deadline = Instant::now() + CANCEL_PATIENCE;
    let mut looks = FIRST_LOOK;
    loop {
        match flink.jobmanager.disposal(&request).await? {
            Progress::Done(_) => return Ok(()),
            Progress::Failed(trace) if is_absent(&trace) => return Ok(()),
            Progress::Failed(trace) => {
                return Err(Trouble::Unavailable(format!("{path} is not deleted: {}", causes::last_cause(&trace))));
            }
            Progress::UnderWay if Instant::now() < deadline => until_next(&mut looks).await,
            Progress::UnderWay | Progress::Unasked => {
                return Err(Trouble::Unknown(format!("nothing is heard of the deletion of {path}")));
            }
        }
    }
}

fn is_absent(trace: &str) -> bool {
    trace.contains("FileNotFoundException") || trace.contains("Cannot find checkpoint or savepoint")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers_are_made_from_the_first() {
        let first = "0123456789abcdef0123456789abcdef";
        assert_eq!(trigger(first, 1), first);
        assert_eq!(trigger(first, 2).len(), 32);
        assert_ne!(trigger(first, 2), trigger(first, 3));
        assert!((1..=TRIGGERS).all(|number| trigger(first, number) != trigger(first, FINAL)));
    }
}
