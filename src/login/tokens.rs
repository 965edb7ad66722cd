//! Tokens of an identity provider, verified by its keys, which are fetched now and then, and at once when a token names a key
//! that is not known: the provider may have new ones. While it is away its last keys count.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use lru::LruCache;
use tokio::time::{Instant, sleep};

use super::provider::Provider;
use crate::auth::api_key::{KeyHash, hash_of};
use crate::auth::role::Role;
use crate::auth::token::{self, ClaimPath, KeySet, TokenHead, TokenRules, head_of};
use crate::auth::{Principal, Refusal};
use crate::config::JwtSettings;
use crate::store::sqlstate::describe_chain;

/// Between two fetches that nobody asks for.
const REFRESH: Duration = Duration::from_secs(300);
/// The same while there are no keys at all.
const RETRY: Duration = Duration::from_secs(2);
/// Between two fetches that tokens with unknown keys ask for.
const AGAIN: Duration = Duration::from_secs(10);
/// Tokens whose verdict is remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4_096).expect("more than none");

#[derive(Clone)]
struct Remembered {
    principal: Arc<Principal>,
    /// Seconds since 1970.
    until: i64,
    /// By the keys of which fetch.
    fetch: u64,
}

/// Who is let in by tokens.
pub struct Tokens {
    rules: TokenRules,
    provider: Provider,
    keys: RwLock<Option<Arc<KeySet>>>,
    /// Number of the fetch that the keys are of: what was verified by other keys is verified again.
    fetch: AtomicU64,
    /// Held while keys are fetched: when that was done last, and what was wrong.
    fetching: tokio::sync::Mutex<(Option<Instant>, Option<String>)>,
    remembered: Mutex<LruCache<KeyHash, Remembered>>,
}

impl Tokens {
    /// Those of these settings; no keys yet.
    pub fn new(settings: &JwtSettings) -> Result<Tokens> {
        let algorithm = |name: &String| token::algorithm(name).with_context(|| format!("{name} is no algorithm"));
        let mapping = |pair: &String| {
            let (theirs, ours) = pair.rsplit_once('=')?;
            Some((theirs.trim().to_owned(), Role::parse(ours.trim())?))
        };
        let rules = TokenRules {
            issuer: settings.issuer.clone(),
            audience: settings.audience.clone(),
            roles_claim: ClaimPath::parse(&settings.roles_claim),
            role_map: settings.role_map.iter().filter_map(mapping).collect(),
            algorithms: settings.algorithms.iter().map(algorithm).collect::<Result<_>>()?,
            leeway_seconds: settings.leeway_seconds,
        };
        Ok(Tokens {
            rules,
            provider: Provider::new(settings)?,
            keys: RwLock::default(),
            fetch: AtomicU64::new(0),
            fetching: tokio::sync::Mutex::default(),
            remembered: Mutex::new(LruCache::new(REMEMBERED)),
        })
    }

    /// Fetches keys again and again; never ends.
    pub async fn run(&self) {
        loop {
            if let Err(refusal) = self.refresh(Duration::ZERO).await {
                tracing::debug!(%refusal, "no token can be verified");
            }
            sleep(if self.keys().is_some() { REFRESH } else { RETRY }).await;
        }
    }

    /// Whom the token of this hash names, if it was verified before.
    pub fn find_known(&self, hash: &KeyHash) -> Option<Arc<Principal>> {
        let (fetch, now) = (self.fetch.load(Ordering::Acquire), Timestamp::now().as_second());
        let found = self.remembered().get(hash).cloned();
        found.filter(|found| found.fetch == fetch && found.until > now).map(|found| found.principal)
    }

    /// Whom a token names.
    pub async fn verify(&self, token: &str) -> Result<Arc<Principal>, Refusal> {
        let (hash, now) = (hash_of(token.as_bytes()), Timestamp::now().as_second());
        let fetch = self.fetch.load(Ordering::Acquire);
        let head = head_of(token, &self.rules)?;
        let keys = self.keys_for(&head).await?;
        let key = keys.find(&head);
        let key = key
            .ok_or_else(|| Refusal::Invalid("the token is signed by a key that its issuer does not have".to_owned()))?;
        let verified = token::verify(token, (&head, key), &self.rules, now)?;
        let principal = Arc::new(verified.principal);
        let remembered = Remembered { principal: Arc::clone(&principal), until: verified.until, fetch };
        self.remembered().put(hash, remembered);
        Ok(principal)
    }

    fn keys(&self) -> Option<Arc<KeySet>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remembered(&self) -> MutexGuard<'_, LruCache<KeyHash, Remembered>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keys, fetched anew where they do not have that of the token.
    async fn keys_for(&self, head: &TokenHead) -> Result<Arc<KeySet>, Refusal> {
        match self.keys() {
            Some(keys) if head.key_id.as_ref().is_none_or(|id| keys.knows(id)) => Ok(keys),
            Some(_) => self.refresh(AGAIN).await,
            None => self.refresh(RETRY).await,
        }
    }

    /// The keys, fetched unless that was done less than `apart` ago.
    async fn refresh(&self, apart: Duration) -> Result<Arc<KeySet>, Refusal> {
        let mut fetching = self.fetching.lock().await;
        let (last, trouble) = &mut *fetching;
        if last.is_none_or(|last| last.elapsed() >= apart) {
            let fetched = self.provider.keys().await;
            *last = Some(Instant::now());
            match fetched {
                Ok(keys) => {
                    *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(keys));
                    self.fetch.fetch_add(1, Ordering::AcqRel);
                    if trouble.take().is_some() {
                        tracing::info!("the keys of auth.jwt.issuer can be fetched again");
                    }
                }
                Err(error) => {
                    let why = describe_chain(error.chain());
                    if trouble.is_none() {
                        tracing::warn!(
                            error = why,
                            "the keys of auth.jwt.issuer cannot be fetched; its last ones count"
                        );
                    }
                    *trouble = Some(why);
                }
            }
        }
        // Why is in the log: it names places that are nobody's business who has not logged in.
        self.keys()
            .ok_or_else(|| Refusal::Unavailable("the keys of the identity provider are not there yet".to_owned()))
    }
}
