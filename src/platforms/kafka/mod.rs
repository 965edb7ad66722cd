//! Kafka through librdkafka: membership and assignment ([`consumer`]), reading ([`fetch`]), the log's identity
//! ([`topic_id`], [`log`], [`topic_settings`]), publishing ([`producer`]), a whole topic read once ([`bounded`]),
//! batches that are too large found ([`probe`]), members that are dead removed ([`dead_member`]), what an error means
//! ([`trouble`]), why we are not let in (`listener`), and what is wrong with a certificate (`certificate`); and for whoever looks
//! for a fault, the brokers themselves ([`inspect`]) and our rights there ([`rights`]); and what the stream manager needs: topics
//! ([`topics`]), who reads them (`consumers`) and their records as they come ([`tail`]); and its embedded engine (`embedded`).
//!
//! How every client connects is said here, by [`base_config`], and nowhere else.

pub mod bounded;
mod certificate;
mod closing;
pub mod consumer;
mod consumers;
mod coordinator;
pub mod dead_member;
#[cfg(feature = "embedded-engine")]
pub mod embedded;
pub mod fetch;
pub mod inspect;
mod listener;
pub mod log;
mod prefetch;
pub mod probe;
pub mod producer;
pub mod rights;
pub mod tail;
pub mod topic_id;
pub mod topic_settings;
pub mod topics;
pub mod trouble;

use std::fs;

use anyhow::{Context, ensure};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;

use crate::config::{KafkaSettings, SaslMechanism};
use crate::domain::units::Millis;
use crate::platforms::kafka::listener::Listener;

/// A record's time, for whoever reads it: a negative one is none. Told alike everywhere, since by its time a record is known
/// again.
fn record_time(millis: i64) -> Option<Millis> {
    (millis >= 0).then_some(Millis(millis))
}

/// Settings that every client shares: where the brokers are, and how one is let in there. The only place where the
/// configuration of a client begins (`tests/tidy.rs`).
pub fn base_config(settings: &KafkaSettings) -> ClientConfig {
    // Begun before librdkafka begins it, OpenSSL does not clean up when the process exits: a client whose threads are still
    // at work then, as somebody waits for a broker in vain, would crash it ("double free", SIGABRT after a stop in order).
    openssl_sys::init();
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &settings.bootstrap_servers)
        .set("client.id", &settings.client_id)
        .set("security.protocol", settings.security_protocol.as_str())
        // A certificate is one for a name: there is no setting to overlook that.
        .set("enable.ssl.certificate.verification", "true")
        .set("ssl.endpoint.identification.algorithm", "https")
        .set("socket.keepalive.enable", "true")
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "2000")
        // A topic that was just re-created must not look unknown for long. Who has to know of new partitions asks.
        .set("topic.metadata.refresh.interval.ms", "30000");
    if settings.sasl_mechanism != SaslMechanism::None {
        config
            .set("sasl.mechanism", settings.sasl_mechanism.as_str())
            .set("sasl.username", &settings.username)
            .set("sasl.password", settings.password.expose());
    }
    let tls = &settings.tls;
    for (name, value) in [
        ("ssl.ca.location", tls.ca_file.as_str()),
        ("ssl.certificate.location", tls.cert_file.as_str()),
        ("ssl.key.location", tls.key_file.as_str()),
        ("ssl.key.password", tls.key_password.expose()),
    ] {
        if !value.is_empty() {
            config.set(name, value);
        }
    }
    // That a connection was closed is said no louder, and may be all that is said of why we are not let in.
    if !matches!(config.log_level, RDKafkaLogLevel::Debug) {
        config.set_log_level(RDKafkaLogLevel::Info);
    }
    config
}

/// Makes a client. An error names our settings, where the client names its own.
fn open<C: ClientContext, T: FromClientConfigAndContext<C>>(
    config: &ClientConfig,
    context: C,
) -> Result<T, KafkaError> {
    config.create_with_context(context).map_err(|error| match error {
        KafkaError::ClientCreation(text) => KafkaError::ClientCreation(in_our_words(&text)),
        other => other,
    })
}

fn in_our_words(text: &str) -> String {
    const ANOTHER_KEY: &str = "kafka.tls.key_file is not the key of kafka.tls.cert_file";
    if text.contains("key values mismatch") {
        return text.replace("ssl.key.location failed", ANOTHER_KEY);
    }
    [
        ("ssl.ca.location failed", "kafka.tls.ca_file cannot be used"),
        ("ssl.certificate.location failed", "kafka.tls.cert_file cannot be used"),
        ("ssl.key.location failed", "kafka.tls.key_file cannot be used, see kafka.tls.key_password if it is encrypted"),
        ("Private key check failed", ANOTHER_KEY),
    ]
    .into_iter()
    .fold(text.to_owned(), |text, (theirs, ours)| text.replace(theirs, ours))
}

/// Whether clients can be made by these settings: the files are there, and hold what they should. Connects to nobody.
pub fn check(settings: &KafkaSettings) -> anyhow::Result<()> {
    let tls = &settings.tls;
    for (key, file, marker, what) in [
        ("ca_file", &tls.ca_file, "-----BEGIN CERTIFICATE-----", "certificates"),
        ("cert_file", &tls.cert_file, "-----BEGIN CERTIFICATE-----", "certificate"),
        ("key_file", &tls.key_file, "PRIVATE KEY-----", "private key"),
    ] {
        if file.is_empty() {
            continue;
        }
        let text = fs::read(file).with_context(|| format!("cannot read kafka.tls.{key} = {file}"))?;
        let is_there = text.windows(marker.len()).any(|window| window == marker.as_bytes());
        ensure!(is_there, "kafka.tls.{key} = {file} holds no PEM {what}");
    }
    let mut config = base_config(settings);
    config.remove("bootstrap.servers");
    let made: Result<BaseConsumer<Listener>, KafkaError> = open(&config, Listener::new(settings));
    match made {
        Ok(_) => Ok(()),
        Err(error) => Err(error).with_context(|| {
            let files = [("ca_file", &tls.ca_file), ("cert_file", &tls.cert_file), ("key_file", &tls.key_file)];
            let named = files.into_iter().filter(|(_, file)| !file.is_empty());
            let named: Vec<String> = named.map(|(key, file)| format!("kafka.tls.{key} = {file}")).collect();
            format!("the kafka settings cannot be used ({})", named.join(", "))
        }),
    }
}

/// The settings of a client that reads.
///
/// Bounds what a broker may answer, and with it what a compressed batch may become where librdkafka looks (zstd). Ordinary
/// answers are half as large at most; the other half is for a batch that is larger than that all by itself.
fn consumer_config(settings: &KafkaSettings) -> ClientConfig {
    let mut config = base_config(settings);
    config
        .set("receive.message.max.bytes", settings.max_fetch_bytes.to_string())
        .set("fetch.max.bytes", (settings.max_fetch_bytes / 2).to_string())
        // How long fetching rests after the queue was full: a second unless said otherwise, in which a small queue is long
        // empty. A reader that is slower for a moment would be slow for that second.
        .set("fetch.queue.backoff.ms", "2");
    config
}
