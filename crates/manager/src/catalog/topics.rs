//! Which topics may be a source, or be watched. One rule, whoever says that a source is there: people, an engine, the
//! registry.
//!
//! | topic | source | watched |
//! |---|---|---|
//! | Kafka's, the registry's and ksqlDB's own: `_…`, `…ksql_processing_log` | never | never |
//! | the service's own (events, dead letters, those of streams among them), and `ksql…`, `…connect-configs` and their like | if an operator declares it | then |
//! | any other | if anybody may say so | then |

use std::collections::HashSet;

/// Who may make a source of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Whoever declares sources, the engines, and the registry.
    Open,
    /// An operator, by declaring it.
    Reserved,
    /// Nobody.
    Internal,
}

/// Where ksqlDB writes other people's statements and rows; its service's id stands before it.
const PROCESSING_LOG: &str = "ksql_processing_log";
/// Of Kafka Connect: its connectors' settings, secrets among them, and what it notes.
const CONNECT: [&str; 3] = ["connect-configs", "connect-offsets", "connect-status"];

/// What the rule says of a topic; `own` are the service's own topics.
pub fn standing(topic: &str, own: &HashSet<String>) -> Standing {
    let lower = topic.to_ascii_lowercase();
    if lower.starts_with('_') || lower.ends_with(PROCESSING_LOG) {
        return Standing::Internal;
    }
    // What a stream in this process could not read goes beside its output, whoever may see that.
    let is_letters = lower.starts_with("view_") && lower.ends_with(".dlq");
    let is_reserved = is_letters || lower.starts_with("ksql") || CONNECT.iter().any(|name| lower.ends_with(name));
    if is_reserved || own.contains(topic) { Standing::Reserved } else { Standing::Open }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_for_themselves_is_nobodys_source() {
        let own = ["orders.events", "orders.events.dlq"].map(str::to_owned).into();
        for (topic, expected) in [
            ("orders", Standing::Open),
            ("view_high_0123abcd", Standing::Open),
            ("view_high_0123abcd.late", Standing::Open),
            ("view_high_0123abcd.dlq", Standing::Reserved),
            ("orders.events", Standing::Reserved),
            ("orders.events.dlq", Standing::Reserved),
            ("ksql-changes", Standing::Reserved),
            ("docker-connect-configs", Standing::Reserved),
            ("_schemas", Standing::Internal),
            ("__consumer_offsets", Standing::Internal),
            ("_confluent-ksql-default__command_topic", Standing::Internal),
            ("default_ksql_processing_log", Standing::Internal),
            ("KSQL_PROCESSING_LOG", Standing::Internal),
        ] {
            assert_eq!(standing(topic, &own), expected, "{topic}");
        }
    }
}
