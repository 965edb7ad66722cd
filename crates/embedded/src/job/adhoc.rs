//! A query of somebody who looks. Nothing of it is kept; it ends with its reader, who sets its pace: what nobody takes is not
//! read.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use std::vec;

use futures_util::Stream;
use streamview_manager::catalog::Column;
use streamview_manager::engines::{AdHoc, End, Item, Row, RowKind, Rows, Seen};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::intake::Intake;
use super::persistent::all_places;
use super::places::Places;
use super::tables::{Stop, TableNow, Tables};
use super::{Outside, now_ms, runtime, spawn, told};
use crate::encode::values;
use crate::log::{Batch, LogError, Place, Reader};
use crate::plan::Prepared;
use crate::run::{Execution, Output};
use crate::settings::Settings;

/// How long records are waited for before it is looked whether somebody still reads.
const WAIT: Duration = Duration::from_millis(100);
/// Steps that may wait for the reader.
const STEPS: usize = 4;
/// Rows of one step at most.
const STEP_ROWS: usize = 1_024;
/// So often it is asked for new partitions, and whether the topic is still there.
const ASK_AGAIN: Duration = Duration::from_secs(3);

/// The rows, as a stream. Dropped, the query ends.
struct Reading {
    steps: mpsc::Receiver<Vec<Item>>,
    items: vec::IntoIter<Item>,
}

