//! From records to columns. Each record is judged alone: one that cannot be read is refused by its own name, and the others of
//! its batch go on. Nothing is rounded: a number that does not fit its column's type is refused.
//!
//! A column that a record does not have is null, as is one that holds `null`. Of a name that stands there twice, the last one
//! counts. What no column names is passed over.

mod cell;
mod columns;
mod text;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, Int32Builder, Int64Builder, MapBuilder, RecordBatch, StringBuilder, TimestampMillisecondBuilder,
};
use datafusion::arrow::datatypes::{DataType as Arrow, SchemaRef};
use datafusion::arrow::error::ArrowError;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use streamview_manager::catalog::{DataType, KeyFormat, Source, unframed};

use self::cell::{Cell, cell};
use self::columns::Build;
use crate::log::Record;
use crate::schema;

/// Reads the records of one source.
pub struct Decoder {
    schema: SchemaRef,
    columns: Vec<(String, DataType)>,
    numbers: HashMap<String, usize>,
    /// Which columns are read, hidden ones too; the others are null.
    needed: Vec<bool>,
    builds: Vec<Build>,
    hidden: Hidden,
    rows: usize,
    /// Of a table: which columns are the key, by their numbers, and how keys are written.
    key: Option<(Vec<usize>, KeyFormat)>,
}

impl Decoder {
    /// Of a source; empty. Columns that are not `needed` ([`crate::plan::Prepared::needed`]) are not looked at.
    pub fn new(source: &Source, needed: &[bool]) -> Decoder {
        let columns: Vec<_> =
            source.columns.iter().map(|column| (column.name.clone(), column.data_type.clone())).collect();
        let number = |name: &String| source.columns.iter().position(|column| column.name == *name);
        let key = source.table.as_ref().map(|of| (of.key.iter().filter_map(number).collect(), of.key_format));
        let is_key = |number: usize| {
            key.as_ref().is_some_and(|(numbers, _): &(Vec<usize>, KeyFormat)| numbers.contains(&number))
        };
        Decoder {
            // What a value says of the key's columns is not looked at.
            schema: schema::of_source(source),
            numbers: columns.iter().enumerate().map(|(number, (name, _))| (name.clone(), number)).collect(),
            builds: columns.iter().map(|(_, of)| Build::new(of)).collect(),
            needed: (0..columns.len() + schema::HIDDEN.len())
                .map(|number| needed.get(number).copied().unwrap_or(true) && !is_key(number))
                .collect(),
            key,
            columns,
            hidden: Hidden::default(),
            rows: 0,
        }
    }

    /// How many rows wait to be taken.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The key of a table's record: the same bytes for the same values, however they are written.
    ///
    /// # Errors
    /// When it cannot be read: why, as a sentence.
    pub fn key(&self, record: &Record<'_>) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        for cell in self.key_cells(record)? {
            match cell {
                // Of one type each, so that nothing has to tell them apart but where they end.
                Cell::Text(text) => {
                    bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
                    bytes.extend_from_slice(text.as_bytes());
                }
                Cell::Whole(number) => bytes.extend_from_slice(&number.to_le_bytes()),
                Cell::Decimal(number) => bytes.extend_from_slice(&number.to_le_bytes()),
                Cell::Bool(is) => bytes.push(u8::from(is)),
                _ => return Err("its key is of a type that is no key".to_owned()),
            }
        }
        Ok(bytes)
    }

    /// The values of the key's columns in the key of a record.
    fn key_cells<'r>(&self, record: &Record<'r>) -> Result<Vec<Cell<'r>>, String> {
        let Some((numbers, format)) = &self.key else { return Ok(Vec::new()) };
        let key = record.key.ok_or("it has no key, and its topic is a table")?;
        let key = if *format == KeyFormat::Json { unframed(key) } else { key };
        let key = std::str::from_utf8(key).map_err(|_| "its key is not UTF-8")?;
        let fields = match format {
            KeyFormat::Text => None,
            KeyFormat::Json => {
                let whole = serde_json::from_str::<&RawValue>(key).ok();
                Some(whole.and_then(|key| cell::entries(key.get())).ok_or("its key is no JSON object")?)
            }
        };
        let read = |number: &usize| {
            let (name, of) = &self.columns[*number];
            let read = match &fields {
                None if *of == DataType::String => Ok(Cell::Text(key.into())),
                None => cell(key, of),
                Some(fields) => match fields.iter().find(|(field, _)| field == name) {
                    Some((_, raw)) => cell(raw.get(), of),
                    None => Ok(Cell::Null),
                },
            };
            match read {
                Ok(Cell::Null) => Err(format!("its key has no {name}")),
                Ok(read) => Ok(read),
                Err(why) => Err(format!("its key: {name}: {why}")),
            }
        };
        numbers.iter().map(read).collect()
    }

    /// Adds a record whose value is this JSON text. Of a table, the columns of the key are those of the record's key.
    ///
    /// # Errors
    /// When it cannot be read: why, as a sentence. Then it is as if it had not been there.
    pub fn add(&mut self, record: &Record<'_>, json: &[u8]) -> Result<(), String> {
        let of_key = self.key_cells(record)?;
        let mut found: Vec<Option<&RawValue>> = vec![None; self.columns.len()];
        let mut reader = serde_json::Deserializer::from_slice(json);
        let names = Names { numbers: &self.numbers, columns: &self.columns, needed: &self.needed };
        let read = Fields { names, found: &mut found };
        read.deserialize(&mut reader).and_then(|()| reader.end()).map_err(|error| not_an_object(&error))?;
        // Every value is read before the first one is kept.
        let mut cells = Vec::with_capacity(found.len());
        for ((name, of), raw) in self.columns.iter().zip(found) {
            let read = raw.map_or(Ok(Cell::Null), |raw| cell(raw.get(), of));
            cells.push(read.map_err(|why| format!("column {name}: {why}"))?);
        }
        if let Some((numbers, _)) = &self.key {
            for (number, cell) in numbers.iter().zip(of_key) {
                cells[*number] = cell;
            }
        }
        for (build, cell) in self.builds.iter_mut().zip(cells) {
            build.push(cell);
        }
        let own = self.columns.len();
        self.hidden.push(record, self.needed[own + 2], self.needed[own + 4]);
        self.rows += 1;
        Ok(())
    }

    /// Takes the rows that were added.
    ///
    /// # Errors
    /// Never, unless there is a fault in here.
    pub fn take(&mut self) -> Result<RecordBatch, ArrowError> {
        let mut columns: Vec<ArrayRef> = self.builds.iter_mut().map(Build::take).collect::<Result<_, _>>()?;
        columns.extend(self.hidden.take(&self.schema));
        self.rows = 0;
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }
}

