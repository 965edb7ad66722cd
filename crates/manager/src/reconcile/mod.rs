//! The loops that hold what is wanted against what is, and take the next step of each definition. One instance leads; a round
//! asks an engine once which cluster it is and once what it runs, whatever the number of definitions, and these take their
//! steps beside each other, each one at a time and a few of them at once.
//!
//! Each engine has a loop of its own: one that answers slowly holds up none of the others. What is asked about a single
//! definition (why it has failed) is asked beside the rounds, too.
//!
//! A loop wakes at once by calls of people in its own process, within a second by those in other ones (a cheap look at when
//! somebody wanted something last: a listener would need a session of its own, which poolers break), and else by its interval.
//!
//! Who leads no more tells engines that run in this process, and leads again only when these have ended what they may not run on.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::engines::{Capabilities, Engine, EngineKind, Observed, ObservedState, Trouble};
use crate::lifecycle::look::Shown;
use crate::lifecycle::record::Record;
use crate::manager::Shared;
use crate::store::{Find, Leader, StoreError};

mod act;
mod ask;
mod note;
mod observe;

/// How often it is looked whether somebody wants something, and whether the session that leads was cut.
const GLANCE: Duration = Duration::from_secs(1);
/// How long an engine may take to say what it runs.
const LOOK: Duration = Duration::from_secs(30);
/// How long it may take to say again who it is.
const WHO: Duration = Duration::from_secs(2);
/// How often old events are deleted.
const FORGET_EVERY: Duration = Duration::from_secs(3600);
/// How long steps under way may take when the process is to end.
const LAST_STEPS: Duration = Duration::from_secs(5);
/// Deployments of one engine that are under way at once. They may take minutes, where it has no room.
const DEPLOYMENTS: usize = 4;
/// Other steps of one engine likewise: so what is to stop does not wait for what is to begin.
const OTHERS: usize = 4;
/// So often it is looked while something waits for its second look.
const LOOKS: u32 = 5;
/// Rounds that ended steps call for come no sooner after the one before than this part of the interval.
const HASTE: u32 = 20;

/// What one process remembers of one engine while it leads. Losing it costs a look.
struct Memory {
    engine: EngineKind,
    /// Something else that was seen once, by definition.
    others: HashMap<String, Option<(ObservedState, Timestamp)>>,
    /// Whether something was about to run, or to stop, in the last round.
    is_moving: bool,
    /// Definitions whose step is under way.
    busy: HashSet<String>,
    /// When a definition's last step ended: what was seen before is old.
    acted: HashMap<String, Instant>,
    /// The deployment of each definition that was called for last while this process leads.
    begun: HashMap<String, i32>,
    /// What the engine can, as it said when it was asked last.
    can: Option<Capabilities>,
    /// Which wishes were heard.
    last_wish: Option<Timestamp>,
    /// When it was noted last where states are kept.
    noted: Option<Instant>,
    /// The notes that were begun last.
    noting: Option<AbortHandle>,
    /// When the last round began.
    began: Instant,
    rooms: Rooms,
}

impl Memory {
    fn new(engine: EngineKind) -> Memory {
        let rooms = Rooms {
            deployments: Arc::new(Semaphore::new(DEPLOYMENTS)),
            others: Arc::new(Semaphore::new(OTHERS)),
            questions: Arc::new(Semaphore::new(ask::AT_ONCE)),
        };
        Memory {
            engine,
            others: HashMap::new(),
            is_moving: false,
            busy: HashSet::new(),
            acted: HashMap::new(),
            begun: HashMap::new(),
            can: None,
            last_wish: None,
            noted: None,
            noting: None,
            began: Instant::now(),
            rooms,
        }
    }
}

/// How much may be under way at once in one engine.
struct Rooms {
    deployments: Arc<Semaphore>,
    others: Arc<Semaphore>,
    questions: Arc<Semaphore>,
}

