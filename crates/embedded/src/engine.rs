//! The contract of stream engines, kept by this process.
//!
//! Jobs run where they were deployed, which is where the manager's leader is, and end with their process. Whoever leads next sees
//! nothing of them and deploys them again, from where their consumer groups stand; with transactions that ends what may still run
//! elsewhere, without them they end where it is noticed that the lead is lost.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use streamview_manager::catalog::Source;
use streamview_manager::engines::{
    AdHoc, Capabilities, Deployment, Details, Engine, EngineKind, Explained, Handle, Kept, Node, Observed,
    ObservedState, Refusal, RestorePoint, Rows, Select, StopMode, Stopped, Topology, Trouble,
};
use streamview_manager::names::group_of;
use streamview_manager::ports::Schemas;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use crate::job::Counts;
use crate::job::{self, Cannot, Job, Outside, Plan, Wish, mark, writer_name};
use crate::log::{Delivery, Log, LogError};
use crate::plan::{Prepared, Purpose};
use crate::settings::Settings;
use crate::views::Views;

use self::judging::Judging;

mod judging;

/// How long a job is waited for that was asked to end: it may be about to commit.
const TO_END: Duration = Duration::from_secs(90);

/// The embedded engine. Clones are the same one.
#[derive(Clone)]
pub struct Embedded {
    inner: Arc<Inner>,
}

struct Inner {
    outside: Outside,
    settings: Settings,
    room: Arc<Semaphore>,
    judging: Judging,
    /// By their ids, those that have ended, too, until they are removed.
    jobs: Mutex<BTreeMap<String, Arc<Job>>>,
    /// Queries of people who look.
    looks: Mutex<HashSet<String>>,
    /// One deployment or stop at a time: two of one query would end each other.
    changing: tokio::sync::Mutex<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Nobody can ask them to end any more. What they have not committed is read again.
        for job in self.jobs.get_mut().unwrap_or_else(PoisonError::into_inner).values() {
            job.ask(Wish::End);
        }
    }
}

/// What a deployed query does, for whoever counts.
#[derive(Clone)]
pub struct Running {
    job: Arc<Job>,
}

impl Running {
    /// The id of its definition.
    pub fn definition(&self) -> &str {
        &self.job.definition
    }

    /// What it has counted since it was deployed.
    pub fn counts(&self) -> &Counts {
        &self.job.counts
    }
}

/// Taken back when a query of somebody who looks has ended.
struct Look {
    inner: std::sync::Weak<Inner>,
    id: String,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Look {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.upgrade() {
            lock(&inner.looks).remove(&self.id);
        }
    }
}

/// A job that is about to begin. Dropped before it has, whatever has become of who waits for it, nothing of it stays.
struct Beginning {
    inner: std::sync::Weak<Inner>,
    job: Arc<Job>,
}

impl Beginning {
    fn has_begun(mut self) {
        self.inner = std::sync::Weak::new();
    }
}

