//! A table in memory: of each key the latest row, within bounds. No I/O and no clock.

use std::collections::HashMap;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::interleave_record_batch;
use datafusion::execution::memory_pool::MemoryReservation;
use streamview_manager::catalog::Source;

use crate::decode::Decoder;
use crate::log::Record;
use crate::run::Failure;

/// Rows of a batch at most.
const PIECE: usize = 65_536;
/// Rows that may lie about replaced before they are cleared away, however few there are.
const FEW: usize = 8_192;
/// What a key takes in memory beside its own bytes.
const PER_KEY: usize = 64;

/// What a table may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableBounds {
    /// Rows.
    pub rows: usize,
    /// Bytes, keys included.
    pub bytes: usize,
}

impl Default for TableBounds {
    fn default() -> TableBounds {
        TableBounds { rows: 1_000_000, bytes: 64 << 20 }
    }
}

/// The rows.
pub(crate) struct TableRows {
    name: String,
    is_view: bool,
    decoder: Decoder,
    /// How many columns are the table's own; behind them the decoder has those of the record.
    own: Vec<usize>,
    /// By key: which batch, and which of its rows.
    places: HashMap<Box<[u8]>, (usize, usize)>,
    key_bytes: usize,
    batches: Vec<RecordBatch>,
    bounds: TableBounds,
    /// None while another one of it is met: then they are beside each other, and only that one is counted.
    memory: Option<MemoryReservation>,
}

impl TableRows {
    /// An empty one. Columns that are not `needed` are null.
    pub(crate) fn new(
        source: &Source,
        needed: &[bool],
        bounds: TableBounds,
        memory: Option<MemoryReservation>,
    ) -> TableRows {
        TableRows {
            name: source.name.clone(),
            is_view: source.is_view(),
            decoder: Decoder::new(source, needed),
            own: (0..source.columns.len()).collect(),
            places: HashMap::new(),
            key_bytes: 0,
            batches: Vec::new(),
            bounds,
            memory,
        }
    }

    /// Takes a record, and its value as JSON; none deletes the row.
    ///
    /// # Errors
    /// When it cannot be read: why, as a sentence. Then the row of its key stays as it was.
    pub(crate) fn take(&mut self, record: &Record<'_>, json: Option<&[u8]>) -> Result<(), String> {
        let key = self.decoder.key(record)?.into_boxed_slice();
        let Some(json) = json else {
            if self.places.remove(&key).is_some() {
                self.key_bytes -= key.len() + PER_KEY;
            }
            return Ok(());
        };
        let place = (self.batches.len(), self.decoder.rows());
        self.decoder.add(record, json)?;
        let length = key.len() + PER_KEY;
        if self.places.insert(key, place).is_none() {
            self.key_bytes += length;
        }
        Ok(())
    }

    /// Puts what was taken to the rest.
    ///
    /// # Errors
    /// When it is more than it may be.
    pub(crate) fn settle(&mut self) -> Result<(), Failure> {
        if self.decoder.rows() > 0 {
            let rows = self.decoder.take().and_then(|rows| rows.project(&self.own));
            self.batches.push(rows.map_err(|error| Failure::of(&error.into()))?);
        }
        let held: usize = self.batches.iter().map(RecordBatch::num_rows).sum();
        if held - self.places.len() > self.places.len().max(FEW) || self.bytes() > self.bounds.bytes {
            self.compact()?;
        }
        self.bound()
    }

    fn bound(&mut self) -> Result<(), Failure> {
        let (name, bounds) = (&self.name, self.bounds);
        // Nobody but this engine reads a view.
        let (what, fewer_rows, else_where) = match self.is_view {
            true => ("view", "raise it", "raise it"),
            false => ("table", "keep fewer keys in its topic, or use Flink", "use Flink"),
        };
        if self.places.len() > bounds.rows {
            return Err(Failure::limit(format!(
                "{what} `{name}` has more than {} rows (`embedded.table_rows`): {fewer_rows}",
                bounds.rows
            )));
        }
        let bytes = self.bytes();
        if bytes > bounds.bytes {
            return Err(Failure::limit(format!(
                "{what} `{name}` is larger than {} bytes (`embedded.table_bytes`): select fewer of its columns, or {else_where}",
                bounds.bytes
            )));
        }
        let Some(memory) = &self.memory else { return Ok(()) };
        memory.try_resize(bytes).map_err(|_| {
            Failure::limit(format!(
                "{what} `{name}` does not fit into the query's memory (`embedded.adhoc_memory_bytes`, \
                 `embedded.persistent_memory_bytes`): select fewer of its columns, or {else_where}"
            ))
        })
    }

