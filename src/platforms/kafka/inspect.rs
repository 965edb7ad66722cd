//! Looks at a cluster as somebody who wants to know why it does not work: whether a broker answers and lets us in, and which
//! brokers it sends us to. Leaves no trace.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::config::KafkaSettings;
use crate::platforms::kafka::base_config;
use crate::platforms::kafka::trouble::{Trouble, trouble};

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
    let config = base_config(settings);
    let protocol = config.get("security.protocol").unwrap_or("plaintext").to_lowercase();
    let of_login = |name| config.get(name).filter(|_| protocol.starts_with("sasl")).map(str::to_owned);
    let (mechanism, username) =
        (of_login("sasl.mechanism").or_else(|| of_login("sasl.mechanisms")), of_login("sasl.username"));
    Manner { protocol, mechanism, username }
}

/// Keeps what the client says of its connections: its answers only say that there are none.
#[derive(Default)]
struct Listener {
    heard: Mutex<Option<(RDKafkaErrorCode, String)>>,
}

impl ClientContext for Listener {
    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.as_ref().is_none_or(|(known, _)| weight(code) > weight(*known)) {
            *heard = Some((code, reason.to_owned()));
        }
    }
}

impl ConsumerContext for Listener {}

/// How much an error tells; of several the heaviest counts.
fn weight(code: RDKafkaErrorCode) -> u8 {
    match (trouble(code), code) {
        (Trouble::Refused(_), _) => 3,
        (_, RDKafkaErrorCode::AllBrokersDown) => 1,
        _ => 2,
    }
}

/// Asks one broker, `host:port`, for its cluster. Blocks, some seconds at most.
pub fn ask(settings: &KafkaSettings, server: &str, topic: &str) -> Result<Cluster, Refusal> {
    let settings = KafkaSettings { bootstrap_servers: server.to_owned(), ..settings.clone() };
    let mut config = base_config(&settings);
    config.set("group.id", "streamview-doctor"); // asked for by the client, never joined
    let silent = |error: KafkaError| Refusal::Silent(error.to_string());
    let client: BaseConsumer<Listener> = config.create_with_context(Listener::default()).map_err(silent)?;
    match client.fetch_metadata(Some(topic), TIMEOUT) {
        Ok(metadata) => Ok(Cluster {
            id: client.client().fetch_cluster_id(TIMEOUT).filter(|id| !id.is_empty()),
            brokers: metadata.brokers().iter().map(|broker| address(broker.host(), broker.port())).collect(),
        }),
        Err(error) => {
            // What the client says of its connections is heard by polling only.
            while let Some(Err(error)) = client.poll(Duration::ZERO) {
                tracing::debug!(error = %error, "kafka client");
            }
            let heard = client.context().heard.lock().unwrap_or_else(PoisonError::into_inner).take();
            Err(refusal(error, heard))
        }
    }
}

fn refusal(error: KafkaError, heard: Option<(RDKafkaErrorCode, String)>) -> Refusal {
    match heard {
        Some((RDKafkaErrorCode::SSL, words)) => Refusal::Tls(words),
        Some((code, words)) if matches!(trouble(code), Trouble::Refused(_)) => Refusal::Login(words),
        Some((_, words)) => Refusal::Silent(words),
        None => Refusal::Silent(error.to_string()),
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
    fn what_tells_most_counts() {
        use RDKafkaErrorCode as Code;
        let listener = Listener::default();
        for (code, reason) in [
            (Code::AllBrokersDown, "1/1 brokers are down"),
            (Code::BrokerTransportFailure, "connection refused"),
            (Code::AllBrokersDown, "1/1 brokers are down"),
            (Code::Authentication, "wrong password"),
            (Code::BrokerTransportFailure, "disconnected"),
        ] {
            listener.error(KafkaError::Global(code), reason);
        }
        let heard = listener.heard.lock().unwrap().take();
        let timed_out = KafkaError::MetadataFetch(Code::OperationTimedOut);
        assert_eq!(refusal(timed_out.clone(), heard), Refusal::Login("wrong password".to_owned()));
        let tls = Some((Code::SSL, "no certificate".to_owned()));
        assert_eq!(refusal(timed_out.clone(), tls), Refusal::Tls("no certificate".to_owned()));
        assert!(matches!(refusal(timed_out, None), Refusal::Silent(words) if words.contains("Timed out")));
    }

    #[test]
    fn without_settings_of_its_own_a_connection_is_neither_encrypted_nor_logged_in() {
        let manner = manner(&Config::defaults().kafka);
        assert_eq!((manner.is_encrypted(), manner.logs_in(), manner.protocol.as_str()), (false, false, "plaintext"));
        assert_eq!((address("b", 9092), address("::1", 9092)), ("b:9092".to_owned(), "[::1]:9092".to_owned()));
    }
}
