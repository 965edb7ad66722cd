//! From what was read to rows of sources; what cannot be read stands aside, by its own name.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use streamview_manager::catalog::{Format, Source, unframed};
use streamview_manager::ports::{PortError, Schemas};
use tokio::runtime::Runtime;

use crate::decode::Decoder;
use crate::log::{Batch, LogError, Place, Record};
use crate::plan::Prepared;

/// What a batch of records is.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Rows by source.
    pub rows: Vec<(usize, RecordBatch)>,
    /// What cannot be read, and why.
    pub refused: BTreeMap<(Place, i64), String>,
    /// Records without a value, which are no rows.
    pub tombstones: u64,
}

/// Reads records of a query's sources.
pub(super) struct Intake {
    /// With their topics.
    sources: Vec<(Decoder, Format, String)>,
    schemas: Option<Arc<dyn Schemas>>,
}

impl Intake {
    pub fn new(prepared: &Prepared, schemas: Option<Arc<dyn Schemas>>) -> Intake {
        let decoder = |(number, source): (usize, &Source)| {
            (Decoder::new(source, prepared.needed(number)), source.format, source.topic.clone())
        };
        Intake { sources: prepared.streams().iter().enumerate().map(decoder).collect(), schemas }
    }

    /// Reads them, but those that are left out. `runtime` waits for schemas.
    ///
    /// # Errors
    /// When the registry does not answer: the same records are to be read again.
    pub fn take(
        &mut self,
        batch: &Batch,
        is_left_out: impl Fn(&Record<'_>) -> bool,
        runtime: &Runtime,
    ) -> Result<Taken, LogError> {
        let mut taken = Taken::default();
        for record in batch.records() {
            if is_left_out(&record) {
                continue;
            }
            let Some(value) = record.value else {
                taken.tombstones += 1;
                continue;
            };
            if let Err(why) = self.add(&record, value, runtime)? {
                taken.refused.insert((record.place, record.offset), why);
            }
        }
        for (number, (decoder, ..)) in self.sources.iter_mut().enumerate() {
            if decoder.rows() > 0 {
                let rows =
                    decoder.take().map_err(|error| LogError::Halt(format!("rows do not fit together: {error}")))?;
                taken.rows.push((number, rows));
            }
        }
        Ok(taken)
    }

    fn add(&mut self, record: &Record<'_>, value: &[u8], runtime: &Runtime) -> Result<Result<(), String>, LogError> {
        let Some((decoder, format, topic)) = self.sources.get_mut(record.place.topic) else { return Ok(Ok(())) };
        let json = json_of((topic, record, value), *format, self.schemas.as_deref(), runtime)?;
        Ok(json.and_then(|json| decoder.add(record, &json)))
    }
}

/// The value of a record of that topic as JSON, or why it cannot be read.
///
/// # Errors
/// When the registry does not answer: the same record is to be read again.
pub(super) fn json_of<'v>(
    (topic, record, value): (&str, &Record<'_>, &'v [u8]),
    format: Format,
    schemas: Option<&dyn Schemas>,
    runtime: &Runtime,
) -> Result<Result<Cow<'v, [u8]>, String>, LogError> {
    match (format, schemas) {
        (Format::Json | Format::JsonSchema, _) => Ok(Ok(Cow::Borrowed(unframed(value)))),
        (Format::View, _) => Ok(Ok(Cow::Borrowed(value))),
        (Format::Avro, None) => {
            Err(LogError::Halt("Avro is read by a schema registry: set schema_registry.url".to_owned()))
        }
        (Format::Avro, Some(schemas)) => match runtime.block_on(schemas.decode(value)) {
            Ok(Some(decoded)) => Ok(Ok(Cow::Owned(decoded.json.into_bytes()))),
            Ok(None) => Ok(Err("its value is not framed as Avro of a schema registry".to_owned())),
            Err(PortError::Unavailable(why)) => {
                let (partition, offset) = (record.place.partition, record.offset);
                Err(LogError::Again(format!("the record at {topic}:{partition}:{offset} waits: {why}")))
            }
            Err(error) => Ok(Err(error.to_string())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_read_with_the_frame_of_a_registry_and_without() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let mut batch = Batch::default();
        batch.push((Place { topic: 0, partition: 0 }, 0), None, (None, None), std::iter::empty());
        let record = batch.records().next().expect("it was pushed");
        for format in [Format::Json, Format::JsonSchema] {
            for value in [&b"{}"[..], b"\0\0\0\0\x07{}"] {
                let json = json_of(("t", &record, value), format, None, &runtime).expect("no registry is asked");
                assert_eq!(json.as_deref(), Ok(&b"{}"[..]), "{value:?}");
            }
        }
    }
}
