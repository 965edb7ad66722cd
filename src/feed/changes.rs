//! One task for each view and process reads what is committed, once, and hands it to everybody who follows it here.
//!
//! It runs only while somebody does. A commit of this process wakes it; commits of other processes are not announced, nor when a
//! standby has them, so while partitions of the view are owned elsewhere, or reads have an address of their own, it also looks
//! every 50 ms. That look is one small statement, however
//! many follow. After each page it rests, so that a backlog that is being projected is told later rather than slower: the
//! projector never waits for it, and nobody's full queue makes it wait.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::board::ViewBoard;
use crate::domain::build::Build;
use crate::domain::changes::{FeedCursor, Place};
use crate::domain::history::History;
use crate::domain::units::Sequence;
use crate::failure::Backoff;
use crate::feed::reader::{FeedError, Page, Reader};
use crate::feed::wanted::Wanted;
use crate::store::changes::{Entry, Shown, ShownOf};
use crate::store::read::{ReadError, ReadPool};
use crate::telemetry::metrics::Metrics;

/// Between looks while other processes commit.
pub(super) const POLL: Duration = Duration::from_millis(50);
/// Between looks when this process commits everything itself: only there in case a partition just changed hands, and to see
/// that the process stops.
const SAFETY_POLL: Duration = Duration::from_millis(250);
/// Rows of the ledger read at once.
pub(super) const PAGE: usize = 500;
/// The task rests at least so long after a page, and four times as long as the page took, up to the second.
const REST: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(100));
/// So many records the projector is behind when it needs what reading takes; from there on who reads rests so many times as
/// long as a page took, up to that.
const BACKLOG: i64 = 20_000;
const GENTLY: (u32, Duration) = (12, Duration::from_secs(1));
/// Clients that read for themselves at the same time, because they come from further back; and those that do so for the
/// first time, before they have an answer.
const READERS: usize = 2;

/// What following needs of the process.
#[derive(Clone)]
pub struct FeedResources {
    /// Reads.
    pub pool: ReadPool,
    /// Reads of the server that is written to, where `pool` may be of another.
    pub primary: Option<ReadPool>,
    /// The gauge of followers.
    pub metrics: Arc<Metrics>,
    /// Ends every stream.
    pub shutting_down: CancellationToken,
    /// Bounds the followers of the process.
    pub slots: Arc<Semaphore>,
    /// Changes that may wait for one client.
    pub buffer: usize,
    /// Runs the task; the HTTP workers' own runtimes come and go.
    pub runtime: Handle,
}

/// A change of a key, with its row as it is at the moment of telling: at least as new as the change.
#[derive(Debug, Clone)]
pub struct Change {
    /// Key.
    pub key: String,
    /// The number that the key consumed.
    pub sequence: Sequence,
    /// Id of the event.
    pub event_id: String,
    /// Its type, if a ledger knows it.
    pub event_type: Option<String>,
    /// What it did, as the ledger says, if there is one.
    pub effect: Option<String>,
    /// The row.
    pub shown: Arc<Shown>,
}

/// A change, where the view's ledger has it.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) build: Build,
    /// As in [`FeedCursor::came_by`], before the page that the change came with.
    pub(super) came_by: Option<i64>,
    pub(super) change: Change,
    pub(super) place: Place,
}

/// What a client is handed.
#[derive(Debug, Clone)]
pub(super) enum Item {
    /// A change.
    Change(Arc<Placed>),
    /// Everything of that build was told; from here on another one's ledger is, behind this cursor.
    Moved(Build, Arc<FeedCursor>),
}

/// As many clients as allowed follow already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("as many clients as allowed follow already")]
pub struct TooManyFollowers;

/// Everybody who follows one view.
pub struct Feed {
    pub(super) reader: Reader,
    board: Arc<ViewBoard>,
    shown: ShownOf,
    pub(super) resources: FeedResources,
    readers: Semaphore,
    arrivals: Semaphore,
    fanout: Mutex<Fanout>,
    /// Notified when the task knows where it begins.
    begun: Notify,
}

