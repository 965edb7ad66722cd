//! API keys that may be used, as Postgres had them a moment ago. A key is found among them by its hash, so a wrong one costs
//! a hash and no statement; and one that is unknown, revoked or over is not there, which no answer tells apart.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::auth::api_key::{KeyHash, RANDOM_BYTES, hash_of, key_of};
use crate::auth::role::Role;
use crate::auth::{Principal, Refusal};
use crate::config::DatabaseSettings;
use crate::store::api_keys::{self, ValidKey};
use crate::store::sqlstate::describe;
use crate::store::{Connection, pool};

/// Between two looks that nobody asks for: so long a revoked key may still be used.
const LOOK: Duration = Duration::from_secs(2);
/// Between two looks that somebody asks for.
const AGAIN: Duration = Duration::from_millis(500);
/// How long somebody waits for a look.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many wait for a look at the same time with a key that is not known: the next one's is not valid at once.
const WAITING: usize = 256;
/// Between two notes of which keys were used.
const NOTE: Duration = Duration::from_secs(60);

const NOT_VALID: &str = "the API key is not valid";

struct Known {
    id: i64,
    principal: Arc<Principal>,
    expires_at: Option<Timestamp>,
    was_used: AtomicBool,
}

type KnownKeys = HashMap<KeyHash, Known>;

/// The keys.
pub struct ApiKeys {
    database: DatabaseSettings,
    known: RwLock<Option<Arc<KnownKeys>>>,
    /// Somebody wants a look.
    wanted: Notify,
    /// When the last look began that is done.
    looked: watch::Sender<Option<Instant>>,
    waiting: Semaphore,
}

impl ApiKeys {
    /// None yet.
    pub fn new(database: DatabaseSettings) -> ApiKeys {
        ApiKeys {
            database,
            known: RwLock::default(),
            wanted: Notify::new(),
            looked: watch::Sender::new(None),
            waiting: Semaphore::new(WAITING),
        }
    }

    /// Looks again and again; never ends.
    pub async fn run(&self) {
        let (mut client, mut noted, mut is_blind) = (None, Instant::now(), false);
        loop {
            let began = Instant::now();
            match self.look(&mut client).await {
                Ok(()) => {
                    if is_blind {
                        tracing::info!("API keys can be looked at again");
                    }
                    is_blind = false;
                    self.looked.send_replace(Some(began));
                }
                Err(error) => {
                    client = None;
                    if !is_blind {
                        tracing::warn!(error, "API keys are those of before: they cannot be looked at");
                    }
                    is_blind = true;
                }
            }
            if noted.elapsed() >= NOTE {
                noted = Instant::now();
                self.note_used().await;
            }
            tokio::select! {
                () = sleep_until(began + LOOK) => {}
                () = self.wanted.notified() => sleep_until(began + AGAIN).await,
            }
        }
    }

    async fn look(&self, kept: &mut Option<Connection>) -> Result<(), String> {
        let client = match kept {
            Some(client) if !client.is_closed() => client,
            none => {
                let client = pool::connect_operator(&self.database).await.map_err(|error| describe(&error))?;
                none.insert(client)
            }
        };
        let valid = api_keys::valid(client).await.map_err(|error| describe(&error))?;
        let before = self.known();
        let known: KnownKeys = valid.into_iter().filter_map(|key| known(key, before.as_deref())).collect();
        // Who is out now was perhaps in since the last note.
        let out = before.iter().flat_map(|keys| keys.iter()).filter(|(hash, _)| !known.contains_key(*hash));
        let used: Vec<i64> =
            out.filter(|(_, key)| key.was_used.load(Ordering::Relaxed)).map(|(_, key)| key.id).collect();
        if !used.is_empty() {
            api_keys::used(client, &used).await.map_err(|error| describe(&error))?;
        }
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(known));
        Ok(())
    }

    fn known(&self) -> Option<Arc<KnownKeys>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a look that begins now or later.
    pub async fn look_now(&self) {
        let (now, mut looked) = (Instant::now(), self.looked.subscribe());
        self.wanted.notify_one();
        let is_new = |began: &Option<Instant>| began.is_some_and(|began| began >= now);
        match timeout(PATIENCE, looked.wait_for(is_new)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => tracing::debug!("nobody looked at the API keys in time"),
        }
    }

    /// Whose key it is. One that is not known may just have been made: that is looked up, for a few at a time.
    pub async fn find(&self, key: &[u8]) -> Result<Arc<Principal>, Refusal> {
        let hash = hash_of(key);
        if let Some(principal) = self.find_known(&hash) {
            return Ok(principal);
        }
        if let Ok(_turn) = self.waiting.try_acquire() {
            self.look_now().await;
        }
        match self.find_known(&hash) {
            Some(principal) => Ok(principal),
            None if self.known().is_none() => {
                Err(Refusal::Unavailable("API keys could not be read from the database yet".to_owned()))
            }
            None => Err(Refusal::Invalid(NOT_VALID.to_owned())),
        }
    }

    /// Whose key of this hash it is, as far as that is known.
    pub fn find_known(&self, hash: &KeyHash) -> Option<Arc<Principal>> {
        let keys = self.known()?;
        let key = keys.get(hash)?;
        let is_valid = key.expires_at.is_none_or(|expires| expires > Timestamp::now());
        if is_valid && !key.was_used.load(Ordering::Relaxed) {
            key.was_used.store(true, Ordering::Relaxed);
        }
        is_valid.then(|| Arc::clone(&key.principal))
    }

    /// Notes which keys were used since the last time.
    pub async fn note_used(&self) {
        let Some(keys) = self.known() else { return };
        let used = keys.values().filter(|key| key.was_used.swap(false, Ordering::Relaxed));
        let used: Vec<i64> = used.map(|key| key.id).collect();
        if used.is_empty() {
            return;
        }
        let noted = async { api_keys::used(&pool::connect_operator(&self.database).await?, &used).await };
        if let Err(error) = noted.await {
            tracing::debug!(error = describe(&error), "when API keys were used last is not noted");
        }
    }
}

fn known(key: ValidKey, before: Option<&KnownKeys>) -> Option<(KeyHash, Known)> {
    let ValidKey { id, name, role, hash, expires_at } = key;
    let hash = KeyHash::try_from(hash).ok()?;
    // A role of a later version lets nobody in here.
    let roles = Role::parse(&role)?.into();
    let was_used = before.and_then(|keys| keys.get(&hash)).is_some_and(|key| key.was_used.load(Ordering::Relaxed));
    let principal = Arc::new(Principal { name, roles });
    Some((hash, Known { id, principal, expires_at, was_used: AtomicBool::new(was_used) }))
}

/// A new key. It is nowhere else: who gets it has to keep it.
pub fn made() -> Result<String, ring::error::Unspecified> {
    let mut random = [0; RANDOM_BYTES];
    SystemRandom::new().fill(&mut random)?;
    Ok(key_of(&random))
}