impl Drop for Beginning {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.upgrade() {
            lock(&inner.jobs).remove(&self.job.handle.job_id);
            self.job.ends(ObservedState::Absent, None);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Embedded {
    /// Over these brokers. Connects to nobody yet.
    pub fn new(log: Arc<dyn Log>, schemas: Option<Arc<dyn Schemas>>, settings: Settings) -> Embedded {
        Embedded::joining(log, schemas, None, settings)
    }

    /// The same, and topics can be joined with these views.
    pub fn joining(
        log: Arc<dyn Log>,
        schemas: Option<Arc<dyn Schemas>>,
        views: Option<Arc<dyn Views>>,
        settings: Settings,
    ) -> Embedded {
        let outside = Outside { log, schemas, views };
        let room = Arc::new(Semaphore::new(settings.queries));
        let (jobs, looks, changing) = (Mutex::default(), Mutex::default(), tokio::sync::Mutex::default());
        let judging = Judging::new(settings.trial.clone(), settings.limits.clone());
        Embedded { inner: Arc::new(Inner { outside, settings, room, judging, jobs, looks, changing }) }
    }

    /// The queries that are deployed here and have not ended.
    pub fn running(&self) -> Vec<Running> {
        let jobs = lock(&self.inner.jobs);
        jobs.values().filter(|job| job.is_active()).map(|job| Running { job: Arc::clone(job) }).collect()
    }

    /// Has all deployed queries commit what they have and end, and waits for that, for 90 s at most: a transaction that is left open
    /// keeps readers of committed records from what comes after it, until the coordinator gives it up. They are asked at once, and
    /// end side by side.
    pub async fn leave(&self) {
        self.leave_within(Wish::Keep, TO_END).await;
    }

    /// The same, by another wish, or for another time.
    pub(crate) async fn leave_within(&self, wish: Wish, limit: Duration) {
        let leaving = async {
            let _nothing_begins = self.inner.changing.lock().await;
            let jobs: Vec<Arc<Job>> = lock(&self.inner.jobs).values().filter(|job| job.is_active()).cloned().collect();
            for job in &jobs {
                job.ask(wish);
            }
            for job in &jobs {
                job.until_ended().await;
            }
        };
        if tokio::time::timeout(limit, leaving).await.is_err() {
            let open = lock(&self.inner.jobs).values().filter(|job| job.is_active()).count();
            tracing::warn!(
                queries = open,
                "queries have not ended in time: what they have not committed is read again"
            );
        }
    }

    /// Whether the query of somebody who looks still runs.
    pub fn is_looking(&self, id: &str) -> bool {
        lock(&self.inner.looks).contains(id)
    }

    fn job(&self, id: &str) -> Option<Arc<Job>> {
        lock(&self.inner.jobs).get(id).cloned()
    }

    /// A job that somebody asks about, if it runs here.
    fn seen(&self, id: &str) -> Result<Arc<Job>, Trouble> {
        self.job(id).ok_or_else(|| {
            Trouble::Unavailable(format!(
                "{id} does not run in this process: it may in another one, whose details it has"
            ))
        })
    }

    fn take_room(&self) -> Result<OwnedSemaphorePermit, Trouble> {
        Arc::clone(&self.inner.room).try_acquire_owned().map_err(|_| Trouble::Busy {
            reason: format!(
                "all {} queries that this process may run are taken (embedded.queries)",
                self.inner.settings.queries
            ),
            retry_after: Some(Duration::from_secs(5)),
        })
    }

    /// Has something done that blocks.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> T + Send + 'static) -> Result<T, Trouble> {
        let inner = Arc::clone(&self.inner);
        blocking(move || work(&inner)).await
    }

    /// Has something done that judges a text for the first of these purposes that it may have.
    async fn judged<T: Send + 'static>(
        &self,
        text: &Select,
        purposes: &[Purpose],
        work: impl FnOnce(&Inner, &Select) -> T + Send + 'static,
    ) -> Result<T, Trouble> {
        let (inner, judged) = (Arc::clone(&self.inner), text.clone());
        self.inner.judging.judged((text, purposes), move || work(&inner, &judged)).await
    }

    /// Has something done that judges a text once more.
    async fn judged_again<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> T + Send + 'static,
    ) -> Result<T, Trouble> {
        let inner = Arc::clone(&self.inner);
        self.inner.judging.judged_again(move || work(&inner)).await
    }

    /// Asks a job to end, and waits for that.
    async fn end(&self, job: &Job, wish: Wish) -> Result<(), Trouble> {
        job.ask(wish);
        let ended = tokio::time::timeout(TO_END, job.until_ended()).await;
        ended.map_err(|_| Trouble::Unknown(format!("{} has not ended yet", job.handle.job_id)))
    }

    /// What stays of a deployment that does not run here. Whoever runs it elsewhere cannot commit any more.
    async fn stop_elsewhere(&self, deployment: &Deployment, mode: StopMode) -> Result<Stopped, Trouble> {
        let (definition, group) = (deployment.definition.clone(), group(deployment));
        let wanted = group.clone();
        let found = self.blocking(move |inner| {
            inner.outside.log.fence(&writer_name(&definition))?;
            inner.outside.log.groups(&wanted)
        });
        let found = found.await?.map_err(|error| Trouble::Unknown(error.to_string()))?;
        Ok(match mode {
            StopMode::KeepState if found.contains(&group) => {
                Stopped::At(RestorePoint { path: format!("kafka-group:{group}"), savepoint: true })
            }
            StopMode::KeepState | StopMode::Final => Stopped::WithoutState,
        })
    }

    async fn begin(&self, deployment: &Deployment, prepared: Prepared, handle: &Handle) -> Result<(), Trouble> {
        let permit = self.take_room()?;
        let topics = prepared.streams().iter().map(|source| source.topic.clone()).collect();
        let (definition, statement) = (deployment.definition.clone(), deployment.select.sql.clone());
        let job = Arc::new(Job::new(handle.clone(), definition, group(deployment), statement, topics));
        let (id, weak) = (handle.job_id.clone(), Arc::downgrade(&self.inner));
        let plan = Plan {
            job: Arc::clone(&job),
            prepared,
            outside: self.inner.outside.clone(),
            settings: self.inner.settings.clone(),
            revision: deployment.revision,
            goes_on: deployment.restore.is_some(),
            text: mark(&meaning_of(&deployment.select)),
            permit: Box::new(permit),
            gone: Box::new(move || {
                if let Some(inner) = weak.upgrade() {
                    lock(&inner.jobs).remove(&id);
                }
            }),
        };
        lock(&self.inner.jobs).insert(handle.job_id.clone(), Arc::clone(&job));
        // It goes with the work, which goes on when nobody waits for it any more.
        let beginning = Beginning { inner: Arc::downgrade(&self.inner), job };
        self.blocking(move |_| {
            job::begin(plan).map_err(cannot)?;
            beginning.has_begun();
            Ok(())
        })
        .await?
    }
}

