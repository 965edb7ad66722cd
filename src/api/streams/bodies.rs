//! How the stream manager's answers look. camelCase, with the field names that clients of the original know.

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::manager::definition::{Definition, Event, Revision};
use crate::manager::engines::{Capabilities, RestorePoint, Topology};
use crate::manager::lifecycle::{Action, Effect, Plan};
use crate::manager::manager::{CheckedBy, EngineStatus, Orphan, OrphanKind, Orphans, Status, Validation};

/// An id as clients write it: with hyphens.
pub fn shown_id(id: &str) -> String {
    match (id.len(), id.is_ascii()) {
        (32, true) => [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-"),
        _ => id.to_owned(),
    }
}

/// A stream: what somebody wants to run, and what is seen of it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Stream)]
pub struct StreamBody {
    /// Its id.
    #[schema(
        pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
        example = "0193f0ab-7c1d-7e22-9d0a-5b1f6f0c2a11"
    )]
    pub id: String,
    /// What people call it.
    #[schema(example = "HighValueOrders")]
    pub name: String,
    /// Its text: one SELECT.
    #[schema(example = "SELECT * FROM orders WHERE AMOUNT > 500")]
    pub sql_script: String,
    /// The engine that runs it: `flink`, `ksqldb` or `embedded`.
    #[schema(example = "flink")]
    pub engine: &'static str,
    /// Flink's job id or ksqlDB's query id of what runs, or ran last.
    #[schema(required)]
    pub job_id: Option<String>,
    /// The stream or table that it fills, or will fill.
    #[schema(example = "VIEW_HIGHVALUEORDERS_0193F0AB")]
    pub stream_name: String,
    /// The topic that it fills, or will fill.
    #[schema(example = "view_highvalueorders_0193f0ab")]
    pub output_topic: String,
    /// Whether it is seen to run, or about to.
    pub is_active: bool,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When anything of it changed last.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// Who made it.
    #[schema(example = "ada")]
    pub owner: String,
    /// Counted up by each change of its name or text and by each call that wants something else of it; the `ETag` begins with it.
    #[schema(minimum = 1)]
    pub version: i32,
    /// The number of its text, from 1.
    #[schema(minimum = 1)]
    pub revision: i32,
    /// The text that runs, or ran last.
    #[schema(required)]
    pub deployed_revision: Option<i32>,
    /// The text that could not be brought to run; it is not tried again until somebody deploys it.
    #[schema(required)]
    pub failed_revision: Option<i32>,
    /// What is wanted of it: `draft`, `running`, `paused`, `stopped` or `deleted`.
    #[schema(example = "running")]
    pub wanted: &'static str,
    /// What is seen of it: `absent`, `unknown`, `starting`, `running`, `degraded`, `restarting`, `paused`, `stopping`, `stopped`
    /// or `failed`.
    #[schema(value_type = String, example = "running")]
    pub state: crate::manager::engines::ObservedState,
    /// The engine's own words for that.
    #[schema(required)]
    pub engine_state: Option<String>,
    /// When it was seen.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub observed_at: Option<Timestamp>,
    /// Whether everything is as it is wanted, and no call of the engine is under way.
    pub is_settled: bool,
    /// The call of the engine that is under way, if one is.
    #[schema(required)]
    pub step: Option<String>,
    /// How the engine differs from what is wanted through no doing of this service, as a sentence.
    #[schema(required)]
    pub drift: Option<String>,
    /// First cause of its last failure, one line.
    #[schema(required)]
    pub last_error: Option<String>,
    /// When it is tried again, if it waits for that.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub retry_at: Option<Timestamp>,
    /// Where its state was kept last.
    #[schema(required)]
    pub restore_point: Option<RestorePointBody>,
    /// What may be asked of it as it is: `update`, `deploy`, `pause`, `resume`, `stop`, `delete`.
    pub allowed: Vec<&'static str>,
    /// Where it is.
    #[schema(example = "/api/streams/0193f0ab-7c1d-7e22-9d0a-5b1f6f0c2a11")]
    pub href: String,
}

