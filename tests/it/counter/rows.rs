//! The counter's rows.

use streamview::domain::units::Sequence;
use streamview::engine::event_ids::EventIds;
use streamview::engine::view::{StoredKey, WriteSet};
use streamview::store::fence::Writing;
use streamview::store::rows::{Rows, Written};
use streamview::store::{Connection, DbError};
use tokio_postgres::Statement;

use super::Counter;

pub struct CounterRows {
    load: Statement,
    insert: Statement,
    update: Statement,
}

impl Rows<Counter> for CounterRows {
    async fn prepare(_: &Counter, client: &Connection) -> Result<Self, DbError> {
        Ok(CounterRows {
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

    async fn load(&self, client: &Connection, keys: &[&str]) -> Result<Vec<StoredKey<i64>>, DbError> {
        let rows = client.query(&self.load, &[&keys]).await?;
        rows.iter()
            .map(|row| {
                Ok(StoredKey {
                    key: row.try_get(0)?,
                    last_sequence: Sequence(row.try_get(1)?),
                    last_event_id: row.try_get(2)?,
                    state: row.try_get(3)?,
                    event_ids: EventIds::of(&row.try_get::<_, Vec<&str>>(4)?),
                })
            })
            .collect()
    }

    async fn write(&self, writing: Writing<'_>, set: &WriteSet<'_, '_, Counter>) -> Result<Written, DbError> {
        let client = writing.client();
        let mut written = 0;
        for known in [false, true] {
            let rows: Vec<_> = set.changed.iter().filter(|row| row.base_sequence.is_some() == known).collect();
            let keys: Vec<&str> = rows.iter().map(|row| row.key).collect();
            let sequences: Vec<i64> = rows.iter().map(|row| row.last_sequence.0).collect();
            let event_ids: Vec<&str> = rows.iter().map(|row| row.last_event_id).collect();
            let counts: Vec<i64> = rows.iter().map(|row| *row.state).collect();
            let bases: Vec<i64> = rows.iter().filter_map(|row| Some(row.base_sequence?.0)).collect();
            written += if known {
                client.execute(&self.update, &[&keys, &sequences, &event_ids, &counts, &bases]).await?
            } else {
                client.execute(&self.insert, &[&keys, &sequences, &event_ids, &counts]).await?
            };
        }
        Ok(if written == set.changed.len() as u64 { Written::All } else { Written::Stale })
    }

    async fn holders_of(&self, _: &Connection, _: &[&str]) -> Result<Vec<(String, String)>, DbError> {
        Ok(Vec::new())
    }
}
