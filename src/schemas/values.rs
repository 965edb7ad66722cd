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

/// So long a schema that could not be had is not asked for again: thousands of values a second may name it.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Most schemas remembered as such.
const MAX_ABSENT: NonZeroUsize = NonZeroUsize::new(1_000).expect("is not 0");

/// Reads values by the schemas of a registry.
pub struct Values {
    client: Option<RegistryClient>,
    source: SchemaSource,
    absent: Mutex<LruCache<SchemaName, (Instant, PortError)>>,
}

impl Values {
    /// By the registry of these settings; where none is configured, framed values cannot be read. An error is one of the
    /// settings'.
    pub fn new(settings: &SchemaRegistrySettings, metrics: Arc<Metrics>) -> Result<Values> {
        Ok(Values {
            client: if settings.url.is_empty() { None } else { Some(RegistryClient::new(settings)?) },
            source: SchemaSource::new("stream_manager", Shape::NONE, settings, metrics)?,
            absent: Mutex::new(LruCache::new(MAX_ABSENT)),
        })
    }

    fn absent(&self) -> MutexGuard<'_, LruCache<SchemaName, (Instant, PortError)>> {
        self.absent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn schema(&self, name: SchemaName, value: &[u8]) -> Result<WriterSchema, PortError> {
        let known = self.absent().get(&name).filter(|(since, _)| since.elapsed() < ASK_AGAIN).cloned();
        if let Some((_, why)) = known {
            return Err(why);
        }
        let found = self.source.find(name, Origin::NOWHERE, value).await.map_err(|absent| {
            PortError::Unavailable(match absent {
                Absent::Away(why) => why,
                Absent::Unknown { .. } => format!("schema {name} is not in the registry"),
            })
        });
        if let Err(why) = &found {
            self.absent().put(name, (Instant::now(), why.clone()));
        }
        found
    }
}

#[async_trait]
impl Schemas for Values {
    async fn columns_of(&self, topic: &str) -> Result<Option<(Format, Vec<Column>)>, PortError> {
        let Some(client) = &self.client else { return Ok(None) };
        let path = format!("/subjects/{}/versions/latest", escape(&format!("{topic}-value")));
        let schema: Registered = match client.get(&path).await {
            Ok(schema) => schema,
            Err(Fault::NotFound(..)) => return Ok(None),
            Err(fault) => return Err(PortError::Unavailable(fault.to_string())),
        };
        let refused = |why: String| PortError::Refused(format!("topic {topic} has no columns: {why}"));
        match schema.kind() {
            "AVRO" => {
                let references = client.references(&schema).await;
                let references = references.map_err(|fault| PortError::Unavailable(fault.to_string()))?;
                let columns = columns_of_avro(&schema.schema, &references).map_err(refused)?;
                Ok(Some((Format::Avro, columns)))
            }
            "JSON" => Ok(Some((Format::Json, columns_of_json_schema(&schema.schema).map_err(refused)?))),
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
