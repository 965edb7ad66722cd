//! Refuses topics that the broker compacts: it removes events that a later one of the same key replaces, and here every
//! event counts. What is gone would show as gaps, which nobody can ever fill.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::platforms::kafka::topic_settings::{CleanupPolicy, cleanup_policy};
use crate::projector::context::ViewContext;

/// How long an answer is believed: partitions that are tried again and again do not ask each time.
const LIFE: Duration = Duration::from_secs(60);

/// What was last heard of the topic's cleanup policy.
#[derive(Debug, Default)]
pub struct CompactionCheck {
    answered: Mutex<Option<Answered>>,
}

#[derive(Debug, Clone, Copy)]
struct Answered {
    at: Instant,
    told: bool,
}

impl CompactionCheck {
    /// Fails if the topic is compacted and `kafka.allow_compacted` does not say that this is meant. A broker that does
    /// not tell is believed to keep everything, with one warning.
    pub async fn confirm(&self, context: &ViewContext) -> Result<(), Failure> {
        let before = *self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        if context.kafka.allow_compacted || before.is_some_and(|answered| answered.at.elapsed() < LIFE) {
            return Ok(());
        }
        let topic = &context.source.topic;
        let told = match cleanup_policy(&context.kafka, topic).await {
            Ok(CleanupPolicy::Known(policy)) if is_compacted(&policy) => {
                return Err(compacted(topic, &policy));
            }
            Ok(CleanupPolicy::Known(_)) => true,
            Ok(CleanupPolicy::Untold(why)) => {
                if before.is_none_or(|answered| answered.told) {
                    let view = context.source.view;
                    tracing::warn!(view, topic, why, "the broker does not tell whether it compacts the topic");
                }
                false
            }
            Err(error) => {
                return Err(Failure::KafkaAway(format!("Kafka does not tell how it keeps the topic: {error}")));
            }
        };
        let answered = Answered { at: Instant::now(), told };
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = Some(answered);
        Ok(())
    }
}

/// Whether a `cleanup.policy` has the broker compact the topic.
pub fn is_compacted(policy: &str) -> bool {
    policy.split(',').any(|part| part.trim() == "compact")
}

/// The halt for a topic that the broker compacts.
pub fn compacted(topic: &str, policy: &str) -> Failure {
    Failure::halt(
        "topic_compacted",
        format!("topic {topic} has cleanup.policy={policy}: the broker removes events that the view needs"),
        "set cleanup.policy=delete on the topic and look whether events are missing already, or accept the gaps with \
         kafka.allow_compacted = true; then restart",
    )
}
