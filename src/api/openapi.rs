//! The OpenAPI 3.1 document: the engine's part, the views' parts, and what every operation has in common.

use actix_web::http::Method;
use serde_json::{Value, json};
use utoipa::OpenApi as _;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{ContentBuilder, ObjectBuilder, OpenApi, Ref, RefOr, ResponseBuilder, Type};

use super::limits::Counted;
use super::problem::ProblemBody;
use super::routes::{self, ViewApi};
use super::{health, ops, pages, queries, session, skip_to, streams};
use crate::auth::role::Role;
use crate::config::HttpSettings;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "StreamView",
        description = "Reads Kafka topics into Postgres views that can be trusted, and serves them.\n\n\
            **Consistency.** A view never shows half a batch. A client that knows the sequence number of its own event \
            reads its own write with `minSequence` and `waitMs`.\n\n\
            **Paging.** Follow the `Link` header: its cursors cost the same on every page and neither skip nor repeat a \
            row that did not change. Pages by number work down to a limit.\n\n\
            **Amounts** are strings in plain decimal notation, with every digit. **Times** are RFC 3339 in UTC.\n\n\
            **Errors** are RFC 9457 problems with a stable `code`, explained at `/problems/{code}`. Unknown query \
            parameters are refused, not ignored.\n\n\
            **HEAD** works wherever GET does.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    tags(
        (name = "access", description = "For administrators: by which keys programs log in, and who called what."),
        (name = "operations", description = "For those who run the service: lag, consumers, builds, held keys, dead letters, decisions."),
        (name = "health", description = "Probes and metrics."),
    ),
    paths(
        ops::lags,
        ops::consumer,
        ops::views::list,
        ops::held::list,
        ops::held::show,
        ops::held::skip,
        ops::held::skip_by_filter,
        ops::letters::list,
        ops::letters::topics,
        ops::letters::show,
        ops::letters::skip,
        ops::letters::replace,
        ops::letters::redrive,
        ops::letters::skip_by_filter,
        ops::letters::redrive_by_filter,
        ops::decisions::list,
        session::show,
        session::begin,
        session::end,
        session::leave,
        session::come_back,
        ops::audit::list,
        ops::api_keys::list,
        ops::api_keys::create,
        ops::api_keys::revoke,
        ops::operations::rebuild,
        ops::operations::rollback,
        ops::pauses::pause,
        ops::pauses::resume,
        ops::operations::list,
        ops::operations::show,
        ops::operations::cancel,
        ops::operations::cutover,
        ops::verify::verify,
        ops::verify::differences,
        skip_to::post,
        health::livez,
        health::readyz,
        pages::metrics,
    ),
    components(schemas(ProblemBody<'static>)),
)]
struct EngineDocument;

/// Paths that are the same as another.
const ALIASES: [(&str, &str); 3] =
    [("/lags", "/ops/lags"), ("/healthz", "/readyz"), ("/views/rebuild", "/ops/views/rebuild")];

