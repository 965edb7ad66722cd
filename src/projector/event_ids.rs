//! The event ids of one key, as 128-bit fingerprints. Pure.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Up to this many ids are searched one by one.
const SMALL: usize = 32;

/// A set of event ids. Two different ids share a fingerprint with a probability of about n² / 2¹²⁹.
#[derive(Debug)]
pub enum EventIds {
    /// Few ids.
    Few(Vec<u128>),
    /// Many ids.
    Many(HashSet<u128>),
}

impl Default for EventIds {
    fn default() -> Self {
        EventIds::Few(Vec::new())
    }
}

impl EventIds {
    /// The set of `event_ids`.
    pub fn of(event_ids: &[String]) -> Self {
        let mut set = EventIds::Few(Vec::with_capacity(event_ids.len().min(SMALL)));
        for event_id in event_ids {
            set.insert(event_id);
        }
        set
    }

    /// Whether `event_id` was inserted.
    pub fn contains(&self, event_id: &str) -> bool {
        let wanted = fingerprint(event_id);
        match self {
            EventIds::Few(ids) => ids.contains(&wanted),
            EventIds::Many(ids) => ids.contains(&wanted),
        }
    }

    /// Adds `event_id`.
    pub fn insert(&mut self, event_id: &str) {
        let id = fingerprint(event_id);
        match self {
            EventIds::Few(ids) if ids.len() < SMALL => ids.push(id),
            EventIds::Few(ids) => {
                let mut many: HashSet<u128> = ids.drain(..).collect();
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
            EventIds::Few(ids) => ids.capacity() * size_of::<u128>(),
            EventIds::Many(ids) => ids.capacity() * (size_of::<u128>() + 1),
        }
    }
}

fn fingerprint(event_id: &str) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        event_id.hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(1) << 64 | half(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_few_and_many() {
        let mut ids = EventIds::default();
        for n in 0..100 {
            assert!(!ids.contains(&n.to_string()));
            ids.insert(&n.to_string());
            assert!(ids.contains(&n.to_string()) && ids.contains("0"));
        }
    }
}
