//! One query that runs. Its engine's rows are held here and nowhere else, so that whoever ends it ends it in the engine, at
//! once, even if its reader does not read.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use futures_util::Stream;
use tokio_util::sync::CancellationToken;

use super::limits::Places;
use super::lines::{self, Line};
use super::{QueryInfo, Refused};
use crate::engines::{End, Item, LeftOut, Rows, Seen};
use crate::settings::Limits;

/// A query that runs, or has ended and is still to be told so.
pub(super) struct Running {
    info: QueryInfo,
    most_rows: u64,
    most_bytes: u64,
    rows: AtomicU64,
    bytes: AtomicU64,
    is_read: AtomicBool,
    stage: Mutex<Stage>,
    ended: CancellationToken,
    places: Weak<Mutex<Places>>,
}

#[derive(Default)]
struct Stage {
    rows: Option<Rows>,
    seen: Seen,
    end: Option<(End, Option<String>)>,
    reader: Option<Waker>,
}

impl Running {
    pub fn new(info: QueryInfo, limits: &Limits, places: Weak<Mutex<Places>>) -> Running {
        Running {
            info,
            most_rows: limits.query_rows,
            most_bytes: limits.query_bytes,
            rows: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            is_read: AtomicBool::new(false),
            stage: Mutex::default(),
            ended: CancellationToken::new(),
            places,
        }
    }

    pub fn id(&self) -> &str {
        &self.info.id
    }

    pub fn owner(&self) -> &str {
        &self.info.owner
    }

    pub fn info(&self) -> QueryInfo {
        let Seen { left_out, tables } = self.stage().seen.clone();
        QueryInfo {
            left_out,
            tables,
            is_read: self.is_read(),
            rows: self.rows.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            ..self.info.clone()
        }
    }

    pub fn is_read(&self) -> bool {
        self.is_read.load(Ordering::Relaxed)
    }

    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it. Only the first end counts.
    pub fn finish(&self, end: End, reason: Option<String>) {
        let (rows, reader) = {
            let mut stage = self.stage();
            if stage.end.is_none() {
                stage.end = Some((end, reason));
            }
            (stage.rows.take(), stage.reader.take())
        };
        // Dropped, they end the query in the engine.
        drop(rows);
        self.ended.cancel();
        if let Some(places) = self.places.upgrade() {
            places.lock().unwrap_or_else(PoisonError::into_inner).leave(&self.info.id);
        }
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// What is said to whoever began it, once it has ended before its engine had begun it.
    pub fn as_ended(&self) -> Refused {
        let (end, reason) = self.stage().end.clone().unwrap_or((End::Cancelled, None));
        Refused::Ended { id: self.info.id.clone(), end, reason }
    }

    /// What comes next, of the engine; `None` once it has ended.
    fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Item>> {
        let mut stage = self.stage();
        let is_over = stage.end.is_some();
        let polled = loop {
            let polled = match &mut stage.rows {
                Some(rows) => rows.as_mut().poll_next(context),
                // Its engine has not answered yet; whoever hears it wakes the reader.
                None if !is_over => Poll::Pending,
                None => return Poll::Ready(None),
            };
            match polled {
                Poll::Ready(Some(Item::Seen(seen))) => stage.seen = seen,
                other => break other,
            }
        };
        match polled {
            Poll::Pending => {
                // Whoever ends it meanwhile wakes the reader.
                stage.reader = Some(context.waker().clone());
                Poll::Pending
            }
            Poll::Ready(Some(item)) => Poll::Ready(Some(item)),
            Poll::Ready(None) => {
                let why = "the engine's rows ended without a word".to_owned();
                Poll::Ready(Some(Item::End(End::Interrupted(why))))
            }
        }
    }

    /// Counts a row that is about to be told. Gives why it is not, or, after it, why it is the last one.
    fn count(&self, line: &Line) -> (bool, Option<String>) {
        let bytes = line.text().len() as u64;
        if self.bytes.load(Ordering::Relaxed) + bytes > self.most_bytes {
            return (false, Some(format!("its {} bytes are told (`manager.limits.query_bytes`)", self.most_bytes)));
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let is_last = self.rows.fetch_add(1, Ordering::Relaxed) + 1 >= self.most_rows;
        (true, is_last.then(|| format!("its {} rows are told (`manager.limits.query_rows`)", self.most_rows)))
    }
}

/// A place for a query whose engine has not answered yet. Dropped, the place is free.
pub(super) struct Begun(Option<Arc<Running>>);

impl Begun {
    pub fn new(running: Arc<Running>) -> Begun {
        Begun(Some(running))
    }

    /// The engine has answered. Ended meanwhile, the query ends in the engine here.
    pub fn with(mut self, rows: Rows) -> Result<Arc<Running>, Refused> {
        let running = self.0.take().expect("it is taken once");
        let (late, reader) = {
            let mut stage = running.stage();
            match stage.end {
                None => {
                    stage.rows = Some(rows);
                    (None, stage.reader.take())
                }
                Some(_) => (Some(rows), None),
            }
        };
        if late.is_some() {
            return Err(running.as_ended());
        }
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(running)
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if let Some(running) = self.0.take() {
            running.finish(End::Cancelled, None);
        }
    }
}

/// The lines of a query: header, rows, end. Dropped, it ends the query.
pub struct QueryRows {
    running: Arc<Running>,
    is_over: bool,
}

impl QueryRows {
    /// `None` if somebody reads it already.
    pub(super) fn of(running: Arc<Running>) -> Option<QueryRows> {
        let was_read = running.is_read.swap(true, Ordering::Relaxed);
        // Only made if it is the one: dropped, it would end the query.
        (!was_read).then(|| QueryRows { running, is_over: false })
    }

    /// The query's id.
    pub fn id(&self) -> &str {
        self.running.id()
    }

    /// What is not in its rows so far.
    pub(super) fn left_out(&self) -> LeftOut {
        self.running.stage().seen.left_out.clone()
    }

    fn last(&mut self) -> Line {
        self.is_over = true;
        let stage = self.running.stage();
        let (end, reason) = stage.end.clone().unwrap_or((End::Cancelled, None));
        lines::end(&end, reason, &stage.seen)
    }
}

impl Drop for QueryRows {
    fn drop(&mut self) {
        self.running.finish(End::Cancelled, None);
    }
}

impl Stream for QueryRows {
    type Item = Line;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Line>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        match self.running.poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(Some(self.last())),
            Poll::Ready(Some(Item::Header { columns, schema })) => {
                Poll::Ready(Some(lines::header(self.running.id(), &columns, schema)))
            }
            Poll::Ready(Some(Item::Row(row))) => {
                let line = lines::row(&row);
                let (is_told, reason) = self.running.count(&line);
                if reason.is_some() {
                    self.running.finish(End::Limit, reason);
                }
                Poll::Ready(Some(if is_told { line } else { self.last() }))
            }
            // Kept by whoever polls.
            Poll::Ready(Some(Item::Seen(_))) => Poll::Pending,
            Poll::Ready(Some(Item::End(end))) => {
                self.running.finish(end, None);
                Poll::Ready(Some(self.last()))
            }
        }
    }
}
