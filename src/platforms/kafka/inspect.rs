//! Looks at a cluster as somebody who wants to know why it does not work: whether a broker answers and lets us in, and which
//! brokers it sends us to. Leaves no trace.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;

use crate::config::{KafkaSettings, SaslMechanism};
use crate::platforms::kafka::listener::{Listener, listen};
use crate::platforms::kafka::{base_config, open, trouble};

const TIMEOUT: Duration = Duration::from_secs(4);

/// What one broker says of its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Its id; `None` if it has none.
    pub id: Option<String>,
    /// Where its brokers are, as they tell clients: host and port.
    pub brokers: Vec<String>,
}

/// Why a broker that takes connections tells nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The handshake of TLS fails.
    Tls(String),
    /// It does not take our login.
    Login(String),
    /// It does not answer as a broker does, or not in time.
    Silent(String),
}

/// How connections to the brokers are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manner {
    /// Kafka's name for it, such as `plaintext` or `sasl_ssl`.
    pub protocol: String,
    /// How we log in, if we do.
    pub mechanism: Option<String>,
    /// As whom, if a name is shown.
    pub username: Option<String>,
}

impl Manner {
    /// Whether connections are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.protocol.ends_with("ssl")
    }

    /// Whether we say who we are by name.
    pub fn logs_in(&self) -> bool {
        self.protocol.starts_with("sasl")
    }
}

/// How connections to the brokers are made by these settings.
pub fn manner(settings: &KafkaSettings) -> Manner {
    let logs_in = settings.sasl_mechanism != SaslMechanism::None;
    Manner {
        protocol: settings.security_protocol.as_str().to_owned(),
        mechanism: logs_in.then(|| settings.sasl_mechanism.as_str().to_owned()),
        username: logs_in.then(|| settings.username.clone()),
    }
}

/// Asks one broker, `host:port`, for its cluster. Blocks, some seconds at most.
pub fn ask(settings: &KafkaSettings, server: &str, topic: &str) -> Result<Cluster, Refusal> {
    let settings = KafkaSettings { bootstrap_servers: server.to_owned(), ..settings.clone() };
    let mut config = base_config(&settings);
    config.set("group.id", "streamview-doctor"); // asked for by the client, never joined
    let silent = |error: KafkaError| Refusal::Silent(error.to_string());
    let client: BaseConsumer<Listener> = open(&config, Listener::new(&settings)).map_err(silent)?;
    match client.fetch_metadata(Some(topic), TIMEOUT) {
        Ok(metadata) => Ok(Cluster {
            id: client.client().fetch_cluster_id(TIMEOUT).filter(|id| !id.is_empty()),
            brokers: metadata.brokers().iter().map(|broker| address(broker.host(), broker.port())).collect(),
        }),
        Err(error) => {
            listen(&client);
            Err(client.context().explained().map_or_else(|| silent(error), |(kind, words)| refusal(kind, words)))
        }
    }
}

fn refusal(kind: trouble::Refusal, words: String) -> Refusal {
    use trouble::Refusal as Kind;
    match kind {
        Kind::BrokerCertificate | Kind::OurCertificate | Kind::TakesNoTls | Kind::WantsTls | Kind::Tls => {
            Refusal::Tls(words)
        }
        Kind::Login | Kind::Mechanism | Kind::TakesNoLogin | Kind::WantsLogin => Refusal::Login(words),
        Kind::NoWrite | Kind::Other(_) => Refusal::Silent(words),
    }
}

fn address(host: &str, port: i32) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn without_settings_of_its_own_a_connection_is_neither_encrypted_nor_logged_in() {
        let manner = manner(&Config::defaults().kafka);
        assert_eq!((manner.is_encrypted(), manner.logs_in(), manner.protocol.as_str()), (false, false, "plaintext"));
        assert_eq!((address("b", 9092), address("::1", 9092)), ("b:9092".to_owned(), "[::1]:9092".to_owned()));
    }
}
