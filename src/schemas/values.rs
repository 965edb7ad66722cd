//! The registry as the stream manager needs it: the columns of a topic's values, and values as JSON. The schemas of framed
//! values come from the same cache as those of a view's records.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use async_trait::async_trait;
use lru::LruCache;
use serde_json::value::RawValue;

use crate::codec::avro::Shape;
use crate::codec::frame::{self, Frame, SchemaName};
use crate::codec::schemas::WriterSchema;
use crate::config::SchemaRegistrySettings;
use crate::domain::ledger::Origin;
use crate::domain::record::Headers;
use crate::manager::catalog::{Column, Format, columns_of_avro, columns_of_json_schema, exact_numbers};
use crate::manager::ports::{Decoded, PortError, Schemas};
use crate::schemas::client::{Fault, Registered, RegistryClient, escape};
use crate::schemas::source::{Absent, SchemaSource};
use crate::telemetry::metrics::Metrics;

/// So long a schema that could not be had is not asked for again, and nothing else either where the registry is away: thousands
/// of values a second may name schemas, and those who watch wait for each question.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Most schemas remembered as such.
const MAX_ABSENT: NonZeroUsize = NonZeroUsize::new(1_000).expect("is not 0");
/// Most schemas that are asked for in a second. Whatever begins with a zero byte seems to name one: numbers do, each another.
const MOST_QUESTIONS: u32 = 20;

/// Reads values by the schemas of a registry.
pub struct Values {
    client: Option<RegistryClient>,
    source: SchemaSource,
    questions: Mutex<Questions>,
}

impl Values {
    /// By the registry of these settings; where none is configured, framed values cannot be read. An error is one of the
    /// settings'.
    pub fn new(settings: &SchemaRegistrySettings, metrics: Arc<Metrics>) -> Result<Values> {
        Ok(Values {
            client: if settings.url.is_empty() { None } else { Some(RegistryClient::new(settings)?) },
            source: SchemaSource::new("stream_manager", Shape::SQL, settings, metrics)?,
            questions: Mutex::new(Questions::new(Instant::now())),
        })
    }

    fn questions(&self) -> MutexGuard<'_, Questions> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn schema(&self, name: SchemaName, value: &[u8]) -> Result<WriterSchema, PortError> {
        if let Some(known) = self.source.known(name) {
            return Ok(known);
        }
        self.questions().may_ask(name, Instant::now())?;
        let answer = self.source.find(name, Origin::NOWHERE, value).await;
        let why = match answer {
            // What is not kept is no schema: the registry does not know it, and the value only looks like a frame.
            Ok(WriterSchema::Refused(poison)) if self.source.known(name).is_none() => PortError::Refused(poison.detail),
            Ok(schema) => return Ok(schema),
            Err(Absent::Unknown { .. }) => PortError::Unavailable(format!(
                "schema {name} is not in the registry: register it there, or set schema_registry.not_found = dead_letter and \
                 restart, so that such records are refused"
            )),
            Err(Absent::Away(why)) => {
                let why = PortError::Unavailable(why);
                self.questions().away(why.clone(), Instant::now());
                return Err(why);
            }
        };
        self.questions().absent(name, why.clone(), Instant::now());
        Err(why)
    }
}

/// What the registry is asked, and what it is not asked again for a while. Pure.
struct Questions {
    absent: LruCache<SchemaName, (Instant, PortError)>,
    away: Option<(Instant, PortError)>,
    /// Since when they are counted, and how many there were.
    counted: (Instant, u32),
}

impl Questions {
    fn new(now: Instant) -> Questions {
        Questions { absent: LruCache::new(MAX_ABSENT), away: None, counted: (now, 0) }
    }

    /// Whether a schema may be asked for now: it is counted, then. Else why it cannot be had.
    fn may_ask(&mut self, name: SchemaName, now: Instant) -> Result<(), PortError> {
        let lasts = |since: &Instant| now.saturating_duration_since(*since) < ASK_AGAIN;
        let away = self.away.as_ref().filter(|(since, _)| lasts(since));
        let absent = self.absent.get(&name).filter(|(since, _)| lasts(since));
        if let Some((_, why)) = absent.or(away) {
            return Err(why.clone());
        }
        if now.saturating_duration_since(self.counted.0) >= Duration::from_secs(1) {
            self.counted = (now, 0);
        }
        if self.counted.1 >= MOST_QUESTIONS {
            return Err(PortError::Unavailable(format!(
                "schema {name} is not asked for: {MOST_QUESTIONS} others were within a second"
            )));
        }
        self.counted.1 += 1;
        Ok(())
    }

