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

/// The topic's cleanup policy. `Err` says why there was no answer this time.
pub async fn cleanup_policy(settings: &KafkaSettings, topic: &str) -> Result<CleanupPolicy, KafkaError> {
    let admin: AdminClient<Listener> = open(&base_config(settings), Listener::new(settings))?;
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
    let mut answers = match admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &options).await {
        Ok(answers) => answers,
        Err(KafkaError::AdminOp(code)) if !is_silence(code) => return Ok(CleanupPolicy::Untold(code.to_string())),
        Err(error) => return Err(error),
    };
    match answers.pop() {
        Some(Ok(resource)) => {
            let policy = resource.get("cleanup.policy").and_then(|entry| entry.value.clone());
            Ok(policy.map_or_else(|| CleanupPolicy::Untold("no such setting".to_owned()), CleanupPolicy::Known))
        }
        Some(Err(code)) if is_silence(code) => Err(KafkaError::AdminOp(code)),
        Some(Err(code)) => Ok(CleanupPolicy::Untold(code.to_string())),
        None => Ok(CleanupPolicy::Untold("an empty answer".to_owned())),
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
