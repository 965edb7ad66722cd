//! One step of one definition: written down, done, and what came of it written down. A process may die between any two of
//! these (`crash`): whoever leads next finds what was written, and does it again.

use std::time::Duration;

use jiff::Timestamp;

use crate::engines::{Changes, Deployment, Engine, Handle, RestorePoint, Select, StopMode, Stopped, Trouble};
use crate::fault::Fault;
use crate::lifecycle::heal;
use crate::lifecycle::outcome::{self, Done, Happened};
use crate::lifecycle::record::{Call, Record, stop_mode};
use crate::lifecycle::step::Step;
use crate::manager::Shared;
use crate::ports::PortError;
use crate::store::StoreError;

/// How long it is waited for a cause.
const PATIENCE: Duration = Duration::from_secs(15);

/// Takes a step. What goes wrong is written to the definition where that is possible, and logged where it is not.
pub(super) async fn take(shared: &Shared, record: Record, step: Step) {
    let (id, name) = (record.id.clone(), record.name.clone());
    let taken = match step {
        Step::Rest(_) => Ok(()),
        Step::Call(call) => make(shared, record, call).await,
        Step::Adopt { job_id } => {
            let rules = &shared.parts.settings.reconcile;
            change(shared, record, |record| outcome::adopt(record, &job_id, Timestamp::now(), rules)).await
        }
        Step::DropCall => change(shared, record, outcome::drop_call).await,
        Step::End { job_id } => end(shared, record, job_id).await,
        Step::Accept => change(shared, record, |record| Some(outcome::accept(record))).await,
        Step::TakeBack => {
            let cause = cause(shared, &record).await;
            change(shared, record, |record| Some(outcome::take_back(record, cause.clone()))).await
        }
        Step::GiveUp => {
            let cause = cause(shared, &record).await;
            change(shared, record, |record| Some(outcome::give_up(record, cause.clone()))).await
        }
        Step::Forget => forget(shared, record).await,
    };
    if let Err(error) = taken {
        tracing::warn!(stream = name, id, error = %error, "a step of a stream came to nothing");
    }
}

/// First cause of its last failure, if the engine knows it and says so soon.
pub(super) async fn cause(shared: &Shared, record: &Record) -> Option<String> {
    let engine = shared.engine(record.engine).ok()?;
    let details = engine.details(record.job_id.as_deref()?);
    tokio::time::timeout(PATIENCE, details).await.ok()?.ok()?.failure
}

/// Where the engine says that its state is kept, the latest first.
pub(super) async fn kept(shared: &Shared, record: &Record, job_id: &str) -> Vec<RestorePoint> {
    let Ok(engine) = shared.engine(record.engine) else { return Vec::new() };
    engine.checkpoint(job_id).await.map(|kept| kept.points).unwrap_or_default()
}

async fn make(shared: &Shared, mut record: Record, call: Call) -> Result<(), Fault> {
    outcome::begin(&mut record, &call, Timestamp::now());
    if !shared.store.save(&mut record, None).await? {
        return Ok(()); // somebody wants something else: the next round sees what
    }
    let points = Points::of(&call, &record);
    shared.crash(points.written);
    let done = match shared.engine(record.engine) {
        Ok(engine) => do_it(shared, engine.as_ref(), &record, &call).await,
        Err(fault) => Err(Trouble::Unavailable(fault.to_string())),
    };
    shared.crash(points.called);
    if let Err(trouble) = &done {
        tracing::warn!(stream = record.name, call = call.word(), error = %trouble, "an engine did not do what it was asked");
    }
    let rules = &shared.parts.settings.reconcile;
    change(shared, record, |record| {
        // Somebody else may have done the same, and written it down before.
        (record.call.as_ref() == Some(&call))
            .then(|| outcome::finish(record, &call, done.clone(), Timestamp::now(), rules))
    })
    .await?;
    shared.crash(points.done);
    Ok(())
}

/// Changes what is stored, again and again until nobody has written it in between.
async fn change(
    shared: &Shared,
    mut record: Record,
    change: impl Fn(&mut Record) -> Option<Happened>,
) -> Result<(), Fault> {
    loop {
        let Some(happened) = change(&mut record) else { return Ok(()) };
        if shared.store.save(&mut record, Some(&happened)).await? {
            tracing::info!(
                stream = record.name,
                what = happened.what,
                detail = happened.detail,
                "a stream was brought forward"
            );
            return Ok(());
        }
        match shared.store.get(&record.id).await? {
            Some(again) => record = again,
            None => return Ok(()),
        }
    }
}

