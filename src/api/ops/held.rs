//! `/ops/held`: keys that wait for an event, and skipping what they wait for.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use utoipa::IntoParams;

use super::bodies::{HeldBulkBody, SkipHeldBody};
use super::calls::{Call, MAX_SEQUENCE, desk, key_in_path, why};
use super::model::{DecidedBody, DecidedInBulkBody, HeldDetailBody, HeldPageBody};
use super::paging::{Page, each};
use crate::api::Api;
use crate::api::body::Body;
use crate::api::parameters::{MAX_ID_CHARS, Parameters, is_of_postgres};
use crate::api::problem::{Problem, ProblemBody};
use crate::domain::held::HeldReason;
use crate::repair::request::{HeldFilter, Request, SkipHeld};

/// The parameters of the list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documentation; read by `list`")]
pub(super) struct HeldParameters {
    /// Of this view; the first one if left out.
    #[param(min_length = 1, max_length = 256, pattern = "^[^\\x00]+$", required = false)]
    view: Option<String>,
    /// Held for this reason: `gap`, `poison`, `event_id_reused` or `conflict`. Repeat it for any of several.
    #[param(max_items = 4, required = false)]
    reason: Option<Vec<String>>,
    /// Exactly this key.
    #[param(min_length = 1, max_length = 256, pattern = "^[^\\x00]+$", required = false)]
    key: Option<String>,
    /// Held for at least so long: seconds, or an ISO 8601 duration such as `PT15M` or `P1D`.
    #[param(rename = "olderThan", min_length = 1, required = false, example = "PT15M")]
    older_than: Option<String>,
    /// Held for less than so long.
    #[param(rename = "newerThan", min_length = 1, required = false, example = "P1D")]
    newer_than: Option<String>,
    /// Only gaps whose missing event is known not to be in the log (`true`), or only others (`false`).
    #[param(required = false)]
    proven: Option<bool>,
    /// Keys on a page.
    #[param(rename = "pageSize", minimum = 1, maximum = 200, default = 50, required = false)]
    page_size: Option<u32>,
    /// A position, taken unchanged from a `Link` header, with the same filters.
    #[param(min_length = 1, pattern = "^[A-Za-z0-9_-]+$", required = false)]
    cursor: Option<String>,
}

/// Which keys are held?
///
/// Keys that wait for a missing event, those that have waited longest first, with what they wait for and how much waits
/// behind. Follow `Link: rel="next"`.
#[utoipa::path(get, path = "/ops/held", operation_id = "list_held", tag = "operations", params(HeldParameters), responses(
    (status = 200, description = "One page", body = HeldPageBody, headers(
        ("Link" = String, description = "RFC 8288 links `first` and `next`; no `next` on the last page"),
    )),
    (status = 400, description = "A parameter or the cursor is not usable", body = ProblemBody<'static>, content_type = "application/problem+json"),
    (status = 404, description = "No such view here", body = ProblemBody<'static>, content_type = "application/problem+json"),
))]
pub async fn list(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let names = ["view", "reason", "key", "olderThan", "newerThan", "proven", "pageSize", "cursor"];
    let mut parameters = Parameters::parse(request.query_string(), &names);
    let desk = desk(&api, &mut parameters);
    let (older_than, newer_than) = parameters.ages("olderThan", "newerThan");
    let filter = HeldFilter {
        reasons: parameters.words("reason", &HeldReason::WORDS),
        key: parameters.id("key"),
        older_than,
        newer_than,
        proven: parameters.switch("proven"),
        nothing_refused: false,
    };
    let mut filters = vec![("view", desk.as_ref().ok().map(|desk| desk.view.to_owned())), ("key", filter.key.clone())];
    filters.extend(each("reason", &filter.reasons));
    filters.push(("olderThan", filter.older_than.map(|age| age.to_string())));
    filters.push(("newerThan", filter.newer_than.map(|age| age.to_string())));
    filters.push(("proven", filter.proven.map(|proven| proven.to_string())));
    let page = Page::take(parameters, &api.state.settings, ("/ops/held", "since"), &filters)?;
    let after = match &page.after {
        None => None,
        Some((since, key)) => {
            let since = since.parse().ok().filter(|since| is_of_postgres(*since));
            Some((since.ok_or_else(|| page.unreadable())?, key.as_str()))
        }
    };
    let mut items = desk?.list_held(&filter, after, page.limit).await?;
    let link = page.link(&mut items, |held| (held.since.to_string(), held.key.clone()));
    let items = items.into_iter().map(Into::into).collect();
    Ok(HttpResponse::Ok().insert_header((header::LINK, link)).json(HeldPageBody { items, page_size: page.limit }))
}

