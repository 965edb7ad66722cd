//! What jobs need of Kafka, brought by the service. Every call blocks: a job has a thread of its own.
//!
//! Kafka is the only place where progress stands. One commit holds output records, positions and the book-keeping of windows
//! (as metadata of the positions), so nothing has to agree with anything else.

use std::sync::Arc;
use std::time::Duration;

#[cfg(test)]
pub mod memory;

/// How output is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Records and positions in one transaction.
    ExactlyOnce,
    /// Records first, positions after: for brokers that have no transactions. A kill between both writes the records again.
    AtLeastOnce,
}

impl Delivery {
    /// Its word in settings.
    pub const fn word(self) -> &'static str {
        match self {
            Delivery::ExactlyOnce => "exactly_once",
            Delivery::AtLeastOnce => "at_least_once",
        }
    }
}

/// Why Kafka did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// It passes. What was to be committed was not, or is there: the committed positions say which.
    #[error("{0}")]
    Again(String),
    /// It stays until somebody does something: a topic is gone or another one, records were deleted, a right is missing.
    #[error("{0}")]
    Halt(String),
    /// Another instance writes for this query now: whoever hears this has to end, and must not try again.
    #[error("another instance runs this query now")]
    Fenced,
}

/// A partition of one of the topics that a reader reads, by its number among these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Number of the topic.
    pub topic: usize,
    /// The partition.
    pub partition: i32,
}

/// How far a partition was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Which partition.
    pub place: Place,
    /// Where a restart begins to read.
    pub offset: i64,
    /// A job's own notes.
    pub metadata: String,
}

/// A record to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The topic.
    pub topic: Arc<str>,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value.
    pub value: Option<Vec<u8>>,
    /// Headers, in order; many records have the same.
    pub headers: Arc<Vec<(String, Option<Vec<u8>>)>>,
    /// Which record it is made of: one header more, [`ORIGIN`].
    pub origin: Option<String>,
}

/// The header that says which record a row is made of. Two rows with the same one are the same row, written twice.
pub const ORIGIN: &str = "streamview-origin";

/// The brokers.
pub trait Log: Send + Sync {
    /// How it writes.
    fn delivery(&self) -> Delivery;
    /// A reader of these topics; reads nothing yet.
    fn reader(&self, topics: &[String]) -> Result<Box<dyn Reader>, LogError>;
    /// The writer of a query under a name that is always the query's: whoever wrote under it before cannot commit any more
    /// when this returns. Positions are those of `group`, in these topics.
    fn writer(&self, name: &str, group: &str, topics: &[String]) -> Result<Box<dyn Writer>, LogError>;
    /// Fences whoever writes under that name.
    fn fence(&self, name: &str) -> Result<(), LogError>;
    /// Makes a topic with one partition; one that is there already is fine.
    fn make_topic(&self, name: &str) -> Result<(), LogError>;
    /// Groups whose names begin with this.
    fn groups(&self, prefix: &str) -> Result<Vec<String>, LogError>;
    /// Deletes groups; what is not there is fine.
    fn delete_groups(&self, groups: &[String]) -> Result<(), LogError>;
}

/// Reads topics.
pub trait Reader: Send {
    /// The partitions of each topic as they are now.
    fn partitions(&mut self) -> Result<Vec<Vec<i32>>, LogError>;
    /// The first offset that is there, and the one behind all that can be read: where the first open transaction begins, if there
    /// is one.
    fn bounds(&mut self, place: Place) -> Result<(i64, i64), LogError>;
    /// The offset behind all that was written, records of open transactions included.
    fn end(&mut self, place: Place) -> Result<i64, LogError>;
    /// By what each topic is known again after it was deleted and made anew; `None` where brokers have no such ids.
    fn ids(&mut self) -> Result<Vec<Option<String>>, LogError>;
    /// Reads these partitions, too, from these offsets on.
    fn assign(&mut self, from: &[(Place, i64)]) -> Result<(), LogError>;
    /// Puts what there is into `into`, which is emptied before; waits no longer than `wait` for the first record. As much as
    /// [`Batch::is_full`] says, or what comes within 20 ms. Records of open or aborted transactions are left out.
    fn next(&mut self, into: &mut Batch, wait: Duration) -> Result<(), LogError>;
}

/// Writes what a query gives.
pub trait Writer: Send {
    /// The committed positions. Those of partitions that have none are left out.
    fn positions(&mut self, places: &[Place]) -> Result<Vec<Position>, LogError>;
    /// Writes records and positions: all or nothing, where [`Delivery::ExactlyOnce`]. After an error nothing is under way.
    fn commit(&mut self, records: &[Outgoing], positions: &[Position]) -> Result<(), LogError>;
}

