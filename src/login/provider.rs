//! The identity provider's keys: from a file, from a URL, or from where the issuer's configuration says (OpenID Connect
//! Discovery). Whatever is not that, such as a page of a proxy, is said to be what it is.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use reqwest::{Client as Http, Response, StatusCode, redirect};
use serde::Deserialize;

use crate::auth::token::KeySet;
use crate::config::JwtSettings;

/// For a whole answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// Where keys come from.
pub struct Provider {
    http: Http,
    place: Place,
    issuer: String,
}

enum Place {
    File(String),
    Url(String),
    /// Of this issuer.
    Issuer(String),
}

#[derive(Deserialize)]
struct Configuration {
    issuer: String,
    jwks_uri: String,
}

/// Where browsers sign in, and where what they come back with is worth a token.
#[derive(Clone, Deserialize)]
pub struct Endpoints {
    issuer: String,
    /// The page for people.
    pub authorization_endpoint: String,
    /// For us.
    pub token_endpoint: String,
}

/// Who we are to the provider.
pub struct Client {
    /// Our name there.
    pub id: String,
    /// What proves it; empty: nothing does, PKCE has to do.
    pub secret: String,
    /// What is asked for.
    pub scope: String,
}

#[derive(Deserialize)]
struct Tokens {
    id_token: String,
}

#[derive(Deserialize)]
struct Refused {
    error: String,
}

impl Provider {
    /// The provider of these settings.
    pub fn new(settings: &JwtSettings) -> Result<Provider> {
        let place = match (settings.jwks_file.as_str(), settings.jwks_url.as_str()) {
            ("", "") => Place::Issuer(settings.issuer.clone()),
            ("", url) => Place::Url(url.to_owned()),
            (file, _) => Place::File(file.to_owned()),
        };
        let http = Http::builder().timeout(TIMEOUT).redirect(redirect::Policy::none()).build();
        let http = http.context("cannot set up the client of auth.jwt")?;
        Ok(Provider { http, place, issuer: settings.issuer.clone() })
    }

    /// Its keys, as they are now.
    pub async fn keys(&self) -> Result<KeySet> {
        let (from, json) = match &self.place {
            Place::File(file) => {
                let read = tokio::fs::read(file).await;
                (file.clone(), read.with_context(|| format!("auth.jwt.jwks_file = {file} cannot be read"))?)
            }
            Place::Url(url) => (url.clone(), self.get(url).await?),
            Place::Issuer(issuer) => {
                let url = self.discover(issuer).await?;
                let json = self.get(&url).await?;
                (url, json)
            }
        };
        match KeySet::parse(&json) {
            Ok(keys) => Ok(keys),
            Err(why) => bail!("what {from} holds is of no use: {why}"),
        }
    }

    async fn discover(&self, issuer: &str) -> Result<String> {
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let json = self.get(&url).await?;
        let found: Configuration =
            serde_json::from_slice(&json).with_context(|| format!("{url} answers no OpenID configuration"))?;
        ensure!(found.issuer == issuer, "{url} is of issuer `{}`, auth.jwt.issuer is `{issuer}`", found.issuer);
        Ok(found.jwks_uri)
    }

    /// Where browsers sign in, as the issuer says.
    pub async fn endpoints(&self) -> Result<Endpoints> {
        let url = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let json = self.get(&url).await?;
        let found: Endpoints =
            serde_json::from_slice(&json).with_context(|| format!("{url} does not say where browsers sign in"))?;
        ensure!(found.issuer == self.issuer, "{url} is of issuer `{}`, not of `{}`", found.issuer, self.issuer);
        Ok(found)
    }

    /// The ID token that a code is worth; `None` if the provider says that it is worth nothing: a wrong one, one that is over, or
    /// somebody else's.
    pub async fn exchange(&self, url: &str, client: &Client, form: &[(&str, &str)]) -> Result<Option<String>> {
        let mut body = url::form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(form);
        let request = self.http.post(url).header("content-type", "application/x-www-form-urlencoded");
        let request = match client.secret.as_str() {
            "" => {
                body.append_pair("client_id", &client.id);
                request
            }
            // Both are encoded before they are put together (RFC 6749, section 2.3.1).
            secret => request.basic_auth(encoded(&client.id), Some(encoded(secret))),
        };
        let response = request.body(body.finish()).send().await.with_context(|| format!("{url} does not answer"))?;
        if matches!(response.status(), StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED) {
            let status = response.status();
            let refused: Option<Refused> = serde_json::from_slice(&all(url, response).await?).ok();
            let why = refused.map(|refused| refused.error).unwrap_or_default();
            // What else it may be is the fault of our settings (RFC 6749, section 5.2).
            ensure!(why == "invalid_grant", "{url} answers {status} {}", shorten(&why));
            return Ok(None);
        }
        let json = whole(url, response).await?;
        // What it holds is not told: it may be a token.
        let tokens: Result<Tokens, _> = serde_json::from_slice(&json);
        let tokens =
            tokens.map_err(|_| anyhow::anyhow!("{url} gives no id_token; does auth.oidc.scope hold openid?"))?;
        Ok(Some(tokens.id_token))
    }

    async fn get(&self, url: &str) -> Result<Vec<u8>> {
        let response = self.http.get(url).send().await.with_context(|| format!("{url} does not answer"))?;
        whole(url, response).await
    }
}

fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// The whole of a good answer.
async fn whole(url: &str, response: Response) -> Result<Vec<u8>> {
    ensure!(response.status().is_success(), "{url} answers {}", response.status());
    all(url, response).await
}

/// As much of a text of somebody else's as a log line needs.
fn shorten(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(100).collect()
}

async fn all(url: &str, mut response: Response) -> Result<Vec<u8>> {
    let away = || format!("{url} does not answer");
    let mut answer = Vec::new();
    while let Some(chunk) = response.chunk().await.with_context(away)? {
        answer.extend_from_slice(&chunk);
        ensure!(answer.len() <= MAX_ANSWER, "{url} answers more than {MAX_ANSWER} bytes");
    }
    Ok(answer)
}
