//! API keys as rows: made, listed, revoked, and read by who lets their holders in.

use jiff::Timestamp;
use tokio_postgres::Row;

use crate::store::{Connection, DbError};

/// An API key as stored. The key itself is not.
#[derive(Debug, Clone)]
pub struct StoredKey {
    /// Its number.
    pub id: i64,
    /// Its name, which is its holder's wherever it is used.
    pub name: String,
    /// What its holder may.
    pub role: String,
    /// How it begins.
    pub prefix: String,
    /// Who made it.
    pub created_by: String,
    /// For whom, if who has logged in said so.
    pub on_behalf_of: Option<String>,
    /// When.
    pub created_at: Timestamp,
    /// Until when it may be used; for good if never.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// Who has revoked it.
    pub revoked_by: Option<String>,
    /// When it was used last; may be a minute behind.
    pub last_used_at: Option<Timestamp>,
}

/// A key to be made.
#[derive(Debug)]
pub struct NewKey<'a> {
    /// Its name.
    pub name: &'a str,
    /// What its holder may.
    pub role: &'a str,
    /// How it begins.
    pub prefix: &'a str,
    /// What is kept of it.
    pub hash: &'a [u8],
    /// Who makes it.
    pub created_by: &'a str,
    /// For whom, if who has logged in says so.
    pub on_behalf_of: Option<&'a str>,
    /// Until when it may be used.
    pub expires_at: Option<Timestamp>,
}

/// A key that may be used now.
#[derive(Debug)]
pub struct ValidKey {
    /// Its number.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// What its holder may.
    pub role: String,
    /// What is kept of it.
    pub hash: Vec<u8>,
    /// Until when, in seconds since 1970.
    pub expires_at: Option<Timestamp>,
}

/// Makes a key.
pub async fn insert(client: &Connection, key: &NewKey<'_>) -> Result<StoredKey, DbError> {
    let NewKey { name, role, prefix, hash, created_by, on_behalf_of, expires_at } = key;
    let insert = include_str!("sql/insert_api_key.sql");
    let row = client.query_one(insert, &[name, role, prefix, hash, created_by, expires_at, on_behalf_of]).await?;
    read(&row)
}

/// All keys, the latest first; those that are over too.
pub async fn list(client: &Connection) -> Result<Vec<StoredKey>, DbError> {
    client.query(include_str!("sql/list_api_keys.sql"), &[]).await?.iter().map(read).collect()
}

/// Revokes a key; `false` if there is none of that number. One that is revoked stays so.
pub async fn revoke(client: &Connection, id: i64, by: &str) -> Result<bool, DbError> {
    Ok(client.execute(include_str!("sql/revoke_api_key.sql"), &[&id, &by]).await? > 0)
}

/// The keys that may be used.
pub async fn valid(client: &Connection) -> Result<Vec<ValidKey>, DbError> {
    let rows = client.query(include_str!("sql/valid_api_keys.sql"), &[]).await?;
    let key = |row: &Row| {
        Ok(ValidKey {
            id: row.try_get(0)?,
            name: row.try_get(1)?,
            role: row.try_get(2)?,
            hash: row.try_get(3)?,
            expires_at: row.try_get(4)?,
        })
    };
    rows.iter().map(key).collect()
}

/// Notes that these keys were used just now.
pub async fn used(client: &Connection, ids: &[i64]) -> Result<(), DbError> {
    client.execute(include_str!("sql/use_api_keys.sql"), &[&ids]).await.map(drop)
}

fn read(row: &Row) -> Result<StoredKey, DbError> {
    Ok(StoredKey {
        id: row.try_get(0)?,
        name: row.try_get(1)?,
        role: row.try_get(2)?,
        prefix: row.try_get(3)?,
        created_by: row.try_get(4)?,
        created_at: row.try_get(5)?,
        expires_at: row.try_get(6)?,
        revoked_at: row.try_get(7)?,
        last_used_at: row.try_get(8)?,
        on_behalf_of: row.try_get(9)?,
        revoked_by: row.try_get(10)?,
    })
}
