//! The SQL gateway: a session for each piece of work, statements in it, pages of results. It knows no jobs.

use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use super::causes;
use super::http::{Answer, NoAnswer, Server};
use super::types::LogicalType;
use crate::engines::Trouble;

/// A statement's answer comes at once, unless another one of its session runs.
const STATEMENT_PATIENCE: Duration = Duration::from_secs(30);
/// Planning; the first statement of a cold gateway took a minute on an overloaded machine.
const OPERATION_PATIENCE: Duration = Duration::from_secs(120);
const SHORT_PATIENCE: Duration = Duration::from_secs(10);

/// Why the gateway did not do it.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// There is no answer.
    NoAnswer(NoAnswer),
    /// It says why, with a stack trace.
    Said(String),
    /// It is not done in time, and may be done later.
    Late(String),
}

impl From<NoAnswer> for Failure {
    fn from(no_answer: NoAnswer) -> Failure {
        Failure::NoAnswer(no_answer)
    }
}

impl Failure {
    /// For what has no effect but on its session.
    pub fn reading(self) -> Trouble {
        match self {
            Failure::NoAnswer(no_answer) => no_answer.reading(),
            Failure::Said(trace) if causes::is_session_gone(&trace) => Trouble::Unavailable(causes::last_cause(&trace)),
            Failure::Said(trace) => Trouble::Refused(causes::refusal(&trace)),
            Failure::Late(why) => Trouble::Unavailable(why),
        }
    }
}

/// A session: what is declared in it is seen by nobody else, and goes with it.
#[derive(Debug, Clone)]
pub(super) struct Session {
    path: String,
}

/// A statement that was sent.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    path: String,
}

/// How far a statement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Being planned or submitted.
    Running,
    /// Submitted; its job may run for ever.
    Finished,
    /// Refused; why stands in its first page.
    Failed,
}

/// A page of results.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Page {
    result_type: String,
    /// The job that gives them.
    #[serde(rename = "jobID")]
    pub job_id: Option<String>,
    results: Option<Results>,
    next_result_uri: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Results {
    columns: Vec<ResultColumn>,
    data: Vec<ResultRow>,
}

/// A column of results.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ResultColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    pub logical_type: LogicalType,
}

/// A row, its values as they were written.
#[derive(Debug, Deserialize)]
pub(super) struct ResultRow {
    /// `INSERT`, `UPDATE_BEFORE`, `UPDATE_AFTER` or `DELETE`.
    pub kind: String,
    /// Its values.
    pub fields: Vec<Box<RawValue>>,
}

impl Page {
    /// Whether it says nothing yet.
    pub fn is_pending(&self) -> bool {
        self.result_type == "NOT_READY"
    }

    /// Whether nothing comes after it.
    pub fn is_last(&self) -> bool {
        self.result_type == "EOS"
    }

    /// The columns, if it has any.
    pub fn columns(&self) -> &[ResultColumn] {
        self.results.as_ref().map_or(&[], |results| &results.columns)
    }

    /// The rows.
    pub fn into_rows(self) -> Vec<ResultRow> {
        self.results.map_or_else(Vec::new, |results| results.data)
    }

    /// The token of the next page.
    pub fn next_token(&self) -> Option<u64> {
        let (_, rest) = self.next_result_uri.as_ref()?.rsplit_once("/result/")?;
        rest.split('?').next()?.parse().ok()
    }
}

/// The gateway.
#[derive(Debug, Clone)]
pub(super) struct Gateway {
    /// How it is asked.
    pub server: Server,
}

impl Gateway {
    /// Its version.
    pub async fn version(&self) -> Result<String, NoAnswer> {
        #[derive(Deserialize)]
        struct Info {
            version: String,
        }
        let info: Info = self.server.get("/v2/info", SHORT_PATIENCE).await?.read(self.server.name)?;
        Ok(info.version)
    }

