//! The transaction of a decision: answers already given, the lock, what is true under it, and the rows.

use std::collections::HashMap;

use crate::domain::action::Action;
use crate::domain::units::{Millis, Sequence};
use crate::repair::model::Spelled;
use crate::repair::request::Why;
use crate::repair::rules::{Decided, Missing, Numbers};
use crate::store::standstill::Standstill;
use crate::store::types::Word;
use crate::store::{Connection, DbError};

/// An answer that was given to an earlier call.
#[derive(Debug)]
pub struct Answered {
    /// Fingerprint of that call.
    pub request: Vec<u8>,
    /// The answer.
    pub answer: Spelled,
}

/// One decision to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDecision {
    /// The key and its numbers; `None` only closes a letter.
    pub about: Option<(String, Numbers)>,
    /// The letter that it answers.
    pub letter: Option<i64>,
}

/// A hold, as far as decisions look at it.
#[derive(Debug, Clone, Copy)]
pub struct HeldFacts {
    /// The number it waits for.
    pub missing_from: Sequence,
    /// What is missing.
    pub missing: Missing,
}

/// Begins a transaction.
pub async fn begin(client: &Connection) -> Result<(), DbError> {
    client.batch_execute("begin").await
}

/// Makes it final.
pub async fn commit(client: &Connection) -> Result<(), DbError> {
    client.batch_execute("commit").await
}

/// The answer given to an earlier call with this key.
pub async fn answered(client: &Connection, key: &str) -> Result<Option<Answered>, DbError> {
    let row = client.query_opt(include_str!("../sql/read_call.sql"), &[&key]).await?;
    row.map(|row| {
        let answer = Spelled { code: row.try_get(1)?, body: row.try_get(2)? };
        Ok(Answered { request: row.try_get(0)?, answer })
    })
    .transpose()
}

/// Claims a key for this transaction; waits for another one that has claimed it. `false`: it has been answered.
pub async fn claim(client: &Connection, key: &str, request: &[u8]) -> Result<bool, DbError> {
    client.execute(include_str!("../sql/forget_calls.sql"), &[]).await?;
    Ok(client.execute(include_str!("../sql/claim_call.sql"), &[&key, &request]).await? == 1)
}

/// Stores the answer to a claimed call.
pub async fn answer(client: &Connection, key: &str, answer: &Spelled) -> Result<(), DbError> {
    client.execute(include_str!("../sql/answer_call.sql"), &[&key, &answer.code, &answer.body]).await?;
    Ok(())
}

/// Locks out the commits of a view's projectors until the end of the transaction, and has every batch folded so far
/// folded again. What is read after this is what the decision is made against.
pub async fn lock(client: &Connection, view: &str) -> Result<(), DbError> {
    Standstill::begin(client, view).await.map(drop)
}

/// The holds of those `keys` that are held.
pub async fn held(client: &Connection, view: &str, keys: &[&str]) -> Result<HashMap<String, HeldFacts>, DbError> {
    let rows = client.query(include_str!("../sql/held_of_keys.sql"), &[&view, &keys]).await?;
    rows.iter()
        .map(|row| {
            let (to, greatest_refused): (Option<i64>, Option<i64>) = (row.try_get(2)?, row.try_get(3)?);
            let missing = Missing { to: to.map(Sequence), greatest_refused: greatest_refused.map(Sequence) };
            Ok((row.try_get(0)?, HeldFacts { missing_from: Sequence(row.try_get(1)?), missing }))
        })
        .collect()
}

/// Earlier decisions about `keys`, by number.
pub async fn decided(client: &Connection, view: &str, keys: &[&str]) -> Result<HashMap<String, Vec<Decided>>, DbError> {
    let rows = client.query(include_str!("../sql/decided_of_keys.sql"), &[&view, &keys]).await?;
    let mut decided: HashMap<String, Vec<Decided>> = HashMap::new();
    for row in &rows {
        let Word(action) = row.try_get(2)?;
        decided.entry(row.try_get(0)?).or_default().push(Decided {
            id: row.try_get(1)?,
            action,
            numbers: Numbers { from: Sequence(row.try_get(3)?), to: Sequence(row.try_get(4)?) },
            taken: row.try_get(5)?,
        });
    }
    Ok(decided)
}

