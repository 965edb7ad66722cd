//! The audit log: calls are noted in memory and written a moment later, many at once. What cannot be written waits, up to a
//! bound; what is beyond it is counted and said.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::config::{AuditSettings, DatabaseSettings};
use crate::crash;
use crate::store::DbError;
use crate::store::audit::{self, AuditEntry, is_refusal};
use crate::store::pool;
use crate::store::sqlstate::describe;

/// How long calls are gathered.
const GATHER: Duration = Duration::from_millis(250);
/// Between two attempts while nothing can be written.
const AGAIN: Duration = Duration::from_secs(2);
/// Entries that may wait.
const WAITING: usize = 10_000;
/// Between two looks for what is old.
const FORGET: Duration = Duration::from_secs(600);
/// Rows that are taken away at a time.
const FORGOTTEN: i64 = 10_000;
/// Rows of one statement: however much has waited, Postgres is sent no message that it does not take.
const SLICE: usize = 1_000;
/// The route where everybody comes and goes, whoever they are.
const SESSION: &str = "/session";

/// Calls of which these are alike are one entry, where they change nothing or nobody has logged in to make them.
#[derive(PartialEq, Eq, Hash)]
struct Alike {
    principal: Option<String>,
    method: String,
    route: String,
    /// Of a refusal it does not matter.
    target: Option<String>,
    status: i32,
    code: Option<String>,
    address: String,
}

impl Alike {
    /// | call | together with those that are alike |
    /// |---|---|
    /// | refused | yes, whatever path |
    /// | of nobody, and it fails, or somebody who is not signed in signs out | yes |
    /// | any other | no |
    fn of(entry: &AuditEntry) -> Option<Alike> {
        let is_refused = is_refusal(entry.status);
        let changes_nothing = entry.status >= 400 || entry.route == SESSION;
        let is_alike = is_refused || entry.principal.is_none() && changes_nothing;
        is_alike.then(|| Alike {
            principal: entry.principal.clone(),
            method: entry.method.clone(),
            route: entry.route.clone(),
            target: (!is_refused).then(|| entry.target.clone()),
            status: entry.status,
            code: entry.code.clone(),
            address: entry.address.clone(),
        })
    }
}

#[derive(Default)]
struct Waiting {
    calls: Vec<AuditEntry>,
    alike: HashMap<Alike, AuditEntry>,
    /// Beyond the bound.
    lost: u64,
}

impl Waiting {
    fn is_full(&self) -> bool {
        self.calls.len() + self.alike.len() >= WAITING
    }

    fn note(&mut self, entry: AuditEntry) {
        let is_full = self.is_full();
        let Some(alike) = Alike::of(&entry) else {
            match is_full {
                true => self.lost += 1,
                false => self.calls.push(entry),
            }
            return;
        };
        match self.alike.get_mut(&alike) {
            Some(first) => first.calls = first.calls.saturating_add(entry.calls),
            None if is_full => self.lost += 1,
            None => {
                self.alike.insert(alike, entry);
            }
        }
    }
}

/// Where calls are noted.
#[derive(Clone, Default)]
pub struct AuditLog(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    noted: Notify,
}

