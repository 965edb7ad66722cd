//! What operators have asked for that takes longer than a call, as rows: whoever drives one notes here how far it is, and
//! finds here what was asked of it meanwhile.

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::Row;

use crate::domain::build::{Build, BuildId};
use crate::domain::comparison::Difference;
use crate::domain::operation::{OperationKind, OperationState, Phase};
use crate::store::types::BoxedError;
use crate::store::{Connection, DbError};

/// Most keys of which it is kept what was found, for each operation.
pub const DIFFERENCES: i64 = 10_000;

/// An operation as stored.
#[derive(Debug, Clone)]
pub struct Operation {
    /// Its number.
    pub id: i64,
    /// What is done.
    pub kind: OperationKind,
    /// View.
    pub view: String,
    /// Whether it is over.
    pub state: OperationState,
    /// How far it is; where it ended, if it did.
    pub phase: Phase,
    /// What was asked for.
    pub request: Value,
    /// Why, for those who ask later.
    pub reason: String,
    /// Who.
    pub actor: String,
    /// For whom, if who has logged in said so.
    pub on_behalf_of: Option<String>,
    /// Who has asked for its end or for the switch, if they have logged in.
    pub asked_by: Option<String>,
    /// The build that readers read when it began.
    pub from_build: Option<Build>,
    /// The build that they will read.
    pub to_build: Option<Build>,
    /// Records or keys done so far.
    pub records_done: i64,
    /// How many there are, once that is known.
    pub records_total: Option<i64>,
    /// What the comparison found.
    pub comparison: Option<Value>,
    /// Why it failed: `{code, detail, nextStep}`.
    pub error: Option<Value>,
    /// What was asked of it that it has not done yet.
    pub asked: Option<String>,
    /// When each phase began: `[{phase, at}]`, with `detail` where it goes on otherwise than usual.
    pub phases: Value,
    /// When it was asked for.
    pub started_at: Timestamp,
    /// When anything was noted last.
    pub updated_at: Timestamp,
    /// When it was over.
    pub finished_at: Option<Timestamp>,
}

impl Operation {
    /// Whether the build that readers read is cleared and made anew.
    pub fn is_in_place(&self) -> bool {
        self.request["mode"].as_str() == Some("in_place")
    }

    /// Whether it can still be called off. What is cleared in place is not left half made.
    pub fn may_be_cancelled(&self) -> bool {
        if self.is_in_place() { self.phase == Phase::Preflight } else { self.phase.may_be_cancelled() }
    }

    /// Whether it waits while an operator has the view stand still.
    pub fn waits_for_resumption(&self) -> bool {
        self.kind != OperationKind::Verify
    }
}

/// What an operation hears when it notes how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// What was asked of it meanwhile.
    pub asked: Option<String>,
    /// Whether an operator has the view stand still.
    pub is_paused: bool,
}

/// What is asked for.
#[derive(Debug)]
pub struct NewOperation<'a> {
    /// What is to be done.
    pub kind: OperationKind,
    /// View.
    pub view: &'a str,
    /// The rest, as it was asked.
    pub request: Value,
    /// Why.
    pub reason: &'a str,
    /// Who.
    pub actor: &'a str,
    /// For whom, if who has logged in said so.
    pub on_behalf_of: Option<&'a str>,
    /// The build that readers read, and that they will read, as far as that is known.
    pub builds: (Option<Build>, Option<Build>),
}

/// Which operations; `None` for any.
#[derive(Debug, Default, Clone)]
pub struct OperationFilter {
    /// Of this view.
    pub view: Option<String>,
    /// In this state.
    pub state: Option<OperationState>,
    /// Of this id.
    pub id: Option<i64>,
    /// Older than this one.
    pub before: Option<i64>,
}

/// What an operation does not survive.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OperationError {
    /// A stable name.
    pub code: &'static str,
    /// What happened.
    pub detail: String,
    /// What to do.
    pub next_step: String,
}

