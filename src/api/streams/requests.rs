//! The bodies that calls of the stream manager take: as documented, and as read by [`Body`], which names every fault.

use actix_web::http::header;
use actix_web::{HttpRequest, web};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::Api;
use crate::api::body::{self, Body};
use crate::api::parameters::MAX_ID_CHARS;
use crate::api::problem::Problem;
use crate::manager::Manager;
use crate::manager::catalog::{Column, EventTime, Format, Source, Table};
use crate::manager::engines::EngineKind;
use crate::manager::manager::{NewDefinition, StatementKind};

/// Longest name of a stream, in characters.
pub(super) const MAX_NAME_CHARS: usize = 128;
/// Bytes of a body beside a statement.
const BODY_BYTES: usize = 64 << 10;
/// Bytes of a source's declaration.
const SOURCE_BYTES: usize = 1 << 20;

/// A new stream.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = NewStream, example = json!({
    "name": "HighValueOrders", "sqlScript": "SELECT * FROM orders WHERE AMOUNT > 500", "engine": "flink"
}))]
pub(super) struct NewStreamBody {
    /// What people will call it; no other stream may have it, in upper or lower case. Names in the engine are made from it and stay.
    #[schema(min_length = 1, max_length = 128, pattern = "\\S")]
    name: String,
    /// One SELECT in the engine's dialect: no `;`, no `CREATE`, no `INSERT`. How long it may be is `manager.limits.query_characters`.
    #[schema(min_length = 1, pattern = "\\S")]
    sql_script: String,
    /// `flink`, `ksqldb` or `embedded`; `manager.default_engine` if left out.
    #[schema(nullable = false, pattern = "^(flink|ksqldb|embedded)$")]
    engine: Option<String>,
}

/// A change of a stream: what is left out stays.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = StreamChange, example = json!({ "sqlScript": "SELECT * FROM orders WHERE AMOUNT > 1000" }))]
pub(super) struct StreamChangeBody {
    /// A new name; stream and topic keep theirs.
    #[schema(min_length = 1, max_length = 128, pattern = "\\S", nullable = false)]
    name: Option<String>,
    /// A new text. If the stream is wanted to run, it takes the old one's place.
    #[schema(min_length = 1, pattern = "\\S", nullable = false)]
    sql_script: Option<String>,
    /// Only what it is already: an engine is for good.
    #[schema(nullable = false, pattern = "^(flink|ksqldb|embedded)$")]
    engine: Option<String>,
    /// Change it even if what was counted and joined so far is lost.
    #[schema(nullable = false, default = false)]
    accept_state_loss: Option<bool>,
}

/// How a stream is deployed; no body at all is `{}`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = DeployStream, example = json!({}))]
pub(super) struct DeployBody {
    /// Begin anew where the state cannot be kept.
    #[schema(nullable = false, default = false)]
    accept_state_loss: Option<bool>,
    /// Begin anew even if it could be kept.
    #[schema(nullable = false, default = false)]
    from_beginning: Option<bool>,
}

/// How a stream is stopped; no body at all is `{}`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = StopStream, example = json!({}))]
pub(super) struct StopBody {
    /// Throw the state away: a later deployment begins anew. Flink writes open windows out first.
    #[schema(nullable = false, default = false)]
    discard_state: Option<bool>,
}

/// A text to plan or to check; no body at all is the stream's own.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = StreamText, example = json!({ "sqlScript": "SELECT * FROM orders WHERE AMOUNT > 1000" }))]
pub(super) struct TextBody {
    /// The text; that of the stream if left out.
    #[schema(min_length = 1, pattern = "\\S", nullable = false)]
    sql_script: Option<String>,
}

/// A statement to check.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = StatementToCheck, example = json!({ "kind": "persistent", "sqlScript": "SELECT * FROM orders WHERE AMOUNT > 500" }))]
pub(super) struct ValidateBody {
    /// `flink`, `ksqldb` or `embedded`; `manager.default_engine` if left out.
    #[schema(nullable = false, pattern = "^(flink|ksqldb|embedded)$")]
    engine: Option<String>,
    /// `adhoc`: a query of somebody who looks; `persistent`: the text of a stream.
    #[schema(pattern = "^(adhoc|persistent)$")]
    kind: String,
    /// Of `adhoc`: it asks for what is there now, instead of for changes. Of ksqlDB only.
    #[schema(nullable = false, default = false)]
    pull: Option<bool>,
    /// The statement.
    #[schema(min_length = 1, pattern = "\\S")]
    sql_script: String,
}

/// A source that is declared: a topic, how its values are written, and what columns they have.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = SourceDeclaration, example = json!({
    "topic": "orders", "format": "json",
    "columns": [
        { "name": "ORDER_ID", "type": "int", "nullable": false }, { "name": "AMOUNT", "type": "decimal(10, 2)" },
        { "name": "PURCHASE_DATE", "type": "timestamp(3)" }
    ],
    "eventTime": { "column": "PURCHASE_DATE", "delayMs": 5000 }
}))]
pub(super) struct SourceBody {
    /// The Kafka topic.
    #[schema(min_length = 1, max_length = 249)]
    topic: String,
    /// `json`, `json_schema` (JSON in the framing of a registry) or `avro`.
    #[schema(pattern = "^(json|json_schema|avro)$")]
    format: String,
    /// Its columns, in order: `name`, `type` such as `int`, `string`, `decimal(10, 2)`, `timestamp(3)`, `array<string>`, and
    /// `nullable`, true if left out.
    #[schema(value_type = Vec<serde_json::Value>, min_items = 1)]
    columns: Vec<Column>,
    /// The column that says when an event happened, if windows shall go by it, and how many milliseconds later than others one may come.
    #[schema(nullable = false, value_type = Option<serde_json::Value>)]
    event_time: Option<EventTime>,
    /// The topic is a table: a record replaces the row of its key, one without a value deletes it. `key` names the columns that
    /// are read from the records' keys, `keyFormat` says how these are written: `text`, the value of one column, or `json`, an
    /// object. Left out, the topic is a stream.
    #[schema(nullable = false, value_type = Option<serde_json::Value>)]
    table: Option<Table>,
}

