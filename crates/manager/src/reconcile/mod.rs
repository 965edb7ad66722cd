//! The loop that holds what is wanted against what is, and takes the next step of each definition. One leads; a round asks
//! each engine once, and definitions take their steps beside each other, each one at a time.
//!
//! It wakes at once by calls of people in its own process, within a second by those in other ones (a cheap look at when
//! somebody wanted something last: a listener would need a session of its own, which poolers break), and else by its interval.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::engines::{Capabilities, Engine, EngineKind, Observed, ObservedState, Trouble};
use crate::lifecycle::look::Shown;
use crate::lifecycle::record::Record;
use crate::manager::Shared;
use crate::store::{Find, Leader, StoreError};

mod act;
mod note;
mod observe;

/// How often it is looked whether somebody wants something.
const GLANCE: Duration = Duration::from_secs(1);
/// How long an engine may take to say what it runs.
const LOOK: Duration = Duration::from_secs(30);
/// How long it may take to say again who it is.
const WHO: Duration = Duration::from_secs(2);
/// How long steps under way may take when the process is to end.
const LAST_STEPS: Duration = Duration::from_secs(5);

/// What one process remembers while it leads. Losing it costs a look.
#[derive(Default)]
struct Memory {
    /// Something else that was seen once, by definition.
    others: HashMap<String, Option<(ObservedState, Timestamp)>>,
    /// Definitions whose step is under way.
    busy: HashSet<String>,
    /// When a definition's last step ended: what was seen before is old.
    acted: HashMap<String, Instant>,
    /// What the engines can, as they said when they were asked last.
    can: BTreeMap<EngineKind, Capabilities>,
    /// Which wishes were heard.
    last_wish: Option<Timestamp>,
    /// When it was noted last where states are kept.
    noted: Option<Instant>,
}

/// What the engines showed in one round.
struct Sights {
    began: Instant,
    engines: BTreeMap<EngineKind, Result<Vec<Observed>, Trouble>>,
}

/// Leads or waits to lead, until it is stopped.
pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let interval = shared.parts.settings.reconcile.interval;
    let mut is_told = false;
    while !stop.is_cancelled() {
        match shared.store.lead().await {
            Ok(Some(leader)) => {
                tracing::info!("this instance leads the stream manager");
                is_told = false;
                lead(&shared, &leader, &stop).await;
            }
            Ok(None) => {}
            Err(error) if !is_told => {
                is_told = true;
                tracing::warn!(error = %error, "the stream manager waits for the database");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(interval) => {}
        }
    }
}

async fn lead(shared: &Arc<Shared>, leader: &Leader, stop: &CancellationToken) {
    let mut memory = Memory::default();
    let mut steps: JoinSet<String> = JoinSet::new();
    let mut is_told = false;
    while !stop.is_cancelled() {
        if !leader.is_held().await {
            tracing::warn!("the lead of the stream manager is lost with its session");
            return;
        }
        match round(shared, &mut memory, &mut steps).await {
            Ok(()) => is_told = false,
            Err(error) if !is_told => {
                is_told = true;
                tracing::warn!(error = %error, "a round of the stream manager came to nothing");
            }
            Err(_) => {}
        }
        pause(shared, &mut memory, &mut steps, stop).await;
    }
    // What is not done by then is done again by whoever leads next.
    let all_done = async { while steps.join_next().await.is_some() {} };
    if tokio::time::timeout(LAST_STEPS, all_done).await.is_err() {
        tracing::info!("steps of the stream manager are left to the next leader");
    }
}

/// Waits until there is something to do, or a round is due.
async fn pause(shared: &Shared, memory: &mut Memory, steps: &mut JoinSet<String>, stop: &CancellationToken) {
    let rules = &shared.parts.settings.reconcile;
    let due = tokio::time::Instant::now() + next_round(rules.interval, rules.second_look, memory);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = shared.wake.notified() => return,
            () = tokio::time::sleep_until(due) => return,
            Some(ended) = steps.join_next() => return is_over(memory, ended),
            () = tokio::time::sleep(GLANCE.min(rules.interval)) => {
                // That the database is away the next round says.
                if shared.store.last_wish().await.is_ok_and(|wish| wish != memory.last_wish) {
                    return;
                }
            }
        }
    }
}

