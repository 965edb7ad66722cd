//! The audit log: who called what, as rows that are only ever added, and taken away when they are old.

use jiff::Timestamp;

use crate::store::{Connection, DbError, roles};

/// Status of a call whose caller has gone before it was answered, as nginx writes it down.
pub const CANCELLED: i32 = 499;

/// A call, or refusals that were alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// When; of several the first.
    pub at: Timestamp,
    /// By whom; `None` if nobody had logged in.
    pub principal: Option<String>,
    /// Method.
    pub method: String,
    /// Pattern of the route.
    pub route: String,
    /// Path as it was asked for.
    pub target: String,
    /// Status of the answer.
    pub status: i32,
    /// Code of the problem that it was.
    pub code: Option<String>,
    /// Trace id of the call; of several that of the first.
    pub trace_id: String,
    /// From where.
    pub address: String,
    /// How many.
    pub calls: i32,
}

impl AuditEntry {
    /// That of a call whose caller has gone before it was answered: what it began may have been done all the same.
    pub fn cancelled(self) -> AuditEntry {
        AuditEntry { status: CANCELLED, code: Some("cancelled".to_owned()), ..self }
    }
}

/// Whether a status says that somebody was not let in, by who they are or how often they came.
pub const fn is_refusal(status: i32) -> bool {
    matches!(status, 401 | 403 | 429)
}

/// Which entries.
#[derive(Debug, Default, Clone)]
pub struct AuditFilter {
    /// By this principal.
    pub principal: Option<String>,
    /// Of this route.
    pub route: Option<String>,
    /// With this outcome: `done`, `refused` or `failed`.
    pub outcome: Option<String>,
    /// Not before.
    pub from: Option<Timestamp>,
    /// Before.
    pub to: Option<Timestamp>,
}

/// Adds entries.
pub async fn insert(client: &Connection, entries: &[AuditEntry]) -> Result<(), DbError> {
    let column = |of: fn(&AuditEntry) -> Option<&str>| entries.iter().map(of).collect::<Vec<_>>();
    let at: Vec<Timestamp> = entries.iter().map(|entry| entry.at).collect();
    let statuses: Vec<i32> = entries.iter().map(|entry| entry.status).collect();
    let calls: Vec<i32> = entries.iter().map(|entry| entry.calls).collect();
    client
        .execute(
            include_str!("sql/insert_audit.sql"),
            &[
                &at,
                &column(|entry| entry.principal.as_deref()),
                &column(|entry| Some(&entry.method)),
                &column(|entry| Some(&entry.route)),
                &column(|entry| Some(&entry.target)),
                &statuses,
                &column(|entry| entry.code.as_deref()),
                &column(|entry| Some(&entry.trace_id)),
                &column(|entry| Some(&entry.address)),
                &calls,
            ],
        )
        .await
        .map(drop)
}

/// One page and one row more, the latest first, each with its number.
pub async fn list(
    client: &Connection,
    filter: &AuditFilter,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<(i64, AuditEntry)>, DbError> {
    let AuditFilter { principal, route, outcome, from, to } = filter;
    let rows = client
        .query(include_str!("sql/list_audit.sql"), &[principal, route, outcome, from, to, &before, &(limit + 1)])
        .await?;
    let entry = |row: &tokio_postgres::Row| {
        let entry = AuditEntry {
            at: row.try_get(1)?,
            principal: row.try_get(2)?,
            method: row.try_get(3)?,
            route: row.try_get(4)?,
            target: row.try_get(5)?,
            status: row.try_get(6)?,
            code: row.try_get(7)?,
            trace_id: row.try_get(8)?,
            address: row.try_get(9)?,
            calls: row.try_get(10)?,
        };
        Ok((row.try_get(0)?, entry))
    };
    rows.iter().map(entry).collect()
}

/// Takes away what is older than so many days, some of it at a time; gives how much that was. Where the database has roles, it
/// is the owner's function that does it, and nothing that the owner wants to be kept.
pub async fn forget(client: &Connection, days: i32, most: i64) -> Result<u64, DbError> {
    if roles::are_there(client).await? {
        let gone: i64 = client.query_one("select public.forget_audit($1, $2)", &[&days, &most]).await?.try_get(0)?;
        return Ok(u64::try_from(gone).unwrap_or(0));
    }
    client.execute(include_str!("sql/forget_audit.sql"), &[&days, &most]).await
}
