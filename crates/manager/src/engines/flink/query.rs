//! Queries of people who look: rows as they come, and an end of the job whatever happens to the reader.
//!
//! Flink ends a SELECT's job when its operation is closed, unless it is closed while the job is being submitted, and never
//! when the gateway dies. So the id of the job is ours, and it is cancelled by that until it is seen to be over; and should
//! this process die, the gateway's heartbeats for the job stop when its session expires, or with the gateway.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use serde_json::{Map, Value};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::ddl::Start;
use super::gateway::{Failure, Operation, Page, ResultRow, Session, Stage};
use super::http::NoAnswer;
use super::text::{Token, Tokens, join};
use super::{Inner, causes, explain, types};
use crate::catalog::values::value;
use crate::catalog::{Column, DataType};
use crate::engines::ahead::{Ahead, MAX_ROW, Received, ahead};
use crate::engines::{AdHoc, End, Item, Row, RowKind, Rows, Trouble};

/// How soon after an empty page the next one is asked for; doubled up to the longest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// How long pages are asked for again while nobody answers.
const CUT_PATIENCE: Duration = Duration::from_secs(5);
/// How long planning and submitting may take.
const SUBMIT_PATIENCE: Duration = Duration::from_secs(120);
/// How long a job is looked for that may still be on its way when its query is over.
const SWEEP: Duration = Duration::from_secs(180);

/// Runs a SELECT for somebody who looks.
pub(super) async fn query(flink: Arc<Inner>, query: AdHoc) -> Result<Rows, Trouble> {
    let limit = limit(&Tokens::of(&query.select.sql)?);
    let (items, received) = ahead();
    let (started, is_started) = oneshot::channel();
    let stop = CancellationToken::new();
    // Made before anything is sent: whoever drops this future or the rows ends the query in Flink, too.
    let rows = Reader { items: received, _stop: stop.clone().drop_guard() };
    let runner = Runner { flink, query, limit, items, stop };
    tokio::spawn(runner.run(started));
    match is_started.await {
        Ok(Ok(())) => Ok(Box::pin(rows)),
        Ok(Err(trouble)) => Err(trouble),
        Err(_) => Err(Trouble::Unavailable("the query was ended before it began".to_owned())),
    }
}

/// The reader's end.
struct Reader {
    items: Received,
    _stop: DropGuard,
}

impl Stream for Reader {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Item>> {
        Pin::new(&mut self.items).poll_next(context)
    }
}

/// The query's own task.
struct Runner {
    flink: Arc<Inner>,
    query: AdHoc,
    /// Rows after which its LIMIT is reached: Flink's job goes on then.
    limit: Option<u64>,
    items: Ahead,
    stop: CancellationToken,
}

impl Runner {
    async fn run(self, started: oneshot::Sender<Result<(), Trouble>>) {
        let session = match self.flink.gateway.open().await {
            Ok(session) => session,
            Err(failure) => return answer(started, Err(failure.reading())),
        };
        match self.begin(&session).await {
            Ok((operation, Ok(()))) => {
                answer(started, Ok(()));
                let end = self.read(&operation).await;
                // Who has gone away does not hear of it.
                if self.items.send(Item::End(end)).await.is_err() {
                    tracing::debug!(job = self.query.id, "the reader of a query is gone");
                }
                self.end((session, operation), Whereabouts::Submitted).await;
            }
            Ok((operation, Err(trouble))) => {
                let whereabouts = match &trouble {
                    Trouble::Refused(_) => Whereabouts::Nowhere,
                    _ => Whereabouts::OnItsWay,
                };
                answer(started, Err(trouble));
                self.end((session, operation), whereabouts).await;
            }
            Err(trouble) => {
                answer(started, Err(trouble));
                self.flink.gateway.close(&session).await;
            }
        }
    }

