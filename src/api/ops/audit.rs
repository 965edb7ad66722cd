//! `/ops/audit`: who called what. For administrators.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::paging::Page;
use crate::api::Api;
use crate::api::parameters::Parameters;
use crate::api::problem::{Problem, ProblemBody};
use crate::store::audit::{self, AuditEntry, AuditFilter};

const OUTCOMES: [&str; 3] = ["done", "refused", "failed"];

/// A call, or refusals that were alike.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditBody {
    /// Its number.
    #[schema(minimum = 1)]
    pub id: i64,
    /// When; of several the first.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// By whom; null if nobody had logged in.
    #[schema(required)]
    pub principal: Option<String>,
    /// Method.
    #[schema(example = "POST")]
    pub method: String,
    /// Pattern of the route.
    #[schema(example = "/ops/held/{key}/skip")]
    pub route: String,
    /// Path as it was asked for.
    #[schema(example = "/ops/held/o-1/skip")]
    pub target: String,
    /// Status of the answer.
    #[schema(example = 202)]
    pub status: i32,
    /// `done`, `refused` (401, 403, 429) or `failed` (any other problem).
    pub outcome: &'static str,
    /// Code of the problem that it was.
    #[schema(required)]
    pub code: Option<String>,
    /// Trace id of the call; of several that of the first.
    pub trace_id: String,
    /// From where.
    #[schema(example = "10.0.0.7")]
    pub address: String,
    /// How many.
    #[schema(minimum = 1)]
    pub calls: i32,
}

/// A page of the audit log.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditPage {
    /// The latest first.
    pub items: Vec<AuditBody>,
    /// Entries on a page.
    pub page_size: u32,
}

/// The parameters of the list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documentation; read by `list`")]
pub(super) struct AuditParameters {
    /// By this principal.
    #[param(min_length = 1, max_length = 256, pattern = "^[^\\x00]+$", required = false)]
    principal: Option<String>,
    /// Of this route, as its pattern.
    #[param(min_length = 1, max_length = 256, pattern = "^[^\\x00]+$", required = false)]
    route: Option<String>,
    /// With this outcome.
    #[param(pattern = "^(done|refused|failed)$", required = false)]
    outcome: Option<String>,
    /// Not before this time, RFC 3339.
    #[param(required = false)]
    from: Option<String>,
    /// Before this time, RFC 3339.
    #[param(required = false)]
    to: Option<String>,
    /// Entries on a page.
    #[param(rename = "pageSize", minimum = 1, maximum = 200, default = 50, required = false)]
    page_size: Option<u32>,
    /// A position, taken unchanged from a `Link` header, with the same filters.
    #[param(min_length = 1, pattern = "^[A-Za-z0-9_-]+$", required = false)]
    cursor: Option<String>,
}

impl From<(i64, AuditEntry)> for AuditBody {
    fn from((id, entry): (i64, AuditEntry)) -> Self {
        AuditBody {
            id,
            at: entry.at,
            principal: entry.principal,
            method: entry.method,
            route: entry.route,
            target: entry.target,
            status: entry.status,
            outcome: match entry.status {
                ..=399 => OUTCOMES[0],
                401 | 403 | 429 => OUTCOMES[1],
                _ => OUTCOMES[2],
            },
            code: entry.code,
            trace_id: entry.trace_id,
            address: entry.address,
            calls: entry.calls,
        }
    }
}

/// Who called what?
///
/// Every call of a route that changes something, and every call that was refused, the latest first; refusals that are alike
/// are one entry. A call is in it within a second. Follow `Link: rel="next"`.
#[utoipa::path(get, path = "/ops/audit", operation_id = "list_audit", tag = "access", params(AuditParameters), responses(
    (status = 200, description = "One page", body = AuditPage, headers(
        ("Link" = String, description = "RFC 8288 links `first` and `next`; no `next` on the last page"),
    )),
    (status = 400, description = "A parameter or the cursor is not usable", body = ProblemBody<'static>, content_type = "application/problem+json"),
))]
pub async fn list(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let names = ["principal", "route", "outcome", "from", "to", "pageSize", "cursor"];
    let mut parameters = Parameters::parse(request.query_string(), &names);
    let (principal, route) = (parameters.id("principal"), parameters.id("route"));
    let outcome = parameters.one("outcome");
    if let Some(word) = outcome.as_ref().filter(|word| !OUTCOMES.contains(&word.as_str())) {
        parameters.reject("outcome", word, &format!("must be one of {}", OUTCOMES.join(", ")));
    }
    let (from, to) = parameters.times("from", "to");
    let filters = [
        ("principal", principal.clone()),
        ("route", route.clone()),
        ("outcome", outcome.clone()),
        ("from", from.map(|time| time.to_string())),
        ("to", to.map(|time| time.to_string())),
    ];
    let page = Page::take(parameters, &api.state.settings, ("/ops/audit", "-id"), &filters)?;
    let filter = AuditFilter { principal, route, outcome, from, to };
    let before = page.after_id()?;
    let listed = api.state.ops_pool.within_deadline(async {
        let client = api.state.ops_pool.get().await?;
        Ok(audit::list(&client, &filter, before, i64::from(page.limit)).await?)
    });
    let mut items: Vec<AuditBody> = listed.await?.into_iter().map(AuditBody::from).collect();
    let link = page.link(&mut items, |entry| (String::new(), entry.id.to_string()));
    Ok(HttpResponse::Ok().insert_header((header::LINK, link)).json(AuditPage { items, page_size: page.limit }))
}
