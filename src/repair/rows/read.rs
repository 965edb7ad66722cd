//! What operators are shown of held keys, dead letters and decisions. Reads only; what can be done about it is decided
//! by the desk.

use jiff::Timestamp;
use tokio_postgres::Row;

use crate::domain::action::{Action, DecisionStatus};
use crate::domain::units::{Millis, Sequence};
use crate::repair::model::{HeldKey, Letter, LettersOfTopic, OperatorDecision};
use crate::repair::request::{DecisionFilter, HeldFilter, LetterFilter};
use crate::store::types::Word;
use crate::store::{Connection, DbError};

/// A held key with its refused numbers.
#[derive(Debug)]
pub struct HeldRead {
    /// The key.
    pub held: HeldKey,
    /// Numbers ahead that were refused.
    pub refused: Vec<i64>,
}

/// A parked event as stored; its value and headers may be cut.
#[derive(Debug)]
pub struct ParkedRead {
    /// Its number.
    pub sequence: i64,
    /// Its id.
    pub event_id: String,
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Record timestamp, milliseconds.
    pub timestamp_ms: Option<Millis>,
    /// When it was parked.
    pub parked_at: Timestamp,
    /// Bytes of its value.
    pub payload_bytes: i64,
    /// The value, as far as it was asked for.
    pub payload: Vec<u8>,
    /// Encoded headers, likewise.
    pub headers: Vec<u8>,
    /// Whether both are there to their end.
    pub is_whole: bool,
}

/// A letter with its record; the value may be cut.
#[derive(Debug)]
pub struct LetterRead {
    /// The letter.
    pub letter: Letter,
    /// Key bytes.
    pub record_key: Option<Vec<u8>>,
    /// The value, as far as it was asked for.
    pub payload: Option<Vec<u8>>,
    /// Encoded headers.
    pub headers: Vec<u8>,
    /// When it went to the DLQ topic.
    pub published_at: Option<Timestamp>,
}

/// A letter's record, whole.
#[derive(Debug)]
pub struct LetterRecord {
    /// The letter.
    pub id: i64,
    /// Key bytes.
    pub key: Option<Vec<u8>>,
    /// Value bytes.
    pub payload: Option<Vec<u8>>,
    /// Encoded headers.
    pub headers: Vec<u8>,
}

/// What a bulk call needs of a letter.
#[derive(Debug, Clone)]
pub struct LetterRef {
    /// The letter.
    pub id: i64,
    /// Its key and number, if both could be read.
    pub place: Option<(String, Sequence)>,
    /// Its key, if it could be read.
    pub key: Option<String>,
    /// Bytes of its record: key, value and headers.
    pub bytes: i64,
}

fn or_null(values: &[String]) -> Option<&[String]> {
    (!values.is_empty()).then_some(values)
}

/// Up to `limit` held keys after a position.
pub async fn held(
    client: &Connection,
    view: &str,
    filter: &HeldFilter,
    after: Option<(Timestamp, &str)>,
    limit: i64,
) -> Result<Vec<HeldKey>, DbError> {
    let reasons = or_null(&filter.reasons);
    let (since, key) = after.unzip();
    let rows = client
        .query(
            include_str!("../sql/list_held.sql"),
            &[
                &view,
                &reasons,
                &filter.key,
                &filter.older_than,
                &filter.newer_than,
                &since,
                &key,
                &limit,
                &filter.proven,
                &filter.nothing_refused,
            ],
        )
        .await?;
    rows.iter().map(|row| held_of(view, row)).collect()
}

/// One held key.
pub async fn held_key(client: &Connection, view: &str, key: &str) -> Result<Option<HeldRead>, DbError> {
    let row = client.query_opt(include_str!("../sql/read_held.sql"), &[&view, &key]).await?;
    row.map(|row| Ok(HeldRead { held: held_of(view, &row)?, refused: row.try_get("refused")? })).transpose()
}

fn held_of(view: &str, row: &Row) -> Result<HeldKey, DbError> {
    let Word(reason) = row.try_get("reason")?;
    Ok(HeldKey {
        view: view.to_owned(),
        key: row.try_get("key")?,
        reason,
        missing_from: row.try_get("missing_from")?,
        missing_to: row.try_get("missing_to")?,
        refused_count: row.try_get("refused_count")?,
        parked_count: row.try_get("parked_count")?,
        parked_bytes: row.try_get("parked_bytes")?,
        since: row.try_get("since")?,
        proven_at: row.try_get("proven_at")?,
        decided: row.try_get("decided")?,
    })
}

