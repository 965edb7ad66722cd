//! Entries of keys that stay in memory until all is read, and are written at once then: for filling an empty build.
//!
//! Nothing is believed twice here: whatever would make a lane forget what it knows ends the filling, which begins anew, or,
//! where that would end in the same way, leaves the topic to appliers that can load their keys again. `builds/load.rs` runs it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use foldhash::fast::RandomState;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use crate::domain::units::Partition;
use crate::engine::plan::{KeyEntry, Work};
use crate::engine::view::ChangedKey;
use crate::failure::{Failure, Halt};
use crate::projector::applier::Partitions;
use crate::projector::context::ViewContext;
use crate::projector::keyed::cached::bytes_of;
use crate::projector::keyed::keys::{Entries, Keys};
use crate::projector::keyed::loading::Loading;
use crate::projector::keyed::session::Session;
use crate::projector::lane::no_connection;
use crate::status::Pause;
use crate::store::control::DecisionsByKey;
use crate::store::progress::Advance;
use crate::store::rows::Stored;

/// What the lanes of a filling share with who runs it.
#[derive(Debug)]
pub struct Filling {
    /// Cancelled when enough is read: each lane writes its keys and ends.
    pub enough: CancellationToken,
    /// Where each lane reports how many keys it wrote.
    pub written: UnboundedSender<u64>,
    /// Bytes of all keys in memory, roughly.
    pub bytes: AtomicUsize,
}

struct Kept<S> {
    entry: Box<KeyEntry<S>>,
    bytes: usize,
}

/// All keys of one lane.
pub struct InMemory<S> {
    entries: HashMap<Box<str>, Kept<S>, RandomState>,
    bytes: usize,
    filling: Arc<Filling>,
    /// Partitions that this lane was ever given.
    opened: BTreeSet<Partition>,
}

impl<S> InMemory<S> {
    /// Nothing yet.
    pub fn new(filling: Arc<Filling>) -> Self {
        InMemory { entries: HashMap::default(), bytes: 0, filling, opened: BTreeSet::new() }
    }

    fn count(&mut self, bytes: usize) {
        // Wraps around where it shrinks, which the sum does not.
        self.filling.bytes.fetch_add(bytes.wrapping_sub(self.bytes), Ordering::Relaxed);
        self.bytes = bytes;
    }
}

/// The code of a halt of a filling that would come to the same end again, by what an applier gets past that can load its keys
/// again.
pub const ONLY_IN_ORDER: &str = "load_refused";

/// The halt of a filling that has to begin anew.
fn failed(detail: impl Into<String>) -> Halt {
    Halt {
        code: "load_failed",
        detail: detail.into(),
        next_step: "run `streamview load` again, which begins anew; or `streamview load --discard`, and let \
                    `streamview serve` apply the topic",
    }
}

/// The halt of a filling that would only come to the same end again.
fn refused(detail: impl Into<String>) -> Halt {
    Halt {
        code: ONLY_IN_ORDER,
        detail: detail.into(),
        next_step: "run `streamview load --discard`, then `streamview serve`: who applies the topic batch by batch gets \
                    past it",
    }
}

/// The halt of a filling after that failure.
fn ended_by(failure: &Failure) -> Halt {
    match failure {
        Failure::Record(detail) | Failure::ReusedEventId { detail, .. } | Failure::TooMuch(detail) => {
            refused(detail.as_str())
        }
        // A load that begins anew may be met by the next decision.
        Failure::Decided(_) => refused("something was decided about events meanwhile"),
        Failure::Halt(halt) => failed(format!("{}: {}", halt.code, halt.detail)),
        other => failed(format!("{other:?}")),
    }
}

/// The halt of a filling one of whose partitions would have to wait.
fn stopped_by(partition: Partition, pause: &Pause) -> Halt {
    let detail = format!("partition {partition}: {}", pause.detail);
    // Read from the beginning, partitions come at other paces than their events did. Elsewhere one waits for the others.
    if pause.code == Pause::PARK_BOUND { refused(detail) } else { failed(detail) }
}

impl<V: Stored> Keys<V> for InMemory<V::State> {
    const WRITES_WITH_EACH_BATCH: bool = false;
    const KEEPS_UNWRITTEN: bool = true;
    const RELOADS: bool = false;

