//! The decision that a topic was moved, with its offsets: what was consumed of the old one is not read again from the new
//! one. Without it a build never goes on with another log. The projector still compares the last record of each partition
//! when it takes it over, so a decision that is not true halts the view.

use jiff::Timestamp;

use super::request::Why;
use crate::domain::build::Build;
use crate::domain::source::Binding;
use crate::store::sqlstate::describe;
use crate::store::{Connection, DbError, standstill};

/// What a build is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundBuild {
    /// The build.
    pub build: Build,
    /// Whether readers read it.
    pub active: bool,
    /// The log, as far as it is known.
    pub binding: Binding,
    /// Since when.
    pub bound_at: Option<Timestamp>,
}

/// An earlier decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceMove {
    /// Its number.
    pub id: i64,
    /// The log before.
    pub from: Binding,
    /// The topic since.
    pub to_topic: String,
    /// Why.
    pub reason: String,
    /// Who.
    pub actor: String,
    /// When.
    pub decided_at: Timestamp,
}

/// Why nothing was decided.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// No build is made from that topic.
    #[error(
        "no build of view {view} is made from topic {from}; `streamview source show` tells what they are made from"
    )]
    NotBound {
        /// The view.
        view: String,
        /// The topic as asked.
        from: String,
    },
    /// The other topic is known already.
    #[error(
        "records of topic {to} were read into view {view} already, so it cannot be topic {from} moved with its offsets: \
         rebuild the view"
    )]
    Mixed {
        /// The view.
        view: String,
        /// The old topic.
        from: String,
        /// The new one.
        to: String,
    },
    /// Postgres did not do it.
    #[error("{}", describe(.0))]
    Database(#[from] DbError),
}

/// What each build of a view is bound to.
pub async fn bindings(client: &Connection, view: &str) -> Result<Vec<BoundBuild>, DbError> {
    let rows = client.query(include_str!("sql/bindings.sql"), &[&view]).await?;
    rows.iter()
        .map(|row| {
            let binding = Binding { cluster: row.try_get(2)?, topic: row.try_get(3)?, topic_id: row.try_get(4)? };
            let (build, active, bound_at) = (Build(row.try_get(0)?), row.try_get(1)?, row.try_get(5)?);
            Ok(BoundBuild { build, active, binding, bound_at })
        })
        .collect()
}

/// Earlier decisions about a view's source, the oldest first.
pub async fn moves(client: &Connection, view: &str) -> Result<Vec<SourceMove>, DbError> {
    let rows = client.query(include_str!("sql/source_moves.sql"), &[&view]).await?;
    rows.iter()
        .map(|row| {
            let from = Binding { cluster: row.try_get(1)?, topic: row.try_get(2)?, topic_id: row.try_get(3)? };
            let (id, to_topic, reason, actor) = (row.try_get(0)?, row.try_get(4)?, row.try_get(5)?, row.try_get(6)?);
            Ok(SourceMove { id, from, to_topic, reason, actor, decided_at: row.try_get(7)? })
        })
        .collect()
}

/// Decides that what was topic `from` is topic `to` by now, perhaps of another cluster; gives the decision's number. One
/// transaction; the names may be the same, when only the cluster is another one.
pub async fn decide(client: &Connection, view: &str, (from, to): (&str, &str), why: &Why) -> Result<i64, MoveError> {
    client.batch_execute("begin").await?;
    let decided = decide_locked(client, view, (from, to), why).await;
    let end = if decided.is_ok() { "commit" } else { "rollback" };
    let ended = client.batch_execute(end).await;
    let id = decided?;
    ended?;
    Ok(id)
}

async fn decide_locked(client: &Connection, view: &str, (from, to): (&str, &str), why: &Why) -> Result<i64, MoveError> {
    standstill::lock(client, view).await?;
    if from != to && client.query_one(include_str!("sql/has_progress_of.sql"), &[&view, &to]).await?.try_get(0)? {
        return Err(MoveError::Mixed { view: view.to_owned(), from: from.to_owned(), to: to.to_owned() });
    }
    let row =
        client.query_one(include_str!("sql/move_source.sql"), &[&view, &from, &to, &why.reason, &why.actor]).await?;
    let builds: i64 = row.try_get(1)?;
    if builds == 0 {
        return Err(MoveError::NotBound { view: view.to_owned(), from: from.to_owned() });
    }
    Ok(row.try_get(0)?)
}
