//! Who runs how much, and whether one more may begin. A place is held from before the engine is asked until the query has
//! ended.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::running::{Begun, Running};
use super::{QueryInfo, Refused};
use crate::settings::Limits;

const MINUTE: Duration = Duration::from_secs(60);

/// How many queries run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Active {
    /// Of one owner.
    pub of_owner: usize,
    /// In all.
    pub in_all: usize,
}

/// The queries that run, and when each owner has begun some within the last minute.
#[derive(Default)]
pub(super) struct Places {
    running: HashMap<String, Arc<Running>>,
    begun: HashMap<String, VecDeque<Instant>>,
}

impl Places {
    pub fn get(&self, id: &str) -> Option<Arc<Running>> {
        self.running.get(id).cloned()
    }

    pub fn all(&self) -> Vec<QueryInfo> {
        self.running.values().map(|running| running.info()).collect()
    }

    pub fn active(&self, owner: &str) -> Active {
        let of_owner = self.running.values().filter(|running| running.owner() == owner).count();
        Active { of_owner, in_all: self.running.len() }
    }

    pub fn leave(&mut self, id: &str) {
        self.running.remove(id);
    }

    /// Counts one that an owner is about to begin: so many in any minute.
    pub fn count(&mut self, owner: &str, limits: &Limits, now: Instant) -> Result<(), Refused> {
        self.begun.retain(|_, begun| {
            while begun.front().is_some_and(|begun| now.duration_since(*begun) >= MINUTE) {
                begun.pop_front();
            }
            !begun.is_empty()
        });
        let most = limits.queries_per_minute;
        let begun = self.begun.entry(owner.to_owned()).or_default();
        if begun.len() >= most as usize {
            let oldest = begun.front().copied().unwrap_or(now);
            let retry_after = MINUTE.saturating_sub(now.duration_since(oldest));
            return Err(Refused::TooOften { owner: owner.to_owned(), most, retry_after });
        }
        begun.push_back(now);
        Ok(())
    }

    /// Gives a query a place.
    pub fn enter(&mut self, running: &Arc<Running>, limits: &Limits) -> Result<Begun, Refused> {
        let owner = running.owner();
        let active = self.active(owner);
        let refused = |setting, scope, most, in_use| Err(Refused::TooMany { setting, scope, most, in_use });
        if active.of_owner >= limits.queries_per_user {
            return refused("queries_per_user", format!("of `{owner}`"), limits.queries_per_user, active.of_owner);
        }
        if active.in_all >= limits.queries {
            return refused("queries", "in all".to_owned(), limits.queries, active.in_all);
        }
        self.running.insert(running.id().to_owned(), Arc::clone(running));
        Ok(Begun::new(Arc::clone(running)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_in_any_minute_and_not_one_more() {
        let limits = Limits { queries_per_minute: 3, ..Limits::default() };
        let (mut places, start) = (Places::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in [0, 10, 20] {
            assert!(places.count("ada", &limits, at(second)).is_ok());
        }
        let Err(Refused::TooOften { most, retry_after, .. }) = places.count("ada", &limits, at(30)) else {
            panic!("a fourth one")
        };
        assert_eq!((most, retry_after), (3, Duration::from_secs(30)));
        assert!(places.count("eve", &limits, at(30)).is_ok(), "somebody else");
        assert!(places.count("ada", &limits, at(59)).is_err());
        assert!(places.count("ada", &limits, at(60)).is_ok(), "the first one is a minute old");
        assert!(places.count("ada", &limits, at(60)).is_err());
        assert!(places.count("bob", &limits, at(500)).is_ok());
        assert_eq!(places.begun.len(), 1, "whoever has begun nothing for a minute takes no memory");
    }
}