    /// Opens a session in which times are UTC and hints of a user's text are refused.
    pub async fn open(&self) -> Result<Session, Failure> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Opened {
            session_handle: String,
        }
        let properties = json!({"properties": {
            "execution.runtime-mode": "streaming",
            "table.local-time-zone": "UTC",
            // With hints a SELECT could read any topic.
            "table.dynamic-table-options.enabled": "false",
        }});
        let answer = self.post("/v2/sessions", &properties, STATEMENT_PATIENCE).await?;
        let opened: Opened = answer.read(self.server.name)?;
        Ok(Session { path: format!("/v2/sessions/{}", opened.session_handle) })
    }

    /// Declares something in a session; done when it answers.
    pub async fn configure(&self, session: &Session, statement: &str) -> Result<(), Failure> {
        let body = json!({"statement": statement});
        self.post(&format!("{}/configure-session", session.path), &body, STATEMENT_PATIENCE).await?;
        Ok(())
    }

    /// Sends a statement with settings that hold for it alone.
    pub async fn submit(
        &self,
        session: &Session,
        statement: &str,
        settings: &Map<String, Value>,
    ) -> Result<Operation, Failure> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Submitted {
            operation_handle: String,
        }
        let body = json!({"statement": statement, "executionConfig": settings});
        let answer = self.post(&format!("{}/statements", session.path), &body, STATEMENT_PATIENCE).await?;
        let submitted: Submitted = answer.read(self.server.name)?;
        Ok(Operation { path: format!("{}/operations/{}", session.path, submitted.operation_handle) })
    }

    /// How far a statement is.
    pub async fn stage(&self, operation: &Operation) -> Result<Stage, Failure> {
        #[derive(Deserialize)]
        struct Status {
            status: String,
        }
        let answer = self.server.get(&format!("{}/status", operation.path), SHORT_PATIENCE).await?;
        let status: Status = said(answer)?.read(self.server.name)?;
        Ok(match status.status.as_str() {
            "FINISHED" => Stage::Finished,
            "ERROR" | "CANCELED" | "TIMEOUT" | "CLOSED" => Stage::Failed,
            _ => Stage::Running,
        })
    }

    /// Waits until a statement is planned and submitted, and gives its first page.
    pub async fn wait(&self, operation: &Operation) -> Result<Page, Failure> {
        let deadline = Instant::now() + OPERATION_PATIENCE;
        let mut pause = Duration::from_millis(20);
        // The first page of what has failed is the error.
        while self.stage(operation).await? == Stage::Running {
            if Instant::now() >= deadline {
                return Err(Failure::Late(format!("{} has not finished a statement in 2 minutes", self.server.name)));
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(250));
        }
        loop {
            let page = self.page(operation, 0).await?;
            if !page.is_pending() {
                return Ok(page);
            }
            if Instant::now() >= deadline {
                return Err(Failure::Late(format!(
                    "{} has no result of a statement after 2 minutes",
                    self.server.name
                )));
            }
            sleep(pause).await;
        }
    }

    /// Runs a statement that has an end, and gives its rows.
    pub async fn rows(&self, session: &Session, statement: &str) -> Result<Vec<ResultRow>, Failure> {
        let operation = self.submit(session, statement, &Map::new()).await?;
        let mut page = self.wait(&operation).await?;
        let mut rows = Vec::new();
        loop {
            let (is_last, next) = (page.is_last(), page.next_token());
            rows.extend(page.into_rows());
            let Some(next) = next.filter(|_| !is_last) else { return Ok(rows) };
            page = self.page(&operation, next).await?;
        }
    }

    /// A page by its token: the current one or, after a lost answer, the one before.
    pub async fn page(&self, operation: &Operation, token: u64) -> Result<Page, Failure> {
        let path = format!("{}/result/{token}?rowFormat=JSON", operation.path);
        let answer = self.server.get(&path, STATEMENT_PATIENCE).await?;
        Ok(said(answer)?.read(self.server.name)?)
    }

    /// Ends a statement; a SELECT's job with it, unless it is still being submitted.
    pub async fn close_operation(&self, operation: &Operation) -> Result<(), Failure> {
        let path = format!("{}/close", operation.path);
        let answer = self.server.call(Method::DELETE, &path, None, SHORT_PATIENCE).await?;
        said(answer).map(drop)
    }

    /// Ends a session. One that cannot be closed ends by itself when nobody has used it for ten minutes.
    pub async fn close(&self, session: &Session) {
        let answer = self.server.call(Method::DELETE, &session.path, None, SHORT_PATIENCE).await;
        if let Err(no_answer) = answer {
            tracing::debug!(reason = ?no_answer, "a session of Flink's gateway is left to its idle timeout");
        }
    }

    async fn post(&self, path: &str, body: &Value, patience: Duration) -> Result<Answer, Failure> {
        said(self.server.call(Method::POST, path, Some(body), patience).await?)
    }
}

/// The answer, unless it says what went wrong.
fn said(answer: Answer) -> Result<Answer, Failure> {
    if answer.is_success() { Ok(answer) } else { Err(Failure::Said(answer.complaint())) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // tests fail by panicking
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// The original asked a second time for the words of a failed result, and told neither if that failed as well.
    #[tokio::test]
    async fn defect_12_why_a_result_failed_is_read_from_its_own_answer() {
        // Another test of this process may have chosen the provider before.
        rustls::crypto::ring::default_provider().install_default().ok();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let trace = "<Exception on server side:\njava.lang.RuntimeException: failed\n\tat a.B.c(B.java:1)\n\
                     Caused by: java.lang.ArithmeticException: / by zero\n\tat d.E.f(E.java:2)\n";
        let body = json!({ "errors": ["Internal server error.", trace] }).to_string();
        let once = async move {
            let (mut client, _) = listener.accept().await.unwrap();
            // Nobody is there for a second call.
            drop(listener);
            let mut asked = [0; 4_096];
            let read = client.read(&mut asked).await.unwrap();
            let head = format!("HTTP/1.1 500 x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            client.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            String::from_utf8_lossy(&asked[..read]).into_owned()
        };
        let gateway = Gateway { server: Server::new(reqwest::Client::new(), &base, "Flink's SQL gateway") };
        let operation = Operation { path: "/v2/sessions/s/operations/o".to_owned() };
        let (page, asked) = tokio::join!(gateway.page(&operation, 7), once);
        assert!(asked.starts_with("GET /v2/sessions/s/operations/o/result/7?"), "{asked}");
        let Trouble::Refused(refusal) = page.unwrap_err().reading() else { panic!("it is said by the gateway") };
        assert!(refusal.message.contains("/ by zero") && !refusal.message.contains("E.java"), "{}", refusal.message);
    }
}
