//! Who a caller is, by what it shows: an API key, or a token of an identity provider; or by the certificate that its
//! connection began with, where it shows neither. All of it is looked up in memory; Postgres and the provider are asked behind
//! the requests, and seldom, however many wrong keys come.

mod api_keys;
pub mod audit;
mod provider;
mod sessions;
pub mod sign_in;
mod tokens;

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use self::api_keys::ApiKeys;
pub use self::api_keys::made;
use self::sessions::Sessions;
use self::sign_in::{Back, Sent, SignIn};
use self::tokens::Tokens;
use crate::auth::api_key::{BEGINS, hash_of};
use crate::auth::role::{Role, Roles};
use crate::auth::subject::Subjects;
use crate::auth::{Principal, Refusal};
use crate::config::{AnonymousRole, AuthSettings, DatabaseSettings};

const NOT_A_KIND: Refusal = Refusal::Malformed("`Authorization` has to be `Bearer` and an API key or a token");
const NO_PROVIDER: Refusal = Refusal::Malformed("no browser is sent to an identity provider from here");
const TOO_MANY: Refusal = Refusal::Malformed("credentials have to be shown once, in `Authorization` or in `X-Api-Key`");

/// Where callers log in.
pub struct Gate {
    /// What somebody may who shows nothing.
    pub anonymous: Roles,
    keys: Option<ApiKeys>,
    tokens: Option<Tokens>,
    subjects: Subjects,
    sessions: Sessions,
    sign_in: Option<SignIn>,
}

impl Gate {
    /// The gate of these settings; `None` where nobody logs in.
    pub fn new(settings: &AuthSettings, database: &DatabaseSettings) -> Result<Option<Arc<Gate>>> {
        if !settings.is_on() {
            return Ok(None);
        }
        let tokens = if settings.jwt.issuer.is_empty() { None } else { Some(Tokens::new(&settings.jwt)?) };
        let anonymous = match settings.anonymous_role {
            AnonymousRole::None => Roles::NONE,
            AnonymousRole::Reader => Role::Reader.into(),
        };
        let keys = settings.api_keys.then(|| ApiKeys::new(database.clone()));
        let sign_in = SignIn::new(&settings.oidc, &settings.jwt)?;
        let subjects = Subjects::new(&settings.mtls.role_map);
        Ok(Some(Arc::new(Gate { anonymous, keys, tokens, subjects, sessions: Sessions::default(), sign_in })))
    }