impl From<Definition> for StreamBody {
    fn from(definition: Definition) -> Self {
        let id = shown_id(&definition.id);
        StreamBody {
            href: format!("/api/streams/{id}"),
            id,
            is_settled: definition.is_settled(),
            allowed: Action::allowed(definition.intent).into_iter().map(Action::word).collect(),
            name: definition.name,
            sql_script: definition.sql_script,
            engine: definition.engine.name(),
            job_id: definition.job_id,
            stream_name: definition.stream_name,
            output_topic: definition.output_topic,
            is_active: definition.is_active,
            created_at: definition.created_at,
            updated_at: definition.updated_at,
            owner: definition.owner,
            version: definition.version,
            revision: definition.revision,
            deployed_revision: definition.deployed_revision,
            failed_revision: definition.failed_revision,
            wanted: definition.intent.word(),
            state: definition.observed,
            engine_state: definition.engine_state,
            observed_at: definition.observed_at,
            step: definition.step,
            drift: definition.drift,
            last_error: definition.last_error,
            retry_at: definition.retry_at,
            restore_point: definition.restore_point.map(Into::into),
        }
    }
}

/// A page of streams.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamPage {
    /// The latest made first.
    pub items: Vec<StreamBody>,
    /// Streams on a page.
    pub page_size: u32,
}

/// Where the state of something that ran lies.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RestorePoint)]
pub struct RestorePointBody {
    /// The path, as the engine takes it.
    #[schema(example = "file:/savepoints/savepoint-5c21a2-0f1e")]
    pub path: String,
    /// Whether it is the savepoint of a stop; else the last checkpoint of a job.
    pub savepoint: bool,
}

impl From<RestorePoint> for RestorePointBody {
    fn from(RestorePoint { path, savepoint }: RestorePoint) -> Self {
        RestorePointBody { path, savepoint }
    }
}

/// What is wrong with a statement.
#[derive(Debug, Serialize, ToSchema)]
pub struct StatementError {
    /// A stable word for the kind of fault.
    #[schema(example = "several_statements")]
    pub code: String,
    /// One sentence.
    pub message: String,
    /// Line in the text, from 1; null where it is not known.
    #[schema(required, minimum = 1)]
    pub line: Option<u32>,
    /// Column in that line, from 1.
    #[schema(required, minimum = 1)]
    pub column: Option<u32>,
}

impl From<crate::manager::engines::Refusal> for StatementError {
    fn from(refusal: crate::manager::engines::Refusal) -> Self {
        StatementError { code: refusal.code, message: refusal.message, line: refusal.line, column: refusal.column }
    }
}

/// What would happen if a text were deployed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = StreamPlan)]
pub struct PlanBody {
    /// Where.
    #[schema(example = "flink")]
    pub engine: &'static str,
    /// The text that runs, or ran last.
    #[schema(required)]
    pub from_revision: Option<i32>,
    /// The text that would run.
    pub to_revision: i32,
    /// `nothing`, `starts`, `keepsState`, `restartsFromBeginning` or `refused`.
    #[schema(value_type = String, example = "keepsState")]
    pub effect: Effect,
    /// Why, as a sentence.
    pub reason: String,
    /// What would be done, one sentence each, in order.
    pub steps: Vec<String>,
    /// Why it is refused; empty if it is not.
    pub refused: Vec<StatementError>,
    /// Clauses that differ and on which the state depends.
    #[schema(example = json!(["GROUP BY"]))]
    pub differences: Vec<String>,
}

impl From<Plan> for PlanBody {
    fn from(plan: Plan) -> Self {
        PlanBody {
            engine: plan.engine.name(),
            from_revision: plan.from_revision,
            to_revision: plan.to_revision,
            effect: plan.effect,
            reason: plan.reason,
            steps: plan.steps,
            refused: plan.refused.into_iter().map(Into::into).collect(),
            differences: plan.differences,
        }
    }
}

/// What a deletion leaves behind.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeletionBody {
    /// What has happened, as a sentence.
    #[schema(example = "The stream is deleted")]
    pub message: &'static str,
    /// Whether it is gone by now; else it goes as soon as its engine lets it.
    pub is_done: bool,
    /// What stays behind, as sentences.
    pub leaves: Vec<String>,
}

/// One text of a stream.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevisionBody {
    /// Its number, from 1.
    pub revision: i32,
    /// The text.
    pub sql_script: String,
    /// Who wrote it.
    pub author: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

impl From<Revision> for RevisionBody {
    fn from(Revision { revision, sql_script, author, created_at }: Revision) -> Self {
        RevisionBody { revision, sql_script, author, created_at }
    }
}