/// What does a key wait for?
///
/// Since when, for which numbers and why; what is parked behind; the dead letters at its numbers; what was decided; and
/// what can be done next, each with a body to start from.
#[utoipa::path(get, path = "/ops/held/{key}", operation_id = "show_held", tag = "operations",
    params(
        ("key" = String, Path, description = "The key: an order's id", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$", example = "order-275"),
        ("view" = Option<String>, Query, description = "Of this view; the first one if left out.", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$"),
    ),
    responses(
        (status = 200, description = "What it waits for", body = HeldDetailBody),
        (status = 400, description = "A parameter is not usable", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 404, description = "`held_key_not_found`: it waits for nothing; or no such view here",
            body = ProblemBody<'static>, content_type = "application/problem+json"),
    ))]
pub async fn show(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let mut parameters = Parameters::parse(request.query_string(), &["view"]);
    let desk = desk(&api, &mut parameters);
    parameters.finish()?;
    let key = key_in_path(&request)?;
    Ok(HttpResponse::Ok().json(HeldDetailBody::from(desk?.show_held(&key).await?)))
}

/// Skip what a key waits for
///
/// The key goes on without the missing events; what is parked behind is applied. Without `from` and `to` everything that
/// is missing is skipped. The decision is kept for ever, and every rebuild follows it.
#[utoipa::path(post, path = "/ops/held/{key}/skip", operation_id = "skip_held", tag = "operations",
    params(
        ("key" = String, Path, description = "The key: an order's id", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$", example = "order-275"),
        ("view" = Option<String>, Query, description = "Of this view; the first one if left out.", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$"),
    ),
    request_body = SkipHeldBody,
    responses((status = 202, description = "Decided; it takes effect within about a second while a projector runs", body = DecidedBody)))]
pub async fn skip(api: web::Data<Api>, request: HttpRequest, payload: web::Payload) -> Result<HttpResponse, Problem> {
    let call = Call::read(&api, &request, payload, false).await?;
    let key = key_in_path(&request)?;
    let mut body = Body::parse(&call.bytes, &["reason", "actor", "from", "to"])?;
    let why = why(&mut body, &request);
    let (from, to) = (body.number("from", 0..=MAX_SEQUENCE), body.number("to", 0..=MAX_SEQUENCE));
    body.finish()?;
    call.make(&api, Request::SkipHeld(SkipHeld { key, from, to }), why).await
}

/// Skip what many keys wait for
///
/// Of every held key that matches, everything that is missing is skipped. Ask with `dry_run=true` first: it tells how
/// many match and changes nothing. Then repeat with that number as `expect`.
#[utoipa::path(post, path = "/ops/held/skip", operation_id = "skip_held_by_filter", tag = "operations",
    params(
        ("view" = Option<String>, Query, description = "Of this view; the first one if left out.", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$"),
        ("dry_run" = Option<bool>, Query, description = "Only tell what would be done."),
    ),
    request_body = HeldBulkBody,
    responses(
        (status = 200, description = "What would be done", body = DecidedInBulkBody),
        (status = 202, description = "Decided; it takes effect within about a second while a projector runs", body = DecidedInBulkBody),
    ))]
pub async fn skip_by_filter(
    api: web::Data<Api>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let call = Call::read(&api, &request, payload, true).await?;
    let mut body = Body::parse(&call.bytes, &["filter", "reason", "actor", "limit", "expect"])?;
    let why = why(&mut body, &request);
    let bulk = call.bulk(&mut body);
    let mut filter = HeldFilter::default();
    if let Some(mut inner) = body.object("filter", "filter.", &["reason", "key", "olderThan", "newerThan", "proven"]) {
        let (older_than, newer_than) = inner.ages("olderThan", "newerThan");
        filter = HeldFilter {
            reasons: inner.words("reason", &HeldReason::WORDS),
            key: inner.text("key", MAX_ID_CHARS),
            older_than,
            newer_than,
            proven: inner.switch("proven"),
            nothing_refused: false,
        };
        body.adopt(inner);
    }
    body.finish()?;
    call.make(&api, Request::SkipHeldByFilter(filter, bulk), why).await
}
