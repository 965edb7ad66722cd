//! The lane's half of a bulk load: every key stays in memory until all is read, then all rows are written at once.
//!
//! Nothing is believed twice here: whatever would make a lane forget what it knows ends the load, which begins anew.
//! [`super::load`] is the other half.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use crate::failure::{Failure, Halt};
use crate::projector::attempt::no_session;
use crate::projector::lane::{Lane, Owned};
use crate::store::progress::Advance;
use crate::views::{ChangedKey, View};

/// What the lanes of a load share with who runs it.
#[derive(Debug)]
pub struct Bulk {
    /// Cancelled when enough is read: each lane writes its keys and ends.
    pub finish: CancellationToken,
    /// Where each lane reports how many keys it wrote.
    pub written: UnboundedSender<u64>,
    /// Bytes of all keys in memory, roughly.
    pub bytes: AtomicUsize,
}

/// The halt of a load that cannot go on.
pub fn load_failed(detail: impl Into<String>) -> Halt {
    Halt {
        code: "load_failed",
        detail: detail.into(),
        next_step: "run `streamview load` again, which begins anew; or `streamview load --discard`, and let \
                    `streamview serve` apply the topic",
    }
}

impl<V: View> Lane<V> {
    /// Whether this is a bulk load.
    pub fn is_bulk(&self) -> bool {
        self.context.bulk.is_some()
    }

    /// Waits until all is read; for ever if this is no bulk load.
    pub async fn all_read(bulk: Option<&Bulk>) {
        match bulk {
            Some(bulk) => bulk.finish.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// A partition that comes back may have been somebody else's meanwhile.
    pub fn open_once(&mut self, partition: i32, owned: Owned) {
        if self.opened.insert(partition) {
            self.owned.insert(partition, owned);
        } else {
            self.halt(load_failed(format!("partition {partition} was taken from this process for a moment")));
        }
    }

    /// Tells how much memory the keys take.
    pub fn tell_bytes(&mut self) {
        if let Some(bulk) = &self.context.bulk {
            // Wraps around where it shrinks, which the sum does not.
            let now = self.cache.bytes();
            bulk.bytes.fetch_add(now.wrapping_sub(self.told_bytes), Ordering::Relaxed);
            self.told_bytes = now;
        }
    }

    /// Writes all keys, and tells how many.
    pub async fn write_keys(&mut self) {
        let written = self.try_write_keys().await;
        match (&self.context.bulk, written) {
            (_, Err(failure)) => self.halt(load_failed(format!("the rows could not be written: {failure:?}"))),
            (Some(bulk), Ok(keys)) if bulk.written.send(keys).is_err() => {
                tracing::debug!("nobody waits for the load any more");
            }
            _ => {}
        }
    }

    async fn try_write_keys(&mut self) -> Result<u64, Failure> {
        let entries = self.cache.entries();
        let mut changed: Vec<ChangedKey<'_, V::State>> = entries
            .filter(|(_, entry)| entry.stored)
            .map(|(key, entry)| ChangedKey {
                key,
                base_sequence: None,
                last_sequence: entry.last_sequence,
                last_event_id: entry.last_event_id.as_deref().unwrap_or_default(),
                state: &entry.state,
            })
            .collect();
        // Sorted rows make the indexes quick to build.
        changed.sort_unstable_by_key(|changed| changed.key);
        let keys = changed.len() as u64;
        let advances: Vec<Advance> = self.owned.iter().map(|(partition, owned)| owned.stand(*partition)).collect();
        if keys > 0 {
            let session = self.session.as_mut().ok_or_else(no_session)?;
            session.write_keys(&self.context, changed, &advances).await?;
        }
        Ok(keys)
    }
}
