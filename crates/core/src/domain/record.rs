//! Records as they come from the log: borrowed bytes with their position, many of them in one allocation.

use crate::domain::identity::Anchor;
use crate::domain::ledger::Origin;
use crate::domain::units::{Millis, NextOffset, Offset, Partition};

/// One record. Borrowed from a [`RecordBatch`] or from a parked row.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Partition it was read from.
    pub partition: Partition,
    /// Its offset there.
    pub offset: Offset,
    /// Broker or producer timestamp in milliseconds since the epoch.
    pub timestamp_ms: Option<Millis>,
    /// Key bytes.
    pub key: Option<&'a [u8]>,
    /// Value bytes.
    pub payload: Option<&'a [u8]>,
    /// Headers.
    pub headers: Headers<'a>,
}

impl Record<'_> {
    /// By what it is known again.
    pub fn anchor(&self) -> Anchor {
        Anchor { offset: self.offset, crc: self.checksum(), timestamp_ms: self.timestamp_ms }
    }

    /// Where it was read.
    pub fn origin(&self) -> Origin {
        Origin { partition: self.partition, offset: self.offset }
    }

    /// CRC-32 over key and value: with offset and timestamp it anchors our position in the log.
    pub fn checksum(&self) -> u32 {
        let mut crc = crc32fast::Hasher::new();
        crc.update(self.key.unwrap_or_default());
        crc.update(&[0xff]);
        crc.update(self.payload.unwrap_or_default());
        crc.finalize()
    }

    /// Bytes of key and value.
    pub fn size(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.payload.map_or(0, <[u8]>::len)
    }

    /// Bytes of key, value and headers: what it takes to hold it.
    pub fn weight(&self) -> usize {
        self.size() + self.headers.encoded().len()
    }
}

/// Record headers in one byte string: for each, name length (u32 LE), name, value length (i32 LE, -1 = null), value.
/// This is also how they are stored with parked events and dead letters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Headers<'a>(&'a [u8]);

impl<'a> Headers<'a> {
    /// Headers from their stored form. A truncated tail is ignored, so corrupt rows cannot panic.
    pub const fn from_encoded(bytes: &'a [u8]) -> Self {
        Headers(bytes)
    }

    /// The stored form.
    pub const fn encoded(self) -> &'a [u8] {
        self.0
    }

    /// Name and value of each header, in order.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> {
        self.raw().map(|(name, value)| (std::str::from_utf8(name).unwrap_or("\u{fffd}"), value))
    }

    /// The same with names as they came, for who compares them: that costs less than to read them as text.
    pub fn raw(self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (length, tail) = rest.split_first_chunk::<4>()?;
            let (name, tail) = tail.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            let (length, tail) = tail.split_first_chunk::<4>()?;
            let length = i32::from_le_bytes(*length);
            let (value, tail) = tail.split_at_checked(length.max(0) as usize)?;
            rest = tail;
            Some((name, (length >= 0).then_some(value)))
        })
    }

    /// The value of `name` if it stands there; `Err` if it stands there twice with different values.
    pub fn only(self, name: &str) -> Result<Option<&'a [u8]>, &'a [u8]> {
        let mut found: Option<&'a [u8]> = None;
        for (_, value) in self.raw().filter(|(header, _)| *header == name.as_bytes()) {
            let value = value.unwrap_or_default();
            match found {
                Some(first) if first != value => return Err(value),
                _ => found = Some(value),
            }
        }
        Ok(found)
    }

    /// Appends one header to `bytes`.
    pub fn push(bytes: &mut Vec<u8>, name: &[u8], value: Option<&[u8]>) {
        bytes.extend_from_slice(&(name.len() as u32).to_le_bytes());
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(&value.map_or(-1, |value| value.len() as i32).to_le_bytes());
        bytes.extend_from_slice(value.unwrap_or_default());
    }
}

/// A record of a batch without its bytes. A lane has some 15,000 of them at a time, twice; so they are packed.
#[derive(Debug, Clone, Copy)]
struct Entry {
    generation: u64,
    offset: Offset,
    /// Means nothing unless `has_timestamp`: no number is left for "none", a producer may have set any.
    timestamp_ms: Millis,
    /// Where it ends among the bytes of the batch, its headers being the last of it. It begins where the one before it ends.
    end: usize,
    partition: Partition,
    key: Length,
    payload: Length,
    has_timestamp: bool,
}