    /// Sends the statement, and waits until its job is submitted. From the moment that it is sent it has to be ended.
    async fn begin(&self, session: &Session) -> Result<(Operation, Result<(), Trouble>), Trouble> {
        let AdHoc { id, select, from_start, .. } = &self.query;
        let start = if *from_start { Start::Earliest } else { Start::Latest };
        let joined = join("", select)?;
        let group = format!("sv-adhoc-{:.8}", id);
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {
                return Err(Trouble::Unavailable("the query was ended before it began".to_owned()));
            }
            declared = explain::declare_sources(&self.flink, session, select, &group, start) => declared?,
        }
        let submitted = self.flink.gateway.submit(session, joined.text(), &self.settings()).await;
        let operation = submitted.map_err(|failure| joined.trouble_in_select(failure.reading()))?;
        let outcome = tokio::select! {
            () = self.stop.cancelled() => Err(Trouble::Unavailable("the query was ended while it began".to_owned())),
            outcome = self.until_submitted(&operation) => outcome,
        };
        let outcome = outcome.map_err(|trouble| joined.trouble_in_select(trouble));
        Ok((operation, outcome))
    }

    fn settings(&self) -> Map<String, Value> {
        let settings = [
            ("pipeline.name", format!("sv-adhoc-{:.8}", self.query.id)),
            ("$internal.pipeline.job-id", self.query.id.clone()),
            ("table.exec.source.idle-timeout", "2 s".to_owned()),
            // Somebody looks: what has failed is told and not tried again.
            ("restart-strategy.type", "none".to_owned()),
            // The dead-man options: without the gateway's heartbeat the JobManager cancels the job, within a minute or two.
            ("execution.attached", "true".to_owned()),
            ("execution.shutdown-on-attached-exit", "true".to_owned()),
            ("client.heartbeat.timeout", "10 s".to_owned()),
            ("client.heartbeat.interval", "3 s".to_owned()),
        ];
        settings.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect()
    }

    async fn until_submitted(&self, operation: &Operation) -> Result<(), Trouble> {
        let deadline = Instant::now() + SUBMIT_PATIENCE;
        let mut pause = SHORTEST_PAUSE;
        loop {
            match self.flink.gateway.stage(operation).await.map_err(Failure::reading)? {
                Stage::Finished => return Ok(()),
                Stage::Failed => {
                    return match self.flink.gateway.page(operation, 0).await {
                        Ok(_) => Err(Trouble::Unavailable("Flink has cancelled the query".to_owned())),
                        Err(failure) => Err(failure.reading()),
                    };
                }
                Stage::Running if Instant::now() >= deadline => {
                    return Err(Trouble::Unavailable("Flink has not begun the query in 2 minutes".to_owned()));
                }
                Stage::Running => sleep(pause).await,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Hands rows on until something ends them.
    async fn read(&self, operation: &Operation) -> End {
        let deadline = Instant::now() + self.query.time_limit;
        tokio::select! {
            () = self.stop.cancelled() => End::Cancelled,
            () = sleep_until(deadline) => End::Limit,
            end = self.pages(operation) => end,
        }
    }

    async fn pages(&self, operation: &Operation) -> End {
        let (mut token, mut pause) = (0, SHORTEST_PAUSE);
        let mut types: Option<Vec<DataType>> = None;
        let mut left = self.limit;
        loop {
            let page = match self.page(operation, token).await {
                Ok(page) => page,
                Err(end) => return end,
            };
            if page.is_pending() {
                sleep(pause).await;
                continue;
            }
            let (is_last, next) = (page.is_last(), page.next_token());
            if types.is_none() && !page.columns().is_empty() {
                let (header, found) = header(&page);
                types = Some(found);
                if self.items.send(header).await.is_err() {
                    return End::Cancelled;
                }
            }
            if left == Some(0) {
                return End::Limit;
            }
            let rows = page.into_rows();
            pause = if rows.is_empty() { (pause * 2).min(LONGEST_PAUSE) } else { SHORTEST_PAUSE };
            let is_idle = rows.is_empty();
            for read in rows {
                let bytes: usize = read.fields.iter().map(|field| field.get().len()).sum();
                if bytes > MAX_ROW {
                    return End::Failed(format!("a row has {bytes} bytes, and at most {MAX_ROW} are handed on"));
                }
                let row = row(&read, types.as_deref().unwrap_or_default());
                let counts = matches!(row.kind, RowKind::Insert | RowKind::UpdateAfter);
                if self.items.send_row(row, bytes).await.is_err() {
                    return End::Cancelled;
                }
                left = left.map(|left| left.saturating_sub(u64::from(counts)));
                if left == Some(0) {
                    return End::Limit;
                }
            }
            match next {
                Some(next) if !is_last => token = next,
                _ => return End::Complete,
            }
            if is_idle {
                sleep(pause).await;
            }
        }
    }

    /// A page; asked for again with the same token while nobody answers, as a lost answer is still there.
    async fn page(&self, operation: &Operation, token: u64) -> Result<Page, End> {
        let deadline = Instant::now() + CUT_PATIENCE;
        loop {
            match self.flink.gateway.page(operation, token).await {
                Ok(page) => return Ok(page),
                Err(Failure::Said(trace)) => return Err(self.failed(&trace).await),
                // It would be as long again.
                Err(Failure::NoAnswer(NoAnswer::TooLarge(why))) => return Err(End::Failed(why)),
                Err(Failure::NoAnswer(_) | Failure::Late(_)) if Instant::now() < deadline => sleep(LONGEST_PAUSE).await,
                Err(failure) => return Err(End::Interrupted(failure.reading().to_string())),
            }
        }
    }

    async fn failed(&self, trace: &str) -> End {
        if causes::is_cluster_gone(trace) {
            return End::Interrupted(causes::last_cause(trace));
        }
        if trace.contains("JobCancellationException") || trace.contains("Job was cancelled") {
            return End::Cancelled;
        }
        // What the JobManager knows of it is the cause itself; the gateway may know only that there was one.
        match self.flink.jobmanager.failures(&self.query.id).await {
            Ok(failures) if !failures.is_empty() => match &failures[0].stacktrace {
                known if causes::is_cluster_gone(known) => End::Interrupted(causes::last_cause(known)),
                known => End::Failed(causes::last_cause(known)),
            },
            _ => End::Failed(causes::last_cause(trace)),
        }
    }

    /// Ends the operation and its session, and the job by its id until it is seen to be over.
    async fn end(&self, (session, operation): (Session, Operation), whereabouts: Whereabouts) {
        if let Err(failure) = self.flink.gateway.close_operation(&operation).await {
            tracing::debug!(?failure, job = self.query.id, "a query could not be closed: its job is cancelled");
        }
        // At once: its place is free for another one, which has a session, too, and a job may be looked for for minutes.
        self.flink.gateway.close(&session).await;
        if whereabouts == Whereabouts::Nowhere {
            return;
        }
        let deadline = Instant::now() + SWEEP;
        let mut pause = Duration::from_millis(50);
        while Instant::now() < deadline {
            match self.flink.jobmanager.job(&self.query.id).await {
                Ok(Some(job)) if job.is_over() => return,
                // It was there, and its JobManager has forgotten it.
                Ok(None) if whereabouts == Whereabouts::Submitted => return,
                Ok(Some(_)) => {
                    if let Err(trouble) = self.flink.jobmanager.cancel(&self.query.id).await {
                        tracing::debug!(%trouble, job = self.query.id, "a query's job could not be cancelled yet");
                    }
                }
                Ok(None) => {}
                Err(trouble) => {
                    tracing::debug!(%trouble, job = self.query.id, "a query's job cannot be looked for yet")
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }
}

/// Where the job of a query is when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whereabouts {
    /// Its statement was refused: there is none.
    Nowhere,
    /// Its statement was being submitted: it may turn up.
    OnItsWay,
    /// The JobManager had it.
    Submitted,
}

fn answer(started: oneshot::Sender<Result<(), Trouble>>, outcome: Result<(), Trouble>) {
    if started.send(outcome).is_err() {
        tracing::debug!("nobody waits for a query any more");
    }
}

fn header(page: &Page) -> (Item, Vec<DataType>) {
    let columns: Vec<Column> = page
        .columns()
        .iter()
        .map(|column| Column {
            name: column.name.clone(),
            data_type: column.logical_type.data_type(),
            nullable: column.logical_type.nullable,
        })
        .collect();
    let types = columns.iter().map(|column| column.data_type.clone()).collect();
    let schema: Vec<String> = columns.iter().map(types::in_schema).collect();
    (Item::Header { columns, schema: schema.join(", ") }, types)
}

fn row(read: &ResultRow, types: &[DataType]) -> Row {
    let kind = match read.kind.as_str() {
        "UPDATE_BEFORE" => RowKind::UpdateBefore,
        "UPDATE_AFTER" => RowKind::UpdateAfter,
        "DELETE" => RowKind::Delete,
        _ => RowKind::Insert,
    };
    let values = read.fields.iter().zip(types).map(|(raw, data_type)| value(raw.get(), Some(data_type)));
    Row { kind, values: values.collect() }
}

/// The number of the outermost LIMIT or FETCH.
fn limit(tokens: &Tokens) -> Option<u64> {
    let mut depth = 0_i32;
    let mut found = None;
    for (at, token) in tokens.0.iter().enumerate() {
        match token {
            Token::Mark('(') => depth += 1,
            Token::Mark(')') => depth -= 1,
            _ if depth == 0 && token.is_word("LIMIT") => found = number(tokens.0.get(at + 1)),
            _ if depth == 0 && token.is_word("FETCH") => found = number(tokens.0.get(at + 2)),
            _ => {}
        }
    }
    found
}

fn number(token: Option<&Token>) -> Option<u64> {
    match token {
        Some(Token::Literal(digits)) => digits.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_outermost_limit_counts() {
        for (sql, expected) in [
            ("SELECT a FROM b LIMIT 3", Some(3)),
            ("SELECT a FROM (SELECT * FROM b LIMIT 9) AS c", None),
            ("SELECT a FROM (SELECT * FROM b LIMIT 9) AS c ORDER BY a FETCH FIRST 2 ROWS ONLY", Some(2)),
            ("SELECT 'LIMIT 5' AS `LIMIT` FROM b -- LIMIT 7", None),
        ] {
            assert_eq!(limit(&Tokens::of(sql).unwrap()), expected, "{sql}");
        }
    }
}
