//! `/ops/dead-letters`: records that were refused, and what is done about them.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::value::RawValue;
use utoipa::IntoParams;

use super::bodies::{LetterBulkBody, ReasonBody, ReplaceBody};
use super::calls::{Call, MAX_SEQUENCE, desk, id_in_path, why};
use super::model::{DecidedBody, DecidedInBulkBody, LetterDetailBody, LetterPageBody, LetterTopicsBody};
use super::paging::{Page, each};
use crate::api::Api;
use crate::api::body::Body;
use crate::api::parameters::{MAX_ID_CHARS, Parameters};
use crate::api::problem::{Problem, ProblemBody};
use crate::repair::request::{LetterFilter, Replacement, Request, known_reasons, known_statuses, statuses};

/// Kafka's own bound for names of topics.
const MAX_TOPIC_CHARS: usize = 249;
/// So many letters are looked at, the newest, to tell which topics they came from.
const MOST_COUNTED: u32 = 10_000;
/// Most headers that a replacement sets.
const MAX_HEADERS: usize = 100;

/// The parameters of the list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documentation; read by `list`")]
pub(super) struct LetterParameters {
    /// Of this view; the first one if left out.
    #[param(min_length = 1, max_length = 256, pattern = "^[^\\x00]+$", required = false)]
    view: Option<String>,
    /// In this state: `open` (if left out), `deciding`, `skipped`, `replaced`, `redriven`, `refused`, or `all`. Repeat it
    /// for any of several.
    #[param(max_items = 7, required = false)]
    status: Option<Vec<String>>,
    /// Refused for this reason. Repeat it for any of several.
    #[param(max_items = 21, required = false)]
    reason: Option<Vec<String>>,
    /// Of exactly this key.
    #[param(min_length = 1, max_length = 256, pattern = "^[^\\x00]+$", required = false)]
    key: Option<String>,
    /// Of exactly this topic.
    #[param(min_length = 1, max_length = 249, pattern = "^[^\\x00]+$", required = false)]
    topic: Option<String>,
    /// Refused at least so long ago: seconds, or an ISO 8601 duration such as `PT15M` or `P1D`.
    #[param(rename = "olderThan", min_length = 1, required = false, example = "PT15M")]
    older_than: Option<String>,
    /// Refused less than so long ago.
    #[param(rename = "newerThan", min_length = 1, required = false, example = "P1D")]
    newer_than: Option<String>,
    /// Letters on a page.
    #[param(rename = "pageSize", minimum = 1, maximum = 200, default = 50, required = false)]
    page_size: Option<u32>,
    /// A position, taken unchanged from a `Link` header, with the same filters.
    #[param(min_length = 1, pattern = "^[A-Za-z0-9_-]+$", required = false)]
    cursor: Option<String>,
}

/// Which records were refused?
///
/// The newest first; those about which nothing is decided, unless `status` says otherwise. Follow `Link: rel="next"`.
#[utoipa::path(get, path = "/ops/dead-letters", operation_id = "list_dead_letters", tag = "operations", params(LetterParameters), responses(
    (status = 200, description = "One page", body = LetterPageBody, headers(
        ("Link" = String, description = "RFC 8288 links `first` and `next`; no `next` on the last page"),
    )),
    (status = 400, description = "A parameter or the cursor is not usable", body = ProblemBody<'static>, content_type = "application/problem+json"),
    (status = 404, description = "No such view here", body = ProblemBody<'static>, content_type = "application/problem+json"),
))]
pub async fn list(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let names = ["view", "status", "reason", "key", "topic", "olderThan", "newerThan", "pageSize", "cursor"];
    let mut parameters = Parameters::parse(request.query_string(), &names);
    let desk = desk(&api, &mut parameters);
    let asked = parameters.words("status", &known_statuses());
    let (older_than, newer_than) = parameters.ages("olderThan", "newerThan");
    let filter = LetterFilter {
        statuses: statuses(asked.clone()),
        reasons: parameters.words("reason", &known_reasons()),
        key: parameters.id("key"),
        topic: parameters.id("topic"),
        older_than,
        newer_than,
        ids: None,
    };
    let mut filters = vec![("view", desk.as_ref().ok().map(|desk| desk.view.to_owned())), ("key", filter.key.clone())];
    filters.push(("topic", filter.topic.clone()));
    filters.extend(each("status", &asked));
    filters.extend(each("reason", &filter.reasons));
    filters.push(("olderThan", filter.older_than.map(|age| age.to_string())));
    filters.push(("newerThan", filter.newer_than.map(|age| age.to_string())));
    let page = Page::take(parameters, &api.state.settings, ("/ops/dead-letters", "-id"), &filters)?;
    let mut items = desk?.list_letters(&filter, page.after_id()?, page.limit).await?;
    let link = page.link(&mut items, |letter| (String::new(), letter.id.to_string()));
    let items = items.into_iter().map(Into::into).collect();
    Ok(HttpResponse::Ok().insert_header((header::LINK, link)).json(LetterPageBody { items, page_size: page.limit }))
}