/// What the engine showed in one round; `None`: it is not configured, or nobody has a use for it.
struct Sights {
    began: Instant,
    seen: Option<Result<Vec<Observed>, Trouble>>,
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
                let loops = EngineKind::ALL.map(|engine| lead(&shared, engine, &leader, &stop));
                tokio::select! {
                    _ = futures_util::future::join_all(loops) => {}
                    never = forget_events(&shared) => match never {},
                }
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

/// Deletes what happened long ago, now and then: what is deleted has nobody else who would.
async fn forget_events(shared: &Shared) -> Infallible {
    loop {
        if let Err(error) = shared.store.forget_old_events(shared.parts.settings.reconcile.events).await {
            tracing::warn!(error = %error, "old events of streams are not deleted");
        }
        tokio::time::sleep(FORGET_EVERY).await;
    }
}

async fn lead(shared: &Arc<Shared>, engine: EngineKind, leader: &Leader, stop: &CancellationToken) {
    let mut steps: JoinSet<String> = JoinSet::new();
    // A round may wait for a database that says nothing, for longer than it takes another instance to lead.
    tokio::select! {
        () = rounds(shared, engine, leader, &mut steps, stop) => {}
        () = until_lost(leader, shared.parts.settings.reconcile.interval) => {}
    }
    if !stop.is_cancelled() {
        tracing::warn!(engine = engine.name(), "the lead of the stream manager is lost with its session");
        return let_go(shared, engine, steps, stop).await;
    }
    // What is not done by then is done again by whoever leads next.
    let all_done = async { while steps.join_next().await.is_some() {} };
    if tokio::time::timeout(LAST_STEPS, all_done).await.is_err() {
        tracing::info!("steps of the stream manager are left to the next leader");
    }
}

/// One round after the other, until it is stopped or the lead is lost.
async fn rounds(
    shared: &Arc<Shared>,
    engine: EngineKind,
    leader: &Leader,
    steps: &mut JoinSet<String>,
    stop: &CancellationToken,
) {
    let mut memory = Memory::new(engine);
    let mut wishes = shared.wishes.subscribe();
    let mut is_told = false;
    while !stop.is_cancelled() && leader.is_held().await {
        match round(shared, &mut memory, steps).await {
            Ok(()) => is_told = false,
            Err(error) if !is_told => {
                is_told = true;
                tracing::warn!(error = %error, "a round of the stream manager came to nothing");
            }
            Err(_) => {}
        }
        pause(shared, &mut memory, steps, (&mut wishes, stop)).await;
    }
}

/// Waits until the lead is lost. A session that is cut is noticed at once, one that is only silent when it is asked.
async fn until_lost(leader: &Leader, interval: Duration) {
    while leader.is_held().await {
        let due = Instant::now() + interval;
        while Instant::now() < due && !leader.is_cut() {
            tokio::time::sleep(GLANCE.min(interval)).await;
        }
    }
}

/// Ends what runs in this process of an engine, since others may lead by now. That takes its time, in which this instance does not
/// lead; where the session was only silent, it keeps the lock for as long, and others from leading.
async fn let_go(shared: &Shared, engine: EngineKind, mut steps: JoinSet<String>, stop: &CancellationToken) {
    let ending = async {
        // A deployment that is under way would begin something behind our back.
        steps.shutdown().await;
        if let Ok(engine) = shared.engine(engine) {
            engine.lead_is_lost().await;
        }
    };
    tokio::select! {
        () = ending => {}
        // Whoever stops the process has everything end.
        () = stop.cancelled() => {}
    }
}

/// Waits until there is something to do, or a round is due.
async fn pause(
    shared: &Shared,
    memory: &mut Memory,
    steps: &mut JoinSet<String>,
    (wishes, stop): (&mut watch::Receiver<u64>, &CancellationToken),
) {
    let rules = &shared.parts.settings.reconcile;
    let mut due = tokio::time::Instant::now() + next_round(rules.interval, rules.second_look, memory);
    // Where many steps end one after the other, one round does for all of them.
    let soonest = tokio::time::Instant::from_std(memory.began + rules.interval / HASTE);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            // The sender lives as long as what is shared.
            _ = wishes.changed() => return,
            () = tokio::time::sleep_until(due) => return,
            Some(ended) = steps.join_next() => {
                is_over(memory, ended);
                due = due.min(soonest);
            }
            () = tokio::time::sleep(GLANCE.min(rules.interval)) => {
                // That the database is away the next round says.
                if shared.store.last_wish().await.is_ok_and(|wish| wish != memory.last_wish) {
                    return;
                }
            }
        }
    }
}

/// Sooner where something waits for its second look, or where an engine of ours is about to begin or to stop something: what follows
/// is shown as soon as it may be.
fn next_round(interval: Duration, second_look: Duration, memory: &Memory) -> Duration {
    let is_about_to = memory.engine.dies_with_us() && memory.is_moving;
    match is_about_to || memory.others.values().any(Option::is_some) {
        true => interval.min(second_look / LOOKS),
        false => interval,
    }
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
    memory.began = Instant::now();
    memory.last_wish = shared.store.last_wish().await?;
    let find = Find { engine: Some(memory.engine), for_a_round: true, ..Find::default() };
    let records = shared.store.find(&find, i64::MAX).await?;
    let known: HashSet<&str> = records.iter().map(|record| record.id.as_str()).collect();
    memory.others.retain(|id, _| known.contains(id.as_str()));
    memory.acted.retain(|id, _| known.contains(id.as_str()));
    memory.begun.retain(|id, _| known.contains(id.as_str()));
    memory.is_moving = false;
    let sights = look_at_engine(shared, memory, !records.is_empty()).await;
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
        let (shared, engine) = (Arc::clone(shared), memory.engine);
        memory.noting = Some(steps.spawn(async move {
            note::restore_points(&shared, engine).await;
            String::new()
        }));
    }
    Ok(())
}

/// Asks the engine what it runs, if somebody has a use for it.
async fn look_at_engine(shared: &Shared, memory: &mut Memory, is_used: bool) -> Sights {
    let began = Instant::now();
    let seen = match shared.engine(memory.engine) {
        Ok(engine) if is_used => Some(look_at(engine.as_ref(), memory.can.take()).await),
        Ok(_) | Err(_) => None,
    };
    let seen = seen.map(|seen| {
        // If it does not answer, it may come back as another one.
        let (can, observed) = seen?;
        memory.can = Some(can);
        Ok(observed)
    });
    Sights { began, seen }
}

/// Asks who answers, and what it runs. Another cluster may stand behind the same address by now, and nobody says so; where that
/// cannot be asked, while the rest is well, what was said before holds.
async fn look_at(engine: &dyn Engine, before: Option<Capabilities>) -> Result<(Capabilities, Vec<Observed>), Trouble> {
    let can = async {
        match before {
            Some(before) => match tokio::time::timeout(WHO, engine.cluster()).await {
                // Another one may be able to do something else, too.
                Ok(Ok(cluster)) if cluster != before.cluster => engine.capabilities().await,
                _ => Ok(before),
            },
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