fn not_an_object(error: &serde_json::Error) -> String {
    let place = format!(" at line {} column {}", error.line(), error.column());
    let text = error.to_string();
    format!("its value is no JSON object: {}", text.strip_suffix(&place).unwrap_or(&text))
}

/// The names of the columns.
#[derive(Clone, Copy)]
struct Names<'d> {
    numbers: &'d HashMap<String, usize>,
    columns: &'d [(String, DataType)],
    needed: &'d [bool],
}

/// The fields of an object that columns name, as they stand there.
struct Fields<'d, 'f, 'j> {
    names: Names<'d>,
    found: &'f mut [Option<&'j RawValue>],
}

impl<'j> DeserializeSeed<'j> for Fields<'_, '_, 'j> {
    type Value = ();

    fn deserialize<D: Deserializer<'j>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'j> Visitor<'j> for Fields<'_, '_, 'j> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'j>>(self, mut fields: M) -> Result<(), M::Error> {
        // Records of a topic mostly have their fields in one order, that of the columns.
        let mut next = 0;
        while let Some(number) = fields.next_key_seed(Name { names: self.names, next })? {
            match number {
                Some(number) => {
                    self.found[number] = Some(fields.next_value()?);
                    next = number + 1;
                }
                None => {
                    fields.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// The name of a field: the number of its column.
struct Name<'d> {
    names: Names<'d>,
    next: usize,
}

impl<'j> DeserializeSeed<'j> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'j>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Option<usize>, E> {
        let number = match self.names.columns.get(self.next) {
            Some((expected, _)) if expected == name => Some(self.next),
            _ => self.names.numbers.get(name).copied(),
        };
        Ok(number.filter(|number| self.names.needed[*number]))
    }
}

/// The columns that every record has beside its value, see [`schema::HIDDEN`].
#[derive(Default)]
struct Hidden {
    partitions: Int32Builder,
    offsets: Int64Builder,
    keys: StringBuilder,
    timestamps: TimestampMillisecondBuilder,
    headers: Option<MapBuilder<StringBuilder, StringBuilder>>,
}

impl Hidden {
    fn push(&mut self, record: &Record<'_>, with_key: bool, with_headers: bool) {
        self.partitions.append_value(record.place.partition);
        self.offsets.append_value(record.offset);
        self.keys.append_option(record.key.filter(|_| with_key).and_then(|key| std::str::from_utf8(key).ok()));
        self.timestamps.append_option(record.timestamp_ms);
        let headers = self.headers.get_or_insert_with(|| {
            let names = datafusion::arrow::array::MapFieldNames {
                entry: "entries".to_owned(),
                key: "key".to_owned(),
                value: "value".to_owned(),
            };
            MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new())
        });
        let mut last: Vec<(&[u8], Option<&[u8]>)> = Vec::new();
        for (name, value) in record.headers().filter(|_| with_headers) {
            last.retain(|(known, _)| *known != name);
            last.push((name, value));
        }
        for (name, value) in last {
            headers.keys().append_value(String::from_utf8_lossy(name));
            headers.values().append_option(value.and_then(|value| std::str::from_utf8(value).ok()));
        }
        // It has as many keys as values, as they are added in pairs.
        if let Err(error) = headers.append(true) {
            tracing::error!(error = %error, "headers of a record are lost");
        }
    }

    fn take(&mut self, schema: &SchemaRef) -> Vec<ArrayRef> {
        let headers: ArrayRef = match &mut self.headers {
            Some(headers) => Arc::new(headers.finish()),
            None => datafusion::arrow::array::new_empty_array(
                schema.fields().last().map_or(&Arrow::Null, |field| field.data_type()),
            ),
        };
        vec![
            Arc::new(self.partitions.finish()),
            Arc::new(self.offsets.finish()),
            Arc::new(self.keys.finish()),
            Arc::new(self.timestamps.finish()),
            headers,
        ]
    }
}

#[cfg(test)]
mod tests;
