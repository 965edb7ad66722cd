//! What the comparison of a rebuild needs of who drives it: to wait for both builds, to keep what was found, and to judge keys
//! that never stand still.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::future::join;
use tokio::sync::oneshot;

use super::{FoundBuild, Household};
use crate::builds::compare::{self, Hooks};
use crate::builds::moving::Moving;
use crate::builds::switch::{self, behind, stands};
use crate::domain::build::BuildId;
use crate::domain::comparison::Difference;
use crate::domain::history::History;
use crate::engine::view::BuildScripts;
use crate::store::Connection;
use crate::store::sqlstate::describe_chain;

/// How long it is waited for both builds to be equally far.
const CAUGHT_UP: Duration = Duration::from_secs(30);
/// Between two looks.
const AGAIN: Duration = Duration::from_millis(200);
/// So often it is tried to have the old build stand still for keys that move.
const HOLDS: u32 = 10;

/// The comparison of an operation.
pub(super) struct Findings {
    pub household: Household,
    /// The new build.
    pub found: FoundBuild,
    /// What both keep of events.
    pub history: History,
    pub writer: Connection,
    pub operation: i64,
    /// The old one and the new one.
    pub builds: (BuildId, BuildId),
    /// Their tables.
    pub scripts: BuildScripts,
    /// How many keys are done.
    pub keys: Arc<AtomicU64>,
    /// Whether no more differences are kept.
    pub is_full: bool,
}

impl Findings {
    /// Whether the old build stands still now, and the new one is as far.
    async fn hold(&self) -> Result<bool> {
        for _ in 0..HOLDS {
            if switch::hold(&self.writer, self.builds, &self.scripts).await? {
                return Ok(true);
            }
            tokio::time::sleep(AGAIN).await;
        }
        Ok(false)
    }
}

impl Hooks for Findings {
    fn progress(&mut self, keys: u64) {
        self.keys.store(keys, Ordering::Relaxed);
    }

    async fn caught_up(&mut self) -> Result<()> {
        let (old, new) = self.builds;
        let (of_old, of_new) = (stands(&self.writer, old).await?, stands(&self.writer, new).await?);
        // One of them may stand still: then what moves no more is told.
        let deadline = Instant::now() + CAUGHT_UP;
        while Instant::now() < deadline {
            let missing =
                behind(&stands(&self.writer, new).await?, &of_old) + behind(&stands(&self.writer, old).await?, &of_new);
            if missing == 0 {
                break;
            }
            tokio::time::sleep(AGAIN).await;
        }
        Ok(())
    }

    async fn found(&mut self, differences: &[Difference]) -> Result<()> {
        if !self.is_full {
            self.is_full = compare::keep(&self.writer, self.operation, differences).await? == 0;
        }
        Ok(())
    }

    async fn judge_moving(&mut self, keys: &[&str]) -> Result<Vec<Option<Difference>>> {
        let (old, new) = self.builds;
        let moving = Moving {
            old,
            new,
            first_sequence: self.found.meaning.rules.first_sequence,
            history: self.history,
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        };
        let is_held = self.hold().await?;
        let (opened, is_open) = oneshot::channel();
        let parts = self.household.parts(self.found.clone());
        let judging = self.household.served.0.judge_moving(parts, moving, opened);
        let letting_go = async {
            // An error: there is no snapshot, and no need to wait for one.
            is_open.await.ok();
            if is_held { switch::let_go(&self.writer).await } else { Ok(()) }
        };
        let (judged, let_go) = join(judging, letting_go).await;
        let_go?;
        Ok(judged.unwrap_or_else(|error| {
            // A right that is missing, say. They differ by how far they are then, and somebody has to look.
            let error = describe_chain(error.chain());
            tracing::warn!(view = new.view, error, "keys that are written all the time cannot be compared");
            keys.iter().map(|_| None).collect()
        }))
    }
}
