//! From what the desk tells to how it is sent: hrefs, methods, links, bodies to start from, the spelling of bytes. The
//! command line uses it for `--json`, so that both print the same.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::model::{
    DecidedBody, DecidedInBulkBody, DecisionBody, HeaderBody, HeldDetailBody, HeldKeyBody, ImportedBody,
    ImpossibleBody, LetterBody, LetterDetailBody, LetterTopicBody, LinksBody, NextStepBody, ParkedEventBody,
    PayloadBody,
};
use crate::api::parameters::encode;
use crate::repair::decide::in_words;
use crate::repair::model::{
    DecidedInBulk, HeldDetail, HeldKey, Imported, Impossible, Letter, LetterDetail, LettersOfTopic, NextStep,
    OperatorDecision, Outcome, ParkedEvent, Shown, Spelled, Step, Subject,
};

/// Nothing was changed: what a dry run tells.
const OK: i32 = 200;
/// Decided; the projector follows.
const ACCEPTED: i32 = 202;

/// The answer to a call: its status and body. It is kept for a call that is made again.
pub fn spell(outcome: &Outcome) -> Spelled {
    match outcome {
        Outcome::Decided(decisions) => Spelled { code: ACCEPTED, body: value(&decided(decisions)) },
        Outcome::InBulk(bulk) => {
            let code = if bulk.dry_run { OK } else { ACCEPTED };
            Spelled { code, body: value(&DecidedInBulkBody::from(bulk.clone())) }
        }
    }
}

fn value(body: &impl Serialize) -> Value {
    serde_json::to_value(body).expect("answers are plain data")
}

fn decided(decisions: &[OperatorDecision]) -> DecidedBody {
    let (detail, key) = in_words(decisions);
    let links = match (key, decisions.first()) {
        (Some(key), Some(decision)) => links_of(&decision.view, key),
        _ => LinksBody::default(),
    };
    DecidedBody { decisions: decisions.iter().cloned().map(DecisionBody::from).collect(), detail, links }
}

/// Where to look for a key.
fn links_of(view: &str, key: &str) -> LinksBody {
    let key = encode(key);
    LinksBody {
        row: Some(format!("/{view}/{key}")),
        held: Some(format!("/ops/held/{key}")),
        decisions: Some(format!("/ops/decisions?key={key}")),
        position: None,
    }
}

fn href_of_held(key: &str) -> String {
    format!("/ops/held/{}", encode(key))
}

fn href_of_letter(id: i64) -> String {
    format!("/ops/dead-letters/{id}")
}

impl From<LettersOfTopic> for LetterTopicBody {
    fn from(LettersOfTopic { topic, letters, newest_at }: LettersOfTopic) -> Self {
        LetterTopicBody { topic, letters, newest_at }
    }
}

impl From<NextStep> for NextStepBody {
    fn from(next: NextStep) -> Self {
        let action = next.step.action().map_or("look", |action| action.as_str());
        let (href, body) = match next.step {
            Step::SkipHeld { key, from, to } => (
                format!("{}/skip", href_of_held(&key)),
                Some(json!({ "reason": "why the order can do without it", "from": from, "to": to })),
            ),
            Step::SkipLetter(id) => {
                (format!("{}/skip", href_of_letter(id)), Some(json!({ "reason": "why it is not needed" })))
            }
            Step::Replace { id, needs_key, needs_sequence } => {
                let mut body = json!({ "reason": "what was wrong with it", "payload": { "…": "the corrected event" } });
                if needs_key {
                    body["key"] = json!("the key that it belongs to");
                }
                if needs_sequence {
                    body["sequence"] = json!(1);
                }
                (format!("{}/replace", href_of_letter(id)), Some(body))
            }
            Step::Redrive(id) => {
                (format!("{}/redrive", href_of_letter(id)), Some(json!({ "reason": "what has been mended since" })))
            }
            Step::LookAtHeld(key) => (href_of_held(&key), None),
            Step::LookAtDecisions(key) => (format!("/ops/decisions?key={}", encode(&key)), None),
        };
        let method = if body.is_some() { "POST" } else { "GET" };
        NextStepBody { action, effect: next.effect, method, href, body }
    }
}

impl From<HeldKey> for HeldKeyBody {
    fn from(held: HeldKey) -> Self {
        HeldKeyBody {
            href: href_of_held(&held.key),
            view: held.view,
            key: held.key,
            reason: held.reason.as_str(),
            missing_from: held.missing_from,
            missing_to: held.missing_to,
            refused_count: held.refused_count,
            parked_count: held.parked_count,
            parked_bytes: held.parked_bytes,
            since: held.since,
            proven_at: held.proven_at,
            decided: held.decided,
        }
    }
}

