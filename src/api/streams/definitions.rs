//! `/api/streams`: what people want to run, written down, read, changed and deleted.

use std::time::Duration;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use utoipa::IntoParams;

use super::bodies::{DeletionBody, StreamBody, StreamPage};
use super::conditions::{if_match, words};
use super::lifecycle::{patience, told};
use super::once::{self, Made};
use super::requests::{
    MAX_NAME_CHARS, NewStreamBody, StreamChangeBody, engine, engine_of, engine_words, manager, new_stream, read, script,
};
use super::{actor, own, part};
use crate::api::Api;
use crate::api::answer::tagged_json;
use crate::api::ops::paging::Page;
use crate::api::parameters::Parameters;
use crate::api::problem::{Problem, ProblemBody};
use crate::manager::definition::{Definition, Intent};
use crate::manager::engines::ObservedState;
use crate::manager::manager::{Change, DeleteOptions, Filter};

/// Bytes of an answer with one stream, about.
const STREAM_BYTES: usize = 2_048;

/// The parameters of the list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documentation; read by `list`")]
pub(super) struct StreamParameters {
    /// Of this engine.
    #[param(pattern = "^(flink|ksqldb|embedded)$", required = false)]
    engine: Option<String>,
    /// Of this owner.
    #[param(min_length = 1, max_length = 256, pattern = "^[^\\x00]+$", required = false)]
    owner: Option<String>,
    /// Wanted so.
    #[param(pattern = "^(draft|running|paused|stopped|deleted)$", required = false)]
    wanted: Option<String>,
    /// Seen so.
    #[param(
        pattern = "^(absent|unknown|starting|running|degraded|restarting|paused|stopping|stopped|failed)$",
        required = false
    )]
    state: Option<String>,
    /// With this in their name, in upper or lower case.
    #[param(min_length = 1, max_length = 256, pattern = "^[^\\x00]+$", required = false)]
    name: Option<String>,
    /// Streams on a page.
    #[param(rename = "pageSize", minimum = 1, maximum = 200, default = 50, required = false)]
    page_size: Option<u32>,
    /// A position, taken unchanged from a `Link` header, with the same filters.
    #[param(min_length = 1, pattern = "^[A-Za-z0-9_-]+$", required = false)]
    cursor: Option<String>,
}

/// Which streams are there?
///
/// The latest made first. Follow `Link: rel="next"`.
#[utoipa::path(get, path = "/api/streams", operation_id = "list_streams", tag = "streams", params(StreamParameters), responses(
    (status = 200, description = "One page", body = StreamPage, headers(
        ("Link" = String, description = "RFC 8288 links `first` and `next`; no `next` on the last page"),
    )),
    (status = 400, description = "A parameter or the cursor is not usable", body = ProblemBody<'static>, content_type = "application/problem+json"),
))]
pub async fn list(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let manager = manager(&api)?;
    let names = ["engine", "owner", "wanted", "state", "name", "pageSize", "cursor"];
    let mut parameters = Parameters::parse(request.query_string(), &names);
    let engine = word(&mut parameters, "engine", &engine_words(), engine_of);
    let wanted = word(&mut parameters, "wanted", &Intent::ALL.map(Intent::word).join(", "), |text| {
        Intent::ALL.into_iter().find(|intent| intent.word() == text)
    });
    let states = "absent, unknown, starting, running, degraded, restarting, paused, stopping, stopped or failed";
    let observed: Option<ObservedState> = word(&mut parameters, "state", states, |text| {
        serde_json::from_value(serde_json::Value::String(text.to_owned())).ok()
    });
    let (owner, name) = (parameters.id("owner"), parameters.id("name"));
    let filters = [
        ("engine", engine.map(|engine| engine.name().to_owned())),
        ("owner", owner.clone()),
        ("wanted", wanted.map(|wanted| wanted.word().to_owned())),
        ("state", observed.and_then(|state| Some(serde_json::to_value(state).ok()?.as_str()?.to_owned()))),
        ("name", name.clone()),
    ];
    let page = Page::take(parameters, &api.state.settings, ("/api/streams", "-createdAt"), &filters)?;
    let after = page.after.as_ref().map(|(_, id)| id.as_str());
    let filter = Filter { engine, owner, intent: wanted, observed, name_contains: name };
    let mut found = manager.list(&filter, after, page.limit.saturating_add(1)).await?.definitions;
    // As the manager says it of the last one of a page.
    let place = |definition: &Definition| format!("{}-{}", definition.created_at.as_microsecond(), definition.id);
    let link = page.link(&mut found, |definition| (String::new(), place(definition)));
    let items = found.into_iter().map(StreamBody::from).collect();
    Ok(HttpResponse::Ok().insert_header((header::LINK, link)).json(StreamPage { items, page_size: page.limit }))
}

