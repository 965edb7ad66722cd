//! A query that runs: rows of topics go in, rows come out. No I/O and no clock; whoever reads the topics says what time it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::{Int32Type, Int64Type, SchemaRef};
use datafusion::common::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryPool, MemoryReservation};
use streamview_manager::catalog::Source;

use crate::plan::slot::Input;
use crate::plan::{Bounds, Prepared, origin, session};
use crate::schema;

pub use self::failure::Failure;
use self::runner::Runner;
use self::windows::Windows;

mod clocks;
mod failure;
mod runner;
mod windows;

/// A row that was refused alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Why, in one line.
    pub why: String,
}

/// A group of a window that is not in its rows, because an expression over its aggregates fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedGroup {
    /// The window: start and end in milliseconds since 1970.
    pub window: (i64, i64),
    /// Why, in one line.
    pub why: String,
}

/// What became of a batch.
#[derive(Debug, Clone, Default)]
pub struct Pushed {
    /// Rows that came out at once (of a query without a window).
    pub out: Vec<Output>,
    /// Rows with which an expression fails, or without a time.
    pub refused: Vec<Refused>,
    /// Partition and offset of rows whose windows are all closed. After [`Execution::resume`] these are also rows that were
    /// counted in those windows and are read again.
    pub late: Vec<(i32, i64)>,
    /// Partition and offset of rows whose time lies too far in the future.
    pub future: Vec<(i32, i64)>,
    /// Partitions that said how late it is, by a row whose time counts: none of them is idle any more.
    pub moved: BTreeSet<i32>,
}

/// Rows that came out.
#[derive(Debug, Clone)]
pub struct Output {
    /// In the columns of [`Prepared::columns`], in the types of [`schema::to_arrow`].
    pub rows: RecordBatch,
    /// The window that they are of: start and end in milliseconds since 1970.
    pub window: Option<(i64, i64)>,
    /// Of a query without a window that is deployed or joins a table: partition and offset of the record that each row is made of.
    /// Else empty.
    pub origins: Vec<(i32, i64)>,
}

/// What a query takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Groups in its open windows, or more (a group counts again for each piece of state that it is in).
    pub keys: usize,
    /// Bytes that it holds.
    pub state_bytes: usize,
    /// Open windows with rows; of hopping windows, their slides.
    pub open_windows: usize,
}

/// A query that runs. Dropped, all that it holds is free.
pub struct Execution {
    kind: Kind,
    sources: Vec<Source>,
    schema: SchemaRef,
    left: Option<u64>,
    has_origins: bool,
    /// Whether its rows may come in another order than their records.
    is_joined: bool,
    context: Arc<TaskContext>,
    pool: Arc<dyn MemoryPool>,
    failed: Option<Failure>,
}

enum Kind {
    Rows(Box<Runner>),
    Windows(Box<Windows>),
}

/// Where a row of a source says what it is.
#[derive(Clone, Copy)]
pub(crate) struct Places {
    partition: usize,
    offset: usize,
}

impl Places {
    fn new(source: &Source) -> Places {
        Places { partition: source.columns.len(), offset: source.columns.len() + 1 }
    }

    /// Partition and offset of a row.
    fn of(self, rows: &RecordBatch, at: usize) -> (i32, i64) {
        let partition = rows.column(self.partition).as_primitive_opt::<Int32Type>().map_or(0, |all| all.value(at));
        let offset = rows.column(self.offset).as_primitive_opt::<Int64Type>().map_or(0, |all| all.value(at));
        (partition, offset)
    }
}