/// Has something done on a thread that may block. It goes on when nobody waits for it any more.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Trouble> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Trouble::Unknown(format!("the call has met a fault of its own: {error}")))
}

pub(crate) fn refused(code: &str, message: String) -> Trouble {
    Trouble::Refused(Refusal { code: code.to_owned(), message, line: None, column: None })
}

fn cannot(why: Cannot) -> Trouble {
    match why {
        // Nothing runs; whoever was fenced by us has ended, and whoever fences us runs it.
        Cannot::Log(error @ (LogError::Again(_) | LogError::Fenced)) => Trouble::Unavailable(error.to_string()),
        Cannot::Log(LogError::Halt(why)) => refused("cannot_read", why),
        Cannot::NothingKept(why) => refused("restore_point_gone", why),
        Cannot::Failed(why) => refused("cannot_run", why),
    }
}

/// All that says what becomes of a record: the statement, and how each source is read.
fn meaning_of(select: &Select) -> String {
    let sources = serde_json::to_string(&select.sources).expect("sources are plain data");
    format!("{}\n{sources}", select.sql)
}

/// The consumer group of a deployment: that of whom it goes on from, else one of its own.
fn group(deployment: &Deployment) -> String {
    let number = (deployment.revision, deployment.attempt);
    let kept = EngineKind::Embedded.keeps_at(&deployment.definition, number, deployment.restore.as_ref());
    kept.as_ref().and_then(|point| group_of(&point.path)).unwrap_or_default().to_owned()
}

fn handle(deployment: &Deployment) -> Handle {
    let (names, number) = (&deployment.names, (deployment.revision, deployment.attempt));
    Handle {
        job_id: names.job_name(deployment.revision, deployment.attempt),
        stream_name: names.sink(),
        output_topic: names.topic(),
        changes: deployment.changes,
        keeps_at: EngineKind::Embedded.keeps_at(&deployment.definition, number, deployment.restore.as_ref()),
    }
}

/// Whether a group was made for a deployment of the definition with this tag: `streamview-<definition>-r<n>a<n>`.
fn is_group_of(group: &str, prefix: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    group.starts_with(prefix)
        && group
            .rsplit_once("-r")
            .and_then(|(_, number)| number.split_once('a'))
            .is_some_and(|(revision, attempt)| is_number(revision) && is_number(attempt))
}

fn observed(job: &Job) -> Observed {
    let (state, failure) = job.observed();
    let words = format!("{state:?}").to_uppercase();
    Observed {
        job_id: job.handle.job_id.clone(),
        name: job.handle.job_id.clone(),
        topics: vec![job.handle.output_topic.clone()],
        state,
        engine_state: failure.map_or(words.clone(), |why| format!("{words}: {why}")),
        statement: Some(job.statement.clone()),
    }
}

