//! Calls that wait until what they want is done: each looks into the database now and then, and the reconciler needs that too.

use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};

/// How long a call waits until its second look: most is done soon, or takes its time.
const FIRST: Duration = Duration::from_millis(50);
/// The longest time between two looks.
const LONGEST: Duration = Duration::from_secs(1);
/// So many calls wait at once; who comes then is told at once how far it is.
const MOST: usize = 64;

/// Calls that wait, of one process.
pub(crate) struct Waits {
    seats: Semaphore,
}

impl Default for Waits {
    fn default() -> Waits {
        Waits { seats: Semaphore::new(MOST) }
    }
}

impl Waits {
    /// Looks until it is done, for so long at most, and gives what was seen last; `None` as soon as nothing is there.
    pub async fn until<T, E>(
        &self,
        patience: Duration,
        mut look: impl AsyncFnMut() -> Result<Option<T>, E>,
        is_done: impl Fn(&T) -> bool,
    ) -> Result<Option<T>, E> {
        let seat = self.seats.try_acquire();
        let end = Instant::now() + if seat.is_ok() { patience } else { Duration::ZERO };
        let mut pause = FIRST;
        loop {
            let Some(seen) = look().await? else { return Ok(None) };
            if is_done(&seen) || Instant::now() >= end {
                return Ok(Some(seen));
            }
            sleep_until(end.min(Instant::now() + pause)).await;
            pause = LONGEST.min(pause * 3 / 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;

    use futures_util::FutureExt;

    use super::*;

    /// How often it was looked, and how long that took, where it is done after so many milliseconds.
    async fn looks(waits: &Waits, done_after: u64) -> (u32, u128) {
        let (begin, looks) = (Instant::now(), Cell::new(0));
        let look = async || {
            looks.set(looks.get() + 1);
            Ok::<_, Infallible>(Some(begin.elapsed() >= Duration::from_millis(done_after)))
        };
        let seen = waits.until(Duration::from_secs(5), look, |is_done| *is_done).await;
        assert!(matches!(seen, Ok(Some(_))));
        (looks.get(), begin.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_looks_often_at_first_and_seldom_later() {
        let waits = Waits::default();
        assert_eq!(looks(&waits, 0).await, (1, 0));
        let (soon, after) = looks(&waits, 50).await;
        assert!((soon, after) == (2, 50) || (soon, after) == (2, 51), "{soon} looks, {after} ms");
        let (all, after) = looks(&waits, 3_600_000).await;
        assert!(all <= 12 && (5_000..5_010).contains(&after), "{all} looks, {after} ms");
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_wait_at_once_and_the_next_one_is_answered_at_once() {
        let waits = Waits::default();
        let mut waiting: Vec<_> = (0..MOST).map(|_| Box::pin(looks(&waits, 3_600_000))).collect();
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        assert_eq!(looks(&waits, 3_600_000).await, (1, 0));
        waiting.pop();
        assert!(looks(&waits, 3_600_000).await.0 > 1, "a seat is free again");
    }
}