    fn absent(&mut self, name: SchemaName, why: PortError, now: Instant) {
        self.absent.put(name, (now, why));
    }

    fn away(&mut self, why: PortError, now: Instant) {
        self.away = Some((now, why));
    }
}

#[async_trait]
impl Schemas for Values {
    async fn columns_of(&self, topic: &str) -> Result<Option<(Format, Vec<Column>)>, PortError> {
        let Some(client) = &self.client else { return Ok(None) };
        let path = format!("/subjects/{}/versions/latest", escape(&format!("{topic}-value")));
        let refused = |why: String| PortError::Refused(format!("topic {topic} has no columns: {why}"));
        let failed = |fault: Fault| match fault {
            Fault::Unusable(why) => refused(format!("its schema cannot be read: {why}")),
            fault => PortError::Unavailable(fault.to_string()),
        };
        let schema: Registered = match client.get(&path).await {
            Ok(schema) => schema,
            Err(Fault::NotFound(..)) => return Ok(None),
            Err(fault) => return Err(failed(fault)),
        };
        match schema.kind() {
            "AVRO" => {
                let references = client.references(&schema).await.map_err(failed)?;
                let columns = columns_of_avro(&schema.schema, &references).map_err(refused)?;
                Ok(Some((Format::Avro, columns)))
            }
            "JSON" => Ok(Some((Format::JsonSchema, columns_of_json_schema(&schema.schema).map_err(refused)?))),
            other => Err(refused(format!("its schema is {other}; Avro and JSON Schema are read"))),
        }
    }

    async fn decode(&self, value: &[u8]) -> Result<Option<Decoded>, PortError> {
        // What only begins with a zero byte is no frame, whatever else it may be.
        let Ok(Some(Frame { schema, body })) = frame::of_value(Headers::default(), value) else { return Ok(None) };
        match self.schema(schema, value).await? {
            WriterSchema::Json => match serde_json::from_slice::<&RawValue>(body) {
                Ok(json) => Ok(Some(Decoded { format: Format::Json, json: exact_numbers(json.get()).into_owned() })),
                Err(error) => {
                    Err(PortError::Refused(format!("schema {schema} is JSON Schema, the value is no JSON: {error}")))
                }
            },
            WriterSchema::Avro(program) => match program.read(body) {
                Ok(event) => Ok(Some(Decoded { format: Format::Avro, json: exact_numbers(&event.json).into_owned() })),
                Err(poison) => Err(PortError::Refused(poison.detail)),
            },
            WriterSchema::Refused(poison) => Err(PortError::Refused(poison.detail)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_asked_so_often_and_not_at_all_for_a_while_when_it_is_away() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut questions = Questions::new(start);
        let asked = |questions: &mut Questions, ids: std::ops::Range<u32>, now| {
            ids.filter(|id| questions.may_ask(SchemaName::Id(*id), now).is_ok()).count()
        };
        assert_eq!(asked(&mut questions, 0..1_000, at(0)), 20, "numbers, each of which seems to name another one");
        assert_eq!(asked(&mut questions, 0..1_000, at(999)), 0);
        assert_eq!(asked(&mut questions, 0..1_000, at(1_000)), 20);
        questions.absent(SchemaName::Id(7), PortError::Refused("no event".to_owned()), at(2_000));
        assert_eq!(asked(&mut questions, 7..8, at(6_999)), 0, "a refusal is kept");
        assert_eq!(asked(&mut questions, 8..9, at(6_999)), 1);
        assert_eq!(asked(&mut questions, 7..8, at(7_000)), 1);
        questions.away(PortError::Unavailable("away".to_owned()), at(8_000));
        assert_eq!(asked(&mut questions, 0..1_000, at(12_999)), 0, "whatever the id");
        assert_eq!(asked(&mut questions, 0..1, at(13_000)), 1);
    }
}
