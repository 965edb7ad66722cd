//! The methods of the hub at `/hub/stream`, as the original's clients call them, over [`crate::queries`] and
//! [`crate::preview`].
//!
//! | method | gives |
//! |---|---|
//! | `ExecuteAdHoc(query, engine?, fromBeginning?, pull?)` | a stream: header, rows, end |
//! | `ViewStream(streamId)` | a stream: header at once, the rows of the definition's output topic from now on |
//! | `JoinStreamGroup(topic)`, `LeaveStreamGroup(topic)` | nothing; each value comes as `ReceiveMessage(text)`, with the columns of an output that stand in the key; a deletion as `{"key":…,"tombstone":true}`; lost ones are counted by `ReceiveDropped(number)`, an end is told by `ReceiveEnd(sentence)` |
//! | `GetQueryLimits()` | what runs and what may, and after how much one query is ended |

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::Manager;
use crate::engines::EngineKind;
use crate::fault::Fault;
use crate::hub::{Call, Client, ConnectionId, HubService, Items, Method, PushText, Pushed};
use crate::ports::From;
use crate::preview::{Columns, Previews, Told, Watcher};
use crate::queries::{NewQuery, Queries};

/// Topics that one connection may have joined.
const MOST_GROUPS: usize = 20;
/// The methods, in lower case: clients differ.
const METHODS: [(&str, Method); 5] = [
    ("executeadhoc", Method::Streaming),
    ("viewstream", Method::Streaming),
    ("joinstreamgroup", Method::Plain),
    ("leavestreamgroup", Method::Plain),
    ("getquerylimits", Method::Plain),
];

/// Rows that people look at. Clones are the same.
#[derive(Clone)]
pub struct Live {
    /// Queries.
    pub queries: Queries,
    /// Topics.
    pub previews: Previews,
    joined: Arc<Mutex<Joined>>,
    runtime: Handle,
}

/// What is sent to whom, by connection and topic.
type Joined = HashMap<(ConnectionId, String), AbortHandle>;

impl Live {
    /// What a manager has to show.
    pub fn of(manager: &Manager) -> Live {
        let parts = manager.parts();
        let (kafka, schemas) = (Arc::clone(&parts.kafka), parts.schemas.clone());
        let previews = Previews::new(kafka, schemas, Arc::new(manager.clone()), parts.settings.preview.clone());
        let (all, limits) = (Arc::new(manager.clone()), parts.settings.limits.clone());
        let queries = Queries::among(all.clone(), limits, all, &parts.settings.instance);
        Live::new(queries, previews)
    }

    /// These queries and topics. What is sent is sent in the runtime of whoever calls this.
    pub fn new(queries: Queries, previews: Previews) -> Live {
        Live { queries, previews, joined: Arc::default(), runtime: Handle::current() }
    }

    fn joined(&self) -> MutexGuard<'_, Joined> {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn execute(&self, call: &Call) -> Result<Items, String> {
        if !call.caller.may_develop {
            return Err("to query asks for the role `developer`".to_owned());
        }
        let query = NewQuery {
            sql: text(call, 0, "query")?.to_owned(),
            engine: engine(call.arguments.get(1))?,
            from_beginning: switch(call, 2, "fromBeginning")?,
            pull: switch(call, 3, "pull")?,
        };
        let rows = self.queries.run(query, &call.caller.counted_as).await.map_err(|refused| match refused {
            crate::queries::Refused::Fault(fault) => in_words(&fault),
            refused => refused.to_string(),
        })?;
        Ok(rows
            .flat_map(|line| {
                let fault = line.fault().map(|why| Err(why.to_owned()));
                stream::iter([Some(Ok(line.text().to_owned())), fault].into_iter().flatten())
            })
            .boxed())
    }

    async fn view(&self, call: &Call) -> Result<Items, String> {
        let id = text(call, 0, "streamId")?;
        let watched = self.previews.watch_stream(id, From::Latest, &call.caller.counted_as).await;
        let watcher = watched.map_err(|refused| refused.to_string())?;
        let mut columns = self.previews.columns(&watcher).await;
        let header = stream::iter(columns.header().map(Ok));
        let previews = self.previews.clone();
        let rows = stream::unfold(Some((previews, watcher, columns)), next_lines).flat_map(stream::iter);
        Ok(header.chain(rows).boxed())
    }

    async fn join(&self, call: &Call) -> Result<(), String> {
        let topic = text(call, 0, "topic")?;
        let key = (call.client.id().clone(), topic.to_owned());
        {
            let mut joined = self.joined();
            if joined.get(&key).is_some_and(|sending| !sending.is_finished()) {
                return Ok(());
            }
            // What has ended nobody has to leave.
            joined.retain(|(client, _), sending| client != call.client.id() || !sending.is_finished());
            if joined.keys().filter(|(client, _)| client == call.client.id()).count() >= MOST_GROUPS {
                return Err(format!(
                    "this connection has joined {MOST_GROUPS} topics, and no more may be: leave one first"
                ));
            }
        }
        let watched = self.previews.watch(topic, From::Latest, &call.caller.counted_as).await;
        let watcher = watched.map_err(|refused| refused.to_string())?;
        let sending = self.runtime.spawn(send(watcher, call.client.clone()));
        self.joined().insert(key, sending.abort_handle());
        Ok(())
    }

    fn leave(&self, client: &Client, topic: Option<&str>) {
        self.joined().retain(|(id, joined), sending| {
            let stays = id != client.id() || topic.is_some_and(|topic| topic != joined);
            if !stays {
                sending.abort();
            }
            stays
        });
    }

    async fn limits(&self, call: &Call) -> Result<Value, String> {
        let owner = &call.caller.counted_as;
        let limits = self.queries.limits();
        let active = self.queries.active_everywhere(owner).await.map_err(|fault| fault.to_string())?;
        let (own, all) = self.queries.deployed(owner).await.map_err(|fault| fault.to_string())?;
        Ok(json!({
            "userActiveAdHocQueries": active.of_owner,
            "userMaxAdHocQueries": limits.queries_per_user,
            "userActivePersistentQueries": own,
            "userMaxPersistentQueries": limits.streams_per_user,
            "globalActiveAdHocQueries": active.in_all,
            "globalMaxAdHocQueries": limits.queries,
            "globalActivePersistentQueries": all,
            "globalMaxPersistentQueries": limits.streams,
            "adHocMaxSeconds": limits.query_time.as_secs(),
            "adHocMaxRows": limits.query_rows,
            "adHocMaxBytes": limits.query_bytes,
        }))
    }
}

