//! The numbers that are told apart by their unit alone: places in a log, numbers of events, fencing numbers, moments. Each
//! is a type of its own, so that two of them cannot change places unseen. Pure.
//!
//! They have only the operations that mean something. What a number is in SQL or JSON is said at those borders, with `.0`.

use std::fmt;

/// A partition of a topic, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub i32);

impl Partition {
    /// Which of so many lanes applies it; `lanes` is not 0.
    pub const fn lane(self, lanes: usize) -> usize {
        // Kafka counts from 0, so there is no sign to lose.
        self.0.unsigned_abs() as usize % lanes
    }

    /// Its place in a list of all partitions; `None` for a negative number, which is no partition's.
    pub fn index(self) -> Option<usize> {
        usize::try_from(self.0).ok()
    }
}

/// Where one record stands in its partition, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub i64);

impl Offset {
    /// The position of who has consumed up to this record, and it.
    pub const fn next(self) -> NextOffset {
        NextOffset(self.0.saturating_add(1))
    }
}

/// A position between records: the first offset that is not part of what lies behind. An exclusive end, as of what was
/// applied, or of a log (its high watermark).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextOffset(pub i64);

impl NextOffset {
    /// The position of who has still to consume the record at `offset`, and nothing before it.
    pub const fn before(offset: Offset) -> NextOffset {
        NextOffset(offset.0)
    }

    /// The first offset that is ahead; no record need stand there.
    pub const fn first_ahead(self) -> Offset {
        Offset(self.0)
    }

    /// Whether the record at `offset` lies behind.
    pub const fn is_past(self, offset: Offset) -> bool {
        offset.0 < self.0
    }

    /// How many offsets there are from here to `end`; 0 where it lies behind. Control records count.
    pub fn distance_to(self, end: NextOffset) -> i64 {
        end.0.saturating_sub(self.0).max(0)
    }
}

/// The number of an event within its key: as `x-sequence` says, without gaps, from the view's first number (0 or 1) on.
/// One less than the first number stands for a key without events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub i64);

impl Sequence {
    /// The number after it.
    #[must_use]
    pub const fn next(self) -> Sequence {
        Sequence(self.0.saturating_add(1))
    }

    /// The number before it.
    #[must_use]
    pub const fn previous(self) -> Sequence {
        Sequence(self.0.saturating_sub(1))
    }
}

/// The fencing number of a partition's owner: each takeover raises it by one, and who has not the latest cannot commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub i64);

/// A moment in microseconds since the Unix epoch; negative before it, and as far away as an event says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub i64);

impl Micros {
    /// The beginning of 1970.
    pub const EPOCH: Micros = Micros(0);

    /// The first moment that Postgres knows: 24 November 4714 BC (source: the manual, "Date/Time Types").
    pub const EARLIEST: Micros = Micros(-210_866_803_200_000_000);
    /// The last moment that the calendar of our answers knows, in the year 9999.
    pub const LATEST: Micros = Micros(253_402_207_200_999_999);

    /// The same moment; `None` if it is one that cannot be both stored and shown, as where a producer has counted in other
    /// units.
    pub const fn from_millis(millis: Millis) -> Option<Micros> {
        match millis.0.checked_mul(1000) {
            Some(micros) if Micros::EARLIEST.0 <= micros && micros <= Micros::LATEST.0 => Some(Micros(micros)),
            _ => None,
        }
    }
}

/// A moment in milliseconds since the Unix epoch, as Kafka keeps it beside a record; whatever a producer has set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub i64);

/// Shows the number, for messages and logs.
macro_rules! shown_as_a_number {
    ($($unit:ident)*) => {$(
        impl fmt::Display for $unit {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }
    )*};
}

shown_as_a_number!(Partition Offset NextOffset Sequence Epoch Micros Millis);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_lies_past_what_is_before_it_and_not_past_its_own_offset() {
        let position = Offset(7).next();
        assert_eq!((position, position.first_ahead()), (NextOffset(8), Offset(8)));
        assert!(position.is_past(Offset(7)) && !position.is_past(Offset(8)));
        assert_eq!(NextOffset::before(Offset(8)), position);
        assert_eq!((position.distance_to(NextOffset(11)), position.distance_to(NextOffset(3))), (3, 0));
    }

    #[test]
    fn every_lane_gets_partitions_and_no_number_is_without_a_lane() {
        let lanes: Vec<usize> = [0, 1, 2, 3, i32::MAX, i32::MIN].map(|number| Partition(number).lane(3)).to_vec();
        assert_eq!(lanes, [0, 1, 2, 0, 1, 2]);
        assert_eq!((Partition(4).index(), Partition(-1).index()), (Some(4), None));
    }

    #[test]
    fn moments_too_far_away_are_none() {
        assert_eq!(Micros::from_millis(Millis(-5)), Some(Micros(-5_000)));
        for far in [i64::MAX, i64::MIN, 1_767_225_600_000_000, -210_866_803_200_001, 253_402_207_201_000] {
            assert_eq!(Micros::from_millis(Millis(far)), None, "{far}");
        }
        let ends = [Millis(-210_866_803_200_000), Millis(253_402_207_200_999)].map(Micros::from_millis);
        assert_eq!(ends, [Some(Micros::EARLIEST), Some(Micros(253_402_207_200_999_000))]);
        assert_eq!(Micros::LATEST.0, jiff::Timestamp::MAX.as_microsecond());
    }
}
