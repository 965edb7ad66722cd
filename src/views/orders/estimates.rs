//! How many orders match a list's filters, as the planner sees it, remembered for a moment: asking costs half as much as
//! reading the page. No I/O, no clock.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

use super::queries::Filters;

/// An estimate that is older is asked for again.
pub const OLDEST: Duration = Duration::from_secs(5);

const MOST: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

/// The latest estimates. Counts are never kept: an exact total is one of now.
pub struct Estimates {
    known: Mutex<LruCache<Filters, (Instant, i64)>>,
}

impl Default for Estimates {
    fn default() -> Self {
        Estimates { known: Mutex::new(LruCache::new(MOST)) }
    }
}

impl Estimates {
    /// What the planner said, if that is not too long ago.
    pub fn get(&self, filters: &Filters, now: Instant) -> Option<i64> {
        let mut known = self.lock();
        let (asked, planned) = known.get(filters)?;
        (now.saturating_duration_since(*asked) <= OLDEST).then_some(*planned)
    }

    /// What the planner said when it was asked at `asked`.
    pub fn put(&self, filters: &Filters, asked: Instant, planned: i64) {
        self.lock().put(filters.clone(), (asked, planned));
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<Filters, (Instant, i64)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_holds_for_five_seconds_and_for_its_filters_only() {
        let (estimates, asked) = (Estimates::default(), Instant::now());
        let paid = Filters { statuses: vec!["Paid".into()], ..Filters::default() };
        estimates.put(&paid, asked, 70_000);

        assert_eq!(estimates.get(&paid, asked + OLDEST), Some(70_000));
        assert_eq!(estimates.get(&Filters::default(), asked), None);
        assert_eq!(estimates.get(&paid, asked + OLDEST + Duration::from_millis(1)), None);
        estimates.put(&paid, asked + OLDEST, 80_000);
        assert_eq!(estimates.get(&paid, asked + OLDEST + OLDEST), Some(80_000));
    }
}