#[async_trait]
impl HubService for Live {
    fn method(&self, target: &str) -> Option<Method> {
        let known = METHODS.iter().find(|(name, _)| name.eq_ignore_ascii_case(target));
        known.map(|(_, method)| *method)
    }

    async fn invoke(&self, call: Call) -> Result<Value, String> {
        match call.target.to_ascii_lowercase().as_str() {
            "joinstreamgroup" => self.join(&call).await.map(|()| Value::Null),
            "leavestreamgroup" => {
                self.leave(&call.client, Some(text(&call, 0, "topic")?));
                Ok(Value::Null)
            }
            "getquerylimits" => self.limits(&call).await,
            _ => Err(format!("there is no method `{}`", call.target)),
        }
    }

    async fn stream(&self, call: Call) -> Result<Items, String> {
        match call.target.to_ascii_lowercase().as_str() {
            "executeadhoc" => self.execute(&call).await,
            "viewstream" => self.view(&call).await,
            _ => Err(format!("there is no method `{}`", call.target)),
        }
    }

    fn left(&self, client: &Client) {
        self.leave(client, None);
    }
}

fn text<'c>(call: &'c Call, place: usize, name: &str) -> Result<&'c str, String> {
    match call.arguments.get(place) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        Some(other) => Err(format!("`{name}` is {other}: it has to be a text that is not empty")),
        None => Err(format!("`{name}` is missing: {} takes it as its argument {}", call.target, place + 1)),
    }
}

/// False where it is left out.
fn switch(call: &Call, place: usize, name: &str) -> Result<bool, String> {
    match call.arguments.get(place) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(is_on)) => Ok(*is_on),
        Some(other) => Err(format!("`{name}` is {other}: it has to be true or false")),
    }
}

fn engine(argument: Option<&Value>) -> Result<Option<EngineKind>, String> {
    match argument {
        None | Some(Value::Null) => Ok(None),
        Some(named) => {
            let known = EngineKind::ALL.into_iter().find(|engine| *named == engine.name());
            let names = || EngineKind::ALL.map(EngineKind::name).join("` or `");
            known.map(Some).ok_or_else(|| format!("`engine` is {named}: it has to be `{}`", names()))
        }
    }
}

/// With the place of each fault in the statement.
fn in_words(fault: &Fault) -> String {
    let Fault::Refused(refusals) = fault else { return fault.to_string() };
    let words = refusals.iter().map(|refusal| match (refusal.line, refusal.column) {
        (Some(line), Some(column)) => format!("line {line}, column {column}: {}", refusal.message),
        _ => refusal.message.clone(),
    });
    words.collect::<Vec<_>>().join("; ")
}

/// What a watcher is told next, as lines; the last one is an error.
async fn next_lines(
    watching: Option<(Previews, Watcher, Columns)>,
) -> Option<(Vec<Result<String, String>>, Option<(Previews, Watcher, Columns)>)> {
    let (previews, mut watcher, mut columns) = watching?;
    match watcher.next().await {
        Told::Frame(frame) => {
            let dropped = (frame.dropped > 0).then(|| json!({ "dropped": frame.dropped }).to_string());
            let mut lines: Vec<_> = dropped.into_iter().map(Ok).collect();
            for row in &frame.rows {
                if watcher.turns_at(row) {
                    // Not told yet, they are told before the row.
                    columns = previews.columns(&watcher).await;
                }
                lines.extend(columns.lines(row).into_iter().map(Ok));
            }
            Some((lines, Some((previews, watcher, columns))))
        }
        Told::End(why) => Some((vec![Err(why)], None)),
    }
}

/// Sends what comes to one client, and how much of it it has lost, here or on its way.
async fn send(mut watcher: Watcher, client: Client) {
    let mut lost = 0;
    let mut columns = Columns::of(watcher.output());
    loop {
        match watcher.next().await {
            Told::Frame(frame) => {
                lost += frame.dropped;
                for row in &frame.rows {
                    if watcher.turns_at(row) {
                        columns = Columns::of(watcher.output());
                    }
                    match client.push(row.push(&mut columns)) {
                        Pushed::Waits => {}
                        Pushed::Lost => lost += 1,
                        Pushed::Gone => return,
                    }
                }
                // Where this is lost, too, it is told with the next one.
                if lost > 0 && client.push(&PushText::new("ReceiveDropped", &lost.to_string())) == Pushed::Waits {
                    lost = 0;
                }
            }
            Told::End(why) => {
                client.push(&PushText::new("ReceiveEnd", &why));
                return;
            }
        }
    }
}
