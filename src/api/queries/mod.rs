//! `/api/queries`, `/api/topics/{topic}/rows` and `/api/test/query`: rows for people who look, over
//! [`crate::manager::queries`] and [`crate::manager::preview`].

pub mod problems;
mod stream;

use std::time::Duration;

use actix_web::http::{Method, header};
use actix_web::{HttpRequest, HttpResponse, Route, web};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use super::limits::{Caller, Counted, Kind};
use super::parameters::Parameters;
use super::problem::{self, Problem};
use super::routes::RouteSpec;
use super::streams::requests::{engine, manager, read, script};
use super::streams::{part, problems::MANAGER_NOT_ENABLED};
use super::wire::end_when_silent;
use super::{Api, caller};
use crate::auth::policy::{Denied, Policy, owns};
use crate::auth::role::Role;
use crate::manager::engines::{LeftOut, TableSeen};
use crate::manager::live::Live;
use crate::manager::ports::From;
use crate::manager::queries::{FirstRows, NewQuery, QueryInfo, Refused};

/// Rows that a trial gives unless it says how many, and how many it may ask for.
const FIRST_ROWS: (usize, i64) = (10, 100);
/// Seconds that a trial takes at most unless it says how many, and how many it may ask for: less than proxies wait.
const FIRST_SECONDS: (u64, i64) = (10, 50);

/// The part of the OpenAPI document.
#[derive(OpenApi)]
#[openapi(
    tags((name = "queries", description = "Rows that people look at: queries on an engine, and topics as they fill. With \
        `manager.enabled`.")),
    paths(begin, list, rows, end, topic_rows, first_rows),
)]
pub(super) struct Document;

/// The routes. Each that has an engine or a broker work is counted.
pub(super) fn routes() -> Vec<RouteSpec> {
    let route = |method: Method, path, policy, handler: fn() -> Route| RouteSpec::new(method, path, policy, handler);
    vec![
        route(Method::POST, "/api/queries", Policy::Defines, || web::route().to(begin)),
        route(Method::GET, "/api/queries", Policy::RunsStreams, || web::route().to(list)),
        route(Method::GET, "/api/queries/{id}/rows", Policy::RunsStreams, || web::route().to(rows)),
        route(Method::DELETE, "/api/queries/{id}", Policy::RunsStreams, || web::route().to(end)),
        route(Method::GET, "/api/topics/{topic}/rows", Policy::Reader, || web::route().to(topic_rows))
            .counted(Counted::As(Kind::Streams)),
        route(Method::POST, "/api/test/query", Policy::Defines, || web::route().to(first_rows)),
    ]
}

/// A query to run.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = NewQuery, example = json!({ "sqlScript": "SELECT * FROM orders", "engine": "flink" }))]
pub(super) struct NewQueryBody {
    /// `flink`, `ksqldb` or `embedded`; `manager.default_engine` if left out.
    #[schema(nullable = false, pattern = "^(flink|ksqldb|embedded)$")]
    engine: Option<String>,
    /// One SELECT in the engine's dialect.
    #[schema(min_length = 1, pattern = "\\S")]
    sql_script: String,
    /// Begin with what is there, instead of with what comes.
    #[schema(nullable = false, default = false)]
    from_beginning: Option<bool>,
    /// Ask for what is there now, instead of for changes: it ends by itself. Of ksqlDB only.
    #[schema(nullable = false, default = false)]
    pull: Option<bool>,
}

/// A query to try.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = QueryToTry, example = json!({ "query": "SELECT * FROM orders" }))]
pub(super) struct TryBody {
    /// One SELECT in the engine's dialect.
    #[schema(min_length = 1, pattern = "\\S")]
    query: String,
    /// `flink`, `ksqldb` or `embedded`; `manager.default_engine` if left out.
    #[schema(nullable = false, pattern = "^(flink|ksqldb|embedded)$")]
    engine: Option<String>,
    /// Begin with what comes, instead of with what is there.
    #[schema(nullable = false, default = true)]
    from_beginning: Option<bool>,
    /// Ask for what is there now, instead of for changes: it ends by itself. Of ksqlDB only.
    #[schema(nullable = false, default = false)]
    pull: Option<bool>,
    /// How many rows at most.
    #[schema(nullable = false, default = 10, minimum = 1, maximum = 100)]
    rows: Option<usize>,
    /// How many seconds it may take.
    #[schema(nullable = false, default = 10, minimum = 1, maximum = 50)]
    seconds: Option<u64>,
}

