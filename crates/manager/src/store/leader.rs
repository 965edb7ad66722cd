//! One leader among any number of instances: a lock of a session in Postgres, which dies with it.

use std::time::Duration;

use deadpool_postgres::{ClientWrapper, Object};

use super::{Store, StoreError};

/// How long the leader waits for an answer of its session before it takes it for lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// The lead: held until this is dropped or its session ends.
pub(crate) struct Leader {
    client: ClientWrapper,
}

impl Store {
    /// Takes the lead; `None` while another one has it.
    pub async fn lead(&self) -> Result<Option<Leader>, StoreError> {
        let session = Unsure(Some(self.pool.get().await?));
        let Some(client) = &session.0 else { return Ok(None) };
        // Postgres asks every few seconds whether the other end is still there: else it would keep the lead of a machine that
        // was switched off for hours.
        let alive = "set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5; set tcp_keepalives_count = 3";
        client.batch_execute(alive).await?;
        let lock = "select pg_try_advisory_lock(hashtextextended('streamview stream manager', 0))";
        let leads: bool = client.query_one(lock, &[]).await?.try_get(0)?;
        let object = session.sure();
        // Out of the pool for good: whoever got this session later would lead without knowing.
        Ok(object.filter(|_| leads).map(|object| Leader { client: Object::take(object) }))
    }
}

/// A session that may have the lock, for all that is known: it goes back to the pool only once it is known that it has not.
struct Unsure(Option<Object>);

impl Unsure {
    fn sure(mut self) -> Option<Object> {
        self.0.take()
    }
}

impl Drop for Unsure {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Object::take(object));
        }
    }
}

impl Leader {
    /// Whether its session is known to have ended. Asks nobody: of one that is only silent it says nothing.
    pub fn is_cut(&self) -> bool {
        self.client.is_closed()
    }

    /// Whether the lead is still held: the session that has the lock answers.
    pub async fn is_held(&self) -> bool {
        let asked = tokio::time::timeout(PATIENCE, self.client.batch_execute("select")).await;
        matches!(asked, Ok(Ok(())))
    }
}