/// Texts of a stream.
#[derive(Debug, Serialize, ToSchema)]
pub struct RevisionList {
    /// The latest first.
    pub items: Vec<RevisionBody>,
    /// With `diff`: how the one becomes the other, as a unified diff; empty if they are the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
}

/// Something that happened to a stream.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventBody {
    /// Its number: later ones are greater.
    pub id: i64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// A stable word.
    #[schema(example = "deployed")]
    pub what: String,
    /// Who, if it was somebody; null: the manager itself.
    #[schema(required)]
    pub actor: Option<String>,
    /// One sentence, if there is more to say.
    #[schema(required)]
    pub detail: Option<String>,
}

impl From<Event> for EventBody {
    fn from(Event { id, at, what, actor, detail }: Event) -> Self {
        EventBody { id, at, what, actor, detail }
    }
}

/// A page of what happened to a stream.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventPage {
    /// The latest first.
    pub items: Vec<EventBody>,
    /// Events on a page.
    pub page_size: u32,
}

/// How a stream is doing.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = StreamStatus)]
pub struct StatusBody {
    /// As it is stored, with what was seen last.
    pub stream: StreamBody,
    /// Why the engine could not be asked just now; null if it could.
    #[schema(required)]
    pub engine_trouble: Option<String>,
    /// Records of its sources that it has not read yet; null where that is not known.
    #[schema(required)]
    pub lag: Option<u64>,
    /// Records written per second; null where the engine does not count.
    #[schema(required)]
    pub records_per_second: Option<u64>,
    /// First cause of the last failure, one line.
    #[schema(required)]
    pub failure: Option<String>,
    /// Where its state was kept last, by the engine's own account.
    #[schema(required)]
    pub latest_checkpoint: Option<RestorePointBody>,
    /// What happened last, the latest first; at most 20.
    pub events: Vec<EventBody>,
}

impl From<Status> for StatusBody {
    fn from(status: Status) -> Self {
        StatusBody {
            stream: status.definition.into(),
            engine_trouble: status.engine_trouble,
            lag: status.lag,
            records_per_second: status.records_per_second,
            failure: status.failure,
            latest_checkpoint: status.latest_checkpoint.map(Into::into),
            events: status.events.into_iter().map(Into::into).collect(),
        }
    }
}

/// Operators of what runs, and what flows between them.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StreamTopology)]
pub struct TopologyBody {
    /// The operators; none if nothing runs.
    pub nodes: Vec<NodeBody>,
    /// From which to which.
    pub edges: Vec<EdgeBody>,
}

/// An operator.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StreamNode)]
pub struct NodeBody {
    /// Its id in the engine.
    pub id: String,
    /// What it does.
    pub label: String,
}

/// What flows from one operator to another.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StreamEdge)]
pub struct EdgeBody {
    /// Id of the first.
    pub from: String,
    /// Id of the second.
    pub to: String,
}

impl From<Topology> for TopologyBody {
    fn from(topology: Topology) -> Self {
        TopologyBody {
            nodes: topology.nodes.into_iter().map(|node| NodeBody { id: node.id, label: node.label }).collect(),
            edges: topology.edges.into_iter().map(|(from, to)| EdgeBody { from, to }).collect(),
        }
    }
}

/// What a check found.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Validation)]
pub struct ValidationBody {
    /// Whether nothing is wrong.
    pub valid: bool,
    /// What is wrong.
    pub errors: Vec<StatementError>,
    /// The statement as it would be sent; left out where the gate refuses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub normalized: Option<String>,
    /// `engine`, or `gate` where the gate alone has judged: it refused the statement, or the engine is away.
    #[schema(value_type = String, example = "engine")]
    pub checked_by: CheckedBy,
    /// Why the engine has not judged; left out where it has, or was not to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub engine_trouble: Option<String>,
    /// The columns that it gives; left out where the engine has not judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = Option<Vec<serde_json::Value>>)]
    pub columns: Option<Vec<crate::manager::catalog::Column>>,
    /// `append`: rows are only added; `upsert`: they are replaced or taken away later. Left out where the engine has not judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = Option<String>)]
    pub changes: Option<crate::manager::engines::Changes>,
    /// The engine's own words about how it would do it; left out where it has not judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub plan: Option<String>,
}

