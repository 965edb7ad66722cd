//! Deploys: submits under the id that we chose, once however often it is asked, and waits until the job really runs.

use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::{Instant, sleep};

use super::ddl::Start;
use super::gateway::{Failure, Session};
use super::jobmanager::{self, Job};
use super::text::{join, quote_identifier};
use super::{Inner, causes, explain, stop, submitted};
use crate::engines::{Changes, Deployment, Handle, Refusal, Trouble};

/// How long a job may take until it runs.
const RUNNING_PATIENCE: Duration = Duration::from_secs(60);
/// So long without a failure counts as much as a checkpoint.
const CALM: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(300);
/// So many failures before it ran once: it will not.
const HOPELESS: usize = 3;
/// How long a partition may be silent before windows close without it.
const IDLE_TIMEOUT: &str = "10 s";

/// Runs a deployment, or adopts what runs under its id.
///
/// # Errors
/// [`Trouble::Unknown`] where there is no slot: the job waits for one, and the same call later adopts it.
pub(super) async fn deploy(flink: &Inner, deployment: &Deployment) -> Result<Handle, Trouble> {
    // Asked first: a statement that is sent while the JobManager is away is kept by the gateway, and runs minutes later.
    let known = find(flink, deployment).await?;
    let job_id = match known {
        Some(job) if job.is_over() => return Err(ended(flink, &job).await?),
        Some(job) => job.jid,
        None => submit(flink, deployment).await?,
    };
    until_running(flink, deployment, &job_id).await?;
    Ok(Handle {
        job_id,
        stream_name: deployment.names.sink(),
        output_topic: deployment.names.topic(),
        changes: deployment.changes,
        keeps_at: None,
    })
}

/// The job of a deployment by its id or, where Flink does not honour that, by its name: no two attempts share one.
async fn find(flink: &Inner, deployment: &Deployment) -> Result<Option<Job>, Trouble> {
    let (job_id, name) = (flink.job_id(deployment), job_name(deployment));
    let mut jobs = flink.jobmanager.jobs().await?;
    jobs.retain(|job| job.jid == job_id || job.name == name);
    jobs.sort_by_key(|job| (job.jid != job_id, job.start_time));
    Ok(jobs.into_iter().next())
}

fn job_name(deployment: &Deployment) -> String {
    deployment.names.job_name(deployment.revision, deployment.attempt)
}

/// Submits it, in a session of its own; gives the job's id.
async fn submit(flink: &Inner, deployment: &Deployment) -> Result<String, Trouble> {
    let session = flink.gateway.open().await.map_err(|failure| failure.reading())?;
    let submitted = submit_in(flink, &session, deployment).await;
    flink.gateway.close(&session).await;
    submitted
}

async fn submit_in(flink: &Inner, session: &Session, deployment: &Deployment) -> Result<String, Trouble> {
    let select = &deployment.select;
    let group = format!("sv-{}", deployment.names.tag());
    explain::declare_sources(flink, session, select, &group, Start::Earliest).await?;
    let shape = explain::shape(flink, session, select).await?;
    if let Some(refusal) = shape.without_key {
        return Err(Trouble::Refused(refusal));
    }
    if shape.changes != deployment.changes {
        let planned = if deployment.changes == Changes::Append { "only added" } else { "replaced by key" };
        let message = format!("it was planned with rows that are {planned}, and that has changed: plan it again");
        return Err(refused("plan_changed", message));
    }
    let (sink, topic) = (deployment.names.sink(), deployment.names.topic());
    explain::check_sink(flink, session, select, &shape, &sink, &topic).await?;

    let joined = join(&format!("INSERT INTO {}", quote_identifier(&sink)?), select)?;
    let lost = |failure: Failure| match failure {
        Failure::NoAnswer(no_answer) => no_answer.writing(),
        Failure::Late(why) => Trouble::Unknown(why),
        Failure::Said(trace) if causes::is_session_gone(&trace) => Trouble::Unknown(causes::last_cause(&trace)),
        Failure::Said(trace) => joined.trouble_in_select(Trouble::Refused(causes::refusal(&trace))),
    };
    let operation = flink.gateway.submit(session, joined.text(), &settings(flink, deployment)).await.map_err(lost)?;
    let job_id = flink.job_id(deployment);
    match flink.gateway.wait(&operation).await {
        // Not ours: this Flink chooses itself. The name leads to it again.
        Ok(page) => Ok(page.job_id.unwrap_or(job_id)),
        // It was submitted before, by a call whose answer was lost.
        Err(Failure::Said(trace)) if causes::is_duplicate(&trace) => Ok(job_id),
        // From here on a lost answer does not mean that nothing happens.
        Err(Failure::NoAnswer(super::http::NoAnswer::NotSent(why))) => Err(Trouble::Unknown(why)),
        Err(failure) => Err(lost(failure)),
    }
}

