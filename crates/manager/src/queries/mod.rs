//! Queries of people who look: who runs what, within limits, and its end whatever happens.
//!
//! ```text
//!   text ─ gate ─▶ Select ─ a place within the limits ─▶ engine.query ─▶ lines, pulled by one reader
//!                                                          ▲
//!            time, rows, bytes, kill, a reader that leaves ┘ each drops the engine's rows, and with them its query
//! ```
//!
//! Nothing is read ahead: an engine's rows are taken as fast as their reader takes the lines, so a slow reader slows its own
//! query and fills no memory.

mod limits;
mod lines;
mod roll;
mod running;
mod statements;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use jiff::Timestamp;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

pub use self::lines::Line;
pub use self::roll::Roll;
pub use self::running::QueryRows;
pub use self::statements::{Prepared, Statements};
pub use crate::query::{Active, QueryInfo};

use self::limits::Places;
use self::running::{Begun, Running};
use crate::engines::{AdHoc, End, EngineKind, LeftOut};
use crate::fault::Fault;
use crate::settings::Limits;

/// So long a query waits for somebody who reads it.
const UNREAD: Duration = Duration::from_secs(30);
/// What an instance is called that has no others beside it.
const ALONE: &str = "this";

/// A query that somebody wants to run.
#[derive(Debug, Clone)]
pub struct NewQuery {
    /// On which engine; `None`: the default one.
    pub engine: Option<EngineKind>,
    /// One SELECT.
    pub sql: String,
    /// From what is there on, instead of from now on.
    pub from_beginning: bool,
    /// What is there now, instead of changes: ksqlDB's pull queries. It ends by itself.
    pub pull: bool,
}

/// Why a query does not run, or cannot be read or ended.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// As many run as may.
    #[error(
        "{in_use} queries {scope} run already, and no more than {most} may (`manager.limits.{setting}`): end one first"
    )]
    TooMany {
        /// `queries_per_user` or `queries`.
        setting: &'static str,
        /// Whose: `` of `anna` `` or `in all`.
        scope: String,
        /// How many may run.
        most: usize,
        /// How many do.
        in_use: usize,
    },
    /// Too many were begun within a minute.
    #[error(
        "`{owner}` has begun {most} queries within a minute, and no more may be (`manager.limits.queries_per_minute`): come \
         again in {} s", retry_after.as_secs().max(1)
    )]
    TooOften {
        /// Who.
        owner: String,
        /// How many a minute.
        most: u32,
        /// When the next one may begin.
        retry_after: Duration,
    },
    /// The statement, or its engine, in the manager's words.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// No such query runs.
    #[error("no query `{0}` runs: it has ended, or never was")]
    NotFound(String),
    /// Another instance runs it.
    #[error("query `{id}` runs on the instance `{instance}`: it is read and ended there")]
    Elsewhere {
        /// Which.
        id: String,
        /// Where.
        instance: String,
    },
    /// Somebody reads it.
    #[error("query `{0}` is read already: each is read once")]
    AlreadyRead(String),
    /// It was ended before its engine had begun it.
    #[error("query `{id}` has ended before its engine had begun it{}", reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    Ended {
        /// Which.
        id: String,
        /// How.
        end: End,
        /// Why.
        reason: Option<String>,
    },
}

/// The first rows of a query.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FirstRows {
    /// The columns, as ksqlDB writes them.
    pub schema: Option<String>,
    /// Rows, each with its kind.
    pub rows: Vec<serde_json::Value>,
    /// Why there are no more: `limit`, `complete`, `cancelled`, `failed` or `interrupted`.
    pub end: String,
    /// More about that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What is not in them, where its engine says so.
    pub left_out: LeftOut,
}

impl FirstRows {
    fn end_with(&mut self, line: &Line) {
        if let Line::End { end, reason, .. } = line {
            let why = line.fault().map(str::to_owned);
            (self.end, self.reason) = (lines::word(end).to_owned(), why.or_else(|| reason.clone()));
        }
    }
}

