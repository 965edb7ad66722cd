//! The roles of a database that has some: who owns, who writes, who reads. Made and granted by two scripts; taken here, by every
//! session, for what it is there for.
//!
//! A session that may take no role, or whose database has none, goes on as who has logged in.

use crate::domain::build::BuildId;
use crate::store::migrate::LOCK;
use crate::store::{Connection, DbError, names};

const MAKE: &str = include_str!("../../migrations/roles/make.sql");
const GRANT: &str = include_str!("../../migrations/roles/grant.sql");
const SET_RETENTION: &str = "insert into public.audit_retention (days) values ($1)
    on conflict (only_one) do update set days = excluded.days";

/// What the roles are, in words.
pub const NAMES: &str = "roles streamview_owner, streamview_writer and streamview_reader";

/// What a session is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// To make, change and drop tables.
    Owner,
    /// To change rows.
    Writer,
    /// To read views.
    Reader,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Role::Owner => "streamview_owner",
            Role::Writer => "streamview_writer",
            Role::Reader => "streamview_reader",
        }
    }

    /// The statement by which a session takes the role, where there are roles and it may.
    pub(super) fn take(self) -> String {
        // Since 16 a member may be one without being allowed that.
        let to_act = "case when current_setting('server_version_num')::integer >= 160000 then 'SET' else 'MEMBER' end";
        format!(
            "select set_config('role', r.rolname, false) from pg_catalog.pg_roles r \
             where r.rolname = '{}' and {ARE_THERE} and pg_has_role(current_user, r.oid, {to_act})",
            self.name()
        )
    }
}

/// Whether the database has roles. By the catalog, which everybody may read.
const ARE_THERE: &str = "exists (select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
     where c.relname = 'audit_retention' and n.nspname = 'public')";

/// Whether the database has roles.
pub async fn are_there(client: &Connection) -> Result<bool, DbError> {
    client.query_one(&format!("select {ARE_THERE}"), &[]).await?.try_get(0)
}

/// Makes the roles, gives the owner what is ours, and grants; all or nothing. The session is the owner's afterwards.
pub async fn make(client: &Connection, retention_days: i32) -> Result<(), DbError> {
    // Whatever it has taken when it began: only who has logged in may make roles and give things away.
    client.batch_execute("reset role; begin").await?;
    let made = async {
        client.execute("select pg_advisory_xact_lock($1)", &[&LOCK]).await?;
        client.batch_execute(MAKE).await?;
        client.batch_execute("set role streamview_owner").await?;
        grant_inside(client, retention_days).await
    };
    end(client, made.await).await
}

/// Grants anew, where there are roles: migrations may have brought new tables. `client` is the owner's.
pub async fn renew(client: &Connection, retention_days: i32) -> Result<(), DbError> {
    if !are_there(client).await? {
        return Ok(());
    }
    client.batch_execute("begin").await?;
    let granted = grant_inside(client, retention_days).await;
    end(client, granted).await
}

async fn grant_inside(client: &Connection, retention_days: i32) -> Result<(), DbError> {
    // Two that grant the same at once would fail.
    client.execute("select pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    client.batch_execute(GRANT).await?;
    client.execute(SET_RETENTION, &[&retention_days]).await.map(drop)
}

async fn end(client: &Connection, outcome: Result<(), DbError>) -> Result<(), DbError> {
    match outcome {
        Ok(()) => client.batch_execute("commit").await,
        Err(error) => {
            client.batch_execute("rollback").await?;
            Err(error)
        }
    }
}

/// Has writer and reader use the schema of a build that was just made, and the tables that the session makes in it from now
/// on; inside a transaction. Nothing where there are no roles.
pub async fn share(client: &Connection, build: BuildId) -> Result<(), DbError> {
    if !are_there(client).await? {
        return Ok(());
    }
    let schema = names::schema(build);
    let defaults = format!("alter default privileges in schema {schema} grant");
    let shared = format!(
        "grant usage on schema {schema} to streamview_writer, streamview_reader; \
         {defaults} select, insert, update, delete on tables to streamview_writer; \
         {defaults} select on tables to streamview_reader"
    );
    client.batch_execute(&shared).await
}