async fn do_it(shared: &Shared, engine: &dyn Engine, record: &Record, call: &Call) -> Result<Done, Trouble> {
    match call {
        Call::Deploy { revision, attempt, replaces, restore } => {
            let plan = planned(shared, record, *revision).await?;
            let partitions = shared.parts.settings.reconcile.partitions;
            let topic = record.names().topic();
            shared.parts.kafka.create_topic(&topic, partitions).await.map_err(of_kafka)?;
            shared.crash("manager.deploy.topic");
            let restore = restore.clone();
            let deployment = deployment(record, (*revision, *attempt), plan, *replaces, restore);
            engine.deploy(&deployment).await.map(Done::Deployed)
        }
        Call::Stop { keep_state } => {
            stop(shared, engine, record, &record.handle(), stop_mode(*keep_state)).await.map(Done::Stopped)
        }
        Call::Resume => engine.resume(&record.handle()).await.map(|()| Done::Resumed),
        Call::Remove => engine.remove(&record.handle(), &record.savepoints).await.map(|()| Done::Removed),
    }
}

async fn stop(
    shared: &Shared,
    engine: &dyn Engine,
    record: &Record,
    handle: &Handle,
    mode: StopMode,
) -> Result<Stopped, Trouble> {
    let revision = record.deployed_revision.unwrap_or(record.revision);
    let plan = planned(shared, record, revision).await?;
    engine.stop(&deployment(record, (revision, record.attempt), plan, false, None), handle, mode).await
}

/// A job of an earlier deployment.
async fn end(shared: &Shared, record: Record, job_id: String) -> Result<(), Fault> {
    let engine = shared.engine(record.engine)?;
    let handle = Handle { job_id: job_id.clone(), ..record.handle() };
    // With its state: ended for good, it would take the savepoint with it that both have begun with.
    let ended = stop(shared, engine.as_ref(), &record, &handle, StopMode::KeepState).await;
    shared.crash("manager.end.called");
    let happened = match &ended {
        Ok(_) => Happened::with("ended", format!("{job_id}, of an earlier deployment, still ran")),
        Err(trouble) => {
            Happened::with("not_ended", format!("{job_id}, of an earlier deployment, still runs: {trouble}"))
        }
    };
    let rules = &shared.parts.settings.reconcile;
    change(shared, record, |record| {
        if let Ok(Stopped::At(point)) = &ended {
            record.savepoints.push(point.clone());
        }
        if ended.is_ok() {
            heal::count(record, Timestamp::now(), rules);
        }
        if ended.is_err() {
            record.failures = record.failures.saturating_add(1);
            record.retry_at = Some(outcome::later(Timestamp::now(), outcome::wait(rules, record.failures)));
        }
        Some(happened.clone())
    })
    .await
}

async fn forget(shared: &Shared, record: Record) -> Result<(), Fault> {
    if record.delete_topic && record.attempt > 0 {
        for topic in record.topics() {
            if let Err(error) = shared.parts.kafka.delete_topic(&topic).await {
                let rules = &shared.parts.settings.reconcile;
                return change(shared, record, |record| {
                    Some(outcome::topic_stays(record, (&topic, &error), Timestamp::now(), rules))
                })
                .await;
            }
            // Whoever comes next begins with the first of them again: one that is not there is fine.
            shared.crash("manager.delete.topic");
        }
    }
    shared.store.forget(&record).await?;
    shared.crash("manager.delete.done");
    Ok(())
}

/// What a revision was planned to be deployed as.
async fn planned(shared: &Shared, record: &Record, revision: i32) -> Result<(Select, Changes), Trouble> {
    let unavailable = |error: StoreError| Trouble::Unavailable(error.to_string());
    let stored = shared.store.revision(&record.id, revision).await.map_err(unavailable)?;
    match stored.map(|stored| (stored.select, stored.changes)) {
        Some((Some(select), Some(changes))) => Ok((select, changes)),
        _ => Err(Trouble::Unavailable(format!("revision {revision} was never planned: deploy it again"))),
    }
}

fn deployment(
    record: &Record,
    (revision, attempt): (i32, i32),
    (select, changes): (Select, Changes),
    replaces: bool,
    restore: Option<RestorePoint>,
) -> Deployment {
    let (definition, names) = (record.id.clone(), record.names());
    Deployment { definition, names, revision, attempt, select, changes, replaces, restore }
}

fn of_kafka(error: PortError) -> Trouble {
    match error {
        PortError::Unavailable(reason) => Trouble::Unavailable(reason),
        PortError::Refused(message) | PortError::NoTopic(message) => Trouble::Refused(crate::engines::Refusal {
            code: "topic_refused".to_owned(),
            message,
            line: None,
            column: None,
        }),
    }
}

/// Where a test can end the process around one call.
struct Points {
    written: &'static str,
    called: &'static str,
    done: &'static str,
}

impl Points {
    fn of(call: &Call, record: &Record) -> Points {
        let (written, called, done) = match call {
            Call::Deploy { .. } if record.previous_revision.is_some() => {
                ("manager.update.written", "manager.update.called", "manager.update.done")
            }
            Call::Deploy { .. } => ("manager.deploy.written", "manager.deploy.called", "manager.deploy.done"),
            Call::Stop { .. } => ("manager.stop.written", "manager.stop.called", "manager.stop.done"),
            Call::Resume => ("manager.resume.written", "manager.resume.called", "manager.resume.done"),
            Call::Remove => ("manager.remove.written", "manager.remove.called", "manager.remove.done"),
        };
        Points { written, called, done }
    }
}
