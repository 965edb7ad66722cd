//! What is left of builds that nobody has a use for: found here, shown by the API, removed by `builds/leftovers.rs`.
//!
//! A steward drops builds that are over by itself; they are here as long as it cannot, or none runs. What stands under a number
//! that no build has (tables restored from a backup, rows whose build was deleted by hand) no steward looks for.

use std::collections::HashMap;
use std::fmt;

use jiff::Timestamp;

use crate::domain::build::{Build, BuildId};
use crate::domain::name::is_view_name;
use crate::domain::operation::OperationState;
use crate::store::types::BoxedError;
use crate::store::{Connection, DbError, names, operations};

/// Something that is left of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Of which one.
    pub build: BuildId,
    /// Why nobody has a use for it.
    pub reason: LeftReason,
    /// Its schema, if that is there.
    pub schema: Option<String>,
    /// What its tables take, indexes included.
    pub bytes: i64,
    /// Rows of the control tables that name it.
    pub rows: i64,
}

/// Why nobody has a use for a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftReason {
    /// The operation that made it is over, and readers do not read it.
    OperationOver(i64, OperationState),
    /// Readers left it, and it was kept for as long as was asked.
    KeptLongEnough(Timestamp),
    /// The control tables know no build of that number.
    Unknown,
}

impl LeftReason {
    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            LeftReason::OperationOver(..) => "operation_over",
            LeftReason::KeptLongEnough(_) => "kept_long_enough",
            LeftReason::Unknown => "unknown_build",
        }
    }
}

impl fmt::Display for LeftReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LeftReason::OperationOver(id, state) => {
                write!(formatter, "operation {id}, which made it, is over ({})", state.as_str())
            }
            LeftReason::KeptLongEnough(until) => write!(formatter, "it was kept until {until}"),
            LeftReason::Unknown => formatter.write_str("the control tables know no build of that number"),
        }
    }
}

/// Views that have a build.
pub async fn views(client: &Connection) -> Result<Vec<String>, DbError> {
    let rows = client.query("select distinct view from view_builds order by view", &[]).await?;
    let views = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?;
    // No other one has ever had a schema.
    Ok(views.into_iter().filter(|view| is_view_name(view)).collect())
}

/// What is left of builds of a view, by number. Within a transaction that has locked the view's builds it stays so.
pub async fn find(client: &Connection, view: &str) -> Result<Vec<Leftover>, BoxedError> {
    let mut found = Vec::new();
    for seen in operations::look(client, view).await?.iter().filter(|seen| seen.is_left_over) {
        found.extend(of_known(client, BuildId::new(view, seen.build.0)).await?);
    }
    for row in client.query(include_str!("sql/unknown_builds.sql"), &[&view]).await? {
        let build = BuildId::new(view, row.try_get(0)?);
        let schema = row.try_get::<_, bool>(1)?.then(|| names::schema(build));
        found.push(Leftover { build, reason: LeftReason::Unknown, schema, bytes: 0, rows: row.try_get(2)? });
    }
    let schemas: Vec<&str> = found.iter().filter_map(|left| left.schema.as_deref()).collect();
    let sizes = client.query(include_str!("sql/sizes_of_schemas.sql"), &[&schemas]).await?;
    let sizes = sizes.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
    let sizes = sizes.collect::<Result<HashMap<String, i64>, DbError>>()?;
    for left in &mut found {
        left.bytes = left.schema.as_ref().and_then(|schema| sizes.get(schema)).copied().unwrap_or(0);
    }
    found.sort_by_key(|left| left.build.build);
    Ok(found)
}

/// A build that the control tables know; nothing if it has gone by now.
async fn of_known(client: &Connection, build: BuildId) -> Result<Option<Leftover>, BoxedError> {
    let Build(number) = build.build;
    let Some(row) = client.query_opt(include_str!("sql/why_left_over.sql"), &[&build.view, &number]).await? else {
        return Ok(None);
    };
    let reason = match (row.try_get::<_, Option<Timestamp>>(0)?, row.try_get::<_, Option<i64>>(1)?) {
        (Some(until), _) => LeftReason::KeptLongEnough(until),
        (None, Some(id)) => LeftReason::OperationOver(id, row.try_get::<_, &str>(2)?.parse()?),
        (None, None) => return Ok(None),
    };
    Ok(Some(Leftover { build, reason, schema: Some(names::schema(build)), bytes: 0, rows: row.try_get(3)? }))
}