    fn take(&mut self, key: &str, _: &Partitions, _: bool) -> Option<Box<KeyEntry<V::State>>> {
        let kept = self.entries.remove(key)?;
        self.count(self.bytes - kept.bytes);
        Some(kept.entry)
    }

    /// What is not in memory is nowhere.
    async fn load<'a>(
        &self,
        loading: &Loading<'_, V>,
        missing: &[&'a str],
        entries: &mut Entries<'a, V::State>,
    ) -> Result<DecisionsByKey, Failure> {
        entries.extend(missing.iter().map(|key| (*key, Box::new(loading.new_entry()))));
        let keys: Vec<&str> = entries.keys().copied().collect();
        loading.session.decisions_of(loading.context, &keys).await
    }

    fn put(&mut self, key: &str, work: Work<'_, V::State>, bytes: usize, _: (Partition, u64)) {
        let entry = work.into_entry();
        let bytes = bytes_of(key, &entry, bytes);
        let replaced = self.entries.insert(key.into(), Kept { entry, bytes });
        self.count(self.bytes + bytes - replaced.map_or(0, |kept| kept.bytes));
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn forget(&mut self) {
        self.entries.clear();
        self.count(0);
    }

    /// A partition that comes back may have been somebody else's meanwhile.
    fn opened(&mut self, partition: Partition) -> Result<(), Halt> {
        match self.opened.insert(partition) {
            true => Ok(()),
            false => Err(failed(format!("partition {partition} was taken from this process for a moment"))),
        }
    }

    /// Only what fails before the entries are taken out leaves them whole, and is told by these three names (`lost` in the
    /// module above sees to that).
    fn survives(&self, failure: &Failure) -> Result<(), Halt> {
        match failure {
            Failure::FirstOnly(_) | Failure::RegistryAway(_) | Failure::UnknownSchema { .. } => Ok(()),
            other => Err(ended_by(other)),
        }
    }

    fn may_let_go(&self, partition: Partition, pause: &Pause) -> Result<(), Halt> {
        Err(stopped_by(partition, pause))
    }

    fn enough(&self) -> CancellationToken {
        self.filling.enough.clone()
    }

    async fn finish(
        &mut self,
        session: Option<&Session<V>>,
        context: &ViewContext,
        owned: &Partitions,
    ) -> Result<(), Halt> {
        let entries = self.entries.iter().filter(|(_, kept)| kept.entry.stored);
        let mut changed: Vec<ChangedKey<'_, V::State>> = entries
            .map(|(key, kept)| ChangedKey {
                key,
                base_sequence: None,
                last_sequence: kept.entry.last_sequence,
                last_event_id: kept.entry.last_event_id.as_deref().expect("a stored key has consumed an event"),
                state: &kept.entry.state,
            })
            .collect();
        // Sorted rows make the indexes quick to build.
        changed.sort_unstable_by_key(|changed| changed.key);
        let keys = changed.len() as u64;
        let advances: Vec<Advance> = owned.iter().map(|(partition, owned)| owned.stand(*partition)).collect();
        if keys > 0 {
            let written = match session {
                Some(session) => session.write_keys(context, changed, &advances).await,
                None => Err(no_connection()),
            };
            written.map_err(|failure| {
                let halt = ended_by(&failure);
                Halt { detail: format!("the rows could not be written: {}", halt.detail), ..halt }
            })?;
        }
        if self.filling.written.send(keys).is_err() {
            tracing::debug!("nobody waits for the load any more");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::units::Offset;

    #[test]
    fn what_others_get_past_ends_a_filling_by_another_name_than_the_weather() {
        let said = || "said".to_owned();
        let reused = Failure::ReusedEventId { detail: said(), event_ids: Vec::new() };
        for failure in [Failure::Record(said()), reused, Failure::TooMuch(said()), Failure::Decided(Vec::new())] {
            assert_eq!(ended_by(&failure).code, ONLY_IN_ORDER, "{failure:?}");
        }
        let denied = Failure::halt("permission_denied", "said", "mend it");
        for failure in [Failure::Retry(said()), Failure::Stale, Failure::Fenced(Vec::new()), denied] {
            assert_eq!(ended_by(&failure).code, "load_failed", "{failure:?}");
        }
        let (full, fenced) = (Pause::park_bound("no room", Offset(7)), Pause::not_owner());
        let codes = [full, fenced].map(|pause| stopped_by(Partition(0), &pause).code);
        assert_eq!(codes, [ONLY_IN_ORDER, "load_failed"]);
    }
}
