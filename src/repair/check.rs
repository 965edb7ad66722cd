//! Reads single records as a view's projector would, and folds nothing: what the contract says of a replacement, of a
//! letter that is redriven, of an event that is parked. The one place where the repair desk decodes.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::{DeskError, Obstacle, Refusal, Seen};
use crate::codec::Limits;
use crate::codec::frame;
use crate::codec::schemas::Schemas;
use crate::config::{Config, ViewRules};
use crate::domain::poison::{Poison, Reason};
use crate::domain::record::Record;
use crate::domain::units::{Micros, Sequence};
use crate::engine::decode::{Decoder, Overrules};
use crate::engine::view::View;
use crate::schemas::SchemaSource;
use crate::schemas::source::Absent;
use crate::telemetry::metrics::Metrics;

/// The longest that a page waits for a schema to show an event by.
const PAGE_PATIENCE: Duration = Duration::from_secs(1);

/// What a record says when it is read as the projector reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Its key.
    pub key: String,
    /// Its number.
    pub sequence: Sequence,
    /// Type of its event.
    pub event_type: String,
    /// When it happened.
    pub occurred_at: Micros,
    /// Its value as JSON text, where it is not that already.
    pub json: Option<String>,
}

type Read = Box<dyn Fn(&Schemas, Record<'_>) -> Result<Checked, Poison> + Send + Sync>;

/// Reads the records of one view.
pub struct Checker {
    read: Read,
    schemas: SchemaSource,
}

impl Checker {
    /// For a view with its settings.
    pub fn new<V: View>(view: V, config: &Config, rules: &ViewRules, metrics: &Arc<Metrics>) -> Result<Self> {
        let limits =
            Limits { max_record_bytes: config.projector.max_record_bytes, first_sequence: rules.first_sequence };
        let (name, shape) = (view.spec().name, view.spec().avro);
        let schemas = SchemaSource::new(name, shape, &config.schema_registry, Arc::clone(metrics))?;
        Ok(Checker { read: Box::new(move |schemas, record| validate(&view, limits, schemas, record)), schemas })
    }

    /// What the record says, or what speaks against it. An error: its schema cannot be had now.
    pub async fn check(&self, record: Record<'_>) -> Result<Result<Checked, Poison>, DeskError> {
        let mut schemas = Schemas::default();
        if let Ok(Some(frame)) = frame::of(&record) {
            match self.schemas.find(frame.schema, record.origin(), record.payload.unwrap_or_default()).await {
                Ok(schema) => schemas.insert(frame.schema, schema),
                Err(absent) => return Err(no_schema(absent).into()),
            }
        }
        Ok((self.read)(&schemas, record))
    }

    /// The same for a page, which does without what cannot be had soon.
    pub async fn look(&self, record: Record<'_>) -> Option<Checked> {
        tokio::time::timeout(PAGE_PATIENCE, self.check(record)).await.ok()?.ok()?.ok()
    }
}

fn validate<V: View>(view: &V, limits: Limits, schemas: &Schemas, record: Record<'_>) -> Result<Checked, Poison> {
    let decoder = Decoder { view, limits, overrules: &Overrules::default(), schemas };
    let event = decoder.decode(record).outcome.map_err(|refused| refused.poison)?;
    Ok(Checked {
        key: event.key.to_owned(),
        sequence: event.sequence,
        event_type: event.parsed.event_type.clone().into_owned(),
        occurred_at: event.parsed.occurred_at,
        json: match event.payload {
            Cow::Owned(text) => Some(text),
            Cow::Borrowed(_) => None,
        },
    })
}

fn no_schema(absent: Absent) -> Refusal {
    match absent {
        Absent::Unknown { detail, is_lasting: true } => {
            Refusal::new(Obstacle::ContractViolated, format!("The record cannot be read: {detail}"))
                .because(Seen::Unreadable { reason: Reason::SchemaNotFound.as_str(), violation: None })
        }
        Absent::Away(why) | Absent::Unknown { detail: why, is_lasting: false } => {
            Refusal::new(Obstacle::RegistryAway, format!("The record cannot be read now: {why}"))
        }
    }
}