impl From<HeldDetail> for HeldDetailBody {
    fn from(detail: HeldDetail) -> Self {
        HeldDetailBody {
            links: LinksBody { held: None, ..links_of(&detail.held.view, &detail.held.key) },
            held: detail.held.into(),
            refused: detail.refused,
            parked: detail.parked.into_iter().map(Into::into).collect(),
            dead_letters: detail.dead_letters.into_iter().map(Into::into).collect(),
            decisions: detail.decisions.into_iter().map(Into::into).collect(),
            next: detail.next.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<ParkedEvent> for ParkedEventBody {
    fn from(event: ParkedEvent) -> Self {
        let ParkedEvent { sequence, event_id, event_type, occurred_at, topic, partition, offset, parked_at, payload } =
            event;
        let payload = PayloadBody::of(&payload, false);
        ParkedEventBody { sequence, event_id, event_type, occurred_at, topic, partition, offset, parked_at, payload }
    }
}

impl From<Letter> for LetterBody {
    fn from(letter: Letter) -> Self {
        LetterBody {
            href: href_of_letter(letter.id),
            id: letter.id,
            view: letter.view,
            status: letter.status.as_str(),
            reason: letter.reason,
            error: letter.error,
            key: letter.key,
            sequence: letter.sequence,
            topic: letter.topic,
            partition: letter.partition,
            offset: letter.offset,
            record_time: letter.record_time,
            created_at: letter.created_at,
            payload_bytes: letter.payload_bytes,
            decision_id: letter.decision_id,
            refused_because: letter.refused_because,
        }
    }
}

impl From<LetterDetail> for LetterDetailBody {
    fn from(detail: LetterDetail) -> Self {
        let letter = &detail.letter;
        let links = letter.key.as_deref().map_or_else(LinksBody::default, |key| links_of(&letter.view, key));
        let position = Some(format!("{}/{}/{}", letter.topic, letter.partition, letter.offset));
        let record_key = detail.record_key.map(|key| Shown { bytes: key.len() as i64, beginning: key, json: None });
        LetterDetailBody {
            headers: detail.headers.into_iter().map(header).collect(),
            record_key: record_key.map(|key| PayloadBody::of(&key, false)),
            payload: detail.payload.map(|payload| PayloadBody::of(&payload, true)),
            published_at: detail.published_at,
            letter: detail.letter.into(),
            decision: detail.decision.map(Into::into),
            next: detail.next.into_iter().map(Into::into).collect(),
            links: LinksBody { position, ..links },
        }
    }
}

fn header((name, value): (String, Option<Vec<u8>>)) -> HeaderBody {
    let text = value.as_deref().and_then(|value| std::str::from_utf8(value).ok()).map(str::to_owned);
    let base64 = value.filter(|_| text.is_none()).map(|value| STANDARD.encode(value));
    HeaderBody { name, text, base64 }
}

impl PayloadBody {
    /// As JSON if it is that and whole or was read as that, else as text if it is that; and in base64 if it is neither or
    /// `raw` asks for it.
    fn of(shown: &Shown, raw: bool) -> Self {
        let Shown { bytes, beginning, json } = shown;
        let truncated = (beginning.len() as i64) < *bytes;
        let text = match std::str::from_utf8(beginning) {
            Ok(text) => Some(text),
            // Cut inside a character.
            Err(error) if truncated && error.error_len().is_none() => {
                std::str::from_utf8(&beginning[..error.valid_up_to()]).ok()
            }
            Err(_) => None,
        };
        let parse = |text: &str| RawValue::from_string(text.to_owned()).ok();
        let json = json.as_deref().and_then(parse).or_else(|| text.filter(|_| !truncated).and_then(parse));
        let base64 = (raw || text.is_none()).then(|| STANDARD.encode(beginning));
        let text = text.filter(|_| json.is_none()).map(str::to_owned);
        PayloadBody { bytes: *bytes, truncated, json, text, base64 }
    }
}

impl From<OperatorDecision> for DecisionBody {
    fn from(decision: OperatorDecision) -> Self {
        DecisionBody {
            id: decision.id,
            view: decision.view,
            action: decision.action.as_str().to_owned(),
            status: decision.status.as_str().to_owned(),
            key: decision.key,
            sequence: decision.sequence,
            sequence_to: decision.sequence_to,
            topic: decision.topic,
            partition: decision.partition,
            offset: decision.offset,
            payload_bytes: decision.payload_bytes,
            reason: decision.reason,
            actor: decision.actor,
            on_behalf_of: decision.on_behalf_of,
            decided_at: decision.decided_at,
            taken_at: decision.taken_at,
            refused: decision.refused,
        }
    }
}

impl From<DecidedInBulk> for DecidedInBulkBody {
    fn from(bulk: DecidedInBulk) -> Self {
        let name = |subject| match subject {
            Subject::Key(key) => json!(key),
            Subject::Letter(id) => json!(id),
        };
        DecidedInBulkBody {
            dry_run: bulk.dry_run,
            matched: bulk.matched,
            more: bulk.more,
            possible: bulk.possible,
            decided: bulk.decided,
            sample: bulk.sample.into_iter().map(name).collect(),
            impossible: bulk.impossible,
            impossible_sample: bulk.impossible_sample.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<Impossible> for ImpossibleBody {
    fn from(impossible: Impossible) -> Self {
        let Impossible { key, letter, obstacle, detail } = impossible;
        ImpossibleBody { key, dead_letter_id: letter, code: obstacle.as_str().to_owned(), detail }
    }
}

impl From<&Imported> for ImportedBody {
    fn from(imported: &Imported) -> Self {
        ImportedBody { read: imported.read, imported: imported.imported, known: imported.known }
    }
}
