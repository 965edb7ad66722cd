//! Typed settings: one tree, one home of defaults (`config/default.toml`), checked once at the start.
//!
//! A layer beats the ones before it: defaults, file, environment, flags. Unknown keys are refused, so
//! a typing error never runs as a silent default. Nothing here connects to anything.

mod error;
mod layers;
mod links;
mod listener;
mod manager;
mod rules;
mod secret;
mod wire;

use crate::domain::units::Sequence;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use error::ConfigError;
pub use listener::{ListenerTls, MtlsSettings};
pub use manager::{
    ENGINES, EmbeddedSettings, FlinkSettings, KsqldbSettings, ManagerLimits, ManagerSettings, PreviewSettings,
};
pub use secret::{Secret, SecretUrl, web_addresses};
pub use wire::TlsMode;

pub use crate::domain::history::History;
pub use crate::domain::meaning::ViewRules;

use layers::Layers;

/// Everything that can be set. The meaning of each key is in `config/default.toml`.
///
/// Safe to log: `Debug` and `Serialize` hide passwords.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What is at stake here.
    pub environment: Environment,
    /// The brokers and how the projector reads from them.
    pub kafka: KafkaSettings,
    /// The Postgres that holds the views.
    pub database: DatabaseSettings,
    /// Where schemas of framed records are looked up.
    pub schema_registry: SchemaRegistrySettings,
    /// The REST API.
    pub http: HttpSettings,
    /// Who may call the API.
    pub auth: AuthSettings,
    /// What is kept of calls.
    pub audit: AuditSettings,
    /// Batches, memory and bounds of the projector.
    pub projector: ProjectorSettings,
    /// How views are rebuilt.
    pub rebuild: RebuildSettings,
    /// Tax where events state none.
    pub tax: TaxSettings,
    /// What is logged, and how.
    pub log: LogSettings,
    /// The stream manager.
    pub manager: ManagerSettings,
    /// Flink, as the stream manager reaches it.
    pub flink: FlinkSettings,
    /// ksqlDB, as the stream manager reaches it.
    pub ksqldb: KsqldbSettings,
    /// The engine in this process.
    pub embedded: EmbeddedSettings,
    /// Topics by view name.
    pub views: BTreeMap<String, ViewSettings>,
    /// Which secrets were read from files, in sentences for people.
    #[serde(skip)]
    pub secret_files: Vec<String>,
}

/// What is at stake in this environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Environment {
    /// Readers rely on the views.
    Production,
    /// Somebody develops: a view may be empty for a while.
    Dev,
    /// Likewise, in tests.
    Test,
}

impl Environment {
    /// Whether a view may be cleared and made anew while readers read it.
    pub const fn allows_in_place(self) -> bool {
        matches!(self, Environment::Dev | Environment::Test)
    }
}

/// `[kafka]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaSettings {
    /// `host:port`, several separated by commas.
    pub bootstrap_servers: String,
    /// With TLS or not, with a login or not.
    pub security_protocol: SecurityProtocol,
    /// How to log in.
    pub sasl_mechanism: SaslMechanism,
    /// Name to log in with; empty = no login.
    pub username: String,
    /// Its password.
    pub password: Secret,
    /// Consumer group of the projector.
    pub group_id: String,
    /// Name shown in the broker's logs and quotas.
    pub client_id: String,
    /// Name in the group; empty = the number of a seat.
    pub instance_id: String,
    /// Milliseconds without a heartbeat until an instance counts as dead.
    pub session_timeout_ms: u64,
    /// Milliseconds the broker may wait for more records.
    pub fetch_wait_max_ms: u64,
    /// Bytes a broker waits for before it answers a fetch.
    pub fetch_min_bytes: usize,
    /// Bytes fetched ahead, over all partitions.
    pub queue_bytes: usize,
    /// Bytes of one answer of a broker at most: no batch and no record may be larger.
    pub max_fetch_bytes: usize,
    /// Compare the topic's id with the broker's before each commit.
    pub topic_ids: bool,
    /// Read a topic although the broker compacts it.
    pub allow_compacted: bool,
    /// Certificates.
    pub tls: KafkaTlsSettings,
}

