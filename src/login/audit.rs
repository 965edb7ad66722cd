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
use crate::store::audit::{self, AuditEntry};
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

/// Refusals of which these are alike are one entry.
#[derive(PartialEq, Eq, Hash)]
struct Alike {
    principal: Option<String>,
    method: String,
    route: String,
    status: i32,
    code: Option<String>,
    address: String,
}

#[derive(Default)]
struct Waiting {
    calls: Vec<AuditEntry>,
    refusals: HashMap<Alike, AuditEntry>,
    /// Beyond the bound.
    lost: u64,
}

impl Waiting {
    fn is_full(&self) -> bool {
        self.calls.len() + self.refusals.len() >= WAITING
    }

    fn note(&mut self, entry: AuditEntry) {
        if !matches!(entry.status, 401 | 403 | 429) {
            match self.is_full() {
                true => self.lost += 1,
                false => self.calls.push(entry),
            }
            return;
        }
        let alike = Alike {
            principal: entry.principal.clone(),
            method: entry.method.clone(),
            route: entry.route.clone(),
            status: entry.status,
            code: entry.code.clone(),
            address: entry.address.clone(),
        };
        let is_full = self.is_full();
        match self.refusals.get_mut(&alike) {
            Some(first) => first.calls = first.calls.saturating_add(entry.calls),
            None if is_full => self.lost += 1,
            None => {
                self.refusals.insert(alike, entry);
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
        let (mut is_blind, mut forgot) = (false, None::<Instant>);
        loop {
            crash::point("part.audit");
            let is_over = stop.is_cancelled();
            match self.write(&database).await {
                Ok(()) => is_blind = false,
                Err(error) => {
                    if !is_blind {
                        tracing::warn!(error, "calls wait for the audit log, which cannot be written");
                    }
                    is_blind = true;
                }
            }
            if is_over {
                return;
            }
            if settings.retention_days > 0 && !is_blind && forgot.is_none_or(|forgot| forgot.elapsed() >= FORGET) {
                forgot = Some(Instant::now());
                forget(&settings, &database).await;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(FORGET) => {}
                () = self.0.noted.notified() => sleep(if is_blind { AGAIN } else { GATHER }).await,
            }
        }
    }

    async fn write(&self, database: &DatabaseSettings) -> Result<(), String> {
        let Waiting { calls, refusals, lost } = std::mem::take(&mut *self.waiting());
        if lost > 0 {
            tracing::error!(lost, "calls are missing from the audit log: too many waited for it");
        }
        let mut entries: Vec<AuditEntry> = calls.into_iter().chain(refusals.into_values()).collect();
        if entries.is_empty() {
            return Ok(());
        }
        entries.sort_by_key(|entry| entry.at);
        let written = async { audit::insert(&pool::connect_operator(database).await?, &entries).await };
        written.await.map_err(|error| {
            let mut waiting = self.waiting();
            entries.into_iter().for_each(|entry| waiting.note(entry));
            self.0.noted.notify_one();
            describe(&error)
        })
    }
}

async fn forget(settings: &AuditSettings, database: &DatabaseSettings) {
    let forgotten = async {
        let client = pool::connect_operator(database).await?;
        while audit::forget(&client, settings.retention_days, FORGOTTEN).await? == FORGOTTEN as u64 {}
        Ok::<(), crate::store::DbError>(())
    };
    if let Err(error) = forgotten.await {
        tracing::warn!(error = describe(&error), "what is old stays in the audit log for now");
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn call(status: i32, address: usize) -> AuditEntry {
        AuditEntry {
            at: Timestamp::UNIX_EPOCH,
            principal: None,
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
    fn refusals_that_are_alike_are_one_entry_and_what_waits_is_bounded() {
        let mut waiting = Waiting::default();
        for _ in 0..50_000 {
            waiting.note(call(401, 1));
        }
        waiting.note(call(202, 1));
        waiting.note(call(202, 1));
        assert_eq!((waiting.calls.len(), waiting.refusals.len(), waiting.lost), (2, 1, 0));
        assert_eq!(waiting.refusals.values().map(|entry| entry.calls).collect::<Vec<_>>(), [50_000]);
        for address in 2..WAITING + 2 {
            waiting.note(call(401, address));
        }
        assert_eq!((waiting.calls.len() + waiting.refusals.len(), waiting.lost), (WAITING, 3));
        waiting.note(call(401, 1));
        waiting.note(call(202, 1));
        assert_eq!(waiting.lost, 4, "what is alike still counts");
    }
}
