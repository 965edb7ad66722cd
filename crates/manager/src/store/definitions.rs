//! Definitions and their revisions.

use std::time::Duration;

use jiff::Timestamp;
use tokio_postgres::GenericClient;
use tokio_postgres::types::ToSql;

use super::revisions::MOST_REVISIONS;
use super::rows::{further_places, json, record, said, word};
use super::{Store, StoreError};
use crate::catalog::Column;
use crate::definition::Event;
use crate::engines::{Changes, EngineKind, ObservedState, RestorePoint, Select};
use crate::lifecycle::outcome::Happened;
use crate::lifecycle::record::Record;
use crate::names::Names;

/// A definition that is not there yet.
#[derive(Debug)]
pub(crate) struct NewRow<'a> {
    pub id: &'a str,
    pub name: &'a str,
    pub sql_script: &'a str,
    pub engine: EngineKind,
    pub actor: &'a str,
}

/// Which definitions; `None` for any.
#[derive(Debug, Default)]
pub(crate) struct Find {
    pub id: Option<String>,
    pub engine: Option<EngineKind>,
    pub owner: Option<String>,
    pub intent: Option<&'static str>,
    pub observed: Option<ObservedState>,
    pub name_contains: Option<String>,
    /// Without drafts, and without texts: for who brings them forward, and writes neither.
    pub for_a_round: bool,
    /// Older than the one made at that time with that id.
    pub before: Option<(Timestamp, String)>,
}

/// What a text is deployed as.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub select: Select,
    pub columns: Vec<Column>,
    pub changes: Changes,
}

/// What somebody writes, at once or not at all.
#[derive(Debug)]
pub(crate) struct Write<'a> {
    /// The definition, as it was read but for the changes.
    pub record: &'a Record,
    pub actor: &'a str,
    pub happened: Happened,
    /// Its text is new.
    pub is_new_revision: bool,
    /// What its text will be deployed as.
    pub planned: Option<&'a Planned>,
    /// How many may be deployed: of its owner, and of all. `None`: it takes no place that it does not have.
    pub places: Option<(usize, usize)>,
}

/// What came of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// It is written.
    Done,
    /// Somebody has written it since it was read.
    Stale,
    /// So many of its owner are deployed already.
    OwnerIsFull(usize),
    /// So many are deployed already.
    AllIsFull(usize),
}

impl Store {
    /// 128 bits as 32 hex digits.
    pub async fn new_id(&self) -> Result<String, StoreError> {
        let id = "select replace(gen_random_uuid()::text, '-', '')";
        Ok(self.pool.get().await?.query_one(id, &[]).await?.try_get(0)?)
    }

    /// Writes a new one down, if no more than that many are there already: of its owner, and of all.
    pub async fn insert(&self, new: &NewRow<'_>, (of_owner, of_all): (usize, usize)) -> Result<Written, StoreError> {
        let names = Names::of(new.id, new.name);
        let (sink, topic, engine) = (names.sink(), names.topic(), new.engine.name());
        let insert = include_str!("sql/insert.sql");
        let values: [&(dyn ToSql + Sync); 8] =
            [&new.id, &new.name, &new.sql_script, &sink, &topic, &engine, &new.actor, &new.actor];
        let mut client = self.pool.get().await?;
        let transaction = client.transaction().await?;
        // One after the other: else two would see the same last place.
        let lock = "select pg_advisory_xact_lock(hashtextextended('streamview stream definitions', 0))";
        transaction.execute(lock, &[]).await?;
        let row = transaction.query_one(include_str!("sql/count_definitions.sql"), &[&new.actor]).await?;
        let (owners, all) = (places(row.try_get(0)?), places(row.try_get(1)?));
        if all >= of_all {
            return Ok(Written::AllIsFull(all));
        }
        if owners >= of_owner {
            return Ok(Written::OwnerIsFull(owners));
        }
        transaction.execute(insert, &values).await?;
        transaction.commit().await?;
        Ok(Written::Done)
    }

    /// Definitions, the latest made first.
    pub async fn find(&self, find: &Find, limit: i64) -> Result<Vec<Record>, StoreError> {
        let engine = find.engine.map(EngineKind::name);
        let observed = find.observed.map(word);
        let (before_time, before_id) = find.before.clone().unzip();
        let values: [&(dyn ToSql + Sync); 10] = [
            &find.id,
            &engine,
            &find.owner,
            &find.intent,
            &observed,
            &find.name_contains,
            &before_time,
            &before_id,
            &limit,
            &find.for_a_round,
        ];
        let rows = self.pool.get().await?.query(include_str!("sql/find.sql"), &values).await?;
        rows.iter().map(record).collect()
    }