/// How brokers are connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecurityProtocol {
    /// As it is, without a login.
    Plaintext,
    /// TLS.
    Ssl,
    /// A login, and no TLS.
    SaslPlaintext,
    /// A login over TLS.
    SaslSsl,
}

impl SecurityProtocol {
    /// As the client calls it.
    pub const fn as_str(self) -> &'static str {
        match self {
            SecurityProtocol::Plaintext => "plaintext",
            SecurityProtocol::Ssl => "ssl",
            SecurityProtocol::SaslPlaintext => "sasl_plaintext",
            SecurityProtocol::SaslSsl => "sasl_ssl",
        }
    }
}

/// How one logs in at a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SaslMechanism {
    /// Not at all.
    #[serde(rename = "")]
    None,
    /// The password as it is.
    #[serde(rename = "PLAIN")]
    Plain,
    /// SCRAM with SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// SCRAM with SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl SaslMechanism {
    /// As Kafka calls it.
    pub const fn as_str(self) -> &'static str {
        match self {
            SaslMechanism::None => "",
            SaslMechanism::Plain => "PLAIN",
            SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
            SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// `[kafka.tls]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaTlsSettings {
    /// PEM file with the only authorities that are trusted; empty = the platform's.
    pub ca_file: String,
    /// PEM file with our certificate and its chain; empty = none.
    pub cert_file: String,
    /// PEM file with its private key.
    pub key_file: String,
    /// Its password; empty = it has none.
    pub key_password: Secret,
}

/// `[database]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSettings {
    /// URL or `key=value` text.
    pub url: SecretUrl,
    /// The same for what the API reads of views; empty = `url`.
    pub read_url: SecretUrl,
    /// Connections for reads.
    pub read_pool_size: usize,
    /// Milliseconds to open a connection.
    pub connect_timeout_ms: u64,
    /// Statement timeout of the projector in milliseconds.
    pub write_timeout_ms: u64,
    /// Statement timeout of the API in milliseconds.
    pub read_timeout_ms: u64,
    /// Statement timeout of an operator's decision in milliseconds, waiting for locks included.
    pub decision_timeout_ms: u64,
    /// Wait for the flush of each commit.
    pub synchronous_commit: bool,
    /// Whom we trust, and who we are.
    pub tls: DatabaseTlsSettings,
}

impl DatabaseSettings {
    /// Those by which the API reads views.
    pub fn for_reads(&self) -> DatabaseSettings {
        let url = if self.reads_apart() { &self.read_url } else { &self.url };
        DatabaseSettings { url: url.clone(), ..self.clone() }
    }

    /// Whether the API reads views by an address of its own.
    pub fn reads_apart(&self) -> bool {
        !self.read_url.is_empty()
    }
}

/// `[database.tls]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseTlsSettings {
    /// PEM file with the only authorities that are trusted; empty = the platform's.
    pub ca_file: String,
    /// PEM file with the certificate that we show, and its chain; empty = none.
    pub cert_file: String,
    /// PEM file with its key.
    pub key_file: String,
}

/// `[schema_registry]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchemaRegistrySettings {
    /// Base URL, or several separated by commas; empty = no registry.
    pub url: SecretUrl,
    /// Name for basic authentication; empty = none.
    pub username: String,
    /// Its password.
    pub password: Secret,
    /// Bearer token; empty = none.
    pub bearer_token: Secret,
    /// PEM file with the only authorities that are trusted; empty = the platform's.
    pub ca_file: String,
    /// Milliseconds for a whole answer.
    pub timeout_ms: u64,
    /// Milliseconds for which an unknown schema id may still turn up.
    pub not_found_grace_ms: u64,
    /// What follows then.
    pub not_found: NotFoundPolicy,
    /// Our certificate.
    pub tls: RegistryTlsSettings,
}