/// The lowest parked number of each range that holds one, by key and first number of the range.
pub async fn parked(
    client: &Connection,
    view: &str,
    ranges: &[(&str, Numbers)],
) -> Result<HashMap<(String, Sequence), Sequence>, DbError> {
    let keys: Vec<&str> = ranges.iter().map(|(key, _)| *key).collect();
    let first: Vec<i64> = ranges.iter().map(|(_, numbers)| numbers.from.0).collect();
    let last: Vec<i64> = ranges.iter().map(|(_, numbers)| numbers.to.0).collect();
    let rows = client.query(include_str!("../sql/parked_in_ranges.sql"), &[&view, &keys, &first, &last]).await?;
    rows.iter().map(|row| Ok(((row.try_get(0)?, Sequence(row.try_get(1)?)), Sequence(row.try_get(2)?)))).collect()
}

/// The decisions that answer these letters by position: letter, decision, action, whether it is taken.
pub async fn decided_letters(
    client: &Connection,
    letters: &[i64],
) -> Result<HashMap<i64, (i64, Action, bool)>, DbError> {
    let rows = client.query(include_str!("../sql/decided_of_letters.sql"), &[&letters]).await?;
    rows.iter()
        .map(|row| {
            let Word(action) = row.try_get(2)?;
            Ok((row.try_get(0)?, (row.try_get(1)?, action, row.try_get(3)?)))
        })
        .collect()
}

/// Writes decisions of one kind and gives their ids; `record` is the value and the encoded headers of a replacement.
pub async fn insert(
    client: &Connection,
    view: &str,
    action: Action,
    why: &Why,
    decisions: &[NewDecision],
    record: Option<(&[u8], &[u8])>,
) -> Result<Vec<i64>, DbError> {
    let about = || decisions.iter().map(|decision| decision.about.as_ref());
    let keys: Vec<Option<&str>> = about().map(|about| Some(about?.0.as_str())).collect();
    let first: Vec<Option<i64>> = about().map(|about| Some(about?.1.from.0)).collect();
    let last: Vec<Option<i64>> = about().map(|about| Some(about?.1.to.0)).collect();
    let letters: Vec<Option<i64>> = decisions.iter().map(|decision| decision.letter).collect();
    let (payload, headers) = record.unzip();
    let (action, Why { reason, actor, on_behalf_of }) = (action.as_str(), why);
    let rows = client
        .query(
            include_str!("../sql/insert_decisions.sql"),
            &[&view, &action, reason, actor, &keys, &first, &last, &letters, &payload, &headers, on_behalf_of],
        )
        .await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// A letter that comes from a DLQ topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportedLetter {
    /// Topic of the original record.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp in milliseconds.
    pub timestamp_ms: Option<Millis>,
    /// Why it was refused.
    pub reason: String,
    /// The sentence to it.
    pub error: String,
    /// Its key, if that is text.
    pub key: Option<String>,
    /// Its number, if that can be read.
    pub sequence: Option<Sequence>,
    /// Key bytes.
    pub record_key: Option<Vec<u8>>,
    /// Value bytes.
    pub payload: Option<Vec<u8>>,
    /// Encoded headers.
    pub headers: Vec<u8>,
}

/// Stores letters whose position the table does not know yet; gives the ids of the new ones.
pub async fn import(client: &Connection, view: &str, letters: &[ImportedLetter]) -> Result<Vec<i64>, DbError> {
    let topics: Vec<&str> = letters.iter().map(|letter| letter.topic.as_str()).collect();
    let partitions: Vec<i32> = letters.iter().map(|letter| letter.partition).collect();
    let offsets: Vec<i64> = letters.iter().map(|letter| letter.offset).collect();
    let timestamps: Vec<Option<i64>> =
        letters.iter().map(|letter| letter.timestamp_ms.map(|millis| millis.0)).collect();
    let reasons: Vec<&str> = letters.iter().map(|letter| letter.reason.as_str()).collect();
    let errors: Vec<&str> = letters.iter().map(|letter| letter.error.as_str()).collect();
    let keys: Vec<Option<&str>> = letters.iter().map(|letter| letter.key.as_deref()).collect();
    let sequences: Vec<Option<i64>> = letters.iter().map(|letter| Some(letter.sequence?.0)).collect();
    let record_keys: Vec<Option<&[u8]>> = letters.iter().map(|letter| letter.record_key.as_deref()).collect();
    let payloads: Vec<Option<&[u8]>> = letters.iter().map(|letter| letter.payload.as_deref()).collect();
    let headers: Vec<&[u8]> = letters.iter().map(|letter| letter.headers.as_slice()).collect();
    let rows = client
        .query(
            include_str!("../sql/import_letters.sql"),
            &[
                &view,
                &topics,
                &partitions,
                &offsets,
                &timestamps,
                &reasons,
                &errors,
                &keys,
                &sequences,
                &record_keys,
                &payloads,
                &headers,
            ],
        )
        .await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}
