//! One who watches a topic: takes rows at its own speed, as many as it may, and tells how many it has lost.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::room::{Room, Seat};
use super::{Frame, Output, PreviewLimits, Shown};

/// Rows that come within so long travel together.
const FRAME: Duration = Duration::from_millis(20);
/// Most rows and bytes of a frame.
const FRAME_ROWS: usize = 1_000;
const FRAME_BYTES: usize = 256 * 1024;

/// What somebody who watches is told.
#[derive(Debug)]
pub enum Told {
    /// Rows, or that some were dropped.
    Frame(Frame),
    /// Nothing more comes, and why.
    End(String),
}

/// One who watches. The topic is read no longer when the last one is dropped.
pub struct Watcher {
    room: Arc<Room>,
    _seat: Seat,
    output: Arc<Output>,
    cursor: u64,
    budget: Budget,
    shown_at: Option<Instant>,
    dropped: u64,
}

impl Watcher {
    pub(super) fn new(room: Arc<Room>, seat: Seat, limits: &PreviewLimits) -> Watcher {
        let output = room.output();
        let cursor = if room.is_own() { 0 } else { room.ring().next() };
        let budget = Budget::new(limits, Instant::now());
        Watcher { room, _seat: seat, output, cursor, budget, shown_at: None, dropped: 0 }
    }

    /// The topic, and what is known of its rows.
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// Whether this row is known to be something else than those before it: its columns have to be asked for again, then.
    pub fn turns_at(&mut self, row: &Shown) -> bool {
        let Some(output) = row.output().filter(|output| !Arc::ptr_eq(output, &self.output)) else { return false };
        let is_other = **output != *self.output;
        self.output = Arc::clone(output);
        is_other
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        self.room.topic()
    }

    /// Rows that it has lost so far.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Waits for rows. The first ones come at once; then those of each 20 ms together. Nothing is lost when this is dropped
    /// while it waits.
    pub async fn next(&mut self) -> Told {
        if let Some(shown_at) = self.shown_at {
            sleep_until(shown_at + FRAME).await;
        }
        loop {
            let news = self.room.news();
            tokio::pin!(news);
            // Whatever comes from here on wakes it.
            news.as_mut().enable();
            self.budget.refill(Instant::now());
            let (rows, bytes) = self.budget.left();
            let is_spent = rows == 0 || bytes == 0;
            if !is_spent {
                // One who reads a history of its own is waited for; else a second's worth may lie before it.
                let backlog = if self.room.is_own() { usize::MAX } else { self.budget.rows_per_second() };
                let end = self.room.end();
                let frame =
                    self.room.ring().read(&mut self.cursor, rows.min(FRAME_ROWS), bytes.min(FRAME_BYTES), backlog);
                if frame.dropped > 0 || !frame.rows.is_empty() {
                    self.room.taken(self.cursor);
                    self.budget.spend(&frame);
                    self.dropped += frame.dropped;
                    self.shown_at = Some(Instant::now());
                    return Told::Frame(frame);
                }
                if let Some(end) = end {
                    return Told::End(end);
                }
            }
            match is_spent {
                true => sleep(FRAME).await,
                false => news.await,
            }
        }
    }
}

/// How many rows and bytes somebody may be shown now: a second's worth at most, if it has waited.
struct Budget {
    rows: f64,
    bytes: f64,
    rows_per_second: f64,
    bytes_per_second: f64,
    filled: Instant,
}

impl Budget {
    fn new(limits: &PreviewLimits, now: Instant) -> Budget {
        let (rows, bytes) = (f64::from(limits.rows_per_second.max(1)), f64::from(limits.bytes_per_second.max(1)));
        Budget { rows, bytes, rows_per_second: rows, bytes_per_second: bytes, filled: now }
    }

    fn refill(&mut self, now: Instant) {
        let seconds = now.duration_since(self.filled).as_secs_f64();
        self.rows = (self.rows + seconds * self.rows_per_second).min(self.rows_per_second);
        self.bytes = (self.bytes + seconds * self.bytes_per_second).min(self.bytes_per_second);
        self.filled = now;
    }

    fn left(&self) -> (usize, usize) {
        (self.rows.max(0.0) as usize, self.bytes.max(0.0) as usize)
    }

    fn rows_per_second(&self) -> usize {
        self.rows_per_second as usize
    }

    /// A row that is larger than what is left is shown all the same, and made up for.
    fn spend(&mut self, frame: &Frame) {
        self.rows -= frame.rows.len() as f64;
        self.bytes -= frame.rows.iter().map(|row| row.json().len()).sum::<usize>() as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_a_seconds_worth_and_fills_again() {
        let now = Instant::now();
        let limits = PreviewLimits { rows_per_second: 10, bytes_per_second: 1_000, ..PreviewLimits::default() };
        let mut budget = Budget::new(&limits, now);
        assert_eq!(budget.left(), (10, 1_000));
        (budget.rows, budget.bytes) = (0.0, -500.0);
        budget.refill(now + Duration::from_millis(300));
        assert_eq!(budget.left(), (3, 0), "what was too much is made up for");
        budget.refill(now + Duration::from_secs(60));
        assert_eq!(budget.left(), (10, 1_000), "and no more than a second's worth is saved");
    }
}
