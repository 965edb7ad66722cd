//! The schemas of framed records, for one view: cached when the registry has given them, compiled once.
//!
//! Only good answers are kept, and for as long as there is room: an id never changes its meaning. Whatever else the
//! registry says is asked again with the next attempt.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use lru::LruCache;

use crate::codec::avro::{Program, Reader, Shape};
use crate::codec::schemas::WriterSchema;
use crate::config::{NotFoundPolicy, SchemaRegistrySettings};
use crate::domain::poison::{Poison, Reason};
use crate::domain::units::{Offset, Partition};
use crate::failure::Failure;
use crate::schemas::client::{Fault, RegistryClient};
use crate::telemetry::metrics::Metrics;

/// Most compiled schemas in memory.
const MAX_SCHEMAS: NonZeroUsize = NonZeroUsize::new(1_000).expect("is not 0");
/// Most ids remembered as not found; beyond that their time of grace begins again.
const MAX_MISSING: NonZeroUsize = NonZeroUsize::new(1_000).expect("is not 0");

/// Finds the schemas of framed records.
pub struct SchemaSource {
    view: &'static str,
    /// None: no registry is configured.
    client: Option<RegistryClient>,
    reader: Reader,
    grace: Duration,
    policy: NotFoundPolicy,
    metrics: Arc<Metrics>,
    memory: Mutex<Memory>,
}

struct Memory {
    found: LruCache<u32, WriterSchema>,
    /// Since when a healthy registry has said that it does not know the id.
    missing: LruCache<u32, Instant>,
}

impl SchemaSource {
    /// For a view that wants `shape`. An error is one of the settings'.
    pub fn new(
        view: &'static str,
        shape: Shape,
        settings: &SchemaRegistrySettings,
        metrics: Arc<Metrics>,
    ) -> Result<Self> {
        let client = if settings.url.is_empty() { None } else { Some(RegistryClient::new(settings)?) };
        Ok(SchemaSource {
            view,
            client,
            reader: Reader::new(shape),
            grace: Duration::from_millis(settings.not_found_grace_ms),
            policy: settings.not_found,
            metrics,
            memory: Mutex::new(Memory { found: LruCache::new(MAX_SCHEMAS), missing: LruCache::new(MAX_MISSING) }),
        })
    }

    /// What the id of a record at that position means.
    pub async fn find(&self, id: u32, partition: Partition, offset: Offset) -> Result<WriterSchema, Failure> {
        if let Some(known) = self.memory().found.get(&id) {
            return Ok(known.clone());
        }
        let place = format!("schema {id} of the record at partition {partition}, offset {offset}");
        let Some(client) = &self.client else {
            // Any stray value may begin with a zero: one of those must not stop everybody. A whole topic of framed
            // records is dead letters then, which can be redriven in one call.
            let detail = format!(
                "the value is framed with schema {id}, and no registry is configured: set schema_registry.url, restart, \
                 then redrive"
            );
            return Ok(WriterSchema::Refused(Poison::new(Reason::UnsupportedSchema, detail)));
        };
        let answer = fetch(client, &self.reader, id).await;
        let result = answer.as_ref().err().map_or("ok", Fault::as_str);
        self.metrics.registry_requests.with_label_values(&[self.view, result]).inc();
        match answer {
            Ok(schema) => {
                tracing::info!(view = self.view, schema_id = id, "schema fetched");
                let mut memory = self.memory();
                memory.missing.pop(&id);
                memory.found.put(id, schema.clone());
                Ok(schema)
            }
            Err(Fault::NotFound(code, message)) => self.missing(id, &place, code, &message),
            Err(fault) => Err(Failure::RegistryAway(format!("{fault}; {place} is wanted"))),
        }
    }

    /// A healthy registry does not know the id: perhaps not yet.
    fn missing(&self, id: u32, place: &str, code: u32, message: &str) -> Result<WriterSchema, Failure> {
        let since = *self.memory().missing.get_or_insert(id, Instant::now);
        let detail = format!("{place} is not in the registry: {code} {message}");
        if since.elapsed() < self.grace {
            return Err(Failure::RegistryAway(detail));
        }
        match self.policy {
            NotFoundPolicy::Halt => Err(Failure::halt(
                "schema_not_found",
                detail,
                "register the schema under that id or point schema_registry.url at the registry that has it, then \
                 restart; or set schema_registry.not_found = dead_letter",
            )),
            NotFoundPolicy::DeadLetter => Ok(WriterSchema::Refused(Poison::new(Reason::SchemaNotFound, detail))),
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn fetch(client: &RegistryClient, reader: &Reader, id: u32) -> Result<WriterSchema, Fault> {
    let refused = |detail: String| WriterSchema::Refused(Poison::new(Reason::UnsupportedSchema, detail));
    let schema = client.schema(id).await?;
    match schema.kind() {
        "JSON" => Ok(WriterSchema::Json),
        "AVRO" => {
            let references = client.references(&schema).await?;
            Ok(match Program::compile(reader, &schema.schema, &references) {
                Ok(program) => WriterSchema::Avro(Arc::new(program)),
                Err(why) => refused(format!("schema {id} cannot be read: {why}")),
            })
        }
        other => Ok(refused(format!("schema {id} is {other}; Avro and JSON Schema are read"))),
    }
}
