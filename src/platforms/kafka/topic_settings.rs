//! Asks the broker how it keeps a topic.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::config::KafkaSettings;
use crate::platforms::kafka::listener::Listener;
use crate::platforms::kafka::{base_config, open};

const TIMEOUT: Duration = Duration::from_secs(5);

/// What the broker says of `cleanup.policy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CleanupPolicy {
    /// The setting, such as `delete` or `compact,delete`.
    Known(String),
    /// It does not say: we may not ask, or it does not know the question.
    Untold(String),
}

/// How a topic is kept. What the broker does not say is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keeping {
    /// `cleanup.policy`.
    pub cleanup_policy: Option<String>,
    /// Milliseconds after which records go; -1: never.
    pub retention_ms: Option<i64>,
    /// Bytes of a partition beyond which its oldest records go; -1: never.
    pub retention_bytes: Option<i64>,
}

/// The topic's cleanup policy. `Err` says why there was no answer this time.
pub async fn cleanup_policy(settings: &KafkaSettings, topic: &str) -> Result<CleanupPolicy, KafkaError> {
    Ok(match keeping(settings, topic).await? {
        Ok(Keeping { cleanup_policy: Some(policy), .. }) => CleanupPolicy::Known(policy),
        Ok(_) => CleanupPolicy::Untold("no such setting".to_owned()),
        Err(why) => CleanupPolicy::Untold(why),
    })
}

/// How the topic is kept; the inner `Err`: the broker does not say, and why. The outer one says why there was no answer this
/// time.
pub async fn keeping(settings: &KafkaSettings, topic: &str) -> Result<Result<Keeping, String>, KafkaError> {
    let admin: AdminClient<Listener> = open(&base_config(settings), Listener::new(settings))?;
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
    let mut answers = match admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &options).await {
        Ok(answers) => answers,
        Err(KafkaError::AdminOp(code)) if !is_silence(code) => return Ok(Err(code.to_string())),
        Err(error) => return Err(error),
    };
    match answers.pop() {
        Some(Ok(resource)) => {
            let value = |name| resource.get(name).and_then(|entry| entry.value.clone());
            let number = |name| value(name).and_then(|text| text.parse().ok());
            Ok(Ok(Keeping {
                cleanup_policy: value("cleanup.policy"),
                retention_ms: number("retention.ms"),
                retention_bytes: number("retention.bytes"),
            }))
        }
        Some(Err(code)) if is_silence(code) => Err(KafkaError::AdminOp(code)),
        Some(Err(code)) => Ok(Err(code.to_string())),
        None => Ok(Err("an empty answer".to_owned())),
    }
}

/// Whether the broker did not answer at all.
fn is_silence(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::RequestTimedOut
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
    )
}
