//! An engine in this process that behaves as the contract says, and can be told to misbehave. For rehearsals only: it proves
//! nothing about the wires of real ones.
//!
//! As Flink: a job for each deployment, by a name and an id of its own; stops leave savepoints. As ksqlDB: one query for each
//! sink, replaced in place and paused. As the embedded one: jobs as Flink's, which keep their state in groups from their
//! beginning on, and end with the process, or when that leads no more.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::catalog::Source;
use crate::engines::{
    AdHoc, Capabilities, Changes, Deployment, Details, Engine, EngineKind, Explained, Handle, Kept, Observed,
    ObservedState, Refusal, RestorePoint, Rows, Select, StopMode, Stopped, Trouble,
};
use crate::lifecycle::record::is_active;
use crate::names;

/// What goes wrong with one call that changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// It does not reach the engine, and that is known.
    Away,
    /// It does not reach the engine, and that is not known.
    LostBefore,
    /// It is done, and the answer is lost.
    LostAfter,
    /// The engine has no room, and has begun nothing.
    Busy,
    /// What was submitted waits for a slot, and may get one at any time.
    NoSlot,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    pub name: String,
    pub state: ObservedState,
    pub sql: String,
    pub topic: String,
    /// With which state it began.
    pub restored: Option<String>,
    /// The savepoint of its stop.
    pub savepoint: Option<String>,
    /// Checkpoints that are still there, the oldest first.
    pub checkpoints: Vec<String>,
    /// How many it has made.
    pub made: u64,
}

#[derive(Debug, Default)]
pub struct World {
    pub jobs: BTreeMap<String, Job>,
    /// Streams and tables (as ksqlDB has them).
    pub sinks: Vec<String>,
    /// Checkpoints of jobs that are forgotten, which stay where they lie.
    pub retained: Vec<String>,
    /// Savepoints that are there.
    pub savepoints: Vec<String>,
    pub faults: VecDeque<Fault>,
    pub is_away: bool,
    /// What tells who answers is away (Flink's gateway), while the rest is well.
    pub is_mute: bool,
    /// Another cluster answers.
    pub is_another: bool,
    /// Every call that changes something, as it came.
    pub calls: Vec<String>,
    pub observations: u64,
    /// Every question, whatever it was about.
    pub questions: u64,
    /// What is asked about a single job is never answered.
    pub is_ill: bool,
    /// It never says what it runs.
    pub hangs: bool,
    /// Deployments wait until this is over, and so does the end of what a process runs that leads no more.
    pub is_slow: bool,
    /// Texts are judged when this is over.
    pub ponders: bool,
    /// Calls about single jobs, and deployments, that wait for an answer; and the most that did at once.
    pub waiting: usize,
    pub most_waiting: usize,
    /// Checkpoints fail; as in Flink that is seen when they are asked for, and shows from then on.
    pub is_failing: bool,
    is_seen_to_fail: bool,
    /// Groups that were begun anew, each with all records once more.
    pub begun: Vec<String>,
    queries: u64,
    /// It has nothing yet that a SELECT could read, and makes that when it is prepared.
    pub is_unprepared: bool,
    /// Sources that it knows itself.
    pub knows: Vec<Source>,
    /// The job that this call has begun.
    submitted: Option<String>,
}

/// How many checkpoints of a job are kept.
const RETAINED: usize = 3;

impl World {
    /// Jobs that run write one checkpoint after the other, and the oldest are deleted.
    fn write_checkpoints(&mut self, kind: EngineKind) {
        let running = self.jobs.iter_mut().filter(|(_, job)| job.state == ObservedState::Running);
        for (id, job) in running.filter(|_| kind == EngineKind::Flink) {
            job.made += 1;
            job.checkpoints.push(format!("checkpoint-{}-{}", &id[..6], job.made));
            let subsumed = job.checkpoints.len().saturating_sub(RETAINED);
            job.checkpoints.drain(..subsumed);
        }
    }

