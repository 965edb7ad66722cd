//! What a key should be by its own ledger.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{BYTES_AT_ONCE, EVENTS_AT_ONCE, VerifyError};
use crate::builds::compare::{Readers, Seen};
use crate::builds::{self, BuildError};
use crate::domain::build::BuildId;
use crate::domain::comparison::{COLUMNS, Difference};
use crate::domain::history::History;
use crate::domain::ledger::LedgerRow;
use crate::domain::units::Sequence;
use crate::domain::verification::Looked;
use crate::engine::refold::{Refold, Refolded, Unfoldable, Until};
use crate::engine::view::{ChangedKey, KeyedRows, StoredDetails, View, WriteSet};
use crate::store::keyed_rows::{BuildRows, tables};
use crate::store::rows::Stored;
use crate::store::scratch::{self, KeySize, Keys, Scratch};
use crate::store::{Connection, DbError, names};

/// The place of a view's further table among those that are compared: the first after the keys' own.
const DETAILS: usize = 1;

/// Up to which number keys are folded; those that are not here, to the end of their ledger.
pub(in crate::builds) type Ends = BTreeMap<String, Sequence>;

/// What is needed to look by a ledger.
pub(in crate::builds) struct ByLedger<'v, V: Stored> {
    pub(super) view: &'v V,
    pub(super) first_sequence: Sequence,
    pub(super) sources: Keys,
    pub(super) scratch: Scratch<V>,
    /// Those of the rows that are stored, and of the scratch tables.
    pub(in crate::builds) readers: Readers,
}

/// What a page should be: its keys as they were folded, the rows of their further table, and those that cannot be folded.
struct Folded<'a, V: View> {
    keys: Vec<(&'a str, Refolded<V::State>)>,
    details: Vec<V::Detail<'a>>,
    unfoldable: BTreeMap<&'a str, Unfoldable>,
}

impl<'v, V: Stored> ByLedger<'v, V> {
    /// Of the ledger of one build and the rows of a build, mostly the same.
    pub(in crate::builds) async fn prepare(
        view: &'v V,
        client: &Connection,
        (ledger_of, rows_of): (BuildId, BuildId),
        first_sequence: Sequence,
    ) -> Result<Self, VerifyError> {
        let scripts = view.spec().tables;
        let keyed = scripts.rows.ok_or(VerifyError::Undeclared(view.spec().name))?;
        let sources = Keys::prepare(client, ledger_of, &keyed.of_key).await?;
        let scratch = Scratch::create(view, client, (&scripts, &keyed)).await?;
        // The ledger is never held against itself.
        let readers = readers(client, rows_of, &keyed, History::Off).await?;
        Ok(ByLedger { view, first_sequence, sources, scratch, readers })
    }

    /// What is found of these keys, inside a snapshot.
    pub(in crate::builds) async fn look(
        &self,
        client: &Connection,
        keys: &[String],
        ends: &Ends,
    ) -> Result<BTreeMap<String, Looked>, DbError> {
        let names: Vec<&str> = keys.iter().map(String::as_str).collect();
        let sizes = self.sources.sizes(client, &names).await?;
        let mut looked = BTreeMap::new();
        for part in in_parts(&names, &sizes) {
            looked.append(&mut self.look_at_once(client, part, ends).await?);
        }
        Ok(looked)
    }

    async fn look_at_once(
        &self,
        client: &Connection,
        keys: &[&str],
        ends: &Ends,
    ) -> Result<BTreeMap<String, Looked>, DbError> {
        let ledger = self.sources.ledger(client, keys).await?;
        let rows = ledger.rows()?;
        let folded = self.fold(&rows, ends, &BTreeMap::new());
        let mut seen = self.compare(client, &folded, keys).await?;
        // What a payload leaves open the stored rows may tell. They are asked only where it matters.
        let is_different = |(_, found): &&(Seen, Difference)| !found.columns.is_empty();
        let differing: Vec<String> = seen.iter().filter(is_different).map(|(seen, _)| seen.key.clone()).collect();
        let differing: Vec<&str> = differing.iter().map(String::as_str).collect();
        if !differing.is_empty() && self.readers.tables.len() > 1 {
            let stored = self.stored_details(client, &differing).await?;
            let rows: Vec<LedgerRow<'_>> = rows.iter().filter(|row| stored.contains_key(row.key)).cloned().collect();
            let again = self.fold(&rows, ends, &stored);
            let again = self.compare(client, &again, &differing).await?;
            seen.retain(|(seen, _)| !stored.contains_key(&seen.key));
            seen.extend(again);
        }
        let unfoldable = folded.unfoldable;
        Ok(seen.into_iter().map(|(seen, found)| (seen.key.clone(), looked(&seen, found, &unfoldable))).collect())
    }

