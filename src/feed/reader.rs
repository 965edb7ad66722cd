//! Reads the ledger of a view from where somebody stopped, page by page, from build to build.
//!
//! A cursor names a build. While that is the active one, its ledger is read on: a build that was fed all the time has every
//! row, whatever readers have read meanwhile. Else the old build's ledger is read to where readers were taken from it
//! (`from_commits`), and then the new one's beyond what the old one had by then (`to_commits`), without the rows that the
//! old one had all the same. Builds may have been switched several times since.

use std::collections::HashMap;

use crate::domain::build::{Build, BuildId};
use crate::domain::changes::{Cut, FeedCursor, Place};
use crate::domain::units::Partition;
use crate::feed::merge::{Merged, Read};
use crate::store::changes::{self, Ahead, Entry, Horizon, Switch};
use crate::store::read::{ReadError, ReadPool};

/// Why there is no next page.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FeedError {
    /// What lies between the cursor and now cannot be told any more; in words.
    #[error("{0}")]
    Expired(String),
    /// Postgres did not answer.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// What came next.
#[derive(Debug)]
pub struct Page {
    /// Rows of the ledger in an order that keeps that of each key.
    pub entries: Vec<(Entry, Place)>,
    /// Behind them. Of another build: the old one is done with.
    pub cursor: FeedCursor,
    /// Whether that was all there was at the moment of looking.
    pub is_all: bool,
}

/// Reads the ledgers of one view.
#[derive(Clone)]
pub struct Reader {
    /// The view.
    pub view: &'static str,
    /// Reads.
    pub pool: ReadPool,
    /// Reads of the server that is written to, where `pool` may be of one that is behind it.
    pub primary: Option<ReadPool>,
}

impl Reader {
    /// Behind everything that there is now; `None` while no build is active.
    pub async fn now(&self) -> Result<Option<FeedCursor>, ReadError> {
        let horizon = changes::horizon(&self.pool, self.view, None).await?;
        Ok(horizon.map(|Horizon { active, commits }| FeedCursor {
            build: active,
            came_by: None,
            cut: Cut::at(commits),
        }))
    }

    /// The next page behind `cursor`, of about `limit` rows.
    ///
    /// A client may have got its cursor where more was known than on this standby: of a commit, or of a build, that is not here yet.
    /// So what leads nowhere here is held against the primary: if it leads on there, what follows has yet to arrive.
    pub async fn next(&self, cursor: &FeedCursor, limit: usize) -> Result<Page, FeedError> {
        match (self.next_here(cursor, limit).await, &self.primary) {
            (Err(FeedError::Expired(_)), Some(primary)) => {
                let there = Reader { pool: primary.clone(), primary: None, ..*self };
                there.check(cursor).await?;
                Ok(Page { entries: Vec::new(), cursor: cursor.clone(), is_all: true })
            }
            (page, _) => page,
        }
    }

    /// Whether what lies behind `cursor` can be told.
    async fn check(&self, cursor: &FeedCursor) -> Result<(), FeedError> {
        let Some(horizon) = changes::horizon(&self.pool, self.view, Some(cursor.build)).await? else { return Ok(()) };
        if horizon.active == cursor.build {
            return check_future(cursor, &horizon.commits);
        }
        self.way_on(cursor).await.map(|_| ())
    }

    async fn next_here(&self, cursor: &FeedCursor, limit: usize) -> Result<Page, FeedError> {
        let Some(horizon) = changes::horizon(&self.pool, self.view, Some(cursor.build)).await? else {
            return Ok(Page { entries: Vec::new(), cursor: cursor.clone(), is_all: true });
        };
        let leaving = if horizon.active == cursor.build { None } else { Some(self.way_on(cursor).await?) };
        let until = leaving.as_ref().map_or(&horizon.commits, |switch| &switch.from_commits);
        if leaving.is_none() {
            check_future(cursor, until)?;
        }
        let ahead = ahead_of(&cursor.cut, until);
        if ahead.is_empty() {
            return Ok(match leaving {
                Some(switch) => moved(&switch),
                None => at_the_end(cursor.clone()),
            });
        }
        let limit = (limit / ahead.len()).max(1);
        let Merged { entries, cut, is_all } =
            self.read(cursor, &ahead, limit).await.map_err(|error| gone(error, cursor))?;
        let mut cursor = FeedCursor { cut, ..cursor.clone() };
        let entries = self.without_known(&cursor, entries).await?;
        let is_all = is_all && leaving.is_none();
        if is_all {
            // Whatever the build before had lies behind: it had no more when readers were taken from it.
            cursor.came_by = None;
        }
        Ok(Page { entries, cursor, is_all })
    }

    /// The switch by which a reader goes on: the last one away from its build, since that one's ledger is whole until then.
    /// It comes after the one by which the reader came, or readers were taken elsewhere without a trace.
    async fn way_on(&self, cursor: &FeedCursor) -> Result<Switch, FeedError> {
        let build = cursor.build;
        match changes::last_switch(&self.pool, BuildId { view: self.view, build }).await? {
            Some(switch) if !switch.is_old_kept => Err(FeedError::Expired(format!(
                "build {build}, which readers read for a while, keeps no history: what has changed meanwhile was not noted"
            ))),
            Some(switch) if switch.is_old_there && cursor.came_by.is_none_or(|came_by| came_by < switch.id) => {
                Ok(switch)
            }
            _ => Err(expired(build)),
        }
    }

