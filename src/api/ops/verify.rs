//! `POST /ops/verify`, and what an operation that compares found of each key.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};

use super::calls::{id_in_path, why};
use super::operations::{OperationBody, any_desk, begin, desk_of, read};
use super::paging::Page;
use crate::api::Api;
use crate::api::body::Body;
use crate::api::parameters::{MAX_ID_CHARS, Parameters};
use crate::api::problem::{Problem, ProblemBody};
use crate::domain::comparison::Difference;
use crate::domain::verification::{Basis, Scope};
use crate::repair::operations::{Asked, Verify};

/// What a verification is asked with.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "documentation; read by `verify`")]
pub struct VerifyRequest {
    /// Name of the view; the first one if left out.
    #[schema(required = false, example = "orders", min_length = 1, max_length = 256)]
    view: String,
    /// Why, for those who ask later.
    #[schema(min_length = 1, max_length = 500, pattern = "\\S", example = "the monthly look")]
    reason: String,
    /// Who asks; where callers log in, for whom.
    #[schema(required = false, min_length = 1, max_length = 256)]
    actor: String,
    /// So many keys, any of those that have a row.
    #[schema(required = false, minimum = 1, maximum = 4_294_967_295_i64, example = 1000)]
    sample: i64,
    /// Every key; so it is if neither `sample` nor `key` is given.
    #[schema(required = false)]
    all: bool,
    /// One key.
    #[schema(required = false, min_length = 1, max_length = 256, example = "order-275")]
    key: String,
    /// By what it is told what rows should be: the build's own `ledger`, the `log`, or `both`.
    #[schema(required = false, default = "ledger", pattern = "^(ledger|log|both)$")]
    from: String,
}

/// Verify a view
///
/// Folds keys again, from the ledger or from the log, and compares what comes out with the rows of the build that readers
/// read, while it is fed. Changes nothing. Follow `Location`: `comparison` has the result, `…/differences` every key.
#[utoipa::path(post, path = "/ops/verify", operation_id = "verify_view", tag = "operations",
    params(("Idempotency-Key" = Option<String>, Header, description = "A call repeated with the same key begins nothing twice.",
        min_length = 1, max_length = 255, pattern = "^[\\x21-\\x7e]+$")),
    request_body(content = VerifyRequest, content_type = "application/json"),
    responses(
        (status = 202, description = "It is begun", body = OperationBody, headers(("Location" = String, description = "The operation"))),
        (status = 400, description = "The request is not usable", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 403, description = "`operations_not_allowed`", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 404, description = "No such view here", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 409, description = "`operation_running`: `operationId` names it", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 422, description = "`idempotency_key_reused`", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ))]
pub async fn verify(api: web::Data<Api>, request: HttpRequest, payload: web::Payload) -> Result<HttpResponse, Problem> {
    let (key, bytes) = read(&request, payload).await?;
    let mut body = Body::parse(&bytes, &["view", "reason", "actor", "sample", "all", "key", "from"])?;
    let view = body.text("view", MAX_ID_CHARS);
    let why = why(&mut body, &request);
    let scope = scope(&mut body);
    let basis = basis(&mut body, &Basis::ALL);
    body.finish()?;
    let desk = match view {
        Some(view) => desk_of(&api, &view)?,
        None => any_desk(&api)?,
    };
    begin(&api, desk, (&Asked::Verify(Verify::of(&scope, basis)), why, None), key).await
}

fn scope(body: &mut Body) -> Scope {
    let sample = body.number("sample", 1..=i64::from(u32::MAX)).and_then(|count| u32::try_from(count).ok());
    let (key, all) = (body.text("key", MAX_ID_CHARS), body.switch("all").unwrap_or(false));
    let asked = [sample.is_some(), key.is_some(), all];
    if asked.iter().filter(|is_asked| **is_asked).count() > 1 {
        body.reject("sample", "", "only one of `sample`, `all` and `key` can be asked for");
    }
    match (key, sample) {
        (Some(key), _) => Scope::Key(key),
        (None, Some(count)) => Scope::Sample(count),
        (None, None) => Scope::All,
    }
}

