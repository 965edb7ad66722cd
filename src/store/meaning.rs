//! What the rows of a build mean, as its row in `view_builds` says. By which rules a build goes on is judged in
//! [`crate::domain::meaning`].

use serde_json::Value;
use tokio_postgres::Row;

use crate::domain::build::{Build, BuildId};
use crate::domain::meaning::{
    Meaning, Openness, Settlement, Standing, StoredMeaning, StoredRules, ViewRules, settle as judge,
};
use crate::store::build::lock_consumed;
use crate::store::{Connection, DbError};

/// What the build was made by; `None`: there is no such build.
pub async fn meaning_of(client: &Connection, build: BuildId) -> Result<Option<StoredMeaning>, DbError> {
    let row = client.query_opt(include_str!("sql/read_meaning.sql"), &[&build.view, &build.build.0]).await?;
    row.map(|row| meaning(&row)).transpose()
}

/// A build of a view, and by what it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeantBuild {
    /// Its number.
    pub build: Build,
    /// Whether readers read it.
    pub is_active: bool,
    /// Whether it is being filled in bulk.
    pub is_loading: bool,
    /// By what it is made.
    pub meaning: StoredMeaning,
}

/// Every build of a view, by number.
pub async fn of_view(client: &Connection, view: &str) -> Result<Vec<MeantBuild>, DbError> {
    let rows = client.query(include_str!("sql/meanings_of_view.sql"), &[&view]).await?;
    rows.iter()
        .map(|row| {
            let (is_active, is_loading) = (row.try_get("active")?, row.try_get("loading")?);
            Ok(MeantBuild { build: Build(row.try_get("build")?), is_active, is_loading, meaning: meaning(row)? })
        })
        .collect()
}

/// Who wants to know by which rules a build goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asking {
    /// Who is about to project into it.
    Projector,
    /// Who holds the lock of its bulk load, and throws away what an earlier one has left.
    Load,
}

/// By what a build goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// What its rows mean.
    pub meaning: Meaning,
    /// What was configured is stored with it since now.
    pub taken: bool,
    /// Why this binary does not project into it, if so.
    pub stands: Option<Standing>,
}

/// Finds by which rules a build goes on, and stores what is configured where nobody has stored any, or where no row has a
/// meaning yet. Whoever settles takes turns with others who do, and whoever has gone by other rules is fenced. `None`: there
/// is no such build.
pub async fn settle(
    client: &Connection,
    build: BuildId,
    configured: &Meaning,
    asking: Asking,
) -> Result<Option<Settled>, DbError> {
    // Nearly always there is nothing to store.
    let row = client.query_opt(include_str!("sql/read_meaning.sql"), &[&build.view, &build.build.0]).await?;
    let Some(row) = row else { return Ok(None) };
    let consumed: i64 = row.try_get(4)?;
    let settled = settled(&row, build, configured, openness(&row, consumed > 0, asking)?)?;
    if !settled.taken {
        return Ok(Some(settled));
    }
    client.batch_execute("begin").await?;
    match settle_locked(client, build, configured, asking).await {
        Ok(settled) => client.batch_execute("commit").await.map(|()| settled),
        Err(error) => {
            client.batch_execute("rollback").await?;
            Err(error)
        }
    }
}

async fn settle_locked(
    client: &Connection,
    build: BuildId,
    configured: &Meaning,
    asking: Asking,
) -> Result<Option<Settled>, DbError> {
    let row = client.query_opt(include_str!("sql/lock_meaning.sql"), &[&build.view, &build.build.0]).await?;
    let Some(row) = row else { return Ok(None) };
    let openness = openness(&row, lock_consumed(client, build).await?, asking)?;
    let settled = settled(&row, build, configured, openness)?;
    if settled.taken {
        let rules = as_json(&settled.meaning.rules);
        client.execute(include_str!("sql/store_rules.sql"), &[&build.view, &build.build.0, &rules]).await?;
        client.execute(include_str!("sql/fence_all.sql"), &[&build.view, &build.build.0]).await?;
    }
    Ok(Some(settled))
}

/// Has the rows of a build mean something else from now on. There are none, and whoever owns a partition of it has gone by
/// something else: it is fenced.
pub async fn restamp(client: &Connection, build: BuildId, meaning: &Meaning) -> Result<(), DbError> {
    let (version, rules) = (meaning.projection_version, as_json(&meaning.rules));
    client.execute(include_str!("sql/restamp.sql"), &[&build.view, &build.build.0, &version, &rules]).await?;
    client.execute(include_str!("sql/fence_all.sql"), &[&build.view, &build.build.0]).await.map(drop)
}

/// Rules as they are stored.
pub fn as_json(rules: &ViewRules) -> Value {
    serde_json::to_value(rules).expect("rules are plain data")
}

fn settled(row: &Row, build: BuildId, configured: &Meaning, openness: Openness) -> Result<Settled, DbError> {
    let stored = meaning(row)?;
    let (meaning, taken, stands) = match judge(build, &stored, configured, openness) {
        Settlement::Keep(rules) => (Meaning { projection_version: stored.projection_version, rules }, false, None),
        Settlement::Take => (configured.clone(), true, None),
        Settlement::Stand(standing) => (stored.or(configured), false, Some(standing)),
    };
    Ok(Settled { meaning, taken, stands })
}

/// `has_consumed`: something was applied to it.
fn openness(row: &Row, has_consumed: bool, asking: Asking) -> Result<Openness, DbError> {
    let (active, loading): (bool, bool) = (row.try_get(2)?, row.try_get(3)?);
    let has_rows = match asking {
        // Who loads it is not to be disturbed.
        Asking::Projector => has_consumed || loading,
        // What a load has left that was cut short is thrown away.
        Asking::Load => has_consumed && !loading,
    };
    Ok(if active && !has_rows { Openness::Open } else { Openness::Closed })
}

pub(super) fn meaning(row: &Row) -> Result<StoredMeaning, DbError> {
    let rules = match row.try_get::<_, Option<Value>>("rules")? {
        None => StoredRules::None,
        Some(json) => match serde_json::from_value(json) {
            Ok(rules) => StoredRules::Known(rules),
            Err(error) => StoredRules::Unknown(error.to_string()),
        },
    };
    Ok(StoredMeaning { projection_version: row.try_get("projection_version")?, rules })
}
