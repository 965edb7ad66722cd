//! `/api/streams/{id}/…`: how a stream is doing, and what it was.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};

use super::bodies::{EventBody, EventPage, RevisionBody, RevisionList, StatusBody, TopologyBody, shown_id};
use super::part;
use super::requests::manager;
use crate::api::Api;
use crate::api::ops::paging::Page;
use crate::api::parameters::Parameters;
use crate::api::problem::Problem;
use crate::manager::definition::Revision;

/// What were its texts?
///
/// The texts that the stream had, the latest first, with who wrote each and when. Follow `Link: rel="next"`. The latest 500 are kept,
/// and older ones that are deployed or gone back to. With `diff=1..2` only those two, and how the first one becomes the second, as a
/// unified diff.
#[utoipa::path(get, path = "/api/streams/{id}/revisions", operation_id = "list_stream_revisions", tag = "streams",
    params(
        ("id" = String, Path, description = "Its id, with or without hyphens", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$"),
        ("diff" = Option<String>, Query, description = "Two revisions, from which to which.", pattern = "^[1-9][0-9]{0,8}\\.\\.[1-9][0-9]{0,8}$", example = "1..2"),
        ("pageSize" = Option<u32>, Query, description = "Texts on a page.", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "A position, taken unchanged from a `Link` header.", min_length = 1, pattern = "^[A-Za-z0-9_-]+$"),
    ),
    responses((status = 200, description = "One page, or the two", body = RevisionList, headers(
        ("Link" = String, description = "RFC 8288 links `first` and `next`; no `next` on the last page, none at all with `diff`"),
    ))))]
pub async fn revisions(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let manager = manager(&api)?;
    let mut parameters = Parameters::parse(request.query_string(), &["diff", "pageSize", "cursor"]);
    let asked = parameters.one("diff");
    let pair = asked.as_deref().and_then(two_numbers);
    if let (Some(word), None) = (&asked, pair) {
        parameters.reject("diff", word, "must be two revisions with .. between them, such as 1..2");
    }
    let id = part(&request, "id")?;
    let body =
        |found: Vec<Revision>, diff| RevisionList { items: found.into_iter().map(RevisionBody::from).collect(), diff };
    if let (Some((from, to)), Some(word)) = (pair, &asked) {
        let found = manager.these_revisions(&id, [from, to]).await?;
        let of = |number: i32| found.iter().find(|revision| revision.revision == number);
        if let (Some(one), Some(other)) = (of(from), of(to)) {
            let diff = one.diff(other);
            Page::take(parameters, &api.state.settings, ("", "-revision"), &[])?;
            return Ok(HttpResponse::Ok().json(body(found, Some(diff))));
        }
        parameters.reject("diff", word, "must be two revisions that the stream has");
    }
    let path = format!("/api/streams/{}/revisions", crate::api::parameters::encode(&shown_id(&id)));
    let page = Page::take(parameters, &api.state.settings, (path, "-revision"), &[])?;
    let before = page.after_id()?.map(|before| i32::try_from(before).unwrap_or(i32::MAX));
    let mut found = manager.revisions(&id, before, page.limit.saturating_add(1)).await?;
    let link = page.link(&mut found, |revision| (String::new(), revision.revision.to_string()));
    Ok(HttpResponse::Ok().insert_header((header::LINK, link)).json(body(found, None)))
}

/// `1..2`
fn two_numbers(word: &str) -> Option<(i32, i32)> {
    let (from, to) = word.split_once("..")?;
    let is_number =
        |text: &str| text.len() <= 9 && !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(from) && is_number(to)).then_some(())?;
    Some((from.parse().ok()?, to.parse().ok()?))
}

/// How is a stream doing?
///
/// What is stored, and what its engine says now: lag, throughput, the first cause of a failure. If the engine is away,
/// `engineTrouble` says so and the rest is what was seen last.
#[utoipa::path(get, path = "/api/streams/{id}/status", operation_id = "stream_status", tag = "streams",
    params(("id" = String, Path, description = "Its id, with or without hyphens", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$")),
    responses((status = 200, description = "How it is doing", body = StatusBody)))]
pub async fn status(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let manager = manager(&api)?;
    Parameters::parse(request.query_string(), &[]).finish()?;
    let status = manager.status(&part(&request, "id")?).await?;
    Ok(HttpResponse::Ok().json(StatusBody::from(status)))
}

/// What does a stream consist of?
///
/// The operators of what runs, and what flows between them; none if nothing runs.
#[utoipa::path(get, path = "/api/streams/{id}/topology", operation_id = "stream_topology", tag = "streams",
    params(("id" = String, Path, description = "Its id, with or without hyphens", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$")),
    responses((status = 200, description = "Its operators", body = TopologyBody)))]
pub async fn topology(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let manager = manager(&api)?;
    Parameters::parse(request.query_string(), &[]).finish()?;
    let topology = manager.topology(&part(&request, "id")?).await?;
    Ok(HttpResponse::Ok().json(TopologyBody::from(topology)))
}

/// What happened to a stream?
///
/// What people asked of it and what became of that, the latest first. Follow `Link: rel="next"`.
#[utoipa::path(get, path = "/api/streams/{id}/events", operation_id = "list_stream_events", tag = "streams",
    params(
        ("id" = String, Path, description = "Its id, with or without hyphens", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$"),
        ("pageSize" = Option<u32>, Query, description = "Events on a page.", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "A position, taken unchanged from a `Link` header.", min_length = 1, pattern = "^[A-Za-z0-9_-]+$"),
    ),
    responses((status = 200, description = "One page", body = EventPage, headers(
        ("Link" = String, description = "RFC 8288 links `first` and `next`; no `next` on the last page"),
    ))))]
pub async fn events(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let manager = manager(&api)?;
    let parameters = Parameters::parse(request.query_string(), &["pageSize", "cursor"]);
    let id = part(&request, "id")?;
    let path = format!("/api/streams/{}/events", crate::api::parameters::encode(&shown_id(&id)));
    let page = Page::take(parameters, &api.state.settings, (path, "-id"), &[])?;
    let mut found = manager.events(&id, page.after_id()?, page.limit.saturating_add(1)).await?;
    let link = page.link(&mut found, |event| (String::new(), event.id.to_string()));
    let items = found.into_iter().map(EventBody::from).collect();
    Ok(HttpResponse::Ok().insert_header((header::LINK, link)).json(EventPage { items, page_size: page.limit }))
}
