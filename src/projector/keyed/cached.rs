//! Entries of hot keys over Postgres, bounded in bytes. Least recently used keys go first.

use std::collections::HashMap;

use futures_util::future::join3;
use lru::LruCache;

use crate::domain::history::History;
use crate::domain::units::Partition;
use crate::engine::event_ids::EventIds;
use crate::engine::plan::{KeyEntry, Work};
use crate::failure::Failure;
use crate::projector::applier::Partitions;
use crate::projector::keyed::keys::{Entries, Keys};
use crate::projector::keyed::loading::Loading;
use crate::store::control::DecisionsByKey;
use crate::store::rows::{Rows, Stored};
use crate::store::sqlstate::classify;

/// Bytes that an entry costs beside what it points to: map slot, list links, and what the allocator adds to eight pieces.
const OVERHEAD: usize = 224;

/// At rest this part of the limit is kept, the keys of last.
const KEPT_AT_REST: usize = 4;

struct Kept<S> {
    entry: Box<KeyEntry<S>>,
    partition: Partition,
    generation: u64,
    bytes: usize,
}

/// Entries of keys as last committed by this lane. An entry counts only as long as the partition that it came from
/// is owned under the same assignment.
pub struct Cached<S> {
    entries: LruCache<Box<str>, Kept<S>>,
    bytes: usize,
    limit: usize,
}

impl<S> Cached<S> {
    /// An empty cache of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Cached { entries: LruCache::unbounded(), bytes: 0, limit }
    }

    /// Takes the entry out; a batch that fails simply does not put it back.
    fn take_entry(&mut self, key: &str, owned: &Partitions) -> Option<Box<KeyEntry<S>>> {
        let cached = self.entries.pop(key)?;
        self.bytes -= cached.bytes;
        let current = owned.get(&cached.partition).is_some_and(|owned| owned.generation == cached.generation);
        current.then_some(cached.entry)
    }

    /// Puts an entry in, as of a commit.
    fn put_entry(&mut self, key: &str, entry: Box<KeyEntry<S>>, state_bytes: usize, place: (Partition, u64)) {
        let bytes = bytes_of(key, &entry, state_bytes);
        self.bytes += bytes;
        let (partition, generation) = place;
        if let Some((_, replaced)) = self.entries.push(key.into(), Kept { entry, partition, generation, bytes }) {
            self.bytes -= replaced.bytes;
        }
        self.shrink(self.limit);
    }

    /// Drops the oldest but for a quarter of the limit.
    fn rest(&mut self) {
        self.shrink(self.limit / KEPT_AT_REST);
        // The map keeps the room that it had at its largest.
        let mut kept = LruCache::unbounded();
        while let Some((key, entry)) = self.entries.pop_lru() {
            kept.push(key, entry);
        }
        self.entries = kept;
    }

    /// Drops the oldest until no more than `limit` bytes are left.
    fn shrink(&mut self, limit: usize) {
        while self.bytes > limit
            && let Some((_, oldest)) = self.entries.pop_lru()
        {
            self.bytes -= oldest.bytes;
        }
    }
}

/// What an entry holds, roughly; `state_bytes` is what its state points to.
pub(super) fn bytes_of<S>(key: &str, entry: &KeyEntry<S>, state_bytes: usize) -> usize {
    OVERHEAD
        + size_of::<Kept<S>>()
        + size_of::<KeyEntry<S>>()
        + key.len()
        + entry.last_event_id.as_deref().map_or(0, str::len)
        + entry.event_ids.bytes()
        + state_bytes
}

impl<V: Stored> Keys<V> for Cached<V::State> {
    const WRITES_WITH_EACH_BATCH: bool = true;
    const KEEPS_UNWRITTEN: bool = false;
    const RELOADS: bool = true;

    fn take(&mut self, key: &str, owned: &Partitions, to_heal: bool) -> Option<Box<KeyEntry<V::State>>> {
        let entry = self.take_entry(key, owned);
        // A key to heal is one that somebody else may have moved: it is loaded afresh.
        entry.filter(|_| !to_heal)
    }

