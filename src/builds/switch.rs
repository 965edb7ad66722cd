//! Switches readers from one build to another, both of which are fed: in one short transaction, and without any reader
//! seeing an order go back.
//!
//! The old build stands still from when its progress rows are locked, and the new one goes on until it has come as far; then
//! it stands still, too, and the public names show it. What followers of changes need to go on without loss or repetition
//! is noted with it (`build_switches`).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{BuildError, end, lock};
use crate::crash;
use crate::domain::build::BuildId;
use crate::domain::units::{NextOffset, Partition};
use crate::engine::view::{BuildScripts, KeyTable, KeyedRows};
use crate::store::sqlstate::is_lost_lock;
use crate::store::{Connection, dead_letters, names};

/// How long the old build stands still at most before it is tried again later: less than its batches wait for a lock.
const STANDSTILL: Duration = Duration::from_millis(1500);
/// How often it is looked whether the new build has come as far.
const LOOK: Duration = Duration::from_millis(2);
/// How long readers of the public names may keep us waiting: they wait behind us meanwhile.
const LOCK_TIMEOUT: &str = "set local lock_timeout = '250ms'; set local statement_timeout = '5s'";

/// How far a build is in one partition, and the number of its last commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stand {
    /// First offset not applied yet.
    pub next_offset: NextOffset,
    /// The number of the last commit.
    pub commits: i64,
}

/// How far a build is, by partition.
pub type Stands = BTreeMap<Partition, Stand>;

/// How a switch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Switched {
    /// Readers read the new build. How long the old one, and then both, stood still for it.
    Done(Duration),
    /// The new build was not as far as the old one in time: nothing has changed.
    Behind(Lack),
}

/// What a build lacks that another one has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// Records that it has yet to apply.
    pub records: i64,
    /// Decisions that it has yet to take, by their ids; some of them, if they are many.
    pub decisions: Vec<i64>,
}

/// What is switched.
#[derive(Debug, Clone, Copy)]
pub struct Switch<'a> {
    /// What readers read.
    pub from: BuildId,
    /// What they will read.
    pub to: BuildId,
    /// How long the old build is kept, in seconds.
    pub keep_seconds: f64,
    /// The operation that this belongs to.
    pub operation: i64,
    /// The tables of the view.
    pub scripts: &'a BuildScripts,
}

/// How far a build is.
pub async fn stands(client: &Connection, build: BuildId) -> Result<Stands, BuildError> {
    let rows = client.query(include_str!("sql/positions.sql"), &[&build.view, &build.build.0]).await?;
    rows.iter()
        .map(|row| {
            let stand = Stand { next_offset: NextOffset(row.try_get(1)?), commits: row.try_get(2)? };
            Ok((Partition(row.try_get(0)?), stand))
        })
        .collect()
}

/// How many records `build` is behind `other`.
pub fn behind(build: &Stands, other: &Stands) -> i64 {
    let missing = other.iter().map(|(partition, other)| {
        build.get(partition).map_or(other.next_offset.0, |own| (other.next_offset.0 - own.next_offset.0).max(0))
    });
    missing.sum()
}

/// Switches readers, or changes nothing. An error of Postgres is worth another attempt where a lock was not had in time.
pub async fn switch(client: &Connection, switch: Switch<'_>) -> Result<Switched, BuildError> {
    let before = stands(client, switch.to).await?;
    client.batch_execute("begin").await?;
    client.batch_execute(LOCK_TIMEOUT).await?;
    let began = Instant::now();
    match carry_out(client, switch, &before).await {
        Ok(None) => {
            crash::point("switch.before_commit");
            end(client, Ok(())).await?;
            crash::point("switch.committed");
            Ok(Switched::Done(began.elapsed()))
        }
        Ok(Some(lack)) => {
            client.batch_execute("rollback").await?;
            Ok(Switched::Behind(lack))
        }
        Err(error) => end(client, Err(error)).await,
    }
}

/// What the new build lacks, if that was in the way; `None`: all of it was done.
async fn carry_out(client: &Connection, switch: Switch<'_>, before: &Stands) -> Result<Option<Lack>, BuildError> {
    let Switch { from, to, keep_seconds, operation, scripts } = switch;
    match (lock(client, to).await?, lock(client, from).await?) {
        (None, _) => return Err(BuildError::Unknown(to)),
        (Some(standing), _) if standing.loading => return Err(BuildError::Loading(to)),
        (_, Some(standing)) if standing.active => {}
        _ => return Err(BuildError::NotActive(from)),
    }
    // What a relay has under way is no letter of the new build's yet; and no batch has to wait for it.
    dead_letters::hold_relay(client, to.view).await?;
    let left = match stand_still(client, (from, to), scripts).await? {
        Ok(left) => left,
        Err(lack) => return Ok(Some(lack)),
    };
    client.execute(include_str!("sql/lock_progress_of.sql"), &[&to.view, &to.build.0]).await?;
    crash::point("switch.locked");
    for statement in [include_str!("sql/adopt_published.sql"), include_str!("sql/revoke_refused.sql")] {
        client.execute(statement, &[&to.view, &to.build.0]).await?;
    }
    client.execute(include_str!("sql/keep.sql"), &[&from.view, &from.build.0, &keep_seconds]).await?;
    client.execute(include_str!("sql/activate.sql"), &[&to.view, &to.build.0]).await?;
    // What the new build made of a decision that the old one has yet to take is told from the new one.
    let has_all = lacking_decisions(client, (from, to), scripts).await?.is_empty();
    let shared = if has_all { within(before, &left) } else { Stands::new() };
    let (known, ours) = (commits(&left), commits(&shared));
    let insert = include_str!("sql/insert_switch.sql");
    client.execute(insert, &[&from.view, &from.build.0, &to.build.0, &known, &ours, &operation]).await?;
    client.batch_execute(&format!("set local search_path = {}", names::search_path(to))).await?;
    client.batch_execute(scripts.publish).await?;
    Ok(None)
}

