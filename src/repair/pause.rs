//! Pauses a view and has it go on. A pause is a row and fences in one transaction: whatever was committed before it stays,
//! and when the call is answered nothing is applied any more, in no process and to no build, until somebody resumes. Who
//! takes a partition over looks for that row afterwards (`projector/takeover.rs`), so nobody can slip through in between.

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::decide::replay;
use super::model::Spelled;
use super::request::Why;
use super::rows::write;
use super::{Desk, DeskError};
use crate::domain::pause::ViewPause;
use crate::store::{Connection, DbError, pauses, standstill};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standstill {
    /// Nothing is applied from now on.
    Pause,
    /// It goes on.
    Resume,
}

impl Standstill {
    /// The word in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Standstill::Pause => "pause",
            Standstill::Resume => "resume",
        }
    }
}

/// Spells what is, as the answer that is kept for a call that is made again.
pub type SpellPause = fn(&'static str, Option<&ViewPause>) -> Spelled;

/// What a call gets.
#[derive(Debug, Clone)]
pub enum CalledPause {
    /// What is now: the pause, if the view is paused.
    Now(Option<ViewPause>),
    /// The answer of an earlier call with the same key, as it was spelled then.
    Before(Spelled),
}

impl Desk {
    /// Pauses or resumes the view; where it is so already, nothing changes. With an idempotency key, the same call a second
    /// time gets the answer of the first.
    pub async fn stand_still(
        &self,
        asked: Standstill,
        why: &Why,
        once: Option<(&str, SpellPause)>,
    ) -> Result<CalledPause, DeskError> {
        let client = self.writers.open().await?;
        let fingerprint = serde_json::to_vec(&("standstill", self.view, asked, why)).expect("requests are plain data");
        let fingerprint = Sha256::digest(fingerprint).to_vec();
        // If anything fails, the connection ends with this call, and with it the transaction.
        write::begin(&client).await?;
        if let Some((key, _)) = once
            && !write::claim(&client, key, &fingerprint).await?
            && let Some(answer) = replay(&client, key, &fingerprint).await?
        {
            return Ok(CalledPause::Before(answer));
        }
        let has_changed = match asked {
            Standstill::Pause => pause(&client, self.view, why).await?,
            Standstill::Resume => resume(&client, self.view, why).await?,
        };
        let now = pauses::current(&client, self.view).await?;
        if let Some((key, spell)) = once {
            write::answer(&client, key, &spell(self.view, now.as_ref())).await?;
        }
        write::commit(&client).await?;
        if has_changed {
            let (view, asked, Why { reason, actor, on_behalf_of }) = (self.view, asked.as_str(), why);
            tracing::info!(
                view,
                asked,
                actor,
                on_behalf_of,
                reason,
                "an operator has changed whether the view goes on"
            );
        }
        Ok(CalledPause::Now(now))
    }
}

/// Whether it was not paused before.
async fn pause(client: &Connection, view: &str, why: &Why) -> Result<bool, DbError> {
    // Takeovers hold this lock for a moment each: those before it are fenced, those after it see the row.
    standstill::lock_builds(client, view).await?;
    if client.execute(include_str!("sql/begin_pause.sql"), &[&view, &why.reason, &why.actor, &why.on_behalf_of]).await?
        == 0
    {
        return Ok(false);
    }
    standstill::lock(client, view).await?;
    client.execute(include_str!("sql/fence_view.sql"), &[&view]).await?;
    Ok(true)
}

/// Whether it was paused.
async fn resume(client: &Connection, view: &str, why: &Why) -> Result<bool, DbError> {
    Ok(client.execute(include_str!("sql/end_pause.sql"), &[&view, &why.reason, &why.actor, &why.on_behalf_of]).await?
        == 1)
}