impl Stream for Reading {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Item>> {
        loop {
            if let Some(item) = self.items.next() {
                return Poll::Ready(Some(item));
            }
            match self.steps.poll_recv(context) {
                Poll::Ready(Some(items)) => self.items = items.into_iter(),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// The columns as the seeds' clients read them: `` `order_id` BIGINT, `amount` DECIMAL(20, 2) ``.
fn schema(columns: &[Column]) -> String {
    let column = |column: &Column| {
        format!("`{}` {}", column.name.replace('`', "``"), column.data_type.to_string().to_uppercase())
    };
    columns.iter().map(column).collect::<Vec<_>>().join(", ")
}

/// Begins it. Blocks until it is known where. `guard` is held until it has ended.
pub(crate) fn look(
    query: &AdHoc,
    prepared: Prepared,
    outside: &Outside,
    settings: &Settings,
    guard: Box<dyn Send>,
) -> Result<Rows, LogError> {
    let topics: Vec<String> = prepared.streams().iter().map(|source| source.topic.clone()).collect();
    let mut reader = outside.log.reader(&topics)?;
    let (mut places, mut from) = (Places::default(), Vec::new());
    for place in all_places(&reader.partitions()?) {
        let (low, high) = reader.bounds(place)?;
        let offset = if query.from_start { low } else { high };
        places.add(place, offset, (0, 0), BTreeSet::new());
        from.push((place, offset));
    }
    let started = prepared.start(settings.bounds(settings.adhoc_memory_bytes));
    let mut execution = started.map_err(|failure| LogError::Halt(told(failure)))?;
    let tables = Tables::of(&prepared, &execution, outside, settings)?;
    for number in 0..topics.len() {
        let of_topic = places.all.keys().filter(|place| place.topic == number).map(|place| place.partition);
        execution.assign(number, &of_topic.collect::<Vec<_>>());
    }
    reader.assign(&from)?;
    let (sender, steps) = mpsc::channel(STEPS);
    let columns = prepared.columns().to_vec();
    let header = Item::Header { schema: schema(&columns), columns };
    let looking = Looking {
        intake: Intake::new(&prepared, outside.schemas.clone()),
        prepared,
        tables,
        seen: Seen::default(),
        refreshed: Vec::new(),
        reader,
        execution,
        places,
        sender: sender.clone(),
        until: Instant::now() + query.time_limit,
        idle: settings.idle,
        runtime: runtime().map_err(LogError::Again)?,
        topics: topics.len(),
    };
    let work = move || {
        let _held = guard;
        looking.run();
        Ok(())
    };
    let broken = move |why| {
        let end = vec![Item::End(End::Failed(why))];
        if sender.blocking_send(end).is_err() {
            tracing::debug!("nobody reads the rows of a query that has failed");
        }
    };
    spawn(format!("look-{}", query.id), work, broken)
        .map_err(|error| LogError::Again(format!("there is no thread for the query: {error}")))?;
    Ok(Box::pin(Reading { steps, items: vec![header].into_iter() }))
}

struct Looking {
    prepared: Prepared,
    tables: Option<Tables>,
    /// What was told last of what is left out.
    seen: Seen,
    /// When the tables were refreshed that were told last.
    refreshed: Vec<i64>,
    intake: Intake,
    reader: Box<dyn Reader>,
    execution: Execution,
    places: Places,
    sender: mpsc::Sender<Vec<Item>>,
    until: Instant,
    idle: Duration,
    runtime: Runtime,
    topics: usize,
}

impl Looking {
    fn run(mut self) {
        let end = match self.read_tables().and_then(|end| end.map_or_else(|| self.turns(), Ok)) {
            Ok(end) => end,
            Err(Stop::Log(LogError::Again(why))) => End::Interrupted(why),
            Err(Stop::Log(error)) => End::Failed(error.to_string()),
            Err(Stop::Failed(failure)) => End::Failed(told(failure)),
        };
        if self.sender.blocking_send(vec![Item::End(end)]).is_err() {
            tracing::debug!("nobody reads the rows of a query any more");
        }
    }

    /// Whether it is over, and how, for reasons of its reader or of time.
    fn is_over(&self) -> Option<End> {
        if self.until <= Instant::now() {
            return Some(End::Limit);
        }
        self.sender.is_closed().then_some(End::Cancelled)
    }

    /// Reads its tables to their ends. Says how it ends, if it does meanwhile.
    fn read_tables(&mut self) -> Result<Option<End>, Stop> {
        while let Some(tables) = self.tables.as_mut().filter(|tables| !tables.is_whole()) {
            tables.read(WAIT, &self.runtime)?;
            if let Some(end) = self.is_over() {
                return Ok(Some(end));
            }
        }
        if let Some(tables) = &mut self.tables {
            tables.refresh(&self.prepared, &mut self.execution)?;
        }
        Ok((!self.tell_seen()).then_some(End::Cancelled))
    }

    /// Reads, computes, and hands out, until it ends.
    fn turns(&mut self) -> Result<End, Stop> {
        let (mut batch, mut asked) = (Batch::default(), Instant::now());
        loop {
            if let Some(end) = self.is_over() {
                return Ok(end);
            }
            if let Some(tables) = &mut self.tables {
                tables.keep_up(&self.prepared, &mut self.execution, &self.runtime)?;
            }
            let left = self.until.saturating_duration_since(Instant::now());
            self.reader.next(&mut batch, left.min(WAIT))?;
            if !self.compute(&batch)? {
                return Ok(End::Cancelled);
            }
            if self.execution.is_done() {
                return Ok(End::Limit);
            }
            if asked.elapsed() >= ASK_AGAIN {
                self.ask()?;
                asked = Instant::now();
            }
        }
    }

    /// Computes what was read, and hands out; `false` if the reader is gone.
    fn compute(&mut self, batch: &Batch) -> Result<bool, Stop> {
        let now = Instant::now();
        let taken = self.intake.take(batch, |_| false, &self.runtime)?;
        let mut left_out = self.seen.left_out.clone();
        left_out.refused += taken.refused.len() as u64;
        left_out.why = taken.refused.into_values().next_back().or(left_out.why);
        let (mut out, mut moved) = (Vec::new(), BTreeSet::new());
        for (source, rows) in taken.rows {
            let pushed = self.runtime.block_on(self.execution.push(source, rows, now_ms()))?;
            left_out.refused += pushed.refused.len() as u64;
            left_out.late += pushed.late.len() as u64;
            left_out.future += pushed.future.len() as u64;
            moved.extend(pushed.moved.iter().map(|partition| Place { topic: source, partition: *partition }));
            left_out.why = pushed.refused.into_iter().next_back().map(|refused| refused.why).or(left_out.why);
            out.extend(pushed.out);
        }
        self.places.note(batch, &moved, now);
        self.places.tell_idle(&mut self.execution, &mut *self.reader, self.idle, now);
        out.extend(self.runtime.block_on(self.execution.close(now_ms()))?);
        let failed = self.execution.take_failed_groups();
        left_out.failed_groups += failed.len() as u64;
        left_out.why = failed.into_iter().next_back().map(|group| group.why).or(left_out.why);
        let tables = self.seen.tables.clone();
        let is_told = self.hand_out(&out) && self.tell(Seen { left_out, tables });
        Ok(is_told && self.tell_seen())
    }

    /// Tells its tables anew, if they were refreshed; `false` if the reader is gone.
    fn tell_seen(&mut self) -> bool {
        let tables = self.tables.as_ref().map(Tables::now).unwrap_or_default();
        // Rows that are not met yet are told with the refresh that brings them.
        let is_new = tables.iter().map(|table| table.refreshed_ms).ne(self.refreshed.iter().copied());
        if !is_new {
            return true;
        }
        self.refreshed = tables.iter().map(|table| table.refreshed_ms).collect();
        let left_out = self.seen.left_out.clone();
        self.tell(Seen { left_out, tables: tables.into_iter().map(TableNow::told).collect() })
    }

    /// Tells what has changed of what is left out and of the tables; `false` if the reader is gone.
    fn tell(&mut self, seen: Seen) -> bool {
        if self.seen == seen {
            return true;
        }
        self.seen = seen.clone();
        self.sender.blocking_send(vec![Item::Seen(seen)]).is_ok()
    }

    /// Waits while the reader is busy; `false` if it is gone.
    fn hand_out(&self, outputs: &[Output]) -> bool {
        for output in outputs {
            let all: Vec<usize> = (0..output.rows.num_rows()).collect();
            for rows in all.chunks(STEP_ROWS) {
                let item = |row: &usize| Item::Row(Row { kind: RowKind::Insert, values: values(&output.rows, *row) });
                if self.sender.blocking_send(rows.iter().map(item).collect()).is_err() {
                    return false;
                }
            }
        }
        true
    }

    /// Asks for new partitions; they are read from their beginning, for all in them is new.
    fn ask(&mut self) -> Result<(), LogError> {
        let found = match self.reader.partitions() {
            Ok(found) => all_places(&found),
            // Whoever does not answer says nothing of the topics.
            Err(LogError::Again(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut from = Vec::new();
        for place in found {
            if !self.places.all.contains_key(&place) {
                let (low, _) = self.reader.bounds(place)?;
                self.places.add(place, low, (0, 0), BTreeSet::new());
                from.push((place, low));
            }
        }
        if from.is_empty() {
            return Ok(());
        }
        for number in 0..self.topics {
            let of_topic = self.places.all.keys().filter(|place| place.topic == number).map(|place| place.partition);
            self.execution.assign(number, &of_topic.collect::<Vec<_>>());
        }
        self.reader.assign(&from)
    }
}