    pub async fn get(&self, id: &str) -> Result<Option<Record>, StoreError> {
        Ok(self.find(&Find { id: Some(id.to_owned()), ..Find::default() }, 1).await?.pop())
    }

    /// Writes a definition and what happened; `false` if somebody has written it since it was read. Afterwards the record may
    /// be written again.
    pub async fn save(&self, record: &mut Record, happened: Option<&Happened>) -> Result<bool, StoreError> {
        let client = self.pool.get().await?;
        let is_saved = save(&**client, record, None, happened).await?;
        if is_saved && happened.is_some() {
            client.execute(include_str!("sql/forget_events.sql"), &[&record.id]).await?;
        }
        record.change += i64::from(is_saved);
        Ok(is_saved)
    }

    /// Writes what somebody wants.
    pub async fn write(&self, write: &Write<'_>) -> Result<Written, StoreError> {
        let mut client = self.pool.get().await?;
        let transaction = client.transaction().await?;
        let Record { id, revision, sql_script, owner, .. } = write.record;
        if let Some((of_owner, of_all)) = write.places {
            // One after the other: else two would see the same last place.
            let lock = "select pg_advisory_xact_lock(hashtextextended('streamview stream places', 0))";
            transaction.execute(lock, &[]).await?;
            let count = include_str!("sql/count_deployed.sql");
            let row = transaction.query_one(count, &[owner, &Some(id)]).await?;
            let (owners, all) = (places(row.try_get(0)?), places(row.try_get(1)?));
            if all >= of_all {
                return Ok(Written::AllIsFull(all));
            }
            if owners >= of_owner {
                return Ok(Written::OwnerIsFull(owners));
            }
        }
        if write.is_new_revision {
            let insert = include_str!("sql/insert_revision.sql");
            transaction.execute(insert, &[id, revision, sql_script, &write.actor]).await?;
        }
        if let Some(planned) = write.planned {
            let (sources, columns) = (json(&planned.select.sources), json(&planned.columns));
            let changes = word(planned.changes);
            let plan = include_str!("sql/plan_revision.sql");
            transaction.execute(plan, &[id, revision, &planned.select.sql, &sources, &columns, &changes]).await?;
        }
        if !save(&*transaction, write.record, Some(write.actor), Some(&write.happened)).await? {
            return Ok(Written::Stale);
        }
        transaction.execute(include_str!("sql/forget_events.sql"), &[id]).await?;
        if write.is_new_revision {
            transaction.execute(include_str!("sql/forget_revisions.sql"), &[id, &MOST_REVISIONS]).await?;
        }
        transaction.commit().await?;
        Ok(Written::Done)
    }

    /// Writes what was seen; `false` if somebody has written the definition since it was read.
    pub async fn see(&self, record: &mut Record) -> Result<bool, StoreError> {
        let Record { id, change, observed, engine_state, drift, job_id, last_error, restarts, running_as, .. } =
            &*record;
        let observed = word(observed);
        let restarts = i32::try_from(*restarts).unwrap_or(i32::MAX);
        let values: [&(dyn ToSql + Sync); 9] =
            [id, change, &observed, engine_state, drift, job_id, last_error, &restarts, running_as];
        let is_seen = self.pool.get().await?.execute(include_str!("sql/see.sql"), &values).await? > 0;
        record.change += i64::from(is_seen);
        Ok(is_seen)
    }

    /// Writes where a running job keeps its state, the latest first; `false` as above.
    pub async fn note_restore(&self, record: &Record, points: &[RestorePoint]) -> Result<bool, StoreError> {
        let [point, others @ ..] = points else { return Ok(true) };
        let note = include_str!("sql/note_restore.sql");
        let client = self.pool.get().await?;
        let values: [&(dyn ToSql + Sync); 5] =
            [&record.id, &record.change, &point.path, &point.savepoint, &json(others)];
        Ok(client.execute(note, &values).await? > 0)
    }

    /// Deletes the row of a definition that is gone from its engine; `false` if somebody has written it since it was read.
    pub async fn forget(&self, record: &Record) -> Result<bool, StoreError> {
        let forget = include_str!("sql/forget.sql");
        let gone: i64 = self.pool.get().await?.query_one(forget, &[&record.id, &record.change]).await?.try_get(0)?;
        Ok(gone > 0)
    }