const _: () = assert!(size_of::<Entry>() <= 48);

/// The length of a key or value that may be missing.
///
/// 32 bits are enough: Kafka's own format has 31 for it, and what the projector reads is 100 MiB at most (the end of the range of
/// `projector.max_record_bytes`). A longer one is refused, never cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Length(u32);

impl Length {
    const MISSING: Length = Length(u32::MAX);

    /// # Panics
    /// Above 4 GiB less 2 bytes.
    fn of(length: Option<usize>) -> Length {
        let Some(length) = length else { return Length::MISSING };
        let packed = u32::try_from(length).ok().map(Length).filter(|packed| *packed != Length::MISSING);
        packed.expect("Kafka has 31 bits for the length of a key or value")
    }

    fn get(self) -> Option<usize> {
        (self != Length::MISSING).then_some(self.0 as usize)
    }
}

/// The end of a partition's log as a reader saw it: everything readable before it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionEnd {
    /// Partition.
    pub partition: Partition,
    /// Assignment it belongs to.
    pub generation: u64,
    /// Past control records and aborted transactions too.
    pub next_offset: NextOffset,
}

/// A batch of the log that cannot be read. Everything before it was, nothing behind it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableBatch {
    /// Partition.
    pub partition: Partition,
    /// Assignment it belongs to.
    pub generation: u64,
    /// Offset at which the batch begins.
    pub offset: Offset,
    /// What is wrong with it.
    pub text: String,
}

/// Records of several partitions in arrival order, their bytes in one buffer.
///
/// Each is tagged with the generation of the assignment under which it was read, so that what was read before a
/// partition was given away can be told from what is read after it came back.
#[derive(Debug, Default)]
pub struct RecordBatch {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    ends: Vec<PartitionEnd>,
    unreadable: Vec<UnreadableBatch>,
}

impl RecordBatch {
    /// Adds a copy of `record`; `encode_headers` appends its headers in stored form.
    pub fn push(&mut self, generation: u64, record: Record<'_>, encode_headers: impl FnOnce(&mut Vec<u8>)) {
        let (key, payload) = (Length::of(record.key.map(<[u8]>::len)), Length::of(record.payload.map(<[u8]>::len)));
        self.bytes.extend_from_slice(record.key.unwrap_or_default());
        self.bytes.extend_from_slice(record.payload.unwrap_or_default());
        encode_headers(&mut self.bytes);
        self.entries.push(Entry {
            generation,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms.unwrap_or(Millis(0)),
            end: self.bytes.len(),
            partition: record.partition,
            key,
            payload,
            has_timestamp: record.timestamp_ms.is_some(),
        });
    }

    /// Holds nothing any more, and keeps its memory.
    pub fn clear(&mut self) {
        let RecordBatch { bytes, entries, ends, unreadable } = self;
        bytes.clear();
        entries.clear();
        ends.clear();
        unreadable.clear();
    }

    /// Notes that the end of a partition was reached.
    pub fn push_end(&mut self, end: PartitionEnd) {
        self.ends.push(end);
    }

    /// Notes that a partition cannot be read any further.
    pub fn push_unreadable(&mut self, unreadable: UnreadableBatch) {
        self.unreadable.push(unreadable);
    }

    /// Where partitions cannot be read any further, after the records of this batch.
    pub fn unreadable(&self) -> &[UnreadableBatch] {
        &self.unreadable
    }

    /// Ends reached after the records of this batch.
    pub fn ends(&self) -> &[PartitionEnd] {
        &self.ends
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds nothing at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.ends.is_empty() && self.unreadable.is_empty()
    }

    /// Bytes held.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes that it has room for without asking for more.
    pub fn room(&self) -> usize {
        self.bytes.capacity()
    }

