//! ksqlDB 7.6 over HTTP/1.1. Its protocol is taken from recorded and read facts and tested against a stand-in: **it has not been
//! compared with a real server yet**.
//!
//! What decides how this is written:
//! - One statement per request, made by the gate's composers: `/ksql` runs every statement of a text.
//! - An answer 200 may mean QUEUED, a 500 and a time-out leave open what happened: names decide, and `SHOW QUERIES`.
//! - Ids of queries are read from answers, never made up. The stream or table has a name of ours, and its topic too.
//! - A row stream has its own connection, and is read by bytes and lines.

use std::time::Duration;

use async_trait::async_trait;

use self::client::{Begin, Client};
use self::deploy::{Found, is_refusal, placed};
use self::entities::{Entity, QueryDescription, RunningQuery};
use self::errors::{code, first_cause};
use self::query::Nature;
use self::statements::{about_query, alone, as_changes, emits_changes, explain, explain_create, has_limit, not_made};
use super::{
    AdHoc, Capabilities, Changes, Deployment, Details, Engine, EngineKind, Explained, Handle, Observed, ObservedState,
    RestorePoint, Rows, Select, StopMode, Stopped, Trouble,
};
use crate::catalog::Source;
use crate::gate::compose::EngineName;
use crate::settings::KsqldbSettings;

mod client;
mod compatible;
mod deploy;
mod entities;
mod errors;
mod query;
mod rows;
mod sameness;
mod schema;
mod sources;
mod statements;
mod topology;

/// How long ksqlDB is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For a list or a description.
    pub list: Duration,
    /// For a statement that changes something: the server may wait a whole producer's time-out before its own five seconds.
    pub command: Duration,
    /// For the first byte of rows.
    pub header: Duration,
    /// For a command that is queued.
    pub queued: Duration,
    /// Between two looks at it.
    pub look_again: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            connect: Duration::from_secs(5),
            list: Duration::from_secs(10),
            command: Duration::from_secs(75),
            header: Duration::from_secs(30),
            queued: Duration::from_secs(60),
            look_again: Duration::from_millis(500),
        }
    }
}

/// ksqlDB.
pub struct Ksqldb {
    client: Client,
}

impl Ksqldb {
    /// The server of these settings. Asks nobody. The process must have chosen the cryptography of TLS before.
    ///
    /// # Errors
    /// When there can be no HTTP client.
    pub fn new(settings: KsqldbSettings, patience: Patience) -> Result<Ksqldb, Trouble> {
        Ok(Ksqldb { client: Client::new(settings, patience)? })
    }

    async fn queries(&self) -> Result<Vec<RunningQuery>, Trouble> {
        match self.client.show("SHOW QUERIES;").await? {
            Entity::Queries { queries } => Ok(queries),
            _ => Err(Trouble::Unavailable("ksqlDB shows something else than queries".to_owned())),
        }
    }

    /// Whether a SELECT gives a stream or a table: the only way to learn it is to ask for a stream.
    async fn changes(&self, select: &Select) -> Result<Changes, Trouble> {
        let probe = EngineName::parse(&format!("SV_PROBE_{:08X}", fastrand::u32(..))).map_err(not_made)?;
        let statement = explain_create(&probe, select).map_err(not_made)?;
        match self.client.show(&format!("{};", statement.text())).await {
            Ok(_) => Ok(Changes::Append),
            Err(trouble) if is_refusal(&trouble, code::WRONG_KIND) => Ok(Changes::Upsert),
            Err(trouble) => Err(placed(trouble, &statement)),
        }
    }

    async fn description(&self, statement: &str) -> Result<QueryDescription, Trouble> {
        match self.client.show(statement).await? {
            Entity::Query { query_description } => Ok(query_description),
            _ => Err(Trouble::Unavailable("ksqlDB explains something else than was asked".to_owned())),
        }
    }

    /// Orders something of the query of a handle: by its id, and by its sink where no query has that id. The answer that would
    /// have told the id may have been lost; and another deployment has another one.
    async fn order_of(&self, word: &'static str, handle: &Handle) -> Result<(), Trouble> {
        let unknown = match self.order(word, &handle.job_id).await {
            Err(trouble) if is_refusal(&trouble, code::UNKNOWN_QUERY) => trouble,
            other => return other,
        };
        match self.ours(handle).await? {
            Some(query) => self.order(word, &query.id).await,
            None => Err(unknown),
        }
    }
}