    async fn read(&self, cursor: &FeedCursor, ahead: &[Ahead], limit: usize) -> Result<Merged, ReadError> {
        let build = BuildId { view: self.view, build: cursor.build };
        let entries = changes::page(&self.pool, build, ahead, limit.saturating_add(1)).await?;
        let mut read = Read::new(ahead, entries, limit);
        let open = read.open();
        if !open.is_empty() {
            let rows: Vec<_> = open.iter().map(|row| read.row(*row)).collect();
            for (place, earlier) in changes::earlier(&self.pool, build, &rows).await? {
                if let Some(row) = open.get(place) {
                    read.wait(*row, earlier);
                }
            }
        }
        let mut merged = read.merge(cursor.cut.clone());
        merged.entries.retain(|(entry, _)| entry.is_there);
        Ok(merged)
    }

    /// Without the rows that were told from the build that the reader came from.
    async fn without_known(
        &self,
        cursor: &FeedCursor,
        entries: Vec<(Entry, Place)>,
    ) -> Result<Vec<(Entry, Place)>, FeedError> {
        let Some(id) = cursor.came_by.filter(|_| !entries.is_empty()) else { return Ok(entries) };
        let switch = changes::switch_of_id(&self.pool, self.view, id).await?;
        let Some(switch) = switch.filter(|switch| switch.is_old_there) else {
            return Err(FeedError::Expired(format!(
                "what build {} has is to be told without what the one before it had, and that one is gone",
                cursor.build
            )));
        };
        let rows: Vec<_> = entries.iter().map(|(entry, _)| (entry.key.as_str(), entry.sequence)).collect();
        let old = BuildId { view: self.view, build: switch.from };
        let known = changes::known(&self.pool, old, &rows, &switch.from_commits).await;
        let known = known.map_err(|error| gone(error, cursor))?;
        let told = entries.into_iter().enumerate().filter(|(place, _)| !known.contains(place));
        Ok(told.map(|(_, entry)| entry).collect())
    }
}

fn expired(build: Build) -> FeedError {
    FeedError::Expired(format!("build {build} is not there any more, or readers were taken from it without a trace"))
}

/// The tables of a build may go while they are asked for.
fn gone(error: ReadError, cursor: &FeedCursor) -> FeedError {
    if changes::is_gone(&error) { expired(cursor.build) } else { error.into() }
}

/// A database that was taken back to an earlier moment has not what the cursor has seen.
fn check_future(cursor: &FeedCursor, commits: &HashMap<Partition, i64>) -> Result<(), FeedError> {
    for (partition, reached) in cursor.cut.partitions() {
        let last = commits.get(&partition).copied().unwrap_or(0);
        if reached.commit > last || reached.rows > 0 && reached.commit == last {
            return Err(FeedError::Expired(format!(
                "the cursor has seen commit {} of partition {partition}, and build {} has {last}: it is another one by now",
                reached.commit + i64::from(reached.rows > 0),
                cursor.build
            )));
        }
    }
    Ok(())
}

fn ahead_of(cut: &Cut, until: &HashMap<Partition, i64>) -> Vec<Ahead> {
    let ahead = until.iter().map(|(partition, until)| Ahead {
        partition: *partition,
        from: cut.reached(*partition),
        until: *until,
    });
    ahead.filter(|ahead| ahead.from.commit < ahead.until).collect()
}

fn moved(switch: &Switch) -> Page {
    let cut = Cut::at(switch.to_commits.iter().map(|(partition, commit)| (*partition, *commit)));
    let cursor = FeedCursor { build: switch.to, came_by: Some(switch.id), cut };
    Page { entries: Vec::new(), cursor, is_all: false }
}

fn at_the_end(cursor: FeedCursor) -> Page {
    Page { entries: Vec::new(), cursor: FeedCursor { came_by: None, ..cursor }, is_all: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(partition: i32, commit: i64, rows: i64) -> FeedCursor {
        let mut cut = Cut::at([(Partition(partition), commit)]);
        if rows > 0 {
            cut.pass(&Place { partition: Partition(partition), commit: commit + 1, rank: rows, is_last: false });
        }
        FeedCursor { build: Build(1), came_by: None, cut }
    }

    #[test]
    fn a_cursor_of_a_future_that_never_came_is_refused() {
        let commits = HashMap::from([(Partition(0), 5)]);
        for (partition, commit, rows, is_right) in
            [(0, 5, 0, true), (0, 4, 3, true), (0, 5, 1, false), (0, 6, 0, false), (1, 1, 0, false), (1, 0, 0, true)]
        {
            let checked = check_future(&cursor(partition, commit, rows), &commits);
            assert_eq!(checked.is_ok(), is_right, "{partition} {commit} {rows}");
        }
    }
}
