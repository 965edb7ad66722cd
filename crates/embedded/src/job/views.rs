//! A view that is joined: read whole before the first row of its query, and again when it has changed. Its new rows stand beside
//! the old ones until they are all there, so a query meets a view as it was at one moment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use streamview_manager::catalog::Source;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::Receiver;
use tokio::sync::mpsc::error::TryRecvError;

use super::now_ms;
use super::tables::{Stop, Table};
use crate::log::{Batch, LogError, Place};
use crate::table::{TableBounds, TableRows};
use crate::views::{Part, ViewRow, Views};

/// So many times as long as a view was read it is left alone: reading it takes a part of the database's time, whatever its size.
const REST: u32 = 10;

/// What has come of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    Nothing,
    /// More of it is to come.
    Something,
    /// It is known again what it is: other rows, or the same.
    Whole {
        is_new: bool,
    },
}

/// How a view is read.
pub(super) struct Viewed {
    /// Its number among the query's tables.
    pub table: usize,
    views: Arc<dyn Views>,
    source: Source,
    needed: Vec<bool>,
    columns: Vec<String>,
    bounds: TableBounds,
    every: Duration,
    /// Of what was read last.
    mark: Option<String>,
    reading: Option<Reading>,
    /// Until then it is left alone.
    next: Instant,
}

struct Reading {
    parts: Receiver<Part>,
    rows: TableRows,
    refused: u64,
    began: Instant,
    began_ms: i64,
}

impl Viewed {
    /// Nothing of it is read yet.
    pub fn new(
        table: usize,
        views: Arc<dyn Views>,
        (source, needed): (&Source, &[bool]),
        bounds: TableBounds,
        every: Duration,
    ) -> Viewed {
        let key = source.table.as_ref().map(|table| table.key.as_slice()).unwrap_or_default();
        let columns =
            source.columns.iter().zip(needed).filter(|(column, needed)| **needed && !key.contains(&column.name));
        let columns = columns.map(|(column, _)| column.name.clone()).collect();
        let (source, needed) = (source.clone(), needed.to_vec());
        let (mark, reading, next) = (None, None, Instant::now());
        Viewed { table, views, source, needed, columns, bounds, every, mark, reading, next }
    }

    /// Whether all of it was read once.
    pub fn is_whole(&self) -> bool {
        self.mark.is_some()
    }

    /// How long it is left alone yet.
    pub fn rest(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    /// Takes a part of it into `table`, after at most `wait`; begins to read it where that is due.
    ///
    /// # Errors
    /// When it is more than it may be, or cannot be read at all. Once it was read, a database that is away is waited for.
    pub fn read(&mut self, wait: Duration, runtime: &Runtime, table: &mut Table) -> Result<Came, Stop> {
        if self.reading.is_none() && Instant::now() < self.next {
            return Ok(Came::Nothing);
        }
        let reading = self.reading.get_or_insert_with(|| Reading {
            parts: self.views.read(&self.source.name, &self.columns, self.mark.as_deref()),
            rows: TableRows::new(&self.source, &self.needed, self.bounds, None),
            refused: 0,
            began: Instant::now(),
            began_ms: now_ms(),
        });
        let Some(part) = reading.next(wait, runtime) else { return Ok(Came::Nothing) };
        match part {
            Part::Begun => {
                (reading.began, reading.began_ms) = (Instant::now(), now_ms());
                Ok(Came::Something)
            }
            Part::Rows(rows) => {
                reading.take(&rows, &table.name);
                reading.rows.settle()?;
                Ok(Came::Something)
            }
            Part::Same => {
                table.as_of_ms = Some(reading.began_ms);
                self.rests();
                Ok(Came::Whole { is_new: false })
            }
            Part::Whole(mark) => {
                (self.mark, table.as_of_ms) = (Some(mark), Some(reading.began_ms));
                if let Some(reading) = self.rests() {
                    table.refused = reading.refused;
                    reading.rows.replace(&mut table.rows)?;
                }
                Ok(Came::Whole { is_new: true })
            }
            Part::Failed(LogError::Again(why)) if self.mark.is_some() => {
                tracing::debug!(view = table.name, why, "a view that is joined cannot be read again yet");
                self.rests();
                Ok(Came::Nothing)
            }
            Part::Failed(error) => {
                self.rests();
                Err(error.into())
            }
        }
    }

    /// It is left alone for a while. Gives what was read of it.
    fn rests(&mut self) -> Option<Reading> {
        let reading = self.reading.take()?;
        self.next = Instant::now() + self.every.max(reading.began.elapsed() * REST);
        Some(reading)
    }
}

impl Reading {
    /// What comes next, if it comes in time.
    fn next(&mut self, wait: Duration, runtime: &Runtime) -> Option<Part> {
        let cut = || Some(Part::Failed(LogError::Again("the reading of a view was cut short".to_owned())));
        match self.parts.try_recv() {
            Ok(part) => return Some(part),
            Err(TryRecvError::Disconnected) => return cut(),
            Err(TryRecvError::Empty) if wait.is_zero() => return None,
            Err(TryRecvError::Empty) => {}
        }
        let part = async { tokio::time::timeout(wait, self.parts.recv()).await };
        match runtime.block_on(part) {
            Ok(Some(part)) => Some(part),
            Ok(None) => cut(),
            Err(_) => None,
        }
    }

    fn take(&mut self, rows: &[ViewRow], view: &str) {
        let (place, mut batch) = (Place { topic: 0, partition: 0 }, Batch::default());
        for (key, value) in rows {
            let parts = (Some(key.as_bytes()), Some(value.as_bytes()));
            batch.push((place, 0), None, parts, std::iter::empty());
        }
        for record in batch.records() {
            if let Err(why) = self.rows.take(&record, record.value) {
                tracing::debug!(view, why, "a row of a view cannot be read");
                self.refused += 1;
            }
        }
    }
}
