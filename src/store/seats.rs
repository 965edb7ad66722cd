//! Seats: by which number an instance is known to its consumer group, across restarts and without configuration. A seat is
//! an advisory lock of one session, so it is free the moment its holder dies, and nobody has to tidy up.
//!
//! Knows nothing of Kafka. A seat is a name, not a right to write: that is the fence's.

use crate::config::DatabaseSettings;
use crate::store::{Connection, DbError, pool};

/// Most seats of one group; far more than a topic has use for.
const MOST: i32 = 1000;

/// A session that holds seats of one consumer group.
pub struct Seats {
    client: Connection,
    group: String,
}

impl Seats {
    /// Opens the session. It holds nothing yet.
    pub async fn open(settings: &DatabaseSettings, group: &str) -> Result<Seats, DbError> {
        let client = pool::connect_seats(settings).await?;
        Ok(Seats { client, group: group.to_owned() })
    }

    /// Takes the first seat from `from` on that nobody holds. `None` if none is free.
    pub async fn take_first(&self, from: i32) -> Result<Option<i32>, DbError> {
        for number in from..MOST {
            if self.take(number).await? {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// Takes this seat; `false` if another session holds it.
    pub async fn take(&self, number: i32) -> Result<bool, DbError> {
        let lock = "select pg_try_advisory_lock(hashtextextended($1, 0))";
        self.client.query_one(lock, &[&self.name(number)]).await?.try_get(0)
    }

    /// Gives a seat back.
    pub async fn give_back(&self, number: i32) -> Result<(), DbError> {
        let unlock = "select pg_advisory_unlock(hashtextextended($1, 0))";
        self.client.query_one(unlock, &[&self.name(number)]).await.map(drop)
    }

    /// Whether the session lives, and with it the seats.
    pub async fn confirm(&self) -> Result<(), DbError> {
        self.client.batch_execute("select 1").await
    }

    fn name(&self, number: i32) -> String {
        format!("streamview seat {number} of {}", self.group)
    }
}
