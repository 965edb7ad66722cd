//! One client that follows: from where it stopped it reads for itself until it is where everybody is, then it is handed what
//! the one task reads.
//!
//! It joins the others before it reads the last of what lies behind. What it then has twice it knows by its place in the
//! ledger, or by the number within its key.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::build::BuildId;
use crate::domain::changes::{FeedCursor, KeyCursor};
use crate::domain::units::Sequence;
use crate::failure::Backoff;
use crate::feed::changes::{Change, Feed, Item, PAGE, POLL, Slot, Subscription, TooManyFollowers, change_of};
use crate::feed::reader::{FeedError, Page};
use crate::feed::waiters::Waiters;
use crate::feed::wanted::{Filter, Wanted};
use crate::store::changes::{self, Shown};
use crate::store::read::{self, ReadError};

/// A client hears something at least so often.
pub const HEARTBEAT: Duration = Duration::from_secs(15);
/// Changes told at once.
const AT_ONCE: usize = 64;

/// What a client is told.
#[derive(Debug)]
pub enum Told {
    /// Changes in order, each with the cursor behind it.
    Changes(Vec<(Change, String)>),
    /// Nothing happened for a while that is wanted; what did happen lies before this cursor.
    Heartbeat(String),
    /// The client was too slow. Nothing follows.
    Overrun,
    /// Nothing follows from here: the process stops, or what there is to follow is another one by now. The client comes back.
    End,
}

/// Somebody who follows a list.
pub struct ListFollower {
    feed: Arc<Feed>,
    filter: Filter,
    /// Behind everything that was read.
    cursor: FeedCursor,
    /// Of that, what is yet to be told.
    ready: VecDeque<(Change, String)>,
    /// The text of the cursor behind everything that was told.
    told: String,
    stage: Stage,
    _slot: Slot,
}

enum Stage {
    /// Reads for itself.
    Behind,
    /// Does so for the last time: whatever comes later is in the queue.
    Joining(Subscription),
    /// Is handed all.
    Live(Subscription),
}

/// Why following does not begin.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// By the number of those who follow.
    #[error(transparent)]
    TooMany(#[from] TooManyFollowers),
    /// By the cursor, or by Postgres.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// There is nothing to follow.
    #[error("no build of the view is active")]
    NoBuild,
}

impl From<ReadError> for Refused {
    fn from(error: ReadError) -> Self {
        Refused::Feed(error.into())
    }
}

impl ListFollower {
    /// Follows from `cursor` on, or from now on.
    pub async fn begin(feed: &Arc<Feed>, filter: Filter, cursor: Option<FeedCursor>) -> Result<Self, Refused> {
        let slot = feed.slot()?;
        let is_resumed = cursor.is_some();
        let cursor = match cursor {
            Some(cursor) => cursor,
            None => read::twice(async || feed.reader.now().await).await?.ok_or(Refused::NoBuild)?,
        };
        let (feed, told) = (Arc::clone(feed), cursor.encode(feed.reader.view));
        let (ready, stage) = (VecDeque::new(), Stage::Behind);
        let mut follower = ListFollower { feed, filter, cursor, ready, told, stage, _slot: slot };
        // A cursor that leads nowhere is refused before anything is answered, even where that is found out a build later.
        let mut leads_on = is_resumed;
        while leads_on {
            let page = follower.feed.first_page(&follower.cursor).await?;
            leads_on = page.cursor.build != follower.cursor.build;
            follower.take(page).await?;
        }
        Ok(follower)
    }

    /// The text of the cursor behind everything that was told.
    pub fn cursor(&self) -> String {
        self.told.clone()
    }

    fn behind_what_was_read(&self) -> String {
        self.cursor.encode(self.feed.reader.view)
    }