impl Default for FirstRows {
    fn default() -> Self {
        FirstRows {
            schema: None,
            rows: Vec::new(),
            end: "limit".to_owned(),
            reason: None,
            left_out: LeftOut::default(),
        }
    }
}

impl QueryRows {
    /// Adds the first rows, as many as come until then.
    async fn first(&mut self, first: &mut FirstRows, most: usize, deadline: Instant, time: Duration) {
        while first.rows.len() < most {
            match timeout_at(deadline, self.next()).await {
                Ok(Some(Line::Header { schema, .. })) => first.schema = Some(schema),
                Ok(Some(Line::Row(text))) => first.rows.extend(serde_json::from_str::<serde_json::Value>(&text)),
                Ok(Some(line)) => {
                    first.end_with(&line);
                    return;
                }
                Ok(None) => return,
                Err(_) => {
                    first.reason = Some(format!("its {} s are over", time.as_secs()));
                    return;
                }
            }
        }
        first.reason = Some(format!("the first {most} rows"));
    }
}

/// The queries of a process. Clones are the same ones.
#[derive(Clone)]
pub struct Queries {
    shared: Arc<Shared>,
}

struct Shared {
    statements: Arc<dyn Statements>,
    /// Those of other instances; `None`: there are none.
    roll: Option<Arc<dyn Roll>>,
    instance: String,
    limits: Limits,
    unread: Duration,
    places: Arc<Mutex<Places>>,
    /// Held from where a query is counted here until it is entered among those of others: of two that are entered the other way
    /// round, the one that was counted first would not be counted against what others have begun between them.
    entering: tokio::sync::Mutex<()>,
    /// Where clocks run, whoever asks.
    runtime: Handle,
}

impl Shared {
    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a query a place within the limits, and has other instances count it, too.
    async fn enter(&self, running: &Arc<Running>) -> Result<Begun, Refused> {
        let _alone = self.entering.lock().await;
        // The place is free again when `begun` is dropped without an engine's rows: refused, failed, or given up by the caller.
        let (begun, others) = self.places().enter(running, &self.limits)?;
        let Some(roll) = &self.roll else { return Ok(begun) };
        match roll.enter(&running.info(), others).await? {
            None => Ok(begun),
            Some(elsewhere) => {
                let limits = &self.limits;
                let here = Active {
                    of_owner: limits.queries_per_user - others.of_owner - 1,
                    in_all: limits.queries - others.in_all - 1,
                };
                Err(here.and(elsewhere).too_many(running.owner(), limits))
            }
        }
    }
}

impl Queries {
    /// None runs yet, and no other instance has any. Their clocks run in the runtime of whoever calls this.
    pub fn new(statements: Arc<dyn Statements>, limits: Limits) -> Queries {
        Queries::of((statements, None, ALONE), (limits, UNREAD), Arc::default())
    }

    /// The same, among the queries of other instances.
    pub fn among(statements: Arc<dyn Statements>, limits: Limits, roll: Arc<dyn Roll>, instance: &str) -> Queries {
        let ended = Arc::<Notify>::default();
        let places = Arc::new(Mutex::new(Places::among(Arc::clone(&ended))));
        let queries = Queries::of((statements, Some(Arc::clone(&roll)), instance), (limits, UNREAD), places);
        queries.shared.runtime.spawn(roll::keep(Arc::downgrade(&queries.shared), roll, ended));
        queries
    }

    fn of(
        (statements, roll, instance): (Arc<dyn Statements>, Option<Arc<dyn Roll>>, &str),
        (limits, unread): (Limits, Duration),
        places: Arc<Mutex<Places>>,
    ) -> Queries {
        let (instance, runtime) = (instance.to_owned(), Handle::current());
        let entering = tokio::sync::Mutex::default();
        Queries { shared: Arc::new(Shared { statements, roll, instance, limits, unread, places, entering, runtime }) }
    }

