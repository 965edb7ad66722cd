//! From records to events, or to what speaks against them. Pure.

use std::collections::{HashMap, HashSet};

use crate::codec::{self, Head, Limits, Refused, json};
use crate::domain::poison::Poison;
use crate::domain::record::Record;
use crate::views::{Parsed, View};

/// A record after decoding.
#[derive(Debug)]
pub struct Decoded<'a, V: View> {
    /// The record.
    pub record: Record<'a>,
    /// Its event, or why it is none.
    pub outcome: Result<Event<'a, V>, Refused<'a>>,
}

/// A decoded event.
#[derive(Debug)]
pub struct Event<'a, V: View> {
    /// Key.
    pub key: &'a str,
    /// Sequence.
    pub sequence: i64,
    /// As the view read it.
    pub parsed: Parsed<'a, V::Event<'a>>,
    /// Payload text.
    pub payload: &'a str,
}

/// What Postgres said of an earlier attempt: it overrules the rules.
#[derive(Debug, Default)]
pub struct Overrules {
    /// Records that Postgres cannot hold, by position.
    pub refused: HashMap<(i32, i64), Poison>,
    /// Event ids that are the latest of a key, with that key. Asked for only after the view's constraint was violated.
    pub owners: HashMap<String, String>,
}

/// Decodes one record.
pub fn decode<'a, V: View>(view: &V, limits: Limits, overrules: &Overrules, record: Record<'a>) -> Decoded<'a, V> {
    Decoded { record, outcome: decode_event(view, limits, overrules, record) }
}

fn decode_event<'a, V: View>(
    view: &V,
    limits: Limits,
    overrules: &Overrules,
    record: Record<'a>,
) -> Result<Event<'a, V>, Refused<'a>> {
    let (head, payload) = codec::head(&record, limits)?;
    let refuse = |poison| Refused { poison, place: Some((head.key, head.sequence)), key: Some(head.key) };
    if !overrules.refused.is_empty()
        && let Some(poison) = overrules.refused.get(&(record.partition, record.offset))
    {
        return Err(refuse(poison.clone()));
    }
    let Head { key, sequence, .. } = head;
    let payload = json::check_storable(payload).map_err(refuse)?;
    let parsed = view.parse(&head, payload).map_err(refuse)?;
    Ok(Event { key, sequence, parsed, payload })
}

/// The keys that a batch touches.
pub fn keys_of<'a, V: View>(batch: &[Decoded<'a, V>]) -> HashSet<&'a str> {
    batch
        .iter()
        .filter_map(|decoded| match &decoded.outcome {
            Ok(event) => Some(event.key),
            Err(refused) => refused.place.map(|(key, _)| key),
        })
        .collect()
}
