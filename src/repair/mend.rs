//! Mends one key of a view where its rows are not what they should be, in every build that this binary can fold. In one
//! transaction, at a standstill of the view, as decisions are made; how a key is folded again is `builds/mend.rs`.

use std::time::Duration;

use sha2::{Digest, Sha256};

use super::decide::replay;
use super::model::Spelled;
use super::request::Why;
use super::rows::write;
use super::{Desk, DeskError, Obstacle, Refusal, Seen};
use crate::builds::from_log::Share;
use crate::builds::mend::{MendError, Mended};
use crate::crash;
use crate::domain::comparison::Difference;
use crate::domain::verification::Basis;
use crate::store::meaning;
use crate::store::read::ReadError;
use crate::store::standstill::Standstill;

/// The longest that one call may take, reading a whole log included.
const DEADLINE: Duration = Duration::from_secs(300);

/// Which key is mended, and by what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mend {
    /// The key.
    pub key: String,
    /// [`Basis::Ledger`] or [`Basis::Log`].
    pub basis: Basis,
}

/// What was done.
#[derive(Debug, Clone, PartialEq)]
pub struct MendedKey {
    /// The view.
    pub view: &'static str,
    /// The key.
    pub key: String,
    /// By what.
    pub basis: Basis,
    /// Build by build, those that have the key.
    pub builds: Vec<MendedBuild>,
}

/// What was done in one build.
#[derive(Debug, Clone, PartialEq)]
pub struct MendedBuild {
    /// Its number.
    pub build: i32,
    /// Whether readers read it.
    pub is_active: bool,
    /// The last number that the key has consumed there, and what was changed; or why nothing could be, as a stable name and
    /// in words.
    pub done: Result<(i64, Difference), (&'static str, String)>,
}

/// Spells what was done as the answer, which is kept for a call that is made again.
pub type SpellMend = fn(&MendedKey) -> Spelled;

impl Desk {
    /// Mends a key, and gives the answer, and whether it is that of an earlier call with the same idempotency key. It is an
    /// obstacle if the key cannot be mended in the build that readers read; what cannot be done in others is told.
    pub async fn mend(
        &self,
        asked: &Mend,
        why: &Why,
        once: Option<&str>,
        spell: SpellMend,
    ) -> Result<(Spelled, bool), DeskError> {
        let late = Err(DeskError::Database(ReadError::Unavailable(None)));
        let longest = DEADLINE.max(self.writers.longest());
        tokio::time::timeout(longest, self.mend_in_time(asked, why, once, spell)).await.unwrap_or(late)
    }

    async fn mend_in_time(
        &self,
        asked: &Mend,
        why: &Why,
        once: Option<&str>,
        spell: SpellMend,
    ) -> Result<(Spelled, bool), DeskError> {
        let fingerprint = fingerprint(self.view, asked, why);
        let client = self.writers.open().await?;
        if let Some(key) = once
            && let Some(answer) = replay(&client, key, &fingerprint).await?
        {
            return Ok((answer, true));
        }
        // Takes as long as it takes, and nobody waits for it.
        let mut log = match asked.basis.asks_log() {
            true => Some(self.mender.read(&asked.key).await.map_err(desk_error)?),
            false => None,
        };
        write::begin(&client).await?;
        // If anything fails, the connection ends with this call, and with it the transaction.
        if let Some(key) = once
            && !write::claim(&client, key, &fingerprint).await?
            && let Some(answer) = replay(&client, key, &fingerprint).await?
        {
            return Ok((answer, true));
        }
        let at = Standstill::begin(&client, self.view).await?;
        let mended = self.mend_all(&at, asked, log.as_mut()).await?;
        crash::point("mend.written");
        let answer = spell(&mended);
        if let Some(key) = once {
            write::answer(&client, key, &answer).await?;
        }
        write::commit(&client).await?;
        let (view, from, Why { reason, actor, on_behalf_of }) = (self.view, asked.basis.as_str(), why);
        let builds = mended.builds.iter().filter(|build| build.done.is_ok()).count();
        tracing::warn!(
            view,
            orderId = asked.key,
            from,
            builds,
            actor,
            on_behalf_of,
            reason,
            "rows of a key were mended"
        );
        Ok((answer, false))
    }

    async fn mend_all(
        &self,
        at: &Standstill<'_>,
        asked: &Mend,
        mut log: Option<&mut Share>,
    ) -> Result<MendedKey, DeskError> {
        let mut builds = Vec::new();
        for build in meaning::of_view(at.client(), self.view).await?.into_iter().filter(|build| !build.is_loading) {
            let mended = self.mender.mend(at, &build, &asked.key, log.as_deref_mut()).await.map_err(desk_error)?;
            let done = match mended {
                Mended::Nothing if build.is_active => {
                    let detail = format!("There is nothing of `{}` in this view", asked.key);
                    return Err(Refusal::new(Obstacle::NoSuchKey, detail).into());
                }
                Mended::Nothing => continue,
                Mended::Impossible { reason, detail } if build.is_active => {
                    let from = asked.basis.as_str();
                    let detail = format!("`{}` cannot be mended from the {from}: {detail}", asked.key);
                    return Err(Refusal::new(Obstacle::NotMendable, detail).because(Seen::Reason(reason)).into());
                }
                Mended::Impossible { reason, detail } => Err((reason, detail)),
                Mended::Rows { last_sequence, difference } => Ok((last_sequence.0, difference)),
            };
            builds.push(MendedBuild { build: build.build.0, is_active: build.is_active, done });
        }
        Ok(MendedKey { view: self.view, key: asked.key.clone(), basis: asked.basis, builds })
    }
}

fn fingerprint(view: &str, asked: &Mend, why: &Why) -> Vec<u8> {
    let request = ("mend", view, &asked.key, asked.basis.as_str(), why);
    Sha256::digest(serde_json::to_vec(&request).expect("requests are plain data")).to_vec()
}

fn desk_error(error: MendError) -> DeskError {
    match error {
        MendError::Database(error) => error.into(),
        MendError::Log(fault) => {
            let detail = format!("{}; {}", fault.detail, fault.next_step);
            Refusal::new(Obstacle::LogAway, detail).because(Seen::Reason(fault.code)).into()
        }
        MendError::Settings(detail) => {
            Refusal::new(Obstacle::NotMendable, detail).because(Seen::Reason("settings_unusable")).into()
        }
    }
}
