//! How far somebody has followed a ledger, and the cursors that say so to a client. Pure.
//!
//! Rows of a ledger are numbered by commit, each partition for itself; within one commit they stand by key and sequence. So
//! one number for each partition says what was seen, and one more where somebody stopped in the middle of a commit.

use std::collections::BTreeMap;

use crate::domain::build::Build;
use crate::domain::page::{CursorError, open, seal};
use crate::domain::units::{Partition, Sequence};

/// Where one row of a ledger stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The partition in whose turn it was committed.
    pub partition: Partition,
    /// The number of that commit, from 1.
    pub commit: i64,
    /// Its place among the rows of the commit, from 1.
    pub rank: i64,
    /// Whether it is the last of them.
    pub is_last: bool,
}

/// How much of one partition was seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reached {
    /// All of the commits up to this number.
    pub commit: i64,
    /// And so many rows of the one after it.
    pub rows: i64,
}

impl Reached {
    /// Whether it includes that row.
    pub const fn covers(self, commit: i64, rank: i64) -> bool {
        commit <= self.commit || commit == self.commit + 1 && rank <= self.rows
    }
}

/// How much of each partition was seen. Of a partition that it does not name: nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cut(BTreeMap<Partition, Reached>);

impl Cut {
    /// Whole commits of each partition.
    pub fn at(commits: impl IntoIterator<Item = (Partition, i64)>) -> Cut {
        Cut(commits.into_iter().map(|(partition, commit)| (partition, Reached { commit, rows: 0 })).collect())
    }

    /// How much of `partition`.
    pub fn reached(&self, partition: Partition) -> Reached {
        self.0.get(&partition).copied().unwrap_or_default()
    }

    /// Whether it includes that row.
    pub fn covers(&self, place: &Place) -> bool {
        self.reached(place.partition).covers(place.commit, place.rank)
    }

    /// The row was seen, and all before it.
    pub fn pass(&mut self, place: &Place) {
        let reached = if place.is_last {
            Reached { commit: place.commit, rows: 0 }
        } else {
            Reached { commit: place.commit - 1, rows: place.rank }
        };
        self.0.insert(place.partition, reached);
    }

    /// Whole commits up to that number were seen, if that is more than it was.
    pub fn reach(&mut self, partition: Partition, commit: i64) {
        if self.reached(partition).commit < commit {
            self.0.insert(partition, Reached { commit, rows: 0 });
        }
    }

    /// Whatever the other one includes was seen too.
    pub fn join(&mut self, other: &Cut) {
        for (partition, reached) in &other.0 {
            let ours = self.reached(*partition);
            if (reached.commit, reached.rows) > (ours.commit, ours.rows) {
                self.0.insert(*partition, *reached);
            }
        }
    }

    /// The partitions that it names.
    pub fn partitions(&self) -> impl Iterator<Item = (Partition, Reached)> {
        self.0.iter().map(|(partition, reached)| (*partition, *reached))
    }
}

/// How far somebody has followed all of a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedCursor {
    /// The build whose ledger is followed.
    pub build: Build,
    /// The switch of builds by which the reader came here, while this ledger may still repeat what the one before had.
    pub came_by: Option<i64>,
    /// How much of it was seen.
    pub cut: Cut,
}

impl FeedCursor {
    /// Its text, for a client of `view`.
    pub fn encode(&self, view: &str) -> String {
        let partitions: Vec<[i64; 3]> = self
            .cut
            .partitions()
            .map(|(partition, reached)| [i64::from(partition.0), reached.commit, reached.rows])
            .collect();
        seal(&serde_json::json!([self.build.0, self.came_by.unwrap_or(0), partitions]).to_string(), view)
    }

    /// Reads the text of a cursor of `view`.
    pub fn decode(text: &str, view: &str) -> Result<Self, CursorError> {
        let json = open(text, view)?;
        let (build, came_by, partitions): (i32, i64, Vec<(i32, i64, i64)>) =
            serde_json::from_str(&json).map_err(|_| CursorError::Garbage)?;
        let is_sound = |(partition, commit, rows): &(i32, i64, i64)| *partition >= 0 && *commit >= 0 && *rows >= 0;
        if build < 1 || came_by < 0 || !partitions.iter().all(is_sound) {
            return Err(CursorError::Garbage);
        }
        let reached = |(partition, commit, rows)| (Partition(partition), Reached { commit, rows });
        let cut = Cut(partitions.into_iter().map(reached).collect());
        Ok(FeedCursor { build: Build(build), came_by: (came_by > 0).then_some(came_by), cut })
    }
}

