//! Settings of the stream manager and of its engines, and what they need of each other. Reads nothing, connects to nothing.

use serde::{Deserialize, Serialize};
use toml::Value;

use super::layers::Layers;
use super::rules::{Rule, is_address_list, is_web_address};
use super::{ConfigError, Secret};

/// `[manager]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManagerSettings {
    /// Whether there is a stream manager.
    pub enabled: bool,
    /// The engine of streams that name none; empty = the one that is configured.
    pub default_engine: String,
    /// Undo what others do by hand to what runs; else it is shown only.
    pub heal_drift: bool,
    /// Partitions of the topics that streams fill.
    pub topic_partitions: u32,
    /// Milliseconds from one round of comparing to the next.
    pub reconcile_interval_ms: u64,
    /// What queries and definitions may cost.
    pub limits: ManagerLimits,
    /// What previews of topics may cost.
    pub preview: PreviewSettings,
}

/// `[manager.preview]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreviewSettings {
    /// Topics that are read at once for those who watch them.
    pub readers: usize,
    /// Those of them that one caller may have to itself.
    pub readers_per_caller: usize,
    /// Who watches at once.
    pub watchers: usize,
    /// As often one caller may watch at once.
    pub watchers_per_caller: usize,
    /// Rows that one of them is shown in a second.
    pub rows_per_second: u32,
    /// Bytes of these rows.
    pub bytes_per_second: u32,
    /// The largest value that is shown.
    pub value_bytes: usize,
}

/// `[manager.limits]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManagerLimits {
    /// Characters of a statement.
    pub query_characters: usize,
    /// JOINs of a statement.
    pub joins: usize,
    /// Windows of a statement.
    pub windows: usize,
    /// How deep brackets nest.
    pub depth: usize,
    /// Seconds that a query of somebody who looks may run.
    pub query_seconds: u64,
    /// Such queries of one caller at once.
    pub queries_per_user: usize,
    /// Such queries of all at once.
    pub queries: usize,
    /// Such queries that one caller may begin in a minute.
    pub queries_per_minute: u32,
    /// Streams that one caller has written down, drafts included.
    pub definitions_per_user: usize,
    /// Streams that all have written down.
    pub definitions: usize,
    /// Deployed streams of one caller.
    pub streams_per_user: usize,
    /// Deployed streams of all.
    pub streams: usize,
    /// Rows of one query.
    pub query_rows: u64,
    /// Bytes of its rows.
    pub query_bytes: u64,
    /// Words that no statement may hold.
    pub blocked_words: Vec<String>,
    /// Functions that statements may call beyond the engines' own.
    pub functions: Vec<String>,
}

/// `[flink]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlinkSettings {
    /// The SQL gateway; empty = Flink is not configured.
    pub gateway_url: String,
    /// The JobManager.
    pub rest_url: String,
    /// The brokers, as Flink reaches them; empty = `kafka.bootstrap_servers`.
    pub kafka_bootstrap_servers: String,
    /// Where savepoints go; empty = as Flink itself is set.
    pub savepoint_dir: String,
    /// How the topics that streams fill are written.
    pub format: String,
    /// The schema registry, as Flink reaches it; empty = the first address of `schema_registry.url`.
    pub schema_registry_url: String,
}

/// `[ksqldb]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KsqldbSettings {
    /// The server; empty = ksqlDB is not configured.
    pub url: String,
    /// Name for basic authentication; empty = none.
    pub username: String,
    /// Its password.
    pub password: Secret,
}

/// `[embedded]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddedSettings {
    /// Whether streams may run in this process, where it is built in.
    pub enabled: bool,
    /// How output is written: `exactly_once`, or `at_least_once` for brokers without transactions.
    pub delivery: String,
    /// Queries that run at once, deployed ones and those of people who look.
    pub queries: usize,
    /// Bytes that a query of somebody who looks may hold.
    pub adhoc_memory_bytes: usize,
    /// Bytes that a deployed query may hold.
    pub persistent_memory_bytes: usize,
    /// Milliseconds of the longest window.
    pub max_window_ms: i64,
    /// Milliseconds that a row may come later than others, where its source does not say.
    pub lateness_ms: i64,
    /// Milliseconds of silence after which a partition that was read to its end holds no window open.
    pub idle_ms: u64,
    /// Milliseconds that the time of a row may lie ahead of the clock.
    pub max_ahead_ms: i64,
    /// Milliseconds that rows wait for their commit.
    pub commit_ms: u64,
    /// Rows of a table that a query joins.
    pub table_rows: usize,
    /// Bytes of such a table, which count as the query's memory, too.
    pub table_bytes: usize,
    /// Milliseconds from one refresh of a query's tables to the next.
    pub table_refresh_ms: u64,
}

