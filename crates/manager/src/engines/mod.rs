//! One contract for stream engines. What each operation means is said here; how an engine does it, in its folder.
//!
//! Every call is *at least once*. What a call may do to the world is found again by the names in [`Deployment`], so that it
//! can be repeated after [`Trouble::Unknown`].

use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::Stream;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::catalog::{Column, Source};

mod ahead;
pub mod flink;
pub mod ksqldb;
pub mod views;

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineKind {
    /// Apache Flink: SQL gateway and JobManager.
    Flink,
    /// ksqlDB.
    Ksqldb,
    /// The one in this process.
    Embedded,
}

impl EngineKind {
    /// All of them, in the order in which they are shown.
    pub const ALL: [EngineKind; 3] = [EngineKind::Flink, EngineKind::Ksqldb, EngineKind::Embedded];

    /// Its name in settings, bodies and columns.
    pub const fn name(self) -> &'static str {
        match self {
            EngineKind::Flink => "flink",
            EngineKind::Ksqldb => "ksqldb",
            EngineKind::Embedded => "embedded",
        }
    }

    /// Whether each deployment is a job of its own, by [`crate::names::Names::job_name`]; else what runs has one name for all
    /// of them: the sink's.
    pub const fn names_deployments(self) -> bool {
        match self {
            EngineKind::Flink | EngineKind::Embedded => true,
            EngineKind::Ksqldb => false,
        }
    }

    /// Whether its jobs end with the process that runs them, or when that leads no more ([`Engine::lead_is_lost`]): what is not
    /// seen may have run, and have kept its state.
    pub const fn dies_with_us(self) -> bool {
        matches!(self, EngineKind::Embedded)
    }

    /// Where a deployment keeps its state from its beginning on, if that is known by its names: with what it was restored from,
    /// else at a place of its own. So it is known too of a deployment whose answer was lost.
    pub fn keeps_at(
        self,
        definition: &str,
        (revision, attempt): (i32, i32),
        restore: Option<&RestorePoint>,
    ) -> Option<RestorePoint> {
        let own =
            || RestorePoint { path: crate::names::kept_in_group(definition, revision, attempt), savepoint: false };
        (self == EngineKind::Embedded).then(|| restore.cloned().unwrap_or_else(own))
    }
}

/// Why a call did not do what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The statement or the request is wrong: it will be refused again.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// A limit of the engine is reached, and **nothing was submitted**: nothing is there that could run later. What was
    /// submitted and waits for room is [`Trouble::Unknown`].
    #[error("{reason}")]
    Busy {
        /// In the engine's words.
        reason: String,
        /// When to come again, if it says so.
        retry_after: Option<Duration>,
    },
    /// Nothing happened; it can be tried again.
    #[error("{0}")]
    Unavailable(String),
    /// It may have happened, or has and is not seen to have come about (a job that waits for a slot): the call is kept, and the
    /// same one later finds what there is.
    #[error("{0}")]
    Unknown(String),
}

/// What is wrong with a statement, as its author should read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// A stable word for the kind of fault, `snake_case`.
    pub code: String,
    /// One sentence.
    pub message: String,
    /// Line in the user's text, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Column in that line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
}

/// What an engine is and can.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Capabilities {
    /// The version that answers.
    pub version: String,
    /// Which cluster it is, so that ids of different clusters differ.
    pub cluster: String,
    /// Whether a query can be paused with its state.
    pub can_pause: bool,
    /// Whether a stop keeps the state at a place that can be restored from.
    pub can_savepoint: bool,
    /// Whether a running text is replaced in one call ([`Deployment::replaces`]); else it is stopped and restored.
    pub replaces_in_place: bool,
    /// How many more jobs have room, if the engine says so.
    pub free_slots: Option<u32>,
}

/// A user's SELECT that has passed the gate, and the sources that it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Select {
    /// The statement in the engine's dialect: one SELECT, no `;`, no trailing comment; positions as in the user's text.
    pub sql: String,
    /// The sources that stand behind its FROM and JOINs.
    pub sources: Vec<Source>,
}

