//! What an engine runs, held against a definition: which of it is the definition's, and what of that is shown. Pure.

use jiff::Timestamp;

use super::outcome::later;
use super::record::{Call, Position, Record, is_active};
use crate::engines::{EngineKind, Observed, ObservedState};
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
    /// What runs under its names, and is no deployment of ours.
    pub foreign: Vec<String>,
    /// The text that runs, in the engine's words, if it says so.
    pub statement: Option<String>,
}

impl Sighting {
    /// The engine could not be asked.
    pub fn unknown() -> Sighting {
        Sighting {
            state: ObservedState::Unknown,
            engine_state: None,
            job_id: None,
            strays: Vec::new(),
            foreign: Vec::new(),
            statement: None,
        }
    }
}

/// Looks for a definition in what its engine runs.
pub(crate) fn look(record: &Record, observed: &[Observed]) -> Sighting {
    let mine = match record.engine.names_deployments() {
        true => look_for_job(record, observed),
        false => look_for_sink(record, observed),
    };
    let Found { mine, strays, foreign } = mine;
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
        foreign,
        statement: mine.and_then(|mine| mine.statement.clone()),
    }
}

/// What of an engine's jobs has to do with a definition.
struct Found<'a> {
    mine: Option<&'a Observed>,
    strays: Vec<String>,
    foreign: Vec<String>,
}

fn is_stopping(record: &Record) -> bool {
    matches!(record.call, Some(Call::Stop { .. } | Call::Remove))
}

/// Every deployment is a job of its own. Those of the same definition that are not the last one's should not run.
fn look_for_job<'a>(record: &Record, observed: &'a [Observed]) -> Found<'a> {
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
    let others = observed
        .iter()
        .filter(|job| job.name.starts_with(&family) && is_active(job.state) && !is_mine(job))
        // While the last deployment is not known to be there, the one before may be what runs by right.
        .filter(|job| wanted.is_none() || record.job_id.as_ref() != Some(&job.job_id));
    let (strays, foreign): (Vec<&Observed>, Vec<&Observed>) =
        others.partition(|job| is_ours(&job.name, &family, record.attempt));
    let ids = |jobs: Vec<&Observed>| jobs.into_iter().map(|job| job.job_id.clone()).collect();
    Found { mine, strays: ids(strays), foreign: ids(foreign) }
}

/// Whether that is the name of a deployment that we have made: what bears a later number is somebody else's.
fn is_ours(name: &str, family: &str, attempt: i32) -> bool {
    let numbers = name.strip_prefix(family).and_then(|numbers| numbers.split_once("-a"));
    numbers.is_some_and(|(revision, number)| {
        revision.parse::<i32>().is_ok() && number.parse::<i32>().is_ok_and(|number| number <= attempt)
    })
}

/// One query fills the stream or table of that name.
fn look_for_sink<'a>(record: &Record, observed: &'a [Observed]) -> Found<'a> {
    let names = record.names();
    let (sink, topic) = (names.sink(), names.topic());
    let fills = |query: &&Observed| query.name == sink && (query.topics.is_empty() || query.topics.contains(&topic));
    let mine = observed.iter().filter(fills).max_by_key(|query| record.job_id.as_ref() == Some(&query.job_id));
    let others = observed.iter().filter(fills).filter(|query| is_active(query.state));
    let others = others.filter(|query| mine.is_some_and(|mine| mine.job_id != query.job_id));
    Found { mine, strays: Vec::new(), foreign: others.map(|query| query.job_id.clone()).collect() }
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
/// | absent                                                     | it, if it was seen so at the look before and for `second_look` |
/// | else: starting, running, degraded, restarting, failed      | the same; of an engine in this process at once      |
///
/// The last ones flip to and fro while an engine begins a job that crashes again, or comes up itself. The one in this process
/// does neither: what it says is so. What is absent there may still run in the process that led before.
pub(crate) fn settle(
    engine: EngineKind,
    shown: Shown,
    seen: ObservedState,
    now: Timestamp,
    rules: &Reconcile,
) -> Shown {
    if seen == shown.state {
        return Shown { state: seen, other: None };
    }
    let at_once = match seen {
        ObservedState::Unknown | ObservedState::Stopping | ObservedState::Stopped | ObservedState::Paused => true,
        ObservedState::Absent => false,
        ObservedState::Starting
        | ObservedState::Running
        | ObservedState::Degraded
        | ObservedState::Restarting
        | ObservedState::Failed => engine.dies_with_us(),
    };
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

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    /// What is shown of an engine after looks that many seconds after the first one.
    fn shown(engine: EngineKind, looks: &[(i64, ObservedState)]) -> ObservedState {
        let first = Shown { state: ObservedState::Absent, other: None };
        let after = |shown, &(seconds, seen): &(i64, ObservedState)| {
            let now = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
            settle(engine, shown, seen, now, &Reconcile::default())
        };
        looks.iter().fold(first, after).state
    }

    #[test]
    fn what_flips_is_shown_once_it_has_stayed_and_what_an_engine_of_ours_says_at_once() {
        use ObservedState::{Absent, Failed, Paused, Restarting, Running, Starting};
        for engine in [EngineKind::Flink, EngineKind::Ksqldb] {
            assert_eq!(shown(engine, &[(0, Running)]), Absent);
            assert_eq!(shown(engine, &[(0, Running), (4, Running)]), Absent, "only four seconds");
            assert_eq!(shown(engine, &[(0, Running), (1, Running), (5, Running)]), Running);
            assert_eq!(shown(engine, &[(0, Running), (3, Restarting), (6, Running)]), Absent, "it flips");
            assert_eq!(shown(engine, &[(0, Paused)]), Paused);
        }
        for state in [Starting, Running, Restarting, Failed] {
            assert_eq!(shown(EngineKind::Embedded, &[(0, state)]), state);
        }
        let gone = [(0, Running), (1, Absent), (5, Absent)];
        assert_eq!(shown(EngineKind::Embedded, &gone), Running, "it may run in the process that led before");
        assert_eq!(shown(EngineKind::Embedded, &[(0, Running), (1, Absent), (6, Absent)]), Absent);
    }
}