    fn is_kept(&self, path: &str) -> bool {
        let path = path.to_owned();
        self.savepoints.contains(&path)
            || self.retained.contains(&path)
            || self.jobs.values().any(|job| job.checkpoints.contains(&path))
    }

    /// The JobManager is another one: it knows no job, and what they wrote down stays.
    pub fn forget_jobs(&mut self) {
        let jobs = std::mem::take(&mut self.jobs);
        self.retained.extend(jobs.into_values().flat_map(|job| job.checkpoints));
    }
}

pub struct Model {
    pub kind: EngineKind,
    pub world: Mutex<World>,
    /// Somebody has touched the world.
    happened: Notify,
}

impl Model {
    pub fn new(kind: EngineKind) -> Model {
        Model { kind, world: Mutex::new(World::default()), happened: Notify::new() }
    }

    pub fn with<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        let seen = look(&mut self.world.lock().unwrap());
        self.happened.notify_waiters();
        seen
    }

    pub fn can(&self) -> Capabilities {
        let is_job = self.kind.names_deployments();
        Capabilities {
            version: "model".to_owned(),
            cluster: if self.with(|world| world.is_another) { "another" } else { "model" }.to_owned(),
            can_pause: !is_job,
            can_savepoint: is_job,
            replaces_in_place: !is_job,
            free_slots: None,
        }
    }

    async fn until_not(&self, is_so: impl Fn(&World) -> bool) {
        loop {
            // From here on nothing that happens is missed.
            let happened = self.happened.notified();
            if !is_so(&self.world.lock().unwrap()) {
                return;
            }
            happened.await;
        }
    }

    /// Waits for as long as the world says so.
    async fn wait(&self, is_so: impl Fn(&World) -> bool) {
        let wait = |world: &mut World| {
            world.waiting += 1;
            world.most_waiting = world.most_waiting.max(world.waiting);
        };
        self.with(wait);
        let _leaves = Leaves(self);
        self.until_not(is_so).await;
    }

    /// Jobs that run, or are about to.
    pub fn live(&self) -> Vec<Job> {
        self.with(|world| world.jobs.values().filter(|job| is_active(job.state)).cloned().collect())
    }

    /// A call that changes something, with what goes wrong with it.
    fn change<T>(&self, what: String, act: impl FnOnce(&mut World) -> Result<T, Trouble>) -> Result<T, Trouble> {
        self.with(|world| {
            world.calls.push(what);
            world.submitted = None;
            if world.is_away {
                return Err(Trouble::Unavailable("the model is away".to_owned()));
            }
            match world.faults.pop_front().unwrap_or(Fault::None) {
                Fault::None => act(world),
                Fault::Away => Err(Trouble::Unavailable("the model is away".to_owned())),
                Fault::LostBefore => Err(Trouble::Unknown("no answer".to_owned())),
                Fault::Busy => Err(Trouble::Busy { reason: "no room".to_owned(), retry_after: None }),
                // Only Flink waits for slots.
                Fault::NoSlot if self.kind == EngineKind::Flink => match act(world) {
                    Ok(_) => {
                        if let Some(job) = world.submitted.take().and_then(|id| world.jobs.get_mut(&id)) {
                            job.state = ObservedState::Restarting;
                        }
                        Err(Trouble::Unknown("the job waits for a slot".to_owned()))
                    }
                    Err(trouble) => Err(trouble),
                },
                Fault::LostAfter | Fault::NoSlot => match act(world) {
                    Ok(_) => Err(Trouble::Unknown("no answer".to_owned())),
                    Err(trouble) => Err(trouble),
                },
            }
        })
    }

    fn new_job(&self, deployment: &Deployment, name: String) -> Job {
        let sql = &deployment.select.sql;
        let state = match () {
            () if sql.contains("crashing") => ObservedState::Restarting,
            () if sql.contains("failing") => ObservedState::Failed,
            () => ObservedState::Running,
        };
        let restored = deployment.restore.as_ref().map(|point| point.path.clone());
        Job {
            name,
            state,
            sql: sql.clone(),
            topic: deployment.names.topic(),
            restored,
            savepoint: None,
            checkpoints: Vec::new(),
            made: 0,
        }
    }

    fn deploy_job(&self, world: &mut World, deployment: &Deployment) -> Result<String, Trouble> {
        let id = names::job_id("model", &deployment.definition, deployment.revision, deployment.attempt);
        let name = deployment.names.job_name(deployment.revision, deployment.attempt);
        if world.jobs.contains_key(&id) {
            return Ok(id);
        }
        // A checkpoint that was taken over by later ones, or a savepoint that was disposed of, is no place to begin at.
        if let Some(point) = deployment.restore.as_ref().filter(|point| !world.is_kept(&point.path)) {
            return Err(refusal(&format!("cannot find {}", point.path)));
        }
        world.submitted = Some(id.clone());
        world.jobs.insert(id.clone(), self.new_job(deployment, name));
        Ok(id)
    }

    /// A group that was never committed to, as it is where a deployment has not come about, is begun anew.
    fn deploy_here(&self, world: &mut World, deployment: &Deployment) -> String {
        let name = deployment.names.job_name(deployment.revision, deployment.attempt);
        if let Some(RestorePoint { path, .. }) = keeps_at(deployment).filter(|_| !world.jobs.contains_key(&name)) {
            if !world.savepoints.contains(&path) {
                world.savepoints.push(path.clone());
                world.begun.push(path);
            }
            world.jobs.insert(name.clone(), self.new_job(deployment, name.clone()));
        }
        name
    }

    fn deploy_query(&self, world: &mut World, deployment: &Deployment) -> Result<String, Trouble> {
        let sink = deployment.names.sink();
        let there = world.jobs.iter().find(|(_, job)| job.name == sink).map(|(id, job)| (id.clone(), job.sql.clone()));
        match there {
            Some((id, sql)) if sql == deployment.select.sql => return Ok(id),
            Some(_) if deployment.select.sql.contains("incompatible") && deployment.replaces => {
                return Err(refusal("the new text cannot take the place of the old one"));
            }
            Some((id, _)) => drop(world.jobs.remove(&id)),
            None => {}
        }
        world.queries += 1;
        let id = format!("CSAS_{sink}_{}", world.queries);
        if !world.sinks.contains(&sink) {
            world.sinks.push(sink.clone());
        }
        world.jobs.insert(id.clone(), self.new_job(deployment, sink));
        Ok(id)
    }

    fn stop_job(&self, world: &mut World, id: &str, mode: StopMode) -> Result<Stopped, Trouble> {
        if id.is_empty() {
            return Err(refusal("a stop of no job"));
        }
        let Some(job) = world.jobs.get_mut(id) else { return Ok(Stopped::WithoutState) };
        if let Some(path) = &job.savepoint {
            return Ok(Stopped::At(RestorePoint { path: path.clone(), savepoint: true }));
        }
        match (mode, job.state) {
            (StopMode::KeepState, ObservedState::Running | ObservedState::Degraded) => {
                let path = format!("savepoint-{}", &id[..6]);
                job.state = ObservedState::Stopped;
                job.savepoint = Some(path.clone());
                world.savepoints.push(path.clone());
                Ok(Stopped::At(RestorePoint { path, savepoint: true }))
            }
            // Not whole, or ended: what it wrote down last is what there is, or what it began with.
            (StopMode::KeepState, state) => {
                job.state = if state == ObservedState::Failed { state } else { ObservedState::Stopped };
                let last = job.checkpoints.last().or(job.restored.as_ref()).cloned();
                let savepoint = last.as_ref().is_some_and(|path| path.starts_with("savepoint"));
                Ok(last.map_or(Stopped::WithoutState, |path| Stopped::At(RestorePoint { path, savepoint })))
            }
            // What it wrote down stays where it is.
            _ => {
                job.state = if job.state == ObservedState::Failed { job.state } else { ObservedState::Stopped };
                Ok(Stopped::WithoutState)
            }
        }
    }

    fn stop_here(world: &mut World, handle: &Handle, mode: StopMode) -> Stopped {
        if let Some(job) = world.jobs.get_mut(&handle.job_id) {
            job.state = if job.state == ObservedState::Failed { job.state } else { ObservedState::Stopped };
        }
        match (mode, &handle.keeps_at) {
            (StopMode::KeepState, Some(point)) => Stopped::At(point.clone()),
            _ => Stopped::WithoutState,
        }
    }

    fn stop_query(&self, world: &mut World, id: &str, sink: &str, mode: StopMode) -> Result<Stopped, Trouble> {
        let found = world.jobs.iter().find(|(at, job)| *at == id || job.name == sink).map(|(id, _)| id.clone());
        let Some(id) = found else { return Ok(Stopped::WithoutState) };
        match mode {
            StopMode::KeepState => {
                world.jobs.get_mut(&id).unwrap().state = ObservedState::Paused;
                Ok(Stopped::Paused)
            }
            StopMode::Final => {
                world.jobs.remove(&id);
                Ok(Stopped::WithoutState)
            }
        }
    }
}

