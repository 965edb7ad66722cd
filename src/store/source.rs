//! The log that a build is made from, as its row in `view_builds` says. What a difference means is judged in
//! [`crate::domain::source`].

use tokio_postgres::Row;

use crate::domain::source::{Binding, Bond, Log, judge};
use crate::store::progress::BuildSource;
use crate::store::{Connection, DbError};

/// Binds the build to `log`, unless it is bound to it or to another one. Nobody else binds meanwhile, and no batch is
/// committed.
pub async fn bind(client: &Connection, source: &BuildSource, log: &Log) -> Result<Bond, DbError> {
    // Nearly always there is nothing to do.
    let row = client.query_one(include_str!("sql/read_binding.sql"), &[&source.view, &source.build.0]).await?;
    if judge(&binding(&row)?, log, true) == Bond::Bound {
        return Ok(Bond::Bound);
    }
    client.batch_execute("begin").await?;
    match bind_locked(client, source, log).await {
        Ok(bond) => client.batch_execute("commit").await.map(|()| bond),
        Err(error) => {
            client.batch_execute("rollback").await?;
            Err(error)
        }
    }
}

/// What the build is bound to.
pub async fn read(client: &Connection, source: &BuildSource) -> Result<Binding, DbError> {
    binding(&client.query_one(include_str!("sql/read_binding.sql"), &[&source.view, &source.build.0]).await?)
}

async fn bind_locked(client: &Connection, source: &BuildSource, log: &Log) -> Result<Bond, DbError> {
    let row = client.query_one(include_str!("sql/lock_binding.sql"), &[&source.view, &source.build.0]).await?;
    let consumed = client.query_one(include_str!("sql/lock_consumed.sql"), &[&source.view, &source.build.0]).await?;
    let bond = judge(&binding(&row)?, log, consumed.try_get(0)?);
    if let Bond::Bind(Binding { cluster, topic, topic_id }) = &bond {
        let bind = include_str!("sql/bind_build.sql");
        client.execute(bind, &[&source.view, &source.build.0, cluster, topic, topic_id]).await?;
        let fence = include_str!("sql/fence_others.sql");
        client.execute(fence, &[&source.view, &source.build.0, &source.topic]).await?;
    }
    Ok(bond)
}

fn binding(row: &Row) -> Result<Binding, DbError> {
    Ok(Binding { cluster: row.try_get(0)?, topic: row.try_get(1)?, topic_id: row.try_get(2)? })
}
