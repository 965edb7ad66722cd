//! How far behind a view is, and whether that is a worry. Pure: times come in as arguments.

use crate::domain::units::{NextOffset, Offset, Partition};

use std::collections::VecDeque;

use jiff::Timestamp;

/// Where one partition of a view stands against its log, as observed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionPosition {
    /// Partition number.
    pub partition: Partition,
    /// First offset not applied yet (exclusive end of what the view holds).
    pub next_offset: NextOffset,
    /// First offset still in the log.
    pub low_watermark: Offset,
    /// One past the last readable offset (the last stable offset for a read-committed reader).
    pub high_watermark: NextOffset,
    /// Broker timestamp of the last applied record.
    pub last_record_timestamp: Option<Timestamp>,
}

/// Burrow's words for how a partition is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LagVerdict {
    /// At the end of the log, or gaining on it.
    Ok,
    /// Moving, but falling behind.
    Warn,
    /// Not moving although nobody stopped it: no progress over the whole window with records waiting.
    Stall,
    /// Not being consumed: paused, halted or unassigned, with records waiting.
    Stop,
    /// The position moved backwards.
    Rewind,
}

impl LagVerdict {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            LagVerdict::Ok => "ok",
            LagVerdict::Warn => "warn",
            LagVerdict::Stall => "stall",
            LagVerdict::Stop => "stop",
            LagVerdict::Rewind => "rewind",
        }
    }
}

/// The lag of one partition with its explanation.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionLag {
    /// What was observed.
    pub position: PartitionPosition,
    /// Records not applied yet, control records included.
    pub lag: i64,
    /// Age of the oldest record not applied yet, in seconds; 0 at the end of the log. An upper bound: it counts
    /// from the last applied record or from when the partition was last seen at the end, whichever is later.
    pub lag_seconds: f64,
    /// Burrow's verdict.
    pub verdict: LagVerdict,
    /// Why it is behind, when that is known (`paused: ...`, `halted: ...`, `waiting for the database`).
    pub reason: Option<String>,
}

/// What is remembered of one partition between observations.
#[derive(Debug, Clone, Default)]
pub struct LagHistory {
    first_seen_at: Option<Timestamp>,
    caught_up_at: Option<Timestamp>,
    recent: VecDeque<Seen>, // oldest first
}

/// What is remembered of one observation.
#[derive(Debug, Clone, Copy)]
struct Seen {
    next_offset: NextOffset,
    lag: i64,
}

const WINDOW: usize = 10;
/// Clocks of producers and ours may differ so much.
const CLOCKS_APART: jiff::SignedDuration = jiff::SignedDuration::from_mins(5);

