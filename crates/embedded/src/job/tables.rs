//! The tables of a query: read whole before its first row, then kept up, and met by its rows as they were at the last refresh.
//!
//! Topics are read by a reader of their own, views by whoever brings them, and no position of theirs is kept: a restart reads them
//! anew. So rows that are read again after a restart meet the tables as they are then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use streamview_manager::catalog::{Format, Source};
use streamview_manager::engines::TableSeen;
use streamview_manager::ports::Schemas;
use tokio::runtime::Runtime;

use super::intake::json_of;
use super::persistent::all_places;
use super::views::{Came, Viewed};
use super::{Outside, now_ms};
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
    /// Empty of a view.
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

/// One of them.
pub(super) struct Table {
    pub name: String,
    /// Its topic; empty of a view.
    topic: String,
    format: Format,
    pub rows: TableRows,
    pub refused: u64,
    /// Of a view: as of when its rows are, in milliseconds since 1970.
    pub as_of_ms: Option<i64>,
    /// Likewise of those that the query meets.
    met_ms: i64,
}

impl Table {
    pub fn new(source: &Source, rows: TableRows) -> Table {
        Table {
            name: source.name.clone(),
            topic: source.topic.clone(),
            format: source.format,
            rows,
            refused: 0,
            as_of_ms: None,
            met_ms: now_ms(),
        }
    }
}

/// All of a query.
pub(super) struct Tables {
    /// Of those that are topics, if there are any.
    reader: Option<Box<dyn Reader>>,
    /// Which tables these topics are, by their numbers among the reader's.
    of_topics: Vec<usize>,
    /// Those that are views.
    views: Vec<Viewed>,
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
    /// Whether it is met at once: a view was read, which is done as seldom as refreshes are.
    is_due: bool,
    refreshed: Instant,
    asked: Instant,
}

impl Tables {
    /// Those of a query, if it has any; nothing is read yet.
    pub fn of(
        prepared: &Prepared,
        execution: &Execution,
        outside: &Outside,
        settings: &Settings,
    ) -> Result<Option<Tables>, LogError> {
        let (first, sources) = (prepared.streams().len(), prepared.tables());
        if sources.is_empty() {
            return Ok(None);
        }
        let table = |(number, source): (usize, &Source)| {
            let room = execution.room(&format!("table {}", source.name));
            Table::new(source, TableRows::new(source, prepared.needed(first + number), settings.table, Some(room)))
        };
        let mut tables = Tables {
            reader: None,
            of_topics: (0..sources.len()).filter(|number| !sources[*number].is_view()).collect(),
            views: Vec::new(),
            schemas: outside.schemas.clone(),
            first,
            tables: sources.iter().enumerate().map(table).collect(),
            ids: Vec::new(),
            known: Vec::new(),
            open: BTreeMap::new(),
            batch: Batch::default(),
            every: settings.table_refresh,
            is_changed: true,
            is_due: false,
            refreshed: Instant::now(),
            asked: Instant::now(),
        };
        for (number, source) in sources.iter().enumerate().filter(|(_, source)| source.is_view()) {
            let views = outside.views.clone().ok_or_else(|| not_here(&source.name))?;
            let of = (source, prepared.needed(first + number));
            tables.views.push(Viewed::new(number, views, of, settings.table, settings.table_refresh));
        }
        if !tables.of_topics.is_empty() {
            tables.begin(&*outside.log)?;
        }
        Ok(Some(tables))
    }

    /// Begins to read the topics.
    fn begin(&mut self, log: &dyn Log) -> Result<(), LogError> {
        let topics: Vec<String> = self.of_topics.iter().map(|number| self.tables[*number].topic.clone()).collect();
        let mut reader = log.reader(&topics)?;
        self.ids = reader.ids()?;
        self.known = all_places(&reader.partitions()?);
        let mut from = Vec::new();
        for place in &self.known {
            let (low, high) = reader.bounds(*place)?;
            from.push((*place, low));
            if low < high {
                self.open.insert(*place, high);
            }
        }
        reader.assign(&from)?;
        self.reader = Some(reader);
        Ok(())
    }

    /// Whether all that was there at the beginning has been read.
    pub fn is_whole(&self) -> bool {
        self.open.is_empty() && self.views.iter().all(Viewed::is_whole)
    }

