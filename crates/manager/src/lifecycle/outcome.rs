//! What a step changes in what is stored: before it is done, and by its outcome. No I/O; the time comes from outside.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::doubt;
use super::record::{Call, Position, Record, Restore};
use crate::definition::Intent;
use crate::engines::{Handle, ObservedState, RestorePoint, Stopped, Trouble};
use crate::ports::PortError;
use crate::settings::Reconcile;

/// How the error begins when no restore point is left.
pub(crate) const NO_RESTORE_POINT: &str = "restore_points_gone: none of the places where its state was kept can be \
                                           restored from; deploy it from the beginning, or put the state back";
/// How often a topic that cannot be deleted is tried until it is offered to leave it.
pub(crate) const TOPIC_REFUSALS: u32 = 5;
/// How many restore points are kept beside the latest.
const CANDIDATES: usize = 9;

/// What a call has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Done {
    Deployed(Handle),
    Stopped(Stopped),
    Resumed,
    Removed,
}

/// Something that people should be able to read afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Happened {
    pub what: &'static str,
    pub detail: Option<String>,
}

impl Happened {
    pub fn new(what: &'static str) -> Happened {
        Happened { what, detail: None }
    }

    pub fn with(what: &'static str, detail: impl Into<String>) -> Happened {
        Happened { what, detail: Some(detail.into()) }
    }
}

/// A call is about to be made. To be written before it is.
pub(crate) fn begin(record: &mut Record, call: &Call, now: Timestamp) {
    record.called_at = Some(now);
    if record.call.as_ref() == Some(call) {
        record.tries = record.tries.saturating_add(1);
        return;
    }
    record.tries = 1;
    record.call = Some(call.clone());
    let is_there = matches!(record.position, Position::Deployed | Position::Paused);
    if record.intent == Intent::Running && record.previous_revision.is_none() && is_there {
        record.previous_revision = record.deployed_revision.filter(|deployed| *deployed != record.revision);
    }
    if let Call::Deploy { attempt, .. } = call {
        record.attempt = *attempt;
    }
}

/// The same text is about to be begun again because it has failed. To be counted before [`begin`], once for each call.
pub(crate) fn count_restart(record: &mut Record, call: &Call) {
    if let Call::Deploy { revision, replaces, .. } = call
        // What takes the place of a text that somebody has changed had not failed.
        && !replaces
        && record.position == Position::Deployed
        && record.deployed_revision == Some(*revision)
    {
        record.restarts = record.restarts.saturating_add(1);
    }
}

/// A deployment without an outcome is there, by the name that was chosen for it: it is deployed. Where one name is that of all
/// revisions, what is there may be that one or what was there before, until one is deployed once more.
pub(crate) fn adopt(record: &mut Record, job_id: &str, now: Timestamp, rules: &Reconcile) -> Option<Happened> {
    let call = record.call.clone()?;
    let Call::Deploy { revision, attempt, restore, .. } = &call else { return None };
    if !record.engine.names_deployments() && record.position == Position::Deployed {
        doubt::may_run(record, *revision);
        return drop_call(record);
    }
    let keeps_at = record.engine.keeps_at(&record.id, (*revision, *attempt), restore.as_ref());
    let handle = Handle { job_id: job_id.to_owned(), keeps_at, ..record.handle() };
    Some(finish(record, &call, Ok(Done::Deployed(handle)), now, rules))
}

/// A deployment that nobody wants any more has not come about.
pub(crate) fn drop_call(record: &mut Record) -> Option<Happened> {
    let call = record.call.take()?;
    (record.tries, record.failures, record.retry_at) = (0, 0, None);
    Some(Happened::with(
        "call_dropped",
        format!("{}: nobody wants it any more, and nothing is seen of it", call.word()),
    ))
}

/// Where the state lies now. What was known before comes after it, if it is of the same text; that of the text before an update is
/// kept beside it until the update is accepted: that text would begin anew otherwise, without a word.
fn keep(record: &mut Record, point: &RestorePoint, revision: i32) {
    let mut restore = Restore::at(point.clone(), revision);
    if let Some(mut before) = record.restore.take() {
        if before.revision == revision {
            restore.before = before.before.take();
            restore.others.extend(std::iter::once(before.point).chain(before.others).filter(|other| other != point));
            restore.others.truncate(CANDIDATES);
        } else if record.previous_revision == Some(before.revision) {
            before.before = None;
            restore.before = Some(Box::new(before));
        }
    }
    record.restore = Some(restore);
}

/// The state of the text on trial is let go of, if it has one.
fn go_back_to_the_state_before(record: &mut Record) -> bool {
    let before = record.restore.as_mut().and_then(|restore| restore.before.take());
    let is_there = before.is_some();
    record.restore = before.map(|before| *before).or(record.restore.take());
    is_there
}