/// What a query does, by what its hosts say.
fn state(query: &RunningQuery) -> ObservedState {
    let has = |word: &str| query.status_count.get(word).is_some_and(|count| *count > 0);
    match (has("RUNNING"), has("ERROR"), has("PAUSED"), has("UNRESPONSIVE")) {
        (true, false, _, false) => ObservedState::Running,
        (true, _, _, _) | (false, true, true, _) => ObservedState::Degraded,
        (false, true, false, _) => ObservedState::Failed,
        (false, false, true, _) => ObservedState::Paused,
        (false, false, false, _) => ObservedState::Unknown,
    }
}

fn observed(query: RunningQuery) -> Observed {
    let state = state(&query);
    let words: Vec<String> = query.status_count.iter().map(|(word, count)| format!("{word}:{count}")).collect();
    Observed {
        job_id: query.id,
        name: query.sinks.into_iter().next().unwrap_or_default(),
        topics: query.sink_kafka_topics,
        state,
        engine_state: words.join(" "),
        statement: sameness::select_of(&query.query_string),
    }
}

/// Whether a server can pause: 7.3 and later by the platform's numbers, 0.28 by its own.
fn can_pause(version: &str) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or_default());
    match (numbers.next(), numbers.next()) {
        (Some(0), Some(minor)) => minor >= 28,
        (Some(major), Some(minor)) => (major, minor) >= (7, 3),
        _ => false,
    }
}

#[async_trait]
impl Engine for Ksqldb {
    fn kind(&self) -> EngineKind {
        EngineKind::Ksqldb
    }

    async fn capabilities(&self) -> Result<Capabilities, Trouble> {
        let info = self.client.info().await?;
        match info.server_status.as_deref() {
            None | Some("RUNNING") => Ok(Capabilities {
                can_pause: can_pause(&info.version),
                version: info.version,
                cluster: format!("{}/{}", info.kafka_cluster_id, info.ksql_service_id),
                can_savepoint: false,
                replaces_in_place: true,
                free_slots: None,
            }),
            Some(status) => Err(Trouble::Unavailable(format!(
                "ksqlDB's command runner is {status}: it runs no statements before its command topic is restored"
            ))),
        }
    }

    async fn unprepared(&self, select: &Select) -> Result<Option<String>, Trouble> {
        let missing = self.missing(select).await?;
        let names: Vec<String> = missing.iter().map(|source| format!("`{}`", source.name)).collect();
        Ok((!names.is_empty()).then(|| {
            let names = names.join(", ");
            format!("ksqlDB has no {names} yet: what is selected from is registered there when something is deployed or queried")
        }))
    }

    async fn prepare(&self, select: &Select) -> Result<(), Trouble> {
        self.register_missing(select).await
    }

    async fn explain(&self, select: &Select) -> Result<Explained, Trouble> {
        if let Some(lacks) = self.unprepared(select).await? {
            return Err(Trouble::Unavailable(lacks));
        }
        let pulled = if emits_changes(select) { None } else { Some(as_changes(select).map_err(not_made)?) };
        let select = pulled.as_ref().unwrap_or(select);
        let statement = explain(select).map_err(not_made)?;
        let described = self.description(&format!("{};", statement.text())).await;
        let described = described.map_err(|trouble| placed(trouble, &statement))?;
        let changes = self.changes(select).await?;
        let columns = described.fields.iter().filter_map(entities::Field::column).collect();
        let plan = format!("{}\n{}", described.execution_plan, described.topology);
        Ok(Explained { columns, changes, plan, only_adhoc: None })
    }

    async fn keeps_state(&self, old: &Select, new: &Select) -> Result<(), String> {
        compatible::keeps_state(old, new)
    }

    async fn deploy(&self, deployment: &Deployment) -> Result<Handle, Trouble> {
        self.bring_about(deployment).await
    }

    /// Persistent queries only: push queries are their readers' business.
    async fn observe(&self) -> Result<Vec<Observed>, Trouble> {
        let queries = self.queries().await?;
        Ok(queries.into_iter().filter(|query| query.query_type != "PUSH").map(observed).collect())
    }

    async fn details(&self, job_id: &str) -> Result<Details, Trouble> {
        let described = self.description(&about_query("EXPLAIN", job_id).map_err(not_made)?).await?;
        let last = described.query_errors.iter().max_by_key(|error| error.timestamp);
        Ok(Details {
            failure: last.map(|error| first_cause(&error.error_message)),
            group: described.consumer_group_id,
            topology: topology::read(&described.topology),
            ..Details::default()
        })
    }