/// Which topics did they come from?
///
/// Each topic with how many letters it has in the asked state, the topic of most first: of the newest 10,000 (`partial` says
/// that there are more), and 200 topics at most. `topic` of the list shows one topic's.
#[utoipa::path(get, path = "/ops/dead-letters/topics", operation_id = "list_topics_of_dead_letters", tag = "operations",
    params(
        ("view" = Option<String>, Query, description = "Of this view; the first one if left out.", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$"),
        ("status" = Option<Vec<String>>, Query, description = "In this state, as in the list: `open` if left out. Repeat it for any of several."),
    ),
    responses(
        (status = 200, description = "The topics", body = LetterTopicsBody),
        (status = 400, description = "A parameter is not usable", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 404, description = "No such view here", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ))]
pub async fn topics(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let mut parameters = Parameters::parse(request.query_string(), &["view", "status"]);
    let desk = desk(&api, &mut parameters);
    let asked = statuses(parameters.words("status", &known_statuses()));
    parameters.finish()?;
    let (topics, partial) = desk?.topics_of_letters(&asked, MOST_COUNTED).await?;
    let items = topics.into_iter().map(Into::into).collect();
    Ok(HttpResponse::Ok().json(LetterTopicsBody { items, partial }))
}

/// Show a refused record
///
/// Its headers, its payload decoded and raw (the first 256 KiB), why it was refused, where it stood, what was decided,
/// and what can be done next. It may hold personal data.
#[utoipa::path(get, path = "/ops/dead-letters/{id}", operation_id = "show_dead_letter", tag = "operations",
    params(
        ("id" = i64, Path, description = "Id of the letter", minimum = 1),
        ("view" = Option<String>, Query, description = "Of this view; the first one if left out.", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$"),
    ),
    responses(
        (status = 200, description = "The letter", body = LetterDetailBody),
        (status = 400, description = "A parameter is not usable", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 404, description = "`dead_letter_not_found`, or no such view here", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ))]
pub async fn show(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let mut parameters = Parameters::parse(request.query_string(), &["view"]);
    let desk = desk(&api, &mut parameters);
    parameters.finish()?;
    let id = id_in_path(&request)?;
    Ok(HttpResponse::Ok().json(LetterDetailBody::from(desk?.show_letter(id).await?)))
}

/// Skip a dead letter
///
/// If its order waits for its number, the order goes on without it. If not (it has no number, or the number is taken or
/// past), the letter is closed and nothing else changes.
#[utoipa::path(post, path = "/ops/dead-letters/{id}/skip", operation_id = "skip_dead_letter", tag = "operations",
    params(
        ("id" = i64, Path, description = "Id of the letter", minimum = 1),
        ("view" = Option<String>, Query, description = "Of this view; the first one if left out.", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$"),
    ),
    request_body = ReasonBody,
    responses((status = 202, description = "Decided; it takes effect within about a second while a projector runs", body = DecidedBody)))]
pub async fn skip(api: web::Data<Api>, request: HttpRequest, payload: web::Payload) -> Result<HttpResponse, Problem> {
    answer(&api, &request, payload, Request::SkipLetter).await
}

/// Redrive a dead letter
///
/// As it was: for a record that can be read by now, after a schema or the code was mended. If it still cannot be read,
/// 422 says why and nothing changes.
#[utoipa::path(post, path = "/ops/dead-letters/{id}/redrive", operation_id = "redrive_dead_letter", tag = "operations",
    params(
        ("id" = i64, Path, description = "Id of the letter", minimum = 1),
        ("view" = Option<String>, Query, description = "Of this view; the first one if left out.", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$"),
    ),
    request_body = ReasonBody,
    responses((status = 202, description = "Decided; it takes effect within about a second while a projector runs", body = DecidedBody)))]
pub async fn redrive(
    api: web::Data<Api>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    answer(&api, &request, payload, Request::Redrive).await
}

async fn answer(
    api: &Api,
    request: &HttpRequest,
    payload: web::Payload,
    what: fn(i64) -> Request,
) -> Result<HttpResponse, Problem> {
    let call = Call::read(api, request, payload, false).await?;
    let id = id_in_path(request)?;
    let mut body = Body::parse(&call.bytes, &["reason", "actor"])?;
    let why = why(&mut body, request);
    body.finish()?;
    call.make(api, what(id), why).await
}

/// Replace a dead letter
///
/// With a corrected payload, checked against the contract before it is taken: 422 names the field, the value and what is
/// expected. The record's headers stay, but for those that are given.
#[utoipa::path(post, path = "/ops/dead-letters/{id}/replace", operation_id = "replace_dead_letter", tag = "operations",
    params(
        ("id" = i64, Path, description = "Id of the letter", minimum = 1),
        ("view" = Option<String>, Query, description = "Of this view; the first one if left out.", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$"),
    ),
    request_body = ReplaceBody,
    responses((status = 202, description = "Decided; it takes effect within about a second while a projector runs", body = DecidedBody)))]