/// What a SELECT gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// The columns of its rows.
    pub columns: Vec<Column>,
    /// Whether rows are only added, or change later.
    pub changes: Changes,
    /// The engine's own words about how it will do it.
    pub plan: String,
    /// Why it cannot be deployed, if it can only be looked at: Flink needs a key to write rows that change.
    pub only_adhoc: Option<Refusal>,
}

/// Whether rows are only added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Changes {
    /// Rows are added and never taken back.
    Append,
    /// Rows are replaced by key, or taken away.
    Upsert,
}

/// One deployment of one revision, with every name that it will have. Stored before it is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// The definition: 32 hex digits.
    pub definition: String,
    /// Names in the engine.
    pub names: crate::names::Names,
    /// Revision of the text.
    pub revision: i32,
    /// How often this revision was deployed, this time included.
    pub attempt: i32,
    /// What is run.
    pub select: Select,
    /// What it gives, as it was explained when it was planned.
    pub changes: Changes,
    /// Take the place of what runs under these names, with its state (`CREATE OR REPLACE`); only where
    /// [`Capabilities::replaces_in_place`].
    pub replaces: bool,
    /// Begin with this state.
    pub restore: Option<RestorePoint>,
}

/// What runs, as its engine calls it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Handle {
    /// Flink's job id, or ksqlDB's query id; the `job_id` of the definition.
    pub job_id: String,
    /// The stream or table that it fills.
    pub stream_name: String,
    /// The topic.
    pub output_topic: String,
    /// Whether that is a stream or a table (ksqlDB drops them by different words).
    pub changes: Changes,
    /// Where its state is kept from now on ([`EngineKind::keeps_at`]): where it does not run any more, without a word, it goes
    /// on from there. `None` of an engine that says so only when it is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeps_at: Option<RestorePoint>,
}

/// Where the state of a stopped job lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestorePoint {
    /// The path, as the engine takes it.
    pub path: String,
    /// Whether it is a savepoint of our stop, or the last checkpoint of a job that was lost.
    pub savepoint: bool,
}

/// What a deployment or query is seen to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObservedState {
    /// The engine knows nothing of it.
    Absent,
    /// The engine cannot be asked.
    Unknown,
    /// It is about to run.
    Starting,
    /// It runs.
    Running,
    /// It runs, and something is wrong with it.
    Degraded,
    /// The engine starts it again and again.
    Restarting,
    /// It keeps its state and does nothing.
    Paused,
    /// It is about to stop.
    Stopping,
    /// It has stopped in order. Whether anybody asked for that is for the caller to know: a stream has no end of its own.
    Stopped,
    /// It has ended because of a fault.
    Failed,
}

/// One thing that runs in an engine, whoever began it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Job or query id.
    pub job_id: String,
    /// Flink: the job's name. ksqlDB: the stream or table that it fills.
    pub name: String,
    /// Topics that it writes, where the engine says so.
    pub topics: Vec<String>,
    /// What it does.
    pub state: ObservedState,
    /// The engine's own words for that.
    pub engine_state: String,
    /// The SELECT that runs, where the engine says so (it writes it in its own way).
    pub statement: Option<String>,
}

/// More about one thing that runs, asked when somebody looks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// First cause of its last failure, one line.
    pub failure: Option<String>,
    /// The consumer group whose lag is its lag, and the topics that it reads.
    pub group: Option<String>,
    /// Where its state was kept last.
    pub latest_checkpoint: Option<RestorePoint>,
    /// Records written per second, where the engine counts.
    pub records_per_second: Option<u64>,
    /// Operators and what flows between them.
    pub topology: Topology,
}

/// What of the state of something is kept at places that can be restored from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kept {
    /// Where, the latest first. Each may be gone a moment later, the oldest first: whoever goes on from there tries them in
    /// this order.
    pub points: Vec<RestorePoint>,
    /// Whether the last attempt to keep it has failed. [`Engine::observe`] says then that it is degraded.
    pub is_failing: bool,
}