fn topology(job: &Job) -> Topology {
    let counts = &job.counts;
    let get = Counts::get;
    let mut words = vec![format!("{} records read, {} rows written", get(&counts.read), get(&counts.written))];
    for (counter, what) in [
        (&counts.late, "late"),
        (&counts.future, "from the future"),
        (&counts.refused, "refused"),
        (&counts.failed_groups, "groups failed"),
        (&counts.tombstones, "without a value"),
        (&counts.open_windows, "open windows"),
        (&counts.keys, "groups"),
        (&counts.state_bytes, "bytes of state"),
    ] {
        if get(counter) > 0 {
            words.push(format!("{} {what}", get(counter)));
        }
    }
    let watermark = counts.watermark_ms.load(std::sync::atomic::Ordering::Relaxed);
    if watermark > 0 {
        words.push(format!("watermark {} ms behind the clock", job::now_ms() - watermark));
    }
    let sources = job
        .topics
        .iter()
        .enumerate()
        .map(|(number, topic)| Node { id: format!("source-{number}"), label: format!("topic {topic}") });
    let tables = job.tables();
    let joined = tables.iter().enumerate().map(|(number, table)| Node {
        id: format!("table-{number}"),
        label: format!(
            "table {} ({}): {} rows, {} bytes, as of {} ms ago, refreshed every {} ms{}",
            table.name,
            if table.topic.is_empty() { "view".to_owned() } else { format!("topic {}", table.topic) },
            table.rows,
            table.bytes,
            (job::now_ms() - table.refreshed_ms).max(0),
            table.refresh_ms,
            if table.refused > 0 { format!(", {} records refused", table.refused) } else { String::new() }
        ),
    });
    let joins = (0..tables.len()).map(|number| (format!("table-{number}"), "query".to_owned()));
    let query = Node { id: "query".to_owned(), label: format!("query: {}", words.join(", ")) };
    let sink = Node { id: "sink".to_owned(), label: format!("topic {}", job.handle.output_topic) };
    let into = (0..job.topics.len()).map(|number| (format!("source-{number}"), "query".to_owned()));
    let out_of = ("query".to_owned(), "sink".to_owned());
    Topology {
        nodes: sources.chain(joined).chain([query, sink]).collect(),
        edges: into.chain(joins).chain([out_of]).collect(),
    }
}

#[async_trait]
impl Engine for Embedded {
    fn kind(&self) -> EngineKind {
        EngineKind::Embedded
    }

    async fn capabilities(&self) -> Result<Capabilities, Trouble> {
        let delivery = self.inner.outside.log.delivery().word();
        Ok(Capabilities {
            version: format!("DataFusion {} ({delivery})", datafusion::DATAFUSION_VERSION),
            cluster: "embedded".to_owned(),
            can_pause: false,
            can_savepoint: true,
            replaces_in_place: false,
            free_slots: u32::try_from(self.inner.room.available_permits()).ok(),
        })
    }

    async fn explain(&self, select: &Select) -> Result<Explained, Trouble> {
        self.judged(select, &[Purpose::Persistent, Purpose::AdHoc], Inner::explain).await?
    }

    async fn keeps_state(&self, old: &Select, new: &Select) -> Result<(), String> {
        let (old, new) = (old.clone(), new.clone());
        let judged = self.judged_again(move |inner| inner.keeps_state(&old, &new)).await;
        judged.map_err(|trouble| trouble.to_string())?
    }

    async fn deploy(&self, deployment: &Deployment) -> Result<Handle, Trouble> {
        let select = deployment.select.clone();
        let prepared = self.judged_again(move |inner| inner.prepare(&select, Purpose::Persistent)).await??;
        let handle = handle(deployment);
        let _changing = self.inner.changing.lock().await;
        if self.job(&handle.job_id).is_some_and(|job| job.wish() != Wish::LetGo) {
            return Ok(handle);
        }
        // Two of one query would end each other; the one before has committed when it has ended.
        let before: Vec<Arc<Job>> = {
            let jobs = lock(&self.inner.jobs);
            jobs.values().filter(|job| job.definition == deployment.definition).cloned().collect()
        };
        for job in before {
            self.end(&job, Wish::Keep).await?;
        }
        self.begin(deployment, prepared, &handle).await?;
        // What has ended before it is no more to be asked about: what it has left stands in its group.
        lock(&self.inner.jobs).retain(|_, job| job.definition != deployment.definition || job.is_active());
        Ok(handle)
    }

    async fn observe(&self) -> Result<Vec<Observed>, Trouble> {
        Ok(lock(&self.inner.jobs).values().map(|job| observed(job)).collect())
    }