    async fn stop(&self, _deployment: &Deployment, handle: &Handle, mode: StopMode) -> Result<Stopped, Trouble> {
        let (word, stopped) = match mode {
            StopMode::Final => ("TERMINATE", Stopped::WithoutState),
            StopMode::KeepState => ("PAUSE", Stopped::Paused),
        };
        match self.order_of(word, handle).await {
            Ok(()) => Ok(stopped),
            Err(trouble) if is_refusal(&trouble, code::UNKNOWN_QUERY) => Ok(Stopped::WithoutState),
            Err(trouble) => Err(trouble),
        }
    }

    async fn resume(&self, handle: &Handle) -> Result<(), Trouble> {
        self.order_of("RESUME", handle).await
    }

    /// By name alone: an id may never have been told.
    async fn remove(&self, handle: &Handle, _restore_points: &[RestorePoint]) -> Result<(), Trouble> {
        let sink = EngineName::parse(&handle.stream_name).map_err(not_made)?;
        self.client.info().await?; // As in a deployment: what is not known yet may still be there.
        self.settle(&sink, handle.changes).await?;
        let changes = match self.find(&sink, &handle.output_topic).await {
            Ok(Found::Nothing) => return Ok(()),
            // It took the name first, and we never had it.
            Err(trouble) if is_refusal(&trouble, code::NAME_OF_ANOTHER) => return Ok(()),
            Err(trouble) => return Err(trouble),
            Ok(Found::Idle(changes)) => changes,
            Ok(Found::Query(query)) => {
                self.order("TERMINATE", &query.id).await?;
                handle.changes
            }
        };
        self.drop_object(&sink, changes).await
    }

    async fn query(&self, query: AdHoc) -> Result<Rows, Trouble> {
        self.register_missing(&query.select).await?;
        let changes = emits_changes(&query.select);
        let is_table = changes && self.changes(&query.select).await? == Changes::Upsert;
        let nature = Nature { is_table, endless: changes && !has_limit(&query.select) };
        let statement = alone(&query.select).map_err(not_made)?;
        let begin = match (changes, query.from_start) {
            (false, _) => Begin::AsItIs,
            (true, true) => Begin::Earliest,
            (true, false) => Begin::Latest,
        };
        let rows = self.client.rows(&format!("{};", statement.text()), begin).await;
        let response = rows.map_err(|trouble| placed(trouble, &statement))?;
        Ok(query::rows(self.client.clone(), response, nature, query.time_limit))
    }

    /// Those whose values are JSON (with the frame of a registry or without) or Avro, and whose columns have types that are known here.
    async fn sources(&self) -> Result<Vec<Source>, Trouble> {
        Ok(self.all_described().await?.into_iter().filter_map(sources::source).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn counted(counts: &[(&str, u32)]) -> RunningQuery {
        RunningQuery {
            id: "CSAS_V_1".to_owned(),
            query_string: "CREATE STREAM V WITH (A='SELECT') AS SELECT *\nFROM O O;".to_owned(),
            sinks: vec!["V".to_owned()],
            sink_kafka_topics: vec!["v".to_owned()],
            status_count: counts.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect::<BTreeMap<_, _>>(),
            query_type: "PERSISTENT".to_owned(),
        }
    }

    #[test]
    fn a_state_is_what_the_hosts_say() {
        for (counts, expected) in [
            (&[("RUNNING", 2)][..], ObservedState::Running),
            (&[("RUNNING", 1), ("UNRESPONSIVE", 1)], ObservedState::Degraded),
            (&[("RUNNING", 1), ("ERROR", 1)], ObservedState::Degraded),
            (&[("PAUSED", 2)], ObservedState::Paused),
            (&[("PAUSED", 1), ("UNRESPONSIVE", 1)], ObservedState::Paused),
            (&[("ERROR", 2)], ObservedState::Failed),
            (&[("UNRESPONSIVE", 1)], ObservedState::Unknown),
            (&[], ObservedState::Unknown),
        ] {
            assert_eq!(state(&counted(counts)), expected, "{counts:?}");
        }
    }

    #[test]
    fn defect_03_the_name_and_the_topic_of_a_query_are_two_things() {
        let observed = observed(counted(&[("RUNNING", 1)]));
        assert_eq!((observed.name.as_str(), &observed.topics[..]), ("V", &["v".to_owned()][..]));
        assert_eq!(observed.statement.as_deref(), Some("SELECT *\nFROM O O"));
        assert_eq!(observed.engine_state, "RUNNING:1");
    }

    #[test]
    fn pausing_came_with_7_3() {
        for (version, expected) in
            [("7.6.0", true), ("7.3.1", true), ("7.2.9", false), ("0.28.2", true), ("0.27.0", false), ("?", false)]
        {
            assert_eq!(can_pause(version), expected, "{version}");
        }
    }
}