/// Operations, the latest first.
pub async fn find(client: &Connection, filter: &OperationFilter, limit: i64) -> Result<Vec<Operation>, BoxedError> {
    let state = filter.state.map(OperationState::as_str);
    let rows = client
        .query(include_str!("sql/find_operations.sql"), &[&filter.view, &state, &filter.id, &filter.before, &limit])
        .await?;
    rows.iter().map(operation).collect()
}

/// The operation of a view that is under way.
pub async fn running(client: &Connection, view: &str) -> Result<Option<Operation>, BoxedError> {
    let filter =
        OperationFilter { view: Some(view.to_owned()), state: Some(OperationState::Running), ..Default::default() };
    Ok(find(client, &filter, 1).await?.pop())
}

/// Notes what is asked for; `None` where another one of the view is under way.
pub async fn begin(client: &Connection, asked: &NewOperation<'_>) -> Result<Option<i64>, DbError> {
    let (from, to) = asked.builds;
    let row = client
        .query_opt(
            include_str!("sql/begin_operation.sql"),
            &[
                &asked.kind.as_str(),
                &asked.view,
                &asked.request,
                &asked.reason,
                &asked.actor,
                &from.map(|build| build.0),
                &to.map(|build| build.0),
                &asked.on_behalf_of,
            ],
        )
        .await?;
    row.map(|row| row.try_get(0)).transpose()
}

/// Takes an operation for this connection, as long as it lives; `false` if another one has it.
pub async fn take(client: &Connection, id: i64) -> Result<bool, DbError> {
    let lock = "select pg_try_advisory_lock(hashtextextended($1, 0))";
    client.query_one(lock, &[&format!("streamview operation {id}")]).await?.try_get(0)
}

/// It has come to that phase.
pub async fn enter(client: &Connection, id: i64, phase: Phase) -> Result<(), DbError> {
    enter_otherwise(client, id, phase, None).await
}

/// Likewise, and why it goes on otherwise than usual.
pub async fn enter_otherwise(client: &Connection, id: i64, phase: Phase, why: Option<&str>) -> Result<(), DbError> {
    client.execute(include_str!("sql/enter_phase.sql"), &[&id, &phase.as_str(), &why]).await.map(drop)
}

/// Which builds it is about.
pub async fn set_target(client: &Connection, id: i64, from: Build, to: Build) -> Result<(), DbError> {
    client.execute(include_str!("sql/set_target.sql"), &[&id, &from.0, &to.0]).await.map(drop)
}

/// A number for a new build of a view.
pub async fn next_build(client: &Connection, view: &str) -> Result<Build, DbError> {
    client.query_one(include_str!("sql/next_build.sql"), &[&view]).await?.try_get(0).map(Build)
}

/// Notes how far it is, and gives what was asked of it meanwhile.
pub async fn note(client: &Connection, id: i64, done: i64, total: Option<i64>) -> Result<Noted, DbError> {
    let row = client.query_one(include_str!("sql/note_progress.sql"), &[&id, &done, &total]).await?;
    Ok(Noted { asked: row.try_get(0)?, is_paused: row.try_get(1)? })
}

/// The last operation that has begun to clear the build in place.
pub async fn cleared_by(client: &Connection, build: BuildId) -> Result<Option<i64>, DbError> {
    client.query_one(include_str!("sql/cleared_by.sql"), &[&build.view, &build.build.0]).await?.try_get(0)
}

/// Whether a rebuild of this build was begun by itself for that version of the projection, however it ended.
pub async fn was_begun_for(client: &Connection, build: BuildId, version: i32) -> Result<bool, DbError> {
    let statement = include_str!("sql/was_begun_for.sql");
    client.query_one(statement, &[&build.view, &build.build.0, &version]).await?.try_get(0)
}

/// Notes what the comparison found.
pub async fn put_comparison(client: &Connection, id: i64, comparison: &Value) -> Result<(), DbError> {
    client.execute(include_str!("sql/put_comparison.sql"), &[&id, &comparison]).await.map(drop)
}