    /// The rows as they are now, nothing that was replaced among them.
    pub(crate) fn batches(&mut self) -> Result<Vec<RecordBatch>, Failure> {
        let held: usize = self.batches.iter().map(RecordBatch::num_rows).sum();
        if held > self.places.len() {
            self.compact()?;
            self.bound()?;
        }
        Ok(self.batches.clone())
    }

    /// Clears away what was replaced or deleted.
    fn compact(&mut self) -> Result<(), Failure> {
        let mut places: Vec<&mut (usize, usize)> = self.places.values_mut().collect();
        places.sort_unstable();
        let old: Vec<&RecordBatch> = self.batches.iter().collect();
        let mut batches = Vec::with_capacity(places.len().div_ceil(PIECE));
        for piece in places.chunks_mut(PIECE) {
            let from: Vec<(usize, usize)> = piece.iter().map(|place| **place).collect();
            let rows = interleave_record_batch(&old, &from).map_err(|error| Failure::of(&error.into()))?;
            for (row, place) in piece.iter_mut().enumerate() {
                **place = (batches.len(), row);
            }
            batches.push(rows);
        }
        self.batches = batches;
        Ok(())
    }

    /// Takes the place of the one that was met until now, and its share of the query's memory.
    ///
    /// # Errors
    /// When it does not fit in there.
    pub(crate) fn replace(mut self, old: &mut TableRows) -> Result<(), Failure> {
        self.memory = old.memory.take();
        *old = self;
        old.bound()
    }

    /// How many rows.
    pub(crate) fn rows(&self) -> usize {
        self.places.len()
    }

    /// Bytes of rows and keys, of what was replaced, too.
    pub(crate) fn bytes(&self) -> usize {
        self.key_bytes + self.batches.iter().map(RecordBatch::get_array_memory_size).sum::<usize>()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryPool};
    use streamview_manager::catalog::{Column, Format, KeyFormat, Table};

    use super::*;
    use crate::log::{Batch, Place};
    use crate::tests::lines_of;

    fn source(columns: &[(&str, &str)], key: &[&str], key_format: KeyFormat) -> Source {
        let column = |(name, of): &(&str, &str)| Column {
            name: (*name).to_owned(),
            data_type: of.parse().unwrap(),
            nullable: true,
        };
        Source {
            name: "customers".to_owned(),
            topic: "customers".to_owned(),
            format: Format::Json,
            columns: columns.iter().map(column).collect(),
            event_time: None,
            table: Some(Table { key: key.iter().map(|name| (*name).to_owned()).collect(), key_format }),
        }
    }

