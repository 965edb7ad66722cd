//! Whether an operator has paused a view, as the rows say. Who pauses and resumes is the repair desk.

use jiff::Timestamp;

use crate::domain::pause::ViewPause;
use crate::store::{Connection, DbError};

/// The pause of a view, if it is paused.
pub async fn current(client: &Connection, view: &str) -> Result<Option<ViewPause>, DbError> {
    let row = client.query_opt(include_str!("sql/read_pause.sql"), &[&view]).await?;
    row.map(|row| {
        let since: Timestamp = row.try_get(2)?;
        Ok(ViewPause { reason: row.try_get(0)?, actor: row.try_get(1)?, on_behalf_of: row.try_get(3)?, since })
    })
    .transpose()
}
