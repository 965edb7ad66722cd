//! What operators are shown: lists, one held key, one dead letter, and what can be done next.

use futures_util::future::join_all;
use jiff::Timestamp;

use super::decide::{closes_only, no_such_letter, not_held};
use super::model::{
    HeldDetail, HeldKey, Letter, LetterDetail, LettersOfTopic, NextStep, OperatorDecision, ParkedEvent, Shown, Step,
};
use super::request::{DecisionFilter, HeldFilter, LetterFilter};
use super::rows::read::{self, ParkedRead};
use super::rules::{KeyFacts, NotNow};
use super::{Desk, DeskError};
use crate::domain::record::{Headers, Record};
use crate::domain::units::{Offset, Partition, Sequence};
use crate::store::read::{ReadError, ReadPool};

/// Parked events, letters and decisions shown with a held key.
const SHOWN: i64 = 20;
/// Bytes of a parked event's value, and of its headers, that are read, so that its type can be told.
const PARKED_BYTES: i32 = 64 << 10;
/// Bytes of it that are shown.
const PREVIEW_BYTES: usize = 2 << 10;
/// Bytes of a letter's value that are shown.
pub const LETTER_BYTES: i32 = 256 << 10;

impl Desk {
    /// A page of held keys; one more than `limit` if there is a next page.
    pub async fn list_held(
        &self,
        filter: &HeldFilter,
        after: Option<(Timestamp, &str)>,
        limit: u32,
    ) -> Result<Vec<HeldKey>, ReadError> {
        self.pool
            .within_deadline(async {
                let client = self.pool.get().await?;
                Ok(read::held(&client, self.view, filter, after, i64::from(limit) + 1).await?)
            })
            .await
    }

    /// A page of dead letters; one more than `limit` if there is a next page.
    pub async fn list_letters(
        &self,
        filter: &LetterFilter,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Letter>, ReadError> {
        self.pool
            .within_deadline(async {
                let client = self.pool.get().await?;
                Ok(read::letters(&client, self.view, filter, before, i64::from(limit) + 1).await?)
            })
            .await
    }

    /// Which topics the letters in these states came from, the topic of most first; of the newest `most`, and whether there
    /// are more.
    pub async fn topics_of_letters(
        &self,
        statuses: &[String],
        most: u32,
    ) -> Result<(Vec<LettersOfTopic>, bool), ReadError> {
        self.pool
            .within_deadline(async {
                let client = self.pool.get().await?;
                Ok(read::topics_of_letters(&client, self.view, statuses, i64::from(most)).await?)
            })
            .await
    }

    /// A page of decisions; one more than `limit` if there is a next page.
    pub async fn list_decisions(
        &self,
        filter: &DecisionFilter,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<OperatorDecision>, ReadError> {
        self.pool
            .within_deadline(async {
                let client = self.pool.get().await?;
                Ok(read::decisions(&client, self.view, filter, before, i64::from(limit) + 1).await?)
            })
            .await
    }

    /// A held key with all that is known about it.
    pub async fn show_held(&self, key: &str) -> Result<HeldDetail, DeskError> {
        in_time(&self.pool, self.read_held(key)).await
    }

    async fn read_held(&self, key: &str) -> Result<HeldDetail, DeskError> {
        let client = self.pool.get().await.map_err(ReadError::from)?;
        let read = read::held_key(&client, self.view, key).await?.ok_or_else(|| not_held(key))?;
        let from = read.held.missing_from;
        let parked = read::parked(&client, self.view, key, SHOWN, PARKED_BYTES).await?;
        let dead_letters = read::letters_of_key(&client, self.view, key, from, SHOWN).await?;
        let decisions = read::decisions_of_key(&client, self.view, key, SHOWN).await?;
        let facts = self.facts(&client, &[key]).await?.remove(key).unwrap_or_default();
        let next = steps_of_held(&read.held, &facts, &dead_letters);
        let parked = parked.into_iter().map(|parked| self.parked_event(key, parked));
        Ok(HeldDetail {
            parked: join_all(parked).await,
            refused: read.refused,
            held: read.held,
            dead_letters,
            decisions,
            next,
        })
    }

    async fn parked_event(&self, key: &str, read: ParkedRead) -> ParkedEvent {
        let ParkedRead { sequence, event_id, topic, partition, offset, timestamp_ms, parked_at, .. } = read;
        let record = Record {
            partition: Partition(partition),
            offset: Offset(offset),
            timestamp_ms,
            key: Some(key.as_bytes()),
            payload: Some(&read.payload),
            headers: Headers::from_encoded(&read.headers),
        };
        let event = if read.is_whole { self.bench().checker.look(record).await } else { None };
        let occurred_at = event.as_ref().and_then(|event| Timestamp::from_microsecond(event.occurred_at.0).ok());
        let (event_type, json) = event.map(|event| (event.event_type, event.json)).unzip();
        let mut beginning = read.payload;
        beginning.truncate(PREVIEW_BYTES);
        let payload = Shown { bytes: read.payload_bytes, beginning, json: json.flatten() };
        ParkedEvent { sequence, event_id, event_type, occurred_at, topic, partition, offset, parked_at, payload }
    }

    /// A dead letter with its record.
    pub async fn show_letter(&self, id: i64) -> Result<LetterDetail, DeskError> {
        in_time(&self.pool, self.read_letter(id)).await
    }

    async fn read_letter(&self, id: i64) -> Result<LetterDetail, DeskError> {
        let client = self.pool.get().await.map_err(ReadError::from)?;
        let read = read::letter(&client, self.view, id, LETTER_BYTES).await?.ok_or_else(|| no_such_letter(id))?;
        let letter = read.letter;
        let decision = match letter.decision_id {
            Some(decision) => read::decisions_by_id(&client, &[decision]).await?.pop(),
            None => None,
        };
        let allowed = match letter.key.as_deref().zip(letter.sequence.map(Sequence)) {
            Some((key, sequence)) => Some(self.may_decide_one(&client, key, sequence).await?),
            None => None,
        };
        let next = steps_of_letter(&letter, allowed);
        let payload_bytes = letter.payload_bytes.unwrap_or(0);
        let record = Record {
            partition: Partition(letter.partition),
            offset: Offset(letter.offset),
            timestamp_ms: None,
            key: read.record_key.as_deref(),
            payload: read.payload.as_deref().filter(|payload| payload.len() as i64 == payload_bytes),
            headers: Headers::from_encoded(&read.headers),
        };
        let json = self.bench().checker.look(record).await.and_then(|event| event.json);
        let headers = Headers::from_encoded(&read.headers);
        Ok(LetterDetail {
            headers: headers.iter().map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec))).collect(),
            record_key: read.record_key,
            payload: read.payload.map(|beginning| Shown { bytes: payload_bytes, beginning, json }),
            published_at: read.published_at,
            letter,
            decision,
            next,
        })
    }
}