/// Has `from` stand still until the end of the transaction, and waits until `to` is as far. How far that is, or what `to` lacks if it
/// took too long.
async fn stand_still(
    client: &Connection,
    (from, to): (BuildId, BuildId),
    scripts: &BuildScripts,
) -> Result<Result<Stands, Lack>, BuildError> {
    client.execute(include_str!("sql/lock_progress_of.sql"), &[&from.view, &from.build.0]).await?;
    let left = stands(client, from).await?;
    let begun = Instant::now();
    loop {
        let records = behind(&stands(client, to).await?, &left);
        let decisions = lacking_decisions(client, (to, from), scripts).await?;
        if records == 0 && decisions.is_empty() {
            return Ok(Ok(left));
        }
        if begun.elapsed() >= STANDSTILL {
            return Ok(Err(Lack { records, decisions }));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Has `from` stand still, `to` being at least as far, until [`let_go`]; `false` if that could not be had now, and it goes on.
pub async fn hold(
    client: &Connection,
    (from, to): (BuildId, BuildId),
    scripts: &BuildScripts,
) -> Result<bool, BuildError> {
    client.batch_execute("begin").await?;
    client.batch_execute(LOCK_TIMEOUT).await?;
    match stand_still(client, (from, to), scripts).await {
        Ok(Ok(_)) => return Ok(true),
        Ok(Err(_)) => {}
        Err(BuildError::Database(error)) if is_lost_lock(&error) => {}
        Err(error) => return end(client, Err(error)).await,
    }
    let_go(client).await?;
    Ok(false)
}

/// It goes on.
pub async fn let_go(client: &Connection) -> Result<(), BuildError> {
    Ok(client.batch_execute("rollback").await?)
}

/// Some of the decisions that `build` has yet to take, although their turn has come, and that `other` has taken: orders would go back,
/// at the same offsets.
async fn lacking_decisions(
    client: &Connection,
    (build, other): (BuildId, BuildId),
    scripts: &BuildScripts,
) -> Result<Vec<i64>, BuildError> {
    let row = match scripts.rows {
        Some(KeyedRows { of_key: KeyTable { name, key, sequence }, .. }) => {
            format!("(select k.{sequence} from {}.{name} k where k.{key} = d.key)", names::schema(build))
        }
        // Nothing tells how far a key is.
        None => "d.sequence - 1".to_owned(),
    };
    let statement = include_str!("sql/lacking_decisions.sql").replace("null::bigint", &row);
    let rows = client.query(&statement, &[&build.view, &build.build.0, &other.build.0]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// How far the new build was a moment ago, where all of that is within what the old one has applied; nothing where it was
/// ahead, which says no more than is known.
fn within(before: &Stands, left: &Stands) -> Stands {
    match behind(left, before) {
        0 => before.clone(),
        _ => Stands::new(),
    }
}

fn commits(stands: &Stands) -> Value {
    let by_partition = stands.iter().map(|(partition, stand)| (partition.to_string(), json!(stand.commits)));
    Value::Object(by_partition.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offsets: &[i64]) -> Stands {
        let stands = offsets.iter().zip(0..).map(|(offset, partition)| {
            (Partition(partition), Stand { next_offset: NextOffset(*offset), commits: *offset / 10 })
        });
        stands.collect()
    }

    #[test]
    fn a_build_is_behind_by_what_it_has_not_applied_and_never_by_what_it_has_more() {
        assert_eq!(behind(&at(&[10, 20]), &at(&[10, 20])), 0);
        assert_eq!(behind(&at(&[50, 15]), &at(&[10, 20])), 5);
        assert_eq!(behind(&at(&[10]), &at(&[10, 20])), 20, "a partition that it has not begun");
        assert_eq!(behind(&at(&[10, 20]), &at(&[])), 0);
    }

    #[test]
    fn only_what_the_old_build_has_surely_applied_counts_as_known() {
        assert_eq!(commits(&within(&at(&[100, 200]), &at(&[100, 210]))), json!({ "0": 10, "1": 20 }));
        assert_eq!(commits(&within(&at(&[110, 200]), &at(&[100, 210]))), json!({}));
    }
}