#[derive(Default)]
struct Fanout {
    at_work: bool,
    /// Up to where everything was handed out.
    cursor: Option<FeedCursor>,
    next_id: u64,
    clients: HashMap<u64, Client>,
}

struct Client {
    wanted: Wanted,
    queue: mpsc::Sender<Item>,
    is_overrun: Arc<AtomicBool>,
}

/// A client's end of its queue; leaves when it is dropped.
pub(super) struct Subscription {
    feed: Arc<Feed>,
    id: u64,
    pub(super) queue: mpsc::Receiver<Item>,
    is_overrun: Arc<AtomicBool>,
}

impl Subscription {
    /// Whether the client was too slow.
    pub(super) fn is_overrun(&self) -> bool {
        self.is_overrun.load(Ordering::Acquire)
    }

    /// Up to where the client has seen all that it wants, if nothing waits for it.
    pub(super) fn nothing_missed_up_to(&self) -> Option<FeedCursor> {
        let fanout = self.feed.lock();
        if self.queue.is_empty() { fanout.cursor.clone() } else { None }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.feed.lock().clients.remove(&self.id);
    }
}

/// One of the allowed followers, until it is dropped.
pub(super) struct Slot {
    metrics: Arc<Metrics>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.metrics.followers.dec();
    }
}

impl Feed {
    /// Nobody follows yet.
    pub fn new(board: Arc<ViewBoard>, shown: ShownOf, resources: FeedResources) -> Arc<Self> {
        let reader = Reader { view: board.view, pool: resources.pool.clone(), primary: resources.primary.clone() };
        let (readers, arrivals) = (Semaphore::new(READERS), Semaphore::new(READERS));
        let (fanout, begun) = (Mutex::default(), Notify::new());
        Arc::new(Feed { reader, board, shown, resources, readers, arrivals, fanout, begun })
    }

    /// Whether the process is stopping.
    pub fn is_stopping(&self) -> bool {
        self.resources.shutting_down.is_cancelled()
    }

    /// Whether the build that readers read keeps a ledger: without one nothing says what has changed.
    pub fn keeps_ledger(&self) -> bool {
        self.board.status().meaning().rules.history != History::Off
    }