/// The document of the engine and these views, with the default limits.
pub fn openapi(views: &[ViewApi]) -> OpenApi {
    let mut document = EngineDocument::openapi();
    document.merge(streams::Document::openapi());
    document.merge(queries::Document::openapi());
    for view in views {
        document.merge((view.openapi)());
    }
    for (alias, original) in ALIASES.into_iter().chain(streams::ALIASES) {
        let mut item = document.paths.paths[original].clone();
        let methods = [&mut item.get, &mut item.post, &mut item.put, &mut item.delete];
        for operation in methods.into_iter().flatten() {
            operation.operation_id = operation.operation_id.take().map(|id| format!("{id}_alias"));
        }
        document.paths.paths.insert(alias.to_owned(), item);
    }
    for (path, item) in &mut document.paths.paths {
        let decides = ["/ops/held/", "/ops/dead-letters/"].iter().any(|start| path.starts_with(start));
        if let Some(operation) = item.post.as_mut().filter(|_| decides) {
            add_parts_of_decisions(operation);
        }
        let of_streams = path.starts_with("/api/");
        let looks = item.get.iter_mut().map(|operation| (operation, true));
        let changes = [&mut item.post, &mut item.put, &mut item.patch, &mut item.delete].into_iter().flatten();
        for (operation, looks) in looks.chain(changes.map(|operation| (operation, false))) {
            if of_streams {
                add_parts_of_streams(operation, looks);
            }
            add_common_parts(operation);
        }
    }
    for route in routes::table(views) {
        let item = document.paths.paths.get_mut(route.path);
        if let (roles @ [_, ..], Some(operation)) =
            (route.policy.roles(), item.and_then(|item| operation_of(item, &route.method)))
        {
            add_log_in(operation, roles);
            add_limits(operation, route.counted != Counted::Never);
        }
    }
    let components = document.components.get_or_insert_default();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
    let bearer = bearer.description(Some("An API key (`svk_…`), or a token of the identity provider (JWT).")).build();
    components.add_security_scheme(BEARER, SecurityScheme::Http(bearer));
    let api_key = ApiKeyValue::with_description("X-Api-Key", "An API key.");
    components.add_security_scheme(API_KEY, SecurityScheme::ApiKey(ApiKey::Header(api_key)));
    let description = Some("A client certificate whose subject `auth.mtls.role_map` names".to_owned());
    let certificate = SecurityScheme::MutualTls { description, deprecated: None, extensions: None };
    components.add_security_scheme(CERTIFICATE, certificate);
    document
}

/// Of draft-ietf-httpapi-ratelimit-headers.
const RATE_LIMIT_FIELDS: [(&str, &str); 2] = [
    ("RateLimit-Policy", "How many calls there are in a minute, such as `\"reads\";q=600000;w=60`"),
    ("RateLimit", "How many are left (`r`), and for how many seconds (`t`)"),
];

const BEARER: &str = "bearer";
const API_KEY: &str = "apiKey";
const CERTIFICATE: &str = "clientCertificate";

fn operation_of<'a>(item: &'a mut PathItem, method: &Method) -> Option<&'a mut Operation> {
    match *method {
        Method::GET => item.get.as_mut(),
        Method::POST => item.post.as_mut(),
        Method::PUT => item.put.as_mut(),
        Method::PATCH => item.patch.as_mut(),
        Method::DELETE => item.delete.as_mut(),
        _ => None,
    }
}

/// How callers log in, where they do, and what they are told who may not.
fn add_log_in(operation: &mut Operation, roles: &[Role]) {
    let none: [&str; 0] = [];
    operation.security = Some([BEARER, API_KEY, CERTIFICATE].map(|way| SecurityRequirement::new(way, none)).into());
    let responses = &mut operation.responses.responses;
    let challenge = header("How to log in, and what is wrong with a token (RFC 6750)", Type::String);
    let refused = problem("`not_logged_in` or `invalid_credentials`, where callers log in");
    responses.entry("401".into()).or_insert(RefOr::T(refused.header("WWW-Authenticate", challenge).build()));
    let roles = roles.iter().map(|role| format!("`{}`", role.as_str())).collect::<Vec<_>>().join(" or ");
    let lacks = format!("`role_missing`: the role {roles} is asked for, where callers log in");
    match responses.get_mut("403") {
        Some(RefOr::T(refused)) => refused.description = format!("{}; or {lacks}", refused.description),
        _ => drop(responses.insert("403".into(), RefOr::T(problem(&lacks).build()))),
    }
}

