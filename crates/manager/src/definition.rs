//! A stream definition: what somebody wants to run, and what is known of it.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engines::{EngineKind, ObservedState, RestorePoint};

/// How long the shortest difference of two texts is looked for.
const DIFF_TIME: Duration = Duration::from_millis(200);

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

impl Intent {
    /// All of them.
    pub const ALL: [Intent; 5] = [Intent::Draft, Intent::Running, Intent::Paused, Intent::Stopped, Intent::Deleted];

    /// Its word in bodies and columns.
    pub const fn word(self) -> &'static str {
        match self {
            Intent::Draft => "draft",
            Intent::Running => "running",
            Intent::Paused => "paused",
            Intent::Stopped => "stopped",
            Intent::Deleted => "deleted",
        }
    }
}

/// A definition as it is stored, with what was seen of it last.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// Its id: 32 hex digits.
    pub id: DefinitionId,
    /// What people call it; at most 128 characters. No two have the same.
    pub name: String,
    /// Which engine runs it.
    pub engine: EngineKind,
    /// Counted up by each change of name, text or what is wanted, from 1: what an ETag is made of.
    pub version: i32,
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
    /// The engine's own words for that.
    pub engine_state: Option<String>,
    /// When it was seen.
    pub observed_at: Option<Timestamp>,
    /// How often it was deployed, whichever revision: no two deployments have the same number.
    pub attempt: i32,
    /// The revision that runs, or ran last; differs from `revision` between a change and its deployment.
    pub deployed_revision: Option<i32>,
    /// The revision that ran before the update that is under way: what a roll-back goes back to.
    pub previous_revision: Option<i32>,
    /// The revision that could not be brought to run: not tried again until somebody deploys it.
    pub failed_revision: Option<i32>,
    /// The engine's id of what runs, or ran last.
    pub job_id: Option<String>,
    /// The stream or table that it fills, or will fill.
    pub stream_name: String,
    /// Its topic.
    pub output_topic: String,
    /// Whether it is seen to run, or about to.
    pub is_active: bool,
    /// Where its state was kept last.
    pub restore_point: Option<RestorePoint>,
    /// The call of the engine that is under way, or may have been made without an outcome: `deploy`, `stop` …
    pub step: Option<String>,
    /// How the engine differs from what is wanted through no doing of ours, as a sentence.
    pub drift: Option<String>,
    /// The first cause of the last failure.
    pub last_error: Option<String>,
    /// When it is tried again, if it waits for that.
    pub retry_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When anything of it changed last.
    pub updated_at: Timestamp,
}

impl Definition {
    /// Whether everything is as it is wanted: no call is under way, and what is seen is what was asked for.
    pub fn is_settled(&self) -> bool {
        use ObservedState::{Absent, Degraded, Failed, Paused, Running, Stopped};
        let is_there = match self.intent {
            Intent::Running => matches!(self.observed, Running | Degraded),
            Intent::Paused => matches!(self.observed, Paused | Stopped | Absent),
            Intent::Draft | Intent::Stopped => matches!(self.observed, Stopped | Absent | Failed),
            Intent::Deleted => false,
        };
        is_there && self.step.is_none() && self.previous_revision.is_none()
    }
}

/// One text of a definition.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// Its number, from 1.
    pub revision: i32,
    /// The user's text.
    pub sql_script: String,
    /// Who wrote it.
    pub author: String,
    /// When.
    pub created_at: Timestamp,
}

impl Revision {
    /// How a text becomes another one, as a unified diff; empty if they are the same.
    pub fn diff(&self, other: &Revision) -> String {
        // Of long texts with nothing in common a coarser one is as good.
        let mut diff = similar::TextDiff::configure();
        let diff = diff.timeout(DIFF_TIME).diff_lines(&self.sql_script, &other.sql_script);
        let name = |revision: &Revision| format!("revision {}", revision.revision);
        diff.unified_diff().context_radius(3).header(&name(self), &name(other)).to_string()
    }
}

/// Something that happened to a definition.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Its number: later ones are greater.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// A stable word, `snake_case`: `created`, `deploy_wanted`, `deployed`, `stopped`, `rolled_back` …
    pub what: String,
    /// Who, if it was somebody; else the manager itself.
    pub actor: Option<String>,
    /// One sentence, if there is more to say.
    pub detail: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(revision: i32, sql: &str) -> Revision {
        let (author, created_at) = ("anna".to_owned(), Timestamp::UNIX_EPOCH);
        Revision { revision, sql_script: sql.to_owned(), author, created_at }
    }

    #[test]
    fn a_difference_is_told_line_by_line() {
        let one = revision(1, "SELECT ORDER_ID\nFROM orders\nWHERE AMOUNT > 5");
        let two = revision(2, "SELECT ORDER_ID\nFROM orders\nWHERE AMOUNT > 50");
        let told = "--- revision 1\n+++ revision 2\n@@ -1,3 +1,3 @@\n SELECT ORDER_ID\n FROM orders\n-WHERE AMOUNT > 5\n\\ No newline at end of file\n+WHERE AMOUNT > 50\n\\ No newline at end of file\n";
        assert_eq!(one.diff(&two), told);
        assert_eq!(one.diff(&one), "");
    }

    #[test]
    fn long_texts_with_nothing_in_common_are_told_in_time() {
        let text = |seed: usize| (0..100_000).map(|line| format!("{}\n", line * 7 % 1_000 + seed)).collect::<String>();
        let begin = std::time::Instant::now();
        assert!(!revision(1, &text(0)).diff(&revision(2, &text(500))).is_empty());
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    }
}
