//! Builds as things that are made, filled, published and dropped, by whoever owns the schema. What a build holds is written
//! by its projector; what its tables are, each view says ([`crate::engine::view::BuildScripts`]), and the engine for the ledger.
//!
//! One lock puts all of this in a row with operators' decisions: that of the view's rows in `view_builds`.

pub mod compare;
mod create;
mod drop;
pub mod from_log;
pub mod in_place;
pub mod leftovers;
pub mod load;
pub mod mend;
pub mod moving;
pub mod preflight;
mod publish;
pub mod switch;
pub mod verify;

pub use create::create;
pub use drop::drop;
pub use publish::publish;

use crate::domain::build::{Build, BuildId};
use crate::store::sqlstate::describe;
use crate::store::types::BoxedError;
use crate::store::{Connection, DbError};

/// Why a build was not made, dropped or published. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Its name cannot be that of a schema.
    #[error("{0} cannot be made: a view's name is lower-case letters, digits and `_`, and builds count from 1")]
    BadName(BuildId),
    /// There is one already.
    #[error("{0} is there already")]
    Exists(BuildId),
    /// There is none.
    #[error("there is no {0}")]
    Unknown(BuildId),
    /// Readers read it.
    #[error("{0} is the active one: readers read it")]
    Active(BuildId),
    /// Readers read another one.
    #[error("{0} is not the active one any more")]
    NotActive(BuildId),
    /// It is being filled in bulk.
    #[error("{0} is being loaded in bulk: it has no indexes and is not whole")]
    Loading(BuildId),
    /// The control tables hold a word that this binary does not know.
    #[error("the control tables hold what this binary does not know: {0}")]
    Unreadable(BoxedError),
    /// Postgres did not do it.
    #[error("{}", describe(.0))]
    Database(#[from] DbError),
}

/// What the control tables say of a build, under the lock.
#[derive(Debug, Clone, Copy)]
struct Standing {
    active: bool,
    loading: bool,
}

/// Locks the view's builds until the end of the transaction: nobody decides, makes or drops anything meanwhile.
async fn lock(client: &Connection, build: BuildId) -> Result<Option<Standing>, BuildError> {
    let rows = client.query(include_str!("sql/lock_builds.sql"), &[&build.view]).await?;
    for row in rows {
        if Build(row.try_get(0)?) == build.build {
            return Ok(Some(Standing { active: row.try_get(1)?, loading: row.try_get(2)? }));
        }
    }
    Ok(None)
}

/// Ends the transaction that `outcome` came of.
async fn end<T>(client: &Connection, outcome: Result<T, BuildError>) -> Result<T, BuildError> {
    let end = if outcome.is_ok() { "commit" } else { "rollback" };
    match client.batch_execute(end).await {
        Ok(()) => outcome,
        // What went wrong first says more.
        Err(error) => outcome.and(Err(error.into())),
    }
}
