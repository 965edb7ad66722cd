//! Takes over the letters of a DLQ topic, so that they can be skipped, replaced and redriven like any other. Reading the
//! topic is the platform's; this is what becomes of its records.

use tokio::sync::mpsc::Receiver;

use super::model::Imported;
use super::rows::write::{self, ImportedLetter};
use super::{Desk, DeskError};
use crate::codec::{self, dlq_headers};
use crate::domain::poison::Reason;
use crate::domain::record::{Headers, Record};
use crate::domain::units::{Offset, Partition};
use crate::store::Connection;

/// Letters written at a time.
const CHUNK_LETTERS: usize = 500;
/// And bytes of them.
const CHUNK_BYTES: usize = 8 << 20;
/// The reason of a letter that does not say one of ours.
pub const IMPORTED: &str = "imported";

impl Desk {
    /// The letter that a record of `topic`, a DLQ topic, tells of. One that does not tell where it came from keeps its
    /// position on the DLQ topic: it is a letter all the same.
    pub fn letter_of(&self, topic: &str, record: Record<'_>) -> ImportedLetter {
        let (partition, offset, timestamp_ms) = (record.partition.0, record.offset.0, record.timestamp_ms);
        let mut letter = match dlq_headers::read(&record) {
            Some(read) => ImportedLetter {
                topic: read.topic,
                partition: read.partition,
                offset: read.offset,
                timestamp_ms: read.timestamp_ms,
                reason: read.reason.unwrap_or_default(),
                error: [read.error, read.omitted].into_iter().flatten().collect::<Vec<_>>().join("; value "),
                record_key: read.key.map(<[u8]>::to_vec),
                payload: read.payload.map(<[u8]>::to_vec),
                headers: read.headers,
                ..ImportedLetter::default()
            },
            None => ImportedLetter {
                topic: topic.to_owned(),
                partition,
                offset,
                timestamp_ms,
                error: "its headers do not tell where it came from".to_owned(),
                record_key: record.key.map(<[u8]>::to_vec),
                payload: record.payload.map(<[u8]>::to_vec),
                headers: record.headers.encoded().to_vec(),
                ..ImportedLetter::default()
            },
        };
        self.find_place(&mut letter);
        settle(&mut letter);
        letter
    }

    /// Key and number, as far as the projector would read them.
    fn find_place(&self, letter: &mut ImportedLetter) {
        let record = Record {
            partition: Partition(letter.partition),
            offset: Offset(letter.offset),
            timestamp_ms: letter.timestamp_ms,
            key: letter.record_key.as_deref(),
            payload: letter.payload.as_deref(),
            headers: Headers::from_encoded(&letter.headers),
        };
        let first_sequence = self.bench().rules.first_sequence;
        let limits = codec::Limits { max_record_bytes: self.max_record_bytes, first_sequence };
        let (key, sequence) = match codec::head(&record, limits) {
            Ok((head, _)) => (Some(head.key), Some(head.sequence)),
            Err(refused) => (refused.key, refused.place.map(|(_, sequence)| sequence)),
        };
        (letter.key, letter.sequence) = (key.map(str::to_owned), sequence);
    }

    /// Stores letters whose original position the table does not know yet. Interrupted or repeated, it ends the same.
    pub async fn import(&self, mut letters: Receiver<ImportedLetter>) -> Result<Imported, DeskError> {
        let client = self.writers.open().await?;
        let mut sum = Imported::default();
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        while let Some(letter) = letters.recv().await {
            bytes += bytes_of(&letter);
            chunk.push(letter);
            if chunk.len() == CHUNK_LETTERS || bytes >= CHUNK_BYTES {
                self.import_chunk(&client, &mut chunk, &mut sum).await?;
                bytes = 0;
            }
        }
        self.import_chunk(&client, &mut chunk, &mut sum).await?;
        Ok(sum)
    }

    async fn import_chunk(
        &self,
        client: &Connection,
        chunk: &mut Vec<ImportedLetter>,
        sum: &mut Imported,
    ) -> Result<(), DeskError> {
        let new = write::import(client, self.view, chunk).await?;
        sum.read += chunk.len();
        sum.imported += new.len();
        sum.known += chunk.len() - new.len();
        sum.ids.extend(new);
        chunk.clear();
        Ok(())
    }
}

fn bytes_of(letter: &ImportedLetter) -> usize {
    let of = |part: Option<&Vec<u8>>| part.map_or(0, Vec::len);
    of(letter.record_key.as_ref()) + of(letter.payload.as_ref()) + letter.headers.len()
}

/// What a foreign DLQ may say is cut to what the table and its readers expect.
fn settle(letter: &mut ImportedLetter) {
    let clean = |text: &str, most: usize| text.chars().filter(|letter| *letter != '\0').take(most).collect::<String>();
    let (reason, mut error) = (clean(&letter.reason, 200), clean(&letter.error, 500));
    if error.is_empty() {
        "the DLQ topic does not say why".clone_into(&mut error);
    }
    let is_ours = Reason::ALL.iter().any(|known| known.as_str() == reason);
    (letter.reason, letter.error) = match reason.as_str() {
        _ if is_ours => (reason, error),
        "" | IMPORTED => (IMPORTED.to_owned(), error),
        foreign => (IMPORTED.to_owned(), format!("{foreign}: {error}")),
    };
    letter.topic = clean(&letter.topic, 249);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_has_the_bytes_of_its_key_value_and_headers() {
        let nothing = ImportedLetter::default();
        let (record_key, payload, headers) = (Some(vec![0; 3]), Some(vec![0; 20]), vec![0; 100]);
        let letter = ImportedLetter { record_key, payload, headers, ..nothing.clone() };
        assert_eq!((bytes_of(&letter), bytes_of(&nothing)), (123, 0));
    }
}
