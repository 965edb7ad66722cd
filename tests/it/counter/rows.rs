//! The counter's rows.

use streamview::projector::event_ids::EventIds;
use streamview::store::{Connection, DbError};
use streamview::views::{Loaded, WriteSet, Written};
use tokio_postgres::Statement;

use super::Counter;

pub struct Statements {
    load: Statement,
    insert: Statement,
    update: Statement,
}

pub async fn prepare(client: &Connection) -> Result<Statements, DbError> {
    Ok(Statements {
        load: client
            .prepare(
                "select key, last_sequence, last_event_id, count, \
                 array(select event_id from ledger l where l.key = c.key) from counts c where key = any ($1::text[])",
            )
            .await?,
        insert: client
            .prepare(
                "insert into counts select * from unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[]) \
                 on conflict do nothing",
            )
            .await?,
        update: client
            .prepare(
                "update counts c set last_sequence = u.sequence, last_event_id = u.event_id, count = u.count \
                 from unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[]) \
                 as u (key, sequence, event_id, count, base) where c.key = u.key and c.last_sequence = u.base",
            )
            .await?,
    })
}

pub async fn load(statements: &Statements, client: &Connection, keys: &[&str]) -> Result<Vec<Loaded<i64>>, DbError> {
    let rows = client.query(&statements.load, &[&keys]).await?;
    rows.iter()
        .map(|row| {
            Ok(Loaded {
                key: row.try_get(0)?,
                last_sequence: row.try_get(1)?,
                last_event_id: row.try_get(2)?,
                state: row.try_get(3)?,
                event_ids: EventIds::of(&row.try_get::<_, Vec<&str>>(4)?),
            })
        })
        .collect()
}

pub async fn write(
    statements: &Statements,
    client: &Connection,
    set: &WriteSet<'_, '_, Counter>,
) -> Result<Written, DbError> {
    let mut written = 0;
    for known in [false, true] {
        let rows: Vec<_> = set.changed.iter().filter(|row| row.base_sequence.is_some() == known).collect();
        let keys: Vec<&str> = rows.iter().map(|row| row.key).collect();
        let sequences: Vec<i64> = rows.iter().map(|row| row.last_sequence).collect();
        let event_ids: Vec<&str> = rows.iter().map(|row| row.last_event_id).collect();
        let counts: Vec<i64> = rows.iter().map(|row| *row.state).collect();
        let bases: Vec<i64> = rows.iter().filter_map(|row| row.base_sequence).collect();
        written += if known {
            client.execute(&statements.update, &[&keys, &sequences, &event_ids, &counts, &bases]).await?
        } else {
            client.execute(&statements.insert, &[&keys, &sequences, &event_ids, &counts]).await?
        };
    }
    Ok(if written == set.changed.len() as u64 { Written::All } else { Written::Stale })
}