/// As long as a read may take.
async fn in_time<T>(pool: &ReadPool, read: impl Future<Output = Result<T, DeskError>>) -> Result<T, DeskError> {
    pool.within_deadline(async { Ok(read.await) }).await?
}

fn step(step: Step, effect: impl Into<String>) -> NextStep {
    NextStep { step, effect: effect.into() }
}

fn steps_of_held(held: &HeldKey, facts: &KeyFacts, letters: &[Letter]) -> Vec<NextStep> {
    let mut steps = Vec::new();
    let at_missing = letters.iter().filter(|letter| letter.sequence == Some(held.missing_from));
    for letter in at_missing.filter(|letter| letter.status.wants_a_decision()) {
        steps.extend(repairs_of(letter));
    }
    let key = held.key.clone();
    steps.push(match facts.missing_range() {
        Ok(numbers) => step(
            Step::SkipHeld { key, from: numbers.from.0, to: numbers.to.0 },
            format!("goes on without {numbers}; what is parked behind is applied"),
        ),
        Err(not_now) => step(
            Step::LookAtDecisions(key),
            format!("{}. Nothing else has to be done about it", not_now.detail(&held.key)),
        ),
    });
    steps
}

/// Replace and redrive of a letter whose number is wanted.
fn repairs_of(letter: &Letter) -> [NextStep; 2] {
    let (needs_key, needs_sequence) = (letter.key.is_none(), letter.sequence.is_none());
    [
        step(
            Step::Replace { id: letter.id, needs_key, needs_sequence },
            "goes on with a corrected payload, which is checked against the contract first",
        ),
        step(Step::Redrive(letter.id), "goes on with the record as it was, if it can be read by now"),
    ]
}

fn steps_of_letter(letter: &Letter, allowed: Option<Result<(), NotNow>>) -> Vec<NextStep> {
    if !letter.status.wants_a_decision() {
        return Vec::new();
    }
    let skip = |effect: &str| step(Step::SkipLetter(letter.id), effect);
    let Some(allowed) = allowed else {
        let [replace, redrive] = repairs_of(letter);
        return vec![skip("closes the letter; it names no number that an order could wait for"), replace, redrive];
    };
    if allowed.is_ok() {
        let [replace, redrive] = repairs_of(letter);
        return vec![replace, redrive, skip("goes on without it")];
    }
    match closes_only(allowed) {
        Ok(_) => vec![skip("closes the letter; its number is not wanted any more, so nothing else changes")],
        Err(not_now) => {
            let key = letter.key.clone().unwrap_or_default();
            let effect = format!("{}. The letter can be decided about when it is its turn", not_now.detail(&key));
            vec![step(Step::LookAtHeld(key), effect)]
        }
    }
}
