//! Rows for somebody who looks: one connection per query, read by a task of its own that ends the query in the engine, however
//! it ends here.

use std::time::Duration;

use reqwest::Response;
use tokio::time::{Instant, sleep_until};

use super::client::{Client, cause};
use super::rows::{Line, Lines, read, unframed};
use super::statements::about_query;
use crate::catalog::Column;
use crate::engines::ahead::{Ahead, Gone, MAX_ROW, ahead};
use crate::engines::{End, Item, Rows, Trouble};

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
    let (items, received) = ahead();
    let deadline = Instant::now() + time_limit;
    let reader = Reader {
        nature,
        id: String::new(),
        columns: Vec::new(),
        lines: Lines::default(),
        closed: false,
        items,
        deadline,
    };
    tokio::spawn(reader.run(client, response));
    Box::pin(received)
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

fn too_long(bytes: usize) -> End {
    End::Failed(format!("a row has {bytes} bytes or more, and at most {MAX_ROW} are handed on"))
}

struct Reader {
    nature: Nature,
    id: String,
    columns: Vec<Column>,
    lines: Lines,
    /// Whether the list of rows was closed: without it an end is a cut.
    closed: bool,
    items: Ahead,
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
            && self.items.send(Item::End(end)).await.is_err()
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
                () = self.items.closed() => return Stop::Gone,
                () = sleep_until(self.deadline) => return Stop::Left(End::Limit),
                chunk = response.chunk() => chunk,
            };
            let bytes = match chunk {
                Ok(Some(chunk)) if !self.lines.add(&chunk) => {
                    return Stop::Left(too_long(self.lines.len()));
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
        if line.len() > MAX_ROW {
            return Some(Stop::Left(too_long(line.len())));
        }
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
            Ok(Line::Row(row)) => {
                let (items, bytes) = (&self.items, line.len());
                return self.handed_on(items.send_row(row, bytes)).await;
            }
        };
        self.handed_on(self.items.send(item)).await
    }

    /// A slow reader must not make a query outlive its time.
    async fn handed_on(&self, sending: impl Future<Output = Result<(), Gone>>) -> Option<Stop> {
        tokio::select! {
            () = sleep_until(self.deadline) => Some(Stop::Left(End::Limit)),
            sent = sending => sent.is_err().then_some(Stop::Gone),
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::{StreamExt, stream};

    use super::*;
    use crate::engines::ksqldb::Patience;
    use crate::settings::KsqldbSettings;

    /// An answer of these many rows of so many bytes, and how many of its chunks were taken.
    fn answer(rows: usize, bytes: usize) -> (Rows, Arc<AtomicUsize>) {
        let header = "[{\"header\":{\"queryId\":\"query_1\",\"schema\":\"`A` STRING\"}},\n".to_owned();
        let row = format!("{{\"row\":{{\"columns\":[\"{}\"]}}}},\n", "x".repeat(bytes));
        let lines = [header].into_iter().chain(std::iter::repeat_n(row, rows)).chain(["]".to_owned()]);
        let taken = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&taken);
        let chunks = stream::iter(lines).map(move |line| {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok::<_, Infallible>(line)
        });
        let response = http::Response::new(reqwest::Body::wrap_stream(chunks)).into();
        let settings = KsqldbSettings { url: String::new(), username: String::new(), password: String::new() };
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = Client::new(settings, Patience::default()).unwrap();
        let nature = Nature { is_table: false, endless: false };
        (super::rows(client, response, nature, Duration::from_secs(3_600)), taken)
    }

    /// Lets the reader's task do all that it can do: nothing here waits for anything outside.
    async fn idle() {
        for _ in 0..10_000 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn rows_of_a_megabyte_that_nobody_reads_are_not_read_ahead() {
        let (rows, taken) = answer(200, 1_000_000);
        idle().await;
        let ahead = taken.load(Ordering::SeqCst);
        assert!((5..=8).contains(&ahead), "the header, four rows, and what is on its way: {ahead} chunks");

        let items: Vec<Item> = rows.collect().await;
        assert_eq!(items.len(), 202, "read, they all come");
        assert_eq!(items.last(), Some(&Item::End(End::Complete)));
        assert_eq!(taken.load(Ordering::SeqCst), 202);
    }

    #[tokio::test]
    async fn a_row_that_is_too_long_ends_the_query_by_name() {
        for bytes in [1 << 20, 5 << 20] {
            let (rows, _) = answer(3, bytes);
            let items: Vec<Item> = rows.collect().await;
            let [Item::Header { .. }, Item::End(End::Failed(why))] = &items[..] else {
                panic!("{} items", items.len())
            };
            assert!(why.contains("at most 1048576 are handed on"), "{why}");
        }
    }
}
