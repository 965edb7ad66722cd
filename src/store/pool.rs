//! Connections. The projector owns its connections; the API reads through a bounded pool of read-only sessions.
//!
//! Every session sets what it needs when it begins, whatever the role or the database has set for others, and takes the role
//! that it is there for, where the database has roles. By statements: a pooler refuses or drops settings that come as `options`
//! with the connection.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Connect, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use futures_util::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, JoinHandle};
use tokio_postgres::Client;

use crate::config::DatabaseSettings;
use crate::store::DbError;
use crate::store::read::{ReadError, ReadPool};
use crate::store::roles::Role;
use crate::store::wire::{Guard, Way};

/// A read session: what `Pool::get` gives.
pub type ReadConnection = deadpool_postgres::Object;

/// Builds the read pool: read-only transactions, bounded statement time, bounded wait for a connection.
/// Connects lazily, so it works while Postgres is away.
pub fn read_pool(settings: &DatabaseSettings) -> Result<ReadPool, DbError> {
    pool_of(settings, Role::Writer, settings.read_pool_size)
}

/// The pool of operators' reads, and that of what the API reads of views: the same, unless that has an address of its own.
pub fn read_pools(settings: &DatabaseSettings) -> Result<(ReadPool, ReadPool), DbError> {
    let of_operators = read_pool(settings)?;
    let of_views = match settings.reads_apart() {
        true => pool_of(&settings.for_reads(), Role::Reader, settings.read_pool_size)?,
        false => of_operators.clone(),
    };
    Ok((of_operators, of_views))
}

/// What tells whether the databases answer, and where views stand. Readers have no part in it: however many of them wait for
/// a connection, that is no outage.
#[derive(Clone)]
pub struct WatchPools {
    /// Where it is written.
    pub primary: ReadPool,
    /// Where views are read, if that is an address of its own.
    pub of_views: Option<ReadPool>,
}

/// Connections of such a pool at most: for probes, and one for the observer of each build.
const WATCHERS: usize = 4;

/// The pools beside those of [`read_pools`] for who watches.
pub fn watch_pools(settings: &DatabaseSettings) -> Result<WatchPools, DbError> {
    let of_views = settings.reads_apart().then(|| pool_of(&settings.for_reads(), Role::Reader, WATCHERS));
    Ok(WatchPools { primary: pool_of(settings, Role::Writer, WATCHERS)?, of_views: of_views.transpose()? })
}

fn pool_of(settings: &DatabaseSettings, role: Role, connections: usize) -> Result<ReadPool, DbError> {
    let (config, guard) = way(settings, "streamview-read")?.into_parts();
    let connect = Reading { guard, session: read_session(settings, role) };
    let manager = Manager::from_connect(config, connect, ManagerConfig { recycling_method: RecyclingMethod::Fast });
    let pool = Pool::builder(manager)
        .max_size(connections)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(Duration::from_millis(settings.read_timeout_ms)))
        .create_timeout(Some(Duration::from_millis(settings.connect_timeout_ms)))
        .build()
        .expect("a runtime is given, so timeouts are allowed");
    Ok(ReadPool::new(pool, settings))
}

/// The stream manager's pool: its statements may write, and wait as long as an operator's decision may. One connection is held for
/// long, by who leads: Postgres asks every few seconds whether its other end is still there, so that the lead of a machine that was
/// switched off is free soon. Connects lazily.
pub fn manager_pool(settings: &DatabaseSettings) -> Result<Pool, DbError> {
    let (config, guard) = way(settings, "streamview-manager")?.into_parts();
    let alive = "set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5; set tcp_keepalives_count = 3";
    let patience = settings.decision_timeout_ms;
    let session = format!(
        "{}; set statement_timeout = {patience}; set lock_timeout = {patience}; \
         set idle_in_transaction_session_timeout = {patience}; {alive}",
        session("public", Role::Writer)
    );
    let manager = Manager::from_connect(
        config,
        Reading { guard, session },
        ManagerConfig { recycling_method: RecyclingMethod::Fast },
    );
    Ok(Pool::builder(manager)
        .max_size(MANAGERS)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(Duration::from_millis(patience)))
        .create_timeout(Some(Duration::from_millis(settings.connect_timeout_ms)))
        .build()
        .expect("a runtime is given, so timeouts are allowed"))
}

