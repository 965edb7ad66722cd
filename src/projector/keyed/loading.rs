//! What a batch has to know beside the entries of its keys: what is parked behind them, as far as the batch can meet it, and
//! the schemas of records that were stored whole.

use std::collections::{BTreeMap, HashSet};

use futures_util::future::join;

use crate::codec::frame;
use crate::codec::schemas::{Schemas, WriterSchema};
use crate::domain::poison::{Poison, Reason};
use crate::domain::record::Headers;
use crate::domain::units::{Partition, Sequence};
use crate::engine::decisions::Verdict;
use crate::engine::decode::Headed;
use crate::engine::plan::{ByKey, KeyEntry};
use crate::failure::Failure;
use crate::projector::context::ViewContext;
use crate::projector::keyed::session::Session;
use crate::schemas::SchemaSource;
use crate::schemas::source::Absent;
use crate::store::control::{DecisionsByKey, ParkedByKey};
use crate::store::rows::Stored;
use crate::store::sqlstate::classify;

/// What loading works with.
pub struct Loading<'c, V: Stored> {
    /// The view's context.
    pub context: &'c ViewContext,
    /// The connection.
    pub session: &'c Session<V>,
    /// What was loaded before did not hold: something may be parked behind keys that are not held.
    pub is_in_doubt: bool,
}

impl<V: Stored> Loading<'_, V> {
    /// The entry of a key that nobody has seen.
    pub fn new_entry(&self) -> KeyEntry<V::State> {
        KeyEntry { last_sequence: self.context.meaning.rules.first_sequence.previous(), ..KeyEntry::default() }
    }

    /// Loads what is parked behind held keys as far as the batch can meet it: whole events for keys whose missing
    /// event is in the batch or that need healing, presence only for the others.
    pub async fn parked<'a>(
        &self,
        batch: &[Headed<'a>],
        heal: &[(&'a str, Partition)],
        entries: &ByKey<'a, Box<KeyEntry<V::State>>>,
        decisions: &DecisionsByKey,
        drain_limit: usize,
    ) -> Result<LoadedParked<'a>, Failure> {
        let decided = entries.iter().filter(|(key, entry)| is_decided(decisions, key, entry.last_sequence.next()));
        let mut to_drain: HashSet<&str> = decided.map(|(key, _)| *key).collect();
        let mut met: BTreeMap<&str, Vec<Sequence>> = BTreeMap::new();
        for (key, sequence) in batch.iter().filter_map(Headed::place) {
            let Some(entry) = entries.get(key) else { continue };
            if entry.held.is_none() && !self.is_in_doubt {
                continue;
            }
            if entry.held.is_some() && sequence == entry.last_sequence.next() {
                to_drain.insert(key);
            } else if sequence > entry.last_sequence {
                met.entry(key).or_default().push(sequence);
            }
        }
        to_drain.extend(self.in_need(heal, entries).await?);
        if to_drain.is_empty() && met.is_empty() {
            return Ok(LoadedParked { to_drain, drain_limit, rows: ParkedByKey::new() });
        }
        let drain_limit = drain_limit.min(self.drain_limit(to_drain.iter().filter_map(|key| entries.get(key))));
        let pairs = || met.iter().flat_map(|(key, numbers)| numbers.iter().map(move |number| (*key, *number)));
        let (keys, sequences): (Vec<&str>, Vec<Sequence>) = pairs().unzip();
        let drained: Vec<&str> = to_drain.iter().copied().collect();
        let (session, source) = (self.session, &self.context.source);
        // Where everything fits, the limit is the greatest number there is.
        let limit = i64::try_from(drain_limit).unwrap_or(i64::MAX);
        let (whole, presence) = join(
            session.control.load_parked(session.client(), source, &drained, limit),
            session.control.load_presence(session.client(), source, &keys, &sequences),
        )
        .await;
        let fail = |error| classify(error, None);
        let mut parked = whole.map_err(fail)?;
        for (key, rows) in presence.map_err(fail)? {
            let known = parked.entry(key).or_default();
            for row in rows {
                if !known.iter().any(|other| other.sequence == row.sequence) {
                    known.push(row);
                }
            }
        }
        Ok(LoadedParked { to_drain, drain_limit, rows: parked })
    }

    /// Of the keys to heal those that need what is parked behind them ([`KeyEntry::is_in_need`]).
    async fn in_need<'a>(
        &self,
        heal: &[(&'a str, Partition)],
        entries: &ByKey<'a, Box<KeyEntry<V::State>>>,
    ) -> Result<Vec<&'a str>, Failure> {
        let keys: Vec<&'a str> = heal.iter().map(|(key, _)| *key).collect();
        if keys.is_empty() {
            return Ok(keys);
        }
        let (session, source) = (self.session, &self.context.source);
        let parked = session.control.summarize_parked(session.client(), source, &keys).await;
        let parked = parked.map_err(|error| classify(error, None))?;
        let is_in_need =
            |key: &&str| entries.get(*key).is_some_and(|entry| entry.is_in_need(parked.get(*key).copied()));
        Ok(keys.into_iter().filter(is_in_need).collect())
    }

    /// How many events per key may be loaded so that all of them fit into one batch's number and a few batches' memory.
    fn drain_limit<'e>(&self, entries: impl Iterator<Item = &'e Box<KeyEntry<V::State>>>) -> usize
    where
        V::State: 'e,
    {
        let (mut keys, mut events, mut bytes) = (0usize, 0usize, 0usize);
        for held in entries.filter_map(|entry| entry.held.as_ref()) {
            keys += 1;
            // An estimate. What lanes count beside each other can be off for a moment, also below nothing.
            events += held.parked_count.max(0) as usize;
            bytes += held.parked_bytes.max(0) as usize;
        }
        let settings = &self.context.settings;
        share_of(keys, (events, bytes), (settings.max_batch_events, DRAIN_BATCHES * settings.max_batch_bytes))
    }
}

