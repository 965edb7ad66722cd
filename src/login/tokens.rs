//! Tokens of an identity provider, verified by its keys, which are fetched now and then, and at once when a token names a key
//! that is not known: the provider may have new ones. While it is away its last keys count. It is one task that fetches, whoever
//! asks for it and goes away before it is done.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use lru::LruCache;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

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
/// How long somebody waits for a fetch: it asks twice at most, each time with a bound of its own.
const PATIENCE: Duration = Duration::from_secs(12);
/// Tokens whose verdict is remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4_096).expect("more than none");

#[derive(Clone)]
struct Remembered {
    principal: Arc<Principal>,
    /// Seconds since 1970.
    until: i64,
    /// By which keys.
    turn: u64,
}

/// Who is let in by tokens.
pub struct Tokens {
    rules: TokenRules,
    provider: Provider,
    keys: RwLock<Option<Arc<KeySet>>>,
    /// Grows when other keys are fetched than there were: what was verified by those is verified again.
    turn: AtomicU64,
    /// Between two fetches that tokens with unknown keys ask for.
    again: Duration,
    /// Told when somebody asks for a fetch.
    wanted: Notify,
    /// When the last one ended.
    fetched: watch::Sender<Option<Instant>>,
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
            turn: AtomicU64::new(0),
            again: AGAIN,
            wanted: Notify::new(),
            fetched: watch::Sender::new(None),
            remembered: Mutex::new(LruCache::new(REMEMBERED)),
        })
    }

    /// Fetches keys again and again; never ends.
    pub async fn run(&self) {
        let mut trouble = None;
        loop {
            self.fetch(&mut trouble).await;
            let (least, most) = if self.keys().is_some() { (self.again, REFRESH) } else { (RETRY, RETRY) };
            sleep(least).await;
            tokio::select! {
                () = sleep(most.saturating_sub(least)) => {}
                () = self.wanted.notified() => {}
            }
        }
    }

    /// Whom the token of this hash names, if it was verified before.
    pub fn find_known(&self, hash: &KeyHash) -> Option<Arc<Principal>> {
        let (turn, now) = (self.turn.load(Ordering::Acquire), Timestamp::now().as_second());
        let found = self.remembered().get(hash).cloned();
        found.filter(|found| found.turn == turn && found.until > now).map(|found| found.principal)
    }

    /// Whom a token names.
    pub async fn verify(&self, token: &str) -> Result<Arc<Principal>, Refusal> {
        let (hash, now) = (hash_of(token.as_bytes()), Timestamp::now().as_second());
        let turn = self.turn.load(Ordering::Acquire);
        let head = head_of(token, &self.rules)?;
        let keys = self.keys_for(&head).await?;
        let key = keys.find(&head);
        let key = key
            .ok_or_else(|| Refusal::Invalid("the token is signed by a key that its issuer does not have".to_owned()))?;
        let verified = token::verify(token, (&head, key), &self.rules, now)?;
        let principal = Arc::new(verified.principal);
        let remembered = Remembered { principal: Arc::clone(&principal), until: verified.until, turn };
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
            Some(keys) if head.key_id.as_ref().is_none_or(|id| keys.knows(id)) => return Ok(keys),
            Some(_) => self.refreshed(self.again).await,
            None => self.refreshed(RETRY).await,
        }
        // Why is in the log: it names places that are nobody's business who has not logged in.
        self.keys()
            .ok_or_else(|| Refusal::Unavailable("the keys of the identity provider are not there yet".to_owned()))
    }

    /// Waits until keys were fetched, unless that was done less than `apart` ago.
    async fn refreshed(&self, apart: Duration) {
        let mut fetched = self.fetched.subscribe();
        if fetched.borrow_and_update().is_some_and(|last| last.elapsed() < apart) {
            return;
        }
        self.wanted.notify_one();
        if !matches!(timeout(PATIENCE, fetched.changed()).await, Ok(Ok(()))) {
            tracing::debug!("no keys were fetched in time");
        }
    }

    async fn fetch(&self, trouble: &mut Option<String>) {
        match self.provider.keys().await {
            Ok(keys) => {
                let mut known = self.keys.write().unwrap_or_else(PoisonError::into_inner);
                if known.as_ref().is_none_or(|known| known.print != keys.print) {
                    *known = Some(Arc::new(keys));
                    self.turn.fetch_add(1, Ordering::AcqRel);
                }
                if trouble.take().is_some() {
                    tracing::info!("the keys of auth.jwt.issuer can be fetched again");
                }
            }
            Err(error) => {
                let why = describe_chain(error.chain());
                if trouble.is_none() {
                    tracing::warn!(error = why, "the keys of auth.jwt.issuer cannot be fetched; its last ones count");
                }
                *trouble = Some(why);
            }
        }
        self.fetched.send_replace(Some(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn encode(bytes: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    struct Signer(EcdsaKeyPair, &'static str);

    impl Signer {
        fn new(name: &'static str) -> Signer {
            let (scheme, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
            let pair = EcdsaKeyPair::generate_pkcs8(scheme, &random).unwrap();
            Signer(EcdsaKeyPair::from_pkcs8(scheme, pair.as_ref(), &random).unwrap(), name)
        }

        fn key(&self) -> Value {
            let point = self.0.public_key().as_ref();
            let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
            json!({ "kty": "EC", "crv": "P-256", "kid": self.1, "alg": "ES256", "x": x, "y": y })
        }

        fn token(&self) -> String {
            let head = json!({ "alg": "ES256", "kid": self.1 }).to_string();
            let until = Timestamp::now().as_second() + 3_600;
            let claims =
                json!({ "iss": "https://id.example", "aud": "x", "sub": "ada", "exp": until, "roles": ["reader"] });
            let signed = format!("{}.{}", encode(head.as_bytes()), encode(claims.to_string().as_bytes()));
            let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
            format!("{signed}.{}", encode(signature.as_ref()))
        }
    }

    fn tokens(change: impl FnOnce(&mut JwtSettings)) -> Tokens {
        let mut settings = crate::config::Config::defaults().auth.jwt;
        (settings.issuer, settings.audience) = ("https://id.example".to_owned(), vec!["x".to_owned()]);
        change(&mut settings);
        crate::schemas::client::install_tls();
        Tokens { again: Duration::ZERO, ..Tokens::new(&settings).unwrap() }
    }

    #[tokio::test]
    async fn who_is_known_stays_so_while_the_keys_stay_what_they_are() {
        let (one, two) = (Signer::new("one"), Signer::new("two"));
        let file = tempfile::NamedTempFile::new().unwrap();
        let say = |text: String| std::fs::write(file.path(), text).unwrap();
        say(json!({ "keys": [one.key()] }).to_string());
        let tokens = tokens(|settings| settings.jwks_file = file.path().to_str().unwrap().to_owned());
        tokens.fetch(&mut None).await;
        let token = one.token();
        tokens.verify(&token).await.unwrap();
        let is_known = || tokens.find_known(&hash_of(token.as_bytes())).is_some();
        for same in [json!({ "keys": [one.key()] }), json!({ "at": "another moment", "keys": [one.key()] })] {
            say(format!(" {same:#}"));
            tokens.fetch(&mut None).await;
            assert!(is_known(), "the same keys: {same}");
        }
        for (other, still_right) in [(json!([one.key(), two.key()]), true), (json!([two.key()]), false)] {
            say(json!({ "keys": other }).to_string());
            tokens.fetch(&mut None).await;
            assert!(!is_known(), "other keys");
            assert_eq!(tokens.verify(&token).await.is_ok(), still_right);
        }
    }

    #[tokio::test]
    async fn a_fetch_that_nobody_waits_for_any_more_counts_all_the_same() {
        let (one, two) = (Signer::new("one"), Signer::new("two"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let (first, both) = (json!({ "keys": [one.key()] }), json!({ "keys": [one.key(), two.key()] }));
        let (asked, release) = (watch::Sender::new(0), Arc::new(Notify::new()));
        let (mut times, count, may_go) = (asked.subscribe(), asked.clone(), Arc::clone(&release));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (first, both, count, may_go) = (first.clone(), both.clone(), count.clone(), Arc::clone(&may_go));
                tokio::spawn(async move {
                    let mut request = [0; 2048];
                    if stream.read(&mut request).await.is_ok_and(|read| read == 0) {
                        return;
                    }
                    count.send_modify(|asked| *asked += 1);
                    let body = if *count.borrow() == 1 { first } else { both }.to_string();
                    if *count.borrow() > 1 {
                        may_go.notified().await;
                    }
                    let head =
                        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                    stream.write_all(format!("{head}{body}").as_bytes()).await.ok();
                });
            }
        });
        let tokens = Arc::new(tokens(|settings| settings.jwks_url = url));
        let runs = Arc::clone(&tokens);
        let running = tokio::spawn(async move { runs.run().await });
        tokens.fetched.subscribe().wait_for(Option::is_some).await.unwrap();
        // Somebody has it asked, and goes away: that is all that there is to it.
        let token = two.token();
        tokio::select! {
            found = tokens.verify(&token) => panic!("{found:?}"),
            seen = times.wait_for(|asked| *asked == 2) => drop(seen),
        }
        let later = tokens.verify(&token);
        release.notify_one();
        assert_eq!(later.await.map(|found| found.name.clone()), Ok("ada".to_owned()));
        assert_eq!(*asked.borrow(), 2, "the keys were fetched for whoever asks next");
        running.abort();
    }
}
