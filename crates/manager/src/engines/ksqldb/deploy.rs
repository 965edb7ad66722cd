//! Brings a deployment about, whatever an earlier try has left: it looks by name first, and what it finds decides.

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::Ksqldb;
use super::entities::{CommandStatus, Entity, RunningQuery, SourceDescription};
use super::errors::{code, first_cause};
use super::sameness::is_same;
use super::statements::{Shape, about_query, create_as, describe, drop_sink, kind, not_made};
use crate::engines::{Changes, Deployment, Handle, Refusal, Trouble};
use crate::gate::compose::{Composed, EngineName};

/// What stands under a deployment's name.
pub(super) enum Found {
    /// A query fills it.
    Query(RunningQuery),
    /// A stream or table that no query fills: terminated, or half dropped.
    Idle(Changes),
    /// Nothing.
    Nothing,
}

/// Whether a refusal is this one.
pub(super) fn is_refusal(trouble: &Trouble, code: &str) -> bool {
    matches!(trouble, Trouble::Refused(refusal) if refusal.code == code)
}

/// How persistent queries run: from the first record of their sources, with rows written out within two seconds.
fn properties() -> Value {
    json!({
        "ksql.streams.auto.offset.reset": "earliest",
        "ksql.streams.cache.max.bytes.buffering": "10485760",
        "ksql.streams.commit.interval.ms": "2000",
    })
}

impl Ksqldb {
    /// Sees to it that the deployment runs.
    pub(super) async fn bring_about(&self, deployment: &Deployment) -> Result<Handle, Trouble> {
        let name = deployment.names.sink();
        let sink = EngineName::parse(&name).map_err(not_made)?;
        self.client.info().await?; // A server that starts knows only a part of its queries; it refuses here.
        self.register_missing(&deployment.select).await?;
        self.settle(&sink, deployment.changes).await?;
        match self.find(&sink, &deployment.names.topic()).await? {
            Found::Query(query) => self.take_over(deployment, &sink, query).await,
            Found::Idle(changes) => {
                self.drop_object(&sink, changes).await?;
                self.create(deployment, &sink, false).await
            }
            Found::Nothing => self.create(deployment, &sink, false).await,
        }
    }

    /// A command of an earlier try may wait in the command topic: it will run, so it has to be waited for.
    pub(super) async fn settle(&self, sink: &EngineName, changes: Changes) -> Result<(), Trouble> {
        let id = format!("{}/`{sink}`/create", kind(changes).to_lowercase());
        match self.client.status(&id).await? {
            Some(status) if is_open(&status) => self.wait_for(&id).await.map(drop),
            _ => Ok(()),
        }
    }

    /// Looks for what stands under a name.
    pub(super) async fn find(&self, sink: &EngineName, topic: &str) -> Result<Found, Trouble> {
        let foreign = |what: &str, other: &str| {
            let message =
                format!("{what} `{sink}` of ksqlDB writes to the topic `{other}`, not to `{topic}`: it is not ours");
            Err(Trouble::Refused(Refusal { code: code::NAME_OF_ANOTHER.to_owned(), message, line: None, column: None }))
        };
        if let Some(query) = self.query_filling(sink).await? {
            return match query.sink_kafka_topics.iter().find(|other| *other != topic) {
                Some(other) => foreign("the query of", other),
                None => Ok(Found::Query(query)),
            };
        }
        match self.described(sink.as_str()).await? {
            None => Ok(Found::Nothing),
            Some(source) if source.topic != topic => foreign("the object", &source.topic),
            Some(source) => Ok(Found::Idle(if source.kind == "TABLE" { Changes::Upsert } else { Changes::Append })),
        }
    }

    /// The persistent query that fills a stream or table.
    pub(super) async fn query_filling(&self, sink: &EngineName) -> Result<Option<RunningQuery>, Trouble> {
        let queries = self.queries().await?;
        Ok(queries.into_iter().find(|query| query.sinks.iter().any(|name| name == sink.as_str())))
    }

    /// The query of a handle: what fills its stream or table. What writes to another topic is somebody else's.
    pub(super) async fn ours(&self, handle: &Handle) -> Result<Option<RunningQuery>, Trouble> {
        let sink = EngineName::parse(&handle.stream_name).map_err(not_made)?;
        let query = self.query_filling(&sink).await?;
        Ok(query.filter(|query| query.sink_kafka_topics.iter().all(|topic| *topic == handle.output_topic)))
    }

