//! A definition with all that is stored of it: what is wanted, and how far its engine has been brought. No I/O, no clock.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::definition::{Definition, DefinitionId, Intent};
use crate::engines::{Changes, EngineKind, Handle, ObservedState, RestorePoint, StopMode};
use crate::names::Names;

/// Everything that is stored of a definition, but its older texts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    pub id: DefinitionId,
    pub name: String,
    /// The name that it was given at first: what its names in engines are made of.
    pub first_name: String,
    pub engine: EngineKind,
    pub version: i32,
    pub revision: i32,
    pub sql_script: String,
    pub owner: String,
    pub intent: Intent,
    /// How far our calls have brought it.
    pub position: Position,
    /// The number of the last deployment.
    pub attempt: i32,
    pub deployed_revision: Option<i32>,
    pub previous_revision: Option<i32>,
    pub failed_revision: Option<i32>,
    /// The revision that begins with an empty state: somebody has accepted that.
    pub fresh_revision: Option<i32>,
    /// What the deployed text gives.
    pub changes: Option<Changes>,
    pub job_id: Option<String>,
    pub restore: Option<Restore>,
    /// Where what is deployed keeps its state by its engine's own account when it was deployed: known before anything was
    /// noted, and of the deployed revision, be it on trial.
    pub keeps_at: Option<RestorePoint>,
    /// The cluster that it was deployed on last, written with the call: what another one says does not count.
    pub cluster: Option<String>,
    /// Savepoints that our stops have made and nobody has disposed of.
    pub savepoints: Vec<RestorePoint>,
    /// The call that is under way, or whose outcome is not known.
    pub call: Option<Call>,
    /// When that call was made last.
    pub called_at: Option<Timestamp>,
    /// How often that call was made.
    pub tries: u32,
    /// The next stop throws the state away.
    pub discard_state: bool,
    /// Its deletion takes the topic, too.
    pub delete_topic: bool,
    /// How often in a row it was begun again because it had failed.
    pub restarts: u32,
    /// How many calls in a row have come to nothing.
    pub failures: u32,
    pub retry_at: Option<Timestamp>,
    pub deployed_at: Option<Timestamp>,
    /// How often what others did by hand was undone, and since when that is counted.
    pub heals: u32,
    pub heals_since: Option<Timestamp>,
    /// As what the engine calls the text that we have deployed: `<attempt>:<hash>`. Where it is not known which that is:
    /// see [`super::doubt`].
    pub running_as: Option<String>,
    pub observed: ObservedState,
    pub engine_state: Option<String>,
    pub observed_at: Option<Timestamp>,
    pub drift: Option<String>,
    pub last_error: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Raised by every write, whoever's: who writes what it has read before is told when that is old.
    pub change: i64,
}

/// How far our calls have brought a definition in its engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Position {
    /// It never was there.
    Nothing,
    /// It was deployed.
    Deployed,
    /// It was paused: the engine keeps its state.
    Paused,
    /// It was stopped.
    Stopped,
    /// What it left in the engine was removed.
    Removed,
}

#[cfg(test)]
impl Position {
    pub const ALL: [Position; 5] =
        [Position::Nothing, Position::Deployed, Position::Paused, Position::Stopped, Position::Removed];
}

/// A state that can be restored, and the text that it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Restore {
    pub point: RestorePoint,
    /// Older ones of the same text, the latest first: the engine deletes its checkpoints when it likes.
    pub others: Vec<RestorePoint>,
    pub revision: i32,
    /// That of the text before, which is gone back to if this one, on trial, does not come to run.
    pub before: Option<Box<Restore>>,
}

impl Restore {
    pub fn at(point: RestorePoint, revision: i32) -> Restore {
        Restore { point, others: Vec::new(), revision, before: None }
    }
}

/// A call of an engine that changes something. Stored before it is made, and made again as it is stored until its outcome is
/// known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub(crate) enum Call {
    Deploy { revision: i32, attempt: i32, replaces: bool, restore: Option<RestorePoint> },
    Stop { keep_state: bool },
    Resume,
    Remove,
}

impl Call {
    pub const fn word(&self) -> &'static str {
        match self {
            Call::Deploy { .. } => "deploy",
            Call::Stop { .. } => "stop",
            Call::Resume => "resume",
            Call::Remove => "remove",
        }
    }
}

