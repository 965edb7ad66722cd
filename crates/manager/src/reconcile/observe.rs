//! One definition in one round: what is seen of it is written down, and its next step begins.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;

use super::ask::{self, Question};
use super::{Memory, Sights, act, shown};
use crate::engines::{Capabilities, ObservedState};
use crate::lifecycle::heal;
use crate::lifecycle::look::{Shown, Sighting, look, settle};
use crate::lifecycle::outcome::{self, later};
use crate::lifecycle::record::{Call, Position, Record};
use crate::lifecycle::step::{Seen, Step, next_step};
use crate::manager::Shared;
use crate::settings::Reconcile;
use crate::store::StoreError;

/// How old what is written about a look may become while nothing changes.
const STALE: SignedDuration = SignedDuration::from_secs(30);

pub(super) async fn one(
    shared: &Arc<Shared>,
    memory: &mut Memory,
    steps: &mut JoinSet<String>,
    sights: &Sights,
    mut record: Record,
) -> Result<(), StoreError> {
    if memory.acted.get(&record.id).is_some_and(|acted| *acted >= sights.began) {
        return Ok(()); // it was seen before its last step ended
    }
    let rules = &shared.parts.settings.reconcile;
    let now = Timestamp::now();
    let other = other_cluster(&record, memory);
    let sighting = match &sights.seen {
        Some(Ok(_)) if other.is_some() => Sighting::unknown(),
        Some(Ok(observed)) => look(&record, observed),
        Some(Err(_)) | None => Sighting::unknown(),
    };
    let before = record.clone();
    let is_other_text = heal::is_other_text(&mut record, &sighting);
    let settled = settle(record.engine, shown(memory, &record), sighting.state, now, rules);
    memory.others.insert(record.id.clone(), settled.other);
    memory.is_moving |= matches!(settled.state, ObservedState::Starting | ObservedState::Stopping);
    let glimpse = Glimpse { sighting, settled, is_other_text, now };
    // One that was never deployed is nowhere, whether its engine answers or not.
    if record.attempt > 0 {
        let drift =
            other.or_else(|| heal::told(&record, &glimpse.sighting, (settled.state, is_other_text), now, rules));
        match write_down(shared, (before, &mut record), &glimpse, drift).await? {
            Looked::Done => {}
            // Somebody wants something else meanwhile: the next round sees what.
            Looked::Stale => return Ok(()),
            Looked::Asks(question) => {
                memory.busy.insert(record.id.clone());
                let (shared, room) = (Arc::clone(shared), Arc::clone(&memory.rooms.questions));
                steps.spawn(async move {
                    let id = record.id.clone();
                    ask::why(&shared, record, question, &room).await;
                    id
                });
                return Ok(());
            }
        }
    }
    let Some(can) = memory.can.clone().or_else(|| away(&record)) else { return Ok(()) };
    let died_with_another = died_with_another(&record, settled.state, memory);
    let seen = seen(&record, glimpse, rules);
    let seen = Seen { may_restart: seen.may_restart || died_with_another, ..seen };
    let step = next_step(&record, &seen, &can);
    if let Step::Rest(_) = step {
        return Ok(());
    }
    if record.call.is_none()
        && let Step::Call(call) = &step
    {
        count(&mut record, call, (settled.state, is_other_text, died_with_another), now, rules);
    }
    let begins = begins(&step);
    if begins.is_some() && !can.cluster.is_empty() {
        record.cluster = Some(can.cluster.clone());
    }
    let room = match &step {
        Step::Call(Call::Deploy { .. }) => &memory.rooms.deployments,
        _ => &memory.rooms.others,
    };
    // Who finds no room waits for the next round, which sees it as it is by then.
    let Ok(room) = Arc::clone(room).try_acquire_owned() else { return Ok(()) };
    memory.busy.insert(record.id.clone());
    memory.begun.extend(begins.map(|attempt| (record.id.clone(), attempt)));
    let shared = Arc::clone(shared);
    steps.spawn(async move {
        let (id, _room) = (record.id.clone(), room);
        act::take(&shared, record, step).await;
        id
    });
    Ok(())
}

/// Whether it was deployed on another cluster than the one that answers: what that one runs says nothing of it.
fn other_cluster(record: &Record, memory: &Memory) -> Option<String> {
    let ours = record.cluster.as_ref().filter(|_| record.attempt > 0)?;
    let theirs = &memory.can.as_ref()?.cluster;
    (!theirs.is_empty() && theirs != ours).then(|| {
        format!(
            "another cluster answers, `{theirs}`, and it was deployed on `{ours}`: nothing is done; deploy it to begin here"
        )
    })
}