    /// Waits so long, or until the process stops.
    pub(super) async fn rest(&self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.resources.shutting_down.cancelled() => {}
        }
    }

    pub(super) fn slot(&self) -> Result<Slot, TooManyFollowers> {
        let permit = Arc::clone(&self.resources.slots).try_acquire_owned().map_err(|_| TooManyFollowers)?;
        self.resources.metrics.followers.inc();
        Ok(Slot { metrics: Arc::clone(&self.resources.metrics), _permit: permit })
    }

    /// Reads the first page for one client, when its turn comes; once more if that was displaced, as in
    /// [`crate::store::read::twice`], since whoever has no answer yet would be told so.
    pub(super) async fn first_page(&self, cursor: &FeedCursor) -> Result<Page, FeedError> {
        let _turn = self.arrivals.acquire().await.expect("the semaphore is never closed");
        match self.reader.next(cursor, PAGE).await {
            Err(FeedError::Read(ReadError::Displaced(_))) => self.reader.next(cursor, PAGE).await,
            page => page,
        }
    }

    /// Reads the next page for one that has an answer already, and can wait for the projector.
    pub(super) async fn next_page(&self, cursor: &FeedCursor) -> Result<Page, FeedError> {
        let _turn = self.readers.acquire().await.expect("the semaphore is never closed");
        let started = Instant::now();
        let page = self.reader.next(cursor, PAGE).await?;
        if self.board.status().records_behind() >= BACKLOG {
            self.rest(gently(started.elapsed())).await;
        }
        Ok(page)
    }

    /// How long the task rests after a page that took so long.
    fn rest_after(&self, took: Duration) -> Duration {
        if self.board.status().records_behind() >= BACKLOG { gently(took) } else { (4 * took).clamp(REST.0, REST.1) }
    }

    /// The rows of these keys as they are now; likewise once more, for a first page is one with its rows.
    pub(super) async fn rows(&self, keys: HashSet<&str>) -> Result<HashMap<String, Arc<Shown>>, ReadError> {
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        let keys: Vec<String> = keys.into_iter().map(str::to_owned).collect();
        let read = || (self.shown)(self.resources.pool.clone(), keys.clone());
        let rows = match read().await {
            Err(ReadError::Displaced(_)) => read().await?,
            rows => rows?,
        };
        Ok(rows.into_iter().map(|(key, row)| (key, Arc::new(row))).collect())
    }

    /// From when this returns on, every change that the task reads and that is wanted is put into the queue.
    pub(super) async fn subscribe(self: &Arc<Self>, wanted: Wanted) -> Subscription {
        let (sender, queue) = mpsc::channel(self.resources.buffer);
        let is_overrun = Arc::new(AtomicBool::new(false));
        let id = {
            let mut fanout = self.lock();
            let id = fanout.next_id;
            fanout.next_id += 1;
            fanout.clients.insert(id, Client { wanted, queue: sender, is_overrun: Arc::clone(&is_overrun) });
            if !std::mem::replace(&mut fanout.at_work, true) {
                self.resources.runtime.spawn(Arc::clone(self).hand_out());
            }
            id
        };
        let subscription = Subscription { feed: Arc::clone(self), id, queue, is_overrun };
        loop {
            let begun = self.begun.notified();
            tokio::pin!(begun);
            begun.as_mut().enable();
            {
                let fanout = self.lock();
                // Closed again: the stream ends, which its reader finds out by the queue.
                if fanout.cursor.is_some() || !fanout.clients.contains_key(&id) {
                    break;
                }
            }
            begun.await;
        }
        subscription
    }

    /// The one task: reads while somebody follows, then ends.
    async fn hand_out(self: Arc<Self>) {
        let _at_work = AtWork(Arc::clone(&self));
        let ((mut build, mut commits), mut backoff) = (self.followed(), Backoff::default());
        while self.goes_on() {
            if self.board.status().build != build {
                (build, commits) = self.followed();
            }
            if !self.keeps_ledger() {
                tracing::info!(view = self.board.view, %build, "readers read a build without a ledger: nothing can be told");
                self.close_all();
                continue;
            }
            commits.borrow_and_update();
            let started = Instant::now();
            let step = tokio::select! {
                step = self.step() => step,
                () = self.resources.shutting_down.cancelled() => continue,
            };
            let (rest, is_all) = match step {
                Ok(is_all) => {
                    backoff = Backoff::default();
                    (self.rest_after(started.elapsed()), is_all)
                }
                Err(FeedError::Read(error)) => {
                    tracing::debug!(view = self.board.view, error = %error, "could not look for changes");
                    (backoff.next_wait(), true)
                }
                Err(FeedError::Expired(why)) => {
                    tracing::warn!(view = self.board.view, why, "followers have to begin anew");
                    self.close_all();
                    (REST.0, true)
                }
            };
            self.rest(rest).await;
            if is_all {
                self.until_next_look(&mut commits).await;
            }
        }
    }

    /// The build that readers read, and its commits here.
    fn followed(&self) -> (Build, watch::Receiver<u64>) {
        let status = self.board.status();
        (status.build, status.commits())
    }

    async fn until_next_look(&self, commits: &mut watch::Receiver<u64>) {
        let is_told_all = self.board.status().commits_everything() && self.resources.primary.is_none();
        let poll = if is_told_all { SAFETY_POLL } else { POLL };
        tokio::select! {
            // Fails only when the build is there no more; the poll goes on.
            Ok(()) = commits.changed() => {}
            () = self.rest(poll) => {}
        }
    }

    /// Whether there is somebody to work for; says under the lock if not.
    fn goes_on(&self) -> bool {
        let mut fanout = self.lock();
        if self.is_stopping() {
            fanout.clients.clear();
        }
        if fanout.clients.is_empty() {
            (fanout.at_work, fanout.cursor) = (false, None);
            drop(fanout);
            self.begun.notify_waiters();
            return false;
        }
        true
    }

    /// Ends every stream: who comes back is told why.
    fn close_all(&self) {
        let mut fanout = self.lock();
        fanout.clients.clear();
        fanout.cursor = None;
        drop(fanout);
        self.begun.notify_waiters();
    }

    /// Reads one page and hands it out; tells whether that was all.
    async fn step(&self) -> Result<bool, FeedError> {
        let cursor = self.lock().cursor.clone();
        let Some(cursor) = cursor else {
            let now = self.reader.now().await?;
            let is_known = now.is_some();
            self.lock().cursor = now;
            if is_known {
                self.begun.notify_waiters();
            }
            return Ok(true);
        };
        let page = self.reader.next(&cursor, PAGE).await?;
        let rows = self.rows(self.looked_at(&page.entries)).await?;
        let is_moved = page.cursor.build != cursor.build;
        let placed = page.entries.into_iter().filter_map(|(entry, place)| {
            let shown = Arc::clone(rows.get(&entry.key)?);
            let (build, came_by, change) = (cursor.build, cursor.came_by, change_of(entry, shown));
            Some(Arc::new(Placed { build, came_by, change, place }))
        });
        let placed: Vec<Arc<Placed>> = placed.collect();
        let mut fanout = self.lock();
        if is_moved {
            let moved = Arc::new(page.cursor.clone());
            self.tell(&mut fanout, |_| Some(Item::Moved(cursor.build, Arc::clone(&moved))));
        }
        for placed in &placed {
            let Change { key, shown, .. } = &placed.change;
            self.tell(&mut fanout, |wanted| wanted.matches(key, shown).then(|| Item::Change(Arc::clone(placed))));
        }
        fanout.cursor = Some(page.cursor);
        Ok(page.is_all)
    }

    /// The keys whose rows somebody may want to see.
    fn looked_at<'a>(&self, entries: &'a [(Entry, Place)]) -> HashSet<&'a str> {
        let fanout = self.lock();
        let mut wanted = HashSet::new();
        for client in fanout.clients.values() {
            match &client.wanted {
                Wanted::Key(key) => wanted.insert(key.as_str()),
                Wanted::List(_) => return entries.iter().map(|(entry, _)| entry.key.as_str()).collect(),
            };
        }
        entries.iter().map(|(entry, _)| entry.key.as_str()).filter(|key| wanted.contains(key)).collect()
    }

    /// Puts into each queue what is for it. A full one is closed behind what is in it.
    fn tell(&self, fanout: &mut Fanout, item: impl Fn(&Wanted) -> Option<Item>) {
        fanout.clients.retain(|_, client| {
            let Some(item) = item(&client.wanted) else { return true };
            match client.queue.try_send(item) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    client.is_overrun.store(true, Ordering::Release);
                    self.resources.metrics.overruns.inc();
                    false
                }
                Err(mpsc::error::TrySendError::Closed(_)) => false,
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, Fanout> {
        self.fanout.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn gently(took: Duration) -> Duration {
    (GENTLY.0 * took).clamp(REST.1, GENTLY.1)
}

pub(super) fn change_of(entry: Entry, shown: Arc<Shown>) -> Change {
    let Entry { key, sequence, event_id, event_type, effect, .. } = entry;
    Change { key, sequence, event_id, event_type: Some(event_type), effect: Some(effect), shown }
}

/// If the one task panics, streams end, and the next client starts another.
struct AtWork(Arc<Feed>);

impl Drop for AtWork {
    fn drop(&mut self) {
        // An end in order has said so under the lock already, and somebody else may be at work by now.
        if std::thread::panicking() {
            self.0.lock().at_work = false;
            self.0.close_all();
        }
    }
}
