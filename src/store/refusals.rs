//! What the build that readers read has refused for what stands outside of a record: another key had its id, Postgres could
//! not hold it, nobody knew its schema. A build beside it meets the record at another moment, and refuses it all the same:
//! else both would hold other orders. What is made of that is decided by who folds.

use std::collections::{BTreeMap, HashMap};

use tokio_postgres::{Row, Statement};

use crate::domain::ledger::Origin;
use crate::domain::poison::{Poison, Reason};
use crate::domain::units::{Offset, Partition};
use crate::store::progress::{self, BuildSource};
use crate::store::{Connection, DbError};

/// Asks, for a build that readers do not read, on one connection.
pub struct RefusalStatements {
    between: Statement,
}

impl RefusalStatements {
    /// Prepares; `None`: readers read this very build.
    pub async fn prepare(client: &Connection, source: &BuildSource) -> Result<Option<Self>, DbError> {
        if progress::active_build(client, source.view).await? == Some(source.build) {
            return Ok(None);
        }
        let between = client.prepare(include_str!("sql/refused_by_shown.sql")).await?;
        Ok(Some(RefusalStatements { between }))
    }

    /// What was refused from the first to the last of these offsets of each partition; `None`: readers read this build by now.
    pub async fn between(
        &self,
        client: &Connection,
        source: &BuildSource,
        spans: &BTreeMap<Partition, (Offset, Offset)>,
    ) -> Result<Option<HashMap<Origin, Poison>>, DbError> {
        let partitions: Vec<i32> = spans.keys().map(|partition| partition.0).collect();
        let (first, last): (Vec<i64>, Vec<i64>) = spans.values().map(|(first, last)| (first.0, last.0)).unzip();
        let (view, build) = (&source.view, &source.build.0);
        let rows = client.query(&self.between, &[view, build, &source.topic, &partitions, &first, &last]).await?;
        if rows.first().map(|row| row.try_get::<_, bool>(4)).transpose()? == Some(true) {
            return Ok(None);
        }
        let mut refused = HashMap::new();
        for row in &rows {
            // One row without a record says that there is none.
            if row.try_get::<_, Option<i32>>(0)?.is_some() {
                let (origin, poison) = refusal(row)?;
                refused.insert(origin, poison);
            }
        }
        Ok(Some(refused))
    }
}

/// A row that begins with partition, offset, reason and sentence. What a later version calls a reason is one of those from outside.
pub fn refusal(row: &Row) -> Result<(Origin, Poison), DbError> {
    let origin = Origin { partition: Partition(row.try_get(0)?), offset: Offset(row.try_get(1)?) };
    let reason: &str = row.try_get(2)?;
    let reason = Reason::ALL.into_iter().find(|known| known.as_str() == reason).unwrap_or(Reason::Unrepresentable);
    Ok((origin, Poison::new(reason, row.try_get::<_, String>(3)?)))
}