/// It is over.
pub async fn end(
    client: &Connection,
    id: i64,
    state: OperationState,
    error: Option<&OperationError>,
) -> Result<(), DbError> {
    let error = error.map(|error| serde_json::json!(error));
    client.execute(include_str!("sql/end_operation.sql"), &[&id, &state.as_str(), &error]).await.map(drop)
}

/// Asks something of an operation under way, in the name of who has logged in; `false` if it is over.
pub async fn ask(client: &Connection, id: i64, what: &str, by: Option<&str>) -> Result<bool, DbError> {
    Ok(client.execute(include_str!("sql/ask_operation.sql"), &[&id, &what, &by]).await? == 1)
}

/// What an operation found of the keys after `after`, in the order of their bytes. How much more of a key differs than
/// its columns name is not kept.
pub async fn differences(client: &Connection, id: i64, after: &str, limit: i64) -> Result<Vec<Difference>, BoxedError> {
    let rows = client.query(include_str!("sql/list_differences.sql"), &[&id, &after, &limit]).await?;
    rows.iter()
        .map(|row| {
            let columns = serde_json::from_value(row.try_get(2)?)?;
            Ok(Difference { key: row.try_get(0)?, found: row.try_get::<_, &str>(1)?.parse()?, columns, more: 0 })
        })
        .collect()
}

/// Of how many keys it is kept what was found.
pub async fn kept_differences(client: &Connection, id: i64) -> Result<i64, DbError> {
    client.query_one(include_str!("sql/count_differences.sql"), &[&id]).await?.try_get(0)
}

/// A build as the steward of its view sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Its number.
    pub build: Build,
    /// Whether readers read it.
    pub is_active: bool,
    /// Whether it is being loaded in bulk.
    pub is_loading: bool,
    /// Whether it is kept for a rollback.
    pub is_kept: bool,
    /// The phase of the operation that makes it the active one.
    pub phase: Option<Phase>,
    /// Whether nobody has a use for it any more.
    pub is_left_over: bool,
    /// The last operation that has begun to clear it in place.
    pub cleared_by: Option<i64>,
    /// Whether that one is under way, and readers see nothing or a part.
    pub is_being_cleared: bool,
}

/// Every build of a view.
pub async fn look(client: &Connection, view: &str) -> Result<Vec<Seen>, BoxedError> {
    let rows = client.query(include_str!("sql/look_at_builds.sql"), &[&view]).await?;
    rows.iter()
        .map(|row| {
            Ok(Seen {
                build: Build(row.try_get(0)?),
                is_active: row.try_get(1)?,
                is_loading: row.try_get(2)?,
                is_kept: row.try_get(3)?,
                phase: row.try_get::<_, Option<&str>>(4)?.map(str::parse).transpose()?,
                is_left_over: row.try_get(5)?,
                cleared_by: row.try_get(6)?,
                is_being_cleared: row.try_get(7)?,
            })
        })
        .collect()
}

fn operation(row: &Row) -> Result<Operation, BoxedError> {
    Ok(Operation {
        id: row.try_get(0)?,
        kind: row.try_get::<_, &str>(1)?.parse()?,
        view: row.try_get(2)?,
        state: row.try_get::<_, &str>(3)?.parse()?,
        phase: row.try_get::<_, &str>(4)?.parse()?,
        request: row.try_get(5)?,
        reason: row.try_get(6)?,
        actor: row.try_get(7)?,
        from_build: row.try_get::<_, Option<i32>>(8)?.map(Build),
        to_build: row.try_get::<_, Option<i32>>(9)?.map(Build),
        records_done: row.try_get(10)?,
        records_total: row.try_get(11)?,
        comparison: row.try_get(12)?,
        error: row.try_get(13)?,
        asked: row.try_get(14)?,
        phases: row.try_get(15)?,
        started_at: row.try_get(16)?,
        updated_at: row.try_get(17)?,
        finished_at: row.try_get(18)?,
        on_behalf_of: row.try_get(19)?,
        asked_by: row.try_get(20)?,
    })
}