impl From<Validation> for ValidationBody {
    fn from(validation: Validation) -> Self {
        let (columns, changes, plan) = match validation.explained {
            Some(explained) => (Some(explained.columns), Some(explained.changes), Some(explained.plan)),
            None => (None, None, None),
        };
        ValidationBody {
            valid: validation.errors.is_empty(),
            errors: validation.errors.into_iter().map(Into::into).collect(),
            normalized: validation.normalized,
            checked_by: validation.checked_by,
            engine_trouble: validation.engine_trouble,
            columns,
            changes,
            plan,
        }
    }
}

/// A configured engine.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = StreamEngine)]
pub struct EngineBody {
    /// Its name.
    #[schema(example = "flink")]
    pub engine: &'static str,
    /// Whether it runs streams that name none.
    pub is_default: bool,
    /// Whether it answered just now.
    pub is_reachable: bool,
    /// What it is and can; null if it did not answer.
    #[schema(required)]
    pub capabilities: Option<CapabilitiesBody>,
    /// Why it did not answer.
    #[schema(required)]
    pub trouble: Option<String>,
}

/// What an engine is and can.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = StreamEngineCapabilities)]
pub struct CapabilitiesBody {
    /// The version that answers.
    #[schema(example = "2.0.0")]
    pub version: String,
    /// Which cluster it is.
    pub cluster: String,
    /// Whether a stream can be paused with its state.
    pub can_pause: bool,
    /// Whether a stop keeps the state at a place that can be restored from.
    pub can_savepoint: bool,
    /// Whether a running text is replaced in one call.
    pub replaces_in_place: bool,
    /// How many more jobs have room; null where the engine does not say.
    #[schema(required)]
    pub free_slots: Option<u32>,
}

impl From<Capabilities> for CapabilitiesBody {
    fn from(capabilities: Capabilities) -> Self {
        CapabilitiesBody {
            version: capabilities.version,
            cluster: capabilities.cluster,
            can_pause: capabilities.can_pause,
            can_savepoint: capabilities.can_savepoint,
            replaces_in_place: capabilities.replaces_in_place,
            free_slots: capabilities.free_slots,
        }
    }
}

impl From<EngineStatus> for EngineBody {
    fn from(status: EngineStatus) -> Self {
        EngineBody {
            engine: status.engine.name(),
            is_default: status.is_default,
            is_reachable: status.is_reachable,
            capabilities: status.capabilities.map(Into::into),
            trouble: status.trouble,
        }
    }
}

/// The configured engines.
#[derive(Debug, Serialize, ToSchema)]
pub struct EngineList {
    /// They, in the order of their names.
    pub items: Vec<EngineBody>,
}

/// Something that looks like ours, and that no stream names.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StreamOrphan)]
pub struct OrphanBody {
    /// `job` or `topic`.
    #[schema(example = "job")]
    pub kind: &'static str,
    /// Where, if it is in an engine.
    #[schema(required)]
    pub engine: Option<&'static str>,
    /// Job id, query id or topic.
    pub id: String,
    /// The job's name, the stream or the topic.
    pub name: String,
    /// What it does, if it is in an engine.
    #[schema(required, value_type = Option<String>)]
    pub state: Option<crate::manager::engines::ObservedState>,
    /// What is known of it, as a sentence.
    pub note: String,
}

impl From<Orphan> for OrphanBody {
    fn from(orphan: Orphan) -> Self {
        OrphanBody {
            kind: match orphan.kind {
                OrphanKind::Job => "job",
                OrphanKind::Topic => "topic",
            },
            engine: orphan.engine.map(|engine| engine.name()),
            id: orphan.id,
            name: orphan.name,
            state: orphan.state,
            note: orphan.note,
        }
    }
}

/// Orphans, as far as could be seen.
#[derive(Debug, Serialize, ToSchema)]
pub struct OrphanList {
    /// They.
    pub items: Vec<OrphanBody>,
    /// What could not be asked, as sentences: there may be more.
    pub missing: Vec<String>,
}

impl From<Orphans> for OrphanList {
    fn from(Orphans { orphans, missing }: Orphans) -> Self {
        OrphanList { items: orphans.into_iter().map(Into::into).collect(), missing }
    }
}
