//! The identity provider's keys: from a file, from a URL, or from where the issuer's configuration says (OpenID Connect
//! Discovery). Whatever is not that, such as a page of a proxy, is said to be what it is.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use reqwest::{Client, redirect};
use serde::Deserialize;

use crate::auth::token::KeySet;
use crate::config::JwtSettings;

/// For a whole answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// Where keys come from.
pub struct Provider {
    http: Client,
    place: Place,
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

impl Provider {
    /// The provider of these settings.
    pub fn new(settings: &JwtSettings) -> Result<Provider> {
        let place = match (settings.jwks_file.as_str(), settings.jwks_url.as_str()) {
            ("", "") => Place::Issuer(settings.issuer.clone()),
            ("", url) => Place::Url(url.to_owned()),
            (file, _) => Place::File(file.to_owned()),
        };
        let http = Client::builder().timeout(TIMEOUT).redirect(redirect::Policy::none()).build();
        Ok(Provider { http: http.context("cannot set up the client of auth.jwt")?, place })
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

    async fn get(&self, url: &str) -> Result<Vec<u8>> {
        let away = || format!("{url} does not answer");
        let mut response = self.http.get(url).send().await.with_context(away)?;
        ensure!(response.status().is_success(), "{url} answers {}", response.status());
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await.with_context(away)? {
            answer.extend_from_slice(&chunk);
            ensure!(answer.len() <= MAX_ANSWER, "{url} answers more than {MAX_ANSWER} bytes");
        }
        Ok(answer)
    }
}