/// A call has come to something, or to nothing. To be written before anything else is done.
pub(crate) fn finish(
    record: &mut Record,
    call: &Call,
    outcome: Result<Done, Trouble>,
    now: Timestamp,
    rules: &Reconcile,
) -> Happened {
    match outcome {
        Ok(done) => {
            record.call = None;
            (record.tries, record.failures, record.retry_at, record.drift) = (0, 0, None, None);
            succeeded(record, call, done, now, rules)
        }
        Err(trouble) => failed(record, call, trouble, now, rules),
    }
}

fn succeeded(record: &mut Record, call: &Call, done: Done, now: Timestamp, rules: &Reconcile) -> Happened {
    record.engine_state = None;
    match done {
        Done::Deployed(handle) => deployed(record, call, handle, now, rules),
        Done::Stopped(stopped) => {
            let (position, observed) = match &stopped {
                Stopped::Paused => (Position::Paused, ObservedState::Paused),
                Stopped::At(_) | Stopped::WithoutState => (Position::Stopped, ObservedState::Stopped),
            };
            (record.position, record.observed) = (position, observed);
            if let Some(point) = record.keeps_at.take() {
                to_be_removed(record, point);
            }
            if position == Position::Stopped {
                doubt::end(record);
            }
            if let (Stopped::At(point), Some(revision)) = (&stopped, record.deployed_revision) {
                to_be_removed(record, point.clone());
                // The state of a text that is taken back is not what the one before goes on with.
                if record.failed_revision != Some(revision) {
                    keep(record, point, revision);
                }
            }
            // A stop of an update is nobody's wish to lose the state.
            if record.discard_state && record.intent == Intent::Stopped {
                (record.restore, record.discard_state) = (None, false);
            }
            match stopped {
                Stopped::Paused => Happened::new("paused"),
                Stopped::At(point) => Happened::with("stopped", format!("its state is kept at {}", point.path)),
                Stopped::WithoutState => Happened::new("stopped"),
            }
        }
        Done::Resumed => {
            record.position = Position::Deployed;
            record.observed = ObservedState::Starting;
            record.deployed_at = Some(now);
            Happened::new("resumed")
        }
        Done::Removed => {
            (record.position, record.observed) = (Position::Removed, ObservedState::Absent);
            (record.restore, record.job_id) = (None, None);
            record.savepoints.clear();
            Happened::new("removed")
        }
    }
}

fn deployed(record: &mut Record, call: &Call, handle: Handle, now: Timestamp, rules: &Reconcile) -> Happened {
    let Call::Deploy { revision, attempt, restore, .. } = call else {
        return Happened::new("deployed");
    };
    if let Some((point, kept)) = record.keeps_at.take().zip(record.deployed_revision) {
        // What a text on trial takes the place of is gone back to from here.
        if kept != *revision {
            keep(record, &point, kept);
        }
        if handle.keeps_at.as_ref() != Some(&point) {
            to_be_removed(record, point);
        }
    }
    record.position = Position::Deployed;
    record.observed = ObservedState::Starting;
    record.deployed_revision = Some(*revision);
    record.keeps_at = handle.keeps_at;
    doubt::end(record);
    record.deployed_at = Some(now);
    record.changes = Some(handle.changes);
    record.job_id = Some(handle.job_id.clone());
    // Only a text that was never deployed before clears what went wrong: else people would not see why it was begun again.
    if record.restarts == 0 && record.failed_revision != Some(record.revision) {
        record.last_error = None;
    }
    if record.restarts > 0 {
        record.retry_at = Some(later(now, wait(rules, record.restarts)));
    }
    if record.previous_revision.is_none() {
        forget_old_state(record);
    }
    let begins = match restore {
        Some(point) => format!(" with the state at {}", point.path),
        None => String::new(),
    };
    Happened::with("deployed", format!("revision {revision}, attempt {attempt}, as {}{begins}", handle.job_id))
}

/// What is to be removed with the definition.
fn to_be_removed(record: &mut Record, point: RestorePoint) {
    if !record.savepoints.contains(&point) {
        record.savepoints.push(point);
    }
}

/// A text that has begun with an empty state hands no older one on.
fn forget_old_state(record: &mut Record) {
    let is_fresh = record.deployed_revision.is_some() && record.fresh_revision == record.deployed_revision;
    if is_fresh && record.restore.as_ref().is_some_and(|restore| Some(restore.revision) != record.deployed_revision) {
        record.restore = None;
    }
}

fn failed(record: &mut Record, call: &Call, trouble: Trouble, now: Timestamp, rules: &Reconcile) -> Happened {
    record.failures = record.failures.saturating_add(1);
    record.last_error = Some(trouble.to_string());
    let mut pause = wait(rules, record.failures);
    match &trouble {
        // It may have happened, this time or before: the same is asked again until that is known.
        Trouble::Unknown(_) => {}
        Trouble::Busy { .. } | Trouble::Unavailable(_) if record.tries > 1 => {}
        Trouble::Busy { .. } | Trouble::Unavailable(_) => (record.call, record.tries) = (None, 0),
        Trouble::Refused(_) => {
            (record.call, record.tries) = (None, 0);
            refused(record, call);
        }
    }
    if let Trouble::Busy { retry_after: Some(asked), .. } = &trouble {
        pause = pause.max(*asked);
    }
    record.retry_at = Some(later(now, pause));
    let what = match trouble {
        Trouble::Refused(_) => "refused",
        Trouble::Busy { .. } => "engine_busy",
        Trouble::Unavailable(_) => "engine_unavailable",
        Trouble::Unknown(_) => "outcome_unknown",
    };
    Happened::with(what, format!("{}: {trouble}", call.word()))
}

