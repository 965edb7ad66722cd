//! Requests to ksqlDB, and what may be known when they fail.

use std::time::Duration;

use reqwest::header::{ACCEPT, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Patience;
use super::entities::{CommandStatus, Entity};
use super::errors::{Purpose, trouble};
use crate::engines::Trouble;
use crate::settings::KsqldbSettings;

/// The form of rows that says tombstones and why a query ends.
const JSON_ROWS: &str = "application/vnd.ksql.v1+json";

/// Longest answer that is read, but of rows: the description of all streams is one.
const MAX_ANSWER: usize = 16 << 20;

/// A ksqlDB server, or what stands before several.
#[derive(Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    settings: KsqldbSettings,
    pub patience: Patience,
}

/// Where rows begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    /// With what is there.
    Earliest,
    /// With what comes.
    Latest,
    /// A pull query: what is there now is all.
    AsItIs,
}

/// `GET /info`.
#[derive(Deserialize)]
pub(super) struct Info {
    #[serde(rename = "KsqlServerInfo")]
    pub server: ServerInfo,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServerInfo {
    pub version: String,
    pub kafka_cluster_id: String,
    pub ksql_service_id: String,
    #[serde(default)]
    pub server_status: Option<String>,
}

fn http(patience: Patience) -> Result<reqwest::Client, Trouble> {
    let built = reqwest::Client::builder()
        .http1_only()
        .connect_timeout(patience.connect)
        // A connection that was kept may be dead, and a request that fails on it leaves open what happened. Calls are few.
        .pool_max_idle_per_host(0)
        // Silence of a row stream is normal and has no heart-beat: only the kernel can tell it from a server that is gone.
        .tcp_keepalive(Duration::from_secs(15))
        .build();
    built.map_err(|error| Trouble::Unavailable(format!("no HTTP client for ksqlDB: {}", cause(&error))))
}

/// The last cause: the first sentence says only that the request failed.
pub(super) fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

impl Client {
    pub fn new(settings: KsqldbSettings, patience: Patience) -> Result<Client, Trouble> {
        Ok(Client { http: http(patience)?, settings, patience })
    }

    fn request(&self, http: &reqwest::Client, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.settings.url.trim_end_matches('/'));
        let request = http.request(method, url).header(ACCEPT, JSON_ROWS);
        match self.settings.username.as_str() {
            "" => request,
            name => request.basic_auth(name, Some(&self.settings.password)),
        }
    }

    fn no_answer(&self, purpose: Purpose, error: &reqwest::Error) -> Trouble {
        let why = format!("ksqlDB at {} does not answer: {}", self.settings.url, cause(error));
        // Without a connection nothing was asked; later anything may have happened.
        if purpose == Purpose::Write && !error.is_connect() { Trouble::Unknown(why) } else { Trouble::Unavailable(why) }
    }

    async fn answered(&self, purpose: Purpose, request: RequestBuilder) -> Result<Vec<u8>, Trouble> {
        let mut response = request.send().await.map_err(|error| self.no_answer(purpose, &error))?;
        let (status, retry_after) = (response.status(), retry_after(&response));
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.no_answer(purpose, &error))? {
            if body.len() + chunk.len() > MAX_ANSWER {
                let why = format!("ksqlDB at {} answers with more than {MAX_ANSWER} bytes", self.settings.url);
                return Err(if purpose == Purpose::Write { Trouble::Unknown(why) } else { Trouble::Unavailable(why) });
            }
            body.extend_from_slice(&chunk);
        }
        if status.is_success() { Ok(body) } else { Err(trouble(purpose, status.as_u16(), retry_after, &body)) }
    }

    async fn get(&self, path: &str) -> Result<Vec<u8>, Trouble> {
        let request = self.request(&self.http, Method::GET, path).timeout(self.patience.list);
        self.answered(Purpose::Read, request).await
    }

    /// One statement, with its `;`, and its answer. What is not understood leaves open what happened.
    async fn statement(&self, purpose: Purpose, text: &str, properties: Value) -> Result<Entity, Trouble> {
        let patience = if purpose == Purpose::Write { self.patience.command } else { self.patience.list };
        let body = json!({ "ksql": text, "streamsProperties": properties });
        let request = self.request(&self.http, Method::POST, "/ksql").json(&body).timeout(patience);
        let answer = self.answered(purpose, request).await?;
        let odd = |why: String| {
            let why = format!("ksqlDB answers what is not understood: {why}");
            if purpose == Purpose::Write { Trouble::Unknown(why) } else { Trouble::Unavailable(why) }
        };
        let entities: Vec<Entity> = serde_json::from_slice(&answer).map_err(|error| odd(error.to_string()))?;
        entities.into_iter().next().ok_or_else(|| odd("an empty list".to_owned()))
    }

    /// Asks for what a statement shows.
    pub async fn show(&self, text: &str) -> Result<Entity, Trouble> {
        self.statement(Purpose::Read, text, json!({})).await
    }

    /// Has a statement done.
    pub async fn command(&self, text: &str, properties: Value) -> Result<Entity, Trouble> {
        self.statement(Purpose::Write, text, properties).await
    }

    pub async fn info(&self) -> Result<ServerInfo, Trouble> {
        let info: Result<Info, _> = serde_json::from_slice(&self.get("/info").await?);
        info.map(|info| info.server)
            .map_err(|error| Trouble::Unavailable(format!("{} does not speak as ksqlDB: {error}", self.settings.url)))
    }

    /// How the last command of this id stands; `None` if the server does not know it.
    pub async fn status(&self, command_id: &str) -> Result<Option<CommandStatus>, Trouble> {
        // Ids hold names of ours in backticks, and nothing else that needs an escape.
        match self.get(&format!("/status/{}", command_id.replace('`', "%60"))).await {
            Ok(body) => {
                let odd = |error| Trouble::Unavailable(format!("ksqlDB answers what is not understood: {error}"));
                serde_json::from_slice(&body).map(Some).map_err(odd)
            }
            Err(Trouble::Refused(_)) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// Begins a query on a connection of its own, which ends it when it is closed.
    pub async fn rows(&self, text: &str, begin: Begin) -> Result<Response, Trouble> {
        let properties = match begin {
            Begin::Earliest => json!({ "auto.offset.reset": "earliest" }),
            Begin::Latest => json!({ "auto.offset.reset": "latest" }),
            Begin::AsItIs => json!({}),
        };
        let body = json!({ "sql": text, "properties": properties });
        let request = self.request(&http(self.patience)?, Method::POST, "/query-stream").json(&body);
        let sent = tokio::time::timeout(self.patience.header, request.send()).await;
        let response = sent
            .map_err(|_| {
                Trouble::Unavailable(format!("ksqlDB at {} does not begin the query in time", self.settings.url))
            })?
            .map_err(|error| self.no_answer(Purpose::Rows, &error))?;
        let (status, retry_after) = (response.status(), retry_after(&response));
        if status.is_success() {
            return Ok(response);
        }
        let body = tokio::time::timeout(self.patience.header, response.bytes()).await;
        let body = body.ok().and_then(Result::ok).unwrap_or_default();
        Err(trouble(Purpose::Rows, status.as_u16(), retry_after, &body))
    }
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}
