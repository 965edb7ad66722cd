//! What people's words change in what is stored. No I/O, no clock.

use super::action::Action;
use super::outcome::TOPIC_REFUSALS;
use super::record::{Position, Record};
use crate::definition::Intent;

/// How somebody wants it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct How {
    /// Stop: the state is thrown away.
    pub discard_state: bool,
    /// Delete: the topic, too.
    pub delete_topic: bool,
}

/// Writes down what is wanted now; `false` if that may not be asked of something that is wanted as it is.
pub(crate) fn wish(record: &mut Record, action: Action, how: How) -> bool {
    let Some(intent) = action.leads_to(record.intent) else { return false };
    if action == Action::Deploy {
        // Somebody says so: what has failed is tried once more.
        record.failed_revision = None;
        record.restarts = 0;
        // On whichever cluster answers.
        record.cluster = None;
    }
    if intent != Intent::Running && action != Action::Update {
        // Nobody waits for an update any more, so there is nothing to go back to.
        record.previous_revision = None;
    }
    record.discard_state = action == Action::Stop && how.discard_state;
    // What has stopped already is not stopped once more: its state is let go at once.
    if record.discard_state && record.call.is_none() && matches!(record.position, Position::Stopped | Position::Nothing)
    {
        (record.restore, record.discard_state) = (None, false);
    }
    record.delete_topic |= action == Action::Delete && how.delete_topic;
    if action == Action::Delete && record.position == Position::Removed {
        // Only the topic is left, and how often that was tried counts on.
        record.delete_topic &= how.delete_topic || record.failures < TOPIC_REFUSALS;
    } else {
        record.failures = 0;
    }
    record.retry_at = None;
    // Who says what is wanted may have it done, however often it was undone.
    (record.heals, record.heals_since) = (0, None);
    record.version += i32::from(record.intent != intent);
    record.intent = intent;
    true
}

/// Another text is wanted: what went wrong with the one before is not held against it.
pub(crate) fn another_text(record: &mut Record) {
    record.revision += 1;
    (record.restarts, record.failures, record.retry_at) = (0, 0, None);
}

/// Whether a text is being replaced by another one right now.
pub(crate) fn is_being_updated(record: &Record) -> bool {
    record.intent == Intent::Running && record.previous_revision.is_some()
}
