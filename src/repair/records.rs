//! The records that replace and redrive go on with: put together from the letter and what is asked, and read as the
//! projector would read them. Before the lock: letters do not change, and decoding takes time.

use std::collections::HashMap;

use super::check::Checked;
use super::request::{MAX_BULK, Replacement, Request};
use super::rows::read::{self, LetterRecord};
use super::{Desk, DeskError, Obstacle, Refusal};
use crate::domain::poison::Poison;
use crate::domain::record::{Headers, Record};
use crate::domain::units::{Offset, Partition, Sequence};
use crate::repair::decide::no_such_letter;
use crate::store::Connection;

/// Bytes of letters that are decoded at a time.
const CHUNK_BYTES: i64 = 16 << 20;
/// And how many.
const CHUNK_LETTERS: usize = 2_000;

/// What was found out before the lock.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// Key and number by each letter's record, or what speaks against it. No more of it: they may be 100,000 of any size.
    pub(super) checked: HashMap<i64, Result<(String, Sequence), Poison>>,
    /// Value and encoded headers of a replacement.
    pub(super) record: Option<(Vec<u8>, Vec<u8>)>,
}

impl Desk {
    pub(super) async fn prepare(&self, client: &Connection, request: &Request) -> Result<Prepared, DeskError> {
        let mut prepared = Prepared::default();
        match request {
            Request::Replace(replacement) => return self.prepare_replacement(client, replacement).await,
            Request::Redrive(id) => self.check_letters(client, &[*id], &mut prepared).await?,
            Request::RedriveByFilter(filter, bulk) => {
                let limit = i64::from(bulk.limit.min(MAX_BULK)) + 1;
                let letters = read::matching_letters(client, self.view, filter, limit).await?;
                let mut rest = letters.as_slice();
                while !rest.is_empty() {
                    let mut bytes = 0;
                    let fitting = rest.iter().take(CHUNK_LETTERS).take_while(|letter| {
                        bytes += letter.bytes;
                        bytes <= CHUNK_BYTES
                    });
                    let (chunk, later) = rest.split_at(fitting.count().max(1));
                    let ids: Vec<i64> = chunk.iter().map(|letter| letter.id).collect();
                    self.check_letters(client, &ids, &mut prepared).await?;
                    rest = later;
                }
            }
            _ => {}
        }
        Ok(prepared)
    }

    /// Reads letters as they are.
    async fn check_letters(&self, client: &Connection, ids: &[i64], to: &mut Prepared) -> Result<(), DeskError> {
        for body in read::bodies(client, self.view, ids).await? {
            let record = record_of(body.key.as_deref(), body.payload.as_deref(), &body.headers);
            let checked = self.bench().checker.check(record).await?;
            to.checked.insert(body.id, checked.map(place_of));
        }
        Ok(())
    }

    async fn prepare_replacement(&self, client: &Connection, asked: &Replacement) -> Result<Prepared, DeskError> {
        let letter = read::letter(client, self.view, asked.id, 0).await?;
        let letter = letter.ok_or_else(|| no_such_letter(asked.id))?.letter;
        let body = read::bodies(client, self.view, &[asked.id]).await?.into_iter().next();
        let body = body.ok_or_else(|| no_such_letter(asked.id))?;
        let key = same("key", letter.key, asked.key.clone())?;
        let sequence = same("sequence", letter.sequence, asked.sequence)?;
        let (payload, headers) = (asked.value(), headers_of(&body, asked, sequence));
        let checked = self.bench().checker.check(record_of(Some(key.as_bytes()), Some(&payload), &headers)).await?;
        let checked = HashMap::from([(asked.id, checked.map(place_of))]);
        Ok(Prepared { checked, record: Some((payload, headers)) })
    }
}

fn place_of(checked: Checked) -> (String, Sequence) {
    (checked.key, checked.sequence)
}

/// The letter's own value, or the one given where it has none.
fn same<T: PartialEq + std::fmt::Display>(field: &str, own: Option<T>, given: Option<T>) -> Result<T, Refusal> {
    match (own, given) {
        (Some(own), Some(given)) if own != given => {
            let detail = format!("`{field}` is `{given}`, but the letter's own is `{own}`; leave `{field}` out");
            Err(Refusal::new(Obstacle::Unfit, detail))
        }
        (Some(own), _) => Ok(own),
        (None, Some(given)) => Ok(given),
        (None, None) => {
            let detail = format!("`{field}` is missing, and the letter has none of its own; say which it is");
            Err(Refusal::new(Obstacle::Unfit, detail))
        }
    }
}

fn record_of<'a>(key: Option<&'a [u8]>, payload: Option<&'a [u8]>, headers: &'a [u8]) -> Record<'a> {
    let headers = Headers::from_encoded(headers);
    Record { partition: Partition(0), offset: Offset(0), timestamp_ms: None, key, payload, headers }
}

/// The letter's headers in their order, binary ones untouched, without those that are set or taken away; then those
/// that are set.
fn headers_of(letter: &LetterRecord, asked: &Replacement, sequence: i64) -> Vec<u8> {
    let mut changes: Vec<(&str, Option<String>)> =
        asked.headers.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    let mut set = |name: &'static str, value: Option<String>| {
        if value.is_some() {
            changes.retain(|(known, _)| *known != name);
            changes.push((name, value));
        }
    };
    set("x-sequence", Some(sequence.to_string()));
    set("x-event-type", asked.event_type.clone());
    set("x-event-version", asked.event_version.map(|version| version.to_string()));
    let mut encoded = Vec::new();
    for (name, value) in Headers::from_encoded(&letter.headers).iter() {
        if changes.iter().all(|(changed, _)| *changed != name) {
            Headers::push(&mut encoded, name.as_bytes(), value);
        }
    }
    for (name, value) in &changes {
        if let Some(value) = value {
            Headers::push(&mut encoded, name.as_bytes(), Some(value.as_bytes()));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;

    #[test]
    fn headers_are_kept_but_for_those_that_are_set_or_taken_away() {
        let mut headers = Vec::new();
        for (name, value) in [
            ("x-sequence", Some(b"x".as_slice())),
            ("binary", Some(b"\xff\0")),
            ("gone", Some(b"1")),
            ("none", None),
            ("x-sequence", Some(b"7")),
        ] {
            Headers::push(&mut headers, name.as_bytes(), value);
        }
        let letter = LetterRecord { id: 1, key: None, payload: None, headers };
        let asked = Replacement {
            id: 1,
            payload: RawValue::from_string("{\"price\": 1.10}".to_owned()).unwrap(),
            headers: vec![("gone".to_owned(), None), ("new".to_owned(), Some("2".to_owned()))],
            key: None,
            sequence: None,
            event_type: None,
            event_version: Some(1),
        };
        let encoded = headers_of(&letter, &asked, 4);
        let kept: Vec<(&str, Option<&[u8]>)> = Headers::from_encoded(&encoded).iter().collect();
        let expected: [(&str, Option<&[u8]>); 5] = [
            ("binary", Some(b"\xff\0")),
            ("none", None),
            ("new", Some(b"2")),
            ("x-sequence", Some(b"4")),
            ("x-event-version", Some(b"1")),
        ];
        assert_eq!(kept, expected);
        assert_eq!(asked.value(), b"{\"price\": 1.10}", "digits as they were written");
    }
}
