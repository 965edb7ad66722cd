//! What became of the records of a partition: every record is counted once.

/// What became of the records of one partition. At every commit the sums obey
/// `consumed = applied + duplicate + late + conflict + parked + dead_lettered`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Records read.
    pub consumed: i64,
    /// Events projected, or consumed as a no-op of unknown type.
    pub applied: i64,
    /// Events already applied.
    pub duplicate: i64,
    /// Events older than the view.
    pub late: i64,
    /// Events whose number or id is taken.
    pub conflict: i64,
    /// Change of the number of parked events (negative when they drain).
    pub parked: i64,
    /// Records refused.
    pub dead_lettered: i64,
}

impl Counters {
    /// Records consumed that nothing accounts for; anything but 0 is a defect.
    pub fn difference(&self) -> i64 {
        self.consumed - (self.applied + self.duplicate + self.late + self.conflict + self.parked + self.dead_lettered)
    }

    /// Adds another partition's counters.
    pub fn add(&mut self, other: &Counters) {
        self.consumed += other.consumed;
        self.applied += other.applied;
        self.duplicate += other.duplicate;
        self.late += other.late;
        self.conflict += other.conflict;
        self.parked += other.parked;
        self.dead_lettered += other.dead_lettered;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each count a power of two: no sum of some is a sum of others.
    const EACH: Counters =
        Counters { consumed: 1, applied: 2, duplicate: 4, late: 8, conflict: 16, parked: 32, dead_lettered: 64 };

    #[test]
    fn every_record_is_accounted_for_once() {
        assert_eq!(EACH.difference(), 1 - (2 + 4 + 8 + 16 + 32 + 64));
        assert_eq!(Counters { consumed: 126, ..EACH }.difference(), 0);
    }

    #[test]
    fn counters_add_up_each_for_itself() {
        let mut sum = Counters { consumed: 1_000, parked: -32, ..Counters::default() };
        sum.add(&EACH);
        assert_eq!(sum, Counters { consumed: 1_001, parked: 0, ..EACH });
    }
}