/// What callers are told who call too often; and of calls that are counted, how many are left.
fn add_limits(operation: &mut Operation, is_counted: bool) {
    let refused = problem("`rate_limited`: the caller has called too often");
    let refused = refused.header("Retry-After", header("Seconds to wait", Type::Integer)).build();
    let responses = &mut operation.responses.responses;
    responses.entry("429".into()).or_insert(RefOr::T(refused));
    // A route may say more of what it refuses: when to come again it says as well.
    if let Some(RefOr::T(refused)) = responses.get_mut("429") {
        let retry_after = RefOr::T(header("Seconds to wait", Type::Integer));
        refused.headers.entry("Retry-After".into()).or_insert(retry_after);
    }
    for (status, response) in responses.iter_mut() {
        let is_told = status == "429" || is_counted && status.starts_with('2');
        if let (true, RefOr::T(response)) = (is_told, response) {
            for (name, words) in RATE_LIMIT_FIELDS {
                response.headers.insert(name.into(), RefOr::T(header(words, Type::String)));
            }
        }
    }
}

/// The document as served: with the limits in force.
pub fn with_limits(document: &OpenApi, settings: &HttpSettings) -> Vec<u8> {
    let mut value = serde_json::to_value(document).expect("the document is plain data");
    for operation in operations(&mut value) {
        let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
        for parameter in parameters.into_iter().flatten() {
            match parameter["name"].as_str() {
                Some("pageSize") => {
                    parameter["schema"]["maximum"] = json!(settings.max_page_size);
                    parameter["schema"]["default"] = json!(settings.default_page_size);
                }
                Some("waitMs") => parameter["schema"]["maximum"] = json!(settings.max_wait_ms),
                _ => {}
            }
        }
    }
    if !settings.public_url.is_empty() {
        value["servers"] = json!([{ "url": settings.public_url }]);
    }
    serde_json::to_vec(&value).expect("the document is plain data")
}

fn operations(document: &mut Value) -> impl Iterator<Item = &mut Value> {
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    paths.flat_map(|(_, item)| item.as_object_mut().into_iter().flatten().map(|(_, operation)| operation))
}

/// The problems that any operation may end with, and the header that every answer carries.
fn add_common_parts(operation: &mut Operation) {
    let of_health = operation.tags.iter().flatten().any(|tag| tag == "health");
    let responses = &mut operation.responses.responses;
    if !of_health {
        let retry_after = header("Seconds to wait", Type::Integer);
        let unavailable = problem("The database does not answer, is busy, or gave up on the query");
        let unavailable = unavailable.header("Retry-After", retry_after).build();
        responses.entry("503".into()).or_insert(RefOr::T(unavailable));
    }
    let defect = problem("A defect of this service").build();
    responses.entry("500".into()).or_insert(RefOr::T(defect));
    let other = problem("Any other error, such as a method that the resource does not have").build();
    responses.entry("default".into()).or_insert(RefOr::T(other));
    for response in responses.values_mut() {
        if let RefOr::T(response) = response {
            let trace_id = header("Trace id of the request: that of its `traceparent`, or a new one", Type::String);
            response.headers.insert("X-Trace-Id".into(), RefOr::T(trace_id));
        }
    }
}

/// What every call that decides may be told, and the header by which it may be repeated.
fn add_parts_of_decisions(operation: &mut Operation) {
    let key = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(255))
        .pattern(Some("^[!-~]+$"));
    let key = ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .description(Some(
            "A key of the caller's choice, new for each thing that is to be done. The same call with the same key again \
             gets the same answer and has no further effect, for 7 days.",
        ))
        .schema(Some(key));
    operation.parameters.get_or_insert_default().push(RefOr::T(key.build()));
    let responses = &mut operation.responses.responses;
    for (status, description) in [
        ("400", "A parameter or a field of the body is not usable: `invalid_parameter`, `invalid_body`"),
        (
            "403",
            "`operations_not_allowed`: the service is reachable by others and has no access control; or `origin_not_allowed`",
        ),
        ("404", "`held_key_not_found`, `dead_letter_not_found` or `view_not_found`"),
        ("409", "`already_decided`, `already_consumed`, `number_is_parked`, `out_of_reach` or `count_changed`"),
        ("413", "`body_too_large`"),
        ("415", "`unsupported_media_type`: the body has to be `application/json`"),
        ("422", "`contract_violated`: the record would be refused again; or `idempotency_key_reused`"),
    ] {
        responses.entry(status.into()).or_insert(RefOr::T(problem(description).build()));
    }
    if let Some(RefOr::T(decided)) = responses.get_mut("202") {
        let replayed = header("`true` if this is the answer to an earlier call with the same key", Type::String);
        decided.headers.insert("Idempotent-Replayed".into(), RefOr::T(replayed));
    }
}