fn word<T>(parameters: &mut Parameters, name: &str, known: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
    let text = parameters.one(name)?;
    let value = read(&text);
    if value.is_none() {
        parameters.reject(name, &text, &format!("must be one of {known}"));
    }
    value
}

/// Write a stream down
///
/// Its text is judged by the gate; nothing is deployed. With an `Idempotency-Key` the same call again gets the same stream.
#[utoipa::path(post, path = "/api/streams", operation_id = "create_stream", tag = "streams",
    params(("Idempotency-Key" = Option<String>, Header, description = "A key of the caller's choice, new for each stream: the same call with the same key again gets the same answer, for 7 days.", min_length = 1, max_length = 255, pattern = "^[!-~]+$")),
    request_body = NewStreamBody,
    responses(
        (status = 201, description = "It is written down", body = StreamBody, headers(
            ("Location" = String, description = "The stream"),
            ("ETag" = String, description = "For `If-Match`"),
            ("Idempotent-Replayed" = String, description = "`true` if this is the answer to an earlier call with the same key"),
        )),
    ))]
pub async fn create(api: web::Data<Api>, request: HttpRequest, payload: web::Payload) -> Result<HttpResponse, Problem> {
    let manager = manager(&api)?;
    Parameters::parse(request.query_string(), &[]).finish()?;
    let new = new_stream(read((&request, payload), manager, &["name", "sqlScript", "engine"]).await?)?;
    let actor = actor(&request);
    match once::create((&api, manager), &request, new, &actor).await? {
        Made::Now(definition) => {
            tracing::info!(stream = definition.id, name = definition.name, actor, "stream written down");
            let (version, body) = (definition.version, StreamBody::from(*definition));
            let mut response = HttpResponse::Created();
            response.insert_header((header::LOCATION, body.href.clone()));
            tagged_json(&header::HeaderMap::new(), &mut response, (&words(version), &body), STREAM_BYTES)
        }
        Made::Before(body) => {
            let version = body["version"].as_i64().and_then(|version| i32::try_from(version).ok()).unwrap_or(1);
            let mut response = HttpResponse::Created();
            response.insert_header((header::LOCATION, body["href"].as_str().unwrap_or("/api/streams")));
            response.insert_header(("Idempotent-Replayed", "true"));
            tagged_json(&header::HeaderMap::new(), &mut response, (&words(version), &body), STREAM_BYTES)
        }
    }
}

/// What is known of a stream?
#[utoipa::path(get, path = "/api/streams/{id}", operation_id = "show_stream", tag = "streams",
    params(("id" = String, Path, description = "Its id, with or without hyphens", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$")),
    responses(
        (status = 200, description = "The stream", body = StreamBody, headers(("ETag" = String, description = "For `If-Match`"))),
        (status = 304, description = "As `If-None-Match` has it"),
    ))]
pub async fn show(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let manager = manager(&api)?;
    Parameters::parse(request.query_string(), &[]).finish()?;
    let definition = manager.get(&part(&request, "id")?).await?;
    let (version, body) = (definition.version, StreamBody::from(definition));
    tagged_json(request.headers(), &mut HttpResponse::Ok(), (&words(version), &body), STREAM_BYTES)
}

