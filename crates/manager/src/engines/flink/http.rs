//! One request to one of Flink's two servers, and what may be known when it fails.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use crate::engines::Trouble;

/// Longest answer that is read. A page of results has up to 5,000 rows.
const MAX_ANSWER: usize = 16 << 20;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// Nobody listens: nothing happened.
    NotSent(String),
    /// It was sent, and the connection ended or the time was over: anything may have happened.
    Lost(String),
    /// It is too long to be read, and would be again.
    TooLarge(String),
}

impl NoAnswer {
    /// For a request that only reads.
    pub fn reading(self) -> Trouble {
        match self {
            NoAnswer::NotSent(why) | NoAnswer::Lost(why) | NoAnswer::TooLarge(why) => Trouble::Unavailable(why),
        }
    }

    /// For a request that does something.
    pub fn writing(self) -> Trouble {
        match self {
            NoAnswer::NotSent(why) => Trouble::Unavailable(why),
            NoAnswer::Lost(why) | NoAnswer::TooLarge(why) => Trouble::Unknown(why),
        }
    }
}

/// An answer, whatever its status.
#[derive(Debug)]
pub(super) struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: String,
}

impl Answer {
    /// Whether it is one of 200 to 299.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as JSON.
    pub fn read<T: serde::de::DeserializeOwned>(&self, whose: &str) -> Result<T, NoAnswer> {
        serde_json::from_str(&self.body).map_err(|error| {
            NoAnswer::Lost(format!("{whose} answered what is not understood ({error}): {:.200}", self.body))
        })
    }

    /// What went wrong, in the server's words: the texts of `errors`, or the body.
    pub fn complaint(&self) -> String {
        #[derive(serde::Deserialize)]
        struct Errors {
            errors: Vec<String>,
        }
        let errors: Option<Errors> = serde_json::from_str(&self.body).ok();
        errors.map_or_else(|| format!("HTTP {}: {:.500}", self.status, self.body), |said| said.errors.join("\n"))
    }
}

/// One of the two servers.
#[derive(Debug, Clone)]
pub(super) struct Server {
    client: reqwest::Client,
    base: String,
    /// For messages: `Flink's SQL gateway`.
    pub name: &'static str,
}

impl Server {
    /// The server with this base URL.
    pub fn new(client: reqwest::Client, base: &str, name: &'static str) -> Server {
        Server { client, base: base.trim_end_matches('/').to_owned(), name }
    }

    /// Its base URL.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Reads.
    pub async fn get(&self, path: &str, patience: Duration) -> Result<Answer, NoAnswer> {
        self.call(Method::GET, path, None, patience).await
    }

    /// One request. `path` begins with `/`.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        patience: Duration,
    ) -> Result<Answer, NoAnswer> {
        let mut request = self.client.request(method, format!("{}{path}", self.base)).timeout(patience);
        if let Some(body) = body {
            request = request.json(body);
        }
        let mut response = request.send().await.map_err(|error| self.no_answer(&error))?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.no_answer(&error))? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(NoAnswer::TooLarge(format!("{} answers with more than {MAX_ANSWER} bytes", self.name)));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
    }

    fn no_answer(&self, error: &reqwest::Error) -> NoAnswer {
        // The first sentence says `error sending request`; why stands in the last cause.
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        let why = format!("{} at {} does not answer: {cause}", self.name, self.base);
        if error.is_connect() { NoAnswer::NotSent(why) } else { NoAnswer::Lost(why) }
    }
}
