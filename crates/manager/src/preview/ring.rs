//! The newest rows of a topic, once for all that watch it. Each has a place of its own in it; whom the end overtakes has lost
//! rows, exactly as many as it was overtaken by. Pure.

use std::collections::VecDeque;
use std::sync::Arc;

use super::row::Shown;

/// Rows, numbered from 0 on as they came.
pub(super) struct Ring {
    rows: VecDeque<Arc<Shown>>,
    /// Number of the oldest row that is kept.
    first: u64,
    bytes: usize,
    most_rows: usize,
    most_bytes: usize,
}

/// What somebody is to be shown next.
#[derive(Debug, Default)]
pub struct Frame {
    /// Rows, in the order in which they came.
    pub rows: Vec<Arc<Shown>>,
    /// Rows that were dropped before these, for they came faster than they were taken.
    pub dropped: u64,
}

impl Ring {
    pub fn new(most_rows: usize, most_bytes: usize) -> Ring {
        Ring { rows: VecDeque::new(), first: 0, bytes: 0, most_rows, most_bytes }
    }

    /// The number of the next row to come.
    pub fn next(&self) -> u64 {
        self.first + self.rows.len() as u64
    }

    /// Adds a row; the oldest ones give way to it. A row that is larger than all that is kept is kept alone.
    pub fn push(&mut self, row: Arc<Shown>) {
        self.keep(row);
        while self.rows.len() > self.most_rows || self.bytes > self.most_bytes && self.rows.len() > 1 {
            self.forget_oldest();
        }
    }

    /// Adds a row of a reader that is waited for: none gives way to it.
    pub fn keep(&mut self, row: Arc<Shown>) {
        self.bytes += row.bytes();
        self.rows.push_back(row);
    }

    pub fn is_full(&self) -> bool {
        self.rows.len() >= self.most_rows || self.bytes >= self.most_bytes
    }

    /// Forgets what stands before this number.
    pub fn forget_before(&mut self, number: u64) {
        while self.first < number && !self.rows.is_empty() {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.rows.pop_front() {
            self.bytes -= oldest.bytes();
            self.first += 1;
        }
    }

    /// What follows `cursor`, and moves it: at most so many rows and, after the first, so many bytes; of a backlog of more
    /// than `backlog` rows only the newest.
    pub fn read(&self, cursor: &mut u64, rows: usize, bytes: usize, backlog: usize) -> Frame {
        let oldest = self.first.max(self.next().saturating_sub(backlog as u64));
        let dropped = oldest.saturating_sub(*cursor);
        *cursor = (*cursor).max(oldest);
        let mut frame = Frame { rows: Vec::new(), dropped };
        let mut size = 0;
        let start = usize::try_from(*cursor - self.first).unwrap_or(usize::MAX);
        for row in self.rows.iter().skip(start).take(rows) {
            size += row.json().len();
            if size > bytes && !frame.rows.is_empty() {
                break;
            }
            frame.rows.push(Arc::clone(row));
        }
        *cursor += frame.rows.len() as u64;
        frame
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ports::RawRecord;

    fn row(number: usize, size: usize) -> Arc<Shown> {
        let value = Some(format!("\"{number}{}\"", "x".repeat(size)).into_bytes());
        let record = RawRecord {
            partition: 0,
            offset: number as i64,
            timestamp_ms: None,
            key: None,
            value,
            headers: Default::default(),
        };
        let show = super::super::row::show(&record, None, 1_000_000);
        Arc::new(futures_util::FutureExt::now_or_never(show).expect("nothing to wait for"))
    }

    #[test]
    fn memory_is_bounded_by_rows_and_by_bytes() {
        let mut ring = Ring::new(10, 5_000);
        (0..100).for_each(|number| ring.push(row(number, 0)));
        assert_eq!((ring.rows.len(), ring.first, ring.next()), (10, 90, 100));
        (0..100).for_each(|number| ring.push(row(number, 500)));
        assert!(ring.bytes <= 5_000 && ring.rows.len() > 1, "{} bytes", ring.bytes);
        ring.push(row(0, 10_000));
        assert_eq!(ring.rows.len(), 1, "a huge one alone");
        ring.forget_before(u64::MAX);
        assert_eq!((ring.rows.len(), ring.bytes), (0, 0));
    }

    #[test]
    fn a_frame_has_at_least_one_row_and_no_more_bytes_than_it_may_have() {
        let mut ring = Ring::new(10, 1_000_000);
        (0..10).for_each(|number| ring.push(row(number, 100)));
        let mut cursor = 0;
        assert_eq!(ring.read(&mut cursor, 10, 1, 10).rows.len(), 1);
        let two = 2 * row(0, 100).json().len();
        assert_eq!(ring.read(&mut cursor, 10, two, 10).rows.len(), 2);
        assert_eq!((ring.read(&mut cursor, 3, 1_000_000, 10).rows.len(), cursor), (3, 6));
    }

    proptest! {
        /// However slowly somebody reads: what it was shown and what was dropped is all there was, in order.
        #[test]
        fn shown_and_dropped_is_all_there_was(steps in proptest::collection::vec((0usize..30, 0usize..8), 1..60)) {
            let mut ring = Ring::new(16, 100_000);
            let (mut cursor, mut count, mut shown, mut dropped, mut last) = (0, 0, 0, 0, -1i64);
            for (pushed, taken) in steps {
                for _ in 0..pushed {
                    ring.push(row(count, 0));
                    count += 1;
                }
                let frame = ring.read(&mut cursor, taken, 1_000_000, 12);
                shown += frame.rows.len();
                dropped += frame.dropped;
                for row in &frame.rows {
                    let number: serde_json::Value = serde_json::from_str(row.json()).expect("JSON");
                    let number = number["offset"].as_i64().expect("a number");
                    prop_assert!(number > last);
                    last = number;
                }
                prop_assert_eq!(shown as u64 + dropped, cursor);
            }
            let rest = ring.read(&mut cursor, usize::MAX, 1_000_000, 12);
            prop_assert_eq!(shown as u64 + dropped + rest.rows.len() as u64 + rest.dropped, count as u64);
        }
    }
}