pub(crate) const fn stop_mode(keep_state: bool) -> StopMode {
    if keep_state { StopMode::KeepState } else { StopMode::Final }
}

impl Record {
    pub fn names(&self) -> Names {
        Names::of(&self.id, &self.first_name)
    }

    /// Its topic, and those that its engine may have made beside it.
    pub fn topics(&self) -> Vec<String> {
        let names = self.names();
        match self.engine {
            EngineKind::Embedded => [names.topic()].into_iter().chain(names.beside()).collect(),
            EngineKind::Flink | EngineKind::Ksqldb => vec![names.topic()],
        }
    }

    /// What its engine calls it.
    pub fn handle(&self) -> Handle {
        let names = self.names();
        Handle {
            job_id: self.job_id.clone().unwrap_or_default(),
            stream_name: names.sink(),
            output_topic: names.topic(),
            changes: self.changes.unwrap_or(Changes::Append),
            keeps_at: self.keeps_at.clone(),
        }
    }

    /// The revision that is to run if it is wanted to run: the latest, or the one before if that could not be brought to run.
    /// `None` if there is none that could: what somebody had stopped is not begun because another text is refused.
    pub fn target(&self) -> Option<i32> {
        if self.failed_revision != Some(self.revision) {
            return Some(self.revision);
        }
        let is_there = matches!(self.position, Position::Deployed | Position::Paused);
        let before = self.previous_revision.or(self.deployed_revision.filter(|_| is_there));
        before.filter(|revision| *revision != self.revision)
    }

    /// Whether it is counted as deployed: it is wanted so, and has not failed for good, or something of it may run.
    /// `store/sql/count_deployed.sql` says the same.
    pub fn has_place(&self) -> bool {
        let is_down = matches!(self.observed, ObservedState::Absent | ObservedState::Stopped | ObservedState::Failed);
        let has_failed = self.failed_revision == Some(self.revision) && self.previous_revision.is_none() && is_down;
        let is_wanted = matches!(self.intent, Intent::Running | Intent::Paused) && !has_failed;
        let runs = matches!(self.position, Position::Deployed | Position::Paused) && !is_down;
        is_wanted || runs || matches!(self.call, Some(Call::Deploy { .. }))
    }

    /// The state that a deployment of that revision begins with.
    pub fn restore_for(&self, revision: i32) -> Option<RestorePoint> {
        let may_follow = |kept: i32| {
            let is_led_on = revision == self.revision && self.fresh_revision != Some(revision);
            kept == revision || is_led_on
        };
        let deployed = self.keeps_at.as_ref().zip(self.deployed_revision);
        let noted = self.restore.iter().flat_map(|restore| std::iter::once(restore).chain(restore.before.as_deref()));
        let points = deployed.into_iter().chain(noted.map(|restore| (&restore.point, restore.revision)));
        points.filter(|(_, kept)| may_follow(*kept)).map(|(point, _)| point.clone()).next()
    }
}

impl From<Record> for Definition {
    fn from(record: Record) -> Definition {
        let names = record.names();
        Definition {
            is_active: is_active(record.observed),
            stream_name: names.sink(),
            output_topic: names.topic(),
            restore_point: record.keeps_at.or(record.restore.map(|restore| restore.point)),
            step: record.call.as_ref().map(|call| call.word().to_owned()),
            id: record.id,
            name: record.name,
            engine: record.engine,
            version: record.version,
            revision: record.revision,
            sql_script: record.sql_script,
            owner: record.owner,
            intent: record.intent,
            observed: record.observed,
            engine_state: record.engine_state,
            observed_at: record.observed_at,
            attempt: record.attempt,
            deployed_revision: record.deployed_revision,
            previous_revision: record.previous_revision,
            failed_revision: record.failed_revision,
            job_id: record.job_id,
            drift: record.drift,
            last_error: record.last_error,
            retry_at: record.retry_at,
            created_at: record.created_at,
            updated_at: record.updated_at,
        }
    }
}

/// Whether something in that state runs, or is about to. The column `is_active` says the same.
pub(crate) const fn is_active(state: ObservedState) -> bool {
    matches!(
        state,
        ObservedState::Starting | ObservedState::Running | ObservedState::Degraded | ObservedState::Restarting
    )
}
