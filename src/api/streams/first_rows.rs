//! `/api/test/query`: the first rows of a query, as many as come within a time, in one answer.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::actor;
use super::problems::MANAGER_NOT_ENABLED;
use super::requests::{engine, manager, read};
use crate::api::Api;
use crate::api::parameters::Parameters;
use crate::api::problem::{Problem, ProblemBody};
use crate::manager::queries::{FirstRows, NewQuery};

/// Rows that the original gives, and the most.
const ROWS: (i64, i64) = (10, 1_000);
/// Seconds that the original waits, and the most.
const SECONDS: (i64, i64) = (10, 60);

/// A query of which the first rows are wanted.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = QueryToTry, example = json!({ "query": "SELECT * FROM orders WHERE AMOUNT > 500", "fromBeginning": true }))]
pub(super) struct QueryBody {
    /// One SELECT.
    #[schema(min_length = 1, pattern = "\\S")]
    query: String,
    /// `flink` or `ksqldb`; `manager.default_engine` if left out.
    #[schema(nullable = false, pattern = "^(flink|ksqldb)$")]
    engine: Option<String>,
    /// From what is there on, instead of from now on.
    #[schema(nullable = false, default = false)]
    from_beginning: Option<bool>,
    /// Rows at most; 10 if left out.
    #[schema(nullable = false, minimum = 1, maximum = 1_000, default = 10)]
    rows: Option<u32>,
    /// Seconds at most; 10 if left out.
    #[schema(nullable = false, minimum = 1, maximum = 60, default = 10)]
    seconds: Option<u32>,
}

/// The first rows of a query.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = FirstRows)]
pub(super) struct FirstRowsBody {
    /// The columns, as ksqlDB writes them; null if none were told within the time.
    #[schema(required, example = "`ORDER_ID` INTEGER, `AMOUNT` DECIMAL(10, 2)")]
    schema: Option<String>,
    /// The rows, each with its kind.
    rows: Vec<Value>,
    /// Why there are no more: `limit`, `complete`, `cancelled`, `failed` or `interrupted`.
    #[schema(example = "limit")]
    end: String,
    /// More about that, in the engine's words where it has failed.
    #[schema(required)]
    reason: Option<String>,
}

impl From<FirstRows> for FirstRowsBody {
    fn from(FirstRows { schema, rows, end, reason }: FirstRows) -> Self {
        FirstRowsBody { schema, rows, end, reason }
    }
}

/// Try a query
///
/// Its first rows, as many as come within a time; then the engine's query is ended. It counts among the queries of its caller.
#[utoipa::path(post, path = "/api/test/query", operation_id = "try_query", tag = "streams",
    request_body = QueryBody,
    responses(
        (status = 200, description = "The rows", body = FirstRowsBody),
        (status = 429, description = "`query_limit_reached` or `rate_limited`", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ))]
pub async fn first_rows(
    api: web::Data<Api>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let manager = manager(&api)?;
    Parameters::parse(request.query_string(), &[]).finish()?;
    let allowed = ["query", "engine", "fromBeginning", "rows", "seconds"];
    let mut body = read((&request, payload), manager, &allowed).await?;
    if !body.has("query") {
        body.reject("query", "", "is missing; must be a text: one SELECT");
    }
    let sql = body.text_of("query", usize::MAX - 1, "must be a text that is not blank: one SELECT").unwrap_or_default();
    let engine = engine(&mut body);
    let from_beginning = body.switch("fromBeginning").unwrap_or(false);
    let rows = body.number("rows", 1..=ROWS.1).unwrap_or(ROWS.0);
    let seconds = body.number("seconds", 1..=SECONDS.1).unwrap_or(SECONDS.0);
    body.finish()?;
    let Some(live) = &api.state.live else {
        return Err(Problem::new(&MANAGER_NOT_ENABLED, "This process serves no queries"));
    };
    let (rows, time) = (usize::try_from(rows).unwrap_or(1), Duration::from_secs(seconds.unsigned_abs()));
    let query = NewQuery { engine, sql, from_beginning };
    let first = live.queries.first_rows(query, &actor(&request), rows, time).await?;
    Ok(HttpResponse::Ok().json(FirstRowsBody::from(first)))
}
