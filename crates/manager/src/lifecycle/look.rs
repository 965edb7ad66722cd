//! What an engine runs, held against a definition: which of it is the definition's, and what of that is shown. Pure.

use jiff::Timestamp;

use super::outcome::later;
use super::record::{Call, Position, Record, is_active};
use crate::engines::{Observed, ObservedState};
use crate::settings::Reconcile;

/// What was seen of one definition in one round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sighting {
    pub state: ObservedState,
    pub engine_state: Option<String>,
    /// What the engine calls it, if it is there.
    pub job_id: Option<String>,
    /// Jobs of its earlier deployments that still run.
    pub strays: Vec<String>,
}

impl Sighting {
    /// The engine could not be asked.
    pub fn unknown() -> Sighting {
        Sighting { state: ObservedState::Unknown, engine_state: None, job_id: None, strays: Vec::new() }
    }
}

/// Looks for a definition in what its engine runs.
pub(crate) fn look(record: &Record, observed: &[Observed]) -> Sighting {
    let mine = match record.engine.names_deployments() {
        true => look_for_job(record, observed),
        false => look_for_sink(record, observed),
    };
    let (mine, strays) = mine;
    let state = match mine {
        // A stream has no end of its own: one that we did not stop is at fault. One that was cancelled was stopped by hand.
        Some(mine)
            if mine.engine_state == "FINISHED" && record.position == Position::Deployed && !is_stopping(record) =>
        {
            ObservedState::Failed
        }
        Some(mine) => mine.state,
        // The engine forgets what we have stopped, or shows it no more.
        None if matches!(record.position, Position::Stopped) => ObservedState::Stopped,
        None => ObservedState::Absent,
    };
    Sighting {
        state,
        engine_state: mine.map(|mine| mine.engine_state.clone()),
        job_id: mine.map(|mine| mine.job_id.clone()),
        strays,
    }
}

fn is_stopping(record: &Record) -> bool {
    matches!(record.call, Some(Call::Stop { .. } | Call::Remove))
}

/// Every deployment is a job of its own. Those of the same definition that are not the last one's should not run.
fn look_for_job<'a>(record: &Record, observed: &'a [Observed]) -> (Option<&'a Observed>, Vec<String>) {
    let names = record.names();
    let family = format!("{}-r", names.job_family());
    // A deployment whose outcome is not known may be there already, under the name that it was given.
    let wanted = match &record.call {
        Some(Call::Deploy { revision, attempt, .. }) => Some(names.job_name(*revision, *attempt)),
        _ => None,
    };
    let is_mine = |job: &Observed| match (&wanted, &record.job_id) {
        (Some(name), _) => job.name == *name,
        (None, Some(id)) => job.job_id == *id,
        (None, None) => false,
    };
    let mine = observed.iter().find(|job| is_mine(job));
    let strays = observed
        .iter()
        .filter(|job| is_ours(&job.name, &family, record.attempt) && is_active(job.state) && !is_mine(job))
        // While the last deployment is not known to be there, the one before may be what runs by right.
        .filter(|job| wanted.is_none() || record.job_id.as_ref() != Some(&job.job_id))
        .map(|job| job.job_id.clone())
        .collect();
    (mine, strays)
}

/// Whether that is the name of a deployment that we have made: what bears a later number is somebody else's.
fn is_ours(name: &str, family: &str, attempt: i32) -> bool {
    let numbers = name.strip_prefix(family).and_then(|numbers| numbers.split_once("-a"));
    numbers.is_some_and(|(revision, number)| {
        revision.parse::<i32>().is_ok() && number.parse::<i32>().is_ok_and(|number| number <= attempt)
    })
}

/// One query fills the stream or table of that name.
fn look_for_sink<'a>(record: &Record, observed: &'a [Observed]) -> (Option<&'a Observed>, Vec<String>) {
    let names = record.names();
    let (sink, topic) = (names.sink(), names.topic());
    let fills = |query: &&Observed| query.name == sink && (query.topics.is_empty() || query.topics.contains(&topic));
    let mine = observed.iter().filter(fills).max_by_key(|query| record.job_id.as_ref() == Some(&query.job_id));
    (mine, Vec::new())
}

/// What is shown, and what is waited for: something else that was seen once, since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shown {
    pub state: ObservedState,
    pub other: Option<(ObservedState, Timestamp)>,
}

/// What is shown after another look.
///
/// | seen                                                       | shown                                               |
/// |------------------------------------------------------------|-----------------------------------------------------|
/// | what is shown                                              | it                                                  |
/// | unknown, stopping, stopped, paused                         | it, at once                                         |
/// | else: starting, running, degraded, restarting, failed, absent | it, if it was seen so at the look before and for `second_look` |
///
/// The latter flip to and fro while a job crashes and is begun again, or while an engine comes up.
pub(crate) fn settle(shown: Shown, seen: ObservedState, now: Timestamp, rules: &Reconcile) -> Shown {
    if seen == shown.state {
        return Shown { state: seen, other: None };
    }
    let at_once = matches!(
        seen,
        ObservedState::Unknown | ObservedState::Stopping | ObservedState::Stopped | ObservedState::Paused
    );
    if at_once {
        return Shown { state: seen, other: None };
    }
    match shown.other {
        Some((other, since)) if other == seen => match later(since, rules.second_look) <= now {
            true => Shown { state: seen, other: None },
            false => shown,
        },
        _ => Shown { state: shown.state, other: Some((seen, now)) },
    }
}

/// How the engine differs from what is wanted through no doing of ours, as a sentence.
pub(crate) fn drift(record: &Record, shown: ObservedState) -> Option<String> {
    use crate::definition::Intent;
    let what = match (record.intent, record.position, shown) {
        (Intent::Running, Position::Deployed, ObservedState::Paused) => "it was paused by hand",
        (Intent::Running, Position::Deployed, ObservedState::Stopped) => "it was stopped by hand",
        (Intent::Running, Position::Deployed, ObservedState::Absent) => "the engine knows nothing of it any more",
        (Intent::Paused, Position::Paused, state) if is_active(state) => "it was resumed by hand",
        (Intent::Paused | Intent::Stopped, Position::Stopped, state) if is_active(state) => "it was begun by hand",
        _ => return None,
    };
    Some(what.to_owned())
}