/// Whoever waits may be dropped.
struct Leaves<'a>(&'a Model);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.with(|world| world.waiting -= 1);
    }
}

fn keeps_at(deployment: &Deployment) -> Option<RestorePoint> {
    let Deployment { definition, revision, attempt, restore, .. } = deployment;
    EngineKind::Embedded.keeps_at(definition, (*revision, *attempt), restore.as_ref())
}

pub fn refusal(message: &str) -> Trouble {
    let message = message.to_owned();
    Trouble::Refused(Refusal { code: "model".to_owned(), message, line: Some(1), column: Some(8) })
}

#[async_trait]
impl Engine for Model {
    fn kind(&self) -> EngineKind {
        self.kind
    }

    async fn capabilities(&self) -> Result<Capabilities, Trouble> {
        self.with(|world| world.questions += 1);
        if self.with(|world| world.is_away || world.is_mute) {
            return Err(Trouble::Unavailable("the model is away".to_owned()));
        }
        Ok(self.can())
    }

    async fn unprepared(&self, _: &Select) -> Result<Option<String>, Trouble> {
        self.capabilities().await?;
        Ok(self.with(|world| world.is_unprepared.then(|| "the model has no `orders` yet".to_owned())))
    }

    async fn prepare(&self, _: &Select) -> Result<(), Trouble> {
        self.capabilities().await?;
        self.with(|world| {
            if std::mem::take(&mut world.is_unprepared) {
                world.calls.push("prepare".to_owned());
            }
        });
        Ok(())
    }