pub async fn replace(
    api: web::Data<Api>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let call = Call::read(&api, &request, payload, false).await?;
    let id = id_in_path(&request)?;
    let names = ["reason", "actor", "payload", "headers", "key", "sequence", "eventType", "eventVersion"];
    let mut body = Body::parse(&call.bytes, &names)?;
    let why = why(&mut body, &request);
    let payload = payload_of(&mut body);
    let headers = headers_of(&mut body);
    let (key, event_type) = (body.text("key", MAX_ID_CHARS), body.text("eventType", MAX_ID_CHARS));
    let sequence = body.number("sequence", 0..=MAX_SEQUENCE);
    let version = body.number("eventVersion", 1..=i64::from(u32::MAX));
    body.finish()?;
    let replacement = Replacement {
        id,
        payload,
        headers,
        key,
        sequence,
        event_type,
        event_version: version.and_then(|version| u32::try_from(version).ok()),
    };
    call.make(&api, Request::Replace(replacement), why).await
}

fn payload_of(body: &mut Body) -> Box<RawValue> {
    let form = "must be a JSON object, or a string that holds the text";
    let payload = body.required("payload", form).unwrap_or_else(|| RawValue::NULL.to_owned());
    if !payload.get().starts_with(['{', '"', 'n'])
        || serde_json::from_str::<String>(payload.get()).is_ok_and(|text| text.is_empty())
    {
        body.reject("payload", payload.get(), form);
    }
    payload
}

fn headers_of(body: &mut Body) -> Vec<(String, Option<String>)> {
    let Some(raw) = body.raw("headers") else { return Vec::new() };
    let headers: Option<std::collections::BTreeMap<String, Option<String>>> = serde_json::from_str(raw.get()).ok();
    match headers {
        Some(headers) if headers.len() <= MAX_HEADERS && headers.keys().all(|name| !name.is_empty()) => {
            headers.into_iter().collect()
        }
        _ => {
            let form = format!("must be an object of at most {MAX_HEADERS} names, each with a text or null");
            body.reject("headers", raw.get(), &form);
            Vec::new()
        }
    }
}

/// Skip many dead letters
///
/// Every letter that matches is skipped. Ask with `dry_run=true` first: it tells how many match and changes nothing. Then
/// repeat with that number as `expect`.
#[utoipa::path(post, path = "/ops/dead-letters/skip", operation_id = "skip_dead_letters_by_filter", tag = "operations",
    params(
        ("view" = Option<String>, Query, description = "Of this view; the first one if left out.", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$"),
        ("dry_run" = Option<bool>, Query, description = "Only tell what would be done."),
    ),
    request_body = LetterBulkBody,
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
    let (filter, mut body) = filter_of(&call)?;
    let (why, bulk) = (why(&mut body, &request), call.bulk(&mut body));
    body.finish()?;
    call.make(&api, Request::SkipLettersByFilter(filter, bulk), why).await
}

/// Redrive many dead letters
///
/// Every letter that matches and can be read by now is redriven; those that still cannot be read are counted in
/// `impossible`. Ask with `dry_run=true` first, then repeat with its `matched` as `expect`.
#[utoipa::path(post, path = "/ops/dead-letters/redrive", operation_id = "redrive_dead_letters_by_filter", tag = "operations",
    params(
        ("view" = Option<String>, Query, description = "Of this view; the first one if left out.", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$"),
        ("dry_run" = Option<bool>, Query, description = "Only tell what would be done."),
    ),
    request_body = LetterBulkBody,
    responses(
        (status = 200, description = "What would be done", body = DecidedInBulkBody),
        (status = 202, description = "Decided; it takes effect within about a second while a projector runs", body = DecidedInBulkBody),
    ))]
pub async fn redrive_by_filter(
    api: web::Data<Api>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let call = Call::read(&api, &request, payload, true).await?;
    let (filter, mut body) = filter_of(&call)?;
    let (why, bulk) = (why(&mut body, &request), call.bulk(&mut body));
    body.finish()?;
    call.make(&api, Request::RedriveByFilter(filter, bulk), why).await
}

fn filter_of(call: &Call<'_>) -> Result<(LetterFilter, Body), Problem> {
    let mut body = Body::parse(&call.bytes, &["filter", "reason", "actor", "limit", "expect"])?;
    let mut filter = LetterFilter::default();
    if let Some(mut inner) =
        body.object("filter", "filter.", &["status", "reason", "key", "topic", "olderThan", "newerThan"])
    {
        let (older_than, newer_than) = inner.ages("olderThan", "newerThan");
        filter = LetterFilter {
            statuses: statuses(inner.words("status", &known_statuses())),
            reasons: inner.words("reason", &known_reasons()),
            key: inner.text("key", MAX_ID_CHARS),
            topic: inner.text("topic", MAX_TOPIC_CHARS),
            older_than,
            newer_than,
            ids: None,
        };
        body.adopt(inner);
    }
    Ok((filter, body))
}