/// Sooner where something waits for its second look.
fn next_round(interval: Duration, second_look: Duration, memory: &Memory) -> Duration {
    if memory.others.values().any(Option::is_some) { interval.min(second_look) } else { interval }
}

fn is_over(memory: &mut Memory, ended: Result<String, tokio::task::JoinError>) {
    match ended {
        Ok(id) => {
            memory.busy.remove(&id);
            memory.others.remove(&id);
            memory.acted.insert(id, Instant::now());
        }
        // A step that panics is a fault of ours: it ends the loop as it would have without a task of its own.
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => {}
    }
}

async fn round(shared: &Arc<Shared>, memory: &mut Memory, steps: &mut JoinSet<String>) -> Result<(), StoreError> {
    while let Some(ended) = steps.try_join_next() {
        is_over(memory, ended);
    }
    memory.last_wish = shared.store.last_wish().await?;
    let records = shared.store.find(&Find::default(), i64::MAX).await?;
    let known: HashSet<&str> = records.iter().map(|record| record.id.as_str()).collect();
    memory.others.retain(|id, _| known.contains(id.as_str()));
    memory.acted.retain(|id, _| known.contains(id.as_str()));
    let sights = look_at_engines(shared, memory, &records).await;
    for record in records {
        if memory.busy.contains(&record.id) {
            continue;
        }
        if let Err(error) = observe::one(shared, memory, steps, &sights, record).await {
            tracing::warn!(error = %error, "a definition could not be brought forward");
        }
    }
    if note::is_due(shared, memory) {
        memory.noted = Some(Instant::now());
        let (shared, engines) = (Arc::clone(shared), note::that_keep(memory));
        steps.spawn(async move {
            note::restore_points(&shared, &engines).await;
            String::new()
        });
    }
    Ok(())
}

/// Asks each engine that somebody has a use for what it runs, at once.
async fn look_at_engines(shared: &Shared, memory: &mut Memory, records: &[Record]) -> Sights {
    let began = Instant::now();
    let used: HashSet<EngineKind> = records.iter().map(|record| record.engine).collect();
    let asked = shared.parts.engines.iter().filter(|engine| used.contains(&engine.kind()));
    let looks = asked.map(|engine| {
        let before = memory.can.get(&engine.kind()).cloned();
        async move { (engine.kind(), look_at(engine.as_ref(), before).await) }
    });
    let mut engines = BTreeMap::new();
    for (kind, seen) in futures_util::future::join_all(looks).await {
        let observed = match seen {
            Ok((can, observed)) => {
                memory.can.insert(kind, can);
                Ok(observed)
            }
            Err(trouble) => {
                // It may come back as another one.
                memory.can.remove(&kind);
                Err(trouble)
            }
        };
        engines.insert(kind, observed);
    }
    Sights { began, engines }
}

/// Asks who answers, and what it runs. Another cluster may stand behind the same address by now, and nobody says so; where that
/// cannot be asked (Flink's gateway is away, while the JobManager is well), what was said before holds.
async fn look_at(engine: &dyn Engine, before: Option<Capabilities>) -> Result<(Capabilities, Vec<Observed>), Trouble> {
    let can = async {
        match before {
            Some(before) => {
                let now = tokio::time::timeout(WHO, engine.capabilities()).await;
                Ok(now.ok().and_then(Result::ok).unwrap_or(before))
            }
            None => engine.capabilities().await,
        }
    };
    let look = async { tokio::try_join!(can, engine.observe()) };
    match tokio::time::timeout(LOOK, look).await {
        Ok(seen) => seen,
        Err(_) => Err(Trouble::Unavailable(format!("it did not say within {} s what it runs", LOOK.as_secs()))),
    }
}

/// What is shown of a definition now, and what waits for a second look.
fn shown(memory: &Memory, record: &Record) -> Shown {
    Shown { state: record.observed, other: memory.others.get(&record.id).copied().flatten() }
}
