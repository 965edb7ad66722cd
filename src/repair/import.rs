//! Takes over the letters of a DLQ topic, so that they can be skipped, replaced and redriven like any other. Reading the
//! topic is the platform's; this is what becomes of its records.

use super::model::Imported;
use super::{Desk, DeskError};
use crate::domain::poison::Reason;
use crate::store::repair_write::{self, ImportedLetter};

/// Letters written at a time.
const CHUNK_LETTERS: usize = 500;
/// And bytes of them.
const CHUNK_BYTES: usize = 8 << 20;
/// The reason of a letter that does not say one of ours.
pub const IMPORTED: &str = "imported";

impl Desk {
    /// Stores letters whose original position the table does not know yet. Interrupted or repeated, it ends the same.
    pub async fn import(&self, letters: impl IntoIterator<Item = ImportedLetter>) -> Result<Imported, DeskError> {
        let client = self.writers.open().await?;
        let mut sum = Imported::default();
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        for mut letter in letters {
            bytes += letter.payload.as_ref().map_or(0, Vec::len) + letter.headers.len();
            settle(&mut letter);
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
        client: &crate::store::Connection,
        chunk: &mut Vec<ImportedLetter>,
        sum: &mut Imported,
    ) -> Result<(), DeskError> {
        let new = repair_write::import(client, self.view, chunk).await?.len();
        sum.read += chunk.len();
        sum.imported += new;
        sum.known += chunk.len() - new;
        chunk.clear();
        Ok(())
    }
}

/// What a foreign DLQ may say is cut to what the table and its readers expect.
fn settle(letter: &mut ImportedLetter) {
    let clean = |text: &mut String, most: usize| {
        *text = text.chars().filter(|letter| *letter != '\0').take(most).collect();
    };
    clean(&mut letter.reason, 100);
    clean(&mut letter.error, 500);
    if letter.error.is_empty() {
        letter.error = "the DLQ topic does not say why".to_owned();
    }
    let is_ours = Reason::ALL.iter().any(|reason| reason.as_str() == letter.reason);
    if !is_ours {
        if !letter.reason.is_empty() && letter.reason != IMPORTED {
            letter.error = format!("{}: {}", letter.reason, letter.error);
        }
        letter.reason = IMPORTED.to_owned();
    }
    letter.key = letter.key.take().filter(|key| !key.contains('\0') && !key.is_empty());
    letter.sequence = letter.sequence.filter(|_| letter.key.is_some());
}
