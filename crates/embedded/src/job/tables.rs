//! The tables of a query: read whole before its first row, then kept up, and met by its rows as they were at the last refresh.
//!
//! They are read by a reader of their own, and no position of theirs is kept: a restart reads them anew. So rows that are read again
//! after a restart meet the tables as they are then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use streamview_manager::catalog::Format;
use streamview_manager::engines::TableSeen;
use streamview_manager::ports::Schemas;
use tokio::runtime::Runtime;

use super::intake::json_of;
use super::now_ms;
use super::persistent::all_places;
use crate::log::{Batch, Log, LogError, Place, Reader};
use crate::plan::Prepared;
use crate::run::{Execution, Failure};
use crate::settings::Settings;
use crate::table::TableRows;

/// Batches of the tables that are taken between two of the query's own.
const AT_ONCE: usize = 8;
/// So often it is asked for new partitions, and whether the topics are still the same.
const ASK_AGAIN: Duration = Duration::from_secs(15);

/// Why tables cannot be read on.
pub(super) enum Stop {
    /// What Kafka says.
    Log(LogError),
    /// They are more than they may be.
    Failed(Failure),
}

impl From<LogError> for Stop {
    fn from(error: LogError) -> Stop {
        Stop::Log(error)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Failed(failure)
    }
}

/// A table as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableNow {
    pub name: String,
    pub topic: String,
    pub rows: usize,
    pub bytes: usize,
    /// Records that cannot be read.
    pub refused: u64,
    /// It is met as it was then: milliseconds since 1970.
    pub refreshed_ms: i64,
    /// Milliseconds to the next refresh from there.
    pub refresh_ms: u64,
}

impl TableNow {
    /// For whoever looks.
    pub fn told(self) -> TableSeen {
        TableSeen {
            name: self.name,
            rows: self.rows as u64,
            bytes: self.bytes as u64,
            refused: self.refused,
            refreshed_at: TableSeen::moment(self.refreshed_ms),
            refresh_ms: self.refresh_ms,
        }
    }
}

struct Table {
    name: String,
    topic: String,
    format: Format,
    rows: TableRows,
    refused: u64,
}

/// All of a query.
pub(super) struct Tables {
    reader: Box<dyn Reader>,
    schemas: Option<Arc<dyn Schemas>>,
    /// The number of the first one among the query's sources.
    first: usize,
    tables: Vec<Table>,
    ids: Vec<Option<String>>,
    known: Vec<Place>,
    /// Partitions that have not been read to their end yet, and where it was at the beginning.
    open: BTreeMap<Place, i64>,
    batch: Batch,
    every: Duration,
    /// Whether there is something that the query has not met yet.
    is_changed: bool,
    refreshed: Instant,
    refreshed_ms: i64,
    asked: Instant,
}

impl Tables {
    /// Those of a query, if it has any; nothing is read yet.
    pub fn of(
        prepared: &Prepared,
        execution: &Execution,
        log: &dyn Log,
        schemas: Option<Arc<dyn Schemas>>,
        settings: &Settings,
    ) -> Result<Option<Tables>, LogError> {
        let (first, sources) = (prepared.streams().len(), prepared.tables());
        if sources.is_empty() {
            return Ok(None);
        }
        let topics: Vec<String> = sources.iter().map(|source| source.topic.clone()).collect();
        let mut reader = log.reader(&topics)?;
        let ids = reader.ids()?;
        let known = all_places(&reader.partitions()?);
        let (mut from, mut open) = (Vec::new(), BTreeMap::new());
        for place in &known {
            let (low, high) = reader.bounds(*place)?;
            from.push((*place, low));
            if low < high {
                open.insert(*place, high);
            }
        }
        reader.assign(&from)?;
        let table = |(number, source): (usize, &streamview_manager::catalog::Source)| Table {
            name: source.name.clone(),
            topic: source.topic.clone(),
            format: source.format,
            rows: TableRows::new(
                source,
                prepared.needed(first + number),
                settings.table,
                execution.room(&format!("table {}", source.name)),
            ),
            refused: 0,
        };
        Ok(Some(Tables {
            reader,
            schemas,
            first,
            tables: sources.iter().enumerate().map(table).collect(),
            ids,
            known,
            open,
            batch: Batch::default(),
            every: settings.table_refresh,
            is_changed: true,
            refreshed: Instant::now(),
            refreshed_ms: now_ms(),
            asked: Instant::now(),
        }))
    }

