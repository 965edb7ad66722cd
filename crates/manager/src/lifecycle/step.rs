//! The next step of a definition towards what is wanted. One step at a time: it is written down, done, and what came of it
//! is written down; then everything is looked at again. So it does not matter after which step somebody dies.

use super::doubt::is_in_doubt;
use super::record::{Call, Position, Record, is_active};
use crate::definition::Intent;
use crate::engines::{Capabilities, EngineKind, ObservedState};

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing.
    Rest(Rest),
    /// A call of the engine, written down before it is made.
    Call(Call),
    /// A deployment without an outcome is seen to be there: it counts as deployed.
    Adopt { job_id: String },
    /// A deployment without an outcome that nobody wants any more is not there.
    DropCall,
    /// A job of an earlier deployment runs beside the one that counts: it is ended.
    End { job_id: String },
    /// The update has come to run: the text before is not needed any more.
    Accept,
    /// The new text does not come to run: the one before is taken back.
    TakeBack,
    /// What has failed again and again is not begun once more.
    GiveUp,
    /// It is gone from the engine: the topic follows if it shall, then the row.
    Forget,
}

/// Why nothing is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// It is as it is wanted.
    AsWanted,
    /// The engine cannot be asked.
    EngineAway,
    /// The engine is about to do something.
    EngineWorks,
    /// Something came to nothing a short while ago.
    NotYet,
    /// There is no text that could be brought to run.
    Failed,
    /// Somebody has paused or stopped it by hand, and that is not undone.
    Drift,
}

/// What was seen of a definition, and what time has brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// What it does, after two equal looks where that is needed.
    pub state: ObservedState,
    /// Whether the last look showed the same; else another one is needed before anything is called gone.
    pub is_sure: bool,
    /// What the engine calls the one that is seen.
    pub job_id: Option<String>,
    /// Whether the call without an outcome was made so long ago that it cannot come about any more.
    pub is_call_old: bool,
    /// Jobs of its earlier deployments that still run.
    pub strays: Vec<String>,
    /// Whether there is nothing that has to be waited for before something is tried (again).
    pub is_due: bool,
    /// Whether what was deployed last should run by now.
    pub is_overdue: bool,
    /// Whether it may be begun again after it has failed.
    pub may_restart: bool,
    /// Whether what others do by hand is undone, now.
    pub heals: bool,
    /// Whether another text runs than the one that was deployed.
    pub is_other_text: bool,
}

/// The next step.
///
/// First what can be done in any case: nothing while the engine is away; a call without an outcome once more; an earlier job
/// that still runs is ended. Then by what is wanted:
///
/// | wanted  | nothing, stopped | deployed                                                          | paused            |
/// |---------|------------------|-------------------------------------------------------------------|-------------------|
/// | draft   | rest             | rest                                                              | rest              |
/// | running | deploy           | another revision: update; failed or gone: deploy again; else rest | resume            |
/// | paused  | rest             | stop with state                                                   | rest              |
/// | stopped | rest             | stop                                                              | stop              |
/// | deleted | remove, forget   | stop for good                                                     | stop for good     |
pub(crate) fn next_step(record: &Record, seen: &Seen, can: &Capabilities) -> Step {
    if record.intent == Intent::Deleted && record.attempt == 0 {
        return Step::Forget; // it never was in the engine, which need not be there for this
    }
    if seen.state == ObservedState::Unknown {
        return Step::Rest(Rest::EngineAway);
    }
    if let Some(call) = &record.call {
        return unfinished(record, seen, call);
    }
    if let Some(job_id) = seen.strays.first().filter(|_| seen.heals || record.intent == Intent::Deleted) {
        return when_due(seen, || Step::End { job_id: job_id.clone() });
    }
    match record.intent {
        Intent::Draft => Step::Rest(Rest::AsWanted),
        Intent::Running => towards_running(record, seen, can),
        Intent::Paused | Intent::Stopped => towards_rest(record, seen, can),
        Intent::Deleted => towards_nothing(record, seen),
    }
}