/// `[schema_registry.tls]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryTlsSettings {
    /// PEM file with our certificate and its chain; empty = none.
    pub cert_file: String,
    /// PEM file with its private key.
    pub key_file: String,
}

/// What a record is whose schema a healthy registry does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotFoundPolicy {
    /// A reason to stop.
    Halt,
    /// A dead letter.
    DeadLetter,
}

/// `[http]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSettings {
    /// Address and port to listen on.
    pub bind: SocketAddr,
    /// What `Link` and `Location` begin with, without a `/` at its end; empty = nothing.
    pub public_url: String,
    /// Origins of web pages that may call from elsewhere, as browsers write them.
    pub cors_origins: Vec<String>,
    /// Addresses and networks of proxies that say whom they call for.
    pub trusted_proxies: Vec<String>,
    /// How connections are encrypted.
    pub tls: ListenerTls,
    /// Everybody who reaches a non-loopback address may read.
    pub allow_anonymous: bool,
    /// Everybody who reaches a non-loopback address may make decisions.
    pub allow_anonymous_operations: bool,
    /// Worker threads; 0 = one per core.
    pub workers: usize,
    /// Items on a page when the caller does not say.
    pub default_page_size: u32,
    /// Items on a page at most.
    pub max_page_size: u32,
    /// Rows that page numbers may skip.
    pub max_offset: u64,
    /// Milliseconds a read may wait for its own write.
    pub max_wait_ms: u64,
    /// Reads waiting at the same time.
    pub max_waiters: usize,
    /// Clients that follow changes at the same time.
    pub max_followers: usize,
    /// Changes that may wait for one of them.
    pub follower_buffer: usize,
    /// Connections to the hub at the same time.
    pub max_hub_connections: usize,
    /// Those of one caller.
    pub max_hub_connections_per_caller: usize,
    /// Milliseconds that a client may take nothing of what it is sent, or take to send a request's body.
    pub send_timeout_ms: u64,
    /// Milliseconds open requests get at shutdown.
    pub shutdown_timeout_ms: u64,
    /// How often each caller may call.
    pub rate_limits: RateLimitSettings,
}

/// `[http.rate_limits]`: calls a minute of each caller; 0 = no limit.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimitSettings {
    /// Lists, histories and rows as they were.
    pub reads: u32,
    /// Streams of changes that are opened.
    pub streams: u32,
    /// Calls of operators and administrators.
    pub operations: u32,
    /// Credentials from one address that are not known yet.
    pub log_ins: u32,
    /// Calls that define, check, deploy or stop streams.
    pub definitions: u32,
}

/// `[auth]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthSettings {
    /// What a caller without credentials may where callers log in.
    pub anonymous_role: AnonymousRole,
    /// Whether API keys are taken.
    pub api_keys: bool,
    /// Tokens of an identity provider.
    pub jwt: JwtSettings,
    /// Browsers that sign in at the provider.
    pub oidc: OidcSettings,
    /// Certificates of clients.
    pub mtls: MtlsSettings,
}

impl AuthSettings {
    /// Whether callers log in.
    pub fn is_on(&self) -> bool {
        self.api_keys || !self.jwt.issuer.is_empty() || !self.mtls.role_map.is_empty()
    }
}

/// What somebody may who has not logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnonymousRole {
    /// Nothing but what is public.
    None,
    /// Read views.
    Reader,
}

/// `[auth.jwt]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtSettings {
    /// `iss` of the tokens that are taken; empty = none are.
    pub issuer: String,
    /// One of these has to be in `aud`.
    pub audience: Vec<String>,
    /// Where the keys are; empty = where the issuer says.
    pub jwks_url: String,
    /// A file with the keys instead.
    pub jwks_file: String,
    /// The claim with the roles.
    pub roles_claim: String,
    /// `theirs=ours`.
    pub role_map: Vec<String>,
    /// Names of algorithms.
    pub algorithms: Vec<String>,
    /// Seconds by which clocks may differ.
    pub leeway_seconds: i64,
}