/// What every call of the stream manager may be told; `looks`: it changes nothing.
fn add_parts_of_streams(operation: &mut Operation, looks: bool) {
    let responses = &mut operation.responses.responses;
    let always = [
        (
            "400",
            "A parameter, a header or a field of the body is not usable: `invalid_parameter`, `invalid_body`, `invalid_cursor`",
        ),
        ("404", "`manager_not_enabled`: there is no stream manager here; or there is nothing of this id or name"),
        (
            "409",
            "`engine_not_configured` or `brokers_refuse`; of calls that change something also `name_taken`, `not_possible_now`, `would_lose_state`, `stream_limit_reached` or `query_already_read`",
        ),
    ];
    let of_changes = [
        (
            "403",
            "`operations_not_allowed`: the service is reachable by others and has no access control; or `origin_not_allowed`",
        ),
        ("412", "`version_changed`: `If-Match` names another version, or of a source what was to be new is there"),
        ("413", "`body_too_large`"),
        ("415", "`unsupported_media_type`: the body has to be `application/json`"),
        ("422", "`statement_refused`, with `statementErrors`; or `idempotency_key_reused`"),
    ];
    for (status, description) in always.into_iter().chain(of_changes.into_iter().filter(|_| !looks)) {
        responses.entry(status.into()).or_insert(RefOr::T(problem(description).build()));
    }
    let away = problem(
        "`engine_unavailable`, `engine_busy`, `brokers_unavailable`, `too_many_watchers`, or the database does not answer",
    );
    let away = away.header("Retry-After", header("Seconds to wait", Type::Integer)).build();
    responses.entry("503".into()).or_insert(RefOr::T(away));
}

fn problem(description: &str) -> ResponseBuilder {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(description).content("application/problem+json", content)
}

fn header(description: &str, of_type: Type) -> Header {
    let schema = ObjectBuilder::new().schema_type(of_type);
    HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::action::Action;
    use crate::domain::held::HeldReason;
    use crate::domain::letter::LetterStatus;

    /// The document's words carry a sentence each, so they stand in types of their own.
    #[test]
    fn the_words_of_the_document_are_those_of_the_domain() {
        let document = serde_json::to_value(openapi(&[])).unwrap();
        let letters = LetterStatus::ALL.map(LetterStatus::as_str).into_iter().chain(["all"]);
        for (schema, words) in [
            ("Action", Action::ALL.map(Action::as_str).to_vec()),
            ("HeldReason", HeldReason::WORDS.to_vec()),
            ("LetterStatus", letters.collect::<Vec<_>>()),
        ] {
            assert_eq!(document["components"]["schemas"][schema]["enum"], json!(words), "{schema}");
        }
    }

    #[test]
    fn limits_in_force_are_in_the_document() {
        let settings = HttpSettings {
            default_page_size: 7,
            max_page_size: 11,
            max_wait_ms: 13,
            public_url: "https://shop.example/streamview".to_owned(),
            ..crate::config::Config::defaults().http
        };
        let text = String::from_utf8(with_limits(&openapi(&crate::app::view_apis()), &settings)).unwrap();
        assert!(text.contains(r#""servers":[{"url":"https://shop.example/streamview"}]"#));
        assert!(
            text.contains(r#""maximum":11"#) && text.contains(r#""default":7"#) && text.contains(r#""maximum":13"#)
        );
    }
}
