//! Row streams: what leaves, in which chunks, and how it ends.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::cluster::{Cluster, Push, from_start};
use super::flow::{Flow, Given, Plan};
use super::kafka::Control;
use super::refused::Refused;
use super::statement::{Kind, Select};
use super::switches::Switches;
use super::types::quoted;

/// A body: whole, or as it comes.
pub enum Answer {
    /// Whole.
    Whole(Option<Bytes>),
    /// As it comes; dropped, what makes it ends.
    Rows(mpsc::Receiver<io::Result<Bytes>>, Arc<Control>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Answer::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Answer::Rows(rows, _) => rows.poll_recv(cx).map(|next| next.map(|bytes| bytes.map(Frame::data))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Answer::Rows(..) => SizeHint::new(),
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Answer::Rows(_, control) = self {
            control.stop.store(true, Ordering::Release);
        }
    }
}

/// Which of the forms the client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One object a line, all of them a list.
    JsonRows,
    /// One list a line. Tombstones and the reason of the end are left out.
    Delimited,
}

/// Writes lines, cut as the switches say.
struct Lines {
    sender: mpsc::Sender<io::Result<Bytes>>,
    switches: Switches,
    form: Form,
    /// A pull query's last line has no comma, so each line is kept back until the next one is there.
    keeps_back: bool,
    sent: usize,
    rows: u64,
}

impl Lines {
    /// False when nobody takes it.
    fn write(&mut self, text: &str) -> bool {
        let text = if self.switches.blank_lines { format!("\n{text}") } else { text.to_owned() };
        let bytes = Bytes::from(text);
        let size = self.switches.chunk_bytes.unwrap_or(usize::MAX).clamp(1, bytes.len());
        for begin in (0..bytes.len()).step_by(size) {
            let mut chunk = bytes.slice(begin..bytes.len().min(begin + size));
            let room = self.switches.cut_after_bytes.map(|most| most.saturating_sub(self.sent));
            let cut = room.is_some_and(|room| room < chunk.len());
            if let Some(room) = room {
                chunk.truncate(room);
            }
            self.sent += chunk.len();
            if !chunk.is_empty() && self.sender.blocking_send(Ok(chunk)).is_err() {
                return false;
            }
            if cut {
                // What was sent has to leave before the cut: a body's error throws away what waits.
                std::thread::park_timeout(Duration::from_millis(100));
                // Nobody there to cut off is as good.
                drop(self.sender.blocking_send(Err(io::Error::other("cut"))));
                return false;
            }
        }
        true
    }

    fn header(&mut self, id: &str, plan: &Plan, marks_keys: bool) -> bool {
        if self.form == Form::Delimited {
            let names: Vec<&str> = plan.columns.iter().map(|column| column.name.as_str()).collect();
            let types: Vec<String> = plan.columns.iter().map(|column| column.of.to_string()).collect();
            return self.write(&format!("{}\n", json!({ "queryId": id, "columnNames": names, "columnTypes": types })));
        }
        let column = |column: &super::statement::Column| {
            format!("{} {}{}", quoted(&column.name), column.of, if column.key && marks_keys { " KEY" } else { "" })
        };
        let schema: Vec<String> = plan.columns.iter().map(column).collect();
        let header = json!({ "queryId": id, "schema": schema.join(", ") });
        let end = if self.keeps_back { "" } else { ",\n" };
        self.write(&format!("[{{\"header\":{header}}}{end}"))
    }

    /// A line behind another.
    fn line(&mut self, text: &str) -> bool {
        match self.form {
            Form::JsonRows if self.keeps_back => self.write(&format!(",\n{text}")),
            Form::JsonRows => self.write(&format!("{text},\n")),
            Form::Delimited => self.write(&format!("{text}\n")),
        }
    }

    fn row(&mut self, given: &Given) -> bool {
        if self.form == Form::Delimited {
            return given.gone || self.line(&given.json());
        }
        if self.switches.unknown_lines && !self.line("{\"continuationToken\":{\"continuationToken\":\"eyJ2IjoxfQ==\"}}")
        {
            return false;
        }
        let gone = if given.gone { ",\"tombstone\":true" } else { "" };
        self.rows += 1;
        self.line(&format!("{{\"row\":{{\"columns\":{}{gone}}}}}", given.json()))
    }

    /// A push query ends with a message, or by its fault with a list that is none.
    fn end(&mut self, message: Result<&str, &str>) {
        if self.form == Form::Delimited {
            return;
        }
        match message {
            Ok(message) => self.write(&format!("{{\"finalMessage\":\"{message}\"}}]")),
            Err(why) => {
                let error = json!({ "@type": "generic_error", "error_code": 50000, "message": why });
                self.write(&format!("{{\"errorMessage\":{error}}},\n]"))
            }
        };
    }
}