/// The number of the deployment that a step makes, if it makes one.
const fn begins(step: &Step) -> Option<i32> {
    match step {
        Step::Call(Call::Deploy { attempt, .. }) => Some(*attempt),
        _ => None,
    }
}

/// A call is made for the first time: counts what it undoes, or that it begins again what has failed.
fn count(
    record: &mut Record,
    call: &Call,
    (state, is_other_text, died_with_another): (ObservedState, bool, bool),
    now: Timestamp,
    rules: &Reconcile,
) {
    if heal::is_by_hand(record, state, is_other_text) {
        heal::count(record, now, rules);
    }
    if !died_with_another {
        outcome::count_restart(record, call);
    }
}

/// Whether it is gone because the process that ran it has ended, or leads no more: no fault of its own, so it is begun again however
/// often that happens. What is lost of our own deployments counts as failed: somebody who is no part of this takes it away.
fn died_with_another(record: &Record, shown: ObservedState, memory: &Memory) -> bool {
    record.engine.dies_with_us()
        && shown == ObservedState::Absent
        && memory.begun.get(&record.id) != Some(&record.attempt)
}

/// What an engine that does not answer can does not matter: what is left to do without it asks for none of it.
fn away(record: &Record) -> Option<Capabilities> {
    (record.attempt == 0).then(|| Capabilities {
        version: String::new(),
        cluster: String::new(),
        can_pause: false,
        can_savepoint: false,
        replaces_in_place: false,
        free_slots: None,
    })
}

/// What one look at an engine says of one definition.
struct Glimpse {
    sighting: Sighting,
    settled: Shown,
    is_other_text: bool,
    now: Timestamp,
}

fn seen(record: &Record, glimpse: Glimpse, rules: &Reconcile) -> Seen {
    let Glimpse { sighting, settled, is_other_text, now } = glimpse;
    Seen {
        state: if sighting.state == ObservedState::Unknown { sighting.state } else { settled.state },
        is_sure: settled.other.is_none(),
        job_id: sighting.job_id,
        is_call_old: record.called_at.is_none_or(|at| later(at, rules.longest_wait) <= now),
        strays: sighting.strays,
        is_due: record.retry_at.is_none_or(|at| at <= now),
        is_overdue: record.deployed_at.is_none_or(|at| later(at, rules.time_to_run) <= now),
        may_restart: record.restarts < rules.restarts,
        heals: heal::may_heal(record, now, rules),
        is_other_text,
    }
}

/// What came of a look.
enum Looked {
    /// It is written, or nothing is new.
    Done,
    /// Somebody has written the definition meanwhile.
    Stale,
    /// It is written, and the engine knows more of it.
    Asks(Question),
}

/// Writes down what is shown, where it is new.
async fn write_down(
    shared: &Shared,
    (before, record): (Record, &mut Record),
    glimpse: &Glimpse,
    drift: Option<String>,
) -> Result<Looked, StoreError> {
    let Glimpse { sighting, settled, now, .. } = glimpse;
    let rules = &shared.parts.settings.reconcile;
    record.observed = settled.state;
    record.engine_state = sighting.engine_state.clone();
    record.drift = drift;
    // By another id under our name: whoever made it anew, it is the one that counts.
    if let Some(job_id) = sighting.job_id.clone().filter(|_| record.call.is_none()) {
        record.job_id = Some(job_id);
    }
    let is_steady = record.deployed_at.is_some_and(|at| later(at, rules.steady) <= *now);
    if settled.state == ObservedState::Running && is_steady {
        record.restarts = 0;
    }
    let is_old = record.observed_at.is_none_or(|at| now.duration_since(at) > STALE);
    let is_new = *record != before;
    if !(is_old || is_new) {
        return Ok(Looked::Done);
    }
    if before.drift.is_none()
        && let Some(drift) = &record.drift
    {
        tracing::warn!(stream = record.name, drift, "a stream is not as it is wanted");
    }
    if !shared.store.see(record).await? {
        return Ok(Looked::Stale);
    }
    if before.observed == settled.state || !asks_why(settled.state) {
        return Ok(Looked::Done);
    }
    let has_ended = matches!(settled.state, ObservedState::Failed | ObservedState::Stopped)
        && record.position == Position::Deployed
        && record.previous_revision.is_none();
    Ok(Looked::Asks(Question { about_state: has_ended }))
}

/// Whether the engine is asked for more when something is seen to be so.
const fn asks_why(state: ObservedState) -> bool {
    matches!(
        state,
        ObservedState::Failed | ObservedState::Stopped | ObservedState::Restarting | ObservedState::Degraded
    )
}