/// Connections of the stream manager at most.
const MANAGERS: usize = 6;

/// How a pool connects.
struct Reading {
    guard: Guard,
    session: String,
}

impl Connect for Reading {
    fn connect(
        &self,
        config: &tokio_postgres::Config,
    ) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), tokio_postgres::Error>> {
        let config = config.clone();
        Box::pin(async move { prepared(self.guard.connect(&config).await?, &self.session).await })
    }
}

fn read_session(settings: &DatabaseSettings, role: Role) -> String {
    format!(
        "{}; set default_transaction_read_only = on; set statement_timeout = {}",
        session("public", role),
        settings.read_timeout_ms
    )
}

/// What every session sets.
fn session(search_path: &str, role: Role) -> String {
    let role = role.take();
    format!(
        "set search_path = {search_path}; set default_transaction_isolation = 'read committed'; set jit = off; {role}"
    )
}

/// Opens a connection for reads by key: read-only like those of the pool, and plans that never read a whole table,
/// however little Postgres knows of it yet. Comes with the task that drives it.
pub async fn connect_lookup(settings: &DatabaseSettings) -> Result<(Client, AbortHandle), DbError> {
    let by_index = "set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off";
    let role = if settings.reads_apart() { Role::Reader } else { Role::Writer };
    let session = format!("{}; {by_index}; set plan_cache_mode = force_generic_plan", read_session(settings, role));
    let (client, driver) = open(settings, "streamview-lookup", &session).await?;
    Ok((client, driver.abort_handle()))
}

/// Opens one writer connection whose unqualified table names resolve in `search_path`.
/// The driver task ends with the connection.
pub async fn connect_writer(settings: &DatabaseSettings, search_path: &str) -> Result<Client, DbError> {
    connect(settings, ("streamview-projector", search_path), Role::Writer, patience(settings)).await
}

/// Likewise, for who makes, changes or drops tables.
pub async fn connect_owner(settings: &DatabaseSettings, search_path: &str) -> Result<Client, DbError> {
    connect(settings, ("streamview-projector", search_path), Role::Owner, patience(settings)).await
}

/// Likewise, for migrations: what is there is rewritten whole, however long that takes. A lock is waited for, but not for ever:
/// who reads waits behind.
pub async fn connect_migrator(settings: &DatabaseSettings) -> Result<Client, DbError> {
    let patience = Patience { statement_ms: 0, lock_ms: 60_000 };
    connect(settings, ("streamview-projector", "public"), Role::Owner, patience).await
}

fn patience(settings: &DatabaseSettings) -> Patience {
    Patience { statement_ms: settings.write_timeout_ms, lock_ms: 2_000 }
}

/// Opens a connection for one decision of an operator: it waits for locks as long as a statement of it may take, since
/// batches that are under way have to end first.
pub async fn connect_operator(settings: &DatabaseSettings) -> Result<Client, DbError> {
    connect(settings, ("streamview-operator", "public"), Role::Writer, patience_of_operators(settings)).await
}

/// Likewise, for what makes, changes or drops tables.
pub async fn connect_owning_operator(settings: &DatabaseSettings) -> Result<Client, DbError> {
    connect(settings, ("streamview-operator", "public"), Role::Owner, patience_of_operators(settings)).await
}

fn patience_of_operators(settings: &DatabaseSettings) -> Patience {
    Patience { statement_ms: settings.decision_timeout_ms, lock_ms: settings.decision_timeout_ms }
}

/// Opens a connection that sets nothing: to find out whether a session is one at all.
pub async fn connect_bare(settings: &DatabaseSettings) -> Result<Client, DbError> {
    let (client, _driver) = way(settings, "streamview-check")?.connect().await?;
    Ok(client)
}