/// Most records of a batch, and bytes after which it is full.
const MOST_RECORDS: usize = 8_192;
const MOST_BYTES: usize = 1 << 20;

/// Records as they were read, in one buffer.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// Partitions that were read to their end, and the offset that comes next there.
    pub ends: Vec<(Place, i64)>,
}

#[derive(Debug)]
struct Entry {
    place: Place,
    offset: i64,
    timestamp_ms: Option<i64>,
    start: usize,
    key: Option<usize>,
    value: Option<usize>,
    /// Where the headers end.
    end: usize,
}

/// A record of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Record<'b> {
    /// Where it was read.
    pub place: Place,
    /// Its offset there.
    pub offset: i64,
    /// Milliseconds since 1970, if it has a time.
    pub timestamp_ms: Option<i64>,
    /// Its key.
    pub key: Option<&'b [u8]>,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'b [u8]>,
    headers: &'b [u8],
}

/// A header as it stands in a buffer.
type Header<'b> = (&'b [u8], Option<&'b [u8]>);

impl Batch {
    /// Empties it, and keeps its room.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        self.ends.clear();
    }

    /// Whether as many records are in it as are worked on at once.
    pub fn is_full(&self) -> bool {
        self.entries.len() >= MOST_RECORDS || self.bytes.len() >= MOST_BYTES
    }

    /// How many records.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a record.
    pub fn push<'h>(
        &mut self,
        (place, offset): (Place, i64),
        timestamp_ms: Option<i64>,
        (key, value): (Option<&[u8]>, Option<&[u8]>),
        headers: impl Iterator<Item = Header<'h>>,
    ) {
        let start = self.bytes.len();
        let mut add = |part: Option<&[u8]>| {
            self.bytes.extend_from_slice(part.unwrap_or_default());
            part.map(<[u8]>::len)
        };
        let (key, value) = (add(key), add(value));
        for (name, value) in headers {
            for part in [Some(name), value] {
                let length = part.map_or(-1, |part| i32::try_from(part.len()).unwrap_or(i32::MAX));
                self.bytes.extend_from_slice(&length.to_le_bytes());
                self.bytes.extend_from_slice(part.unwrap_or_default());
            }
        }
        self.entries.push(Entry { place, offset, timestamp_ms, start, key, value, end: self.bytes.len() });
    }

    /// The records, in the order in which they were read.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.entries.iter().map(|entry| {
            let (key, rest) = self.bytes[entry.start..entry.end].split_at(entry.key.unwrap_or_default());
            let (value, headers) = rest.split_at(entry.value.unwrap_or_default());
            Record {
                place: entry.place,
                offset: entry.offset,
                timestamp_ms: entry.timestamp_ms,
                key: entry.key.map(|_| key),
                value: entry.value.map(|_| value),
                headers,
            }
        })
    }
}

impl<'b> Record<'b> {
    /// Its headers: names and values.
    pub fn headers(&self) -> impl Iterator<Item = Header<'b>> + use<'b> {
        let mut rest = self.headers;
        std::iter::from_fn(move || {
            let name = part(&mut rest)?;
            Some((name.unwrap_or_default(), part(&mut rest)?))
        })
    }
}

/// A length, or -1 for nothing, and so many bytes.
fn part<'b>(rest: &mut &'b [u8]) -> Option<Option<&'b [u8]>> {
    let (length, behind) = rest.split_first_chunk::<4>()?;
    let Ok(length) = usize::try_from(i32::from_le_bytes(*length)) else {
        *rest = behind;
        return Some(None);
    };
    let (part, behind) = behind.split_at_checked(length)?;
    *rest = behind;
    Some(Some(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_gives_back_what_was_put_into_it() {
        let mut batch = Batch::default();
        let place = Place { topic: 0, partition: 3 };
        let headers: [Header<'_>; 2] = [(b"trace", Some(b"1")), (b"empty", None)];
        batch.push((place, 7), Some(5), (None, Some(b"value")), headers.into_iter());
        batch.push((place, 8), None, (Some(b""), None), std::iter::empty());
        let read: Vec<_> = batch
            .records()
            .map(|record| (record.offset, record.key, record.value, record.headers().collect::<Vec<_>>()))
            .collect();
        assert_eq!(read[0], (7, None, Some(&b"value"[..]), headers.to_vec()));
        assert_eq!(read[1], (8, Some(&b""[..]), None, Vec::new()));
        batch.clear();
        assert!(batch.is_empty());
    }
}
