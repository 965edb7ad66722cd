//! Held keys, parked events and dead letters: what a batch reads of them and writes to them.

use std::collections::HashMap;

use tokio_postgres::{Row, Statement};

use crate::domain::action::Action;
use crate::domain::ledger::{Effect, Origin};
use crate::domain::units::{Micros, Millis, NextOffset, Offset, Partition, Sequence};
use crate::engine::decisions::{Settled, StoredDecision, Substitute, Verdict};
use crate::engine::plan::{DeadLetter, Held, NewParked, ParkedSummary, StoredParked};
use crate::store::progress::BuildSource;
use crate::store::types::{Word, array_text};
use crate::store::{Connection, DbError};

/// Statements that every view's batches use, prepared on one connection.
pub struct ControlStatements {
    load_held: Statement,
    load_parked: Statement,
    load_presence: Statement,
    summarize_parked: Statement,
    insert_parked: Statement,
    delete_parked: Statement,
    put_held: Statement,
    delete_held: Statement,
    insert_dead_letters: Statement,
    load_decisions: Statement,
    settle_decisions: Statement,
}

/// What is parked, by key.
pub type ParkedByKey = HashMap<String, Vec<StoredParked>>;

/// What was decided, by key.
pub type DecisionsByKey = HashMap<String, Vec<StoredDecision>>;

/// A held row as a batch leaves it.
#[derive(Debug)]
pub struct HeldRow<'a> {
    /// Key.
    pub key: &'a str,
    /// Its state.
    pub held: &'a Held,
    /// Partition of its last record.
    pub partition: Partition,
}

impl ControlStatements {
    /// Prepares all statements.
    pub async fn prepare(client: &Connection) -> Result<Self, DbError> {
        Ok(ControlStatements {
            load_held: client.prepare(include_str!("sql/load_held.sql")).await?,
            load_parked: client.prepare(include_str!("sql/load_parked.sql")).await?,
            load_presence: client.prepare(include_str!("sql/load_parked_presence.sql")).await?,
            summarize_parked: client.prepare(include_str!("sql/summarize_parked.sql")).await?,
            insert_parked: client.prepare(include_str!("sql/insert_parked.sql")).await?,
            delete_parked: client.prepare(include_str!("sql/delete_parked.sql")).await?,
            put_held: client.prepare(include_str!("sql/put_held.sql")).await?,
            delete_held: client.prepare(include_str!("sql/delete_held.sql")).await?,
            insert_dead_letters: client.prepare(include_str!("sql/insert_dead_letters.sql")).await?,
            load_decisions: client.prepare(include_str!("sql/load_decisions.sql")).await?,
            settle_decisions: client.prepare(include_str!("sql/settle_decisions.sql")).await?,
        })
    }

    /// Loads the holds of those `keys` that are held.
    pub async fn load_held(
        &self,
        client: &Connection,
        source: &BuildSource,
        keys: &[&str],
    ) -> Result<HashMap<String, Held>, DbError> {
        let rows = client.query(&self.load_held, &[&source.view, &source.build.0, &keys]).await?;
        rows.iter()
            .map(|row| {
                let refused: Vec<i64> = row.try_get(4)?;
                let held = Held {
                    missing_from: Sequence(row.try_get(5)?),
                    parked_count: row.try_get(1)?,
                    parked_bytes: row.try_get(2)?,
                    first_parked: row.try_get::<_, Option<i64>>(3)?.map(Sequence),
                    refused: refused.into_iter().map(Sequence).collect(),
                };
                Ok((row.try_get(0)?, held))
            })
            .collect()
    }

    /// Loads the lowest `limit` parked events of each key, whole.
    pub async fn load_parked(
        &self,
        client: &Connection,
        source: &BuildSource,
        keys: &[&str],
        limit: i64,
    ) -> Result<ParkedByKey, DbError> {
        let rows = client.query(&self.load_parked, &[&source.view, &source.build.0, &keys, &limit]).await?;
        by_key(&rows, |row| Ok(Some((row.try_get(7)?, row.try_get(8)?))))
    }

    /// Tells which of these (key, sequence) pairs are parked.
    pub async fn load_presence(
        &self,
        client: &Connection,
        source: &BuildSource,
        keys: &[&str],
        sequences: &[Sequence],
    ) -> Result<ParkedByKey, DbError> {
        let sequences: Vec<i64> = sequences.iter().map(|sequence| sequence.0).collect();
        let rows = client.query(&self.load_presence, &[&source.view, &source.build.0, &keys, &sequences]).await?;
        by_key(&rows, |_| Ok(None))
    }

