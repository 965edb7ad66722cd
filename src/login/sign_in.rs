//! Browsers at the identity provider: the code flow with PKCE (RFC 7636). Whoever asks is sent there with words that only their
//! browser and this process know; who comes back with them and a code gets the provider's token, which is then judged like any
//! other. Nobody is believed for having come back.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lru::LruCache;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use url::Url;

use super::Kept;
use super::provider::{Client, Endpoints, Provider};
use crate::auth::Refusal;
use crate::auth::api_key::{KeyHash, hash_of};
use crate::config::{JwtSettings, OidcSettings};
use crate::store::sqlstate::describe_chain;

/// How long somebody may take to sign in.
pub const PATIENCE: Duration = Duration::from_secs(600);
/// So many may be on their way at once; the one that left first is forgotten.
const MOST: NonZeroUsize = NonZeroUsize::new(5_000).expect("more than none");
/// Of one caller; then the one of theirs that left first is forgotten, and nobody else's.
const MOST_OF_ONE: usize = 100;
/// How long it is known what the provider says of itself.
const KNOWN: Duration = Duration::from_secs(300);
/// Between two attempts while it says nothing of use.
const AGAIN: Duration = Duration::from_secs(2);

/// The way to the provider and back.
pub(super) struct SignIn {
    provider: Arc<Provider>,
    client: Client,
    host: String,
    endpoints: Arc<tokio::sync::Mutex<Option<Asked>>>,
    away: Mutex<LruCache<KeyHash, Away>>,
}

/// What the provider has said of itself, and when.
struct Asked {
    at: Instant,
    said: Result<Endpoints, Refusal>,
}

/// Somebody who is at the provider.
struct Away {
    /// Who counts as one caller.
    from: String,
    /// Of the word that their browser keeps.
    browser: KeyHash,
    verifier: String,
    nonce: String,
    redirect: String,
    to: String,
    until: Instant,
}

/// Where a browser is sent.
pub struct Sent {
    /// The provider's page.
    pub url: String,
    /// What the browser keeps until it is back.
    pub word: String,
}

/// Who came back.
pub struct Back {
    /// What they have got.
    pub kept: Kept,
    /// The page that they were on.
    pub to: String,
}

impl SignIn {
    /// The way of these settings; `None` where no client is named.
    pub(super) fn new(oidc: &OidcSettings, jwt: &JwtSettings) -> anyhow::Result<Option<SignIn>> {
        if oidc.client_id.is_empty() {
            return Ok(None);
        }
        let client = Client {
            id: oidc.client_id.clone(),
            secret: oidc.client_secret.expose().to_owned(),
            scope: oidc.scope.clone(),
        };
        let host = Url::parse(&jwt.issuer)?.host_str().unwrap_or_default().to_owned();
        let (provider, away) = (Arc::new(Provider::new(jwt)?), Mutex::new(LruCache::new(MOST)));
        Ok(Some(SignIn { provider, client, host, endpoints: Arc::default(), away }))
    }

    /// The provider's host.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Begins: `redirect` is where the provider sends the browser back to, `to` the page that it is to see then.
    pub(super) async fn begin(&self, redirect: String, to: String, from: String) -> Result<Sent, Refusal> {
        let endpoints = self.endpoints().await?;
        let (state, verifier, nonce, word) = (random()?, random()?, random()?, random()?);
        let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
        let mut url = Url::parse(&endpoints.authorization_endpoint).map_err(|error| unavailable(error.into()))?;
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.client.id)
            .append_pair("redirect_uri", &redirect)
            .append_pair("scope", &self.client.scope)
            .append_pair("state", &state)
            .append_pair("nonce", &nonce)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        let browser = hash_of(word.as_bytes());
        let until = Instant::now() + PATIENCE;
        let mut away = self.away();
        // The latest come first.
        let one_too_many = away.iter().filter(|(_, away)| away.from == from).nth(MOST_OF_ONE - 1);
        if let Some(state) = one_too_many.map(|(state, _)| *state) {
            away.pop(&state);
        }
        away.put(hash_of(state.as_bytes()), Away { from, browser, verifier, nonce, redirect, to, until });
        Ok(Sent { url: url.into(), word })
    }

    /// Who has come back with this state and code; each state counts once, in the browser that it was made for.
    pub(super) async fn finish(&self, state: &str, code: &str, word: &[u8]) -> Result<Back, Refusal> {
        let away = self.away().pop(&hash_of(state.as_bytes()));
        let away = away.filter(|away| away.until > Instant::now() && away.browser == hash_of(word));
        let Some(away) = away else {
            return Err(Refusal::Invalid(
                "nobody was sent to the identity provider from here with this state".to_owned(),
            ));
        };
        let endpoints = self.endpoints().await?;
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &away.redirect),
            ("code_verifier", &away.verifier),
        ];
        let token = self.provider.exchange(&endpoints.token_endpoint, &self.client, &form).await;
        let token = token.map_err(unavailable)?;
        let token = token.ok_or_else(|| Refusal::Invalid("the code is worth nothing to the provider".to_owned()))?;
        if nonce_of(&token).is_none_or(|nonce| nonce != away.nonce) {
            return Err(Refusal::Invalid("the token was made for another sign-in".to_owned()));
        }
        let kept = Kept::Authorization(format!("Bearer {token}").into_bytes());
        Ok(Back { kept, to: away.to })
    }

    /// Where browsers sign in, as the provider has said lately: it is not asked by each of them, and not again by whoever has it
    /// asked and goes away.
    async fn endpoints(&self) -> Result<Endpoints, Refusal> {
        let (provider, known) = (Arc::clone(&self.provider), Arc::clone(&self.endpoints));
        let asking = tokio::spawn(async move {
            let mut known = known.lock().await;
            if let Some(Asked { at, said }) = known.as_ref()
                && at.elapsed() < if said.is_ok() { KNOWN } else { AGAIN }
            {
                return said.clone();
            }
            let said = provider.endpoints().await.map_err(unavailable);
            *known = Some(Asked { at: Instant::now(), said: said.clone() });
            said
        });
        asking.await.unwrap_or_else(|_| Err(Refusal::Unavailable("the service stops".to_owned())))
    }

    fn away(&self) -> MutexGuard<'_, LruCache<KeyHash, Away>> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why is in the log: it names places that are nobody's business who has not logged in.
fn unavailable(error: anyhow::Error) -> Refusal {
    tracing::warn!(error = describe_chain(error.chain()), "nobody can sign in at the identity provider");
    Refusal::Unavailable("the identity provider does not answer as it should; the log says how".to_owned())
}

fn random() -> Result<String, Refusal> {
    let mut bytes = [0; 32];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| Refusal::Unavailable("the system gives no random numbers".to_owned()))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// The `nonce` of a token, which nobody has judged yet.
fn nonce_of(token: &str) -> Option<String> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    Some(claims["nonce"].as_str()?.to_owned())
}
