//! Kafka through librdkafka: membership and assignment ([`consumer`]), reading ([`fetch`]), the log's identity
//! ([`topic_id`], [`log`], [`topic_settings`]), publishing ([`producer`]), a whole topic read once ([`bounded`]),
//! batches that are too large found ([`probe`]), members that are dead removed ([`dead_member`]), what an error means
//! ([`trouble`]); and for whoever looks for a fault, the brokers themselves ([`inspect`]) and our rights there ([`rights`]).

pub mod bounded;
pub mod consumer;
pub mod dead_member;
pub mod fetch;
pub mod inspect;
pub mod log;
pub mod probe;
pub mod producer;
pub mod rights;
pub mod topic_id;
pub mod topic_settings;
pub mod trouble;

use rdkafka::ClientConfig;

use crate::config::KafkaSettings;
use crate::domain::units::Millis;

/// A record's time, for whoever reads it: a negative one is none. Told alike everywhere, since by its time a record is known
/// again.
fn record_time(millis: i64) -> Option<Millis> {
    (millis >= 0).then_some(Millis(millis))
}

/// Settings that every client shares.
fn base_config(settings: &KafkaSettings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &settings.bootstrap_servers)
        .set("client.id", &settings.client_id)
        .set("socket.keepalive.enable", "true")
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "2000")
        // A topic that was just re-created must not look unknown for long. Who has to know of new partitions asks.
        .set("topic.metadata.refresh.interval.ms", "30000");
    config
}

/// Bounds what a broker may answer, and with it what a compressed batch may become where librdkafka looks (zstd). Ordinary
/// answers are half as large at most; the other half is for a batch that is larger than that all by itself.
fn limit_answers(config: &mut ClientConfig, settings: &KafkaSettings) {
    config
        .set("receive.message.max.bytes", settings.max_fetch_bytes.to_string())
        .set("fetch.max.bytes", (settings.max_fetch_bytes / 2).to_string());
}