/// A query that runs.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Query)]
pub(super) struct QueryBody {
    /// Its id: 32 hex digits.
    id: String,
    /// The instance that began it: its rows are read and it is ended there, and nowhere else.
    #[schema(example = "streamview-0-3f2a91c4")]
    instance: String,
    /// Where it runs.
    engine: &'static str,
    /// Who runs it.
    owner: String,
    /// Its text, as it was sent.
    sql_script: String,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    /// When it is ended at the latest (`manager.limits.query_seconds`).
    #[schema(value_type = String, format = DateTime)]
    ends_at: Timestamp,
    /// Whether somebody reads it. One that nobody reads within 30 s is ended.
    is_read: bool,
    /// Rows so far.
    rows: u64,
    /// Bytes of them.
    bytes: u64,
    /// What is not in them: records that were `refused`, `late` or of the `future`, `failedGroups` of windows, and `why` the latest
    /// of them is not there. Only the embedded engine counts it.
    #[schema(value_type = serde_json::Value)]
    left_out: LeftOut,
    /// The tables that it reads: `name`, `rows`, `bytes`, `refused` records, `refreshedAt` and `refreshMs`. Only of the embedded engine.
    #[schema(value_type = Vec<serde_json::Value>)]
    tables: Vec<TableSeen>,
}

impl std::convert::From<QueryInfo> for QueryBody {
    fn from(info: QueryInfo) -> Self {
        QueryBody {
            id: info.id,
            instance: info.instance,
            engine: info.engine.name(),
            owner: info.owner,
            sql_script: info.sql_script,
            started_at: info.started_at,
            ends_at: info.ends_at,
            is_read: info.is_read,
            rows: info.rows,
            bytes: info.bytes,
            left_out: info.left_out,
            tables: info.tables,
        }
    }
}

/// The queries that run.
#[derive(Serialize, ToSchema)]
#[schema(as = QueryList)]
pub(super) struct QueryListBody {
    /// They, the eldest first. Rows and bytes of other instances are up to 10 s old.
    items: Vec<QueryBody>,
    /// The instance that answers.
    #[schema(example = "streamview-0-3f2a91c4")]
    instance: String,
    /// What could not be asked, as sentences: there may be more queries.
    missing: Vec<String>,
}

/// The first rows of a query.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = FirstRows)]
pub(super) struct FirstRowsBody {
    /// The columns, as ksqlDB writes them.
    #[schema(required)]
    schema: Option<String>,
    /// Rows: `{"row":{"columns":[…]}}`, with `kind` where it is no insert.
    #[schema(value_type = Vec<serde_json::Value>)]
    rows: Vec<serde_json::Value>,
    /// Why there are no more: `limit`, `complete`, `cancelled`, `failed` or `interrupted`.
    end: String,
    /// More about that.
    #[schema(required)]
    reason: Option<String>,
    /// What is not in them, as for a query that runs, where there is such. Only the embedded engine counts it.
    #[serde(skip_serializing_if = "LeftOut::is_nothing")]
    #[schema(nullable = false, value_type = Option<serde_json::Value>)]
    left_out: LeftOut,
}

impl std::convert::From<FirstRows> for FirstRowsBody {
    fn from(first: FirstRows) -> Self {
        let FirstRows { schema, rows, end, reason, left_out } = first;
        FirstRowsBody { schema, rows, end, reason, left_out }
    }
}

fn live(api: &Api) -> Result<&Live, Problem> {
    let detail = "manager.enabled is false, or this process serves no reads";
    api.state.live.as_ref().ok_or_else(|| Problem::new(&MANAGER_NOT_ENABLED, detail))
}

/// As whom a caller is counted: as the hub counts.
fn owner(request: &HttpRequest) -> String {
    match caller::principal(request) {
        Some(principal) => principal.name.clone(),
        None => Caller::at(caller::address(request)).to_string(),
    }
}

/// The id of the path, of a query of this instance that the caller may read and end.
async fn own(live: &Live, request: &HttpRequest) -> Result<String, Problem> {
    let query = live.queries.find(&part(request, "id")?).await?;
    let principal = caller::principal(request);
    owns(principal.as_deref(), &query.owner).map_err(|denied| match denied {
        Denied::Lacks(role) => {
            let detail =
                format!("The query is of `{}`: to read or end it asks for the role `{}`", query.owner, role.as_str());
            Problem::new(&problem::ROLE_MISSING, detail).with("requiredRole", role.as_str())
        }
        other => other.into(),
    })?;
    let QueryInfo { id, instance, .. } = query;
    match instance == live.queries.instance() {
        true => Ok(id),
        false => Err(Refused::Elsewhere { id, instance }.into()),
    }
}