/// A call without an outcome: made again, unless it is seen to have come about, or nobody wants that any more.
fn unfinished(record: &Record, seen: &Seen, call: &Call) -> Step {
    let is_deploy = matches!(call, Call::Deploy { .. });
    let is_wanted = record.intent == Intent::Running;
    // The name of a job is that of its deployment; that of a sink is every revision's, so there the engine is asked again.
    let is_the_one = record.engine.names_deployments() && is_active(seen.state);
    match &seen.job_id {
        Some(job_id) if is_deploy && (is_the_one || !is_wanted) => Step::Adopt { job_id: job_id.clone() },
        None if is_deploy && !is_wanted && seen.is_call_old => given_up(record, call),
        None if is_deploy && !is_wanted => Step::Rest(Rest::EngineWorks),
        _ => when_due(seen, || Step::Call(call.clone())),
    }
}

/// A deployment that is not seen and that nobody wants any more. What dies with the process that runs it may have run and kept its
/// state: it counts as deployed, and is stopped like any other, so that what comes after it goes on where it was.
fn given_up(record: &Record, call: &Call) -> Step {
    match call {
        Call::Deploy { revision, attempt, .. } if record.engine.dies_with_us() => {
            Step::Adopt { job_id: record.names().job_name(*revision, *attempt) }
        }
        _ => Step::DropCall,
    }
}

fn when_due(seen: &Seen, step: impl FnOnce() -> Step) -> Step {
    if seen.is_due { step() } else { Step::Rest(Rest::NotYet) }
}

fn stop(seen: &Seen, keep_state: bool) -> Step {
    when_due(seen, || Step::Call(Call::Stop { keep_state }))
}

fn towards_running(record: &Record, seen: &Seen, can: &Capabilities) -> Step {
    let Some(target) = record.target() else {
        return match record.position {
            // It has come to run after all.
            Position::Deployed | Position::Paused if seen.state == ObservedState::Running => Step::Accept,
            Position::Deployed | Position::Paused => Step::Rest(Rest::Failed),
            _ if is_active(seen.state) => stop(seen, false),
            _ => Step::Rest(Rest::Failed),
        };
    };
    let is_new = record.deployed_revision != Some(target);
    let is_fresh = is_new && record.fresh_revision == Some(target);
    let is_another = is_new || is_in_doubt(record);
    let is_gone = matches!(seen.state, ObservedState::Absent | ObservedState::Failed | ObservedState::Stopped);
    match record.position {
        Position::Nothing | Position::Stopped | Position::Removed => again(record, seen, target),
        Position::Paused if is_gone => again(record, seen, target),
        Position::Paused if is_fresh => stop(seen, false),
        Position::Paused => when_due(seen, || Step::Call(Call::Resume)),
        Position::Deployed if is_another => update(record, seen, can, (target, is_fresh)),
        Position::Deployed => keep_running(record, seen, can, target),
    }
}

/// Deploys anew, under another number.
fn deploy(record: &Record, seen: &Seen, target: i32, replaces: bool) -> Step {
    let restore = if replaces { None } else { record.restore_for(target) };
    when_due(seen, || Step::Call(Call::Deploy { revision: target, attempt: record.attempt + 1, replaces, restore }))
}

/// Likewise, unless that has failed too often.
fn again(record: &Record, seen: &Seen, target: i32) -> Step {
    match (seen.may_restart, record.failed_revision == Some(record.revision)) {
        (true, _) => deploy(record, seen, target, false),
        (false, false) => Step::GiveUp,
        // The text before does no better: nobody waits for an update any more.
        (false, true) if record.previous_revision.is_some() => Step::Accept,
        (false, true) => Step::Rest(Rest::Failed),
    }
}

/// From the revision that is deployed to another one: the next, or the one before.
fn update(record: &Record, seen: &Seen, can: &Capabilities, (target, is_fresh): (i32, bool)) -> Step {
    match seen.state {
        ObservedState::Stopping | ObservedState::Unknown => Step::Rest(Rest::EngineWorks),
        // Nothing is there that could be replaced or stopped.
        ObservedState::Absent => again(record, seen, target),
        // It says what it has left: perhaps the savepoint of a stop whose answer was lost.
        ObservedState::Stopped | ObservedState::Failed if can.can_savepoint => stop(seen, true),
        ObservedState::Stopped => again(record, seen, target),
        _ if can.replaces_in_place && !is_fresh => deploy(record, seen, target, true),
        // A job that is about to run is waited for: so it is stopped with a savepoint, not with what it wrote down last.
        ObservedState::Starting | ObservedState::Restarting if !seen.is_overdue => Step::Rest(Rest::EngineWorks),
        _ => stop(seen, can.can_savepoint),
    }
}