    fn table(source: &Source, bounds: TableBounds, memory: usize) -> TableRows {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(memory));
        TableRows::new(source, &[], bounds, Some(MemoryConsumer::new("table").register(&pool)))
    }

    /// Takes records, and gives why some were refused.
    fn put(table: &mut TableRows, records: &[(Option<&str>, Option<&str>)]) -> Result<Vec<String>, Failure> {
        let mut batch = Batch::default();
        for (offset, (key, value)) in records.iter().enumerate() {
            let parts = (key.map(str::as_bytes), value.map(str::as_bytes));
            batch.push((Place { topic: 0, partition: 0 }, offset as i64), None, parts, std::iter::empty());
        }
        let refused = batch.records().filter_map(|record| table.take(&record, record.value).err()).collect();
        table.settle().map(|()| refused)
    }

    fn rows(table: &mut TableRows) -> Vec<String> {
        let mut lines = lines_of(&table.batches().unwrap());
        lines.sort();
        lines
    }

    #[test]
    fn of_each_key_the_latest_record_counts_and_one_without_a_value_deletes() {
        let of = source(&[("id", "string"), ("city", "string")], &["id"], KeyFormat::Text);
        let mut table = table(&of, TableBounds::default(), 1 << 20);
        let (ulm, bonn) = (Some(r#"{"city":"Ulm","id":"not this"}"#), Some(r#"{"city":"Bonn"}"#));
        put(&mut table, &[(Some("a"), ulm), (Some("b"), ulm), (Some("a"), bonn), (Some("c"), None)]).unwrap();
        assert_eq!(rows(&mut table), ["a|Bonn", "b|Ulm"]);
        put(&mut table, &[(Some("b"), None), (Some("d"), ulm), (Some(""), bonn), (Some("d"), None)]).unwrap();
        assert_eq!(rows(&mut table), ["a|Bonn", "|Bonn"]);
        assert_eq!(table.rows(), 2);
    }

    #[test]
    fn a_key_is_what_its_columns_are_however_it_is_written() {
        let of = source(&[("id", "bigint"), ("day", "date"), ("n", "int")], &["day", "id"], KeyFormat::Json);
        let mut table = table(&of, TableBounds::default(), 1 << 20);
        let refused = put(
            &mut table,
            &[
                (Some(r#"{"id":1,"day":"2026-01-01"}"#), Some(r#"{"n":1}"#)),
                (Some(r#"{ "day": "2026-01-01", "more": [1], "id": 1e0 }"#), Some(r#"{"n":2}"#)),
                (Some(r#"{"id":1}"#), Some(r#"{"n":3}"#)),
                (Some(r#"{"id":1,"day":null}"#), None),
                (Some("1"), Some(r#"{"n":4}"#)),
                (None, Some(r#"{"n":5}"#)),
                (Some(r#"{"id":1,"day":"2026-01-01"}"#), Some("{")),
            ],
        );
        let refused = refused.unwrap();
        assert_eq!(rows(&mut table), ["1|2026-01-01|2"]);
        for (why, part) in refused.iter().zip([
            "no day",
            "no day",
            "no JSON object",
            "no key, and its topic is a table",
            "no JSON object",
        ]) {
            assert!(why.contains(part), "{why}");
        }
        assert_eq!(refused.len(), 5);
        let of = source(&[("id", "bigint"), ("n", "int")], &["id"], KeyFormat::Text);
        let mut table = self::table(&of, TableBounds::default(), 1 << 20);
        let one = Some(r#"{"n":1}"#);
        let refused = put(&mut table, &[(Some("7"), one), (Some("007"), one), (Some("x"), one), (Some("null"), one)]);
        assert_eq!((refused.unwrap().len(), rows(&mut table)), (2, vec!["7|1".to_owned()]));
    }

    #[test]
    fn a_table_is_as_large_as_it_may_be_and_no_larger() {
        let of = source(&[("id", "string"), ("city", "string")], &["id"], KeyFormat::Text);
        let ulm = Some(r#"{"city":"Ulm"}"#);
        let mut table = table(&of, TableBounds { rows: 3, bytes: 1 << 20 }, 1 << 20);
        put(&mut table, &[(Some("a"), ulm), (Some("b"), ulm), (Some("c"), ulm), (Some("a"), ulm)]).unwrap();
        let failure = put(&mut table, &[(Some("d"), ulm)]).unwrap_err();
        assert!(
            failure.code == "limit_exceeded" && failure.message.contains("3 rows (`embedded.table_rows`)"),
            "{failure}"
        );
        // What was replaced does not count.
        let mut table = self::table(&of, TableBounds { rows: 3, bytes: 64 << 10 }, 1 << 20);
        let large = format!(r#"{{"city":"{}"}}"#, "x".repeat(10_000));
        for _ in 0..20 {
            put(&mut table, &[(Some("a"), Some(&large)), (Some("b"), Some(&large))]).unwrap();
        }
        let larger = format!(r#"{{"city":"{}"}}"#, "x".repeat(60_000));
        let failure = put(&mut table, &[(Some("c"), Some(&larger))]).unwrap_err();
        assert!(failure.code == "limit_exceeded" && failure.message.contains("`embedded.table_bytes`"), "{failure}");
        let mut table = self::table(&of, TableBounds::default(), 32 << 10);
        let failure = put(&mut table, &[(Some("c"), Some(&larger))]).unwrap_err();
        assert!(
            failure.code == "limit_exceeded" && failure.message.contains("embedded.adhoc_memory_bytes"),
            "{failure}"
        );
    }

    #[test]
    fn what_was_replaced_is_cleared_away() {
        let of = source(&[("id", "bigint"), ("n", "int")], &["id"], KeyFormat::Text);
        let mut table = table(&of, TableBounds::default(), 64 << 20);
        let mut most = 0;
        for round in 0..40 {
            let records: Vec<(String, String)> =
                (0..2_000).map(|id| (id.to_string(), format!(r#"{{"n":{}}}"#, id + round))).collect();
            let records: Vec<_> =
                records.iter().map(|(key, value)| (Some(key.as_str()), Some(value.as_str()))).collect();
            put(&mut table, &records).unwrap();
            most = most.max(table.batches.iter().map(RecordBatch::num_rows).sum::<usize>());
        }
        assert!(most <= 2_000 + FEW, "{most} rows were held for 2,000");
        let rows = rows(&mut table);
        assert_eq!((rows.len(), rows.contains(&"1999|2038".to_owned())), (2_000, true));
    }
}