/// Run a query.
///
/// It begins at once; read its rows at `Location` within 30 s, or it is ended. It ends with its reader, with its `LIMIT`, or at
/// the limits of `manager.limits`.
#[utoipa::path(post, path = "/api/queries", operation_id = "begin_query", tag = "queries", request_body = NewQueryBody,
    responses((status = 201, description = "It runs", body = QueryBody,
        headers(("Location" = String, description = "Its rows"))),
        (status = 409, description = "`query_ended`: somebody has ended it while its engine was still beginning it",
            body = problem::ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 429, description = "`query_limit_reached`, `queries_too_often`, or `rate_limited`",
            body = problem::ProblemBody<'static>, content_type = "application/problem+json")))]
pub(super) async fn begin(
    api: web::Data<Api>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let live = live(&api)?;
    Parameters::parse(request.query_string(), &[]).finish()?;
    let allowed = ["engine", "sqlScript", "fromBeginning", "pull"];
    let mut body = read((&request, payload), manager(&api)?, &allowed).await?;
    let engine = engine(&mut body);
    let sql = script(&mut body, true).unwrap_or_default();
    let from_beginning = body.switch("fromBeginning").unwrap_or(false);
    let pull = body.switch("pull").unwrap_or(false);
    body.finish()?;
    // Its engine may take minutes to begin it.
    let _watching = end_when_silent(&request);
    let query = live.queries.start(NewQuery { engine, sql, from_beginning, pull }, &owner(&request)).await?;
    let location = format!("/api/queries/{}/rows", query.id);
    Ok(HttpResponse::Created().insert_header((header::LOCATION, location)).json(QueryBody::from(query)))
}

/// Who runs what?
///
/// The caller's own queries, on all instances; operators see everybody's. Each is read and ended on its `instance` alone.
#[utoipa::path(get, path = "/api/queries", operation_id = "list_queries", tag = "queries",
    responses((status = 200, description = "The queries that run", body = QueryListBody)))]
pub(super) async fn list(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let live = live(&api)?;
    Parameters::parse(request.query_string(), &[]).finish()?;
    let principal = caller::principal(&request);
    let own =
        principal.filter(|principal| !principal.roles.may(Role::Operator)).map(|principal| principal.name.clone());
    let mut found = live.queries.list(own.as_deref());
    let missing = match live.queries.elsewhere(own.as_deref()).await {
        Ok(elsewhere) => {
            found.extend(elsewhere);
            found.sort_by(|one, other| (one.started_at, &one.id).cmp(&(other.started_at, &other.id)));
            Vec::new()
        }
        Err(fault) => vec![format!("what other instances run is not known: {fault}")],
    };
    let items = found.into_iter().map(QueryBody::from).collect();
    let instance = live.queries.instance().to_owned();
    Ok(HttpResponse::Ok().json(QueryListBody { items, instance, missing }))
}