    /// Takes a part of what there is, after at most `wait` for it. Gives whether there was something.
    pub fn read(&mut self, wait: Duration, runtime: &Runtime) -> Result<bool, Stop> {
        // Whoever is not whole is waited for: topics first.
        let of_topics = self.read_topics(if self.open.is_empty() { Duration::ZERO } else { wait }, runtime)?;
        let mut came = of_topics;
        for number in 0..self.views.len() {
            came |= self.read_view(number, Duration::ZERO, runtime)?;
        }
        if came || !self.open.is_empty() {
            return Ok(came);
        }
        // One is read at a time; whoever's turn it is has said nothing yet.
        match self.views.iter().position(|view| !view.is_whole()) {
            Some(number) => self.read_view(number, wait, runtime),
            None => Ok(false),
        }
    }

    fn read_view(&mut self, number: usize, wait: Duration, runtime: &Runtime) -> Result<bool, Stop> {
        let view = &mut self.views[number];
        let came = view.read(wait, runtime, &mut self.tables[view.table])?;
        if let Came::Whole { is_new } = came {
            self.is_changed |= is_new;
            self.is_due = true;
        }
        Ok(came != Came::Nothing)
    }

    /// How long a view that could not be read at first is left alone, whoever reads it next.
    pub fn rest(&self) -> Duration {
        self.views.iter().filter(|view| !view.is_whole()).map(Viewed::rest).max().unwrap_or_default()
    }

    fn read_topics(&mut self, wait: Duration, runtime: &Runtime) -> Result<bool, Stop> {
        let Some(reader) = &mut self.reader else { return Ok(false) };
        reader.next(&mut self.batch, wait)?;
        for (place, _) in &self.batch.ends {
            self.open.remove(place);
        }
        for record in self.batch.records() {
            if self.open.get(&record.place).is_some_and(|end| record.offset + 1 >= *end) {
                self.open.remove(&record.place);
            }
            let number = self.of_topics.get(record.place.topic);
            let Some(table) = number.and_then(|number| self.tables.get_mut(*number)) else { continue };
            let json = match record.value {
                Some(value) => {
                    let of_topic = (table.topic.as_str(), &record, value);
                    json_of(of_topic, table.format, self.schemas.as_deref(), runtime)?.map(Some)
                }
                None => Ok(None),
            };
            if let Err(why) = json.and_then(|json| table.rows.take(&record, json.as_deref())) {
                tracing::debug!(table = table.name, offset = record.offset, why, "a record of a table cannot be read");
                table.refused += 1;
            }
        }
        for number in &self.of_topics {
            self.tables[*number].rows.settle()?;
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
        if self.refreshed.elapsed() < self.every && !self.is_due {
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
        (self.refreshed, self.is_due) = (Instant::now(), false);
        for table in &mut self.tables {
            table.met_ms = table.as_of_ms.unwrap_or_else(now_ms);
        }
        Ok(())
    }

    /// Asks for new partitions, which are read from their beginning, and whether the topics are still the same.
    fn ask(&mut self) -> Result<(), LogError> {
        let Some(reader) = &mut self.reader else { return Ok(()) };
        let found = match reader.ids() {
            Ok(ids) if ids != self.ids => {
                let why = "the topic of a table was deleted and made anew while the query was reading it";
                return Err(LogError::Halt(why.to_owned()));
            }
            Ok(_) => reader.partitions(),
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
                from.push((place, reader.bounds(place)?.0));
                self.known.push(place);
            }
        }
        if from.is_empty() { Ok(()) } else { reader.assign(&from) }
    }

    /// As others see them.
    pub fn now(&self) -> Vec<TableNow> {
        let now = |table: &Table| TableNow {
            name: table.name.clone(),
            topic: table.topic.clone(),
            rows: table.rows.rows(),
            bytes: table.rows.bytes(),
            refused: table.refused,
            refreshed_ms: table.met_ms,
            refresh_ms: u64::try_from(self.every.as_millis()).unwrap_or(u64::MAX),
        };
        self.tables.iter().map(now).collect()
    }
}

/// A view that a stored text names, where there are none.
fn not_here(view: &str) -> LogError {
    LogError::Halt(format!(
        "`{view}` is a view of a service, and this process serves none: run the query where views are read"
    ))
}