    /// What happened to a definition, the latest first.
    pub async fn events(&self, id: &str, before: Option<i64>, limit: i64) -> Result<Vec<Event>, StoreError> {
        let rows = self.pool.get().await?.query(include_str!("sql/events.sql"), &[&id, &before, &limit]).await?;
        rows.iter()
            .map(|row| {
                Ok(Event {
                    id: row.try_get(0)?,
                    at: row.try_get(1)?,
                    what: row.try_get(2)?,
                    actor: row.try_get(3)?,
                    detail: row.try_get(4)?,
                })
            })
            .collect()
    }

    /// How many are seen in each state.
    pub async fn by_state(&self) -> Result<Vec<(ObservedState, u64)>, StoreError> {
        let rows = self.pool.get().await?.query(include_str!("sql/count_by_state.sql"), &[]).await?;
        rows.iter()
            .map(|row| {
                let count: i64 = row.try_get(1)?;
                Ok((said("stream_definitions", row.try_get(0)?)?, count.unsigned_abs()))
            })
            .collect()
    }

    /// Deletes what happened longer ago than that, and the texts of definitions of which nothing else is left.
    pub async fn forget_old_events(&self, age: Duration) -> Result<(), StoreError> {
        let seconds = age.as_secs_f64();
        let client = self.pool.get().await?;
        // A part at a time: no statement holds many rows for long.
        while client.execute(include_str!("sql/forget_old_events.sql"), &[&seconds]).await? > 0 {}
        while client.execute(include_str!("sql/forget_lost_revisions.sql"), &[]).await? > 0 {}
        Ok(())
    }

    /// How many are deployed: of this owner, and of all.
    pub async fn deployed(&self, owner: &str) -> Result<(usize, usize), StoreError> {
        let count = include_str!("sql/count_deployed.sql");
        let row = self.pool.get().await?.query_one(count, &[&owner, &None::<String>]).await?;
        Ok((places(row.try_get(0)?), places(row.try_get(1)?)))
    }

    /// When people have asked for something last.
    pub async fn last_wish(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.pool.get().await?.query_one(include_str!("sql/last_wish.sql"), &[]).await?.try_get(0)?)
    }
}

fn places(count: i64) -> usize {
    usize::try_from(count).unwrap_or_default()
}

async fn save(
    client: &impl GenericClient,
    record: &Record,
    actor: Option<&str>,
    happened: Option<&Happened>,
) -> Result<bool, StoreError> {
    let point = record.restore.as_ref().map(|restore| &restore.point);
    let (path, savepoint) = (point.map(|point| &point.path), point.map(|point| point.savepoint));
    let restore_revision = record.restore.as_ref().map(|restore| restore.revision);
    let (intent, position, observed) = (record.intent.word(), word(record.position), word(record.observed));
    let (changes, call) = (record.changes.map(word), record.call.as_ref().map(json));
    let savepoints = json(&record.savepoints);
    let keeps_at = record.keeps_at.as_ref().map(json);
    let others = json(record.restore.as_ref().map(further_places).unwrap_or_default());
    let counts = [record.tries, record.restarts, record.failures, record.heals]
        .map(|count| i32::try_from(count).unwrap_or(i32::MAX));
    let (what, detail) =
        (happened.map(|happened| happened.what), happened.and_then(|happened| happened.detail.as_ref()));
    let values: [&(dyn ToSql + Sync); 42] = [
        &record.id,
        &record.change,
        &record.name,
        &record.version,
        &record.revision,
        &record.sql_script,
        &intent,
        &position,
        &record.attempt,
        &record.deployed_revision,
        &record.previous_revision,
        &record.failed_revision,
        &record.fresh_revision,
        &changes,
        &record.job_id,
        &path,
        &savepoint,
        &restore_revision,
        &savepoints,
        &call,
        &counts[0],
        &record.discard_state,
        &record.delete_topic,
        &counts[1],
        &counts[2],
        &record.retry_at,
        &record.deployed_at,
        &observed,
        &record.engine_state,
        &record.observed_at,
        &record.drift,
        &record.last_error,
        &actor,
        &what,
        &detail,
        &others,
        &record.cluster,
        &record.called_at,
        &counts[3],
        &record.heals_since,
        &record.running_as,
        &keeps_at,
    ];
    let row = client.query_one(include_str!("sql/save.sql"), &values).await?;
    Ok(row.try_get::<_, i64>(0)? > 0)
}