    fn fold<'a>(
        &self,
        rows: &'a [LedgerRow<'a>],
        ends: &Ends,
        stored: &BTreeMap<String, StoredDetails>,
    ) -> Folded<'a, V> {
        let mut folded = Folded { keys: Vec::new(), details: Vec::new(), unfoldable: BTreeMap::new() };
        let nothing = StoredDetails::new();
        for of_key in rows.chunk_by(|one, next| one.key == next.key) {
            let key = of_key[0].key;
            let stored = stored.get(key).unwrap_or(&nothing);
            let until = ends.get(key).map_or(Until::End, |end| Until::Sequence(*end));
            let (mut refold, before) = (Refold::new(self.view, self.first_sequence), folded.details.len());
            let ended =
                of_key.iter().try_for_each(|row| refold.take(row, until, stored, &mut folded.details).map(drop));
            match (ended, refold.finish()) {
                (Ok(()), Some(key_now)) => folded.keys.push((key, key_now)),
                (Ok(()), None) => {}
                (Err(why), _) => {
                    folded.details.truncate(before);
                    folded.unfoldable.insert(key, why);
                }
            }
        }
        folded
    }

    /// Has the scratch tables hold what was folded, and compares these keys.
    async fn compare(
        &self,
        client: &Connection,
        folded: &Folded<'_, V>,
        keys: &[&str],
    ) -> Result<Vec<(Seen, Difference)>, DbError> {
        let changed = folded.keys.iter().map(|(key, folded)| ChangedKey {
            key,
            base_sequence: None,
            last_sequence: folded.last_sequence,
            last_event_id: &folded.last_event_id,
            state: &folded.state,
        });
        let set = WriteSet { changed: changed.collect(), details: &folded.details };
        self.scratch.write(client, &set, &[]).await?;
        self.readers.look(client, keys).await
    }

    async fn stored_details(
        &self,
        client: &Connection,
        keys: &[&str],
    ) -> Result<BTreeMap<String, StoredDetails>, DbError> {
        let mut stored: BTreeMap<String, StoredDetails> =
            keys.iter().map(|key| ((*key).to_owned(), StoredDetails::new())).collect();
        let prints = self.readers.old.row_prints(client, DETAILS, keys).await?;
        let places: Vec<_> = prints.keys().collect();
        for ((key, number), row) in self.readers.old.row_texts(client, DETAILS, &places).await? {
            stored.entry(key).or_default().insert(number, row);
        }
        Ok(stored)
    }
}

/// The keys in their order, as many together as are folded at once.
fn in_parts<'k>(keys: &'k [&'k str], sizes: &BTreeMap<String, KeySize>) -> Vec<&'k [&'k str]> {
    let (mut parts, mut start, mut sum) = (Vec::new(), 0, KeySize::default());
    for (place, key) in keys.iter().enumerate() {
        let size = sizes.get(*key).copied().unwrap_or_default();
        sum = KeySize { rows: sum.rows + size.rows, bytes: sum.bytes + size.bytes };
        if place > start && (sum.rows > EVENTS_AT_ONCE || sum.bytes > BYTES_AT_ONCE) {
            parts.push(&keys[start..place]);
            (start, sum) = (place, size);
        }
    }
    if start < keys.len() {
        parts.push(&keys[start..]);
    }
    parts
}

/// Readers of a build's stored rows, the ledger as far as `history` has it, and of the scratch tables.
pub(super) async fn readers(
    client: &Connection,
    rows_of: BuildId,
    keyed: &KeyedRows,
    history: History,
) -> Result<Readers, VerifyError> {
    client.batch_execute("begin").await?;
    let tables = tables(keyed, history);
    let prepared = async {
        let (search_path, schema) = (scratch::search_path_of(rows_of), names::schema(rows_of));
        let stored = BuildRows::prepare_in(client, (&search_path, &schema), &keyed.of_key, &tables).await?;
        let place = (scratch::SEARCH_PATH, scratch::SCHEMA);
        Ok::<_, BuildError>((stored, BuildRows::prepare_in(client, place, &keyed.of_key, &tables).await?))
    };
    let (old, new) = builds::end(client, prepared.await).await?;
    Ok(Readers { old, new, tables })
}

fn looked(seen: &Seen, found: Difference, unfoldable: &BTreeMap<&str, Unfoldable>) -> Looked {
    let (old, new) = seen.sequences();
    match unfoldable.get(seen.key.as_str()) {
        Some(why @ Unfoldable::NoPayload(_)) => return Looked::Untold(why.to_string()),
        Some(why) => return Looked::Different(damage(&seen.key, why)),
        None if old.is_none() && new.is_none() => return Looked::Nowhere,
        None => {}
    }
    match Difference::of_sequences(&seen.key, old, new) {
        Some(difference) => Looked::Different(difference),
        None if found.columns.is_empty() => Looked::Equal,
        None => Looked::Different(found),
    }
}

/// What is wrong with a ledger that cannot be folded.
fn damage(key: &str, why: &Unfoldable) -> Difference {
    let mut difference = Difference::of(key);
    match why {
        Unfoldable::Missing { from, to } => {
            for number in (from.0..=to.0).take(COLUMNS) {
                difference.values(&format!("events[{number}]"), Value::Null, "an event that was consumed".into());
            }
            difference.more += u64::try_from(to.0 - from.0 + 1).unwrap_or(0).saturating_sub(COLUMNS as u64);
        }
        Unfoldable::NoPayload(sequence) => {
            difference.values(&format!("events[{sequence}].payload"), Value::Null, "a payload".into());
        }
        Unfoldable::Refused(sequence, poison) => {
            let refused = format!("cannot be folded: {poison}");
            difference.values(&format!("events[{sequence}]"), refused.into(), "an event that was folded".into());
        }
    }
    difference
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_folded_together_up_to_so_many_rows_and_bytes_and_a_large_one_alone() {
        let size = |rows, bytes| KeySize { rows, bytes };
        let sizes = BTreeMap::from([
            ("a".to_owned(), size(EVENTS_AT_ONCE - 1, 10)),
            ("b".to_owned(), size(1, 10)),
            ("c".to_owned(), size(1, 10)),
            ("d".to_owned(), size(1, BYTES_AT_ONCE + 1)),
            ("e".to_owned(), size(2, BYTES_AT_ONCE)),
            // `f` has no ledger.
            ("g".to_owned(), size(1, 1)),
        ]);
        let parts = in_parts(&["a", "b", "c", "d", "e", "f", "g"], &sizes);
        let parts: Vec<String> = parts.iter().map(|part| part.concat()).collect();
        assert_eq!(parts, ["ab", "c", "d", "ef", "g"]);
        assert_eq!(in_parts(&[], &sizes), Vec::<&[&str]>::new());
    }
}