    /// Keeps what it knows up to date, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let keys = async {
            match &self.keys {
                Some(keys) => keys.run().await,
                None => std::future::pending().await,
            }
        };
        let tokens = async {
            match &self.tokens {
                Some(tokens) => tokens.run().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = keys => {}
            () = tokens => {}
        }
        if let Some(keys) = &self.keys {
            keys.note_used().await;
        }
    }

    /// Has new and revoked API keys looked at, and waits until that is done.
    pub async fn look_now(&self) {
        if let Some(keys) = &self.keys {
            keys.look_now().await;
        }
    }

    /// Whose credentials these are now, as if they were shown again.
    pub async fn judge(&self, kept: &Kept) -> Result<Arc<Principal>, Refusal> {
        let shown = match kept {
            Kept::Authorization(value) => self.shown(&[value], &[]),
            Kept::ApiKey(value) => self.shown(&[], &[value]),
        };
        let Some(shown) = shown? else { return Err(NOT_A_KIND) };
        match shown.known() {
            Some(principal) => Ok(principal),
            None => shown.find().await,
        }
    }

    /// Whether API keys are taken.
    pub fn takes_api_keys(&self) -> bool {
        self.keys.is_some()
    }

    /// Whether browsers sign in at the identity provider.
    pub fn has_provider(&self) -> bool {
        self.sign_in.is_some()
    }

    /// The host of the provider where browsers sign in.
    pub fn provider(&self) -> Option<&str> {
        self.sign_in.as_ref().map(SignIn::host)
    }

    /// Where a browser is sent that wants to sign in at the provider, which sends it back to `redirect`; then it sees `to`. `from`
    /// is who counts as one caller.
    pub async fn send_to_provider(&self, redirect: String, to: String, from: String) -> Result<Sent, Refusal> {
        match &self.sign_in {
            Some(sign_in) => sign_in.begin(redirect, to, from).await,
            None => Err(NO_PROVIDER),
        }
    }

    /// Who has come back from there, judged like everybody else.
    pub async fn back_from_provider(
        &self,
        (state, code): (&str, &str),
        word: &[u8],
    ) -> Result<(Back, Arc<Principal>), Refusal> {
        let Some(sign_in) = &self.sign_in else { return Err(NO_PROVIDER) };
        let back = sign_in.finish(state, code, word).await?;
        let principal = self.judge(&back.kept).await?;
        Ok((back, principal))
    }

    /// Begins a session of `principal` for what a browser has shown; gives the word that stands for it.
    pub fn begin_session(&self, kept: Kept, principal: &Principal) -> Option<String> {
        self.sessions.begin(kept, &principal.name, Instant::now())
    }

    /// What the session of this word was got for.
    pub fn session(&self, word: &[u8]) -> Option<Kept> {
        self.sessions.find(word, Instant::now())
    }

    /// Ends the session of this word.
    pub fn end_session(&self, word: &[u8]) {
        self.sessions.end(word);
    }

    /// Who has shown a certificate with this subject.
    pub fn certified(&self, subject: &str) -> Arc<Principal> {
        Arc::new(self.subjects.principal(subject))
    }

    /// What is shown by these values of `Authorization` and `X-Api-Key`; `None` if there are none.
    pub fn shown<'a>(
        &self,
        authorization: &[&'a [u8]],
        api_key: &[&'a [u8]],
    ) -> Result<Option<Shown<'a, '_>>, Refusal> {
        let shown = match (authorization, api_key) {
            ([], []) => return Ok(None),
            ([], [key]) => *key,
            ([one], []) => bearer(one).ok_or(NOT_A_KIND)?,
            _ => return Err(TOO_MANY),
        };
        let is_key = authorization.is_empty() || shown.starts_with(BEGINS.as_bytes());
        match (is_key, &self.keys, &self.tokens) {
            (true, Some(keys), _) => Ok(Some(Shown::Key(shown, keys))),
            (false, _, Some(tokens)) => {
                let token = std::str::from_utf8(shown).map_err(|_| NOT_A_KIND)?;
                Ok(Some(Shown::Token(token, tokens)))
            }
            (true, None, _) => Err(Refusal::Malformed("API keys are not taken here")),
            (false, Some(_), None) => Err(Refusal::Malformed("tokens are not taken here, API keys are")),
            (false, None, None) => Err(Refusal::Malformed("neither tokens nor API keys are taken here")),
        }
    }
}

/// What somebody has shown, kept to be looked at again. Never written down.
#[derive(Clone, PartialEq, Eq)]
pub enum Kept {
    /// The value of `Authorization`.
    Authorization(Vec<u8>),
    /// The value of `X-Api-Key`.
    ApiKey(Vec<u8>),
}

/// A credential, and by whom it is judged.
#[derive(Clone, Copy)]
pub enum Shown<'a, 'g> {
    /// What may be an API key.
    Key(&'a [u8], &'g ApiKeys),
    /// What may be a token.
    Token(&'a str, &'g Tokens),
}

impl Shown<'_, '_> {
    /// Whose it is, if that is known already: that costs a hash.
    pub fn known(self) -> Option<Arc<Principal>> {
        match self {
            Shown::Key(key, keys) => keys.find_known(&hash_of(key)),
            Shown::Token(token, tokens) => tokens.find_known(&hash_of(token.as_bytes())),
        }
    }

    /// Whose it is, whatever that costs.
    pub async fn find(self) -> Result<Arc<Principal>, Refusal> {
        match self {
            Shown::Key(key, keys) => keys.find(key).await,
            Shown::Token(token, tokens) => tokens.verify(token).await,
        }
    }
}

/// What stands behind `Bearer`.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(7)?;
    let shown = rest.trim_ascii();
    let is_bearer = scheme[..6].eq_ignore_ascii_case(b"bearer") && scheme[6] == b' ';
    (is_bearer && !shown.is_empty() && !shown.contains(&b' ')).then_some(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_behind_bearer_is_one_word() {
        for (value, shown) in [
            ("Bearer abc", Some("abc")),
            ("bEARER  abc ", Some("abc")),
            ("Bearer", None),
            ("Bearer ", None),
            ("Bearer a b", None),
            ("Bearerabc", None),
            ("Basic YTpi", None),
            ("", None),
        ] {
            assert_eq!(bearer(value.as_bytes()), shown.map(str::as_bytes), "{value}");
        }
    }
}