fn refused(record: &mut Record, call: &Call) {
    let Call::Deploy { revision, replaces, restore, .. } = call else { return };
    doubt::rule_out(record, *revision);
    let runs_already = record.deployed_revision == Some(*revision);
    if restore.is_some() && *restore == record.keeps_at && runs_already && *revision == record.revision {
        return no_place_is_left(record, *revision);
    }
    // A text that has made the state itself fits to it: so it is the place that is not good any more.
    if let (Some(refused), Some(kept)) = (restore, &mut record.restore)
        && kept.revision == *revision
        && kept.point == *refused
    {
        if !kept.others.is_empty() {
            kept.point = kept.others.remove(0);
            record.restarts = record.restarts.saturating_sub(1); // the job was not begun
            return;
        }
        if go_back_to_the_state_before(record) {
            return;
        }
        if *revision == record.revision {
            return no_place_is_left(record, *revision);
        }
    }
    if *revision == record.revision && !runs_already {
        // A text that never ran and cannot: what ran before goes on, or is taken back.
        record.failed_revision = Some(*revision);
        match record.position {
            Position::Deployed | Position::Paused => record.previous_revision = None,
            Position::Nothing | Position::Stopped | Position::Removed => record.observed = ObservedState::Failed,
        }
    } else if *replaces && !runs_already {
        // The text before cannot take its place back as it is: its state is lost, but it shall run.
        record.fresh_revision = Some(*revision);
    } else {
        record.restarts = record.restarts.saturating_add(1);
    }
}

fn no_place_is_left(record: &mut Record, revision: i32) {
    record.failed_revision = Some(revision);
    record.previous_revision = None;
    record.observed = ObservedState::Failed;
    let why = record.last_error.take().unwrap_or_default();
    record.last_error = Some(format!("{NO_RESTORE_POINT}: {why}"));
}

/// The update runs.
pub(crate) fn accept(record: &mut Record) -> Happened {
    let is_back = record.failed_revision == Some(record.revision) && record.deployed_revision != Some(record.revision);
    record.previous_revision = None;
    if let Some(restore) = &mut record.restore {
        restore.before = None;
    }
    if !is_back {
        record.failed_revision = None;
    }
    let revision = record.deployed_revision.unwrap_or(record.revision);
    match is_back {
        true => Happened::with("rolled_back", format!("revision {revision} is back")),
        false => {
            record.last_error = None;
            forget_old_state(record);
            Happened::with("updated", format!("revision {revision} runs"))
        }
    }
}

/// The update does not come to run.
pub(crate) fn take_back(record: &mut Record, cause: Option<String>) -> Happened {
    let (revision, previous) = (record.revision, record.previous_revision.unwrap_or_default());
    let why = cause.unwrap_or_else(|| "it was not seen to run in time".to_owned());
    let detail = format!("revision {revision} does not run, revision {previous} is taken back: {why}");
    record.failed_revision = Some(revision);
    record.last_error = Some(detail.clone());
    go_back_to_the_state_before(record);
    (record.restarts, record.failures, record.retry_at) = (0, 0, None);
    Happened::with("taking_back", detail)
}

/// It has failed too often.
pub(crate) fn give_up(record: &mut Record, cause: Option<String>) -> Happened {
    record.failed_revision = Some(record.revision);
    record.previous_revision = None;
    record.observed = ObservedState::Failed;
    if cause.is_some() {
        record.last_error = cause;
    }
    let error = record.last_error.as_deref().unwrap_or("the engine does not say why");
    Happened::with("given_up", format!("begun {} times in a row: {error}", record.restarts + 1))
}

/// A topic of a deleted definition cannot be deleted now.
pub(crate) fn topic_stays(
    record: &mut Record,
    (topic, error): (&str, &PortError),
    now: Timestamp,
    rules: &Reconcile,
) -> Happened {
    let detail = format!("topic `{topic}` cannot be deleted: {error}");
    record.failures = record.failures.saturating_add(1);
    let detail = match record.failures < TOPIC_REFUSALS {
        true => format!("{detail}; it is tried again"),
        false => format!(
            "{detail}, tried {} times; delete the stream once more without its topic to let go of it: the topic stays then, \
             and is listed as an orphan",
            record.failures
        ),
    };
    record.retry_at = Some(later(now, wait(rules, record.failures)));
    record.last_error = Some(detail.clone());
    Happened::with("topic_not_deleted", detail)
}

/// How long to wait after that many fruitless tries in a row.
pub(crate) fn wait(rules: &Reconcile, failures: u32) -> Duration {
    rules.first_wait.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(rules.longest_wait)
}

/// That much later; for ever where the calendar ends.
pub(crate) fn later(now: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| now.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}