    async fn details(&self, job_id: &str) -> Result<Details, Trouble> {
        let job = self.seen(job_id)?;
        Ok(Details {
            failure: job.observed().1,
            group: Some(job.group.clone()),
            latest_checkpoint: Some(job.point(false)),
            records_per_second: Some(Counts::get(&job.counts.per_second)),
            topology: topology(&job),
        })
    }

    async fn checkpoint(&self, job_id: &str) -> Result<Kept, Trouble> {
        let job = self.seen(job_id)?;
        let is_failing = job.observed().0 == ObservedState::Restarting;
        Ok(Kept { points: vec![job.point(false)], is_failing })
    }

    async fn stop(&self, deployment: &Deployment, handle: &Handle, mode: StopMode) -> Result<Stopped, Trouble> {
        let _changing = self.inner.changing.lock().await;
        let own = deployment.names.job_name(deployment.revision, deployment.attempt);
        let Some(job) = self.job(&own).or_else(|| self.job(&handle.job_id)) else {
            return self.stop_elsewhere(deployment, mode).await;
        };
        let wish = if mode == StopMode::KeepState { Wish::Keep } else { Wish::End };
        self.end(&job, wish).await?;
        Ok(match (mode, job.wish()) {
            (StopMode::KeepState, _) | (StopMode::Final, Wish::Keep) => Stopped::At(job.point(true)),
            (StopMode::Final, Wish::Run | Wish::End | Wish::LetGo) => Stopped::WithoutState,
        })
    }

    async fn resume(&self, _handle: &Handle) -> Result<(), Trouble> {
        Err(refused(
            "cannot_pause",
            "the embedded engine does not pause: it stops with state, and is deployed again".to_owned(),
        ))
    }

    async fn remove(&self, handle: &Handle, restore_points: &[RestorePoint]) -> Result<(), Trouble> {
        let _changing = self.inner.changing.lock().await;
        let jobs: Vec<Arc<Job>> = {
            let jobs = lock(&self.inner.jobs);
            jobs.values().filter(|job| job.handle.stream_name == handle.stream_name).cloned().collect()
        };
        for job in &jobs {
            self.end(job, Wish::End).await?;
        }
        let tag = handle.stream_name.rsplit('_').next().unwrap_or_default().to_ascii_lowercase();
        let prefix = format!("streamview-{tag}");
        let named: Vec<String> =
            restore_points.iter().filter_map(|point| group_of(&point.path)).map(str::to_owned).collect();
        let removed = self.blocking(move |inner| {
            let mut groups = inner.outside.log.groups(&prefix)?;
            groups.retain(|group| is_group_of(group, &prefix));
            groups.extend(named);
            groups.sort();
            groups.dedup();
            inner.outside.log.delete_groups(&groups)
        });
        removed.await?.map_err(|error| match error {
            LogError::Halt(why) => refused("cannot_remove", why),
            other => Trouble::Unavailable(other.to_string()),
        })?;
        for job in jobs {
            lock(&self.inner.jobs).remove(&job.handle.job_id);
        }
        Ok(())
    }

    async fn lead_is_lost(&self) {
        // With transactions whoever begins them anew ends these by that; while nobody can lead they go on.
        if self.inner.outside.log.delivery() == Delivery::AtLeastOnce {
            // Nothing more is committed: by now somebody else may have read on from the same positions.
            self.leave_within(Wish::LetGo, TO_END).await;
        }
    }

    async fn query(&self, query: AdHoc) -> Result<Rows, Trouble> {
        let prepare = |inner: &Inner, select: &Select| inner.prepare(select, Purpose::AdHoc);
        let prepared = self.judged(&query.select, &[Purpose::AdHoc], prepare).await??;
        let permit = self.take_room()?;
        lock(&self.inner.looks).insert(query.id.clone());
        let look = Look { inner: Arc::downgrade(&self.inner), id: query.id.clone(), _permit: permit };
        let begun =
            self.blocking(move |inner| job::look(&query, prepared, &inner.outside, &inner.settings, Box::new(look)));
        begun.await?.map_err(|error| match error {
            LogError::Halt(why) => refused("cannot_read", why),
            other => Trouble::Unavailable(other.to_string()),
        })
    }

    async fn sources(&self) -> Result<Vec<Source>, Trouble> {
        Ok(self.inner.outside.views.as_ref().map(|views| views.sources()).unwrap_or_default())
    }
}