/// Starts a query for somebody who looks.
///
/// # Errors
/// Why it does not start.
pub fn begin(
    cluster: &Arc<Cluster>,
    select: &Select,
    text: &str,
    properties: &Map<String, Value>,
    form: Form,
) -> Result<Answer, Refused> {
    let plan = cluster.catalog().plan(select, text).map_err(|refused| refused.glued(text))?;
    let (sender, receiver) = mpsc::channel(8);
    let switches = cluster.switches().clone();
    let is_pull = !select.changes && plan.source.kind == Kind::Table;
    let lines = Lines { sender, switches, form, keeps_back: is_pull, sent: 0, rows: 0 };
    if is_pull {
        if !plan.source.materialised {
            let why = format!("The `{}` table isn't queryable.", plan.source.name);
            return Err(Refused::statement(why, text));
        }
        let control = Arc::new(Control::default());
        let cluster = Arc::clone(cluster);
        spawn("pull", move || pull(&cluster, plan, lines))?;
        return Ok(Answer::Rows(receiver, control));
    }
    let from_start = !select.changes || from_start(properties);
    push(cluster, plan, text, from_start, lines).map(|control| Answer::Rows(receiver, control))
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Refused> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map(drop).map_err(|error| Refused::generic(500, 50000, error.to_string()))
}

fn push(
    cluster: &Arc<Cluster>,
    plan: Plan,
    text: &str,
    from_start: bool,
    mut lines: Lines,
) -> Result<Arc<Control>, Refused> {
    static NEXT: AtomicU64 = AtomicU64::new(4711);
    let control = Arc::new(Control::default());
    let id = format!("transient_{}_{}", plan.source.name, NEXT.fetch_add(1, Ordering::Relaxed));
    {
        let mut pushes = cluster.pushes.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = match lines.switches.max_push_queries {
            0 => 100,
            limit => limit,
        };
        if pushes.len() >= limit {
            let why = format!(
                "One more would cause the number of active, push queries to exceed the configured limit: count: {}, limit: {limit}",
                pushes.len()
            );
            return Err(Refused::statement(why, text).glued(text));
        }
        pushes.insert(id.clone(), Push { text: text.to_owned(), control: Arc::clone(&control) });
    }
    let (cluster, told) = (Arc::clone(cluster), Arc::clone(&control));
    spawn("push", move || {
        let (slow_close, lines) = (lines.switches.slow_close, &mut lines);
        stream(&cluster, plan, from_start, &told, &id, lines);
        if slow_close > 0 {
            std::thread::park_timeout(Duration::from_millis(slow_close));
        }
        cluster.pushes.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    })?;
    Ok(control)
}

fn stream(cluster: &Cluster, plan: Plan, from_start: bool, control: &Arc<Control>, id: &str, lines: &mut Lines) {
    let limit = plan.select.limit;
    if limit == Some(0) {
        lines.header(id, &plan, false);
        return lines.end(Ok("Limit Reached"));
    }
    let fail_after = lines.switches.fail_after_rows;
    let end_after = lines.switches.end_after_rows;
    let shown = plan.clone();
    let lines = std::cell::RefCell::new(lines);
    let mut taken = true;
    let begun = || {
        lines.borrow_mut().header(id, &shown, false);
    };
    let outcome = cluster.brokers.push(plan, from_start, control, begun, |given| {
        let mut lines = lines.borrow_mut();
        taken = lines.row(&given);
        let reached = |most: Option<u64>| most.is_some_and(|most| lines.rows >= most);
        taken && !reached(limit) && !reached(fail_after) && !reached(end_after)
    });
    let mut lines = lines.borrow_mut();
    let rows = lines.rows;
    if let Err(error) = &outcome {
        return lines.end(Err(&format!("org.example.StreamsException: {error:#}")));
    }
    if !taken || end_after.is_some_and(|most| rows >= most) {
        return;
    }
    if fail_after.is_some_and(|most| rows >= most) {
        return lines.end(Err("org.example.StreamsException: a record could not be\n\tread"));
    }
    let limited = limit.is_some_and(|most| rows >= most);
    lines.end(Ok(if limited { "Limit Reached" } else { "Query Completed" }));
}

/// The rows of a table as they are now.
fn pull(cluster: &Cluster, plan: Plan, mut lines: Lines) {
    let (topic, limit) = (plan.source.topic.clone(), plan.select.limit.unwrap_or(u64::MAX));
    if !lines.header("query_1767225600000", &plan, true) {
        return;
    }
    let mut flow = Flow::new(plan);
    let mut rows: BTreeMap<Vec<u8>, Given> = BTreeMap::new();
    let read = cluster.brokers.whole(&topic, |key, value| {
        let Some(known) = key else { return };
        match flow.take(key, value) {
            Some(given) if !given.gone => drop(rows.insert(known.to_owned(), given)),
            _ => drop(rows.remove(known)),
        }
    });
    for given in rows.values() {
        if lines.rows >= limit || !lines.row(given) {
            break;
        }
    }
    match read {
        Ok(()) => {
            if lines.form == Form::JsonRows {
                lines.write("]");
            }
        }
        Err(error) => {
            let error = json!({ "@type": "generic_error", "error_code": 50000, "message": format!("{error:#}") });
            lines.write(&format!(",\n{{\"errorMessage\":{error}}}]"));
        }
    }
}