/// Read a query's rows.
///
/// Events without end: `header` with the columns, `row` for each row, `end` with how it ended. Each query is read once; when the
/// connection ends, so does the query.
#[utoipa::path(get, path = "/api/queries/{id}/rows", operation_id = "read_query", tag = "queries",
    params(("id" = String, Path, description = "The query's id", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$")),
    responses((status = 200, description = "Its rows", body = String, content_type = "text/event-stream"),
        (status = 421, description = "`query_elsewhere`: another instance runs it, `instance` says which",
            body = problem::ProblemBody<'static>, content_type = "application/problem+json")))]
pub(super) async fn rows(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let live = live(&api)?;
    Parameters::parse(request.query_string(), &[]).finish()?;
    let id = own(live, &request).await?;
    if request.method() == Method::HEAD {
        return Ok(HttpResponse::Ok().content_type("text/event-stream").finish());
    }
    Ok(stream::of_query(&request, live.queries.read(&id)?, api.state.shutting_down.clone()))
}

/// End a query.
///
/// Its reader is told who has ended it.
#[utoipa::path(delete, path = "/api/queries/{id}", operation_id = "end_query", tag = "queries",
    params(("id" = String, Path, description = "The query's id", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$")),
    responses((status = 204, description = "It has ended"),
        (status = 421, description = "`query_elsewhere`: another instance runs it, `instance` says which",
            body = problem::ProblemBody<'static>, content_type = "application/problem+json")))]
pub(super) async fn end(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let live = live(&api)?;
    Parameters::parse(request.query_string(), &[]).finish()?;
    let id = own(live, &request).await?;
    live.queries.kill(&id, &owner(&request))?;
    Ok(HttpResponse::NoContent().finish())
}

/// Watch a topic.
///
/// Events without end: `row` for each record, `dropped` where it was not shown all of them (a second's worth waits for whoever
/// is slow), `end` where nothing more comes. Outputs of streams and sources of the catalog can be watched.
#[utoipa::path(get, path = "/api/topics/{topic}/rows", operation_id = "watch_topic", tag = "queries",
    params(
        ("topic" = String, Path, description = "The topic", min_length = 1, max_length = 249, pattern = "^[^\\x00]+$"),
        ("from" = Option<String>, Query, description = "`latest`, `earliest`, `offset:N` of each partition, or `time:T`: \
            milliseconds since 1970 or RFC 3339. From anywhere but `latest` nothing is dropped: the topic is read as fast as \
            it is shown", pattern = "^(latest|earliest|offset:[0-9]+|time:.+)$", example = "latest"),
    ),
    responses((status = 200, description = "Its records, as they come", body = String, content_type = "text/event-stream"),
        (status = 429, description = "`preview_limit_reached`, or `rate_limited`",
            body = problem::ProblemBody<'static>, content_type = "application/problem+json")))]
pub(super) async fn topic_rows(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let live = live(&api)?;
    let mut parameters = Parameters::parse(request.query_string(), &["from"]);
    let from = parameters.one("from").map_or(Some(From::Latest), |text| {
        let from = begins(&text);
        if from.is_none() {
            let allowed = "must be latest, earliest, offset:N, or time:T with milliseconds since 1970 or RFC 3339";
            parameters.reject("from", &text, allowed);
        }
        from
    });
    parameters.finish()?;
    if request.method() == Method::HEAD {
        return Ok(HttpResponse::Ok().content_type("text/event-stream").finish());
    }
    let watcher = {
        let _watching = end_when_silent(&request);
        let (topic, from) = (part(&request, "topic")?, from.unwrap_or(From::Latest));
        live.previews.watch(&topic, from, &owner(&request)).await?
    };
    Ok(stream::of_topic(&request, watcher, api.state.shutting_down.clone()))
}

/// Where a preview begins, as clients write it.
fn begins(text: &str) -> Option<From> {
    match text.split_once(':') {
        None if text == "latest" => Some(From::Latest),
        None if text == "earliest" => Some(From::Earliest),
        Some(("offset", number)) => number.parse().ok().filter(|offset| *offset >= 0).map(From::Offset),
        Some(("time", time)) => match time.parse::<i64>() {
            Ok(millis) => (millis >= 0).then_some(From::Time(millis)),
            Err(_) => time.parse::<Timestamp>().ok().map(|time| From::Time(time.as_millisecond().max(0))),
        },
        _ => None,
    }
}

/// Try a query.
///
/// Its first rows, as many as come within a time: 10 rows within 10 s unless the call says otherwise.
#[utoipa::path(post, path = "/api/test/query", operation_id = "try_query", tag = "queries", request_body = TryBody,
    responses((status = 200, description = "The first rows", body = FirstRowsBody),
        (status = 429, description = "`query_limit_reached`, `queries_too_often`, or `rate_limited`",
            body = problem::ProblemBody<'static>, content_type = "application/problem+json")))]
pub(super) async fn first_rows(
    api: web::Data<Api>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let live = live(&api)?;
    Parameters::parse(request.query_string(), &[]).finish()?;
    let allowed = ["query", "engine", "fromBeginning", "pull", "rows", "seconds"];
    let mut body = read((&request, payload), manager(&api)?, &allowed).await?;
    let engine = engine(&mut body);
    let sql = body.required_text("query", usize::MAX - 1).unwrap_or_default();
    let from_beginning = body.switch("fromBeginning").unwrap_or(true);
    let pull = body.switch("pull").unwrap_or(false);
    let rows = body.number("rows", 1..=FIRST_ROWS.1).and_then(|rows| usize::try_from(rows).ok());
    let seconds = body.number("seconds", 1..=FIRST_SECONDS.1).and_then(|seconds| u64::try_from(seconds).ok());
    body.finish()?;
    let query = NewQuery { engine, sql, from_beginning, pull };
    let (rows, time) = (rows.unwrap_or(FIRST_ROWS.0), Duration::from_secs(seconds.unwrap_or(FIRST_SECONDS.0)));
    let _watching = end_when_silent(&request);
    let first = live.queries.first_rows(query, &owner(&request), rows, time).await?;
    Ok(HttpResponse::Ok().json(FirstRowsBody::from(first)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preview_begins_where_it_is_told() {
        for (text, from) in [
            ("latest", Some(From::Latest)),
            ("earliest", Some(From::Earliest)),
            ("offset:0", Some(From::Offset(0))),
            ("offset:-1", None),
            ("offset:x", None),
            ("time:1000", Some(From::Time(1_000))),
            ("time:1970-01-01T00:00:02Z", Some(From::Time(2_000))),
            ("time:yesterday", None),
            ("Latest", None),
            ("", None),
        ] {
            assert_eq!(begins(text), from, "{text}");
        }
    }
}
