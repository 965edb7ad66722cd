//! A stream definition: what somebody wants to run, and what is known of it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engines::{EngineKind, Handle, ObservedState, RestorePoint};

/// 128 bits, made by us, that never change: every name in the engine is made from it.
pub type DefinitionId = String;

/// What is wanted of a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intent {
    /// Written down, never deployed.
    Draft,
    /// It shall run.
    Running,
    /// It shall keep its state and do nothing.
    Paused,
    /// It shall not run; its topic stays.
    Stopped,
    /// It shall be gone, with all that it left in the engine.
    Deleted,
}

/// A definition as it is stored, with what was seen of it last.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// Its id: 32 hex digits.
    pub id: DefinitionId,
    /// What people call it; at most 128 characters.
    pub name: String,
    /// Which engine runs it.
    pub engine: EngineKind,
    /// The number of the text that counts, from 1.
    pub revision: i32,
    /// The user's text of that revision: one SELECT.
    pub sql_script: String,
    /// Who made it.
    pub owner: String,
    /// What is wanted.
    pub intent: Intent,
    /// What was seen last.
    pub observed: ObservedState,
    /// When it was seen.
    pub observed_at: Option<Timestamp>,
    /// How often this revision was deployed.
    pub attempt: i32,
    /// The revision that runs, or ran last; differs from `revision` between a change and its deployment.
    pub deployed_revision: Option<i32>,
    /// What the engine calls what runs; written before the call where we choose it.
    pub handle: Option<Handle>,
    /// Where its state was kept last.
    pub restore_point: Option<RestorePoint>,
    /// The step under way, if a call of the engine may be without its outcome.
    pub step: Option<String>,
    /// The first cause of the last failure.
    pub last_error: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When anything of it changed last.
    pub updated_at: Timestamp,
}
