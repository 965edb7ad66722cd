//! Open windows: states of their groups by pane, closed once the watermark has passed.
//!
//! A pane is a slide of the window; a row is in one pane, and a window is made of the panes in it. What is durable is the
//! decision that a window is closed (`closed_until`), never how far a partition's time had come.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray, RecordBatch, UInt32Array};
use datafusion::arrow::compute::{concat_batches, filter_record_batch, take_record_batch};
use datafusion::arrow::datatypes::{
    ArrowTimestampType, DataType, SchemaRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use datafusion::common::{Result, exec_err};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::physical_plan::ExecutionPlan;

use super::clocks::{Clocks, Partition, Time};
use super::failure::{Failure, sentence};
use super::runner::Runner;
use super::{FailedGroup, Places, Pushed, Refused, Usage};
use crate::plan::functions::{from_ms, times_ms};
use crate::plan::grown;
use crate::plan::slot::Input;
use crate::plan::split::split;
use crate::plan::{Bounds, Window, Windowed};

/// Pieces of state of a pane before they are made one.
const MAX_PIECES: usize = 16;

/// 1678-01-01T00:00Z. What lies before is a broken clock, and may not be counted with: nanoseconds begin in 1677, in the midst of a
/// window, and `date_bin` counts in them whatever the column has.
const FIRST_MS: i64 = -9_214_560_000_000;

/// The open windows of a query.
pub(crate) struct Windows {
    pub(super) clocks: Clocks,
    windowed: Windowed,
    bounds: Bounds,
    partial: Runner,
    reduce: Runner,
    last: Runner,
    /// Which column of a state is the window, and what states look like.
    column: usize,
    schema: SchemaRef,
    panes: BTreeMap<i64, Pane>,
    closed_until: Option<i64>,
    watermark: Option<i64>,
    memory: MemoryReservation,
    failing: Vec<FailedGroup>,
}

#[derive(Default)]
struct Pane {
    states: Vec<RecordBatch>,
    bytes: usize,
    /// Lowest offset of its rows, filtered ones included: which rows count is not known here.
    from: BTreeMap<Partition, i64>,
}

impl Pane {
    fn set(&mut self, states: Vec<RecordBatch>) {
        self.bytes = states.iter().map(RecordBatch::get_array_memory_size).sum();
        self.states = states;
    }

    fn keys(&self) -> usize {
        self.states.iter().map(RecordBatch::num_rows).sum()
    }
}

impl Windows {
    pub(super) fn new(
        plan: Arc<dyn ExecutionPlan>,
        windowed: &Windowed,
        context: &Arc<TaskContext>,
        bounds: Bounds,
    ) -> Result<Windows> {
        let parts = split(plan, &windowed.column)?;
        let memory = MemoryConsumer::new("open windows").register(context.memory_pool());
        Ok(Windows {
            clocks: Clocks::default(),
            windowed: windowed.clone(),
            bounds,
            partial: Runner::new(parts.partial, Arc::clone(context), false),
            reduce: Runner::new(parts.reduce, Arc::clone(context), true),
            last: Runner::new(parts.last, Arc::clone(context), true),
            column: parts.window,
            schema: parts.schema,
            panes: BTreeMap::new(),
            closed_until: None,
            watermark: None,
            memory,
            failing: Vec::new(),
        })
    }

    /// Has rows go into this plan from now on; what is open stays as it is.
    pub(super) fn anew(&mut self, plan: Arc<dyn ExecutionPlan>, context: Arc<TaskContext>) -> Result<&Runner> {
        self.partial = Runner::new(split(plan, &self.windowed.column)?.partial, context, false);
        Ok(&self.partial)
    }

    /// The plan that rows go into.
    pub(super) fn rows(&self) -> &Runner {
        &self.partial
    }

    pub(super) fn resume(&mut self, closed_until: i64) {
        self.closed_until = Some(self.closed_until.map_or(closed_until, |before| before.max(closed_until)));
    }

    pub(super) async fn push(
        &mut self,
        source: usize,
        rows: RecordBatch,
        places: Places,
        now_ms: i64,
        pushed: &mut Pushed,
    ) -> Result<(), Failure> {
        let Some(time) = self.windowed.times.get(&source).cloned() else { return Ok(()) };
        let times = times_of(&rows, &time.expr, places, &mut pushed.refused)?;
        let Window { size_ms, slide_ms } = self.windowed.window;
        let mut kept = Vec::with_capacity(rows.num_rows());
        for (at, row_time) in times.into_iter().enumerate() {
            let (partition, offset) = places.of(&rows, at);
            let is_kept = match row_time {
                None => false,
                Some(row_time) if row_time < FIRST_MS => {
                    let why = "the row's time is before the year 1678".to_owned();
                    pushed.refused.push(Refused { partition, offset, why });
                    false
                }
                Some(row_time) if row_time > now_ms.saturating_add(self.bounds.max_ahead_ms) => {
                    pushed.future.push((partition, offset));
                    false
                }
                Some(row_time) => {
                    self.clocks.move_to((source, partition), row_time.saturating_sub(time.lateness_ms));
                    pushed.moved.insert(partition);
                    let pane = row_time.div_euclid(slide_ms) * slide_ms;
                    let is_late = self.closed_until.is_some_and(|closed| pane + size_ms <= closed);
                    if is_late {
                        pushed.late.push((partition, offset));
                    } else {
                        let from =
                            self.panes.entry(pane).or_default().from.entry((source, partition)).or_insert(offset);
                        *from = offset.min(*from);
                    }
                    !is_late
                }
            };
            kept.push(is_kept);
        }
        let count = kept.iter().filter(|is_kept| **is_kept).count();
        if count == 0 {
            return Ok(());
        }
        let rows = match count == rows.num_rows() {
            true => rows,
            false => {
                filter_record_batch(&rows, &BooleanArray::from(kept)).map_err(|error| Failure::of(&error.into()))?
            }
        };
        let refused = &mut pushed.refused;
        let states = self.partial.run_apart(Input::Stream(source), rows, |rows, why| {
            let (partition, offset) = places.of(rows, 0);
            refused.push(Refused { partition, offset, why });
        });
        for states in states.await? {
            self.add(&states)?;
        }
        self.compact(MAX_PIECES).await?;
        self.bound().await
    }

    /// Puts the states of groups to their panes.
    fn add(&mut self, states: &RecordBatch) -> Result<(), Failure> {
        let starts = times_ms(states.column(self.column)).map_err(|error| Failure::of(&error))?;
        let mut by_pane: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        for (at, start) in starts.into_iter().enumerate() {
            // Where the two disagree its rows would be lost at a restart: nothing says from where they are to be read again.
            let Some(start) = start.filter(|start| self.panes.get(start).is_some_and(|pane| !pane.from.is_empty()))
            else {
                let message = format!("a row's window ({start:?}) is not the one that its time is in");
                return Err(Failure { code: "failed", message });
            };
            if let Ok(at) = u32::try_from(at) {
                by_pane.entry(start).or_default().push(at);
            }
        }
        for (start, rows) in by_pane {
            // Taken, not sliced: a slice counts as all of what it is cut from, and keeps it.
            let states =
                take_record_batch(states, &UInt32Array::from(rows)).map_err(|error| Failure::of(&error.into()))?;
            let pane = self.panes.entry(start).or_default();
            pane.bytes += states.get_array_memory_size();
            pane.states.push(states);
        }
        Ok(())
    }

    /// Makes one piece of the state of panes that have more than this many.
    async fn compact(&mut self, most: usize) -> Result<(), Failure> {
        let long: Vec<i64> =
            self.panes.iter().filter(|(_, pane)| pane.states.len() > most).map(|(at, _)| *at).collect();
        for start in long {
            let states = match self.panes.get(&start) {
                Some(pane) => pane.states.clone(),
                None => continue,
            };
            let reduced = self.reduced(&states).await?;
            if let Some(pane) = self.panes.get_mut(&start) {
                pane.set(vec![reduced]);
            }
        }
        Ok(())
    }

    /// Fails where the state is more than it may be, compact as it can be.
    async fn bound(&mut self) -> Result<(), Failure> {
        let keys = |panes: &BTreeMap<i64, Pane>| panes.values().map(Pane::keys).sum::<usize>();
        let is_over = |windows: &Windows| {
            let bytes: usize = windows.panes.values().map(|pane| pane.bytes).sum();
            keys(&windows.panes) > windows.bounds.max_keys
                || windows.panes.len() > windows.bounds.max_keys
                || windows.memory.try_resize(bytes).is_err()
        };
        if !is_over(self) {
            return Ok(());
        }
        self.compact(1).await?;
        if keys(&self.panes) > self.bounds.max_keys || self.panes.len() > self.bounds.max_keys {
            return Err(Failure::limit(format!(
                "more than {} groups in open windows: group by fewer keys, take a smaller window, or use Flink",
                self.bounds.max_keys
            )));
        }
        let bytes: usize = self.panes.values().map(|pane| pane.bytes).sum();
        self.memory.try_resize(bytes).map_err(|error| Failure::of(&error))
    }

    /// The rows of the windows that are closed now, with the window.
    pub(super) async fn close(&mut self, now_ms: i64) -> Result<Vec<(RecordBatch, (i64, i64))>, Failure> {
        let Window { size_ms, slide_ms } = self.windowed.window;
        self.advance(now_ms);
        let Some(watermark) = self.watermark else { return Ok(Vec::new()) };
        let closing = watermark.div_euclid(slide_ms) * slide_ms;
        let closed = self.closed_until;
        if closed.is_some_and(|closed| closing <= closed) {
            return Ok(Vec::new());
        }
        let mut out = Vec::new();
        for start in self.starts(closed, closing) {
            for rows in self.rows_of(start).await? {
                out.push((rows, (start, start + size_ms)));
            }
        }
        self.closed_until = Some(closing);
        self.panes.retain(|start, _| start + size_ms > closing);
        let bytes: usize = self.panes.values().map(|pane| pane.bytes).sum();
        self.memory.try_resize(bytes).map_err(|error| Failure::of(&error))?;
        Ok(out)
    }

    /// Windows with rows that end after `closed`, and at `closing` at the latest, in their order.
    fn starts(&self, closed: Option<i64>, closing: i64) -> BTreeSet<i64> {
        let Window { size_ms, slide_ms } = self.windowed.window;
        let panes = self.panes.iter().filter(|(_, pane)| !pane.states.is_empty()).map(|(start, _)| *start);
        let of_pane = |pane: i64| (0..size_ms / slide_ms).map(move |back| pane - back * slide_ms);
        let ends = |start: &i64| start + size_ms <= closing && closed.is_none_or(|closed| start + size_ms > closed);
        panes.flat_map(of_pane).filter(ends).collect()
    }

    async fn rows_of(&mut self, start: i64) -> Result<Vec<RecordBatch>, Failure> {
        let Window { size_ms, slide_ms } = self.windowed.window;
        let mut states = Vec::new();
        for pane in self.panes.range(start..start + size_ms).map(|(_, pane)| pane) {
            for state in &pane.states {
                states.push(match size_ms == slide_ms {
                    true => state.clone(),
                    false => of_window(state, self.column, start).map_err(|error| Failure::of(&error))?,
                });
            }
        }
        match self.last.run(Input::States, &states).await {
            Ok(rows) => Ok(rows),
            Err(fault) if fault.why().is_some() => self.rows_without_failing(start, &states).await,
            Err(fault) => Err(fault.failure()),
        }
    }

    /// An expression over the aggregates fails with some group (a division by its count, say): the others go on without it.
    async fn rows_without_failing(&mut self, start: i64, states: &[RecordBatch]) -> Result<Vec<RecordBatch>, Failure> {
        let window = (start, start + self.windowed.window.size_ms);
        let (mut open, mut whole) = (vec![self.reduced(states).await?], Vec::new());
        while let Some(groups) = open.pop() {
            let Err(fault) = self.last.run(Input::States, std::slice::from_ref(&groups)).await else {
                whole.push(groups);
                continue;
            };
            let Some(why) = fault.why() else { return Err(fault.failure()) };
            let half = groups.num_rows() / 2;
            if half == 0 {
                self.failing.push(FailedGroup { window, why });
            } else {
                open.push(groups.slice(half, groups.num_rows() - half));
                open.push(groups.slice(0, half));
            }
        }
        self.last.run(Input::States, &whole).await.map_err(|fault| fault.failure())
    }

    /// One state of each group.
    async fn reduced(&self, states: &[RecordBatch]) -> Result<RecordBatch, Failure> {
        let reduced = self.reduce.run(Input::States, states).await.map_err(|fault| fault.failure())?;
        concat_batches(&self.schema, &reduced).map_err(|error| Failure::of(&error.into()))
    }

    /// Groups that failed since this was asked last.
    pub(super) fn take_failing(&mut self) -> Vec<FailedGroup> {
        std::mem::take(&mut self.failing)
    }

    /// Moves the watermark: with the slowest partition that is not idle, or, where all are idle, with the clock, but not beyond
    /// the open windows.
    fn advance(&mut self, now_ms: i64) {
        let Window { size_ms, .. } = self.windowed.window;
        let time = match self.clocks.time() {
            Time::Unknown => return,
            Time::At(time) => time,
            Time::Idle => {
                let Some((last, _)) = self.panes.last_key_value() else { return };
                let lateness = self.windowed.times.values().map(|time| time.lateness_ms).max().unwrap_or(0);
                now_ms.saturating_sub(lateness).min(last.saturating_add(size_ms))
            }
        };
        self.watermark = Some(self.watermark.map_or(time, |before| before.max(time)));
    }

    pub(super) fn closed_until(&self) -> Option<i64> {
        self.closed_until
    }

    pub(super) fn watermark(&self) -> Option<i64> {
        self.watermark
    }

    pub(super) fn held_from(&self) -> BTreeMap<Partition, i64> {
        let mut held: BTreeMap<Partition, i64> = BTreeMap::new();
        for (partition, offset) in self.panes.values().flat_map(|pane| &pane.from) {
            let least = held.entry(*partition).or_insert(*offset);
            *least = (*least).min(*offset);
        }
        held
    }

    pub(super) fn usage(&self) -> Usage {
        Usage {
            keys: self.panes.values().map(Pane::keys).sum(),
            state_bytes: self.panes.values().map(|pane| pane.bytes).sum(),
            open_windows: self.panes.values().filter(|pane| !pane.states.is_empty()).count(),
        }
    }
}

/// The time of each row in milliseconds; none where it has none, which is noted.
fn times_of(
    rows: &RecordBatch,
    expr: &Arc<dyn datafusion::physical_expr::PhysicalExpr>,
    places: Places,
    refused: &mut Vec<Refused>,
) -> Result<Vec<Option<i64>>, Failure> {
    let evaluate = |rows: &RecordBatch| {
        grown::begins();
        expr.evaluate(rows).and_then(|times| times.into_array(rows.num_rows())).and_then(|times| times_ms(&times))
    };
    let times = match evaluate(rows) {
        Ok(times) => times,
        // One of them is to blame: each is asked alone.
        Err(_) => {
            let mut times = Vec::with_capacity(rows.num_rows());
            for at in 0..rows.num_rows() {
                times.push(match evaluate(&rows.slice(at, 1)) {
                    Ok(time) => time.first().copied().flatten().map(Ok),
                    Err(error) => Some(Err(sentence(&error))),
                });
            }
            let mut plain = Vec::with_capacity(times.len());
            for (at, time) in times.into_iter().enumerate() {
                plain.push(match time {
                    Some(Err(why)) => {
                        let (partition, offset) = places.of(rows, at);
                        refused.push(Refused { partition, offset, why });
                        // Not said twice below.
                        None
                    }
                    Some(Ok(time)) => Some(time),
                    None => {
                        note_missing(rows, at, places, refused);
                        None
                    }
                });
            }
            return Ok(plain);
        }
    };
    for (at, time) in times.iter().enumerate() {
        if time.is_none() {
            note_missing(rows, at, places, refused);
        }
    }
    Ok(times)
}

fn note_missing(rows: &RecordBatch, at: usize, places: Places, refused: &mut Vec<Refused>) {
    let (partition, offset) = places.of(rows, at);
    let why = "the row has no time for the window".to_owned();
    refused.push(Refused { partition, offset, why });
}

/// States of a pane as states of the window that begins at `start`.
fn of_window(states: &RecordBatch, column: usize, start: i64) -> Result<RecordBatch> {
    fn filled<T: ArrowTimestampType>(times: &ArrayRef, start: i64) -> ArrayRef {
        let filled: PrimitiveArray<T> = times.as_primitive::<T>().unary(|_| from_ms(start, T::UNIT));
        Arc::new(filled.with_data_type(times.data_type().clone()))
    }
    let times = states.column(column);
    let filled = match times.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => filled::<TimestampSecondType>(times, start),
        DataType::Timestamp(TimeUnit::Millisecond, _) => filled::<TimestampMillisecondType>(times, start),
        DataType::Timestamp(TimeUnit::Microsecond, _) => filled::<TimestampMicrosecondType>(times, start),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => filled::<TimestampNanosecondType>(times, start),
        other => return exec_err!("{other} is no timestamp"),
    };
    let mut columns = states.columns().to_vec();
    columns[column] = filled;
    Ok(RecordBatch::try_new(states.schema(), columns)?)
}
