//! From records to events, or to what speaks against them. Pure.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

use crate::codec::frame::{self, Frame};
use crate::codec::schemas::{Schemas, WriterSchema};
use crate::codec::{self, Head, Limits, Refused, json};
use crate::domain::ledger::Origin;
use crate::domain::poison::{Poison, Reason};
use crate::domain::record::Record;
use crate::domain::units::Sequence;
use crate::engine::view::{Parsed, View};

/// A record after decoding.
#[derive(Debug)]
pub struct Decoded<'a, V: View> {
    /// The record.
    pub record: Record<'a>,
    /// Its event, or why it is none.
    pub outcome: Result<Event<'a, V>, Refused<'a>>,
}

/// A decoded event.
#[derive(Debug)]
pub struct Event<'a, V: View> {
    /// Key.
    pub key: &'a str,
    /// Sequence.
    pub sequence: Sequence,
    /// As the view read it.
    pub parsed: Parsed<'a, V::Event<'a>>,
    /// Payload as JSON text.
    pub payload: Cow<'a, str>,
}

/// What Postgres said of an earlier attempt: it overrules the rules.
#[derive(Debug, Default)]
pub struct Overrules {
    /// Records that Postgres cannot hold, by where they were read.
    pub refused: HashMap<Origin, Poison>,
    /// Event ids that are the latest of a key, with that key. Asked for only after the view's constraint was violated.
    pub holders: HashMap<String, String>,
}

/// How records are read.
#[derive(Debug)]
pub struct Decoder<'a, V: View> {
    /// The view.
    pub view: &'a V,
    /// Bounds of one record.
    pub limits: Limits,
    /// What overrules the rules.
    pub overrules: &'a Overrules,
    /// The schemas of all framed records that it will meet.
    pub schemas: &'a Schemas,
}

impl<V: View> Clone for Decoder<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V: View> Copy for Decoder<'_, V> {}

/// A payload as its view read it, and its JSON text.
type Read<'a, V> = (Parsed<'a, <V as View>::Event<'a>>, Cow<'a, str>);

/// What a record says about its event outside its payload, and the payload; or why it is none.
#[derive(Debug)]
pub struct Headed<'a>(Result<(Head<'a>, &'a [u8]), Refused<'a>>);

impl<'a> Headed<'a> {
    /// The key and number that the record is about, as far as both are readable.
    pub fn place(&self) -> Option<(&'a str, Sequence)> {
        match &self.0 {
            Ok((head, _)) => Some((head.key, head.sequence)),
            Err(refused) => refused.place,
        }
    }
}

impl<'a, V: View> Decoder<'a, V> {
    /// Decodes one record.
    pub fn decode(self, record: Record<'a>) -> Decoded<'a, V> {
        self.decode_headed(record, self.head(&record))
    }

    /// Reads what stands outside the payload: which keys a batch is about has to be known before any event is taken.
    pub fn head(self, record: &Record<'a>) -> Headed<'a> {
        Headed(codec::head(record, self.limits))
    }

    /// Decodes the record whose head that is.
    pub fn decode_headed(self, record: Record<'a>, head: Headed<'a>) -> Decoded<'a, V> {
        let outcome = head.0.and_then(|(head, payload)| self.event(record, head, payload));
        Decoded { record, outcome }
    }

    fn event(self, record: Record<'a>, head: Head<'a>, payload: &'a [u8]) -> Result<Event<'a, V>, Refused<'a>> {
        let refuse = |poison| Refused { poison, place: Some((head.key, head.sequence)), key: Some(head.key) };
        if let Some(poison) = self.overrules.refused.get(&record.origin()) {
            return Err(refuse(poison.clone()));
        }
        let Head { key, sequence, .. } = head;
        let (parsed, payload) = match frame::of(&record).map_err(refuse)? {
            None => self.json(&head, payload),
            Some(frame) => self.framed(&head, frame),
        }
        .map_err(|poison| refuse(with_hint(poison, &record)))?;
        Ok(Event { key, sequence, parsed, payload })
    }

    fn json(self, head: &Head<'a>, payload: &'a [u8]) -> Result<Read<'a, V>, Poison> {
        let text = json::check_storable(payload)?;
        Ok((self.view.parse(head, text)?, Cow::Borrowed(text)))
    }

    fn framed(self, head: &Head<'a>, frame: Frame<'a>) -> Result<Read<'a, V>, Poison> {
        match self.schemas.get(frame.schema).expect("schemas of framed records are looked up before decoding") {
            WriterSchema::Json => self.json(head, frame.body),
            WriterSchema::Avro(program) => {
                let mut event = program.read(frame.body)?;
                let text = std::mem::take(&mut event.json);
                Ok((self.view.parse_avro(head, event)?, Cow::Owned(text)))
            }
            WriterSchema::Refused(poison) => Err(poison.clone()),
        }
    }
}

/// The refusal, with a hint where a common mistake of producers explains it.
fn with_hint(poison: Poison, record: &Record<'_>) -> Poison {
    let Poison { reason, detail } = poison;
    let hint = match (reason, record.payload.map(std::str::from_utf8)) {
        (Reason::MissingType | Reason::SchemaViolation, Some(Ok(text))) => json::envelope_hint(text),
        _ => "",
    };
    let header =
        if reason == Reason::MissingType { codec::in_another_case(record, "x-event-type") } else { String::new() };
    Poison::new(reason, format!("{detail}{hint}{header}"))
}

/// The keys that a batch touches.
pub fn keys_of<'a>(heads: &[Headed<'a>]) -> HashSet<&'a str, RandomState> {
    let mut keys = HashSet::with_capacity_and_hasher(heads.len(), RandomState::default());
    keys.extend(heads.iter().filter_map(Headed::place).map(|(key, _)| key));
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::record::Headers;
    use crate::domain::units::{Offset, Partition};

    #[test]
    fn a_refusal_is_explained_where_a_common_mistake_explains_it() {
        let mut bytes = Vec::new();
        Headers::push(&mut bytes, b"X-Event-Type", Some(b"OrderCreated"));
        let envelope = Some(br#"{"schema":null,"payload":{}}"#.as_slice());
        let record = |payload| Record {
            partition: Partition(0),
            offset: Offset(0),
            timestamp_ms: None,
            key: None,
            payload,
            headers: Headers::from_encoded(&bytes),
        };
        let detail = |reason, payload| with_hint(Poison::new(reason, "no"), &record(payload)).detail;
        let hints = |reason, payload| {
            let detail = detail(reason, payload);
            (detail.contains("schemas.enable"), detail.contains("`X-Event-Type`"))
        };
        assert_eq!(hints(Reason::MissingType, envelope), (true, true));
        assert_eq!(hints(Reason::SchemaViolation, envelope), (true, false));
        assert_eq!(detail(Reason::InvalidJson, envelope), "no");
        assert_eq!(detail(Reason::SchemaViolation, Some(b"\xff")), "no");
        assert_eq!(detail(Reason::SchemaViolation, None), "no");
    }
}
