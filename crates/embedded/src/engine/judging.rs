//! A text is judged where it may take its time: never on the thread of who asks, two at once, for so long and no longer, and first
//! where it harms nobody ([`Trial`]).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use streamview_manager::engines::{Explained, Select, Trouble};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::{Inner, blocking, refused};
use crate::plan::{Limits, Prepared, Purpose};
use crate::trial::Trial;
use crate::views;

/// How many texts are judged at once: each takes a core.
const AT_ONCE: usize = 2;
/// How long a text may wait for its turn.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How long it may then be judged, whatever else the machine does: what it takes of a core is bounded by its trial.
const LONGEST: Duration = Duration::from_secs(60);

/// The turns.
pub(super) struct Judging {
    turns: Arc<Semaphore>,
    wait: Duration,
    longest: Duration,
    trial: Option<Trial>,
    limits: Limits,
}

impl Judging {
    pub(super) fn new(trial: Option<Trial>, limits: Limits) -> Judging {
        Judging { turns: Arc::new(Semaphore::new(AT_ONCE)), wait: LONGEST_WAIT, longest: LONGEST, trial, limits }
    }

    /// Has a text judged that nobody has judged yet, for the first of these purposes that it may have.
    ///
    /// | | |
    /// |---|---|
    /// | the others take too long | [`Trouble::Busy`] |
    /// | the text takes too long, or more than it may | `limit_exceeded` |
    pub(super) async fn judged<T: Send + 'static>(
        &self,
        (text, purposes): (&Select, &[Purpose]),
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Trouble> {
        let turn = timeout(self.wait, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = turn.map_err(|_| busy())?.expect("the turns are never closed");
        let judged = async {
            // It ends with whoever waits for it, and so does its turn.
            if let Some(trial) = &self.trial {
                trial.of(text, purposes, &self.limits).await?;
            }
            in_turn(turn, work).await
        };
        timeout(self.longest, judged).await.map_err(|_| too_slow(self.longest))?
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

    /// One turn, with this trial.
    fn judging(longest: Duration, trial: Option<&str>) -> Judging {
        let sh = |does: &str| Trial { program: "/bin/sh".into(), arguments: vec!["-c".to_owned(), does.to_owned()] };
        let turns = Arc::new(Semaphore::new(1));
        Judging { turns, wait: Duration::from_millis(10), longest, trial: trial.map(sh), limits: Limits::default() }
    }

    fn text() -> Select {
        Select { sql: "select 1".to_owned(), sources: Vec::new() }
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_keeps_its_turn_until_it_is_done() {
        let hasty = judging(Duration::from_millis(10), None);
        let (go_on, wait) = mpsc::channel::<()>();
        let slow = hasty.judged((&text(), &[]), move || wait.recv().is_ok()).await;
        assert!(matches!(&slow, Err(Trouble::Refused(why)) if why.code == "limit_exceeded"), "{slow:?}");
        let beside = hasty.judged((&text(), &[]), || ()).await;
        assert!(matches!(beside, Err(Trouble::Busy { .. })), "{beside:?}");

        go_on.send(()).unwrap();
        assert_eq!(hasty.judged_again(|| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn a_trial_that_nobody_waits_for_any_more_takes_no_turn() {
        let hasty = judging(Duration::from_millis(10), Some("while :; do read -r case; done"));
        let slow = hasty.judged((&text(), &[]), || ()).await;
        assert!(matches!(&slow, Err(Trouble::Refused(why)) if why.code == "limit_exceeded"), "{slow:?}");
        assert_eq!(hasty.turns.available_permits(), 1);
    }

    #[tokio::test]
    async fn what_does_not_pass_its_trial_is_not_judged() {
        let strict = judging(Duration::from_secs(60), Some("ulimit -c 0; kill -ABRT $$"));
        let judged = strict.judged((&text(), &[]), || 7).await;
        assert!(matches!(&judged, Err(Trouble::Refused(why)) if why.code == "limit_exceeded"), "{judged:?}");
        let mild = judging(Duration::from_secs(60), Some("exit 86"));
        assert_eq!(mild.judged((&text(), &[]), || 7).await, Ok(7));
    }
}