    /// What comes next. Postgres may be away for a while; the client stays.
    pub async fn next(&mut self) -> Told {
        let (silent_until, mut backoff) = (Instant::now() + HEARTBEAT, Backoff::default());
        let stopping = self.feed.resources.shutting_down.clone();
        loop {
            if !self.ready.is_empty() {
                let length = self.ready.len().min(AT_ONCE);
                let changes: Vec<(Change, String)> = self.ready.drain(..length).collect();
                if let Some((_, id)) = changes.last() {
                    self.told.clone_from(id);
                }
                return Told::Changes(changes);
            }
            let step = tokio::select! {
                biased;
                () = stopping.cancelled() => Ok(Ok(Some(Told::End))),
                step = tokio::time::timeout_at(silent_until, self.step()) => step,
            };
            match step {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(end))) => {
                    self.told = self.behind_what_was_read();
                    return end;
                }
                Ok(Err(FeedError::Expired(why))) => {
                    tracing::debug!(why, "a follower has to begin anew");
                    self.told = self.behind_what_was_read();
                    return Told::End;
                }
                Ok(Err(FeedError::Read(error))) => {
                    tracing::debug!(error = %error, "a follower waits for Postgres");
                    self.feed.rest(within(silent_until, backoff.next_wait())).await;
                }
                // It was cut short behind a page that has something to tell.
                Err(_) if !self.ready.is_empty() => {}
                Err(_) => {
                    self.note_silence();
                    self.told = self.behind_what_was_read();
                    return Told::Heartbeat(self.cursor());
                }
            }
        }
    }

    /// Goes one step on; cancelled, it has not happened. Gives the end, if it is one.
    async fn step(&mut self) -> Result<Option<Told>, FeedError> {
        if let Stage::Live(subscription) = &mut self.stage {
            let Some(item) = subscription.queue.recv().await else { return Ok(Some(end_of(subscription))) };
            let mut items = vec![item];
            while items.len() < AT_ONCE
                && let Ok(item) = subscription.queue.try_recv()
            {
                items.push(item);
            }
            let mut is_astray = false;
            for item in items {
                is_astray |= !self.handed(item);
            }
            if is_astray && let Stage::Live(subscription) = std::mem::replace(&mut self.stage, Stage::Behind) {
                // It reads for itself once more, up to where the task is by now.
                self.stage = Stage::Joining(subscription);
            }
            return Ok(None);
        }
        let page = self.feed.next_page(&self.cursor).await?;
        let is_all = page.is_all;
        self.take(page).await?;
        if is_all {
            self.stage = match std::mem::replace(&mut self.stage, Stage::Behind) {
                Stage::Behind => Stage::Joining(self.feed.subscribe(Wanted::List(self.filter.clone())).await),
                Stage::Joining(subscription) | Stage::Live(subscription) => Stage::Live(subscription),
            };
        }
        Ok(None)
    }

    /// Takes a page that was read for this client alone.
    async fn take(&mut self, page: Page) -> Result<(), FeedError> {
        let keys: HashSet<&str> = page.entries.iter().map(|(entry, _)| entry.key.as_str()).collect();
        let rows = self.feed.rows(keys).await?;
        for (entry, place) in page.entries {
            self.cursor.cut.pass(&place);
            if let Some(row) = rows.get(&entry.key).filter(|row| self.filter.matches(row)) {
                let change = change_of(entry, Arc::clone(row));
                self.ready.push_back((change, self.behind_what_was_read()));
            }
        }
        self.cursor = page.cursor;
        Ok(())
    }

    /// Takes what the task has read; tells whether it was in this client's build. It is not where the client, reading for
    /// itself, has gone further than the task, or another way.
    fn handed(&mut self, item: Item) -> bool {
        match item {
            Item::Moved(from, cursor) if from == self.cursor.build => self.cursor = (*cursor).clone(),
            Item::Moved(..) => return false,
            Item::Change(placed) if placed.build != self.cursor.build => return false,
            Item::Change(placed) => {
                if placed.came_by.is_none() {
                    self.cursor.came_by = None;
                }
                if !self.cursor.cut.covers(&placed.place) {
                    self.cursor.cut.pass(&placed.place);
                    self.ready.push_back((placed.change.clone(), self.behind_what_was_read()));
                }
            }
        }
        true
    }

    /// Everything that the task has read by now is not wanted: nobody has to read it again for this client.
    fn note_silence(&mut self) {
        if let Stage::Live(subscription) = &self.stage
            && let Some(cursor) = subscription.nothing_missed_up_to()
            && cursor.build == self.cursor.build
        {
            self.cursor.cut.join(&cursor.cut);
            self.cursor.came_by = self.cursor.came_by.and(cursor.came_by);
        }
    }
}

