//! Verifies a build: folds its keys again, from its ledger or from the log, and compares what they should be with the rows that
//! are stored. Writes nothing but temporary tables of its own session.
//!
//! Each page of keys is read in one snapshot of everything, which is committed together: whatever is projected meanwhile makes
//! no difference. Bounded by `KEYS_AT_ONCE`, `EVENTS_AT_ONCE` and `BYTES_AT_ONCE`, and what is held of the log by
//! `rebuild.memory_bytes`; a single key is folded in one piece.

mod by_ledger;
mod by_log;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(super) use self::by_ledger::{ByLedger, Ends};
use self::by_log::ByLog;
use super::BuildError;
use super::from_log::{self, LogFault, Wanted};
use crate::domain::build::BuildId;
use crate::domain::comparison::{Comparison, Difference};
use crate::domain::verification::Looked;
pub use crate::domain::verification::{Basis, Scope};
use crate::projector::runtime::Parts;
use crate::store::rows::Stored;
use crate::store::scratch::KeyPage;
use crate::store::{Connection, DbError, names, pool};

/// Keys of one page.
const KEYS_AT_ONCE: usize = 500;
/// Ledger rows of one page, unless a single key has more.
const EVENTS_AT_ONCE: i64 = 20_000;
/// Bytes of payloads that are folded together, unless a single key has more.
const BYTES_AT_ONCE: i64 = 32 << 20;
/// Most keys that are named although nothing can be said of them.
const UNTOLD_NAMED: usize = 10;
/// How often keys that move are looked at again, and those that were not read as far in the log do not; how long it is waited
/// before.
const ROUNDS: u32 = 12;
const STILL: u32 = 4;
const AGAIN: Duration = Duration::from_millis(250);

/// What is verified, and by what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Which keys.
    pub scope: Scope,
    /// By what it is told what they should be.
    pub basis: Basis,
}

/// What is heard of a verification under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// How many keys are done, and how many there are, if that is known.
    Done(u64, Option<u64>),
    /// What was found; each key comes once.
    Found(Vec<Difference>),
}

/// What a verification found: `old` is what is stored, `new` what it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// Of the keys that can be told.
    #[serde(flatten)]
    pub comparison: Comparison,
    /// Keys that cannot: their ledger holds no payloads, or the log not all of their events any more.
    pub untold: u64,
    /// The first of them, and why.
    pub untold_sample: BTreeMap<String, String>,
    /// Where partitions of the log begin that have lost their first records.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub log_begins: BTreeMap<i32, i64>,
}

impl Verification {
    /// Whether every key was told, and is as it should be.
    pub fn is_clean(&self) -> bool {
        self.comparison.is_clean() && self.untold == 0
    }

