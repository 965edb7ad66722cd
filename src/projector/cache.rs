//! The hot keys of a lane, bounded in bytes. Least recently used keys go first.

use std::collections::BTreeMap;

use lru::LruCache;

use crate::projector::lane::Owned;
use crate::projector::plan::KeyEntry;

/// Bytes that an entry costs beside what it points to: map slot, list links, and what the allocator adds to eight pieces.
const OVERHEAD: usize = 224;

struct Cached<S> {
    entry: Box<KeyEntry<S>>,
    partition: i32,
    generation: u64,
    bytes: usize,
}

/// Entries of keys as last committed by this lane. An entry counts only as long as the partition that it came from
/// is owned under the same assignment.
pub struct KeyCache<S> {
    entries: LruCache<Box<str>, Cached<S>>,
    bytes: usize,
    limit: usize,
    state_bytes: fn(&S) -> usize,
}

impl<S> KeyCache<S> {
    /// An empty cache of at most `limit` bytes.
    pub fn new(limit: usize, state_bytes: fn(&S) -> usize) -> Self {
        KeyCache { entries: LruCache::unbounded(), bytes: 0, limit, state_bytes }
    }

    /// Takes the entry out; a batch that fails simply does not put it back.
    pub fn take(&mut self, key: &str, owned: &BTreeMap<i32, Owned>) -> Option<Box<KeyEntry<S>>> {
        let cached = self.entries.pop(key)?;
        self.bytes -= cached.bytes;
        let current = owned.get(&cached.partition).is_some_and(|owned| owned.generation == cached.generation);
        current.then_some(cached.entry)
    }

    /// Puts an entry in, as of a commit.
    pub fn put(&mut self, key: &str, entry: Box<KeyEntry<S>>, partition: i32, generation: u64) {
        let bytes = OVERHEAD
            + size_of::<Cached<S>>()
            + size_of::<KeyEntry<S>>()
            + key.len()
            + entry.last_event_id.as_deref().map_or(0, str::len)
            + entry.event_ids.bytes()
            + (self.state_bytes)(&entry.state);
        self.bytes += bytes;
        if let Some((_, replaced)) = self.entries.push(key.into(), Cached { entry, partition, generation, bytes }) {
            self.bytes -= replaced.bytes;
        }
        while self.bytes > self.limit
            && let Some((_, oldest)) = self.entries.pop_lru()
        {
            self.bytes -= oldest.bytes;
        }
    }

    /// All entries, in no order.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &KeyEntry<S>)> {
        self.entries.iter().map(|(key, cached)| (&**key, &*cached.entry))
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }

    /// Estimated bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(generation: u64) -> BTreeMap<i32, Owned> {
        BTreeMap::from([(0, Owned { generation, owner_epoch: 1, next_offset: 0, decisions: 0, commits: 0 })])
    }

    #[test]
    fn stays_below_its_limit_and_drops_the_oldest() {
        let mut cache: KeyCache<()> = KeyCache::new(10_000, |()| 0);
        for n in 0..1000 {
            cache.put(&n.to_string(), Box::default(), 0, 1);
            assert!(cache.bytes() <= 10_000);
        }
        assert!(cache.take("0", &owned(1)).is_none());
        assert!(cache.take("999", &owned(1)).is_some());
    }

    #[test]
    fn an_entry_of_an_earlier_assignment_does_not_count() {
        let mut cache: KeyCache<()> = KeyCache::new(10_000, |()| 0);
        cache.put("a", Box::default(), 0, 1);
        assert!(cache.take("a", &owned(2)).is_none());
        assert_eq!(cache.bytes(), 0);
    }
}