/// Opens a connection that holds seats. Postgres asks every few seconds whether the other end is still there: else it would
/// keep the seats of a machine that was switched off for hours.
pub async fn connect_seats(settings: &DatabaseSettings) -> Result<Client, DbError> {
    let alive = "set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5; set tcp_keepalives_count = 3";
    let session = session("public", Role::Writer);
    let session = format!("{session}; set statement_timeout = {}; {alive}", settings.write_timeout_ms);
    let (client, _driver) = open(settings, "streamview-seat", &session).await?;
    Ok(client)
}

/// Connections for operators' decisions: few, and each used for one call only, so that a call that is given up leaves
/// no open transaction behind.
#[derive(Clone)]
pub struct WriterPool {
    settings: DatabaseSettings,
    slots: Arc<Semaphore>,
}

/// Decisions made at the same time by one process; they wait for each other in Postgres anyway.
const WRITERS: usize = 4;

/// A connection for one call; ends with it.
pub struct Writer {
    client: Client,
    _slot: OwnedSemaphorePermit,
}

impl std::ops::Deref for Writer {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl WriterPool {
    /// Connects lazily, so it works while Postgres is away.
    pub fn new(settings: &DatabaseSettings) -> Self {
        WriterPool { settings: settings.clone(), slots: Arc::new(Semaphore::new(WRITERS)) }
    }

    /// How long one statement takes at most, as [`deadline`](super::read::deadline) is for reads: it waits for its turn, and then runs.
    pub fn longest(&self) -> Duration {
        Duration::from_millis(2 * self.settings.decision_timeout_ms + 1_000)
    }

    /// Opens a connection, waiting for a free slot as long as a statement of it may take.
    pub async fn open(&self) -> Result<Writer, ReadError> {
        let patience = Duration::from_millis(self.settings.decision_timeout_ms);
        let slot = match tokio::time::timeout(patience, Arc::clone(&self.slots).acquire_owned()).await {
            Ok(Ok(slot)) => slot,
            _ => return Err(ReadError::Busy),
        };
        match connect_operator(&self.settings).await {
            Ok(client) => Ok(Writer { client, _slot: slot }),
            // A connection that cannot be made is never the fault of a statement.
            Err(error) => Err(ReadError::Unavailable(Some(Arc::new(error)))),
        }
    }
}

/// How long a session waits, in milliseconds.
struct Patience {
    /// For a statement.
    statement_ms: u64,
    /// For a lock.
    lock_ms: u64,
}

async fn connect(
    settings: &DatabaseSettings,
    (application, search_path): (&str, &str),
    role: Role,
    Patience { statement_ms, lock_ms }: Patience,
) -> Result<Client, DbError> {
    // Every statement of a writer looks for keys. Planned while a table is empty, it would read it whole, and the plan
    // would be kept while the table grows.
    let synchronous_commit = if settings.synchronous_commit { "on" } else { "off" };
    let session = format!(
        "{}; set statement_timeout = {statement_ms}; set lock_timeout = {lock_ms}; set enable_seqscan = off; \
         set idle_in_transaction_session_timeout = {statement_ms}; set synchronous_commit = {synchronous_commit}",
        session(search_path, role),
    );
    let (client, _driver) = open(settings, application, &session).await?;
    Ok(client)
}

/// Connects, and sets what the session needs before anybody uses it.
async fn open(
    settings: &DatabaseSettings,
    application: &str,
    session: &str,
) -> Result<(Client, JoinHandle<()>), DbError> {
    prepared(way(settings, application)?.connect().await?, session).await
}

async fn prepared(
    (client, driver): (Client, JoinHandle<()>),
    session: &str,
) -> Result<(Client, JoinHandle<()>), DbError> {
    client.batch_execute(session).await?;
    Ok((client, driver))
}

fn way(settings: &DatabaseSettings, application: &str) -> Result<Way, DbError> {
    let mut way = Way::of(settings)?;
    way.config
        .application_name(application)
        .connect_timeout(Duration::from_millis(settings.connect_timeout_ms))
        .tcp_user_timeout(Duration::from_secs(10))
        .keepalives_idle(Duration::from_secs(30));
    Ok(way)
}