/// Operators of something that runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Topology {
    /// Operators, in no order.
    pub nodes: Vec<Node>,
    /// From which to which, by their ids.
    pub edges: Vec<(String, String)>,
}

/// An operator.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Node {
    /// Its id in the engine.
    pub id: String,
    /// What it does.
    pub label: String,
}

/// How something is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// It can go on where it was: paused (ksqlDB), or with a savepoint (Flink). Of what does not run any more, it gives what
    /// was kept last, be it what it began with.
    KeepState,
    /// It ends, whatever state it is in, with or without a place for savepoints. **No restore point is deleted** that this mode
    /// of stop of this very deployment has not made: neither what it began with, nor its checkpoints, nor the savepoint of a
    /// stop with state. They go with [`Engine::remove`].
    Final,
}

/// How a stop ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// It keeps its state in the engine.
    Paused,
    /// Its state lies here. A final stop says so, too, where a stop with state of the same deployment was done before, and only
    /// its answer was lost.
    At(RestorePoint),
    /// Nothing of its state was kept by this stop.
    WithoutState,
}

/// What a query of somebody who looks may cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdHoc {
    /// 32 hex digits, chosen by us.
    pub id: String,
    /// What is run.
    pub select: Select,
    /// Where it begins.
    pub from_start: bool,
    /// How long it may run.
    pub time_limit: Duration,
}

/// Rows of a query, then its end. Dropped, the query ends in the engine too (the engine sees to it in the background).
pub type Rows = Pin<Box<dyn Stream<Item = Item> + Send>>;

/// What comes out of a query.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// First: the columns, and the schema in the engine's own words.
    Header {
        /// The columns.
        columns: Vec<Column>,
        /// As the seeds' clients read it: `` `ORDER_ID` INTEGER, `AMOUNT` DOUBLE ``.
        schema: String,
    },
    /// A row.
    Row(Row),
    /// What it has left out so far and the tables that it reads, when that has changed. Only of an engine that knows it.
    Seen(Seen),
    /// Last.
    End(End),
}

/// What a query of somebody who looks has left out, and the tables that it reads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// What is not in its rows.
    pub left_out: LeftOut,
    /// Its tables as they are now.
    pub tables: Vec<TableSeen>,
}

/// What is not in the rows of a query, since it began.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeftOut {
    /// Records that cannot be read, or with which an expression fails.
    pub refused: u64,
    /// Rows whose windows were over.
    pub late: u64,
    /// Rows whose time is too far ahead of the clock.
    pub future: u64,
    /// Groups of windows with which an expression over their aggregates fails.
    pub failed_groups: u64,
    /// Why the latest of them was refused, or failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl LeftOut {
    /// Whether all is in its rows.
    pub const fn is_nothing(&self) -> bool {
        self.refused == 0 && self.late == 0 && self.future == 0 && self.failed_groups == 0
    }
}

/// A table that a query reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TableSeen {
    /// The source's name.
    pub name: String,
    /// Rows that the query meets.
    pub rows: u64,
    /// Bytes of them, and of their keys.
    pub bytes: u64,
    /// Records that cannot be read: they change nothing.
    pub refused: u64,
    /// The query meets the table as it was then.
    pub refreshed_at: Timestamp,
    /// How long after that it is read anew at the latest, in milliseconds.
    pub refresh_ms: u64,
}

/// A row of a query.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// What happened to it.
    pub kind: RowKind,
    /// Its values, as many as columns. Decimals are text, 64-bit numbers too where a double would round them.
    pub values: Vec<Value>,
}

impl TableSeen {
    /// A moment by its milliseconds since 1970.
    pub fn moment(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).unwrap_or_default()
    }
}

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RowKind {
    /// It is new.
    Insert,
    /// It was so and is so no more.
    UpdateBefore,
    /// It is so now.
    UpdateAfter,
    /// It is gone.
    Delete,
}