/// A wait that does not keep a client from hearing something in time.
fn within(silent_until: Instant, wait: Duration) -> Duration {
    wait.min(silent_until.saturating_duration_since(Instant::now()))
}

/// A queue that is closed says why.
fn end_of(subscription: &Subscription) -> Told {
    if subscription.is_overrun() { Told::Overrun } else { Told::End }
}

/// Somebody who follows one key.
pub struct KeyFollower {
    feed: Arc<Feed>,
    key: String,
    last: Sequence,
    ready: VecDeque<(Change, String)>,
    subscription: Option<Subscription>,
    is_live: bool,
    _slot: Slot,
}

impl KeyFollower {
    /// Follows `key` from the event after `last` on.
    pub fn begin(feed: &Arc<Feed>, key: &str, last: Sequence) -> Result<Self, Refused> {
        let (slot, feed, key) = (feed.slot()?, Arc::clone(feed), key.to_owned());
        Ok(KeyFollower { feed, key, last, ready: VecDeque::new(), subscription: None, is_live: false, _slot: slot })
    }

    /// The text of the cursor behind everything that was told.
    pub fn cursor(&self) -> String {
        KeyCursor(self.last).encode(self.feed.reader.view, &self.key)
    }

    /// What comes next. Postgres may be away for a while; the client stays.
    pub async fn next(&mut self) -> Told {
        let (silent_until, mut backoff) = (Instant::now() + HEARTBEAT, Backoff::default());
        let stopping = self.feed.resources.shutting_down.clone();
        loop {
            if !self.ready.is_empty() {
                return Told::Changes(self.ready.drain(..).collect());
            }
            let step = tokio::select! {
                biased;
                () = stopping.cancelled() => return Told::End,
                step = tokio::time::timeout_at(silent_until, self.step()) => step,
            };
            match step {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(end))) => return end,
                Ok(Err(error)) => {
                    tracing::debug!(error = %error, "a follower waits for Postgres");
                    self.feed.rest(within(silent_until, backoff.next_wait())).await;
                }
                Err(_) => return Told::Heartbeat(self.cursor()),
            }
        }
    }

    async fn step(&mut self) -> Result<Option<Told>, ReadError> {
        let subscription = match &mut self.subscription {
            Some(subscription) => subscription,
            None => self.subscription.insert(self.feed.subscribe(Wanted::Key(self.key.clone())).await),
        };
        if self.is_live {
            return Ok(match subscription.queue.recv().await {
                None => Some(end_of(subscription)),
                Some(Item::Moved(..)) => None,
                Some(Item::Change(placed)) => {
                    self.tell(placed.change.clone());
                    None
                }
            });
        }
        self.is_live = self.read_behind().await?;
        Ok(None)
    }

    /// Reads what lies behind; tells whether that was all.
    async fn read_behind(&mut self) -> Result<bool, ReadError> {
        let reader = &self.feed.reader;
        let Some(horizon) = changes::horizon(&reader.pool, reader.view, None).await? else {
            // No build is active: looked at again, though not at once.
            self.feed.rest(POLL).await;
            return Ok(false);
        };
        let build = BuildId { view: reader.view, build: horizon.active };
        let entries = changes::of_key(&reader.pool, build, (&self.key, self.last), PAGE).await?;
        let (is_all, rows) = (entries.len() < PAGE, self.feed.rows(HashSet::from([self.key.as_str()])).await?);
        if let Some(row) = rows.get(&self.key) {
            for (sequence, event_id, event_type, effect) in entries {
                let (key, shown) = (self.key.clone(), Arc::clone(row));
                let (event_type, effect) = (Some(event_type), Some(effect));
                self.tell(Change { key, sequence, event_id, event_type, effect, shown });
            }
        }
        Ok(is_all)
    }

    fn tell(&mut self, change: Change) {
        if change.sequence > self.last {
            self.last = change.sequence;
            self.ready.push_back((change, self.cursor()));
        }
    }
}