    /// Begins a query. Read it soon: one that nobody reads is ended.
    pub async fn start(&self, query: NewQuery, owner: &str) -> Result<QueryInfo, Refused> {
        self.begin(query, owner, self.shared.limits.query_time).await.map(|running| running.info())
    }

    /// Begins a query and reads it.
    pub async fn run(&self, query: NewQuery, owner: &str) -> Result<QueryRows, Refused> {
        let running = self.begin(query, owner, self.shared.limits.query_time).await?;
        let id = running.id().to_owned();
        QueryRows::of(running).ok_or(Refused::AlreadyRead(id))
    }

    /// The lines of a query. Dropped, they end it.
    pub fn read(&self, id: &str) -> Result<QueryRows, Refused> {
        let running = self.places().get(id).ok_or_else(|| Refused::NotFound(id.to_owned()))?;
        QueryRows::of(running).ok_or_else(|| Refused::AlreadyRead(id.to_owned()))
    }

    /// A query that runs, here or elsewhere.
    pub async fn find(&self, id: &str) -> Result<QueryInfo, Refused> {
        if let Some(running) = self.places().get(id) {
            return Ok(running.info());
        }
        let elsewhere = self.elsewhere(None).await?.into_iter().find(|query| query.id == id);
        elsewhere.ok_or_else(|| Refused::NotFound(id.to_owned()))
    }

    /// Those that run here, of one owner or all, the eldest first.
    pub fn list(&self, owner: Option<&str>) -> Vec<QueryInfo> {
        let mut found = self.places().all();
        found.retain(|query| owner.is_none_or(|owner| query.owner == owner));
        found.sort_by(|one, other| (one.started_at, &one.id).cmp(&(other.started_at, &other.id)));
        found
    }

    /// Those that run on other instances, as these have told last: of one owner or all, the eldest first.
    pub async fn elsewhere(&self, owner: Option<&str>) -> Result<Vec<QueryInfo>, Fault> {
        let Some(roll) = &self.shared.roll else { return Ok(Vec::new()) };
        let mut found = roll.elsewhere(&self.shared.instance).await?;
        found.retain(|query| owner.is_none_or(|owner| query.owner == owner));
        Ok(found)
    }

    /// What this instance is called.
    pub fn instance(&self) -> &str {
        &self.shared.instance
    }

    /// Ends a query: its reader is told so.
    pub fn kill(&self, id: &str, actor: &str) -> Result<(), Refused> {
        let running = self.places().get(id).ok_or_else(|| Refused::NotFound(id.to_owned()))?;
        tracing::info!(query = id, actor, "query ended by somebody");
        running.finish(End::Cancelled, Some(format!("ended by `{actor}`")));
        Ok(())
    }

    /// Tells other instances that what runs here ends: with the process, for whoever stops it.
    pub async fn leave(&self) {
        let Some(roll) = &self.shared.roll else { return };
        let running: Vec<String> = self.places().all().into_iter().map(|query| query.id).collect();
        let told = match running.is_empty() {
            true => Ok(()),
            false => roll.tell(&self.shared.instance, &[], &running).await,
        };
        if let Err(error) = told {
            tracing::warn!(error = %error, "other instances are not told that the queries of this one end");
        }
    }

    /// How many run on all instances: of this owner, and in all.
    pub async fn active_everywhere(&self, owner: &str) -> Result<Active, Fault> {
        let elsewhere = self.elsewhere(None).await?;
        let of_owner = elsewhere.iter().filter(|query| query.owner == owner).count();
        Ok(self.active(owner).and(Active { of_owner, in_all: elsewhere.len() }))
    }

    /// How many run here: of this owner, and in all.
    pub fn active(&self, owner: &str) -> Active {
        self.places().active(owner)
    }

    /// What may be.
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// How many streams are deployed: of this owner, and in all.
    pub async fn deployed(&self, owner: &str) -> Result<(usize, usize), Fault> {
        self.shared.statements.deployed(owner).await
    }

