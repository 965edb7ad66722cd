//! A query of somebody who looks. Nothing of it is kept; it ends with its reader, who sets its pace: what nobody takes is not
//! read.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use std::vec;

use futures_util::Stream;
use streamview_manager::catalog::Column;
use streamview_manager::engines::{AdHoc, End, Item, Row, RowKind, Rows};
use streamview_manager::ports::Schemas;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::intake::Intake;
use super::persistent::all_places;
use super::places::Places;
use super::{now_ms, runtime, spawn};
use crate::encode::values;
use crate::log::{Batch, Log, LogError, Reader};
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
    (log, schemas): (&dyn Log, Option<Arc<dyn Schemas>>),
    settings: &Settings,
    guard: Box<dyn Send>,
) -> Result<Rows, LogError> {
    let topics: Vec<String> = prepared.sources().iter().map(|source| source.topic.clone()).collect();
    let mut reader = log.reader(&topics)?;
    let (mut places, mut from) = (Places::default(), Vec::new());
    for place in all_places(&reader.partitions()?) {
        let (low, high) = reader.bounds(place)?;
        let offset = if query.from_start { low } else { high };
        places.add(place, offset, 0);
        from.push((place, offset));
    }
    let started = prepared.start(settings.bounds(settings.adhoc_memory_bytes));
    let mut execution = started.map_err(|failure| LogError::Halt(failure.message))?;
    for number in 0..topics.len() {
        let of_topic = places.0.keys().filter(|place| place.topic == number).map(|place| place.partition);
        execution.assign(number, &of_topic.collect::<Vec<_>>());
    }
    reader.assign(&from)?;
    let (sender, steps) = mpsc::channel(STEPS);
    let columns = prepared.columns().to_vec();
    let header = Item::Header { schema: schema(&columns), columns };
    let looking = Looking {
        intake: Intake::new(&prepared, schemas),
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
        let end = loop {
            match self.turn() {
                Ok(None) => {}
                Ok(Some(end)) => break end,
                Err(LogError::Again(why)) => break End::Interrupted(why),
                Err(error) => break End::Failed(error.to_string()),
            }
        };
        if self.sender.blocking_send(vec![Item::End(end)]).is_err() {
            tracing::debug!("nobody reads the rows of a query any more");
        }
    }

    /// Reads, computes, and hands out. Says how it ends, if it does.
    fn turn(&mut self) -> Result<Option<End>, LogError> {
        let (mut batch, mut asked) = (Batch::default(), Instant::now());
        loop {
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Some(End::Limit));
            }
            if self.sender.is_closed() {
                return Ok(Some(End::Cancelled));
            }
            self.reader.next(&mut batch, left.min(WAIT))?;
            let now = Instant::now();
            self.places.note(&batch, now);
            let taken = self.intake.take(&batch, &self.runtime)?;
            for (source, rows) in taken.rows {
                match self.runtime.block_on(self.execution.push(source, rows, now_ms())) {
                    Ok(pushed) => {
                        if !self.hand_out(&pushed.out) {
                            return Ok(Some(End::Cancelled));
                        }
                    }
                    Err(failure) => return Ok(Some(End::Failed(failure.message))),
                }
            }
            self.places.tell_idle(&mut self.execution, self.idle, now);
            match self.runtime.block_on(self.execution.close(now_ms())) {
                Ok(closed) => {
                    if !self.hand_out(&closed) {
                        return Ok(Some(End::Cancelled));
                    }
                }
                Err(failure) => return Ok(Some(End::Failed(failure.message))),
            }
            if self.execution.is_done() {
                return Ok(Some(End::Limit));
            }
            if asked.elapsed() >= ASK_AGAIN {
                self.ask()?;
                asked = Instant::now();
            }
        }
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
            if !self.places.0.contains_key(&place) {
                let (low, _) = self.reader.bounds(place)?;
                self.places.add(place, low, 0);
                from.push((place, low));
            }
        }
        if from.is_empty() {
            return Ok(());
        }
        for number in 0..self.topics {
            let of_topic = self.places.0.keys().filter(|place| place.topic == number).map(|place| place.partition);
            self.execution.assign(number, &of_topic.collect::<Vec<_>>());
        }
        self.reader.assign(&from)
    }
}