impl EmbeddedSettings {
    /// Whether this build can run streams by itself.
    pub const IS_BUILT_IN: bool = cfg!(feature = "embedded-engine");

    /// Whether streams may run in this process.
    pub const fn is_on(&self) -> bool {
        self.enabled && EmbeddedSettings::IS_BUILT_IN
    }
}

/// The engines, each with the settings by which it is configured. An engine joins by a line here, one in `streams/engines.rs`,
/// and its rules below.
pub const ENGINES: [(&str, &[&str]); 3] = [
    ("flink", &["flink.gateway_url", "flink.rest_url"]),
    ("ksqldb", &["ksqldb.url"]),
    (EMBEDDED, &["embedded.enabled"]),
];

/// The engine that needs no settings: it runs streams where no other one is configured.
const EMBEDDED: &str = "embedded";

const WEB: Rule = Rule::Text("nothing, or http://host:port or https://host:port, without user and password", |text| {
    text.is_empty() || is_web_address(text) && !text.contains('@')
});

/// The rules of these sections.
pub(super) fn rule_of(key: &str) -> Option<Rule> {
    use Rule::{Integer, List, Secret, Switch, Text};
    Some(match key {
        "manager.enabled" | "manager.heal_drift" | "embedded.enabled" => Switch,
        "embedded.delivery" => {
            Text("exactly_once or at_least_once", |text| matches!(text, "exactly_once" | "at_least_once"))
        }
        "embedded.queries" => Integer(1, 1_000),
        "embedded.adhoc_memory_bytes" | "embedded.persistent_memory_bytes" => Integer(1_048_576, 1_099_511_627_776),
        "embedded.max_window_ms" => Integer(1_000, 86_400_000),
        "embedded.lateness_ms" => Integer(0, 86_400_000),
        "embedded.idle_ms" | "embedded.max_ahead_ms" => Integer(100, 86_400_000),
        "embedded.commit_ms" => Integer(1, 60_000),
        "embedded.table_rows" => Integer(1, 100_000_000),
        "embedded.table_bytes" => Integer(1_048_576, 1_099_511_627_776),
        "embedded.table_refresh_ms" => Integer(100, 3_600_000),
        "manager.default_engine" => Text("nothing, flink, ksqldb or embedded", |text| {
            text.is_empty() || ENGINES.iter().any(|(name, _)| *name == text)
        }),
        "manager.topic_partitions" => Integer(1, 1_000),
        "manager.reconcile_interval_ms" => Integer(100, 600_000),
        "manager.preview.readers" | "manager.preview.readers_per_caller" => Integer(1, 1_000),
        "manager.preview.watchers" | "manager.preview.watchers_per_caller" => Integer(1, 100_000),
        "manager.preview.rows_per_second" => Integer(1, 1_000_000),
        "manager.preview.bytes_per_second" => Integer(1_024, 1_073_741_824),
        "manager.preview.value_bytes" => Integer(1_024, 1_048_576),
        // Of four bytes each at most: Postgres keeps texts of up to 262,144 bytes.
        "manager.limits.query_characters" => Integer(10, 65_536),
        "manager.limits.joins" | "manager.limits.windows" => Integer(0, 100),
        "manager.limits.depth" => Integer(1, 128),
        "manager.limits.query_seconds" => Integer(1, 86_400),
        "manager.limits.queries_per_user" | "manager.limits.queries" => Integer(0, 10_000),
        "manager.limits.queries_per_minute" => Integer(0, 1_000_000),
        "manager.limits.streams_per_user" | "manager.limits.streams" => Integer(0, 100_000),
        "manager.limits.definitions_per_user" | "manager.limits.definitions" => Integer(0, 100_000),
        "manager.limits.query_rows" => Integer(1, 1_000_000_000_000),
        "manager.limits.query_bytes" => Integer(1_024, 1_099_511_627_776),
        "manager.limits.blocked_words" => List(
            "a list of words or sequences of words such as CREATE CONNECTOR: letters, digits, _ and single spaces",
            is_words,
        ),
        "manager.limits.functions" => List("a list of names such as MASK_CARD: letters, digits and _", |text| {
            !text.contains(' ') && is_words(text)
        }),
        "flink.gateway_url" | "flink.rest_url" | "flink.schema_registry_url" | "ksqldb.url" => WEB,
        "flink.kafka_bootstrap_servers" => {
            Text("nothing, or host:port, several separated by commas", |text| text.is_empty() || is_address_list(text))
        }
        "flink.savepoint_dir" => Text(
            "nothing, or a directory as a URL that Flink takes, such as file:///savepoints or s3://bucket/savepoints",
            |text| {
                text.is_empty()
                    || text.contains("://") && !text.contains(|c: char| c.is_control() || "'`$ ".contains(c))
            },
        ),
        "flink.format" => Text("json or avro-confluent", |text| matches!(text, "json" | "avro-confluent")),
        "ksqldb.username" => Text("text", |_| true),
        "ksqldb.password" => Secret("text", |_| true),
        _ => return None,
    })
}