/// The share of each of so many keys, in events, when so many events of so many bytes wait and only `most` of both may be
/// loaded. At least one: who gets none never ends.
fn share_of(keys: usize, (events, bytes): (usize, usize), (most_events, most_bytes): (usize, usize)) -> usize {
    let by_bytes = if bytes <= most_bytes { usize::MAX } else { most_bytes / (bytes / events.max(1)).max(1) };
    let by_events = if events <= most_events { usize::MAX } else { most_events };
    match by_bytes.min(by_events) {
        usize::MAX => usize::MAX,
        all => (all / keys.max(1)).max(1),
    }
}

/// Whether something was decided about that number.
fn is_decided(decisions: &DecisionsByKey, key: &str, sequence: Sequence) -> bool {
    decisions.get(key).into_iter().flatten().any(|decision| decision.covers(sequence))
}

/// What was loaded of the parked events.
pub struct LoadedParked<'a> {
    /// Keys whose lowest events were loaded whole.
    pub to_drain: HashSet<&'a str>,
    /// Most events loaded per key.
    pub drain_limit: usize,
    /// The rows.
    pub rows: ParkedByKey,
}

/// Parked events that one attempt loads may take as much memory as this many batches.
const DRAIN_BATCHES: usize = 4;

/// `schemas`, and those of records that were loaded whole: parked ones, and what operators put in place of others.
pub async fn with_stored(
    source: &SchemaSource,
    schemas: &Schemas,
    parked: &ParkedByKey,
    decisions: &DecisionsByKey,
) -> Result<Schemas, Failure> {
    let mut all = schemas.clone();
    let parked = parked.values().flatten().filter_map(|row| Some((row.body.as_ref()?, row.origin)));
    let parked = parked.map(|((payload, headers), origin)| (payload, headers, origin));
    let substitutes = decisions.values().flatten().filter_map(|decision| match &decision.verdict {
        Verdict::Take(substitute) => Some((&substitute.payload, &substitute.headers, substitute.origin)),
        Verdict::Skip => None,
    });
    for (payload, headers, origin) in parked.chain(substitutes) {
        let Ok(Some(frame)) = frame::of_value(Headers::from_encoded(headers), payload) else { continue };
        if all.get(frame.schema).is_some() {
            continue;
        }
        let schema = match source.find(frame.schema, origin, payload).await {
            Ok(schema) => schema,
            Err(Absent::Away(reason)) => return Err(Failure::RegistryAway(reason)),
            // It was there when the record was read first, and will not come by waiting. Its own order is held, which
            // stops less than its partition, where other records have come by.
            Err(Absent::Unknown { detail, .. }) => WriterSchema::Refused(Poison::new(Reason::SchemaNotFound, detail)),
        };
        all.insert(frame.schema, schema);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_share_what_one_step_may_drain() {
        for (keys, waiting, share) in [
            (1, (0, 0), usize::MAX),
            (500, (1_000, 10_000), usize::MAX),
            (1, (100_000, 10_000), 1_000),
            (500, (100_000, 10_000), 2),
            (5_000, (100_000, 10_000), 1),
            // 1,000 bytes each: 40 of them.
            (1, (100, 100_000), 40),
            (4, (100, 100_000), 10),
        ] {
            assert_eq!(share_of(keys, waiting, (1_000, 40_000)), share, "{keys} keys, {waiting:?}");
        }
    }
}