/// `[auth.oidc]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcSettings {
    /// What we are called at `auth.jwt.issuer`; empty = no browser is sent there.
    pub client_id: String,
    /// What proves it; empty = nothing.
    pub client_secret: Secret,
    /// What is asked for.
    pub scope: String,
}

/// `[audit]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditSettings {
    /// Days that entries are kept; 0 = for ever.
    pub retention_days: i32,
}

/// What is done about a gap whose event is known not to be in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapPolicy {
    /// The order is held until somebody decides.
    Hold,
    /// The same, and the log warns once.
    Notify,
    /// The missing numbers are skipped, as an operator would.
    Skip,
}

/// `[projector]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectorSettings {
    /// Batches applied side by side.
    pub lanes: usize,
    /// Events in one transaction at most.
    pub max_batch_events: usize,
    /// Payload bytes in one transaction at most.
    pub max_batch_bytes: usize,
    /// Milliseconds from one transaction of a lane to its next while little waits.
    pub min_commit_interval_ms: u64,
    /// Bytes of hot state in memory, over all lanes.
    pub cache_bytes: usize,
    /// Parked events behind one key's gap at most.
    pub max_parked_per_key: usize,
    /// Parked events in all at most.
    pub max_parked_total: usize,
    /// What is kept of each event.
    pub history: History,
    /// What is done about proven gaps.
    pub gap_policy: GapPolicy,
    /// Bytes of a record's value at most.
    pub max_record_bytes: usize,
    /// Sequence of a key's first event: 0 or 1.
    pub first_sequence: i64,
    /// Milliseconds to finish the batch at shutdown.
    pub shutdown_timeout_ms: u64,
    /// Milliseconds between two checks of the topic's identity.
    pub identity_check_ms: u64,
}

/// `[rebuild]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RebuildSettings {
    /// Bytes that the keys of a rebuild may take in memory; what is beyond is applied batch by batch.
    pub memory_bytes: usize,
    /// Whether a rebuild starts by itself where only a later version of the projection runs.
    pub on_version_change: bool,
}

/// `[tax]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaxSettings {
    /// Rate of items that carry none, a plain decimal such as `0.19`.
    pub default_rate: String,
}

/// `[log]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    /// Shape of a line.
    pub format: LogFormat,
    /// A tracing `EnvFilter`: levels, also per module.
    pub level: String,
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// `[views.<name>]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ViewSettings {
    /// Topic with the view's events.
    pub topic: String,
    /// Topic for the view's dead letters.
    pub dlq_topic: String,
    /// What is kept of each event; as in `[projector]` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<History>,
    /// What is done about proven gaps; as in `[projector]` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap_policy: Option<GapPolicy>,
    /// Sequence of a key's first event; as in `[projector]` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_sequence: Option<i64>,
    /// Tax where the view's events state none; as in `[tax]` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tax: Option<TaxSettings>,
}