/// Somebody who follows one key of a view that keeps no ledger: it is told how the row is whenever that has changed, and
/// what happened between two looks is told as one.
pub struct RowFollower {
    feed: Arc<Feed>,
    waiters: Arc<Waiters>,
    key: String,
    last: Sequence,
    _slot: Slot,
}

impl RowFollower {
    /// Follows `key` from the event after `last` on.
    pub fn begin(feed: &Arc<Feed>, waiters: &Arc<Waiters>, key: &str, last: Sequence) -> Result<Self, Refused> {
        let (slot, feed, waiters) = (feed.slot()?, Arc::clone(feed), Arc::clone(waiters));
        Ok(RowFollower { feed, waiters, key: key.to_owned(), last, _slot: slot })
    }

    /// The text of the cursor behind everything that was told.
    pub fn cursor(&self) -> String {
        KeyCursor(self.last).encode(self.feed.reader.view, &self.key)
    }

    /// What comes next. Postgres may be away for a while; the client stays.
    pub async fn next(&mut self) -> Told {
        let (silent_until, mut backoff) = (Instant::now() + HEARTBEAT, Backoff::default());
        // Where a ledger is kept by now it tells more: the client comes back to that.
        while !self.feed.is_stopping() && !self.feed.keeps_ledger() {
            let left = silent_until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Told::Heartbeat(self.cursor());
            }
            let seen = self.waiters.seen_commits();
            match self.feed.rows(HashSet::from([self.key.as_str()])).await {
                Ok(rows) => match rows.get(&self.key).filter(|row| row.sequence > self.last) {
                    Some(row) => return Told::Changes(vec![self.change(row)]),
                    None => self.waiters.until(&self.key, self.last.next().0, seen, left).await,
                },
                Err(error) => {
                    tracing::debug!(error = %error, "a follower waits for Postgres");
                    self.feed.rest(backoff.next_wait().min(left)).await;
                }
            }
        }
        Told::End
    }

    fn change(&mut self, row: &Arc<Shown>) -> (Change, String) {
        self.last = row.sequence;
        let (key, event_id, shown) = (self.key.clone(), row.event_id.clone(), Arc::clone(row));
        let change = Change { key, sequence: row.sequence, event_id, event_type: None, effect: None, shown };
        (change, self.cursor())
    }
}

/// Anybody who follows.
pub enum Follower {
    /// A list.
    List(Box<ListFollower>),
    /// One key.
    Key(KeyFollower),
    /// One key of a view without a ledger.
    Row(RowFollower),
}

impl Follower {
    /// The text of the cursor behind everything that was told.
    pub fn cursor(&self) -> String {
        match self {
            Follower::List(follower) => follower.cursor(),
            Follower::Key(follower) => follower.cursor(),
            Follower::Row(follower) => follower.cursor(),
        }
    }

    /// Whether the process is stopping.
    pub fn is_stopping(&self) -> bool {
        match self {
            Follower::List(follower) => follower.feed.is_stopping(),
            Follower::Key(follower) => follower.feed.is_stopping(),
            Follower::Row(follower) => follower.feed.is_stopping(),
        }
    }

    /// What comes next.
    pub async fn next(&mut self) -> Told {
        match self {
            Follower::List(follower) => follower.next().await,
            Follower::Key(follower) => follower.next().await,
            Follower::Row(follower) => follower.next().await,
        }
    }
}