    async fn explain(&self, select: &Select) -> Result<Explained, Trouble> {
        self.capabilities().await?;
        if let Some(lacks) = self.unprepared(select).await? {
            return Err(Trouble::Unavailable(lacks));
        }
        self.wait(|world| world.ponders).await;
        if select.sql.contains("unknown_column") {
            return Err(refusal("there is no column unknown_column"));
        }
        let changes = if select.sql.contains("GROUP BY") { Changes::Upsert } else { Changes::Append };
        Ok(Explained { columns: Vec::new(), changes, plan: String::new(), only_adhoc: None })
    }

    async fn keeps_state(&self, old: &Select, new: &Select) -> Result<(), String> {
        match new.sql.contains("other_state") == old.sql.contains("other_state") {
            true => Ok(()),
            false => Err("the state is another one".to_owned()),
        }
    }

    async fn deploy(&self, deployment: &Deployment) -> Result<Handle, Trouble> {
        self.wait(|world| world.is_slow).await;
        let what = format!("deploy r{} a{}", deployment.revision, deployment.attempt);
        let job_id = self.change(what, |world| {
            if deployment.select.sql.contains("refused") {
                return Err(refusal("the model does not like it"));
            }
            match self.kind {
                EngineKind::Flink => self.deploy_job(world, deployment),
                EngineKind::Ksqldb => self.deploy_query(world, deployment),
                EngineKind::Embedded => Ok(self.deploy_here(world, deployment)),
            }
        })?;
        Ok(Handle {
            job_id,
            stream_name: deployment.names.sink(),
            output_topic: deployment.names.topic(),
            changes: deployment.changes,
            keeps_at: keeps_at(deployment).filter(|_| self.kind == EngineKind::Embedded),
        })
    }

