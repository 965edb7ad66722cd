//! One reader of a topic and those who watch it: a task reads records, each once, as long as somebody is there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::ring::Ring;
use super::row::show;
use super::{Output, PreviewLimits, Registry, Watchable};
use crate::ports::{From, Kafka, Place, PortError, RawRecord, Records, Schemas};

/// Records that are read before those who watch are told.
const CHUNK: usize = 256;

/// So long rows wait for what is known of them.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a reader needs of the outside.
#[derive(Clone)]
pub(super) struct Outside {
    pub kafka: Arc<dyn Kafka>,
    pub schemas: Option<Arc<dyn Schemas>>,
    pub limits: PreviewLimits,
    /// For as many clients of Kafka as may read: a seat is free at once, and the client of whoever had it may take seconds to end.
    pub places: Arc<Semaphore>,
    pub watchable: Arc<dyn Watchable>,
    /// So often it is asked what is known of a topic's rows, while some come.
    pub look_again: Duration,
    /// Where readers run, whoever asks for them.
    pub runtime: Handle,
}

/// How far a reader is.
#[derive(Debug, Clone)]
pub(super) enum State {
    Opening,
    Open,
    Ended(PortError),
}

/// One reader of one topic.
pub(super) struct Room {
    topic: String,
    /// Of one who reads from a place of its own: then nothing is dropped, the reader waits.
    is_own: bool,
    ring: Mutex<Ring>,
    /// What is known of the rows that come now: another revision of a stream may give them other types.
    output: Mutex<Arc<Output>>,
    news: Notify,
    space: Notify,
    state: watch::Sender<State>,
    /// Cancelled when the last one leaves.
    pub stop: CancellationToken,
}

/// A place among those who watch; dropped, it is free.
pub(super) struct Seat {
    pub registry: Weak<Mutex<Registry>>,
    pub number: u64,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(registry) = self.registry.upgrade() {
            registry.lock().unwrap_or_else(PoisonError::into_inner).leave(self.number);
        }
    }
}

impl Room {
    /// A room, whose reader begins at once.
    pub fn open(output: Output, from: From, outside: Outside) -> Arc<Room> {
        let room = Arc::new(Room {
            topic: output.topic.clone(),
            output: Mutex::new(Arc::new(output)),
            is_own: from != From::Latest,
            ring: Mutex::new(Ring::new(outside.limits.kept_rows, outside.limits.kept_bytes)),
            news: Notify::new(),
            space: Notify::new(),
            state: watch::Sender::new(State::Opening),
            stop: CancellationToken::new(),
        });
        let (reader, runtime) = (Arc::clone(&room), outside.runtime.clone());
        runtime.spawn(async move {
            // The client of Kafka ends here, whatever it was doing, as soon as nobody watches.
            let end = tokio::select! {
                () = reader.stop.cancelled() => PortError::Unavailable("nobody watches".to_owned()),
                end = reader.read(from, &outside) => end,
            };
            reader.state.send_replace(State::Ended(end));
            reader.news.notify_waiters();
        });
        room
    }

    pub fn topic(&self) -> &str {
        &self.topic
    }

    pub fn is_own(&self) -> bool {
        self.is_own
    }

    pub fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of the rows that come now.
    pub fn output(&self) -> Arc<Output> {
        Arc::clone(&self.output.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Somebody has looked it up.
    pub fn learn(&self, output: Output) {
        let mut known = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        if **known != output {
            *known = Arc::new(output);
        }
    }

    /// Is told when there is something new.
    pub fn news(&self) -> Notified<'_> {
        self.news.notified()
    }

    /// Waits until the topic is read; an error if it cannot be.
    pub async fn opened(&self) -> Result<(), PortError> {
        let mut state = self.state.subscribe();
        let state = state.wait_for(|state| !matches!(state, State::Opening)).await.map(|state| state.clone());
        match state {
            Ok(State::Ended(error)) => Err(error),
            _ => Ok(()),
        }
    }

    pub fn has_ended(&self) -> bool {
        matches!(*self.state.borrow(), State::Ended(_))
    }

    /// Why nothing more comes, if that is so.
    pub fn end(&self) -> Option<String> {
        match &*self.state.borrow() {
            State::Ended(error) => Some(error.to_string()),
            _ => None,
        }
    }

    /// The only one who reads here has come so far.
    pub fn taken(&self, cursor: u64) {
        if self.is_own {
            self.ring().forget_before(cursor);
            self.space.notify_one();
        }
    }

    async fn read(&self, from: From, outside: &Outside) -> PortError {
        let place = match Arc::clone(&outside.places).acquire_owned().await {
            Ok(permit) => Place::among(permit),
            Err(closed) => return PortError::Unavailable(closed.to_string()),
        };
        let mut records = match outside.kafka.tail(&self.topic, from, place).await {
            Ok(records) => records,
            Err(error) => return error,
        };
        self.state.send_replace(State::Open);
        let mut looked = Instant::now();
        loop {
            match self.read_chunk(&mut records, &mut looked, outside).await {
                Ok(()) => self.news.notify_waiters(),
                Err(error) => return error,
            }
            while self.is_own && self.is_full() {
                self.space.notified().await;
            }
        }
    }

    fn is_full(&self) -> bool {
        self.ring().is_full()
    }

    /// Waits for a record, and takes what is there with it.
    async fn read_chunk(
        &self,
        records: &mut Records,
        looked: &mut Instant,
        outside: &Outside,
    ) -> Result<(), PortError> {
        let mut next = Some(records.next().await);
        if looked.elapsed() >= outside.look_again {
            self.look(outside).await;
            *looked = Instant::now();
        }
        let (mut shown, mut bytes, mut end) = (Vec::new(), 0, None);
        while let Some(item) = next {
            match item {
                Some(Ok(record)) => {
                    let row = self.show(&record, outside).await;
                    bytes += row.bytes();
                    shown.push(row);
                }
                Some(Err(error)) => end = Some(error),
                None => end = Some(PortError::Unavailable(format!("topic {} is read no longer", self.topic))),
            }
            // What is kept may be exceeded by one chunk, where nothing gives way.
            let has_room = shown.len() < CHUNK.min(outside.limits.kept_rows) && bytes < outside.limits.kept_bytes / 2;
            next = if end.is_none() && has_room { records.next().now_or_never() } else { None };
        }
        let mut ring = self.ring();
        shown.into_iter().for_each(|row| if self.is_own { ring.keep(row) } else { ring.push(row) });
        end.map_or(Ok(()), Err)
    }

    async fn show(&self, record: &RawRecord, outside: &Outside) -> Arc<super::Shown> {
        let shown = show(record, outside.schemas.as_deref(), outside.limits.value_bytes).await;
        Arc::new(shown.under(self.output()))
    }

    /// Asks what is known of the rows by now. Where nobody says so in time, they are read as those before them.
    async fn look(&self, outside: &Outside) {
        match timeout(PATIENCE, outside.watchable.watchable(&self.topic)).await {
            Ok(Ok(Some(output))) => self.learn(output),
            // It is watched no longer by whoever comes; whoever is there sees the rest of it.
            Ok(Ok(None)) => {}
            Ok(Err(error)) => {
                tracing::debug!(topic = self.topic, error = %error, "the columns of a topic are not known")
            }
            Err(_) => tracing::debug!(topic = self.topic, "nobody says in time which columns a topic has"),
        }
    }
}