    /// What is parked behind each key that has anything parked.
    pub async fn summarize_parked(
        &self,
        client: &Connection,
        source: &BuildSource,
        keys: &[&str],
    ) -> Result<HashMap<String, ParkedSummary>, DbError> {
        let rows = client.query(&self.summarize_parked, &[&source.view, &source.build.0, &keys]).await?;
        let summary = |row: &Row| Ok(ParkedSummary { lowest: Sequence(row.try_get(1)?), count: row.try_get(2)? });
        rows.iter().map(|row| Ok((row.try_get(0)?, summary(row)?))).collect()
    }

    /// Loads what was decided about these keys, behind and ahead: for who folds them from their beginning.
    pub async fn load_decisions(
        &self,
        client: &Connection,
        source: &BuildSource,
        keys: &[&str],
    ) -> Result<DecisionsByKey, DbError> {
        self.decisions(client, source, (keys, true)).await
    }

    /// Loads what was decided about these keys and not folded with yet: for who goes on from where the build is.
    pub async fn load_untaken(
        &self,
        client: &Connection,
        source: &BuildSource,
        keys: &[&str],
    ) -> Result<DecisionsByKey, DbError> {
        self.decisions(client, source, (keys, false)).await
    }

    async fn decisions(
        &self,
        client: &Connection,
        source: &BuildSource,
        (keys, with_taken): (&[&str], bool),
    ) -> Result<DecisionsByKey, DbError> {
        let rows = client.query(&self.load_decisions, &[&source.view, &source.build.0, &keys, &with_taken]).await?;
        let mut decisions = DecisionsByKey::new();
        for row in &rows {
            decisions.entry(row.try_get("key")?).or_default().push(decision(row)?);
        }
        Ok(decisions)
    }

    /// Notes what became of decisions in this build.
    pub async fn settle_decisions(
        &self,
        client: &Connection,
        source: &BuildSource,
        rows: &[Settled],
    ) -> Result<u64, DbError> {
        let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
        let refused: Vec<Option<&str>> = rows.iter().map(|row| row.refused.as_deref()).collect();
        client.execute(&self.settle_decisions, &[&source.view, &source.build.0, &ids, &refused]).await
    }