/// Whether this build has that engine.
fn is_there(engine: &str) -> bool {
    engine != EMBEDDED || EmbeddedSettings::IS_BUILT_IN
}

fn is_words(text: &str) -> bool {
    let is_word =
        |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    text.split(' ').all(is_word)
}

impl Layers {
    /// An engine is configured whole or not at all, and where the manager is on there is one for whoever names none.
    pub(super) fn check_manager(&self) -> Result<(), ConfigError> {
        for (_, keys) in ENGINES {
            let (empty, set): (Vec<&str>, Vec<&str>) = keys.iter().copied().partition(|key| self.is_empty(key));
            if let (Some(empty), Some(set)) = (empty.first(), set.first()) {
                return Err(self.not_allowed(empty, format!("a URL, as {set} is set")));
            }
        }
        if !self.is_on("manager.enabled") {
            return Ok(());
        }
        let configured: Vec<&str> =
            ENGINES.iter().filter(|(name, keys)| self.is_configured(name, keys)).map(|(name, _)| *name).collect();
        if configured.is_empty() {
            let every: Vec<String> =
                ENGINES.iter().filter(|(name, _)| is_there(name)).map(|(_, keys)| keys.join(" and ")).collect();
            let allowed = format!("an engine to be configured then: set {}", every.join(", or "));
            return Err(self.not_allowed("manager.enabled", allowed));
        }
        let default = self.text("manager.default_engine");
        match ENGINES.iter().find(|(name, _)| *name == default) {
            // What needs no settings is there beside what somebody has set up, which is meant then.
            None if configured.iter().filter(|name| **name != EMBEDDED).count() > 1 => {
                let allowed = format!("one of {}, as all of them are configured", configured.join(", "));
                Err(self.not_allowed("manager.default_engine", allowed))
            }
            Some((name, _)) if !is_there(name) => {
                let allowed =
                    format!("an engine that is configured ({}): this build has no embedded one", configured.join(", "));
                Err(self.not_allowed("manager.default_engine", allowed))
            }
            Some((name, keys)) if !configured.contains(name) => {
                let allowed = format!(
                    "an engine that is configured ({}): else set {}",
                    configured.join(", "),
                    keys.join(" and ")
                );
                Err(self.not_allowed("manager.default_engine", allowed))
            }
            _ => {
                self.check_format()?;
                self.check_connections(configured.contains(&EMBEDDED))
            }
        }
    }

    /// A view that a stream is joined with is read over one connection for as long as that takes.
    fn check_connections(&self, is_embedded: bool) -> Result<(), ConfigError> {
        let key = "database.read_pool_size";
        if is_embedded && self.value(key).and_then(Value::as_integer) == Some(1) {
            let allowed =
                "2 or more beside the embedded engine: one may be taken by a view that streams are joined with";
            return Err(self.not_allowed(key, allowed.to_owned()));
        }
        Ok(())
    }

    /// Avro needs the registry at which Flink looks schemas up.
    fn check_format(&self) -> Result<(), ConfigError> {
        let is_avro = self.text("flink.format") == "avro-confluent";
        if is_avro && self.is_empty("flink.schema_registry_url") && self.is_empty("schema_registry.url") {
            let allowed = "json where neither flink.schema_registry_url nor schema_registry.url is set".to_owned();
            return Err(self.not_allowed("flink.format", allowed));
        }
        Ok(())
    }

    fn is_configured(&self, engine: &str, keys: &[&str]) -> bool {
        match engine == EMBEDDED {
            true => is_there(engine) && self.is_on(keys[0]),
            false => !self.is_empty(keys[0]),
        }
    }

    fn is_on(&self, key: &str) -> bool {
        self.value(key).and_then(Value::as_bool).unwrap_or(false)
    }

    fn text(&self, key: &str) -> &str {
        self.value(key).and_then(Value::as_str).unwrap_or_default()
    }
}