    /// The first rows of a query, as many as come within a time.
    pub async fn first_rows(
        &self,
        query: NewQuery,
        owner: &str,
        most: usize,
        time: Duration,
    ) -> Result<FirstRows, Refused> {
        let deadline = Instant::now() + time;
        // An engine may take longer to begin than the whole query may: a gateway that has just started does.
        let running = match timeout_at(deadline, self.begin(query, owner, time)).await {
            Ok(Ok(running)) => running,
            Err(_) | Ok(Err(Refused::Ended { end: End::Limit, .. })) => {
                let reason = format!("its {} s were over before the engine had begun it: ask again", time.as_secs());
                return Ok(FirstRows { reason: Some(reason), ..FirstRows::default() });
            }
            Ok(Err(Refused::Ended { end, reason, .. })) => {
                return Ok(FirstRows { end: lines::word(&end).to_owned(), reason, ..FirstRows::default() });
            }
            Ok(Err(refused)) => return Err(refused),
        };
        let id = running.id().to_owned();
        let mut lines = QueryRows::of(running).ok_or(Refused::AlreadyRead(id))?;
        let mut first = FirstRows::default();
        lines.first(&mut first, most, deadline, time).await;
        first.left_out = lines.left_out();
        Ok(first)
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.shared.places()
    }

    async fn begin(&self, query: NewQuery, owner: &str, time_limit: Duration) -> Result<Arc<Running>, Refused> {
        // First of all: whoever sends rubbish all the time is slowed down, too.
        self.places().count(owner, &self.shared.limits, Instant::now())?;
        let Prepared { engine, select, placed } =
            self.shared.statements.prepared(query.engine, &query.sql, query.pull).await?;
        let id = format!("{:032x}", fastrand::u128(..));
        let deadline = Instant::now() + time_limit;
        let running = Arc::new(Running::new(
            QueryInfo {
                id: id.clone(),
                instance: self.shared.instance.clone(),
                engine: engine.kind(),
                owner: owner.to_owned(),
                sql_script: query.sql,
                started_at: Timestamp::now(),
                ends_at: Timestamp::now() + time_limit,
                is_read: false,
                rows: 0,
                bytes: 0,
                left_out: LeftOut::default(),
                tables: Vec::new(),
            },
            &self.shared.limits,
            Arc::downgrade(&self.shared.places),
        ));
        let begun = self.shared.enter(&running).await?;
        let kind = engine.kind();
        let query = AdHoc { id, select, from_start: query.from_beginning, time_limit };
        // Dropped, the engine's answer is wanted no more, and what it has begun ends.
        let rows = tokio::select! {
            biased;
            () = running.ended() => return Err(running.as_ended()),
            () = sleep_until(deadline) => {
                running.finish(End::Limit, Some(time_is_over(time_limit)));
                return Err(running.as_ended());
            }
            rows = engine.query(query) => rows,
        };
        let running = begun.with(rows.map_err(|trouble| Fault::of(kind, placed(trouble)))?)?;
        self.shared.runtime.spawn(watch(
            Arc::clone(&running),
            deadline,
            Instant::now() + self.shared.unread,
            time_limit,
        ));
        Ok(running)
    }
}

/// Ends a query when its time is over, or when nobody has come to read it.
async fn watch(running: Arc<Running>, deadline: Instant, unread: Instant, time_limit: Duration) {
    tokio::select! {
        () = running.ended() => return,
        () = sleep_until(unread.min(deadline)) => {}
    }
    if !running.is_read() && unread <= deadline {
        return running.finish(End::Cancelled, Some("nobody has come to read it".to_owned()));
    }
    tokio::select! {
        () = running.ended() => {}
        () = sleep_until(deadline) => {
            running.finish(End::Limit, Some(time_is_over(time_limit)));
        }
    }
}

fn time_is_over(time_limit: Duration) -> String {
    format!("its {} s are over (`manager.limits.query_seconds`)", time_limit.as_secs())
}