    /// Stores newly parked events.
    pub async fn insert_parked(
        &self,
        client: &Connection,
        source: &BuildSource,
        rows: &[NewParked<'_>],
    ) -> Result<u64, DbError> {
        let keys: Vec<&str> = rows.iter().map(|row| row.key).collect();
        let sequences: Vec<i64> = rows.iter().map(|row| row.sequence.0).collect();
        let event_ids: Vec<&str> = rows.iter().map(|row| &*row.event_id).collect();
        let partitions: Vec<i32> = rows.iter().map(|row| row.record.partition.0).collect();
        let offsets: Vec<i64> = rows.iter().map(|row| row.record.offset.0).collect();
        let timestamps: Vec<Option<i64>> =
            rows.iter().map(|row| row.record.timestamp_ms.map(|millis| millis.0)).collect();
        let payloads: Vec<&[u8]> = rows.iter().map(|row| row.record.payload.unwrap_or_default()).collect();
        let headers: Vec<&[u8]> = rows.iter().map(|row| row.record.headers.encoded()).collect();
        client
            .execute(
                &self.insert_parked,
                &[
                    &source.view,
                    &source.build.0,
                    &source.topic,
                    &keys,
                    &sequences,
                    &event_ids,
                    &partitions,
                    &offsets,
                    &timestamps,
                    &payloads,
                    &headers,
                ],
            )
            .await
    }

    /// Removes drained events.
    pub async fn delete_parked(
        &self,
        client: &Connection,
        source: &BuildSource,
        rows: &[(&str, Sequence)],
    ) -> Result<u64, DbError> {
        let keys: Vec<&str> = rows.iter().map(|row| row.0).collect();
        let sequences: Vec<i64> = rows.iter().map(|row| row.1.0).collect();
        client.execute(&self.delete_parked, &[&source.view, &source.build.0, &keys, &sequences]).await
    }

    /// Stores holds. Runs after the dead letters of the same batch: the reason is read from them.
    pub async fn put_held(
        &self,
        client: &Connection,
        source: &BuildSource,
        rows: &[HeldRow<'_>],
    ) -> Result<u64, DbError> {
        let keys: Vec<&str> = rows.iter().map(|row| row.key).collect();
        let missing_from: Vec<i64> = rows.iter().map(|row| row.held.missing_from.0).collect();
        let missing_to: Vec<Option<i64>> =
            rows.iter().map(|row| row.held.first_parked.map(|first| first.previous().0)).collect();
        let counts: Vec<i32> = rows.iter().map(|row| row.held.parked_count).collect();
        let bytes: Vec<i64> = rows.iter().map(|row| row.held.parked_bytes).collect();
        let refused: Vec<String> = rows.iter().map(|row| array_text(&row.held.refused)).collect();
        let partitions: Vec<i32> = rows.iter().map(|row| row.partition.0).collect();
        client
            .execute(
                &self.put_held,
                &[
                    &source.view,
                    &source.build.0,
                    &source.topic,
                    &keys,
                    &missing_from,
                    &missing_to,
                    &counts,
                    &bytes,
                    &refused,
                    &partitions,
                ],
            )
            .await
    }

    /// Removes the holds of those `keys` behind which nothing is parked: another lane may have parked something while this
    /// one drained what it knew of. Runs after the drained ones are removed.
    pub async fn delete_held(&self, client: &Connection, source: &BuildSource, keys: &[&str]) -> Result<u64, DbError> {
        client.execute(&self.delete_held, &[&source.view, &source.build.0, &keys]).await
    }

    /// Stores dead letters.
    pub async fn insert_dead_letters(
        &self,
        client: &Connection,
        source: &BuildSource,
        rows: &[DeadLetter<'_>],
    ) -> Result<u64, DbError> {
        let partitions: Vec<i32> = rows.iter().map(|row| row.record.partition.0).collect();
        let offsets: Vec<i64> = rows.iter().map(|row| row.record.offset.0).collect();
        let timestamps: Vec<Option<i64>> =
            rows.iter().map(|row| row.record.timestamp_ms.map(|millis| millis.0)).collect();
        let reasons: Vec<&str> = rows.iter().map(|row| row.poison.reason.as_str()).collect();
        let errors: Vec<&str> = rows.iter().map(|row| row.poison.detail.as_str()).collect();
        let keys: Vec<Option<&str>> = rows.iter().map(|row| row.key).collect();
        let sequences: Vec<Option<i64>> = rows.iter().map(|row| row.sequence.map(|sequence| sequence.0)).collect();
        let event_ids: Vec<Option<&str>> = rows.iter().map(|row| row.event_id.as_deref()).collect();
        let record_keys: Vec<Option<&[u8]>> = rows.iter().map(|row| row.record.key).collect();
        let payloads: Vec<Option<&[u8]>> = rows.iter().map(|row| row.record.payload).collect();
        let headers: Vec<&[u8]> = rows.iter().map(|row| row.record.headers.encoded()).collect();
        client
            .execute(
                &self.insert_dead_letters,
                &[
                    &source.view,
                    &source.build.0,
                    &source.topic,
                    &partitions,
                    &offsets,
                    &timestamps,
                    &reasons,
                    &errors,
                    &keys,
                    &sequences,
                    &event_ids,
                    &record_keys,
                    &payloads,
                    &headers,
                ],
            )
            .await
    }
}

fn by_key(
    rows: &[Row],
    body: impl Fn(&Row) -> Result<Option<(Vec<u8>, Vec<u8>)>, DbError>,
) -> Result<ParkedByKey, DbError> {
    let mut parked = ParkedByKey::new();
    for row in rows {
        let stored = StoredParked {
            sequence: Sequence(row.try_get(1)?),
            event_id: row.try_get(2)?,
            origin: Origin { partition: Partition(row.try_get(3)?), offset: Offset(row.try_get(4)?) },
            timestamp_ms: row.try_get::<_, Option<i64>>(5)?.map(Millis),
            bytes: row.try_get(6)?,
            body: body(row)?,
        };
        parked.entry(row.try_get(0)?).or_default().push(stored);
    }
    Ok(parked)
}

fn decision(row: &Row) -> Result<StoredDecision, DbError> {
    let Word(action) = row.try_get("action")?;
    let verdict = match action {
        Action::Skip => Verdict::Skip,
        Action::Replace => Verdict::Take(Box::new(substitute(row, Effect::Replaced)?)),
        Action::Redrive => Verdict::Take(Box::new(substitute(row, Effect::Applied)?)),
    };
    let decided_at: jiff::Timestamp = row.try_get("decided_at")?;
    Ok(StoredDecision {
        id: row.try_get("id")?,
        sequence: Sequence(row.try_get("sequence")?),
        sequence_to: Sequence(row.try_get("sequence_to")?),
        verdict,
        reason: row.try_get("reason")?,
        decided_at: Micros(decided_at.as_microsecond()),
        is_awaited: row.try_get("is_awaited")?,
    })
}

fn substitute(row: &Row, effect: Effect) -> Result<Substitute, DbError> {
    let partition = row.try_get::<_, Option<i32>>("partition")?.map(Partition);
    let offset = row.try_get::<_, Option<i64>>("offset")?.map(Offset);
    let read_at = partition.zip(offset).map(|(partition, offset)| Origin { partition, offset });
    let headers: Option<Vec<u8>> = row.try_get("headers")?;
    Ok(Substitute {
        origin: read_at.unwrap_or(Origin::NOWHERE),
        timestamp_ms: row.try_get::<_, Option<i64>>("record_timestamp")?.map(Millis),
        payload: row.try_get("payload")?,
        headers: headers.unwrap_or_default(),
        effect,
    })
}

/// Up to `limit` keys after `after` that are held or have something parked behind them, in key order, with their partition.
pub async fn held_page(
    client: &Connection,
    source: &BuildSource,
    after: &str,
    limit: i64,
) -> Result<Vec<(String, Partition)>, DbError> {
    let rows =
        client.query(include_str!("sql/held_page.sql"), &[&source.view, &source.build.0, &after, &limit]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, Partition(row.try_get(1)?)))).collect()
}

/// Marks gaps as proven whose ends, as noted before, have all been consumed. Gives the keys proven now with the number
/// that each waits for.
pub async fn prove_gaps(client: &Connection, source: &BuildSource) -> Result<Vec<(String, Sequence)>, DbError> {
    let statement = include_str!("sql/prove_gaps.sql");
    let rows = client.query(statement, &[&source.view, &source.build.0, &source.topic]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, Sequence(row.try_get(1)?)))).collect()
}

