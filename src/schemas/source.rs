//! The schemas of framed records, for one view: cached when the registry has given them, compiled once.
//!
//! Only good answers are kept, and for as long as there is room: an id never changes its meaning. Whatever else the
//! registry says is asked again with the next attempt.

use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use lru::LruCache;

use crate::codec::avro::{Program, Reader, Shape, Unsupported};
use crate::codec::frame::{self, SchemaName};
use crate::codec::schemas::WriterSchema;
use crate::config::{NotFoundPolicy, SchemaRegistrySettings};
use crate::domain::ledger::Origin;
use crate::domain::poison::{Poison, Reason};
use crate::schemas::client::{Fault, RegistryClient};
use crate::telemetry::metrics::Metrics;

/// Most compiled schemas in memory.
const MAX_SCHEMAS: NonZeroUsize = NonZeroUsize::new(1_000).expect("is not 0");
/// Most ids remembered as not found; beyond that their time of grace begins again.
const MAX_MISSING: NonZeroUsize = NonZeroUsize::new(1_000).expect("is not 0");

/// Why a schema cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absent {
    /// The registry does not answer as it should: all that need it wait.
    Away(String),
    /// The registry is well and does not know it: the fault of one record, or of the registry that was configured.
    Unknown {
        /// What it says, and what can be done.
        detail: String,
        /// Whether the time is over in which it might have turned up.
        is_lasting: bool,
    },
}

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
    found: LruCache<SchemaName, WriterSchema>,
    /// Since when a healthy registry has said that it does not know the schema.
    missing: LruCache<SchemaName, Instant>,
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

    /// A schema that the registry has given before.
    pub fn known(&self, name: SchemaName) -> Option<WriterSchema> {
        self.memory().found.get(&name).cloned()
    }

    /// The schema that a record names; `payload` is its value.
    pub async fn find(&self, name: SchemaName, origin: Origin, payload: &[u8]) -> Result<WriterSchema, Absent> {
        if let Some(known) = self.known(name) {
            return Ok(known);
        }
        let Origin { partition, offset } = origin;
        let place = format!("schema {name} of the record at partition {partition}, offset {offset}");
        let Some(client) = &self.client else {
            // Any stray value may begin with a zero: one of those must not stop everybody. A whole topic of framed
            // records is dead letters then, which can be redriven in one call.
            let detail = format!(
                "the value is framed with schema {name}, and no registry is configured: set schema_registry.url, restart, \
                 then redrive"
            );
            return Ok(WriterSchema::Refused(Poison::new(Reason::UnsupportedSchema, detail)));
        };
        let answer = fetch(client, &self.reader, name).await;
        let result = answer.as_ref().err().map_or("ok", Fault::as_str);
        self.metrics.registry_requests.with_label_values(&[self.view, result]).inc();
        match answer {
            Ok(schema) => {
                tracing::info!(view = self.view, schema = %name, "schema fetched");
                let mut memory = self.memory();
                memory.missing.pop(&name);
                memory.found.put(name, schema.clone());
                Ok(schema)
            }
            Err(Fault::NotFound(code, message)) => {
                let said = format!("{place} is not in the registry: {code} {message}");
                match frame::disguised(payload) {
                    Some(what) => {
                        let detail = format!("{said}; the value looks like {what} rather than an event");
                        Ok(WriterSchema::Refused(Poison::new(Reason::UnsupportedSchema, detail)))
                    }
                    None => self.missing(name, said),
                }
            }
            Err(fault) => Err(Absent::Away(format!("{fault}; {place} is wanted"))),
        }
    }

    /// A healthy registry does not know the schema: perhaps not yet.
    fn missing(&self, name: SchemaName, said: String) -> Result<WriterSchema, Absent> {
        let since = *self.memory().missing.get_or_insert(name, Instant::now);
        let is_lasting = since.elapsed() >= self.grace;
        match self.policy {
            NotFoundPolicy::DeadLetter if is_lasting => {
                Ok(WriterSchema::Refused(Poison::new(Reason::SchemaNotFound, said)))
            }
            // The same words as long as it lasts: it is logged when they change.
            _ if !is_lasting => {
                let grace = self.grace.as_millis();
                let detail =
                    format!("{said}. It may turn up: for that it has {grace} ms (schema_registry.not_found_grace_ms)");
                Err(Absent::Unknown { detail, is_lasting })
            }
            _ => {
                let detail = format!(
                    "{said}. Register the schema under that id, or point schema_registry.url at the registry that has it and \
                     restart, or set schema_registry.not_found = dead_letter and restart"
                );
                Err(Absent::Unknown { detail, is_lasting })
            }
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(detail: String) -> WriterSchema {
    WriterSchema::Refused(Poison::new(Reason::UnsupportedSchema, detail))
}

async fn fetch(client: &RegistryClient, reader: &Reader, name: SchemaName) -> Result<WriterSchema, Fault> {
    match read(client, reader, name).await {
        // Whoever may write to the topic can register it: all others must not wait for what never comes.
        Err(Fault::Unusable(why)) => Ok(refused(format!("schema {name} cannot be read: {why}"))),
        answer => answer,
    }
}

async fn read(client: &RegistryClient, reader: &Reader, name: SchemaName) -> Result<WriterSchema, Fault> {
    let schema = client.schema(name).await?;
    match schema.kind() {
        "JSON" => Ok(WriterSchema::Json),
        "AVRO" => {
            let references = client.references(&schema).await?;
            Ok(match compile(reader, &schema.schema, &references)? {
                Ok(program) => WriterSchema::Avro(Arc::new(program)),
                Err(why) => refused(format!("schema {name} cannot be read: {why}")),
            })
        }
        other => Ok(refused(format!("schema {name} is {other}; Avro and JSON Schema are read"))),
    }
}

/// Compiles on a thread of its own: a task's stack is too small for what a registry may hold, and to overflow it ends the
/// process, of which whoever writes records would decide.
fn compile(reader: &Reader, text: &str, references: &[String]) -> Result<Result<Program, Unsupported>, Fault> {
    thread::scope(|scope| {
        let compiler = thread::Builder::new().name("compile".to_owned()).stack_size(Program::STACK);
        let compiling = compiler.spawn_scoped(scope, || Program::compile(reader, text, references));
        let compiled = compiling.map_err(|error| Fault::NoThread(error.to_string()))?.join();
        Ok(compiled.unwrap_or_else(|panic| resume_unwind(panic)))
    })
}