/// The field `from`: the ledger if it is left out.
pub(super) fn basis(body: &mut Body, known: &[Basis]) -> Basis {
    let Some(word) = body.text("from", MAX_ID_CHARS) else { return Basis::Ledger };
    let found = known.iter().copied().find(|basis| basis.as_str() == word);
    found.unwrap_or_else(|| {
        let words: Vec<&str> = known.iter().map(|basis| basis.as_str()).collect();
        body.reject("from", &word, &format!("must be one of {}", words.join(", ")));
        Basis::Ledger
    })
}

/// A key that is not equal, and what differs in it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = KeyDifference)]
pub struct DifferenceBody {
    /// The key.
    #[schema(example = "order-275")]
    pub key: String,
    /// `different`; `missing_old`: the rows (of a rebuild: the old build) do not have it; `missing_new`: what they are
    /// compared with does not.
    #[schema(example = "different")]
    pub found: &'static str,
    /// What differs, at most 100 values: `status`, `items[2].price`, `events[7]`.
    pub columns: BTreeMap<String, ValuesBody>,
}

/// A value in both.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DifferentValues)]
pub struct ValuesBody {
    /// As it is stored (of a rebuild: in the old build): a text, null, or a whole row.
    #[schema(required)]
    pub old: Value,
    /// As it should be (of a rebuild: as the new build has it).
    #[schema(required)]
    pub new: Value,
}

/// A page of what an operation found.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DifferencePage)]
pub struct DifferencePageBody {
    /// By key.
    pub items: Vec<DifferenceBody>,
    /// Keys on a page.
    #[schema(minimum = 1)]
    pub page_size: u32,
    /// How many keys differ; null until all is compared.
    #[schema(required, minimum = 0)]
    pub total: Option<u64>,
    /// Of how many of them this list has what differs: the first 10,000 that were found.
    #[schema(minimum = 0, maximum = 10_000)]
    pub kept: i64,
}

impl From<Difference> for DifferenceBody {
    fn from(Difference { key, found, columns, .. }: Difference) -> Self {
        let values = columns.into_iter().map(|(name, values)| (name, ValuesBody { old: values.old, new: values.new }));
        DifferenceBody { key, found: found.as_str(), columns: values.collect() }
    }
}

/// The parameters of the list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documentation; read by `differences`")]
pub(super) struct DifferenceParameters {
    /// Keys on a page.
    #[param(rename = "pageSize", minimum = 1, maximum = 200, default = 50, required = false)]
    page_size: Option<u32>,
    /// A position, taken unchanged from a `Link` header.
    #[param(min_length = 1, pattern = "^[A-Za-z0-9_-]+$", required = false)]
    cursor: Option<String>,
}

/// What did an operation find?
///
/// The keys that a rebuild's comparison or a verification found unequal, by key, with both values of each column. While
/// it compares, those found so far. Follow `Link: rel="next"`.
#[utoipa::path(get, path = "/ops/operations/{id}/differences", operation_id = "list_differences", tag = "operations",
    params(("id" = i64, Path, description = "Its number", minimum = 1), DifferenceParameters),
    responses(
        (status = 200, description = "One page", body = DifferencePageBody, headers(
            ("Link" = String, description = "RFC 8288 links `first` and `next`; no `next` on the last page"),
        )),
        (status = 400, description = "The id, a parameter or the cursor is not usable", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 404, description = "`operation_not_found`", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ))]
pub async fn differences(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let parameters = Parameters::parse(request.query_string(), &["pageSize", "cursor"]);
    let id = id_in_path(&request)?;
    let page = Page::take(parameters, &api.state.settings, (format!("/ops/operations/{id}/differences"), "key"), &[])?;
    let after = page.after.as_ref().map_or("", |(_, key)| key.as_str());
    let mut found = any_desk(&api)?.differences(id, after, page.limit).await?;
    let link = page.link(&mut found.items, |difference| (String::new(), difference.key.clone()));
    let items = found.items.into_iter().map(Into::into).collect();
    let body = DifferencePageBody { items, page_size: page.limit, total: found.total, kept: found.kept };
    Ok(HttpResponse::Ok().insert_header((header::LINK, link)).json(body))
}