/// What holds for this statement alone.
fn settings(flink: &Inner, deployment: &Deployment) -> Map<String, Value> {
    let mut settings = Map::new();
    let mut set = |name: &str, value: String| settings.insert(name.to_owned(), Value::from(value));
    set("pipeline.name", job_name(deployment));
    set("$internal.pipeline.job-id", flink.job_id(deployment));
    set("execution.checkpointing.interval", format!("{} ms", flink.checkpoint_interval.as_millis()));
    set("execution.checkpointing.externalized-checkpoint-retention", "RETAIN_ON_CANCELLATION".to_owned());
    set("table.exec.source.idle-timeout", IDLE_TIMEOUT.to_owned());
    if let Some(restore) = &deployment.restore {
        set("execution.state-recovery.path", restore.path.clone());
    }
    settings
}

/// Waits until all its tasks run, and it has written its state down or has been calm for a while: a job that fails again and
/// again is RUNNING in between.
async fn until_running(flink: &Inner, deployment: &Deployment, job_id: &str) -> Result<(), Trouble> {
    let begun = Instant::now();
    let mut calm_since: Option<Instant> = None;
    loop {
        let Some(job) = flink.jobmanager.job(job_id).await.map_err(submitted)? else {
            return Err(Trouble::Unknown(format!("Flink has lost job {job_id}: its JobManager began anew")));
        };
        if job.is_over() {
            return Err(ended(flink, &job).await?);
        }
        let failures = flink.jobmanager.failures(job_id).await.map_err(submitted)?;
        if job.is_running() {
            let calm = calm_since.get_or_insert_with(Instant::now).elapsed();
            let checkpoints = flink.jobmanager.checkpoints(job_id).await.map_err(submitted)?;
            if (failures.is_empty() && calm >= CALM) || (checkpoints.counts.completed > 0 && calm >= LOOK) {
                return Ok(());
            }
        } else {
            calm_since = None;
        }
        let is_late = begun.elapsed() >= RUNNING_PATIENCE;
        if let Some(why) = waits_for_slot(flink, &job, &failures, begun.elapsed()).await? {
            // Not busy: it is submitted, and gets the next slot.
            let why = format!("`{}` {why}; stop something, or add a TaskManager", job_name(deployment));
            return Err(Trouble::Unknown(why));
        }
        let latest = failures.first().filter(|_| failures.len() >= HOPELESS || is_late);
        if let Some(failure) = latest.filter(|failure| !causes::is_without_slot(&failure.stacktrace)) {
            stop::cancel(flink, job_id).await.map_err(submitted)?;
            return Err(refused(
                "does_not_run",
                format!("it does not run: {}", causes::last_cause(&failure.stacktrace)),
            ));
        }
        if is_late {
            let (running, total) = (job.tasks.running, job.tasks.total);
            let why = format!("job {job_id} is {} after a minute, {running} of {total} tasks run", job.state);
            return Err(Trouble::Unknown(why));
        }
        sleep(LOOK).await;
    }
}

/// Whether a job has no slot, and how many there are. It shows as failures of the job; a JobManager that has just begun lets
/// the tasks wait, in the hope of TaskManagers that come.
async fn waits_for_slot(
    flink: &Inner,
    job: &Job,
    failures: &[jobmanager::Failure],
    since: Duration,
) -> Result<Option<String>, Trouble> {
    let refusals = failures.iter().take_while(|failure| causes::is_without_slot(&failure.stacktrace)).count();
    let may_wait = job.state == "RUNNING" && job.tasks.scheduled > 0 && since >= CALM;
    if job.is_running() || (refusals < 2 && !may_wait) {
        return Ok(None);
    }
    let cluster = flink.jobmanager.cluster().await.map_err(submitted)?;
    let (free, total) = (cluster.slots_available, cluster.slots_total);
    let is_sure = refusals >= 2 || free == 0;
    Ok(is_sure.then(|| format!("waits for a task slot: {free} of {total} are free")))
}

/// Why a job that should run is over.
async fn ended(flink: &Inner, job: &Job) -> Result<Trouble, Trouble> {
    let failures = flink.jobmanager.failures(&job.jid).await.map_err(submitted)?;
    let cause = failures.first().map(|failure| causes::last_cause(&failure.stacktrace));
    Ok(match (job.state.as_str(), cause) {
        ("FAILED", Some(cause)) => refused("does_not_run", format!("it has failed: {cause}")),
        (state, _) => refused(
            "job_ended",
            format!("job {} is {state} already, and Flink takes an id once: it needs another attempt", job.jid),
        ),
    })
}

fn refused(code: &str, message: String) -> Trouble {
    Trouble::Refused(Refusal { code: code.to_owned(), message, line: None, column: None })
}
