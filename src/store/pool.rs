//! Connections. The projector owns its connections; the API reads through a bounded pool of read-only sessions.
//!
//! Every session sets what it needs when it begins, whatever the role or the database has set for others. By statements:
//! a pooler refuses or drops settings that come as `options` with the connection.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Connect, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use futures_util::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, JoinHandle};
use tokio_postgres::{Client, NoTls};

use crate::config::DatabaseSettings;
use crate::store::DbError;
use crate::store::read::ReadError;
use crate::store::sqlstate::describe;

/// A read session: what `Pool::get` gives.
pub type ReadConnection = deadpool_postgres::Object;

/// Builds the read pool: read-only transactions, bounded statement time, bounded wait for a connection.
/// Connects lazily, so it works while Postgres is away.
pub fn read_pool(settings: &DatabaseSettings) -> Result<Pool, DbError> {
    let config = base_config(settings, "streamview-read")?;
    let connect = Reading { session: read_session(settings) };
    let manager = Manager::from_connect(config, connect, ManagerConfig { recycling_method: RecyclingMethod::Fast });
    Ok(Pool::builder(manager)
        .max_size(settings.read_pool_size)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(Duration::from_millis(settings.read_timeout_ms)))
        .create_timeout(Some(Duration::from_millis(settings.connect_timeout_ms)))
        .build()
        .expect("a runtime is given, so timeouts are allowed"))
}

/// How the pool connects.
struct Reading {
    session: String,
}

impl Connect for Reading {
    fn connect(
        &self,
        config: &tokio_postgres::Config,
    ) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), tokio_postgres::Error>> {
        let config = config.clone();
        Box::pin(async move { open(&config, &self.session).await })
    }
}

fn read_session(settings: &DatabaseSettings) -> String {
    format!(
        "{}; set default_transaction_read_only = on; set statement_timeout = {}",
        session("public"),
        settings.read_timeout_ms
    )
}

/// What every session sets.
fn session(search_path: &str) -> String {
    format!("set search_path = {search_path}; set default_transaction_isolation = 'read committed'; set jit = off")
}

/// Opens a connection for reads by key: read-only like those of the pool, and plans that never read a whole table,
/// however little Postgres knows of it yet. Comes with the task that drives it.
pub async fn connect_lookup(settings: &DatabaseSettings) -> Result<(Client, AbortHandle), DbError> {
    let config = base_config(settings, "streamview-lookup")?;
    let by_index = "set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off";
    let session = format!("{}; {by_index}; set plan_cache_mode = force_generic_plan", read_session(settings));
    let (client, driver) = open(&config, &session).await?;
    Ok((client, driver.abort_handle()))
}

/// Opens one writer connection whose unqualified table names resolve in `search_path`.
/// The driver task ends with the connection.
pub async fn connect_writer(settings: &DatabaseSettings, search_path: &str) -> Result<Client, DbError> {
    let patience = Patience { statement_ms: settings.write_timeout_ms, lock_ms: 2_000 };
    connect(settings, ("streamview-projector", search_path), patience).await
}

/// Opens a connection for one decision of an operator: it waits for locks as long as a statement of it may take, since
/// batches that are under way have to end first.
pub async fn connect_operator(settings: &DatabaseSettings) -> Result<Client, DbError> {
    let patience = Patience { statement_ms: settings.decision_timeout_ms, lock_ms: settings.decision_timeout_ms };
    connect(settings, ("streamview-operator", "public"), patience).await
}

/// Opens a connection that sets nothing: to find out whether a session is one at all.
pub async fn connect_bare(settings: &DatabaseSettings) -> Result<Client, DbError> {
    let (client, _driver) = drive(&base_config(settings, "streamview-check")?).await?;
    Ok(client)
}

/// Opens a connection that holds seats. Postgres asks every few seconds whether the other end is still there: else it would
/// keep the seats of a machine that was switched off for hours.
pub async fn connect_seats(settings: &DatabaseSettings) -> Result<Client, DbError> {
    let alive = "set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5; set tcp_keepalives_count = 3";
    let session = format!("{}; set statement_timeout = {}; {alive}", session("public"), settings.write_timeout_ms);
    let (client, _driver) = open(&base_config(settings, "streamview-seat")?, &session).await?;
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
    Patience { statement_ms, lock_ms }: Patience,
) -> Result<Client, DbError> {
    // Every statement of a writer looks for keys. Planned while a table is empty, it would read it whole, and the plan
    // would be kept while the table grows.
    let synchronous_commit = if settings.synchronous_commit { "on" } else { "off" };
    let session = format!(
        "{}; set statement_timeout = {statement_ms}; set lock_timeout = {lock_ms}; set enable_seqscan = off; \
         set idle_in_transaction_session_timeout = {statement_ms}; set synchronous_commit = {synchronous_commit}",
        session(search_path),
    );
    let (client, _driver) = open(&base_config(settings, application)?, &session).await?;
    Ok(client)
}

/// Connects, and sets what the session needs before anybody uses it.
async fn open(config: &tokio_postgres::Config, session: &str) -> Result<(Client, JoinHandle<()>), DbError> {
    let (client, driver) = drive(config).await?;
    client.batch_execute(session).await?;
    Ok((client, driver))
}

async fn drive(config: &tokio_postgres::Config) -> Result<(Client, JoinHandle<()>), DbError> {
    let (client, connection) = config.connect(NoTls).await?;
    let application = config.get_application_name().unwrap_or_default().to_owned();
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(application, error = describe(&error), "a connection to Postgres ended");
        }
    });
    Ok((client, driver))
}

fn base_config(settings: &DatabaseSettings, application: &str) -> Result<tokio_postgres::Config, DbError> {
    let mut config = tokio_postgres::Config::from_str(settings.url.expose())?;
    config
        .application_name(application)
        .connect_timeout(Duration::from_millis(settings.connect_timeout_ms))
        .tcp_user_timeout(Duration::from_secs(10))
        .keepalives_idle(Duration::from_secs(30));
    Ok(config)
}
