//! Rows as values, and words as columns have them.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::Row;

use super::StoreError;
use crate::engines::RestorePoint;
use crate::lifecycle::record::{Record, Restore};

/// The word of a value, as its JSON has it.
pub(super) fn word(value: impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        other => format!("{other:?}"),
    }
}

/// What a word says.
pub(super) fn said<T: DeserializeOwned>(table: &'static str, word: &str) -> Result<T, StoreError> {
    let strange = |_| StoreError::Strange { table, value: word.to_owned() };
    serde_json::from_value(Value::String(word.to_owned())).map_err(strange)
}

/// What JSON says.
pub(super) fn read<T: DeserializeOwned>(table: &'static str, value: Value) -> Result<T, StoreError> {
    let strange = |_| StoreError::Strange { table, value: value.to_string() };
    serde_json::from_value(value.clone()).map_err(strange)
}

/// What is written as JSON.
pub(super) fn json(value: impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

const TABLE: &str = "stream_definitions";

/// An entry of `restore_others`: of the same text as `restore_path`, or of that revision, which is the text before.
#[derive(Serialize, Deserialize)]
pub(super) struct Place {
    #[serde(flatten)]
    point: RestorePoint,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revision: Option<i32>,
}

/// What is written beside the first point.
pub(super) fn further_places(restore: &Restore) -> Vec<Place> {
    let place = |revision| move |point: &RestorePoint| Place { point: point.clone(), revision };
    let own = restore.others.iter().map(place(None));
    let before = restore
        .before
        .iter()
        .flat_map(|before| std::iter::once(&before.point).chain(&before.others).map(place(Some(before.revision))));
    own.chain(before).collect()
}

fn with_places(mut restore: Restore, places: Vec<Place>) -> Restore {
    for Place { point, revision } in places {
        match (revision, &mut restore.before) {
            (None, _) => restore.others.push(point),
            (Some(revision), None) => restore.before = Some(Box::new(Restore::at(point, revision))),
            (Some(_), Some(before)) => before.others.push(point),
        }
    }
    restore
}

/// A row of `find.sql`.
pub(super) fn record(row: &Row) -> Result<Record, StoreError> {
    let optional = |at: usize| -> Result<Option<String>, tokio_postgres::Error> { row.try_get(at) };
    let point = match (optional(17)?, row.try_get::<_, Option<bool>>(18)?, row.try_get::<_, Option<i32>>(19)?) {
        (Some(path), Some(savepoint), Some(revision)) => {
            Some(with_places(Restore::at(RestorePoint { path, savepoint }, revision), read(TABLE, row.try_get(37)?)?))
        }
        _ => None,
    };
    let count =
        |at: usize| -> Result<u32, StoreError> { Ok(u32::try_from(row.try_get::<_, i32>(at)?).unwrap_or_default()) };
    Ok(Record {
        id: row.try_get(0)?,
        name: row.try_get(1)?,
        first_name: row.try_get(2)?,
        engine: said(TABLE, row.try_get(3)?)?,
        version: row.try_get(4)?,
        revision: row.try_get(5)?,
        sql_script: row.try_get(6)?,
        owner: row.try_get(7)?,
        intent: said(TABLE, row.try_get(8)?)?,
        position: said(TABLE, row.try_get(9)?)?,
        attempt: row.try_get(10)?,
        deployed_revision: row.try_get(11)?,
        previous_revision: row.try_get(12)?,
        failed_revision: row.try_get(13)?,
        fresh_revision: row.try_get(14)?,
        changes: optional(15)?.map(|changes| said(TABLE, &changes)).transpose()?,
        job_id: row.try_get(16)?,
        restore: point,
        savepoints: read(TABLE, row.try_get(20)?)?,
        call: row.try_get::<_, Option<Value>>(21)?.map(|call| read(TABLE, call)).transpose()?,
        tries: count(22)?,
        discard_state: row.try_get(23)?,
        delete_topic: row.try_get(24)?,
        restarts: count(25)?,
        failures: count(26)?,
        retry_at: row.try_get(27)?,
        deployed_at: row.try_get(28)?,
        observed: said(TABLE, row.try_get(29)?)?,
        engine_state: row.try_get(30)?,
        observed_at: row.try_get(31)?,
        drift: row.try_get(32)?,
        last_error: row.try_get(33)?,
        created_at: row.try_get(34)?,
        updated_at: row.try_get(35)?,
        change: row.try_get(36)?,
        cluster: row.try_get(38)?,
        called_at: row.try_get(39)?,
        heals: count(40)?,
        heals_since: row.try_get(41)?,
        running_as: row.try_get(42)?,
        keeps_at: row.try_get::<_, Option<Value>>(43)?.map(|point| read(TABLE, point)).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_before_an_update_comes_back_as_it_was_written() {
        let point = |path: &str| RestorePoint { path: path.to_owned(), savepoint: path.ends_with('s') };
        let before = Restore { others: vec![point("b"), point("bs")], ..Restore::at(point("before-s"), 1) };
        for before in [None, Some(Box::new(before))] {
            let restore = Restore { others: vec![point("o")], before, ..Restore::at(point("new"), 2) };
            let written = json(further_places(&restore));
            let first = Restore::at(restore.point.clone(), 2);
            assert_eq!(with_places(first, read(TABLE, written).unwrap()), restore);
        }
        // As it was written by the version before.
        let old = serde_json::json!([{ "path": "o", "savepoint": false }]);
        assert_eq!(with_places(Restore::at(point("new"), 2), read(TABLE, old).unwrap()).others, [point("o")]);
    }
}