    async fn observe(&self) -> Result<Vec<Observed>, Trouble> {
        self.until_not(|world| world.hangs).await;
        if self.with(|world| world.is_away) {
            return Err(Trouble::Unavailable("the model is away".to_owned()));
        }
        Ok(self.with(|world| {
            world.observations += 1;
            world.questions += 1;
            world.write_checkpoints(self.kind);
            let is_degraded = world.is_seen_to_fail;
            let state_of = |job: &Job| match job.state {
                ObservedState::Running if is_degraded => ObservedState::Degraded,
                state => state,
            };
            let seen = |(id, job): (&String, &Job)| Observed {
                job_id: id.clone(),
                name: job.name.clone(),
                topics: vec![job.topic.clone()],
                state: state_of(job),
                engine_state: format!("{:?}", job.state).to_uppercase(),
                statement: Some(job.sql.clone()),
            };
            world.jobs.iter().map(seen).collect()
        }))
    }

    async fn details(&self, job_id: &str) -> Result<Details, Trouble> {
        self.wait(|world| world.is_ill).await;
        self.capabilities().await?;
        Ok(self.with(|world| {
            let job = world.jobs.get(job_id);
            let fails = job.is_some_and(|job| matches!(job.state, ObservedState::Restarting | ObservedState::Failed));
            Details { failure: fails.then(|| "division by zero".to_owned()), ..Details::default() }
        }))
    }

    async fn checkpoint(&self, job_id: &str) -> Result<Kept, Trouble> {
        self.wait(|world| world.is_ill).await;
        self.capabilities().await?;
        Ok(self.with(|world| {
            let kept = world.jobs.get(job_id).map(|job| job.checkpoints.clone()).unwrap_or_default();
            let point = |path| RestorePoint { path, savepoint: false };
            world.is_seen_to_fail = world.is_failing;
            Kept { points: kept.into_iter().rev().map(point).collect(), is_failing: world.is_failing }
        }))
    }

    async fn stop(&self, _: &Deployment, handle: &Handle, mode: StopMode) -> Result<Stopped, Trouble> {
        self.change(format!("stop {mode:?}"), |world| match self.kind {
            EngineKind::Flink => self.stop_job(world, &handle.job_id, mode),
            EngineKind::Ksqldb => self.stop_query(world, &handle.job_id, &handle.stream_name, mode),
            EngineKind::Embedded => Ok(Model::stop_here(world, handle, mode)),
        })
    }

    async fn resume(&self, handle: &Handle) -> Result<(), Trouble> {
        self.change("resume".to_owned(), |world| match world.jobs.get_mut(&handle.job_id) {
            Some(job) => {
                job.state = ObservedState::Running;
                Ok(())
            }
            None => Err(refusal("there is no such query")),
        })
    }

    async fn remove(&self, handle: &Handle, restore_points: &[RestorePoint]) -> Result<(), Trouble> {
        self.change("remove".to_owned(), |world| {
            if handle.stream_name.is_empty() {
                return Err(refusal("a removal of nothing"));
            }
            world.savepoints.retain(|path| !restore_points.iter().any(|point| point.path == *path));
            world.sinks.retain(|sink| *sink != handle.stream_name);
            Ok(())
        })
    }

    async fn lead_is_lost(&self) {
        if self.kind.dies_with_us() {
            self.with(|world| world.calls.push("lead is lost".to_owned()));
            self.wait(|world| world.is_slow).await;
            self.with(World::forget_jobs);
        }
    }

    async fn query(&self, _: AdHoc) -> Result<Rows, Trouble> {
        Err(refusal("the model runs no queries"))
    }

    async fn sources(&self) -> Result<Vec<Source>, Trouble> {
        if self.with(|world| world.is_away) {
            return Err(Trouble::Unavailable("the model is away".to_owned()));
        }
        Ok(self.with(|world| world.knows.clone()))
    }
}
