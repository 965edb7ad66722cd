//! Calls of a running service. A problem that it answers with becomes an error in words.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use reqwest::{Certificate, Method, header, redirect};
use serde_json::Value;

use crate::schemas::client::install_tls;

/// Longer than the service waits for an engine.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Streams that are asked for at once.
const PAGE: u32 = 200;

/// Who calls, and where.
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    key: Option<String>,
}

/// What was there when it was looked: a change of anything else is refused.
#[derive(Clone, Copy)]
pub(super) enum Seen<'a> {
    /// That makes no difference.
    Anything,
    /// Nothing.
    Nothing,
    /// What has this `ETag`.
    Tag(&'a str),
}

/// What came of a call.
pub(super) struct Answer {
    /// Its JSON; null if it has none.
    pub(super) body: Value,
    /// Its `ETag`.
    pub(super) etag: Option<String>,
    /// The path of the next page.
    next: Option<String>,
}

impl Client {
    pub(super) fn new(url: &str, key: Option<String>, ca_file: Option<&Path>) -> Result<Client> {
        let base = url.trim_end_matches('/').to_owned();
        let is_web = base.starts_with("http://") || base.starts_with("https://");
        ensure!(is_web, "--url {url} is no URL such as http://127.0.0.1:8080");
        install_tls();
        // A redirect could take the key elsewhere.
        let builder = reqwest::Client::builder().timeout(TIMEOUT).redirect(redirect::Policy::none());
        let builder = match ca_file {
            None => builder,
            Some(file) => {
                let shown = file.display();
                let pem = std::fs::read(file).with_context(|| format!("cannot read --ca-file {shown}"))?;
                let certificates = Certificate::from_pem_bundle(&pem)
                    .with_context(|| format!("--ca-file {shown} holds other things than PEM certificates"))?;
                builder.tls_certs_only(certificates)
            }
        };
        Ok(Client { http: builder.build().context("no HTTP client can be made")?, base, key })
    }

    pub(super) async fn get(&self, path: &str) -> Result<Answer> {
        self.call(Method::GET, path, None, Seen::Anything).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.call(Method::POST, path, Some(body), Seen::Anything).await
    }

    pub(super) async fn put(&self, path: &str, body: &Value, seen: Seen<'_>) -> Result<Answer> {
        self.call(Method::PUT, path, Some(body), seen).await
    }

    pub(super) async fn delete(&self, path: &str) -> Result<Answer> {
        self.call(Method::DELETE, path, None, Seen::Anything).await
    }

    /// Every stream, page by page.
    pub(super) async fn all_streams(&self) -> Result<Vec<Value>> {
        let (mut all, mut next) = (Vec::new(), Some(format!("/api/streams?pageSize={PAGE}")));
        while let Some(path) = next {
            let page = self.get(&path).await?;
            all.extend(page.body["items"].as_array().cloned().unwrap_or_default());
            next = page.next;
        }
        Ok(all)
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>, seen: Seen<'_>) -> Result<Answer> {
        let away = |error: reqwest::Error| {
            let error = error.without_url();
            let mut cause: &dyn std::error::Error = &error;
            while let Some(inner) = cause.source() {
                cause = inner;
            }
            anyhow!("the service at {} does not answer: {cause}; --url says where it is", self.base)
        };
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.base));
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        request = match seen {
            Seen::Anything => request,
            Seen::Nothing => request.header(header::IF_NONE_MATCH, "*"),
            Seen::Tag(etag) => request.header(header::IF_MATCH, etag),
        };
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(away)?;
        let status = response.status();
        let field = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (etag, next) = (field(header::ETAG), field(header::LINK).and_then(|links| self.next(&links)));
        let bytes = response.bytes().await.map_err(away)?;
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if status.is_success() {
            return Ok(Answer { body, etag, next });
        }
        match body["code"].as_str() {
            Some(_) => bail!("{}", in_words(&body)),
            None => bail!("{method} {}{path} is answered with {status}: that is no StreamView", self.base),
        }
    }

    /// The path of `rel="next"`, without the URL that the service may have put before it.
    fn next(&self, links: &str) -> Option<String> {
        let link = links.split(", <").find(|link| link.ends_with("rel=\"next\""))?;
        let target = link.trim_start_matches('<').split_once('>')?.0;
        Some(target.find("/api/").map_or(target, |at| &target[at..]).to_owned())
    }
}

/// A problem with all that it says of a statement.
fn in_words(problem: &Value) -> String {
    let of = |field: &str| problem[field].as_str().unwrap_or_default();
    let mut words = format!("{}: {}", of("code"), of("detail"));
    for line in statement_errors(&problem["statementErrors"]) {
        words.push_str(&format!("\n{line}"));
    }
    words
}

/// What is wrong with a statement, a line each.
pub(super) fn statement_errors(errors: &Value) -> Vec<String> {
    let line = |error: &Value| {
        let place = match (error["line"].as_u64(), error["column"].as_u64()) {
            (Some(line), Some(column)) => format!("line {line}, column {column}: "),
            (Some(line), None) => format!("line {line}: "),
            _ => String::new(),
        };
        format!("  {place}{}", error["message"].as_str().unwrap_or_default())
    };
    errors.as_array().into_iter().flatten().map(line).collect()
}