/// The lowest `limit` events parked behind a key, each cut after `bytes`.
pub async fn parked(
    client: &Connection,
    view: &str,
    key: &str,
    limit: i64,
    bytes: i32,
) -> Result<Vec<ParkedRead>, DbError> {
    let rows = client.query(include_str!("../sql/read_parked.sql"), &[&view, &key, &limit, &bytes]).await?;
    rows.iter()
        .map(|row| {
            Ok(ParkedRead {
                sequence: row.try_get("sequence")?,
                event_id: row.try_get("event_id")?,
                topic: row.try_get("topic")?,
                partition: row.try_get("partition")?,
                offset: row.try_get("offset")?,
                timestamp_ms: row.try_get::<_, Option<i64>>("record_timestamp")?.map(Millis),
                parked_at: row.try_get("parked_at")?,
                payload_bytes: i64::from(row.try_get::<_, i32>("payload_bytes")?),
                payload: row.try_get("payload")?,
                headers: row.try_get("headers")?,
                is_whole: row.try_get("is_whole")?,
            })
        })
        .collect()
}

/// Up to `limit` letters with a smaller id than `before`.
pub async fn letters(
    client: &Connection,
    view: &str,
    filter: &LetterFilter,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Letter>, DbError> {
    let (statuses, reasons) = (or_null(&filter.statuses), or_null(&filter.reasons));
    let LetterFilter { key, topic, older_than, newer_than, ids, .. } = filter;
    let rows = client
        .query(
            include_str!("../sql/list_letters.sql"),
            &[&view, &statuses, &reasons, key, older_than, newer_than, ids, &before, &limit, topic],
        )
        .await?;
    rows.iter().map(letter_of).collect()
}

/// Most topics that are told.
const MOST_TOPICS: i64 = 200;

/// Where letters in these states came from, the topic of most first: of the newest `most`, and whether there are more.
pub async fn topics_of_letters(
    client: &Connection,
    view: &str,
    statuses: &[String],
    most: i64,
) -> Result<(Vec<LettersOfTopic>, bool), DbError> {
    let statement = include_str!("../sql/topics_of_letters.sql");
    let rows = client.query(statement, &[&view, &most, &or_null(statuses), &MOST_TOPICS]).await?;
    let looked = rows.first().map(|row| row.try_get::<_, i64>("looked")).transpose()?.unwrap_or(0);
    let topics = rows
        .iter()
        .map(|row| {
            Ok(LettersOfTopic {
                topic: row.try_get("topic")?,
                letters: row.try_get("letters")?,
                newest_at: row.try_get("newest_at")?,
            })
        })
        .collect::<Result<_, DbError>>()?;
    Ok((topics, looked > most))
}

/// The letters of `key` from the number `from` on.
pub async fn letters_of_key(
    client: &Connection,
    view: &str,
    key: &str,
    from: i64,
    limit: i64,
) -> Result<Vec<Letter>, DbError> {
    let rows = client.query(include_str!("../sql/letters_of_key.sql"), &[&view, &key, &from, &limit]).await?;
    rows.iter().map(letter_of).collect()
}

/// One letter, its value cut after `bytes`.
pub async fn letter(client: &Connection, view: &str, id: i64, bytes: i32) -> Result<Option<LetterRead>, DbError> {
    let row = client.query_opt(include_str!("../sql/read_letter.sql"), &[&view, &id, &bytes]).await?;
    row.map(|row| {
        Ok(LetterRead {
            letter: letter_of(&row)?,
            record_key: row.try_get("record_key")?,
            payload: row.try_get("payload")?,
            headers: row.try_get("headers")?,
            published_at: row.try_get("published_at")?,
        })
    })
    .transpose()
}

fn letter_of(row: &Row) -> Result<Letter, DbError> {
    let timestamp_ms: Option<i64> = row.try_get("record_timestamp")?;
    let Word(status) = row.try_get("status")?;
    Ok(Letter {
        id: row.try_get("id")?,
        view: row.try_get("view")?,
        status,
        reason: row.try_get("reason")?,
        error: row.try_get("error")?,
        key: row.try_get("key")?,
        sequence: row.try_get("sequence")?,
        topic: row.try_get("topic")?,
        partition: row.try_get("partition")?,
        offset: row.try_get("offset")?,
        record_time: timestamp_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()),
        created_at: row.try_get("created_at")?,
        payload_bytes: row.try_get::<_, Option<i32>>("payload_bytes")?.map(i64::from),
        decision_id: row.try_get("decision_id")?,
        refused_because: row.try_get("refused_because")?,
    })
}

