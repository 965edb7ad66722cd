//! Connections. The projector owns its connections; the API reads through a bounded pool of read-only sessions.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio_postgres::{Client, NoTls};

use crate::config::DatabaseSettings;
use crate::store::read::ReadError;

/// A read session: what `Pool::get` gives.
pub type ReadConnection = deadpool_postgres::Object;

/// Builds the read pool: read-only transactions, bounded statement time, bounded wait for a connection.
/// Connects lazily, so it works while Postgres is away.
pub fn read_pool(settings: &DatabaseSettings) -> Result<Pool, tokio_postgres::Error> {
    let mut config = base_config(settings, "streamview-read")?;
    config.options(read_options(settings));
    let manager = Manager::from_config(config, NoTls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
    Ok(Pool::builder(manager)
        .max_size(settings.read_pool_size)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(Duration::from_millis(settings.read_timeout_ms)))
        .create_timeout(Some(Duration::from_millis(settings.connect_timeout_ms)))
        .build()
        .expect("a runtime is given, so timeouts are allowed"))
}

fn read_options(settings: &DatabaseSettings) -> String {
    format!("-c default_transaction_read_only=on -c statement_timeout={} -c jit=off", settings.read_timeout_ms)
}

/// Opens a connection for reads by key: read-only like those of the pool, and plans that never read a whole table,
/// however little Postgres knows of it yet. Comes with the task that drives it.
pub async fn connect_lookup(settings: &DatabaseSettings) -> Result<(Client, AbortHandle), tokio_postgres::Error> {
    let mut config = base_config(settings, "streamview-lookup")?;
    let by_index = "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off";
    config.options(format!("{} {by_index} -c plan_cache_mode=force_generic_plan", read_options(settings)));
    let (client, connection) = config.connect(NoTls).await?;
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = %error, "lookup connection ended");
        }
    });
    Ok((client, driver.abort_handle()))
}

/// Opens one writer connection whose unqualified table names resolve in `search_path`.
/// The driver task ends with the connection.
pub async fn connect_writer(settings: &DatabaseSettings, search_path: &str) -> Result<Client, tokio_postgres::Error> {
    connect(settings, "streamview-projector", search_path).await
}

/// Opens a connection that holds seats. Postgres asks every few seconds whether the other end is still there: else it would
/// keep the seats of a machine that was switched off for hours.
pub async fn connect_seats(settings: &DatabaseSettings) -> Result<Client, tokio_postgres::Error> {
    let client = connect(settings, "streamview-seat", "public").await?;
    client
        .batch_execute("set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5; set tcp_keepalives_count = 3")
        .await?;
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

    /// Opens a connection, waiting for a free slot as long as a read would.
    pub async fn open(&self) -> Result<Writer, ReadError> {
        let patience = Duration::from_millis(self.settings.read_timeout_ms);
        let slot = match tokio::time::timeout(patience, Arc::clone(&self.slots).acquire_owned()).await {
            Ok(Ok(slot)) => slot,
            _ => return Err(ReadError::Busy),
        };
        match connect(&self.settings, "streamview-operator", "public").await {
            Ok(client) => Ok(Writer { client, _slot: slot }),
            // A connection that cannot be made is never the fault of a statement.
            Err(error) => Err(ReadError::Unavailable(Some(Arc::new(error)))),
        }
    }
}

async fn connect(
    settings: &DatabaseSettings,
    application: &str,
    search_path: &str,
) -> Result<Client, tokio_postgres::Error> {
    let mut config = base_config(settings, application)?;
    // Every statement of a writer looks for keys. Planned while a table is empty, it would read it whole, and the plan
    // would be kept while the table grows.
    let synchronous_commit = if settings.synchronous_commit { "on" } else { "off" };
    config.options(format!(
        "-c search_path={search_path} -c statement_timeout={} -c lock_timeout=2000 -c jit=off -c enable_seqscan=off \
         -c idle_in_transaction_session_timeout={} -c synchronous_commit={synchronous_commit}",
        settings.write_timeout_ms, settings.write_timeout_ms
    ));
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = %error, "writer connection ended");
        }
    });
    Ok(client)
}

fn base_config(
    settings: &DatabaseSettings,
    application: &str,
) -> Result<tokio_postgres::Config, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::from_str(settings.url.expose())?;
    config
        .application_name(application)
        .connect_timeout(Duration::from_millis(settings.connect_timeout_ms))
        .tcp_user_timeout(Duration::from_secs(10))
        .keepalives_idle(Duration::from_secs(30));
    Ok(config)
}
