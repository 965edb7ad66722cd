//! Asks for what takes longer than a call: a rebuild, a rollback, a verification; and tells how far it is, and what it found.
//! What is asked for is a row that a steward finds (`steward/`), in this process or another; here nothing is driven.

use std::pin::Pin;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::decide::replay;
use super::model::Spelled;
use super::request::Why;
use super::rows::write;
use super::{Desk, DeskError, Obstacle, Refusal, Seen};
use crate::domain::build::{Build, BuildId};
use crate::domain::comparison::{Comparison, Difference};
use crate::domain::operation::{OperationKind, OperationState, Phase};
use crate::domain::preflight::Outlook;
use crate::domain::verification::{Basis, Scope};
use crate::domain::word::UnknownWord;
use crate::store::operations::{self, NewOperation, Operation, OperationFilter};
use crate::store::read::ReadError;
use crate::store::{Connection, pauses, progress, standstill};

/// Most hours that a build is kept.
pub const MAX_KEEP_HOURS: i64 = 24 * 365;
/// Hours that a build is kept if nobody says how long.
pub const DEFAULT_KEEP_HOURS: i64 = 24;

/// When readers are switched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cutover {
    /// As soon as the new build is ready.
    Auto,
    /// When somebody says so.
    Manual,
}

/// Where the new rows are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// In a build beside the one that readers read.
    #[default]
    Shadow,
    /// In that one, which is cleared for it.
    InPlace,
}

impl Mode {
    // By reference, as serde asks it.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's way to ask")]
    fn is_shadow(&self) -> bool {
        *self == Mode::Shadow
    }
}

/// Looks what can be expected of a rebuild; `None` if that cannot be told in time.
pub type Ahead = Pin<Box<dyn Future<Output = Option<Outlook>> + Send>>;

/// What is asked for.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Asked {
    /// A new build.
    #[serde(rename_all = "camelCase")]
    Rebuild {
        /// When readers are switched.
        cutover: Cutover,
        /// How long the build that readers leave is kept.
        keep_hours: i64,
        /// Whether it is done although the log does not hold all that the old build has applied.
        accept_truncated: bool,
        /// Where the rows are made.
        #[serde(skip_serializing_if = "Mode::is_shadow")]
        mode: Mode,
        /// The version of the projection that it was begun for by itself.
        #[serde(skip_serializing_if = "Option::is_none")]
        for_version: Option<i32>,
    },
    /// Back to the build that readers left.
    #[serde(rename_all = "camelCase")]
    Rollback {
        /// How long the build that readers leave is kept.
        keep_hours: i64,
    },
    /// The rows of the build that readers read are compared with what they should be.
    Verify(Verify),
}

/// A verification as it is asked for, and kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Verify {
    /// So many keys, any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<u32>,
    /// One key. Neither: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The word for [`Basis`].
    pub from: String,
}

impl Verify {
    /// Asks for that.
    pub fn of(scope: &Scope, basis: Basis) -> Self {
        let (sample, key) = match scope {
            Scope::All => (None, None),
            Scope::Sample(count) => (Some(*count), None),
            Scope::Key(key) => (None, Some(key.clone())),
        };
        Verify { sample, key, from: basis.as_str().to_owned() }
    }

    /// Which keys, and by what it is told what they should be. An error: a later version has asked.
    pub fn wanted(&self) -> Result<(Scope, Basis), UnknownWord> {
        let scope = match (&self.key, self.sample) {
            (Some(key), _) => Scope::Key(key.clone()),
            (None, Some(count)) => Scope::Sample(count),
            (None, None) => Scope::All,
        };
        Ok((scope, self.from.parse()?))
    }
}

impl Asked {
    /// What is asked for, in a word.
    pub fn kind(&self) -> OperationKind {
        match self {
            Asked::Rebuild { .. } => OperationKind::Rebuild,
            Asked::Rollback { .. } => OperationKind::Rollback,
            Asked::Verify(_) => OperationKind::Verify,
        }
    }
}

/// What may be asked of an operation under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// Call it off.
    Cancel,
    /// Switch readers.
    Cutover,
}

/// Spells an operation as the answer that is kept for a call that is made again.
pub type SpellOperation = fn(&Operation) -> Spelled;

/// What a call gets.
#[derive(Debug, Clone)]
pub enum CalledOperation {
    /// What it has begun.
    Now(Box<Operation>),
    /// The answer of an earlier call with the same key, as it was spelled then.
    Before(Spelled),
}

