//! Who runs how much, and whether one more may begin. A place is held from before the engine is asked until the query has
//! ended.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::running::{Begun, Running};
use super::{Active, QueryInfo, Refused};
use crate::settings::Limits;

const MINUTE: Duration = Duration::from_secs(60);

/// The queries that run, and when each owner has begun some within the last minute.
#[derive(Default)]
pub(super) struct Places {
    running: HashMap<String, Arc<Running>>,
    begun: HashMap<String, VecDeque<Instant>>,
    /// Those that other instances are still to be told of as ended, and who tells them; `None`: there are no others.
    ended: Option<(Vec<String>, Arc<Notify>)>,
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
        if self.running.remove(id).is_some()
            && let Some((ended, teller)) = &mut self.ended
        {
            ended.push(id.to_owned());
            teller.notify_one();
        }
    }

    /// Places among those of other instances, to which `teller` says what ends here.
    pub fn among(teller: Arc<Notify>) -> Places {
        Places { ended: Some((Vec::new(), teller)), ..Places::default() }
    }

    /// Those that have ended since this was asked last.
    pub fn take_ended(&mut self) -> Vec<String> {
        self.ended.as_mut().map(|(ended, _)| std::mem::take(ended)).unwrap_or_default()
    }

    /// They could not be told: next time, then.
    pub fn untold(&mut self, ids: Vec<String>) {
        if let Some((ended, _)) = &mut self.ended {
            ended.extend(ids);
        }
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

    /// Gives a query a place, and says how many of other instances there may be beside it.
    pub fn enter(&mut self, running: &Arc<Running>, limits: &Limits) -> Result<(Begun, Active), Refused> {
        let owner = running.owner();
        let active = self.active(owner);
        let (Some(of_owner), Some(in_all)) =
            (limits.queries_per_user.checked_sub(active.of_owner + 1), limits.queries.checked_sub(active.in_all + 1))
        else {
            return Err(active.too_many(owner, limits));
        };
        self.running.insert(running.id().to_owned(), Arc::clone(running));
        Ok((Begun::new(Arc::clone(running)), Active { of_owner, in_all }))
    }
}

impl Active {
    /// One more is refused.
    pub(super) fn too_many(self, owner: &str, limits: &Limits) -> Refused {
        let (setting, scope, most, in_use) = match self.of_owner >= limits.queries_per_user {
            true => ("queries_per_user", format!("of `{owner}`"), limits.queries_per_user, self.of_owner),
            false => ("queries", "in all".to_owned(), limits.queries, self.in_all),
        };
        Refused::TooMany { setting, scope, most, in_use }
    }

    /// These and those.
    pub(super) fn and(self, others: Active) -> Active {
        Active { of_owner: self.of_owner + others.of_owner, in_all: self.in_all + others.in_all }
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