/// The revision that is to run was deployed.
fn keep_running(record: &Record, seen: &Seen, can: &Capabilities, target: i32) -> Step {
    let is_update = record.previous_revision.is_some_and(|previous| previous != target);
    match seen.state {
        ObservedState::Running if record.previous_revision.is_some() => Step::Accept,
        // Something is wrong with it, but it does run.
        ObservedState::Degraded if record.previous_revision.is_some() && seen.is_overdue => Step::Accept,
        ObservedState::Running | ObservedState::Degraded if seen.is_other_text => {
            match seen.heals && can.replaces_in_place {
                true => deploy(record, seen, target, true),
                false => Step::Rest(Rest::Drift),
            }
        }
        ObservedState::Running | ObservedState::Degraded => Step::Rest(Rest::AsWanted),
        // What the last look showed to run, and waits for another one to be shown so, is not taken back.
        ObservedState::Starting | ObservedState::Restarting if is_update && seen.is_overdue && seen.is_sure => {
            Step::TakeBack
        }
        ObservedState::Failed if is_update => Step::TakeBack,
        // The text before is back, and does no better: it is not the update any more that one waits for.
        ObservedState::Starting | ObservedState::Restarting
            if record.previous_revision.is_some() && seen.is_overdue =>
        {
            Step::Accept
        }
        ObservedState::Starting | ObservedState::Restarting | ObservedState::Stopping | ObservedState::Unknown => {
            Step::Rest(Rest::EngineWorks)
        }
        // Such an engine loses nothing by itself.
        ObservedState::Absent if record.engine == EngineKind::Ksqldb && !seen.heals && !is_update => {
            Step::Rest(Rest::Drift)
        }
        // The engine has lost it. Where that happens again and again, it is given up as well.
        ObservedState::Failed | ObservedState::Absent => again(record, seen, target),
        ObservedState::Stopped if seen.heals && can.can_savepoint => stop(seen, true),
        ObservedState::Stopped if seen.heals => deploy(record, seen, target, false),
        ObservedState::Paused if seen.heals => when_due(seen, || Step::Call(Call::Resume)),
        ObservedState::Stopped | ObservedState::Paused => Step::Rest(Rest::Drift),
    }
}

/// It shall be paused or stopped.
fn towards_rest(record: &Record, seen: &Seen, can: &Capabilities) -> Step {
    let pauses = record.intent == Intent::Paused;
    match record.position {
        Position::Deployed => match (seen.state, keeps_state(record, can)) {
            (ObservedState::Stopping, _) => Step::Rest(Rest::EngineWorks),
            (_, false) => stop(seen, false),
            (_, true) if can.can_pause => stop(seen, true),
            (ObservedState::Starting | ObservedState::Restarting, true) if !seen.is_overdue => {
                Step::Rest(Rest::EngineWorks)
            }
            (_, true) => stop(seen, true),
        },
        Position::Paused if !pauses => stop(seen, false),
        Position::Paused | Position::Nothing | Position::Stopped | Position::Removed => {
            match (is_active(seen.state), seen.heals) {
                (false, _) => Step::Rest(Rest::AsWanted),
                (true, true) => stop(seen, pauses && record.position == Position::Paused),
                (true, false) => Step::Rest(Rest::Drift),
            }
        }
    }
}

/// Whether the state is kept when it is paused or stopped. What is paused by its engine holds its place there: so only what
/// shall go on is.
fn keeps_state(record: &Record, can: &Capabilities) -> bool {
    match record.intent {
        Intent::Paused => can.can_pause || can.can_savepoint,
        _ => can.can_savepoint && !record.discard_state,
    }
}

/// It shall be gone.
fn towards_nothing(record: &Record, seen: &Seen) -> Step {
    match record.position {
        Position::Deployed | Position::Paused => stop(seen, false),
        Position::Nothing | Position::Stopped | Position::Removed if is_active(seen.state) => stop(seen, false),
        Position::Nothing | Position::Stopped => when_due(seen, || Step::Call(Call::Remove)),
        Position::Removed if !seen.is_sure => Step::Rest(Rest::EngineWorks),
        Position::Removed => when_due(seen, || Step::Forget),
    }
}