/// How far somebody has followed one key: the number of its last event that was seen. Every build numbers a key's events
/// alike, so this is all that there is to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyCursor(pub Sequence);

impl KeyCursor {
    /// Its text, for a client of this key of `view`.
    pub fn encode(self, view: &str, key: &str) -> String {
        seal(&self.0.to_string(), &scope_of_key(view, key))
    }

    /// Reads the text of a cursor of this key.
    pub fn decode(text: &str, view: &str, key: &str) -> Result<Self, CursorError> {
        let json = open(text, &scope_of_key(view, key))?;
        json.parse().map(|number| KeyCursor(Sequence(number))).map_err(|_| CursorError::Garbage)
    }
}

fn scope_of_key(view: &str, key: &str) -> String {
    format!("{view}\0{key}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(partition: i32, commit: i64, rank: i64, is_last: bool) -> Place {
        Place { partition: Partition(partition), commit, rank, is_last }
    }

    #[test]
    fn a_cut_covers_what_was_passed_and_nothing_else() {
        let mut cut = Cut::at([(Partition(0), 4)]);
        assert!(cut.covers(&place(0, 4, 9, false)) && !cut.covers(&place(0, 5, 1, false)));
        assert!(!cut.covers(&place(1, 1, 1, true)), "a partition that it has never seen");
        cut.pass(&place(0, 5, 1, false));
        cut.pass(&place(0, 5, 2, false));
        assert!(cut.covers(&place(0, 5, 2, false)) && !cut.covers(&place(0, 5, 3, true)));
        cut.pass(&place(0, 5, 3, true));
        assert_eq!(cut, Cut::at([(Partition(0), 5)]));
        cut.pass(&place(0, 9, 1, false));
        assert!(cut.covers(&place(0, 8, 1, true)), "commits between without rows");
    }

    #[test]
    fn a_cut_never_goes_back() {
        let mut cut = Cut::at([(Partition(0), 4), (Partition(1), 4)]);
        cut.pass(&place(0, 5, 2, false));
        cut.reach(Partition(0), 4);
        cut.reach(Partition(1), 7);
        cut.join(&Cut::at([(Partition(0), 4), (Partition(1), 6), (Partition(2), 1)]));
        cut.join(&Cut::at([(Partition(3), 0)])); // nothing was seen of it
        let reached: Vec<_> = cut.partitions().map(|(partition, at)| (partition.0, at.commit, at.rows)).collect();
        assert_eq!(reached, [(0, 4, 2), (1, 7, 0), (2, 1, 0)]);
    }

    #[test]
    fn cursors_read_as_they_were_written_and_belong_to_what_they_were_given_out_for() {
        let mut cut = Cut::at([(Partition(0), 17), (Partition(11), 3)]);
        cut.pass(&place(11, 4, 2, false));
        let cursor = FeedCursor { build: Build(3), came_by: Some(2), cut };
        let text = cursor.encode("orders");
        assert_eq!(FeedCursor::decode(&text, "orders"), Ok(cursor));
        assert_eq!(FeedCursor::decode(&text, "pings"), Err(CursorError::Checksum));
        let least = FeedCursor { build: Build(1), came_by: None, cut: Cut::default() };
        assert_eq!(FeedCursor::decode(&least.encode("orders"), "orders"), Ok(least));
        let key = KeyCursor(Sequence(-1)).encode("orders", "o-1");
        assert_eq!(KeyCursor::decode(&key, "orders", "o-1"), Ok(KeyCursor(Sequence(-1))));
        assert_eq!(KeyCursor::decode(&key, "orders", "o-2"), Err(CursorError::Checksum));
        assert_eq!(FeedCursor::decode(&key, "orders"), Err(CursorError::Checksum));
        for forged in ["[0,0,[]]", "[1,-1,[]]", "[1,0,[[-1,1,0]]]", "[1,0,[[0,-1,0]]]", "{}", "[1]"] {
            assert_eq!(FeedCursor::decode(&seal(forged, "orders"), "orders"), Err(CursorError::Garbage), "{forged}");
        }
    }
}