impl Config {
    /// Merges the layers and checks the result.
    ///
    /// `environment` is the process's variables (all of them; see [`Config::environment`]), `overrides`
    /// are flags as dotted key and text.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &[(String, String)],
    ) -> Result<Config, ConfigError> {
        let mut layers = Layers::defaults();
        if let Some(path) = file {
            layers.add_file(path)?;
        }
        layers.add_environment(environment)?;
        layers.add_overrides(overrides)?;
        layers.check_pairs()?;
        Ok(layers.into_config())
    }

    /// The rules of a view's next build: what its settings say, else what holds for the process. A build that is there keeps
    /// to its own (`store/meaning.rs`).
    pub fn rules_of(&self, view: &ViewSettings) -> ViewRules {
        ViewRules {
            history: view.history.unwrap_or(self.projector.history),
            first_sequence: Sequence(view.first_sequence.unwrap_or(self.projector.first_sequence)),
            default_tax_rate: view.tax.as_ref().unwrap_or(&self.tax).default_rate.clone(),
        }
    }

    /// What is done about proven gaps of a view: what its settings say, else what holds for the process. It makes decisions,
    /// which are the view's, and is no rule of a build.
    pub fn gap_policy_of(&self, view: &ViewSettings) -> GapPolicy {
        view.gap_policy.unwrap_or(self.projector.gap_policy)
    }

    /// The settings of `config/default.toml` alone.
    pub fn defaults() -> Config {
        Layers::defaults().into_config()
    }

    /// The process's variables for [`Config::load`]. Unlike `std::env::vars` it does not panic over a
    /// variable of somebody else that is no UTF-8.
    pub fn environment() -> Vec<(String, String)> {
        std::env::vars_os()
            .filter_map(|(name, value)| {
                let name = name.into_string().ok()?;
                Some((name, value.to_string_lossy().into_owned()))
            })
            .collect()
    }

    /// The variables in `environment` that [`Config::load`] passes over: service links of Kubernetes, which sets them in
    /// every container for Services called `streamview` or `streamview-…`.
    pub fn service_links(environment: impl IntoIterator<Item = (String, String)>) -> Vec<String> {
        let settings = Layers::defaults();
        let links = environment.into_iter().filter(|(name, value)| settings.passes_over(name, value));
        links.map(|(name, _)| name).collect()
    }

    /// The whole tree as TOML, passwords replaced by `***`; which were read from files stands before it. Loads again if it held
    /// no password.
    pub fn to_toml_redacted(&self) -> String {
        let files: String = self.secret_files.iter().map(|sentence| format!("# {sentence}\n")).collect();
        files + &toml::to_string(self).expect("settings are tables of scalars")
    }
}

impl Config {
    /// Refuses an address other machines can reach, unless callers log in, or `http.allow_anonymous` says that this is meant.
    pub fn check_exposure(&self) -> Result<(), ConfigError> {
        let http = &self.http;
        if http.bind.ip().to_canonical().is_loopback() || http.allow_anonymous || self.auth.is_on() {
            return Ok(());
        }
        Err(ConfigError::Exposed { bind: http.bind })
    }

    /// What is allowed by these settings that nobody should allow without knowing: shown at the start and by `config check`.
    pub fn warnings(&self) -> Vec<&'static str> {
        let is_exposed = !self.http.bind.ip().to_canonical().is_loopback();
        let (open, anonymous) = (!self.auth.is_on(), &self.http);
        let warn = |is_so: bool, words| is_so.then_some(words);
        let (wire, login) = (self.kafka.security_protocol, self.kafka.sasl_mechanism);
        [
            warn(
                wire == SecurityProtocol::SaslPlaintext && login == SaslMechanism::Plain,
                "kafka.security_protocol = sasl_plaintext: kafka.password and all records go over the wire as they are",
            ),
            warn(
                wire == SecurityProtocol::SaslPlaintext && login != SaslMechanism::Plain,
                "kafka.security_protocol = sasl_plaintext: all records go over the wire as they are",
            ),
            warn(
                open && is_exposed && anonymous.allow_anonymous,
                "http.allow_anonymous: everybody who reaches http.bind may read everything, as nobody has to log in",
            ),
            warn(
                open && is_exposed && anonymous.allow_anonymous_operations,
                "http.allow_anonymous_operations: everybody who reaches http.bind may decide, rebuild and roll back",
            ),
            warn(
                !open && (anonymous.allow_anonymous || anonymous.allow_anonymous_operations),
                "http.allow_anonymous and allow_anonymous_operations do nothing where callers log in; see auth.anonymous_role",
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl HttpSettings {
    /// Whether callers may make decisions: on loopback, or if `allow_anonymous_operations` says that it is meant.
    pub fn allows_operations(&self) -> bool {
        self.bind.ip().to_canonical().is_loopback() || self.allow_anonymous_operations
    }
}

#[cfg(test)]
mod tests;