    /// `None` if there is none of that name.
    pub(super) async fn described(&self, name: &str) -> Result<Option<SourceDescription>, Trouble> {
        match self.client.show(&describe(name).map_err(not_made)?).await {
            Ok(Entity::Source { source_description }) => Ok(Some(source_description)),
            Ok(_) => Err(Trouble::Unavailable("ksqlDB describes something else than was asked".to_owned())),
            Err(trouble) if is_refusal(&trouble, code::UNKNOWN_SOURCE) => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// Something of ours runs under that name. An update is sent whatever it is, as it does no harm twice; else only what is
    /// certainly the same text is adopted, and another one is replaced.
    async fn take_over(
        &self,
        deployment: &Deployment,
        sink: &EngineName,
        query: RunningQuery,
    ) -> Result<Handle, Trouble> {
        let is_same = is_same(&deployment.select.sql, &query.query_string);
        let made = match is_same && !deployment.replaces {
            true => handle(deployment, query.id),
            false => match self.create(deployment, sink, true).await {
                // It cannot take the place of itself: windows and joins never can.
                Err(trouble) if is_refusal(&trouble, code::CANNOT_UPGRADE) && is_same => handle(deployment, query.id),
                // It shall begin anew: the old state was given up when that was decided.
                Err(trouble) if is_refusal(&trouble, code::CANNOT_UPGRADE) && !deployment.replaces => {
                    return self.begin_anew(deployment, sink, &query.id).await;
                }
                made => made?,
            },
        };
        if query.status_count.contains_key("PAUSED") {
            self.order("RESUME", &made.job_id).await?;
        }
        Ok(made)
    }

    async fn begin_anew(&self, deployment: &Deployment, sink: &EngineName, old: &str) -> Result<Handle, Trouble> {
        let there = self.described(sink.as_str()).await?;
        self.order("TERMINATE", old).await?;
        let is_table = there.is_some_and(|there| there.kind == "TABLE");
        self.drop_object(sink, if is_table { Changes::Upsert } else { Changes::Append }).await?;
        self.create(deployment, sink, false).await
    }

    async fn create(&self, deployment: &Deployment, sink: &EngineName, replaces: bool) -> Result<Handle, Trouble> {
        let topic = deployment.names.topic();
        let shape = self.shape_of(&topic).await?;
        let select = &deployment.select;
        let statement = create_as(replaces, deployment.changes, (sink, &topic), shape, select).map_err(not_made)?;
        let answer = self.client.command(&format!("{};", statement.text()), properties()).await;
        match answer.map_err(|trouble| placed(trouble, &statement)) {
            Ok(Entity::Command { command_id, command_status }) => {
                let id = self.made(&command_id, command_status).await?;
                match id {
                    Some(id) => Ok(handle(deployment, id)),
                    // An old server says it nowhere but in its list. It is never made up.
                    None => {
                        let query = self.query_filling(sink).await?;
                        let query = query.ok_or_else(|| {
                            Trouble::Unknown(format!("ksqlDB made `{sink}` and shows no query of it"))
                        })?;
                        Ok(handle(deployment, query.id))
                    }
                }
            }
            Ok(_) => Err(Trouble::Unknown("ksqlDB answers something else than how a command stands".to_owned())),
            // Somebody was faster, or an earlier try of ours was: the next look tells.
            Err(trouble) if is_refusal(&trouble, code::NAME_TAKEN) => Err(Trouble::Unknown(trouble.to_string())),
            Err(trouble) => Err(trouble),
        }
    }

    /// The topic as it is: the server refuses to write to one that has other numbers than it is told.
    async fn shape_of(&self, topic: &str) -> Result<Shape, Trouble> {
        let Entity::Topics { topics } = self.client.show("SHOW TOPICS;").await? else {
            return Err(Trouble::Unavailable("ksqlDB shows something else than topics".to_owned()));
        };
        let found = topics.into_iter().find(|known| known.name == topic);
        let found =
            found.ok_or_else(|| Trouble::Unavailable(format!("ksqlDB does not see the topic `{topic}` yet")))?;
        Ok(Shape { partitions: found.replica_info.len(), replicas: found.replica_info.first().copied().unwrap_or(1) })
    }

    /// The query that a command made, once it is done.
    async fn made(&self, command_id: &str, status: CommandStatus) -> Result<Option<String>, Trouble> {
        let status = if is_open(&status) { self.wait_for(command_id).await? } else { status };
        match status.status.as_str() {
            "SUCCESS" => Ok(status.query_id),
            "ERROR" => {
                let message = first_cause(&status.message);
                Err(Trouble::Refused(Refusal {
                    code: "failed_in_engine".to_owned(),
                    message,
                    line: None,
                    column: None,
                }))
            }
            other => Err(Trouble::Unknown(format!("ksqlDB says {other}, which is no end"))),
        }
    }

    /// Asks until a command has ended.
    async fn wait_for(&self, command_id: &str) -> Result<CommandStatus, Trouble> {
        let patience = self.client.patience;
        let deadline = Instant::now() + patience.queued;
        loop {
            let open = match self.client.status(command_id).await {
                Ok(Some(status)) if !is_open(&status) => return Ok(status),
                Ok(Some(status)) => status.status,
                // It was written, so it will run; nobody knows when.
                Ok(None) => return Err(Trouble::Unknown(format!("ksqlDB knows nothing of the command {command_id}"))),
                Err(trouble) => trouble.to_string(),
            };
            if Instant::now() >= deadline {
                return Err(Trouble::Unknown(format!(
                    "the command {command_id} waits in ksqlDB's command topic: {open}"
                )));
            }
            sleep(patience.look_again).await;
        }
    }

    /// Drops a stream or table. What is not there is fine.
    pub(super) async fn drop_object(&self, sink: &EngineName, changes: Changes) -> Result<(), Trouble> {
        let other = if changes == Changes::Append { Changes::Upsert } else { Changes::Append };
        for changes in [changes, other] {
            let statement = drop_sink(changes, sink).map_err(not_made)?;
            match self.client.command(&statement, json!({})).await {
                Ok(Entity::Command { command_id, command_status }) => {
                    return self.made(&command_id, command_status).await.map(drop);
                }
                Ok(_) => {
                    return Err(Trouble::Unknown("ksqlDB answers something else than how a command stands".to_owned()));
                }
                // It was remembered as the other kind.
                Err(trouble) if is_refusal(&trouble, code::OTHER_KIND) => {}
                Err(trouble) => return Err(trouble),
            }
        }
        Err(Trouble::Unavailable(format!("ksqlDB says of `{sink}` that it is neither a stream nor a table")))
    }

    /// `TERMINATE`, `PAUSE`, `RESUME`.
    pub(super) async fn order(&self, word: &'static str, id: &str) -> Result<(), Trouble> {
        let Ok(statement) = about_query(word, id) else {
            // No query of ksqlDB has such an id.
            let (code, message) = (code::UNKNOWN_QUERY.to_owned(), format!("`{id}` is no query of ksqlDB"));
            return Err(Trouble::Refused(Refusal { code, message, line: None, column: None }));
        };
        match self.client.command(&statement, json!({})).await? {
            Entity::Command { command_id, command_status } => self.made(&command_id, command_status).await.map(drop),
            _ => Err(Trouble::Unknown("ksqlDB answers something else than how a command stands".to_owned())),
        }
    }
}

fn is_open(status: &CommandStatus) -> bool {
    ["QUEUED", "PARSING", "EXECUTING"].contains(&status.status.as_str())
}

fn handle(deployment: &Deployment, job_id: String) -> Handle {
    let (stream_name, output_topic) = (deployment.names.sink(), deployment.names.topic());
    Handle { job_id, stream_name, output_topic, changes: deployment.changes, keeps_at: None }
}

/// A refusal whose place is one of the user's SELECT; a place in our own text is none.
pub(super) fn placed(trouble: Trouble, statement: &Composed) -> Trouble {
    let Trouble::Refused(refusal) = trouble else { return trouble };
    let place = refusal.line.zip(refusal.column).and_then(|(line, column)| statement.position_in_select(line, column));
    Trouble::Refused(Refusal { line: place.map(|(line, _)| line), column: place.map(|(_, column)| column), ..refusal })
}