/// Up to `limit` gaps of which no ends are noted: keys, and the number that each waits for.
pub async fn fresh_gaps(
    client: &Connection,
    source: &BuildSource,
    limit: i64,
) -> Result<Vec<(String, Sequence)>, DbError> {
    let rows = client.query(include_str!("sql/fresh_gaps.sql"), &[&source.view, &source.build.0, &limit]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, Sequence(row.try_get(1)?)))).collect()
}

/// Notes the `ends` of all partitions, by their index, beside these gaps, if they still wait for those numbers.
pub async fn watch_gaps(
    client: &Connection,
    source: &BuildSource,
    gaps: &[(String, Sequence)],
    ends: &[NextOffset],
) -> Result<u64, DbError> {
    let (keys, missing): (Vec<&str>, Vec<i64>) = gaps.iter().map(|(key, missing)| (key.as_str(), missing.0)).unzip();
    let ends: Vec<i64> = ends.iter().map(|end| end.0).collect();
    let statement = include_str!("sql/watch_gaps.sql");
    client.execute(statement, &[&source.view, &source.build.0, &ends, &keys, &missing]).await
}

/// Whether anything was ever decided about an event of the view.
pub async fn any_decisions(client: &Connection, view: &str) -> Result<bool, DbError> {
    client.query_one(include_str!("sql/any_decisions.sql"), &[&view]).await?.try_get(0)
}

/// Up to `limit` decisions after `after` that wait to be folded with, of keys in `partitions`: id, key, partition.
pub async fn pending_decisions(
    client: &Connection,
    source: &BuildSource,
    partitions: &[Partition],
    after: i64,
    limit: i64,
) -> Result<Vec<(i64, String, Partition)>, DbError> {
    let partitions: Vec<i32> = partitions.iter().map(|partition| partition.0).collect();
    let statement = include_str!("sql/pending_decisions.sql");
    let rows =
        client.query(statement, &[&source.view, &source.build.0, &source.topic, &partitions, &after, &limit]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, Partition(row.try_get(2)?)))).collect()
}