/// Change a stream
///
/// What is left out stays. A new text is judged first, by the engine too if the stream is wanted to run; then it takes the old
/// one's place and keeps its state, or the call is refused (`would_lose_state`) unless `acceptStateLoss` is given. Where the new
/// text does not come to run, the old one is taken back.
#[utoipa::path(put, path = "/api/streams/{id}", operation_id = "update_stream", tag = "streams",
    params(
        ("id" = String, Path, description = "Its id, with or without hyphens", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$"),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of what the caller has read: if somebody has changed it since, nothing is done (412)."),
    ),
    request_body = StreamChangeBody,
    responses(
        (status = 200, description = "It is changed, and what is wanted is so", body = StreamBody, headers(("ETag" = String, description = "For `If-Match`"))),
        (status = 202, description = "It is written down; the new text is about to take the old one's place: `state`, `step` and `lastError` say how far that is", body = StreamBody, headers(("ETag" = String, description = "For `If-Match`"))),
    ))]
pub async fn update(api: web::Data<Api>, request: HttpRequest, payload: web::Payload) -> Result<HttpResponse, Problem> {
    let manager = manager(&api)?;
    Parameters::parse(request.query_string(), &[]).finish()?;
    let current = own(manager, &request).await?;
    let mut body = read((&request, payload), manager, &["name", "sqlScript", "engine", "acceptStateLoss"]).await?;
    let name = body.text("name", MAX_NAME_CHARS);
    let sql_script = script(&mut body, false);
    if let Some(engine) = engine(&mut body).filter(|engine| *engine != current.engine) {
        let detail = format!("is {} for good; make a new stream for another engine", current.engine.name());
        body.reject("engine", engine.name(), &detail);
    }
    let accept_state_loss = body.switch("acceptStateLoss").unwrap_or(false);
    body.finish()?;
    let change = Change { name, sql_script, expected_version: if_match(&request)?, accept_state_loss };
    let actor = actor(&request);
    let definition = manager.update(&current.id, change, &actor).await?;
    tracing::info!(stream = definition.id, revision = definition.revision, actor, "stream changed");
    told(definition)
}

/// Delete a stream
///
/// What runs is ended and the engine's objects are removed. The topic stays with its records unless `deleteTopic=true`; the answer
/// says what is left behind. If the engine is away it goes as soon as that is back.
#[utoipa::path(delete, path = "/api/streams/{id}", operation_id = "delete_stream", tag = "streams",
    params(
        ("id" = String, Path, description = "Its id, with or without hyphens", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$"),
        ("deleteTopic" = Option<bool>, Query, description = "Delete its topic too, with all records, and `<topic>.dlq` and `<topic>.late`, where the embedded engine puts aside what has no place in it."),
        ("waitMs" = Option<u64>, Query, description = "Milliseconds to wait until it is gone; the most that may be if left out.", minimum = 0, maximum = 5000),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of what the caller has read: if somebody has changed it since, nothing is done (412)."),
    ),
    responses(
        (status = 200, description = "It is gone", body = DeletionBody),
        (status = 202, description = "It goes as soon as its engine lets it", body = DeletionBody),
    ))]
pub async fn delete(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let manager = manager(&api)?;
    let mut parameters = Parameters::parse(request.query_string(), &["deleteTopic", "waitMs"]);
    let delete_topic = parameters.switch("deleteTopic").unwrap_or(false);
    let patience: Duration = patience(&api, &mut parameters);
    parameters.finish()?;
    let current = own(manager, &request).await?;
    let options = DeleteOptions { delete_topic, expected_version: if_match(&request)? };
    let actor = actor(&request);
    let deletion = manager.delete(&current.id, options, patience, &actor).await?;
    tracing::info!(stream = current.id, delete_topic, done = deletion.is_done, actor, "stream deleted");
    let (mut response, message) = match deletion.is_done {
        true => (HttpResponse::Ok(), "The stream is deleted"),
        false => (HttpResponse::Accepted(), "The stream is deleted as soon as its engine lets it"),
    };
    Ok(response.json(DeletionBody { message, is_done: deletion.is_done, leaves: deletion.leaves }))
}