/// A statement's body: of JSON, a character can take six bytes.
fn limit(manager: &Manager) -> usize {
    manager.settings().limits.query_characters.saturating_mul(6).saturating_add(BODY_BYTES)
}

/// The body of a call, which has to be there.
pub(in crate::api) async fn read(
    (request, payload): (&HttpRequest, web::Payload),
    manager: &Manager,
    allowed: &[&str],
) -> Result<Body, Problem> {
    Body::parse(&body::read(request, payload, limit(manager)).await?, allowed)
}

/// The body of a call that may be without one.
pub(super) async fn read_any(
    (request, payload): (&HttpRequest, web::Payload),
    manager: &Manager,
    allowed: &[&str],
) -> Result<Body, Problem> {
    let headers = request.headers();
    let is_sized = headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    let is_there = headers.contains_key(header::CONTENT_TYPE) || headers.contains_key(header::TRANSFER_ENCODING);
    match is_sized || is_there {
        true => {
            let bytes = body::read(request, payload, limit(manager)).await?;
            Body::parse(if bytes.is_empty() { b"{}" } else { &bytes }, allowed)
        }
        false => Body::parse(b"{}", allowed),
    }
}

/// The engine that is named; a fault is noted.
pub(in crate::api) fn engine(body: &mut Body) -> Option<EngineKind> {
    let word = body.text("engine", MAX_ID_CHARS)?;
    let found = engine_of(&word);
    if found.is_none() {
        body.reject("engine", &word, &format!("must be {}", engine_words()));
    }
    found
}

/// The engine of that name.
pub(super) fn engine_of(word: &str) -> Option<EngineKind> {
    EngineKind::ALL.into_iter().find(|engine| engine.name() == word)
}

/// Their names.
pub(super) fn engine_words() -> String {
    EngineKind::ALL.map(EngineKind::name).join(" or ")
}

/// The statement; the gate says how long it may be.
pub(in crate::api) fn script(body: &mut Body, is_required: bool) -> Option<String> {
    let most = usize::MAX - 1;
    let is_there = body.has("sqlScript");
    match (is_there, is_required) {
        (false, true) => {
            body.reject("sqlScript", "", "is missing; must be a text: one SELECT");
            None
        }
        (false, false) => None,
        (true, _) => body.text_of("sqlScript", most, "must be a text that is not blank: one SELECT"),
    }
}

/// A new stream, and its parts again for whoever compares.
pub(super) fn new_stream(mut body: Body) -> Result<NewDefinition, Problem> {
    let name = body.required_text("name", MAX_NAME_CHARS).unwrap_or_default();
    let sql_script = script(&mut body, true).unwrap_or_default();
    let engine = engine(&mut body);
    body.finish()?;
    Ok(NewDefinition { name, sql_script, engine })
}

/// A statement to check.
pub(super) fn statement(mut body: Body) -> Result<(Option<EngineKind>, StatementKind, String), Problem> {
    let engine = engine(&mut body);
    let kind = match body.required_text("kind", MAX_ID_CHARS).as_deref() {
        Some("adhoc") => StatementKind::Adhoc,
        Some("persistent") | None => StatementKind::Persistent,
        Some(other) => {
            body.reject("kind", other, "must be adhoc or persistent");
            StatementKind::Persistent
        }
    };
    let kind = match (body.switch("pull").unwrap_or(false), kind) {
        (true, StatementKind::Persistent) => {
            body.reject("pull", "true", "is for kind adhoc: what runs on is for changes");
            kind
        }
        (true, _) => StatementKind::Pull,
        (false, _) => kind,
    };
    let sql = script(&mut body, true).unwrap_or_default();
    body.finish()?;
    Ok((engine, kind, sql))
}

/// The declaration of the source with this name.
pub(super) async fn source(name: String, request: &HttpRequest, payload: web::Payload) -> Result<Source, Problem> {
    let bytes = body::read(request, payload, SOURCE_BYTES).await?;
    let mut body = Body::parse(&bytes, &["topic", "format", "columns", "eventTime", "table"])?;
    let topic = body.required_text("topic", 249).unwrap_or_default();
    let format: Option<Format> = body.value("format", true, "must be json, json_schema or avro");
    let columns: Option<Vec<Column>> = body.value("columns", true, "must be a list of columns");
    if columns.as_ref().is_some_and(Vec::is_empty) {
        body.reject("columns", "[]", "must have at least one column");
    }
    let event_time: Option<EventTime> = body.value("eventTime", false, "must be an object with column and delayMs");
    let table: Option<Table> =
        body.value("table", false, "must be an object with key, a list of columns, and keyFormat, text or json");
    if format == Some(Format::View) {
        body.reject("format", "view", "must be json, json_schema or avro");
    }
    body.finish()?;
    let (format, columns) = (format.unwrap_or(Format::Json), columns.unwrap_or_default());
    Ok(Source { name, topic, format, columns, event_time, table })
}

/// The manager of this process, where there is one.
pub(in crate::api) fn manager(api: &Api) -> Result<&Manager, Problem> {
    api.state.manager.as_ref().ok_or_else(|| {
        let detail = "manager.enabled is false, or this process serves no reads";
        Problem::new(&super::problems::MANAGER_NOT_ENABLED, detail)
    })
}