impl Desk {
    /// Asks for an operation, unless another one of the view is under way. With an idempotency key, the same call a second
    /// time gets the answer of the first, spelled by `spell`. `ahead` tells before a rebuild is begun what speaks against it;
    /// without it, or where it cannot tell in time, the operation does.
    pub async fn begin_operation(
        &self,
        asked: &Asked,
        why: &Why,
        once: Option<(&str, SpellOperation)>,
        ahead: Option<Ahead>,
    ) -> Result<CalledOperation, DeskError> {
        self.check_mode(asked)?;
        let client = self.writers.open().await?;
        let fingerprint = serde_json::to_vec(&("operation", self.view, asked, why)).expect("requests are plain data");
        let fingerprint = Sha256::digest(fingerprint).to_vec();
        // If anything fails, the connection ends with this call, and with it the transaction.
        write::begin(&client).await?;
        if let Some((key, _)) = once
            && !write::claim(&client, key, &fingerprint).await?
            && let Some(answer) = replay(&client, key, &fingerprint).await?
        {
            return Ok(CalledOperation::Before(answer));
        }
        let operation = self.begin_inside(&client, asked, why, ahead).await?;
        if let Some((key, spell)) = once {
            write::answer(&client, key, &spell(&operation)).await?;
        }
        write::commit(&client).await?;
        let (view, id, kind, Why { reason, actor, on_behalf_of }) =
            (self.view, operation.id, operation.kind.as_str(), why);
        tracing::info!(view, operation = id, kind, actor, on_behalf_of, reason, "operation asked for");
        Ok(CalledOperation::Now(Box::new(operation)))
    }

    fn check_mode(&self, asked: &Asked) -> Result<(), Refusal> {
        let is_in_place = matches!(asked, Asked::Rebuild { mode: Mode::InPlace, .. });
        if !is_in_place || self.environment.allows_in_place() {
            return Ok(());
        }
        let detail = "`in_place` clears the view before it is made anew, and `environment` is \"production\" here";
        Err(Refusal::new(Obstacle::ModeNotAllowed, detail))
    }

    /// Begins a rebuild of the active build for a later version of the projection, once and for ever: an operator has to ask
    /// for another one. The operation, if it was begun now.
    pub async fn begin_for_version(&self, build: BuildId, version: i32, why: &Why) -> Result<Option<i64>, DeskError> {
        let client = self.writers.open().await?;
        let asked = Asked::Rebuild {
            cutover: Cutover::Auto,
            keep_hours: DEFAULT_KEEP_HOURS,
            accept_truncated: false,
            mode: Mode::Shadow,
            for_version: Some(version),
        };
        write::begin(&client).await?;
        // Other instances look at the same time.
        standstill::lock_builds(&client, self.view).await?;
        let is_over = operations::was_begun_for(&client, build, version).await?
            || operations::running(&client, self.view).await.map_err(ReadError::unreadable)?.is_some();
        if is_over {
            return Ok(None);
        }
        let operation = self.begin_inside(&client, &asked, why, None).await?;
        write::commit(&client).await?;
        let (view, id, actor, reason) = (self.view, operation.id, why.actor.as_str(), why.reason.as_str());
        tracing::info!(view, operation = id, actor, reason, "a rebuild begins by itself");
        Ok(Some(id))
    }

    async fn begin_inside(
        &self,
        client: &Connection,
        asked: &Asked,
        why: &Why,
        ahead: Option<Ahead>,
    ) -> Result<Operation, DeskError> {
        if asked.kind() != OperationKind::Verify
            && let Some(pause) = pauses::current(client, self.view).await?
        {
            let detail = format!("View {} is {pause}. Resume it first", self.view);
            return Err(Refusal::new(Obstacle::ViewPaused, detail).because(Seen::Pause(pause)).into());
        }
        if let (Asked::Rebuild { accept_truncated, mode, .. }, Some(ahead)) = (asked, ahead) {
            if operations::running(client, self.view).await.map_err(ReadError::unreadable)?.is_some() {
                return Err(self.running_already(client).await?.into());
            }
            ahead.await.map_or(Ok(()), |outlook| objection(outlook, *mode, *accept_truncated))?;
        }
        let builds = match asked {
            Asked::Rebuild { .. } => (None, None),
            Asked::Verify(_) => (progress::active_build(client, self.view).await?, None),
            Asked::Rollback { .. } => {
                // Nobody drops it between here and the commit, from which on it is seen to be wanted.
                standstill::lock_builds(client, self.view).await?;
                let row = client.query_opt(include_str!("sql/kept_build.sql"), &[&self.view]).await?;
                let (active, kept) = match row {
                    Some(row) => (Some(Build(row.try_get(0)?)), row.try_get::<_, Option<i32>>(1)?.map(Build)),
                    None => (None, None),
                };
                let detail = "No build is kept that readers could go back to; `GET /ops/views` shows which there are";
                let kept = kept.ok_or_else(|| Refusal::new(Obstacle::NothingKept, detail))?;
                (active, Some(kept))
            }
        };
        let new = NewOperation {
            kind: asked.kind(),
            view: self.view,
            request: serde_json::to_value(asked).expect("requests are plain data"),
            reason: &why.reason,
            actor: &why.actor,
            on_behalf_of: why.on_behalf_of.as_deref(),
            builds,
        };
        match operations::begin(client, &new).await? {
            Some(id) => find_one(client, id).await,
            None => Err(self.running_already(client).await?.into()),
        }
    }