/// Why a query has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Its LIMIT, or one of ours.
    Limit,
    /// There is nothing more.
    Complete,
    /// Somebody ended it.
    Cancelled,
    /// The engine says why.
    Failed(String),
    /// The connection was cut, or the engine began anew: rows may be missing.
    Interrupted(String),
}

/// A stream engine.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Which one.
    fn kind(&self) -> EngineKind;

    /// What it is and can; also how it is seen to be there.
    async fn capabilities(&self) -> Result<Capabilities, Trouble>;

    /// Which cluster answers, as [`Capabilities::cluster`] says it, by one request: it is asked in every round.
    async fn cluster(&self) -> Result<String, Trouble> {
        Ok(self.capabilities().await?.cluster)
    }

    /// What the engine lacks to explain, deploy or run a SELECT, as a sentence; `None`: nothing. Without side effects. A source
    /// that it has under the same name, and that is another one than was declared, is a refusal `source_differs`.
    async fn unprepared(&self, _select: &Select) -> Result<Option<String>, Trouble> {
        Ok(None)
    }

    /// Makes what it lacks (ksqlDB: registers sources), which stays there. Only for who deploys or runs it.
    async fn prepare(&self, _select: &Select) -> Result<(), Trouble> {
        Ok(())
    }

    /// Whether a SELECT can run, and what it gives. Without side effects, so it is [`Trouble::Unavailable`] where something is
    /// [unprepared](Engine::unprepared).
    async fn explain(&self, select: &Select) -> Result<Explained, Trouble>;

    /// Whether `new` may go on with the state of `old`; else why not, as one sentence. Asks nobody: it may say no where the
    /// engine would say yes.
    async fn keeps_state(&self, old: &Select, new: &Select) -> Result<(), String>;

    /// Runs it. The topic is there already. Repeated with the same deployment it adopts what it finds by its names. Once
    /// something was submitted there is no [`Trouble::Busy`] and no [`Trouble::Unavailable`] of it, but [`Trouble::Unknown`].
    async fn deploy(&self, deployment: &Deployment) -> Result<Handle, Trouble>;

    /// Everything that runs there, whoever began it; two calls at most.
    async fn observe(&self) -> Result<Vec<Observed>, Trouble>;

    /// More about one of them.
    async fn details(&self, job_id: &str) -> Result<Details, Trouble>;

    /// Where its state is kept, by one request, for who asks often of many. None of an engine that keeps none at places.
    async fn checkpoint(&self, _job_id: &str) -> Result<Kept, Trouble> {
        Ok(Kept::default())
    }

    /// Stops it. What is gone already has stopped. Once it was asked for, what cannot be seen is [`Trouble::Unknown`]; repeated
    /// with the same deployment, it gives what the first call would have given.
    async fn stop(&self, deployment: &Deployment, handle: &Handle, mode: StopMode) -> Result<Stopped, Trouble>;

    /// Goes on with what is paused; only where [`Capabilities::can_pause`].
    async fn resume(&self, handle: &Handle) -> Result<(), Trouble>;

    /// Removes what a definition left in the engine, but its topic. What is gone already is fine.
    async fn remove(&self, handle: &Handle, restore_points: &[RestorePoint]) -> Result<(), Trouble>;

    /// This process leads no more, and another one may. What was deployed and runs in this process ends as it stands, within a
    /// bounded time, unless whoever begins it anew ends it by that; once it has ended it is not [observed](Engine::observe) any
    /// more, as whoever leads next begins it again. An engine that runs elsewhere has nothing to do.
    async fn lead_is_lost(&self) {}

    /// Runs a SELECT for somebody who looks.
    async fn query(&self, query: AdHoc) -> Result<Rows, Trouble>;

    /// Sources that the engine itself knows (ksqlDB); Flink knows none.
    async fn sources(&self) -> Result<Vec<Source>, Trouble>;
}
