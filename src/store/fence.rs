//! A writer connection whose commits are fenced: nothing is committed but by the owner of the partitions, from where it
//! believes them to stand, and of the topic that it knows.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::SystemTime;

use futures_util::future::join;
use tokio_postgres::Statement;

use crate::config::DatabaseSettings;
use crate::crash;
use crate::domain::units::Partition;
use crate::failure::Failure;
use crate::store::progress::{self, Advance, AdvanceColumns, BuildSource};
use crate::store::sqlstate::classify;
use crate::store::{Connection, DbError, pool};

/// A connection with the prepared fence.
pub struct FencedConnection {
    client: Connection,
    advance: Statement,
    /// A transaction may be open or its outcome unknown.
    broken: AtomicBool,
}

/// The right to write rows: the connection, inside a fenced transaction. Only [`FencedConnection::commit`] gives it, so no
/// row of a view is written elsewhere; `standstill.rs`, to who has stopped all owners; and `scratch.rs`, to tables that are
/// nobody's view.
#[derive(Clone, Copy)]
pub struct Writing<'c> {
    client: &'c Connection,
}

impl<'c> Writing<'c> {
    /// The connection.
    pub fn client(self) -> &'c Connection {
        self.client
    }

    /// While every owner waits, and has to load again.
    pub(super) fn at_standstill(client: &'c Connection) -> Self {
        Writing { client }
    }

    /// To temporary tables, which no reader has and no fence guards.
    pub(super) fn to_scratch(client: &'c Connection) -> Self {
        Writing { client }
    }
}

/// How long the statements of a transaction may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// As `database.write_timeout_ms` says.
    AsSet,
    /// As long as they take: for as many rows as there are.
    Endless,
}

/// A transaction that was committed.
#[derive(Debug, Clone, Copy)]
pub struct Committed {
    /// When all of it was written, and its end was sent.
    pub written_at: SystemTime,
}

impl FencedConnection {
    /// Connects; unqualified names of tables resolve in `search_path`.
    pub async fn open(settings: &DatabaseSettings, search_path: &str) -> Result<Self, DbError> {
        let client = pool::connect_writer(settings, search_path).await?;
        let advance = progress::prepare_advance(&client).await?;
        Ok(FencedConnection { client, advance, broken: AtomicBool::new(false) })
    }

    /// The connection, for reading.
    pub fn client(&self) -> &Connection {
        &self.client
    }

    /// Whether the connection can take another transaction.
    pub fn is_usable(&self) -> bool {
        !self.broken.load(Ordering::Relaxed) && !self.client.is_closed()
    }

    /// Moves the partitions together with what `writes` sends, or changes nothing.
    ///
    /// `begin`, the fence and the writes go out in one go, and their answers are counted when they come back. `writes`
    /// says by its own error that its rows were not as they were meant. `confirmed` is waited for beside them: whether the
    /// topic is still the one that the batch was read from. `classify_end` tells what the end of the transaction means:
    /// constraints may be checked there only.
    pub async fn commit<'c, W: Future<Output = Result<(), Failure>>>(
        &'c self,
        (source, advances, patience): (&BuildSource, &[Advance], Patience),
        writes: impl FnOnce(Writing<'c>) -> W,
        confirmed: impl Future<Output = Result<(), Failure>>,
        classify_end: impl Fn(DbError) -> Failure,
    ) -> Result<Committed, Failure> {
        let written = self.write((source, advances, patience), writes(Writing { client: &self.client }));
        // Asked after the batch was read, in parallel with the writes: nothing of a re-created topic is committed.
        let (written, confirmed) = join(written, confirmed).await;
        crash::point("commit.written");
        if let Err(failure) = written.and(confirmed) {
            self.roll_back().await;
            return Err(failure);
        }
        crash::point("commit.identity_confirmed");
        let written_at = SystemTime::now();
        // From here on the outcome is unknown until the answer is there.
        self.broken.store(true, Ordering::Relaxed);
        let mut commit = Box::pin(self.client.batch_execute("commit"));
        // Polled once, COMMIT is on its way.
        let sent = std::future::poll_fn(|context| Poll::Ready(commit.as_mut().poll(context))).await;
        crash::point("commit.sent");
        let answer = match sent {
            Poll::Ready(answer) => answer,
            Poll::Pending => commit.await,
        };
        answer.map_err(classify_end)?;
        self.broken.store(false, Ordering::Relaxed);
        Ok(Committed { written_at })
    }

    /// Sends everything of the transaction but its end. The fence is judged first: what the writes say of rows that are
    /// somebody else's by now means nothing.
    async fn write(
        &self,
        (source, advances, patience): (&BuildSource, &[Advance], Patience),
        writes: impl Future<Output = Result<(), Failure>>,
    ) -> Result<(), Failure> {
        let fail = |error| classify(error, None);
        let begin = match patience {
            Patience::AsSet => "begin",
            Patience::Endless => "begin; set local statement_timeout = 0",
        };
        let begin = self.client.batch_execute(begin);
        let columns = AdvanceColumns::of(advances);
        let fence = columns.run(&self.client, &self.advance, source);
        let (begun, (moved, written)) = join(begin, join(fence, writes)).await;
        crash::point("commit.begun");
        begun.map_err(fail)?;
        let moved: HashMap<Partition, i64> = moved.map_err(fail)?.into_iter().collect();
        let partitions = advances.iter().map(|advance| advance.partition);
        let fenced: Vec<Partition> = partitions.filter(|partition| !moved.contains_key(partition)).collect();
        if !fenced.is_empty() {
            return Err(Failure::Fenced(fenced));
        }
        // Whoever decides holds the lock of these rows: what is decided later finds our rows as we leave them.
        if advances.iter().any(|advance| moved.get(&advance.partition) != Some(&advance.decisions)) {
            return Err(Failure::Decided(moved.into_iter().collect()));
        }
        crash::point("commit.fenced");
        written
    }

    async fn roll_back(&self) {
        let broken = self.client.is_closed() || self.client.batch_execute("rollback").await.is_err();
        self.broken.store(broken, Ordering::Relaxed);
    }
}