    fn untold(&mut self, key: &str, why: String) {
        self.untold += 1;
        if self.untold_sample.len() < UNTOLD_NAMED {
            self.untold_sample.insert(key.to_owned(), why);
        }
    }
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The view does not say which rows belong to a key.
    #[error("view {0} does not say which rows belong to a key: it cannot be verified")]
    Undeclared(&'static str),
    /// Neither a row nor a ledger, nor a record.
    #[error("there is nothing of the key {0:?}")]
    NoSuchKey(String),
    /// A setting is not usable.
    #[error("{0}")]
    Settings(String),
    /// The log does not tell.
    #[error(transparent)]
    Log(#[from] LogFault),
    /// The build has been dropped, or its indexes are being built.
    #[error(transparent)]
    Database(#[from] BuildError),
}

impl From<DbError> for VerifyError {
    fn from(error: DbError) -> Self {
        VerifyError::Database(error.into())
    }
}

/// Verifies the build of `parts` by `view`, which goes by that build's rules; `reports` hears of it.
pub async fn verify<V: Stored>(
    view: &V,
    parts: &Parts,
    ask: &Ask,
    reports: mpsc::Sender<Report>,
) -> Result<Verification, VerifyError> {
    let name = view.spec().name;
    if ask.basis.asks_log() {
        from_log::check(&parts.config, parts.source(name)).await?;
    }
    // Who drops us stops whoever reads for us.
    let stop = CancellationToken::new();
    let _stopped = stop.clone().drop_guard();
    let build = BuildId { view: name, build: parts.build };
    let client = pool::connect_writer(&parts.config.database, &names::search_path(build)).await?;
    let mut course = Course::begin(view, client, parts, (ask.basis, reports, stop)).await?;
    match &ask.scope {
        Scope::All => {
            let total = course.count().await?;
            course.all(None, Some(total)).await?;
        }
        Scope::Sample(count) => {
            let seed = fastrand::i64(..);
            open(&course.client).await?;
            let keys = course.by_ledger.sources.sample(&course.client, seed, (*count).into()).await;
            let keys = close(&course.client, keys.map_err(Into::into)).await?;
            let total = keys.len() as u64;
            course.all(Some(keys), Some(total)).await?;
        }
        Scope::Key(key) => {
            course.all(Some(vec![key.clone()]), Some(1)).await?;
            if course.keys == 0 {
                return Err(VerifyError::NoSuchKey(key.clone()));
            }
        }
    }
    if let Some(log) = &course.log {
        let begins = log.share().begins().iter();
        course.found.log_begins.extend(begins.map(|(partition, low)| (partition.0, low.0)));
    }
    Ok(course.found)
}

/// From here on everything is of one moment.
pub(super) async fn open(client: &Connection) -> Result<(), DbError> {
    // A page takes as long as it takes: there may be any number of events to a key.
    client.batch_execute("begin isolation level repeatable read; set local statement_timeout = 0").await
}

/// The moment is over; what was written to the scratch tables goes with it.
pub(super) async fn close<T>(client: &Connection, outcome: Result<T, VerifyError>) -> Result<T, VerifyError> {
    client.batch_execute("rollback").await?;
    outcome
}

/// A verification under way.
struct Course<'v, V: Stored> {
    basis: Basis,
    client: Connection,
    by_ledger: ByLedger<'v, V>,
    log: Option<ByLog>,
    reports: mpsc::Sender<Report>,
    /// Keys that were there, and how many there are.
    keys: u64,
    total: Option<u64>,
    /// Keys that move.
    aside: Vec<String>,
    found: Verification,
}

impl<'v, V: Stored> Course<'v, V> {
    async fn begin(
        view: &'v V,
        client: Connection,
        parts: &Parts,
        (basis, reports, stop): (Basis, mpsc::Sender<Report>, CancellationToken),
    ) -> Result<Self, VerifyError> {
        let (spec, rules) = (view.spec(), &parts.meaning.rules);
        let build = BuildId { view: spec.name, build: parts.build };
        let keyed = spec.tables.rows.ok_or(VerifyError::Undeclared(spec.name))?;
        let by_ledger = ByLedger::prepare(view, &client, (build, build), rules.first_sequence).await?;
        let log = match basis.asks_log() {
            true => {
                let readers = by_ledger::readers(&client, build, &keyed, rules.history).await?;
                Some(ByLog::prepare(view, parts, &client, (readers, stop)).await?)
            }
            false => None,
        };
        let found = Verification::default();
        Ok(Course { basis, client, by_ledger, log, reports, keys: 0, total: None, aside: Vec::new(), found })
    }

    async fn count(&self) -> Result<u64, VerifyError> {
        open(&self.client).await?;
        let count = self.by_ledger.sources.count(&self.client).await;
        close(&self.client, count.map_err(Into::into)).await
    }

    /// Verifies these keys, or all, share by share of what is held of the log.
    async fn all(&mut self, keys: Option<Vec<String>>, total: Option<u64>) -> Result<(), VerifyError> {
        self.total = total;
        self.report().await;
        let mut after = String::new();
        loop {
            let last = match &mut self.log {
                Some(log) => {
                    let among = keys.as_ref().map(|keys| keys.iter().cloned().collect());
                    log.read(Wanted { among, after: after.clone(), up_to: None }).await?
                }
                None => None,
            };
            match &keys {
                Some(keys) => {
                    let is_of_share = |key: &&String| **key > after && last.as_ref().is_none_or(|last| *key <= last);
                    let share: Vec<String> = keys.iter().filter(is_of_share).cloned().collect();
                    self.each(&share, 0).await?;
                }
                None => self.pages(after, last.as_deref()).await?,
            }
            self.look_again().await?;
            match last {
                Some(last) => after = last,
                None => return Ok(()),
            }
        }
    }

    /// Verifies the keys after `after`, up to `last` if there is one, page by page.
    async fn pages(&mut self, mut after: String, last: Option<&str>) -> Result<(), VerifyError> {
        loop {
            open(&self.client).await?;
            let looked = self.look_after(&after, last).await;
            let (looked, next) = close(&self.client, looked).await?;
            self.note(looked).await;
            match next {
                Some(next) => after = next,
                None => return Ok(()),
            }
        }
    }

    /// Verifies these keys, as far as they are there; `round`: how often they were looked at again.
    async fn each(&mut self, keys: &[String], round: u32) -> Result<(), VerifyError> {
        for part in keys.chunks(KEYS_AT_ONCE) {
            open(&self.client).await?;
            let looked = self.look(part).await;
            let looked = close(&self.client, looked).await?;
            let is_last = |looked: &Looked| match looked {
                Looked::Aside(moving) => round >= if moving.is_ahead { ROUNDS } else { STILL },
                _ => false,
            };
            let looked = looked.into_iter().map(|(key, looked)| {
                let is_last = is_last(&looked);
                (key, if is_last { looked.at_last() } else { looked })
            });
            self.note(looked.collect()).await;
        }
        Ok(())
    }

    /// Looks again at the keys that move, until none is left or it has been tried often enough.
    async fn look_again(&mut self) -> Result<(), VerifyError> {
        for round in 1..=ROUNDS {
            let keys = std::mem::take(&mut self.aside);
            let Some(log) = self.log.as_mut().filter(|_| !keys.is_empty()) else { break };
            tokio::time::sleep(AGAIN).await;
            log.read_on(&keys).await?;
            self.each(&keys, round).await?;
        }
        Ok(())
    }

    /// The page after `after`; and its last key if there are more.
    async fn look_after(&self, after: &str, last: Option<&str>) -> Result<(LookedAt, Option<String>), VerifyError> {
        let limit = i64::try_from(KEYS_AT_ONCE).unwrap_or(i64::MAX);
        let (mut page, mut has_more) = self.by_ledger.sources.page(&self.client, after, limit).await?;
        if let Some(log) = &self.log {
            let end = page.last_key_value().map(|(key, _)| key.clone()).filter(|_| has_more);
            for (key, records) in log.share().keys_after(after, KEYS_AT_ONCE) {
                if end.as_ref().is_none_or(|end| key <= end) {
                    let count = page.entry(key.clone()).or_default();
                    *count = (*count).max(i64::try_from(records).unwrap_or(i64::MAX));
                }
            }
            // Beyond the last of so many the answers say only half.
            has_more |= page.len() >= KEYS_AT_ONCE;
            while page.len() > KEYS_AT_ONCE {
                page.pop_last();
            }
        }
        if let Some(last) = last {
            let before = page.len();
            page.retain(|key, _| key.as_str() <= last);
            has_more &= page.len() == before;
        }
        let (keys, is_cut) = at_once(page);
        let next = keys.last().cloned().filter(|_| has_more || is_cut);
        Ok((self.look(&keys).await?, next))
    }

    /// What is found of these keys, inside a snapshot.
    async fn look(&self, keys: &[String]) -> Result<LookedAt, VerifyError> {
        let by_ledger = if self.basis.asks_ledger() {
            Some(self.by_ledger.look(&self.client, keys, &Ends::new()).await?)
        } else {
            None
        };
        let by_log = match &self.log {
            Some(log) => Some(self.look_by_log(log, keys).await?),
            None => None,
        };
        Ok(match (by_ledger, by_log) {
            (Some(ledger), Some(mut log)) => {
                let both = ledger.into_iter().map(|(key, looked)| {
                    let by_log = log.remove(&key).unwrap_or(Looked::Nowhere);
                    (key, looked.and_by_log(by_log))
                });
                both.collect()
            }
            (Some(looked), None) | (None, Some(looked)) => looked,
            (None, None) => LookedAt::new(),
        })
    }

    async fn note(&mut self, looked: LookedAt) {
        let mut differences = Vec::new();
        for (key, looked) in looked {
            self.keys += u64::from(!matches!(looked, Looked::Nowhere | Looked::Aside(_)));
            match looked {
                Looked::Nowhere => {}
                Looked::Equal => self.found.comparison.equal(1),
                Looked::Different(difference) => {
                    self.found.comparison.found(difference.clone());
                    differences.push(difference);
                }
                Looked::Untold(why) => self.found.untold(&key, why),
                Looked::Aside(_) => self.aside.push(key),
            }
        }
        if !differences.is_empty() {
            self.tell(Report::Found(differences)).await;
        }
        self.report().await;
    }

    async fn report(&self) {
        self.tell(Report::Done(self.keys, self.total)).await;
    }

    async fn tell(&self, report: Report) {
        if self.reports.send(report).await.is_err() {
            tracing::debug!("nobody hears of the verification");
        }
    }
}

/// What was found of keys, in their order.
type LookedAt = BTreeMap<String, Looked>;

/// The first keys of a page, as many as are folded at once; and whether that leaves some.
fn at_once(page: KeyPage) -> (Vec<String>, bool) {
    let (all, mut events, mut keys) = (page.len(), 0, Vec::new());
    for (key, count) in page {
        events += count;
        if events > EVENTS_AT_ONCE && !keys.is_empty() {
            break;
        }
        keys.push(key);
    }
    let is_cut = keys.len() < all;
    (keys, is_cut)
}