impl AuditLog {
    /// Notes a call.
    pub fn note(&self, entry: AuditEntry) {
        self.waiting().note(entry);
        self.0.noted.notify_one();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what is noted until `stop`, and then what is left.
    pub async fn run(self, settings: AuditSettings, database: DatabaseSettings, stop: CancellationToken) {
        let (mut is_blind, mut is_stuck, mut forgot) = (false, false, None::<Instant>);
        loop {
            crash::point("part.audit");
            let is_over = stop.is_cancelled();
            if let Some(error) = new_trouble(&mut is_blind, self.write(&database).await) {
                tracing::warn!(error, "calls wait for the audit log, which cannot be written");
            }
            if is_over {
                return;
            }
            if settings.retention_days > 0 && !is_blind && forgot.is_none_or(|forgot| forgot.elapsed() >= FORGET) {
                forgot = Some(Instant::now());
                if let Some(error) = new_trouble(&mut is_stuck, forget(&settings, &database).await) {
                    tracing::warn!(
                        error,
                        "what is old stays in the audit log, and this is told once; `streamview doctor` names a grant that is missing"
                    );
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(FORGET) => {}
                () = self.0.noted.notified() => sleep(if is_blind { AGAIN } else { GATHER }).await,
            }
        }
    }

    async fn write(&self, database: &DatabaseSettings) -> Result<(), String> {
        let Waiting { calls, alike, lost } = std::mem::take(&mut *self.waiting());
        if lost > 0 {
            tracing::error!(lost, "calls are missing from the audit log: too many waited for it");
        }
        let mut entries: Vec<AuditEntry> = calls.into_iter().chain(alike.into_values()).collect();
        if entries.is_empty() {
            return Ok(());
        }
        entries.sort_by_key(|entry| entry.at);
        let mut written = 0;
        let outcome = async {
            let client = pool::connect_operator(database).await?;
            for slice in entries.chunks(SLICE) {
                audit::insert(&client, slice).await?;
                written += slice.len();
            }
            Ok::<(), DbError>(())
        };
        let outcome = outcome.await;
        outcome.map_err(|error| {
            let mut waiting = self.waiting();
            entries.into_iter().skip(written).for_each(|entry| waiting.note(entry));
            self.0.noted.notify_one();
            describe(&error)
        })
    }
}

/// What trouble begins with. Each time that it is met again until something has worked it is told no more.
fn new_trouble(is_in_trouble: &mut bool, outcome: Result<(), String>) -> Option<String> {
    let is_known = std::mem::replace(is_in_trouble, outcome.is_err());
    outcome.err().filter(|_| !is_known)
}

async fn forget(settings: &AuditSettings, database: &DatabaseSettings) -> Result<(), String> {
    let forgotten = async {
        let client = pool::connect_operator(database).await?;
        while audit::forget(&client, settings.retention_days, FORGOTTEN).await? == FORGOTTEN as u64 {}
        Ok::<(), DbError>(())
    };
    forgotten.await.map_err(|error| describe(&error))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn call(status: i32, address: usize) -> AuditEntry {
        AuditEntry {
            at: Timestamp::UNIX_EPOCH,
            principal: Some("ada".to_owned()),
            method: "POST".to_owned(),
            route: "/ops/held/skip".to_owned(),
            target: "/ops/held/skip".to_owned(),
            status,
            code: None,
            trace_id: "t".to_owned(),
            address: address.to_string(),
            calls: 1,
        }
    }

    #[test]
    fn trouble_is_told_when_it_begins_and_when_it_begins_again() {
        let mut is_in_trouble = false;
        let denied = || Err("permission denied".to_owned());
        let told = [Ok(()), denied(), denied(), denied(), Ok(()), denied()]
            .map(|outcome| new_trouble(&mut is_in_trouble, outcome).is_some());
        assert_eq!(told, [false, true, false, false, false, true]);
    }

    #[test]
    fn refusals_that_are_alike_are_one_entry_and_what_waits_is_bounded() {
        let mut waiting = Waiting::default();
        for _ in 0..50_000 {
            waiting.note(call(401, 1));
        }
        waiting.note(call(202, 1));
        waiting.note(call(202, 1));
        assert_eq!((waiting.calls.len(), waiting.alike.len(), waiting.lost), (2, 1, 0));
        assert_eq!(waiting.alike.values().map(|entry| entry.calls).collect::<Vec<_>>(), [50_000]);
        for address in 2..WAITING + 2 {
            waiting.note(call(401, address));
        }
        assert_eq!((waiting.calls.len() + waiting.alike.len(), waiting.lost), (WAITING, 3));
        waiting.note(call(401, 1));
        waiting.note(call(202, 1));
        assert_eq!(waiting.lost, 4, "what is alike still counts");
    }

    #[test]
    fn what_nobody_changes_is_one_entry_and_what_somebody_decides_is_each_its_own() {
        let nobody = |route: &str, target: &str, status| {
            let (route, target) = (route.to_owned(), target.to_owned());
            AuditEntry { principal: None, route, target, ..call(status, 1) }
        };
        let noted = |entries: Vec<AuditEntry>| {
            let mut waiting = Waiting::default();
            entries.into_iter().for_each(|entry| waiting.note(entry));
            (waiting.calls.len(), waiting.alike.len())
        };
        for (route, target, status) in [
            ("/session", "/session", 204),
            ("/session", "/session", 400),
            ("/ops/held/{key}/skip", "/ops/held/a/skip", 404),
        ] {
            assert_eq!(noted(vec![nobody(route, target, status); 50_000]), (0, 1), "{route} {status}");
        }
        // Where nobody logs in: what is decided, and about what.
        let skip = |key: &str, status| nobody("/ops/held/{key}/skip", &format!("/ops/held/{key}/skip"), status);
        assert_eq!(noted(vec![skip("a", 202), skip("a", 202)]), (2, 0));
        assert_eq!(noted(vec![skip("a", 404), skip("b", 404)]), (0, 2));
        assert_eq!(noted(vec![skip("a", 403), skip("b", 403)]), (0, 1));
        assert_eq!(noted(vec![call(404, 1), call(404, 1), call(204, 1)]), (3, 0));
    }
}