impl LagHistory {
    /// Adds an observation made at `now` and judges it. `obstacle` says why nobody is consuming, if so.
    ///
    /// | lag | position over the window | verdict |
    /// |---|---|---|
    /// | any | went back | rewind |
    /// | 0 | any | ok |
    /// | > 0 | any, with an obstacle | stop |
    /// | > 0 | full window, did not move | stall |
    /// | > 0 | full window, moved, lag grew at every step | warn |
    /// | > 0 | otherwise | ok |
    pub fn observe(&mut self, position: PartitionPosition, now: Timestamp, obstacle: Option<String>) -> PartitionLag {
        let lag = position.next_offset.distance_to(position.high_watermark);
        if lag == 0 {
            self.caught_up_at = Some(now);
        }
        let rewound = self.recent.back().is_some_and(|previous| position.next_offset < previous.next_offset);
        self.recent.push_back(Seen { next_offset: position.next_offset, lag });
        if self.recent.len() > WINDOW {
            self.recent.pop_front();
        }
        let full = self.recent.len() == WINDOW;
        let moved = self.recent.front().is_some_and(|first| position.next_offset > first.next_offset);
        let growing = self.recent.iter().zip(self.recent.iter().skip(1)).all(|(a, b)| b.lag > a.lag);
        let verdict = match () {
            () if rewound => LagVerdict::Rewind,
            () if lag == 0 => LagVerdict::Ok,
            () if obstacle.is_some() => LagVerdict::Stop,
            () if full && !moved => LagVerdict::Stall,
            () if full && growing => LagVerdict::Warn,
            () => LagVerdict::Ok,
        };
        let first_seen_at = *self.first_seen_at.get_or_insert(now);
        // A record of the future tells nothing of how long others wait.
        let told = position.last_record_timestamp.filter(|time| now.duration_until(*time) <= CLOCKS_APART);
        let last_known = self.caught_up_at.max(told);
        // A view that has applied nothing yet is as old as our knowledge of it.
        let behind_since = if lag == 0 { None } else { last_known.or(Some(first_seen_at)) };
        let lag_seconds = behind_since.map_or(0.0, |since| now.duration_since(since).as_secs_f64().max(0.0));
        PartitionLag { position, lag, lag_seconds, verdict, reason: if lag > 0 { obstacle } else { None } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn position(next_offset: i64, high_watermark: i64) -> PartitionPosition {
        PartitionPosition {
            partition: Partition(0),
            next_offset: NextOffset(next_offset),
            low_watermark: Offset(0),
            high_watermark: NextOffset(high_watermark),
            last_record_timestamp: None,
        }
    }

    #[test]
    fn lag_counts_from_the_last_time_the_end_was_reached() {
        let mut history = LagHistory::default();
        assert_eq!(history.observe(position(5, 5), at(100), None).lag_seconds, 0.0);
        let behind = history.observe(position(5, 8), at(103), None);
        assert_eq!((behind.lag, behind.lag_seconds, behind.verdict), (3, 3.0, LagVerdict::Ok));
    }

    #[test]
    fn a_backlog_never_touched_ages_from_when_it_was_first_seen() {
        let mut history = LagHistory::default();
        assert_eq!(history.observe(position(0, 8), at(100), None).lag_seconds, 0.0);
        assert_eq!(history.observe(position(0, 8), at(107), None).lag_seconds, 7.0);
    }

    #[test]
    fn a_record_of_the_future_makes_no_backlog_young() {
        let mut history = LagHistory::default();
        for (future, age) in [(at(1_000_000), 7.0), (Timestamp::MAX, 9.0)] {
            history.observe(position(0, 8), at(100), None);
            let told = PartitionPosition { last_record_timestamp: Some(future), ..position(1, 8) };
            let now = at(100 + age as i64);
            assert_eq!(history.observe(told, now, None).lag_seconds, age, "{future}");
        }
    }

    #[test]
    fn verdicts_have_burrows_words() {
        let all = [LagVerdict::Ok, LagVerdict::Warn, LagVerdict::Stall, LagVerdict::Stop, LagVerdict::Rewind];
        assert_eq!(all.map(LagVerdict::as_str), ["ok", "warn", "stall", "stop", "rewind"]);
    }

    #[test]
    fn verdicts_follow_the_truth_table() {
        let mut stalled = LagHistory::default();
        let last = (0..10).map(|n| stalled.observe(position(5, 9), at(n), None).verdict).last();
        assert_eq!(last, Some(LagVerdict::Stall));

        let mut slow = LagHistory::default();
        let last = (0..10).map(|n| slow.observe(position(n, 5 + 3 * n), at(n), None).verdict).last();
        assert_eq!(last, Some(LagVerdict::Warn));

        let mut steady = LagHistory::default();
        let last = (0..10).map(|n| steady.observe(position(n, n + 4), at(n), None).verdict).last();
        assert_eq!(last, Some(LagVerdict::Ok), "as far behind as before is not falling behind");

        let mut idle = LagHistory::default();
        let last = (0..10).map(|n| idle.observe(position(5, 5), at(n), Some("paused".into()))).last().unwrap();
        assert_eq!((last.verdict, last.reason), (LagVerdict::Ok, None), "nobody is missed at the end of the log");

        let mut paused = LagHistory::default();
        let seen = paused.observe(position(5, 9), at(0), Some("paused".into()));
        assert_eq!((seen.verdict, seen.reason.as_deref()), (LagVerdict::Stop, Some("paused")));

        let mut rewound = LagHistory::default();
        rewound.observe(position(5, 9), at(0), None);
        assert_eq!(rewound.observe(position(4, 9), at(1), None).verdict, LagVerdict::Rewind);
    }
}
