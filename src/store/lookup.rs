//! Reads by key on one connection, many keys to a statement.
//!
//! While a statement is under way, the keys that are asked for gather; the next statement asks for all of them. A lone
//! caller is answered as soon as it would be without company, and a crowd costs Postgres and us a fraction of a
//! statement each. A statement is sent only after its keys were asked for, so nobody gets an answer older than his
//! question; and it is one statement, so each answer is of one moment.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio_postgres::{Client, Row, Statement};

use super::pool;
use super::read::{self, ReadError};
use crate::config::DatabaseSettings;

/// Keys of one statement: bounds what callers wait for each other.
const MAX_KEYS: usize = 32;

/// A statement with one parameter, a `text[]` of keys. Its first column is the place of the row's key in it, from 1;
/// each key has at most one row.
///
/// Made for one HTTP worker: connection and callers share its thread. Connects when the first key is asked for, and
/// again when the connection is lost.
pub struct SharedLookup {
    shared: Arc<Shared>,
}

struct Shared {
    settings: DatabaseSettings,
    deadline: Duration,
    sql: &'static str,
    gathering: Mutex<Gathering>,
}

#[derive(Default)]
struct Gathering {
    asked: Vec<Asked>,
    /// Whether a task is at work, which will see to what is asked.
    at_work: bool,
    /// The connection, while nobody is at work.
    session: Option<Session>,
}

struct Asked {
    key: String,
    answer: oneshot::Sender<Result<Option<Row>, ReadError>>,
}

impl SharedLookup {
    /// Does not connect yet.
    pub fn new(settings: &DatabaseSettings, sql: &'static str) -> Self {
        let (settings, deadline) = (settings.clone(), read::deadline(settings));
        SharedLookup { shared: Arc::new(Shared { settings, deadline, sql, gathering: Mutex::default() }) }
    }

    /// The row of `key`, as it is now or a moment later.
    pub async fn row(&self, key: String) -> Result<Option<Row>, ReadError> {
        let (answer, answered) = oneshot::channel();
        let must_begin = {
            let mut gathering = self.shared.lock();
            gathering.asked.push(Asked { key, answer });
            !std::mem::replace(&mut gathering.at_work, true)
        };
        if must_begin {
            tokio::spawn(work(AtWork { shared: Arc::clone(&self.shared), ended: false }));
        }
        read::within(self.shared.deadline, async { answered.await.unwrap_or(Err(ReadError::Unavailable(None))) }).await
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Gathering> {
        self.gathering.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers all that was asked, and what is asked meanwhile; then ends.
async fn work(mut at_work: AtWork) {
    let mut session = at_work.shared.lock().session.take();
    loop {
        // First all that can be read from clients is read: it belongs to this batch.
        tokio::task::yield_now().await;
        let Some(batch) = at_work.next_batch(&mut session) else { return };
        let (keys, answers): (Vec<String>, Vec<_>) = batch.into_iter().map(|asked| (asked.key, asked.answer)).unzip();
        let mut found = read::within(at_work.shared.deadline, ask(&at_work.shared, &mut session, &keys)).await;
        if matches!(found, Err(ReadError::Displaced(_))) {
            found = read::within(at_work.shared.deadline, ask(&at_work.shared, &mut session, &keys)).await;
        }
        if found.is_err() {
            session = None; // whatever is wrong with it
        }
        let mut rows = found.map(Vec::into_iter);
        for answer in answers {
            let row = match &mut rows {
                Ok(rows) => Ok(rows.next().flatten()),
                Err(error) => Err(error.clone()),
            };
            if answer.send(row).is_err() {
                tracing::trace!("who asked for a key is gone");
            }
        }
    }
}

/// The row of each key, in their order.
async fn ask(shared: &Shared, session: &mut Option<Session>, keys: &[String]) -> Result<Vec<Option<Row>>, ReadError> {
    let session = match session.take().filter(|session| !session.client.is_closed()) {
        Some(open) => session.insert(open),
        None => session.insert(Session::open(shared).await?),
    };
    let mut found: Vec<Option<Row>> = Vec::new();
    found.resize_with(keys.len(), || None);
    for row in session.client.query(&session.statement, &[&keys]).await? {
        let place: i64 = row.try_get(0)?;
        if let Some(slot) = usize::try_from(place - 1).ok().and_then(|index| found.get_mut(index)) {
            *slot = Some(row);
        }
    }
    Ok(found)
}

/// A task at work. If it ends otherwise than by having nothing to do, nobody waits for it in vain.
struct AtWork {
    shared: Arc<Shared>,
    ended: bool,
}

impl AtWork {
    /// What has gathered; if nothing has, leaves the session to the next task.
    fn next_batch(&mut self, session: &mut Option<Session>) -> Option<Vec<Asked>> {
        let mut gathering = self.shared.lock();
        // Whoever was given up already, because his time or his client was, need not be answered.
        gathering.asked.retain(|asked| !asked.answer.is_closed());
        if gathering.asked.is_empty() {
            (gathering.at_work, gathering.session, self.ended) = (false, session.take(), true);
            return None;
        }
        let length = gathering.asked.len().min(MAX_KEYS);
        Some(gathering.asked.drain(..length).collect())
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        if !self.ended {
            *self.shared.lock() = Gathering::default();
        }
    }
}

/// A connection with the prepared statement; closes with it.
struct Session {
    client: Client,
    statement: Statement,
    driver: AbortHandle,
}

impl Session {
    async fn open(shared: &Shared) -> Result<Session, ReadError> {
        let patience = Duration::from_millis(shared.settings.connect_timeout_ms);
        let opening = tokio::time::timeout(patience, pool::connect_lookup(&shared.settings));
        let (client, driver) = match opening.await {
            Ok(Ok(opened)) => opened,
            // A connection that cannot be made is never the fault of a statement.
            Ok(Err(error)) => return Err(ReadError::Unavailable(Some(Arc::new(error)))),
            Err(_) => return Err(ReadError::Unavailable(None)),
        };
        let statement = client.prepare(shared.sql).await?;
        Ok(Session { client, statement, driver })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
