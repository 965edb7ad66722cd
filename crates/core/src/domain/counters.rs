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