    async fn running_already(&self, client: &Connection) -> Result<Refusal, DeskError> {
        let running = operations::running(client, self.view).await.map_err(ReadError::unreadable)?;
        let id = running.map_or(0, |running| running.id);
        let detail = format!("Operation {id} of view {} is under way; one at a time", self.view);
        Ok(Refusal::new(Obstacle::OperationRunning, detail).because(Seen::Operation(id)))
    }

    /// Asks something of an operation that is under way, in the name of who has logged in.
    pub async fn ask_operation(&self, id: i64, word: Word, by: Option<&str>) -> Result<Operation, DeskError> {
        let client = self.writers.open().await?;
        let operation = find_one(&client, id).await?;
        let over = |operation: &Operation| {
            let detail = format!("Operation {id} is {}", operation.state.as_str());
            Refusal::new(Obstacle::OperationOver, detail).because(Seen::Operation(id))
        };
        if operation.state != OperationState::Running {
            return Err(over(&operation).into());
        }
        let (text, may_be) = match word {
            Word::Cancel => ("cancel", operation.may_be_cancelled()),
            Word::Cutover => ("cutover", operation.phase == Phase::Ready),
        };
        if !may_be {
            let detail = format!("Operation {id} is in phase {}", operation.phase.as_str());
            return Err(Refusal::new(Obstacle::WrongPhase, detail).because(Seen::Operation(id)).into());
        }
        if !operations::ask(&client, id, text, by).await? {
            let operation = find_one(&client, id).await?;
            if operation.state != OperationState::Running {
                return Err(over(&operation).into());
            }
            let detail = format!("Operation {id} was called off, or has gone on, meanwhile");
            return Err(Refusal::new(Obstacle::WrongPhase, detail).because(Seen::Operation(id)).into());
        }
        tracing::info!(view = self.view, operation = id, asked = text, actor = by, "asked of an operation");
        find_one(&client, id).await
    }

    /// One operation, whichever view it is of.
    pub async fn operation(&self, id: i64) -> Result<Operation, DeskError> {
        let client = self.pool.get().await.map_err(ReadError::from)?;
        find_one(&client, id).await
    }

    /// Operations, the latest first.
    pub async fn operations(&self, filter: &OperationFilter, limit: u32) -> Result<Vec<Operation>, DeskError> {
        let client = self.pool.get().await.map_err(ReadError::from)?;
        Ok(operations::find(&client, filter, i64::from(limit) + 1).await.map_err(ReadError::unreadable)?)
    }
}

/// What speaks against a rebuild, if something does.
fn objection(outlook: Outlook, mode: Mode, accept_truncated: bool) -> Result<(), Refusal> {
    let may_begin = match mode {
        Mode::Shadow => outlook.may_begin(accept_truncated),
        Mode::InPlace => outlook.may_clear(accept_truncated),
    };
    let obstacle = match outlook {
        _ if may_begin => return Ok(()),
        Outlook::Whole | Outlook::Truncated { .. } => Obstacle::HistoryTruncated,
        Outlook::Compacted(_) => Obstacle::TopicCompacted,
        Outlook::Elsewhere(_) => Obstacle::SourceChanged,
        Outlook::AnotherLog(_) => Obstacle::LogIdentityChanged,
    };
    Err(Refusal::new(obstacle, outlook.detail()).because(Seen::Outlook(outlook)))
}

/// What an operation found, a page of it.
#[derive(Debug, Clone)]
pub struct Differences {
    /// One for each key, one more than was asked for if there are more.
    pub items: Vec<Difference>,
    /// How many keys differ; `None` until all is compared.
    pub total: Option<u64>,
    /// Of how many of them it is kept what differs.
    pub kept: i64,
}

impl Desk {
    /// What an operation found of the keys after `after`.
    pub async fn differences(&self, id: i64, after: &str, limit: u32) -> Result<Differences, DeskError> {
        let client = self.pool.get().await.map_err(ReadError::from)?;
        let operation = find_one(&client, id).await?;
        let comparison: Option<Comparison> = operation.comparison.and_then(|found| serde_json::from_value(found).ok());
        let items = operations::differences(&client, id, after, i64::from(limit) + 1).await;
        let items = items.map_err(ReadError::unreadable)?;
        let total = comparison.map(|found| found.compared - found.equal);
        Ok(Differences { items, total, kept: operations::kept_differences(&client, id).await? })
    }
}

async fn find_one(client: &Connection, id: i64) -> Result<Operation, DeskError> {
    let filter = OperationFilter { id: Some(id), ..OperationFilter::default() };
    let found = operations::find(client, &filter, 1).await.map_err(ReadError::unreadable)?.pop();
    let missing = || Refusal::new(Obstacle::NoSuchOperation, format!("There is no operation {id}"));
    Ok(found.ok_or_else(missing)?)
}
