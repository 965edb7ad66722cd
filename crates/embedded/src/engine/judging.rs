//! A text is judged where it may take its time: never on the thread of who asks, two at once, and for so long and no longer.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use streamview_manager::engines::{Explained, Select, Trouble};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::{Inner, blocking, refused};
use crate::plan::{Prepared, Purpose};
use crate::views;

/// How many texts are judged at once: each takes a core.
const AT_ONCE: usize = 2;
/// How long a text may wait for its turn, and how long it may then be judged, which takes milliseconds.
const LONGEST: Duration = Duration::from_secs(10);

/// The turns.
pub(super) struct Judging {
    turns: Arc<Semaphore>,
    longest: Duration,
}

impl Default for Judging {
    fn default() -> Judging {
        Judging { turns: Arc::new(Semaphore::new(AT_ONCE)), longest: LONGEST }
    }
}

impl Judging {
    /// Has a text judged.
    ///
    /// | | |
    /// |---|---|
    /// | the others take too long | [`Trouble::Busy`] |
    /// | the text takes too long | `limit_exceeded`; its turn is free once the work is done, whoever waits for it |
    pub(super) async fn judged<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Trouble> {
        let turn = timeout(self.longest, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = turn.map_err(|_| busy())?.expect("the turns are never closed");
        timeout(self.longest, in_turn(turn, work)).await.map_err(|_| too_slow(self.longest))?
    }

    /// Has a text judged that was judged before and was right: it is waited for as long as that takes. A machine that is slow now
    /// is no fault of the text.
    pub(super) async fn judged_again<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Trouble> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.expect("the turns are never closed");
        in_turn(turn, work).await
    }
}

/// The turn goes with the work, which goes on when nobody waits for it any more.
async fn in_turn<T: Send + 'static>(
    turn: OwnedSemaphorePermit,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Trouble> {
    let judged = blocking(move || {
        let judged = work();
        drop(turn);
        judged
    });
    judged.await
}

fn busy() -> Trouble {
    Trouble::Busy {
        reason: format!("{AT_ONCE} texts are being judged, and take long: try again"),
        retry_after: Some(Duration::from_secs(5)),
    }
}

fn too_slow(longest: Duration) -> Trouble {
    let text = format!(
        "the statement takes longer than {} s to be judged, and is given up: take it apart, or write less that is computed \
         beforehand",
        longest.as_secs()
    );
    refused("limit_exceeded", text)
}

impl Inner {
    /// What a text is, if it may run.
    pub(super) fn prepare(&self, select: &Select, purpose: Purpose) -> Result<Prepared, Trouble> {
        let views = self.outside.views.as_ref();
        let refused_by_name = |refusal| Trouble::Refused(views::told(refusal, select, views));
        let prepared = Prepared::new(select, purpose, &self.settings.limits).map_err(refused_by_name)?;
        let mut topics = HashSet::new();
        if let Some(twice) = prepared.streams().iter().find(|source| !topics.insert(&source.topic)) {
            return Err(refused("same_topic", format!("{} reads topic {} once more", twice.name, twice.topic)));
        }
        Ok(prepared)
    }

    /// How it will be done, and what is to be known of its tables.
    fn explained(&self, prepared: &Prepared) -> String {
        let every = self.settings.table_refresh.as_millis();
        let mut text = String::new();
        for table in prepared.tables() {
            text += &match table.is_view() {
                true => format!(
                    "-- Table {}: a view of this service, read whole before the first row, and again once it has changed, each {every} \
                     ms at most and for a tenth of the time at most. Rows meet it as it was when it was read last; ",
                    table.name
                ),
                false => format!(
                    "-- Table {}: topic {} is read whole before the first row and kept up. Rows meet it as of its last refresh, each \
                     {every} ms at the latest; ",
                    table.name, table.topic
                ),
            };
            text += "those that are read again after a restart meet it as it is then.\n";
        }
        text + &prepared.explain()
    }

    /// What a text is, even if it can be looked at only.
    pub(super) fn explain(&self, select: &Select) -> Result<Explained, Trouble> {
        let (prepared, only_adhoc) = match self.prepare(select, Purpose::Persistent) {
            Ok(prepared) => (prepared, None),
            Err(trouble) => match (self.prepare(select, Purpose::AdHoc), trouble) {
                // It can be looked at, and no more.
                (Ok(prepared), Trouble::Refused(refusal)) => (prepared, Some(refusal)),
                (_, trouble) => return Err(trouble),
            },
        };
        Ok(Explained {
            columns: prepared.columns().to_vec(),
            changes: prepared.changes(),
            plan: self.explained(&prepared),
            only_adhoc,
        })
    }

    /// Whether the one text may go on with the state of the other; else why not.
    pub(super) fn keeps_state(&self, old: &Select, new: &Select) -> Result<(), String> {
        let prepare =
            |select: &Select| self.prepare(select, Purpose::Persistent).map_err(|trouble| trouble.to_string());
        let (old, new) = (prepare(old)?, prepare(new)?);
        let topics = |prepared: &Prepared| -> Vec<String> {
            prepared.streams().iter().map(|source| source.topic.clone()).collect()
        };
        if topics(&old) != topics(&new) {
            return Err("it reads other topics than before: their positions say nothing of these".to_owned());
        }
        match (old.window(), new.window()) {
            (None, None) => Ok(()),
            (Some(before), Some(now)) if before == now && old.times() == new.times() => Ok(()),
            (Some(_), Some(_)) => {
                Err("its windows are others than before: what was written of them cannot be told from what is to come"
                    .to_owned())
            }
            (None, Some(_)) => {
                Err("it has a window now: rows that were read before would be missing in the first ones".to_owned())
            }
            (Some(_), None) => {
                Err("it has no window any more: rows of those that are open would be written a second time".to_owned())
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_keeps_its_turn_until_it_is_done() {
        let turns = Arc::new(Semaphore::new(1));
        let hasty = Judging { turns: Arc::clone(&turns), longest: Duration::from_millis(10) };
        let (go_on, wait) = mpsc::channel::<()>();
        let slow = hasty.judged(move || wait.recv().is_ok()).await;
        assert!(matches!(&slow, Err(Trouble::Refused(why)) if why.code == "limit_exceeded"), "{slow:?}");
        let beside = hasty.judged(|| ()).await;
        assert!(matches!(beside, Err(Trouble::Busy { .. })), "{beside:?}");

        go_on.send(()).unwrap();
        let patient = Judging { turns, longest: Duration::from_secs(60) };
        assert_eq!(patient.judged(|| 7).await, Ok(7));
    }
}
