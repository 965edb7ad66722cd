//! Event ids as 128-bit fingerprints: all of one key, and the latest of many. Pure.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use foldhash::fast::RandomState;
use twox_hash::XxHash3_128;

/// An event id as 128 bits. Two different ids share them with a probability of about n² / 2¹²⁹.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(u128);

impl Fingerprint {
    /// The fingerprint of `event_id`; the same within one process only.
    pub fn of(event_id: &str) -> Self {
        static SEED: LazyLock<u64> = LazyLock::new(|| fastrand::u64(..));
        Fingerprint(XxHash3_128::oneshot_with_seed(*SEED, event_id.as_bytes()))
    }
}

/// Up to this many ids are searched one by one.
const SMALL: usize = 32;

/// A set of event ids.
#[derive(Debug)]
pub enum EventIds {
    /// Few ids.
    Few(Vec<Fingerprint>),
    /// Many ids.
    Many(HashSet<Fingerprint, RandomState>),
}

impl Default for EventIds {
    fn default() -> Self {
        EventIds::Few(Vec::new())
    }
}

impl EventIds {
    /// The set of `event_ids`.
    pub fn of(event_ids: &[impl AsRef<str>]) -> Self {
        let mut set = EventIds::Few(Vec::with_capacity(event_ids.len().min(SMALL)));
        for event_id in event_ids {
            set.insert(Fingerprint::of(event_id.as_ref()));
        }
        set
    }

    /// Whether `id` was inserted.
    pub fn contains(&self, id: Fingerprint) -> bool {
        match self {
            EventIds::Few(ids) => ids.contains(&id),
            EventIds::Many(ids) => ids.contains(&id),
        }
    }

    /// Adds `id`.
    pub fn insert(&mut self, id: Fingerprint) {
        match self {
            EventIds::Few(ids) if ids.len() < SMALL => ids.push(id),
            EventIds::Few(ids) => {
                let mut many: HashSet<Fingerprint, RandomState> = ids.drain(..).collect();
                many.insert(id);
                *self = EventIds::Many(many);
            }
            EventIds::Many(ids) => {
                ids.insert(id);
            }
        }
    }

    /// Bytes of heap, roughly.
    pub fn bytes(&self) -> usize {
        match self {
            EventIds::Few(ids) => ids.capacity() * size_of::<Fingerprint>(),
            EventIds::Many(ids) => ids.capacity() * (size_of::<Fingerprint>() + 1),
        }
    }
}

/// Whose latest event has which id, among the keys of one batch, as the fold goes on.
#[derive(Debug, Default)]
pub struct LatestIds<'a> {
    holders: HashMap<Fingerprint, &'a str, RandomState>,
}

impl<'a> LatestIds<'a> {
    /// The key whose latest event has this id.
    pub fn holder(&self, id: Fingerprint) -> Option<&'a str> {
        self.holders.get(&id).copied()
    }

    /// `key` moves on to `id`; the id that it had is free again.
    pub fn move_on(&mut self, key: &'a str, previous: Option<&str>, id: Fingerprint) {
        let previous = previous.map(Fingerprint::of);
        if let Some(previous) = previous.filter(|previous| self.holder(*previous) == Some(key)) {
            self.holders.remove(&previous);
        }
        self.holders.insert(id, key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_few_and_many() {
        let mut ids = EventIds::default();
        for n in 0..100 {
            let id = |n: i32| Fingerprint::of(&n.to_string());
            assert!(!ids.contains(id(n)));
            ids.insert(id(n));
            assert!(ids.contains(id(n)) && ids.contains(id(0)));
            assert_eq!(matches!(ids, EventIds::Few(_)), n < SMALL as i32, "{n}");
        }
    }

    /// The bound of the cache is one of bytes: what it counts has to grow with what is there.
    #[test]
    fn a_set_knows_roughly_how_large_it_is() {
        let set = |n: usize| EventIds::of(&(0..n).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!([set(0).bytes(), set(10).bytes(), set(32).bytes()], [0, 160, 512]);
        let many = set(1_000).bytes();
        assert!((17 * 1_000..=17 * 2_000).contains(&many) && many.is_multiple_of(17), "{many}: 17 bytes each");
    }

    #[test]
    fn an_id_has_one_holder_and_is_free_when_that_moves_on() {
        let id = Fingerprint::of;
        let mut latest = LatestIds::default();
        latest.move_on("a", None, id("x"));
        assert_eq!(latest.holder(id("x")), Some("a"));
        latest.move_on("a", Some("x"), id("y"));
        latest.move_on("b", None, id("x"));
        // Its previous id is somebody else's by now: that one keeps it.
        latest.move_on("a", Some("x"), id("z"));
        assert_eq!((latest.holder(id("x")), latest.holder(id("z"))), (Some("b"), Some("a")));
    }
}