    /// Whether all that was there at the beginning has been read.
    pub fn is_whole(&self) -> bool {
        self.open.is_empty()
    }

    /// Takes a batch of what there is, after at most `wait` for its first record. Gives whether there was something.
    pub fn read(&mut self, wait: Duration, runtime: &Runtime) -> Result<bool, Stop> {
        self.reader.next(&mut self.batch, wait)?;
        for (place, _) in &self.batch.ends {
            self.open.remove(place);
        }
        for record in self.batch.records() {
            if self.open.get(&record.place).is_some_and(|end| record.offset + 1 >= *end) {
                self.open.remove(&record.place);
            }
            let Some(table) = self.tables.get_mut(record.place.topic) else { continue };
            let json = match record.value {
                Some(value) => json_of(value, table.format, self.schemas.as_deref(), runtime)?.map(Some),
                None => Ok(None),
            };
            if let Err(why) = json.and_then(|json| table.rows.take(&record, json.as_deref())) {
                tracing::debug!(table = table.name, offset = record.offset, why, "a record of a table cannot be read");
                table.refused += 1;
            }
        }
        for table in &mut self.tables {
            table.rows.settle()?;
        }
        self.is_changed |= !self.batch.is_empty();
        Ok(!self.batch.is_empty())
    }

    /// Takes what has come meanwhile, without waiting, and has the query meet it once that is due. Gives whether it was.
    pub fn keep_up(&mut self, prepared: &Prepared, execution: &mut Execution, runtime: &Runtime) -> Result<bool, Stop> {
        for _ in 0..AT_ONCE {
            if !self.read(Duration::ZERO, runtime)? {
                break;
            }
        }
        if self.refreshed.elapsed() < self.every {
            return Ok(false);
        }
        if self.asked.elapsed() >= ASK_AGAIN {
            self.asked = Instant::now();
            self.ask()?;
        }
        self.refresh(prepared, execution)?;
        Ok(true)
    }

    /// Has the query meet them as they are now.
    pub fn refresh(&mut self, prepared: &Prepared, execution: &mut Execution) -> Result<(), Stop> {
        if self.is_changed {
            let mut rows = BTreeMap::new();
            for (number, table) in self.tables.iter_mut().enumerate() {
                rows.insert(self.first + number, table.rows.batches()?);
            }
            execution.refresh(prepared, &rows)?;
            self.is_changed = false;
        }
        (self.refreshed, self.refreshed_ms) = (Instant::now(), now_ms());
        Ok(())
    }

    /// Asks for new partitions, which are read from their beginning, and whether the topics are still the same.
    fn ask(&mut self) -> Result<(), LogError> {
        let found = match self.reader.ids() {
            Ok(ids) if ids != self.ids => {
                let why = "the topic of a table was deleted and made anew while the query was reading it";
                return Err(LogError::Halt(why.to_owned()));
            }
            Ok(_) => self.reader.partitions(),
            Err(error) => Err(error),
        };
        let found = match found {
            Ok(found) => all_places(&found),
            // Whoever does not answer says nothing of the topics.
            Err(LogError::Again(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut from = Vec::new();
        for place in found {
            if !self.known.contains(&place) {
                from.push((place, self.reader.bounds(place)?.0));
                self.known.push(place);
            }
        }
        if from.is_empty() { Ok(()) } else { self.reader.assign(&from) }
    }

    /// As others see them.
    pub fn now(&self) -> Vec<TableNow> {
        let now = |table: &Table| TableNow {
            name: table.name.clone(),
            topic: table.topic.clone(),
            rows: table.rows.rows(),
            bytes: table.rows.bytes(),
            refused: table.refused,
            refreshed_ms: self.refreshed_ms,
            refresh_ms: u64::try_from(self.every.as_millis()).unwrap_or(u64::MAX),
        };
        self.tables.iter().map(now).collect()
    }
}
