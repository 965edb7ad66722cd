//! The server's state: the catalogue, the command topic, what runs, what was asked. Blocking code.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Options;
use super::catalog::{Applied, Catalog, Command, Effect, Query, Topics};
use super::kafka::{Brokers, Control};
use super::parse;
use super::refused::Refused;
use super::statement::Statement;
use super::switches::{Asked, Refuse, Switches};
use super::tokens::{self, Piece};

/// How a command stands.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// `QUEUED`, `SUCCESS`, `ERROR`.
    pub status: &'static str,
    /// For people.
    pub message: String,
    /// The query that it made.
    pub query_id: Option<String>,
}

/// A command, as the command topic keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    sequence: u64,
    text: String,
    properties: Map<String, Value>,
}

/// What a command's answer says.
pub struct Commanded {
    /// Its id.
    pub id: String,
    /// The statement, as the server writes it.
    pub text: String,
    /// How it stands.
    pub status: Status,
    /// Its place in the command topic.
    pub sequence: u64,
    /// It found something by that name, and is no command.
    pub warned: bool,
}

struct Running {
    control: Arc<Control>,
    thread: Option<JoinHandle<()>>,
}

/// A push query.
pub struct Push {
    /// The statement.
    pub text: String,
    /// How it is spoken to.
    pub control: Arc<Control>,
}

#[derive(Default)]
struct State {
    catalog: Catalog,
    statuses: BTreeMap<String, Status>,
    next_sequence: u64,
    held: Vec<Kept>,
    running: HashMap<String, Running>,
    log: Option<File>,
}

/// A server that stands for a cluster.
pub struct Cluster {
    /// How it was started.
    pub options: Options,
    /// Kafka.
    pub brokers: Brokers,
    /// Push queries by id.
    pub pushes: Mutex<BTreeMap<String, Push>>,
    /// What failed by itself, by query.
    faults: Arc<Mutex<BTreeMap<String, String>>>,
    state: Mutex<State>,
    switches: Mutex<Switches>,
    asked: Mutex<Vec<Asked>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cluster {
    /// With what an earlier one kept in its folder; its queries go on.
    pub fn open(options: Options) -> Result<Cluster> {
        let cluster = Cluster {
            brokers: Brokers(options.bootstrap_servers.clone()),
            pushes: Mutex::default(),
            faults: Arc::default(),
            state: Mutex::default(),
            switches: Mutex::default(),
            asked: Mutex::default(),
            options,
        };
        if let Some(folder) = cluster.options.folder.clone() {
            cluster.replay(&folder)?;
        }
        Ok(cluster)
    }

    fn replay(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).context("making the command topic's folder")?;
        let path: PathBuf = folder.join("commands.jsonl");
        let kept =
            if path.exists() { fs::read_to_string(&path).context("reading the command topic")? } else { String::new() };
        let mut state = lock(&self.state);
        for line in kept.lines() {
            let Ok(kept) = serde_json::from_str::<Kept>(line) else { continue };
            state.next_sequence = kept.sequence + 1;
            self.perform(&mut state, &kept, None)?;
        }
        let ids: Vec<String> = state.catalog.queries.keys().cloned().collect();
        for id in ids {
            self.start(&mut state, &id);
        }
        state.log = Some(OpenOptions::new().create(true).append(true).open(path).context("opening the command topic")?);
        Ok(())
    }

