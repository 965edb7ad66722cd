//! What can be set. The service reads it from its own settings and says here what it found.

use std::collections::HashSet;
use std::time::Duration;

use crate::engines::EngineKind;

/// Everything that the manager is told.
#[derive(Debug, Clone)]
pub struct ManagerSettings {
    /// What this process is called among others; no other has the same.
    pub instance: String,
    /// `manager.default_engine`: runs definitions that name none.
    pub default_engine: EngineKind,
    /// Flink, where it is configured.
    pub flink: Option<FlinkSettings>,
    /// ksqlDB, where it is configured.
    pub ksqldb: Option<KsqldbSettings>,
    /// What queries and definitions may cost.
    pub limits: Limits,
    /// What previews of topics may cost.
    pub preview: PreviewLimits,
    /// How what is wanted is held against what is.
    pub reconcile: Reconcile,
    /// The service's own topics: they are sources only where an operator says so.
    pub own_topics: HashSet<String>,
}

/// How what is wanted is held against what is. The defaults are meant to stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconcile {
    /// How long after a round the next one begins, if nothing calls for it sooner.
    pub interval: Duration,
    /// How long something has to be seen before it is shown, where engines flip to and fro.
    pub second_look: Duration,
    /// How long a new text may take until it is seen to run; then the old one is taken back.
    pub time_to_run: Duration,
    /// Undo what others do to our jobs by hand; else it is shown only.
    pub heal_drift: bool,
    /// How often that is undone for one stream within `heals_within`; then it is shown only.
    pub heals: u32,
    /// The same.
    pub heals_within: Duration,
    /// How often in a row what has failed is begun again; it counts anew once it has run for as long as `steady`.
    pub restarts: u32,
    /// How long something has to run to count as sound.
    pub steady: Duration,
    /// The first wait before something is tried again; it doubles each time.
    pub first_wait: Duration,
    /// The longest.
    pub longest_wait: Duration,
    /// How often it is noted where running jobs keep their state.
    pub restore_points: Duration,
    /// How long it is kept what happened to definitions.
    pub events: Duration,
    /// How many partitions output topics have.
    pub partitions: u32,
}

impl Default for Reconcile {
    fn default() -> Self {
        Reconcile {
            interval: Duration::from_secs(5),
            second_look: Duration::from_secs(5),
            time_to_run: Duration::from_secs(60),
            heal_drift: true,
            heals: 3,
            heals_within: Duration::from_secs(3600),
            restarts: 5,
            steady: Duration::from_secs(60),
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(120),
            restore_points: Duration::from_secs(15),
            events: Duration::from_secs(90 * 24 * 3600),
            partitions: 1,
        }
    }
}

/// `flink.*`.
#[derive(Debug, Clone)]
pub struct FlinkSettings {
    /// The SQL gateway, `http://host:8083`.
    pub gateway_url: String,
    /// The JobManager, `http://host:8081`.
    pub rest_url: String,
    /// The brokers, as Flink reaches them.
    pub kafka_bootstrap_servers: String,
    /// Where savepoints go: a directory that JobManager and TaskManagers reach, as a URL. Empty: Flink's own setting.
    pub savepoint_dir: String,
    /// How sinks are written: `json` or `avro-confluent`.
    pub format: String,
    /// The schema registry, as Flink reaches it; needed for `avro-confluent`.
    pub registry_url: String,
}

/// `ksqldb.*`.
#[derive(Clone)]
pub struct KsqldbSettings {
    /// `http://host:8088`.
    pub url: String,
    /// For Basic authentication; empty: none.
    pub username: String,
    /// The same.
    pub password: String,
}

impl std::fmt::Debug for KsqldbSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KsqldbSettings")
            .field("url", &self.url)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// Bounds of all previews of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviewLimits {
    /// Topics that are read at once, each counted once for all that watch its newest rows and once for each that does not.
    pub readers: usize,
    /// Those of them that one caller may have to itself.
    pub readers_per_caller: usize,
    /// Who watches at once.
    pub watchers: usize,
    /// As often one caller may watch at once.
    pub watchers_per_caller: usize,
    /// Rows that one of them is shown in a second; what is more is dropped and counted.
    pub rows_per_second: u32,
    /// Bytes of these rows.
    pub bytes_per_second: u32,
    /// Rows that are kept of a topic for those who are about to take them.
    pub kept_rows: usize,
    /// Bytes of these rows.
    pub kept_bytes: usize,
    /// The largest value that is shown, in bytes.
    pub value_bytes: usize,
}

impl Default for PreviewLimits {
    fn default() -> Self {
        PreviewLimits {
            readers: 24,
            readers_per_caller: 8,
            watchers: 1_000,
            watchers_per_caller: 200,
            rows_per_second: 2_000,
            bytes_per_second: 4 * 1024 * 1024,
            kept_rows: 8_192,
            kept_bytes: 4 * 1024 * 1024,
            value_bytes: 256 * 1024,
        }
    }
}

/// What queries and definitions may cost. The defaults are those of the original stream manager where it had one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Characters of a statement.
    pub query_characters: usize,
    /// JOINs of a statement.
    pub joins: usize,
    /// Windows of a statement.
    pub windows: usize,
    /// How deep brackets nest.
    pub depth: usize,
    /// How long a query of somebody who looks runs.
    pub query_time: Duration,
    /// Such queries of one principal at once.
    pub queries_per_user: usize,
    /// Such queries of all.
    pub queries: usize,
    /// Such queries that one principal may begin in a minute.
    pub queries_per_minute: u32,
    /// Definitions of one principal, drafts included.
    pub definitions_per_user: usize,
    /// Definitions of all.
    pub definitions: usize,
    /// Deployed streams of one principal.
    pub streams_per_user: usize,
    /// Deployed streams of all.
    pub streams: usize,
    /// Rows of one such query.
    pub query_rows: u64,
    /// Bytes of its rows.
    pub query_bytes: u64,
    /// Words that no statement may hold as a token or sequence of tokens, in upper case: `PRINT`, `CREATE CONNECTOR`.
    pub blocked_words: Vec<String>,
    /// Functions that statements may call beyond the engines' own, in upper case: an administrator's UDFs.
    pub functions: Vec<String>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            query_characters: 5_000,
            joins: 3,
            windows: 2,
            depth: 32,
            query_time: Duration::from_secs(300),
            queries_per_user: 2,
            queries: 20,
            queries_per_minute: 30,
            definitions_per_user: 200,
            definitions: 1_000,
            streams_per_user: 5,
            streams: 30,
            query_rows: 1_000_000,
            query_bytes: 256 * 1024 * 1024,
            blocked_words: ["CREATE CONNECTOR", "DROP CONNECTOR", "PRINT"].map(str::to_owned).to_vec(),
            functions: Vec::new(),
        }
    }
}
