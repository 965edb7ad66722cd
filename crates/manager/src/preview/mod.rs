//! Topics that people watch. A topic is read only while somebody watches it, by one consumer however many they are, and each
//! record is read and written once.
//!
//! ```text
//!   Kafka ──▶ room: reads, shows ──▶ ring of the newest rows ──▶ watcher: own place, own speed, own count of what it lost
//! ```
//!
//! Those who watch what comes from now on share one room. Whoever begins elsewhere (the beginning, an offset, a time) has a
//! room of its own for as long as it watches: its reader waits for it, so it loses nothing, and it is counted among the
//! readers that there may be.

mod columns;
mod ring;
mod room;
mod row;
mod settings;
mod watcher;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::runtime::Handle;

pub use self::columns::Columns;
pub use self::ring::Frame;
pub use self::row::{Shape, Shown};
pub use self::settings::PreviewLimits;
pub use self::watcher::{Told, Watcher};

use self::room::{Outside, Room, Seat};
use crate::fault::Fault;
use crate::ports::{From, Kafka, PortError, Schemas};

/// Which topics may be watched. Whoever knows definitions and sources answers.
#[async_trait]
pub trait Watchable: Send + Sync {
    /// Whether the topic is the output of a definition or a source of the catalogue.
    async fn may_be_watched(&self, topic: &str) -> Result<bool, Fault>;

    /// The output topic of the definition with this id; `None` if there is none.
    async fn output_of(&self, definition: &str) -> Result<Option<String>, Fault>;
}

/// Why a topic is not watched.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It is neither the output of a definition nor a source.
    #[error("topic `{0}` cannot be watched: it is neither the output of a stream nor a source of the catalog")]
    NotWatchable(String),
    /// There is no such definition.
    #[error("there is no stream `{0}`")]
    NoStream(String),
    /// As many topics are read as may be.
    #[error("{0} topics are read already, and no more may be at once: come again when somebody has stopped watching")]
    TooManyReaders(usize),
    /// As many watch as may.
    #[error("{0} watch already, and no more may at once: come again when somebody has stopped watching")]
    TooManyWatchers(usize),
    /// Who may say so cannot be asked.
    #[error(transparent)]
    Unknown(Fault),
    /// Kafka does not give it.
    #[error(transparent)]
    Port(PortError),
}

/// The previews of a process. Clones are the same ones.
#[derive(Clone)]
pub struct Previews {
    outside: Outside,
    watchable: Arc<dyn Watchable>,
    registry: Arc<Mutex<Registry>>,
}

/// Who watches what.
#[derive(Default)]
pub(crate) struct Registry {
    /// Those of the newest rows, by topic.
    shared: HashMap<String, Arc<Room>>,
    seats: HashMap<u64, Arc<Room>>,
    last: u64,
}

impl Registry {
    /// How many topics are read.
    fn readers(&self) -> usize {
        let own = self.seats.values().filter(|room| room.is_own()).count();
        own + self.shared.len()
    }

    fn sit(&mut self, room: &Arc<Room>) -> u64 {
        self.last += 1;
        self.seats.insert(self.last, Arc::clone(room));
        self.last
    }

    fn leave(&mut self, number: u64) {
        let Some(room) = self.seats.remove(&number) else { return };
        if self.seats.values().any(|other| Arc::ptr_eq(other, &room)) {
            return;
        }
        room.stop.cancel();
        if self.shared.get(room.topic()).is_some_and(|shared| Arc::ptr_eq(shared, &room)) {
            self.shared.remove(room.topic());
        }
    }
}

impl Previews {
    /// Nobody watches yet. Topics are read in the runtime of whoever calls this.
    pub fn new(
        kafka: Arc<dyn Kafka>,
        schemas: Option<Arc<dyn Schemas>>,
        watchable: Arc<dyn Watchable>,
        limits: PreviewLimits,
    ) -> Previews {
        let outside = Outside { kafka, schemas, limits, runtime: Handle::current() };
        Previews { outside, watchable, registry: Arc::default() }
    }

    /// Watches a topic. What is published after this has come back is shown, or counted as dropped.
    pub async fn watch(&self, topic: &str, from: From) -> Result<Watcher, Refused> {
        if is_internal(topic) || !self.watchable.may_be_watched(topic).await.map_err(Refused::Unknown)? {
            return Err(Refused::NotWatchable(topic.to_owned()));
        }
        self.enter(topic, from).await
    }

    /// Watches the output topic of a definition.
    pub async fn watch_stream(&self, definition: &str, from: From) -> Result<Watcher, Refused> {
        match self.watchable.output_of(definition).await.map_err(Refused::Unknown)? {
            Some(topic) if !is_internal(&topic) => self.enter(&topic, from).await,
            _ => Err(Refused::NoStream(definition.to_owned())),
        }
    }

    /// The columns of a topic's rows: those of the registry, if it has any, else those of the rows as they come.
    pub async fn columns(&self, topic: &str) -> Columns {
        match &self.outside.schemas {
            Some(schemas) => Columns::new(schemas.columns_of(topic).await.ok().flatten().map(|(_, columns)| columns)),
            None => Columns::new(None),
        }
    }

    /// How many topics are read, and how many watch.
    pub fn counts(&self) -> (usize, usize) {
        let registry = self.registry();
        (registry.readers(), registry.seats.len())
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn enter(&self, topic: &str, from: From) -> Result<Watcher, Refused> {
        let (room, seat) = self.sit(topic, from)?;
        // Left without having been opened, the seat is free again.
        room.opened().await.map_err(Refused::Port)?;
        Ok(Watcher::new(room, seat, &self.outside.limits))
    }

    fn sit(&self, topic: &str, from: From) -> Result<(Arc<Room>, Seat), Refused> {
        let limits = &self.outside.limits;
        let mut registry = self.registry();
        if registry.seats.len() >= limits.watchers {
            return Err(Refused::TooManyWatchers(limits.watchers));
        }
        let known = registry.shared.get(topic).filter(|room| from == From::Latest && !room.has_ended()).cloned();
        let room = match known {
            Some(room) => room,
            None if registry.readers() >= limits.readers => return Err(Refused::TooManyReaders(limits.readers)),
            None => {
                let room = Room::open(topic, from, self.outside.clone());
                if from == From::Latest {
                    registry.shared.insert(topic.to_owned(), Arc::clone(&room));
                }
                room
            }
        };
        let number = registry.sit(&room);
        Ok((room, Seat { registry: Arc::downgrade(&self.registry), number }))
    }
}

/// Kafka's own topics, and those of its relatives: never shown, whoever asks.
fn is_internal(topic: &str) -> bool {
    topic.starts_with('_')
}