    /// What can go wrong now.
    pub fn switches(&self) -> MutexGuard<'_, Switches> {
        lock(&self.switches)
    }

    /// Switches, and runs what was held if nothing is held any more.
    pub fn switch(&self, switches: Switches) -> Result<()> {
        let (holds, fail) = (switches.hold, lock(&self.switches).held_fail.clone());
        *lock(&self.switches) = switches;
        if holds {
            return Ok(());
        }
        let mut state = lock(&self.state);
        for kept in std::mem::take(&mut state.held) {
            if let Some(why) = &fail {
                let status = Status { status: "ERROR", message: format!("{why}\n\tat somewhere"), query_id: None };
                if let Some(statement) = read(&kept.text) {
                    state.statuses.insert(Catalog::command_id(&statement), status);
                }
                continue;
            }
            let mut topics = self.brokers.topics()?;
            self.perform(&mut state, &kept, Some(&mut topics))?;
        }
        Ok(())
    }

    /// The refusal that is switched on for these words, counted down.
    pub fn refusal_for(&self, words: &str) -> Option<Refuse> {
        let mut switches = lock(&self.switches);
        let at = switches.refuse.iter().position(|refuse| words.contains(&refuse.words))?;
        let found = switches.refuse[at].clone();
        match &mut switches.refuse[at].times {
            Some(1) => drop(switches.refuse.remove(at)),
            Some(times) => *times -= 1,
            None => {}
        }
        Some(found)
    }

    /// Writes down what was asked.
    pub fn note(&self, asked: Asked) {
        lock(&self.asked).push(asked);
    }

    /// What was asked.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.asked).clone()
    }

    /// The catalogue as it is now.
    pub fn catalog(&self) -> Catalog {
        lock(&self.state).catalog.clone()
    }

    /// How commands stand.
    pub fn statuses(&self) -> BTreeMap<String, Status> {
        lock(&self.state).statuses.clone()
    }

    /// Why a persistent query has failed, if it has.
    pub fn failure_of(&self, id: &str) -> Option<String> {
        lock(&self.switches).failed.get(id).cloned().or_else(|| lock(&self.faults).get(id).cloned())
    }

    /// The consumer group of a persistent query.
    pub fn group_of(&self, id: &str) -> String {
        format!("_confluent-ksql-{}query_{id}", self.options.service_id)
    }

    /// Tries a statement on a copy of the catalogue, as the server does with all statements of a request before any runs.
    pub fn rehearse(
        &self,
        catalog: &mut Catalog,
        piece: &Piece,
        statement: &Statement,
        properties: &Map<String, Value>,
        topics: &mut Topics,
    ) -> Result<(), Refused> {
        let sequence = lock(&self.state).next_sequence;
        let before = catalog.queries.len();
        catalog.apply(&Command { text: &piece.text, statement, properties, sequence }, Some(topics))?;
        let limit = lock(&self.switches).max_persistent_queries;
        match limit {
            Some(limit) if catalog.queries.len() > before && catalog.queries.len() > limit => Err(Refused::generic(
                400,
                40000,
                format!(
                    "One more would cause the number of active, persistent queries to exceed the configured limit: count: {}, \
                     limit: {limit}",
                    catalog.queries.len()
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Writes a command and runs it, or holds it.
    pub fn command(
        &self,
        piece: &Piece,
        statement: &Statement,
        properties: &Map<String, Value>,
        topics: &mut Topics,
    ) -> Result<Commanded> {
        let mut state = lock(&self.state);
        let id = Catalog::command_id(statement);
        let warned = matches!(statement, Statement::Create(create)
            if create.unless_there && state.catalog.sources.contains_key(&create.name));
        let sequence = state.next_sequence;
        let kept = Kept { sequence, text: piece.text.clone(), properties: properties.clone() };
        if !warned {
            state.next_sequence += 1;
            if let Some(log) = &mut state.log {
                writeln!(log, "{}", serde_json::to_string(&kept)?).context("writing to the command topic")?;
            }
            if lock(&self.switches).hold {
                let message = "Statement written to command topic".to_owned();
                let status = Status { status: "QUEUED", message, query_id: None };
                state.statuses.insert(id.clone(), status.clone());
                state.held.push(kept);
                return Ok(Commanded { id, text: piece.text.clone(), status, sequence, warned: false });
            }
        }
        let (text, status) = self.perform(&mut state, &kept, Some(topics))?;
        Ok(Commanded { id, text, status, sequence, warned })
    }

    /// Runs a command. `topics` is `None` while old ones are read again: then nothing is started.
    fn perform(&self, state: &mut State, kept: &Kept, topics: Option<&mut Topics>) -> Result<(String, Status)> {
        let statement = read(&kept.text).context("a command that is no statement")?;
        let live = topics.is_some();
        let command =
            Command { text: &kept.text, statement: &statement, properties: &kept.properties, sequence: kept.sequence };
        let (text, status) = match state.catalog.apply(&command, topics) {
            Ok(Applied { message, query, text, effects, warned }) => {
                if live && !warned {
                    self.effect(state, &effects)?;
                }
                (text, Status { status: "SUCCESS", message, query_id: query })
            }
            Err(refused) => {
                let message = refused.body["message"].as_str().unwrap_or_default();
                let message = format!("io.example.QueryException: {message}\n\tat somewhere");
                (kept.text.clone(), Status { status: "ERROR", message, query_id: None })
            }
        };
        state.statuses.insert(Catalog::command_id(&statement), status.clone());
        Ok((text, status))
    }

    fn effect(&self, state: &mut State, effects: &[Effect]) -> Result<()> {
        for effect in effects {
            match effect {
                Effect::Topic(name, partitions) => {
                    let made = self.brokers.create_topic(name, *partitions);
                    tokio::runtime::Handle::current().block_on(made)?;
                }
                Effect::Start(id) => self.start(state, id),
                Effect::Stop(id) => stop(state, id),
                Effect::Pause(id, paused) => {
                    if let Some(running) = state.running.get(id) {
                        running.control.paused.store(*paused, Ordering::Release);
                    }
                }
            }
        }
        Ok(())
    }

    fn start(&self, state: &mut State, id: &str) {
        stop(state, id);
        let Some(query) = state.catalog.queries.get(id) else { return };
        let control = Arc::new(Control::default());
        control.paused.store(query.paused, Ordering::Release);
        let (brokers, group, faults) = (self.brokers.clone(), self.group_of(id), Arc::clone(&self.faults));
        let Query { id, topic, plan, properties, .. } = query.clone();
        let (told, from_start) = (Arc::clone(&control), from_start(&properties));
        lock(&faults).remove(&id);
        let key = id.clone();
        if self.options.idle {
            state.running.insert(key, Running { control, thread: None });
            return;
        }
        let thread = std::thread::Builder::new().name("persistent".to_owned()).spawn(move || {
            if let Err(error) = brokers.run(plan, &group, &topic, from_start, &told) {
                eprintln!("{id}: {error:#}");
                lock(&faults).insert(id, format!("{error:#}"));
            }
        });
        state.running.insert(key, Running { control, thread: thread.ok() });
    }
}

fn stop(state: &mut State, id: &str) {
    let Some(mut running) = state.running.remove(id) else { return };
    running.control.stop.store(true, Ordering::Release);
    if running.thread.take().is_some_and(|thread| thread.join().is_err()) {
        eprintln!("{id} panicked");
    }
}

fn read(text: &str) -> Option<Statement> {
    let pieces = tokens::statements(text).ok()?;
    parse::statement(pieces.first()?).ok()
}

/// Whether a query begins with what is there already.
pub fn from_start(properties: &Map<String, Value>) -> bool {
    let reset = ["auto.offset.reset", "ksql.streams.auto.offset.reset"].iter().find_map(|name| properties.get(*name));
    reset.is_some_and(|reset| reset == "earliest")
}