    /// The records with their generation, in arrival order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Record<'_>)> {
        let mut start = 0;
        self.entries.iter().map(move |entry| {
            let (key, payload) = (entry.key.get(), entry.payload.get());
            let key_end = start + key.unwrap_or(0);
            let payload_end = key_end + payload.unwrap_or(0);
            let record = Record {
                partition: entry.partition,
                offset: entry.offset,
                timestamp_ms: entry.has_timestamp.then_some(entry.timestamp_ms),
                key: key.map(|_| &self.bytes[start..key_end]),
                payload: payload.map(|_| &self.bytes[key_end..payload_end]),
                headers: Headers(&self.bytes[payload_end..entry.end]),
            };
            start = entry.end;
            (entry.generation, record)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_gives_back_what_was_put_in() {
        let mut batch = RecordBatch::default();
        let record = |offset: i64| Record {
            partition: Partition(3),
            offset: Offset(offset),
            timestamp_ms: Some(Millis(17)),
            key: (offset % 2 == 0).then_some(b"key".as_slice()),
            payload: (offset % 3 == 0).then_some(b"payload".as_slice()),
            headers: Headers::default(),
        };
        for offset in 0..6 {
            batch.push(offset as u64, record(offset), |bytes| {
                Headers::push(bytes, b"x-sequence", Some(b"12"));
                Headers::push(bytes, b"empty", None);
            });
        }
        assert_eq!((batch.len(), batch.iter().count()), (6, 6));
        let headers = 6 * (4 + 10 + 4 + 2 + 4 + 5 + 4);
        assert_eq!(batch.size(), 3 * 3 + 2 * 7 + headers, "three keys, two payloads, six times the headers");
        for (index, (generation, read)) in batch.iter().enumerate() {
            let expected = record(index as i64);
            assert_eq!(
                (generation, read.offset, read.key, read.payload),
                (index as u64, expected.offset, expected.key, expected.payload)
            );
            assert_eq!(read.headers.only("x-sequence"), Ok(Some(b"12".as_slice())));
            assert_eq!(read.headers.iter().last(), Some(("empty", None)));
        }
        let size = batch.size();
        batch.clear();
        assert!(batch.is_empty() && batch.size() == 0 && batch.room() >= size, "its memory is kept");
        assert_eq!(RecordBatch::default().room(), 0);
    }

    #[test]
    fn a_batch_keeps_what_is_missing_apart_from_what_is_empty_and_every_number_to_its_end() {
        let parts = [None, Some(b"".as_slice()), Some(b"x".as_slice())];
        let microseconds = 1_700_000_000_000_000;
        let times = [i64::MIN, i64::MIN + 1, -2, -1, 0, 1, microseconds, i64::MAX - 1, i64::MAX];
        let times: Vec<_> = [None].into_iter().chain(times.map(|time| Some(Millis(time)))).collect();
        let ends = [(0, i32::MIN, i64::MIN), (u64::MAX, i32::MAX, i64::MAX), (u64::from(u32::MAX) + 1, -1, -1)];
        let mut put = Vec::new();
        for key in parts {
            for payload in parts {
                for (timestamp_ms, (generation, partition, offset)) in times.iter().zip(ends.into_iter().cycle()) {
                    put.push((generation, partition, offset, *timestamp_ms, key, payload));
                }
            }
        }
        let mut batch = RecordBatch::default();
        for (number, (generation, partition, offset, timestamp_ms, key, payload)) in put.iter().copied().enumerate() {
            let (partition, offset, headers) = (Partition(partition), Offset(offset), Headers::default());
            let record = Record { partition, offset, timestamp_ms, key, payload, headers };
            // Every third has some, of other lengths each time.
            let name = vec![b'h'; number];
            batch.push(generation, record, |out| {
                if number % 3 == 0 {
                    Headers::push(out, &name, None);
                }
            });
        }
        let read = batch.iter().map(|(generation, record)| {
            let Record { partition, offset, timestamp_ms, key, payload, .. } = record;
            (generation, partition.0, offset.0, timestamp_ms, key, payload)
        });
        assert_eq!(read.collect::<Vec<_>>(), put);
        for (number, (_, record)) in batch.iter().enumerate() {
            let found: Vec<_> = record.headers.iter().map(|(name, value)| (name.len(), value)).collect();
            assert_eq!(found, if number % 3 == 0 { vec![(number, None)] } else { vec![] });
        }
    }

    #[test]
    fn a_length_is_kept_up_to_the_last_that_is_not_the_word_for_none() {
        assert_eq!(Length::of(None).get(), None);
        for length in [0, 1, i32::MAX as usize, u32::MAX as usize - 1] {
            assert_eq!(Length::of(Some(length)).get(), Some(length));
        }
    }

    #[test]
    #[should_panic(expected = "31 bits")]
    fn a_length_that_would_be_the_word_for_none_is_refused() {
        Length::of(Some(u32::MAX as usize));
    }

    #[test]
    #[should_panic(expected = "31 bits")]
    fn a_length_of_33_bits_is_refused_rather_than_cut() {
        Length::of(Some(u32::MAX as usize + 1));
    }

    #[test]
    fn a_batch_is_empty_when_it_holds_neither_records_nor_ends_nor_what_cannot_be_read() {
        let end = PartitionEnd { partition: Partition(1), generation: 2, next_offset: NextOffset(3) };
        let text = "its checksum is wrong".to_owned();
        let unreadable = UnreadableBatch { partition: Partition(1), generation: 2, offset: Offset(3), text };
        let record = Record {
            partition: Partition(0),
            offset: Offset(0),
            timestamp_ms: None,
            key: None,
            payload: None,
            headers: Headers::default(),
        };
        let mut batches: [RecordBatch; 4] = Default::default();
        batches[1].push(0, record, |_| ());
        batches[2].push_end(end);
        batches[3].push_unreadable(unreadable.clone());
        assert_eq!(batches.each_ref().map(RecordBatch::is_empty), [true, false, false, false]);
        assert_eq!((batches[2].ends(), batches[3].unreadable()), ([end].as_slice(), [unreadable].as_slice()));
        assert_eq!((batches[1].ends(), batches[1].unreadable()), ([].as_slice(), [].as_slice()));
        batches.iter_mut().for_each(RecordBatch::clear);
        assert!(batches.iter().all(|batch| batch.is_empty() && batch.len() + batch.size() + batch.iter().count() == 0));
    }

    #[test]
    fn a_checksum_covers_key_and_value_and_where_one_ends() {
        let of = |key: &'static str, payload: &'static str| {
            let (key, payload) = (Some(key.as_bytes()), Some(payload.as_bytes()));
            let (partition, offset) = (Partition(0), Offset(0));
            Record { partition, offset, timestamp_ms: None, key, payload, headers: Headers::default() }.checksum()
        };
        // It is stored: another way to compute it would take every log for another one.
        assert_eq!(of("key", "value"), 0xe655_3415);
        let others = [of("key", "valve"), of("kex", "value"), of("keyv", "alue"), of("", "keyvalue")];
        assert!(others.iter().all(|other| *other != of("key", "value")));
    }

    #[test]
    fn truncated_headers_end_quietly_and_contradicting_ones_are_told() {
        let mut bytes = Vec::new();
        Headers::push(&mut bytes, b"a", Some(b"1"));
        Headers::push(&mut bytes, b"a", Some(b"2"));
        assert_eq!(Headers::from_encoded(&bytes).only("a"), Err(b"2".as_slice()));
        for cut in 0..bytes.len() {
            assert!(Headers::from_encoded(&bytes[..cut]).iter().count() < 2);
        }
    }

    #[test]
    fn a_name_that_is_no_utf8_is_shown_as_such_and_is_nobody_elses() {
        let mut bytes = Vec::new();
        Headers::push(&mut bytes, b"a\xff", Some(b"1"));
        Headers::push(&mut bytes, b"a", Some(b"2"));
        let headers = Headers::from_encoded(&bytes);
        assert_eq!(headers.only("a"), Ok(Some(b"2".as_slice())));
        assert_eq!(headers.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["\u{fffd}", "a"]);
        assert_eq!(headers.raw().map(|(name, _)| name).collect::<Vec<_>>(), [b"a\xff".as_slice(), b"a"]);
    }
}
