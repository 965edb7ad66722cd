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
mod keys;
mod ring;
mod room;
mod row;
mod watcher;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

pub use self::columns::{Columns, Output};
pub use self::ring::Frame;
pub use self::row::{Shape, Shown};
pub use self::watcher::{Told, Watcher};
pub use crate::settings::PreviewLimits;

use self::room::{Outside, Room, Seat};
use crate::fault::Fault;
use crate::ports::{From, Kafka, PortError, Schemas};

/// So often what is known of a topic's rows is asked for, while some come: by then an update of the stream shows in its rows.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Which topics may be watched. Whoever knows definitions and sources answers.
#[async_trait]
pub trait Watchable: Send + Sync {
    /// The topic with what is known of its rows, if it is the output of a definition or a source of the catalogue.
    async fn watchable(&self, topic: &str) -> Result<Option<Output>, Fault>;

    /// The output of the definition with this id; `None` if there is none.
    async fn output_of(&self, definition: &str) -> Result<Option<Output>, Fault>;
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
    #[error(
        "{0} topics are read already, and no more may be at once (`manager.preview.readers`): come again when somebody has \
         stopped watching"
    )]
    TooManyReaders(usize),
    /// As many watch as may.
    #[error(
        "{0} watch already, and no more may at once (`manager.preview.watchers`): come again when somebody has stopped \
         watching"
    )]
    TooManyWatchers(usize),
    /// The caller has as many as one may have.
    #[error(
        "`{caller}` has {most} {what} already, and no more may be at once (`manager.preview.{setting}`): end one first"
    )]
    TooManyOfCaller {
        /// Who.
        caller: String,
        /// What there are so many of.
        what: &'static str,
        /// `watchers_per_caller` or `readers_per_caller`.
        setting: &'static str,
        /// How many there may be.
        most: usize,
    },
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
    registry: Arc<Mutex<Registry>>,
}

/// Who watches what.
#[derive(Default)]
pub(crate) struct Registry {
    /// Those of the newest rows, by topic.
    shared: HashMap<String, Arc<Room>>,
    seats: HashMap<u64, Seated>,
    last: u64,
}

/// One who watches.
struct Seated {
    room: Arc<Room>,
    caller: Arc<str>,
}

impl Registry {
    /// How many topics are read.
    fn readers(&self) -> usize {
        let own = self.seats.values().filter(|seated| seated.room.is_own()).count();
        own + self.shared.len()
    }

    /// How often a caller watches, and how many topics are read for them alone.
    fn of_caller(&self, caller: &str) -> (usize, usize) {
        let own = || self.seats.values().filter(|seated| &*seated.caller == caller);
        let others = |room: &Arc<Room>| {
            let mut seats = self.seats.values();
            seats.any(|seated| &*seated.caller != caller && Arc::ptr_eq(&seated.room, room))
        };
        let rooms: HashMap<_, _> = own().map(|seated| (Arc::as_ptr(&seated.room), &seated.room)).collect();
        (own().count(), rooms.into_values().filter(|room| !others(room)).count())
    }

    fn check(&self, limits: &PreviewLimits, caller: &str, needs_reader: bool) -> Result<(), Refused> {
        let of_caller =
            |what, setting, most| Err(Refused::TooManyOfCaller { caller: caller.to_owned(), what, setting, most });
        let (watchers, readers) = self.of_caller(caller);
        // First: whoever has all that one may have is told that, however full it is.
        if watchers >= limits.watchers_per_caller {
            return of_caller("topics that are watched", "watchers_per_caller", limits.watchers_per_caller);
        }
        if needs_reader && readers >= limits.readers_per_caller {
            return of_caller("topics that nobody else watches", "readers_per_caller", limits.readers_per_caller);
        }
        if self.seats.len() >= limits.watchers {
            return Err(Refused::TooManyWatchers(limits.watchers));
        }
        if needs_reader && self.readers() >= limits.readers {
            return Err(Refused::TooManyReaders(limits.readers));
        }
        Ok(())
    }

    fn sit(&mut self, room: &Arc<Room>, caller: &str) -> u64 {
        self.last += 1;
        self.seats.insert(self.last, Seated { room: Arc::clone(room), caller: caller.into() });
        self.last
    }

    fn leave(&mut self, number: u64) {
        let Some(Seated { room, .. }) = self.seats.remove(&number) else { return };
        if self.seats.values().any(|other| Arc::ptr_eq(&other.room, &room)) {
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
        let (places, runtime) = (Arc::new(Semaphore::new(limits.readers)), Handle::current());
        let outside = Outside { kafka, schemas, limits, runtime, places, watchable, look_again: LOOK_AGAIN };
        Previews { outside, registry: Arc::default() }
    }

    /// Watches a topic for `caller`. What is published after this has come back is shown, or counted as dropped.
    pub async fn watch(&self, topic: &str, from: From, caller: &str) -> Result<Watcher, Refused> {
        let not_watchable = || Refused::NotWatchable(topic.to_owned());
        if is_internal(topic) {
            return Err(not_watchable());
        }
        let found = self.outside.watchable.watchable(topic).await.map_err(Refused::Unknown)?;
        self.enter(found.ok_or_else(not_watchable)?, from, caller).await
    }

    /// Watches the output topic of a definition for `caller`.
    pub async fn watch_stream(&self, definition: &str, from: From, caller: &str) -> Result<Watcher, Refused> {
        match self.outside.watchable.output_of(definition).await.map_err(Refused::Unknown)? {
            Some(output) if !is_internal(&output.topic) => self.enter(output, from, caller).await,
            _ => Err(Refused::NoStream(definition.to_owned())),
        }
    }

    /// The columns of what is watched: those of the text that fills the topic, else those of the registry, if it has any, else
    /// those of the rows as they come.
    pub async fn columns(&self, watcher: &Watcher) -> Columns {
        let output = watcher.output();
        match &self.outside.schemas {
            Some(schemas) if output.columns.is_empty() => {
                let of_registry = schemas.columns_of(&output.topic).await.ok().flatten();
                Columns::new(of_registry.map(|(_, columns)| columns))
            }
            _ => Columns::of(output),
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

    async fn enter(&self, output: Output, from: From, caller: &str) -> Result<Watcher, Refused> {
        let (room, seat) = self.sit(output, from, caller)?;
        // Left without having been opened, the seat is free again.
        room.opened().await.map_err(Refused::Port)?;
        Ok(Watcher::new(room, seat, &self.outside.limits))
    }

    fn sit(&self, output: Output, from: From, caller: &str) -> Result<(Arc<Room>, Seat), Refused> {
        let mut registry = self.registry();
        let known =
            registry.shared.get(&output.topic).filter(|room| from == From::Latest && !room.has_ended()).cloned();
        registry.check(&self.outside.limits, caller, known.is_none())?;
        let room = match known {
            Some(room) => {
                room.learn(output);
                room
            }
            None => {
                let room = Room::open(output, from, self.outside.clone());
                if from == From::Latest {
                    registry.shared.insert(room.topic().to_owned(), Arc::clone(&room));
                }
                room
            }
        };
        let number = registry.sit(&room, caller);
        Ok((room, Seat { registry: Arc::downgrade(&self.registry), number }))
    }
}

/// Kafka's own topics, and those of its relatives: never shown, whoever asks.
fn is_internal(topic: &str) -> bool {
    topic.starts_with('_')
}