    /// Keys that are not stored get an empty entry.
    async fn load<'a>(
        &self,
        loading: &Loading<'_, V>,
        missing: &[&'a str],
        entries: &mut Entries<'a, V::State>,
    ) -> Result<DecisionsByKey, Failure> {
        if missing.is_empty() {
            return Ok(DecisionsByKey::new());
        }
        let fail = |error| classify(error, None);
        let (session, context) = (loading.session, loading.context);
        let (stored, held, decided) = join3(
            session.rows.load(session.client(), missing),
            session.control.load_held(session.client(), &context.source, missing),
            session.decisions_of(context, missing),
        )
        .await;
        let mut stored: HashMap<String, _> =
            stored.map_err(fail)?.into_iter().map(|loaded| (loaded.key.clone(), loaded)).collect();
        let mut held = held.map_err(fail)?;
        for key in missing {
            let mut entry = loading.new_entry();
            if let Some(loaded) = stored.remove(*key) {
                entry.last_sequence = loaded.last_sequence;
                entry.last_event_id = Some(loaded.last_event_id.into());
                entry.event_ids = match (context.meaning.rules.history, &entry.last_event_id) {
                    (History::Off, Some(latest)) => EventIds::of(std::slice::from_ref(latest)),
                    _ => loaded.event_ids,
                };
                entry.state = loaded.state;
                entry.stored = true;
            }
            entry.held = held.remove(*key);
            entries.insert(key, Box::new(entry));
        }
        decided
    }

    fn put(&mut self, key: &str, work: Work<'_, V::State>, bytes: usize, place: (Partition, u64)) {
        // Keys with decisions ahead are loaded with them each time.
        if work.decisions.is_empty() {
            self.put_entry(key, work.into_entry(), bytes, place);
        }
    }

    fn rest(&mut self) {
        Cached::rest(self);
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn forget(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::units::{Epoch, NextOffset};
    use crate::projector::applier::Owned;

    fn owned(generation: u64) -> Partitions {
        let (owner_epoch, next_offset) = (Epoch(1), NextOffset(0));
        Partitions::from([(Partition(0), Owned { generation, owner_epoch, next_offset, decisions: 0, commits: 0 })])
    }

    #[test]
    fn stays_below_its_limit_and_drops_the_oldest() {
        let mut cache: Cached<()> = Cached::new(10_000);
        for n in 0..1000 {
            cache.put_entry(&n.to_string(), Box::default(), 0, (Partition(0), 1));
            assert!(cache.bytes <= 10_000);
        }
        assert!(cache.take_entry("0", &owned(1)).is_none());
        assert!(cache.take_entry("999", &owned(1)).is_some());
    }

    #[test]
    fn at_rest_the_keys_of_last_are_kept() {
        let mut cache: Cached<()> = Cached::new(100_000);
        for n in 0..1000 {
            cache.put_entry(&n.to_string(), Box::default(), 0, (Partition(0), 1));
        }
        let before = cache.entries.len();
        cache.rest();
        assert!((before / 5..=before / 4).contains(&cache.entries.len()), "{} of {before}", cache.entries.len());
        assert!(cache.bytes <= 25_000);
        // In their order: what comes next drops the oldest of them.
        let kept: Vec<&str> = cache.entries.iter().map(|(key, _)| &**key).collect();
        let expected: Vec<String> = (0..1000).rev().take(kept.len()).map(|n| n.to_string()).collect();
        assert_eq!(kept, expected);
    }

    #[test]
    fn an_entry_of_an_earlier_assignment_does_not_count() {
        let mut cache: Cached<()> = Cached::new(10_000);
        cache.put_entry("a", Box::default(), 0, (Partition(0), 1));
        assert!(cache.take_entry("a", &owned(2)).is_none());
        assert_eq!(cache.bytes, 0);
    }
}
