//! Rows for somebody who looks: one connection per query, read by a task of its own that ends the query in the engine, however
//! it ends here.

use std::time::Duration;

use futures_util::stream;
use reqwest::Response;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::client::{Client, cause};
use super::rows::{Line, Lines, read, unframed};
use super::statements::about_query;
use crate::catalog::Column;
use crate::engines::{End, Item, Rows, Trouble};

/// So many rows wait for somebody who reads slowly; after that the server waits.
const WAITING: usize = 256;

/// What is known of a query before its first row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Nature {
    /// Its rows replace each other.
    pub is_table: bool,
    /// It asks for changes, so without a LIMIT it never ends by itself.
    pub endless: bool,
}

/// The rows of an answer that has begun.
pub(super) fn rows(client: Client, response: Response, nature: Nature, time_limit: Duration) -> Rows {
    let (sender, receiver) = mpsc::channel(WAITING);
    let deadline = Instant::now() + time_limit;
    let reader = Reader {
        nature,
        id: String::new(),
        columns: Vec::new(),
        lines: Lines::default(),
        closed: false,
        sender,
        deadline,
    };
    tokio::spawn(reader.run(client, response));
    Box::pin(stream::unfold(receiver, |mut receiver| async move { receiver.recv().await.map(|item| (item, receiver)) }))
}

/// Why reading stops.
enum Stop {
    /// The query has ended by itself.
    Ended(End),
    /// We end it: it goes on in the engine.
    Left(End),
    /// Nobody listens any more.
    Gone,
}

struct Reader {
    nature: Nature,
    id: String,
    columns: Vec<Column>,
    lines: Lines,
    /// Whether the list of rows was closed: without it an end is a cut.
    closed: bool,
    sender: mpsc::Sender<Item>,
    deadline: Instant,
}

impl Reader {
    async fn run(mut self, client: Client, mut response: Response) {
        let stop = self.read(&mut response).await;
        // The connection is the query's own: closing it ends the query on its host.
        drop(response);
        let end = match stop {
            Stop::Ended(end) => Some(end),
            Stop::Left(end) => {
                self.terminate(&client).await;
                Some(end)
            }
            Stop::Gone => {
                self.terminate(&client).await;
                None
            }
        };
        if let Some(end) = end
            && self.sender.send(Item::End(end)).await.is_err()
        {
            tracing::debug!(query = self.id, "nobody waited for the end of a query");
        }
    }

    /// Ends the query on whatever host it runs. It is gone already as a rule, as its connection is closed.
    async fn terminate(&self, client: &Client) {
        // Pull queries and shared push queries have other ids and cannot be ended by them.
        if !self.id.get(..10).is_some_and(|start| start.eq_ignore_ascii_case("transient_")) {
            return;
        }
        let Ok(statement) = about_query("TERMINATE", &self.id) else { return };
        match client.command(&statement, serde_json::json!({})).await {
            Ok(_) | Err(Trouble::Refused(_)) => {}
            Err(error) => tracing::warn!(query = self.id, error = %error, "a query may go on in ksqlDB"),
        }
    }

    async fn read(&mut self, response: &mut Response) -> Stop {
        loop {
            let chunk = tokio::select! {
                biased;
                () = self.sender.closed() => return Stop::Gone,
                () = sleep_until(self.deadline) => return Stop::Left(End::Limit),
                chunk = response.chunk() => chunk,
            };
            let bytes = match chunk {
                Ok(Some(chunk)) if !self.lines.add(&chunk) => {
                    return Stop::Left(End::Failed("ksqlDB sends a row of more than 16 MiB".to_owned()));
                }
                Ok(Some(_)) => self.lines.whole(),
                Ok(None) => std::mem::take(&mut self.lines).rest(),
                // Half a line is no row: what is left is dropped.
                Err(error) => {
                    return Stop::Ended(End::Interrupted(format!(
                        "the connection to ksqlDB was cut: {}",
                        cause(&error)
                    )));
                }
            };
            let is_last = matches!(chunk, Ok(None));
            for line in bytes.split(|byte| *byte == b'\n') {
                if let Some(stop) = self.line(line).await {
                    return stop;
                }
            }
            if is_last {
                return Stop::Ended(self.silent_end());
            }
        }
    }

    async fn line(&mut self, line: &[u8]) -> Option<Stop> {
        let (line, closes) = unframed(line);
        self.closed |= closes;
        let item = match read(line, &self.columns, self.nature.is_table) {
            Err(why) => return Some(Stop::Left(End::Failed(why))),
            Ok(Line::Nothing) => return None,
            Ok(Line::Error(why)) => return Some(Stop::Ended(End::Failed(why))),
            Ok(Line::Final(last)) => return Some(Stop::Ended(self.last_word(&last))),
            Ok(Line::Header { id, columns, schema }) => {
                self.id = id;
                self.columns.clone_from(&columns);
                Item::Header { columns, schema }
            }
            Ok(Line::Row(row)) => Item::Row(row),
        };
        tokio::select! {
            // A slow reader must not make a query outlive its time.
            () = sleep_until(self.deadline) => Some(Stop::Left(End::Limit)),
            sent = self.sender.send(item) => sent.is_err().then_some(Stop::Gone),
        }
    }

    /// A query for changes that says it is complete did not end by itself.
    fn last_word(&self, last: &str) -> End {
        match last {
            "Limit Reached" => End::Limit,
            _ if self.nature.endless => End::Cancelled,
            _ => End::Complete,
        }
    }

    /// Without a last word only an answer that asked for what is there is complete, and only if its list was closed.
    fn silent_end(&self) -> End {
        if self.closed && !self.nature.endless {
            End::Complete
        } else {
            End::Interrupted("ksqlDB ended the rows without a word: it stopped, or something between did".to_owned())
        }
    }
}