/// The records of some letters, whole.
pub async fn bodies(client: &Connection, view: &str, ids: &[i64]) -> Result<Vec<LetterRecord>, DbError> {
    let rows = client.query(include_str!("../sql/letter_bodies.sql"), &[&view, &ids]).await?;
    rows.iter()
        .map(|row| {
            Ok(LetterRecord {
                id: row.try_get(0)?,
                key: row.try_get(1)?,
                payload: row.try_get(2)?,
                headers: row.try_get(3)?,
            })
        })
        .collect()
}

/// Up to `limit` letters that match, the oldest first.
pub async fn matching_letters(
    client: &Connection,
    view: &str,
    filter: &LetterFilter,
    limit: i64,
) -> Result<Vec<LetterRef>, DbError> {
    let (statuses, reasons) = (or_null(&filter.statuses), or_null(&filter.reasons));
    let LetterFilter { key, topic, older_than, newer_than, ids, .. } = filter;
    let rows = client
        .query(
            include_str!("../sql/matching_letters.sql"),
            &[&view, &statuses, &reasons, key, older_than, newer_than, ids, &limit, topic],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let (key, sequence): (Option<String>, Option<i64>) = (row.try_get("key")?, row.try_get("sequence")?);
            Ok(LetterRef {
                id: row.try_get("id")?,
                place: key.clone().zip(sequence.map(Sequence)),
                key,
                bytes: row.try_get("bytes")?,
            })
        })
        .collect()
}

/// Up to `limit` decisions with a smaller id than `before`.
pub async fn decisions(
    client: &Connection,
    view: &str,
    filter: &DecisionFilter,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<OperatorDecision>, DbError> {
    let DecisionFilter { key, actor, action } = filter;
    let action = action.map(Action::as_str);
    let rows =
        client.query(include_str!("../sql/list_decisions.sql"), &[&view, key, actor, &action, &before, &limit]).await?;
    rows.iter().map(decision_of).collect()
}

/// The latest `limit` decisions about a key.
pub async fn decisions_of_key(
    client: &Connection,
    view: &str,
    key: &str,
    limit: i64,
) -> Result<Vec<OperatorDecision>, DbError> {
    let rows = client.query(include_str!("../sql/decisions_of_key.sql"), &[&view, &key, &limit]).await?;
    rows.iter().map(decision_of).collect()
}

/// Decisions by id.
pub async fn decisions_by_id(client: &Connection, ids: &[i64]) -> Result<Vec<OperatorDecision>, DbError> {
    let rows = client.query(include_str!("../sql/read_decisions.sql"), &[&ids]).await?;
    rows.iter().map(decision_of).collect()
}

fn decision_of(row: &Row) -> Result<OperatorDecision, DbError> {
    let Word(action) = row.try_get("action")?;
    let (key, refused): (Option<String>, Option<String>) = (row.try_get("key")?, row.try_get("refused")?);
    let taken_at: Option<Timestamp> = row.try_get("taken_at")?;
    Ok(OperatorDecision {
        id: row.try_get("id")?,
        view: row.try_get("view")?,
        action,
        status: DecisionStatus::of(refused.is_some(), key.is_some(), taken_at.is_some()),
        key,
        sequence: row.try_get("sequence")?,
        sequence_to: row.try_get("sequence_to")?,
        topic: row.try_get("topic")?,
        partition: row.try_get("partition")?,
        offset: row.try_get("offset")?,
        payload_bytes: row.try_get::<_, Option<i32>>("payload_bytes")?.map(i64::from),
        reason: row.try_get("reason")?,
        actor: row.try_get("actor")?,
        on_behalf_of: row.try_get("on_behalf_of")?,
        decided_at: row.try_get("decided_at")?,
        taken_at,
        refused,
    })
}