impl Execution {
    pub(crate) fn new(
        prepared: &Prepared,
        bounds: Bounds,
        tables: &BTreeMap<usize, Vec<RecordBatch>>,
    ) -> Result<Execution> {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(bounds.memory_bytes));
        let runtime = session::runtime(Arc::clone(&pool))?;
        let config = prepared.state.config().clone();
        let context = Arc::new(TaskContext::default().with_session_config(config).with_runtime(runtime));
        let plan = prepared.physical()?;
        let kind = match &prepared.windowed {
            None => Kind::Rows(Box::new(Runner::new(plan, Arc::clone(&context), false))),
            Some(windowed) => Kind::Windows(Box::new(Windows::new(plan, windowed, &context, bounds)?)),
        };
        let rows = match &kind {
            Kind::Rows(runner) => runner.as_ref(),
            Kind::Windows(windows) => windows.rows(),
        };
        for (source, batches) in tables {
            rows.fill(*source, batches)?;
        }
        let sources = prepared.sources.clone();
        let schema = schema::canonical(&prepared.columns);
        let (left, has_origins) = (prepared.limit, prepared.has_origins);
        let is_joined = has_origins && !prepared.tables().is_empty();
        Ok(Execution { kind, sources, schema, left, has_origins, is_joined, context, pool, failed: None })
    }

    /// Meets these rows of its tables from now on, by the number of the source: all tables, whole. A new plan: the old one keeps
    /// the rows that it has been given.
    ///
    /// # Errors
    /// Never, unless there is a fault in here: what does not fit into memory is told by the next batch.
    pub fn refresh(&mut self, prepared: &Prepared, tables: &BTreeMap<usize, Vec<RecordBatch>>) -> Result<(), Failure> {
        let failed = |error| Failure::of(&error);
        let plan = prepared.physical().map_err(failed)?;
        let context = Arc::clone(&self.context);
        let rows = match &mut self.kind {
            Kind::Rows(runner) => {
                **runner = Runner::new(plan, context, false);
                &**runner
            }
            Kind::Windows(windows) => windows.anew(plan, context).map_err(failed)?,
        };
        tables.iter().try_for_each(|(source, batches)| rows.fill(*source, batches)).map_err(failed)
    }

    /// Room in the query's memory, for what somebody keeps for it.
    pub(crate) fn room(&self, name: &str) -> MemoryReservation {
        MemoryConsumer::new(name).register(&self.pool)
    }

    /// These partitions of a source are read, and no others. Each holds the watermark back until its own rows move it, or until
    /// it is idle.
    pub fn assign(&mut self, source: usize, partitions: &[i32]) {
        if let Kind::Windows(windows) = &mut self.kind {
            windows.clocks.assign(source, partitions);
        }
    }

    /// Whether it waits for the time of its partitions to come forward.
    pub fn has_windows(&self) -> bool {
        matches!(self.kind, Kind::Windows(_))
    }

    /// Windows that end at or before this were written before: their rows are late, and they are not written again.
    pub fn resume(&mut self, closed_until_ms: i64) {
        if let Kind::Windows(windows) = &mut self.kind {
            windows.resume(closed_until_ms);
        }
    }

    /// Takes rows of a source: its columns in order, then [`schema::HIDDEN`].
    pub async fn push(&mut self, source: usize, rows: RecordBatch, now_ms: i64) -> Result<Pushed, Failure> {
        self.whole()?;
        let pushed = self.taken(source, rows, now_ms).await;
        self.noted(pushed)
    }

    async fn taken(&mut self, source: usize, rows: RecordBatch, now_ms: i64) -> Result<Pushed, Failure> {
        let Some(of) = self.sources.get(source) else {
            return Err(Failure { code: "failed", message: format!("there is no source {source}") });
        };
        let places = Places::new(of);
        let mut pushed = Pushed::default();
        if rows.num_rows() == 0 {
            return Ok(pushed);
        }
        match &mut self.kind {
            Kind::Windows(windows) => windows.push(source, rows, places, now_ms, &mut pushed).await?,
            Kind::Rows(runner) => {
                let refused = &mut pushed.refused;
                let out = runner.run_apart(Input::Stream(source), rows, |rows, why| {
                    let (partition, offset) = places.of(rows, 0);
                    refused.push(Refused { partition, offset, why });
                });
                let out = out.await?;
                let out = match self.is_joined {
                    true => origin::in_order(out).map_err(|error| Failure::of(&error))?,
                    false => out,
                };
                for rows in out {
                    self.give(&rows, None, &mut pushed.out)?;
                }
            }
        }
        Ok(pushed)
    }

    /// Nothing comes of a partition that has been read to its end: it does not hold the watermark back any more, until it has
    /// rows again ([`Pushed::moved`]). Once all are idle, windows close by the clock.
    pub fn idle(&mut self, source: usize, partition: i32) {
        if let Kind::Windows(windows) = &mut self.kind {
            windows.clocks.idle(source, partition);
        }
    }

    /// No partition is idle any more, until it is said again.
    pub fn wake(&mut self) {
        if let Kind::Windows(windows) = &mut self.kind {
            windows.clocks.wake();
        }
    }

    /// Closes the windows that the watermark has passed. `now_ms`: where all partitions are idle.
    pub async fn close(&mut self, now_ms: i64) -> Result<Vec<Output>, Failure> {
        self.whole()?;
        let closed = self.closed(now_ms).await;
        self.noted(closed)
    }

    async fn closed(&mut self, now_ms: i64) -> Result<Vec<Output>, Failure> {
        let mut out = Vec::new();
        let Kind::Windows(windows) = &mut self.kind else { return Ok(out) };
        for (rows, window) in windows.close(now_ms).await? {
            self.give(&rows, Some(window), &mut out)?;
        }
        Ok(out)
    }

    fn give(&mut self, rows: &RecordBatch, window: Option<(i64, i64)>, out: &mut Vec<Output>) -> Result<(), Failure> {
        let take =
            self.left.map_or(rows.num_rows(), |left| usize::try_from(left).unwrap_or(usize::MAX).min(rows.num_rows()));
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(take as u64);
        }
        if take > 0 {
            let rows = rows.slice(0, take);
            let (rows, origins) = match self.has_origins {
                true => origin::split(&rows).map_err(|error| Failure::of(&error))?,
                false => (rows, Vec::new()),
            };
            let rows = schema::to_canonical(&rows, &self.schema).map_err(|error| Failure::of(&error.into()))?;
            out.push(Output { rows, window, origins });
        }
        Ok(())
    }

    fn whole(&self) -> Result<(), Failure> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// What has failed once is not run again: its state may lack rows.
    fn noted<T>(&mut self, result: Result<T, Failure>) -> Result<T, Failure> {
        if let Err(failure) = &result {
            self.failed = Some(failure.clone());
        }
        result
    }

    /// Groups of closed windows that failed, since this was asked last. Read again after a restart they fail again.
    pub fn take_failed_groups(&mut self) -> Vec<FailedGroup> {
        match &mut self.kind {
            Kind::Windows(windows) => windows.take_failing(),
            Kind::Rows(_) => Vec::new(),
        }
    }

    /// Whether its LIMIT is reached.
    pub fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    /// Windows that end at or before this are closed.
    pub fn closed_until(&self) -> Option<i64> {
        match &self.kind {
            Kind::Windows(windows) => windows.closed_until(),
            Kind::Rows(_) => None,
        }
    }

    /// No row with a time before this is waited for.
    pub fn watermark(&self) -> Option<i64> {
        match &self.kind {
            Kind::Windows(windows) => windows.watermark(),
            Kind::Rows(_) => None,
        }
    }

    /// By source and partition, the lowest offset of a row in an open window: from here on it has to be read again after a
    /// restart. A partition that is not in here goes on behind what was pushed.
    pub fn held_from(&self) -> BTreeMap<(usize, i32), i64> {
        match &self.kind {
            Kind::Windows(windows) => windows.held_from(),
            Kind::Rows(_) => BTreeMap::new(),
        }
    }

    #[cfg(test)]
    pub(crate) fn pool(&self) -> Arc<dyn MemoryPool> {
        Arc::clone(&self.pool)
    }

    /// What it takes.
    pub fn usage(&self) -> Usage {
        match &self.kind {
            Kind::Windows(windows) => windows.usage(),
            Kind::Rows(_) => Usage { state_bytes: self.pool.reserved(), ..Usage::default() },
        }
    }
}
