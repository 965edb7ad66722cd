//! What operators are shown: lists, one held key, one dead letter, and what can be done next.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use jiff::Timestamp;
use serde_json::json;

use super::decide::{closes_only, no_such_letter, not_held};
use super::model::{
    Action, Decision, Header, HeldDetail, HeldKey, Letter, LetterDetail, Links, NextStep, ParkedEvent, Payload,
};
use super::request::{DecisionFilter, HeldFilter, LetterFilter};
use super::rules::{KeyFacts, NotNow};
use super::{Desk, DeskError};
use crate::api::parameters::encode;
use crate::domain::record::{Headers, Record};
use crate::repair::facts::numbers;
use crate::store::read::{ReadError, within_deadline};
use crate::store::repair_read::{self, ParkedRead};

/// Parked events, letters and decisions shown with a held key.
const SHOWN: i64 = 20;
/// Bytes of a parked event's value that are read, so that its type can be told.
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
        within_deadline(async {
            let client = self.pool.get().await?;
            Ok(repair_read::held(&client, self.view, filter, after, i64::from(limit) + 1).await?)
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
        within_deadline(async {
            let client = self.pool.get().await?;
            Ok(repair_read::letters(&client, self.view, filter, before, i64::from(limit) + 1).await?)
        })
        .await
    }

    /// A page of decisions; one more than `limit` if there is a next page.
    pub async fn list_decisions(
        &self,
        filter: &DecisionFilter,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Decision>, ReadError> {
        within_deadline(async {
            let client = self.pool.get().await?;
            Ok(repair_read::decisions(&client, self.view, filter, before, i64::from(limit) + 1).await?)
        })
        .await
    }

    /// A held key with all that is known about it.
    pub async fn show_held(&self, key: &str) -> Result<HeldDetail, DeskError> {
        in_time(self.read_held(key)).await
    }

    async fn read_held(&self, key: &str) -> Result<HeldDetail, DeskError> {
        let client = self.pool.get().await.map_err(ReadError::from)?;
        let read = repair_read::held_key(&client, self.view, key).await?.ok_or_else(|| not_held(key))?;
        let from = read.held.missing_from;
        let parked = repair_read::parked(&client, self.view, key, SHOWN, PARKED_BYTES).await?;
        let dead_letters = repair_read::letters_of_key(&client, self.view, key, from, SHOWN).await?;
        let decisions = repair_read::decisions_of_key(&client, self.view, key, SHOWN).await?;
        let facts = self.facts(&client, &[key]).await?.remove(key).unwrap_or_default();
        let next = steps_of_held(&read.held, &facts, &dead_letters);
        let parked = parked.into_iter().map(|parked| self.parked_event(key, parked));
        Ok(HeldDetail {
            parked: join_all(parked).await,
            links: Links { held: None, ..self.links_of(key) },
            refused: read.refused,
            held: read.held,
            dead_letters,
            decisions,
            next,
        })
    }

    async fn parked_event(&self, key: &str, read: ParkedRead) -> ParkedEvent {
        let ParkedRead { sequence, event_id, topic, partition, offset, timestamp_ms, parked_at, .. } = read;
        let whole = read.payload.len() as i64 == read.payload_bytes;
        let record = Record {
            partition,
            offset,
            timestamp_ms,
            key: Some(key.as_bytes()),
            payload: Some(&read.payload),
            headers: Headers::from_encoded(&read.headers),
        };
        let event = if whole { self.checker.look(record).await } else { None };
        let shown = &read.payload[..read.payload.len().min(PREVIEW_BYTES)];
        let json = event.as_ref().and_then(|event| event.json.as_deref());
        ParkedEvent {
            sequence,
            event_id,
            event_type: event.as_ref().map(|event| event.event_type.clone()),
            occurred_at: event.as_ref().and_then(|event| Timestamp::from_microsecond(event.occurred_at).ok()),
            topic,
            partition,
            offset,
            parked_at,
            payload: Payload::of(shown, read.payload_bytes, false).decoded(json),
        }
    }

    /// A dead letter with its record.
    pub async fn show_letter(&self, id: i64) -> Result<LetterDetail, DeskError> {
        in_time(self.read_letter(id)).await
    }

    async fn read_letter(&self, id: i64) -> Result<LetterDetail, DeskError> {
        let client = self.pool.get().await.map_err(ReadError::from)?;
        let read =
            repair_read::letter(&client, self.view, id, LETTER_BYTES).await?.ok_or_else(|| no_such_letter(id))?;
        let letter = read.letter;
        let decision = match letter.decision_id {
            Some(decision) => repair_read::decisions_by_id(&client, &[decision]).await?.pop(),
            None => None,
        };
        let allowed = match letter.key.as_deref().zip(letter.sequence) {
            Some((key, sequence)) => Some(self.may_decide_one(&client, key, sequence).await?),
            None => None,
        };
        let next = steps_of_letter(&letter, allowed);
        let mut links = letter.key.as_deref().map_or_else(Links::default, |key| self.links_of(key));
        links.position = Some(format!("{}/{}/{}", letter.topic, letter.partition, letter.offset));
        let payload_bytes = letter.payload_bytes.unwrap_or(0);
        let record = Record {
            partition: letter.partition,
            offset: letter.offset,
            timestamp_ms: None,
            key: read.record_key.as_deref(),
            payload: read.payload.as_deref().filter(|payload| payload.len() as i64 == payload_bytes),
            headers: Headers::from_encoded(&read.headers),
        };
        let event = self.checker.look(record).await;
        let json = event.as_ref().and_then(|event| event.json.as_deref());
        Ok(LetterDetail {
            headers: Headers::from_encoded(&read.headers).iter().map(header).collect(),
            record_key: read.record_key.map(|key| Payload::of(&key, key.len() as i64, false)),
            payload: read.payload.map(|payload| Payload::of(&payload, payload_bytes, true).decoded(json)),
            published_at: read.published_at,
            letter,
            decision,
            next,
            links,
        })
    }
}

/// As long as a read may take.
async fn in_time<T>(read: impl Future<Output = Result<T, DeskError>>) -> Result<T, DeskError> {
    within_deadline(async { Ok(read.await) }).await?
}

fn header((name, value): (&str, Option<&[u8]>)) -> Header {
    let text = value.and_then(|value| std::str::from_utf8(value).ok()).map(str::to_owned);
    let base64 = value.filter(|_| text.is_none()).map(|value| STANDARD.encode(value));
    Header { name: name.to_owned(), text, base64 }
}

fn post(action: Action, effect: impl Into<String>, href: String, body: serde_json::Value) -> NextStep {
    NextStep { action: action.as_str(), effect: effect.into(), method: "POST", href, body: Some(body) }
}

fn look(effect: impl Into<String>, href: String) -> NextStep {
    NextStep { action: "look", effect: effect.into(), method: "GET", href, body: None }
}

fn steps_of_held(held: &HeldKey, facts: &KeyFacts, letters: &[Letter]) -> Vec<NextStep> {
    let mut steps = Vec::new();
    let at_missing = letters.iter().filter(|letter| letter.sequence == Some(held.missing_from));
    for letter in at_missing.filter(|letter| matches!(letter.status.as_str(), "open" | "refused")) {
        steps.extend(repairs_of(letter));
    }
    match facts.missing_range() {
        Ok((from, to)) => steps.push(post(
            Action::Skip,
            format!("goes on without {}; what is parked behind is applied", numbers(from, to)),
            format!("{}/skip", held.href),
            json!({ "reason": "why the order can do without it", "from": from, "to": to }),
        )),
        Err(not_now) => steps.push(look(
            format!("{}. Nothing else has to be done about it", not_now.detail(&held.key)),
            format!("/ops/decisions?key={}", encode(&held.key)),
        )),
    }
    steps
}

/// Replace and redrive of a letter whose number is wanted.
fn repairs_of(letter: &Letter) -> [NextStep; 2] {
    let mut body = json!({ "reason": "what was wrong with it", "payload": { "…": "the corrected event" } });
    if letter.key.is_none() {
        body["key"] = json!("the key that it belongs to");
    }
    if letter.sequence.is_none() {
        body["sequence"] = json!(1);
    }
    [
        post(
            Action::Replace,
            "goes on with a corrected payload, which is checked against the contract first",
            format!("{}/replace", letter.href),
            body,
        ),
        post(
            Action::Redrive,
            "goes on with the record as it was, if it can be read by now",
            format!("{}/redrive", letter.href),
            json!({ "reason": "what has been mended since" }),
        ),
    ]
}

fn steps_of_letter(letter: &Letter, allowed: Option<Result<(), NotNow>>) -> Vec<NextStep> {
    if !matches!(letter.status.as_str(), "open" | "refused") {
        return Vec::new();
    }
    let skip = |effect: &str| {
        let body = json!({ "reason": "why it is not needed" });
        post(Action::Skip, effect, format!("{}/skip", letter.href), body)
    };
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
        Err(not_now) => vec![look(
            format!(
                "{}. The letter can be decided about when it is its turn",
                not_now.detail(letter.key.as_deref().unwrap_or_default())
            ),
            format!("/ops/held/{}", encode(letter.key.as_deref().unwrap_or_default())),
        )],
    }
}
