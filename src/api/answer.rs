//! What every answer has in common: trace id, security headers, the error format, the request metric; and that a panic
//! is an answer too. Wraps the whole application.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::{self, ContentType, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, HttpResponse, HttpResponseBuilder, web};
use futures_util::FutureExt;
use jiff::Timestamp;
use serde::Serialize;

use super::etag::EntityTag;
use super::gate::{By, Spending};
use super::limits::{Budget, Caller};
use super::line::{Line, Place, TooManyAnswers};
use super::problem::{self, Problem};
use super::routes::Routed;
use super::unread::Unread;
use super::{Api, UNMATCHED, caller};
use crate::login::audit::AuditLog;
use crate::store::audit::{AuditEntry, is_refusal};
use crate::telemetry::traces::{self, RequestSpan};

const MAX_URI_BYTES: usize = 8192;
/// Characters of a path that the audit log keeps.
const MAX_AUDITED_CHARS: usize = 512;
const PERMISSIONS_POLICY: &str =
    "accelerometer=(), camera=(), geolocation=(), gyroscope=(), magnetometer=(), microphone=(), payment=(), usb=()";
/// A year, and only where connections are encrypted.
const STRICT_TRANSPORT_SECURITY: &str = "max-age=31536000";
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// Marks an answer with an error status that has its own format (the health checks).
#[derive(Debug, Clone, Copy)]
pub struct OwnFormat;

/// The trace id of a request, for log lines.
#[derive(Debug, Clone)]
pub struct TraceId(pub String);

/// What is known of a request after the application has consumed it.
struct Asked {
    started: Instant,
    method: Method,
    path: String,
    routed: Routed,
    /// The route that a request would have taken that is refused before.
    refused: Option<String>,
    trace_id: String,
    /// None where no traces are sent.
    span: Option<RequestSpan>,
    address: Option<IpAddr>,
    origin: Option<HeaderValue>,
    by: By,
    spending: Spending,
}

impl Asked {
    fn of(request: &ServiceRequest, is_routed: bool) -> Asked {
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        let span = traces::request(method_label(request.method()), request.path(), header);
        let trace_id = span.as_ref().and_then(RequestSpan::trace_id);
        Asked {
            started: Instant::now(),
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            routed: Routed::default(),
            refused: if is_routed { None } else { request.match_pattern() },
            trace_id: trace_id.unwrap_or_else(|| trace_id_of_caller(request.headers())),
            span,
            address: caller::address(request.request()),
            origin: request.headers().get(header::ORIGIN).cloned(),
            by: By::default(),
            spending: Spending::default(),
        }
    }

    fn route(&self) -> &str {
        self.routed.pattern().or(self.refused.as_deref()).unwrap_or(UNMATCHED)
    }

    /// Whether the call changes something, or is refused.
    fn is_audited(&self, status: StatusCode) -> bool {
        // A method that the path does not have is taken by no route, so nobody was asked who it is.
        is_refusal(i32::from(status.as_u16())) || self.changes() && status != StatusCode::METHOD_NOT_ALLOWED
    }

    /// Whether the call changes something.
    fn changes(&self) -> bool {
        // What is said over a connection of the hub is no call of its own, and most of it are signs of life.
        let talks = self.route().starts_with("/hub/");
        let looks = talks || matches!(self.method, Method::GET | Method::HEAD | Method::OPTIONS);
        !looks && self.routed.pattern().is_some()
    }

    /// Nothing in it is as long as its caller likes. Where refusals come from is told as their callers are counted: of IPv6 the
    /// network, in which one machine has as many addresses as it likes.
    fn entry(&self, status: u16, code: Option<&str>) -> AuditEntry {
        let address = match self.address {
            Some(address) if !is_refusal(i32::from(status)) => address.to_string(),
            address => Caller::at(address).to_string(),
        };
        AuditEntry {
            at: Timestamp::now(),
            principal: self.by.0.borrow().clone(),
            method: method_label(&self.method).to_owned(),
            route: self.route().to_owned(),
            target: self.path.chars().take(MAX_AUDITED_CHARS).collect(),
            status: i32::from(status),
            code: code.map(str::to_owned),
            trace_id: self.trace_id.clone(),
            address,
            calls: 1,
        }
    }
}

/// A request that has no answer yet.
struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    fn new(count: &Arc<AtomicUsize>) -> UnderWay {
        count.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(count))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that is noted as one whose caller has gone, unless it is answered.
struct Unanswered<'r> {
    asked: &'r Asked,
    /// Nobody notes where there is none.
    audit: Option<&'r AuditLog>,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(audit) = self.audit.take()
            && self.asked.changes()
        {
            audit.note(self.asked.entry(0, None).cancelled());
        }
    }
}

/// The middleware.
pub async fn finish(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let api = request.app_data::<web::Data<Api>>().cloned();
    let place = request.conn_data::<Line>().map_or(Ok(None), Line::place);
    let shared = api.as_deref().map(Arc::as_ref);
    let before = before(&request, shared, &place);
    let mut asked = Asked::of(&request, before.is_none());
    request.extensions_mut().insert(TraceId(asked.trace_id.clone()));
    request.extensions_mut().insert(asked.routed.clone());
    request.extensions_mut().insert(asked.by.clone());
    request.extensions_mut().insert(asked.spending.clone());
    let unread = Unread::of(&mut request);
    let under_way = api.as_ref().map(|api| UnderWay::new(&api.state.under_way));
    let mut unanswered = Unanswered { asked: &asked, audit: api.as_ref().map(|api| &api.state.audit) };
    let outcome = match before {
        Some(Ok(answer)) => Ok(Ok(request.into_response(answer))),
        Some(Err(problem)) => Ok(Err(problem.into())),
        None => {
            let answer = async { next.call(request).await.map(ServiceResponse::map_into_boxed_body) };
            AssertUnwindSafe(answer).catch_unwind().await
        }
    };
    unanswered.audit = None;
    drop(unanswered);
    let code = match &outcome {
        Ok(Ok(response)) => response.response().error().and_then(|error| error.as_error::<Problem>()),
        Ok(Err(error)) => error.as_error::<Problem>(),
        Err(_) => None,
    };
    let code = code.map(Problem::code);
    let (request, response) = match outcome {
        Ok(Ok(response)) => {
            let (request, response) = response.into_parts();
            (Some(request), as_problem(response, &asked))
        }
        Ok(Err(error)) => (None, render(&error, error.as_response_error().status_code(), &asked)),
        Err(_) => {
            // The panic hook has logged the message and the place.
            tracing::error!(trace_id = asked.trace_id, route = asked.route(), "request handler panicked");
            let problem = Problem::new(&problem::INTERNAL_ERROR, "The request could not be answered");
            (None, problem.render(&asked.path, &asked.trace_id))
        }
    };
    drop(under_way);
    let mut response = with_common_headers(response, &asked);
    if let Some(span) = asked.span.take() {
        span.answered((method_label(&asked.method), asked.route()), response.status().as_u16(), code);
    }
    if let Some(api) = api {
        lead_to(&api.state.settings.public_url, response.headers_mut());
        api.pages.allow(asked.origin.as_ref(), &asked.path, response.headers_mut());
        if api.state.certificates.is_some() {
            let strict = HeaderValue::from_static(STRICT_TRANSPORT_SECURITY);
            response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, strict);
        }
        let status = response.status();
        let labels = [method_label(&asked.method), asked.route(), status.as_str()];
        api.state.metrics.http_requests.with_label_values(&labels).observe(asked.started.elapsed().as_secs_f64());
        if let Some(budget) = asked.spending.0.get().filter(Budget::is_refused) {
            api.state.metrics.rate_limited.with_label_values(&[budget.kind.as_str()]).inc();
        }
        if asked.is_audited(status) {
            api.state.audit.note(asked.entry(status.as_u16(), code));
        }
    }
    if let Ok(Some(place)) = place {
        response = response.map_body(|_, body| place.keep(body));
    }
    if let Some(unread) = unread {
        response = response.map_body(|_, body| unread.held_by(body));
    }
    match request {
        Some(request) => Ok(ServiceResponse::new(request, response)),
        None => Err(InternalError::from_response("already an answer", response).into()),
    }
}

/// What is answered before anything is routed.
fn before(
    request: &ServiceRequest,
    api: Option<&Api>,
    place: &Result<Option<Place>, TooManyAnswers>,
) -> Option<Result<HttpResponse, Problem>> {
    let uri_bytes = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if uri_bytes > MAX_URI_BYTES {
        let detail = format!("The URI has {uri_bytes} bytes, 8192 are allowed");
        return Some(Err(Problem::new(&problem::URI_TOO_LONG, detail)));
    }
    if let Err(refused) = place {
        return Some(Err(Problem::new(&problem::TOO_MANY_ANSWERS, refused.to_string()).retry_after(1)));
    }
    let pages = &api?.pages;
    pages.refusal(request).map(Err).or_else(|| pages.preflight(request))
}

/// Gives every error answer the one format, whoever made it.
fn as_problem(response: HttpResponse, asked: &Asked) -> HttpResponse {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    if !is_error || response.extensions().contains::<OwnFormat>() {
        return response;
    }
    let mut rendered = match response.error() {
        Some(error) => render(error, status, asked),
        None => Problem::of_status(status, status.canonical_reason().unwrap_or("error"))
            .render(&asked.path, &asked.trace_id),
    };
    if let Some(allow) = response.headers().get(header::ALLOW) {
        rendered.headers_mut().insert(header::ALLOW, allow.clone());
    }
    rendered
}

fn render(error: &Error, status: StatusCode, asked: &Asked) -> HttpResponse {
    if let Some(problem) = error.as_error::<Problem>() {
        return problem.render(&asked.path, &asked.trace_id);
    }
    if status.is_server_error() {
        tracing::error!(error = %error, trace_id = asked.trace_id, route = asked.route(), "request failed");
        let problem = Problem::of_status(status, "The request could not be answered");
        return problem.render(&asked.path, &asked.trace_id);
    }
    Problem::of_status(status, error.to_string()).render(&asked.path, &asked.trace_id)
}

fn with_common_headers(mut response: HttpResponse, asked: &Asked) -> HttpResponse {
    let headers = response.headers_mut();
    let mut default = |name: HeaderName, value: HeaderValue| {
        if !headers.contains_key(&name) {
            headers.insert(name, value);
        }
    };
    default(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    default(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    default(header::PERMISSIONS_POLICY, HeaderValue::from_static(PERMISSIONS_POLICY));
    default(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    default(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(budget) = asked.spending.0.get() {
        for (name, value) in [("ratelimit-policy", budget.policy()), ("ratelimit", budget.limit())] {
            if let Ok(value) = HeaderValue::from_str(&value) {
                default(HeaderName::from_static(name), value);
            }
        }
    }
    if let Ok(trace_id) = HeaderValue::from_str(&asked.trace_id) {
        default(HeaderName::from_static("x-trace-id"), trace_id);
    }
    response
}

/// Has the paths in `Link` and `Location` begin with the URL under which clients reach us: behind a proxy that takes a
/// prefix off, only the one who has set it up knows that. What a request says of it (`X-Forwarded-Prefix`) is not heard,
/// as anybody could send a client elsewhere by it, and caches would keep that.
fn lead_to(public_url: &str, headers: &mut HeaderMap) {
    if public_url.is_empty() {
        return;
    }
    // In our links a `<` only stands before a path: everything else is percent-encoded.
    let links = headers.get(header::LINK).and_then(|links| links.to_str().ok());
    let links = links.map(|links| links.replace("</", &format!("<{public_url}/")));
    if let Some(Ok(links)) = links.as_deref().map(HeaderValue::from_str) {
        headers.insert(header::LINK, links);
    }
    let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    if let Some(path) = location.filter(|location| location.starts_with('/'))
        && let Ok(location) = HeaderValue::from_str(&format!("{public_url}{path}"))
    {
        headers.insert(header::LOCATION, location);
    }
}

/// The answer with `value` as its JSON, of about `bytes`.
pub fn json(response: &mut HttpResponseBuilder, value: &impl Serialize, bytes: usize) -> Result<HttpResponse, Problem> {
    Ok(response.content_type(ContentType::json()).body(written(value, bytes)?))
}

/// The same with its tag, which begins with `words`; without a body if the one who asks has it already.
pub fn tagged_json(
    asked: &HeaderMap,
    response: &mut HttpResponseBuilder,
    (words, value): (&str, &impl Serialize),
    bytes: usize,
) -> Result<HttpResponse, Problem> {
    let body = written(value, bytes)?;
    let tag = EntityTag::of(words, &body);
    response.insert_header((header::ETAG, tag.to_string()));
    if tag.is_known_to(asked) {
        return Ok(response.status(StatusCode::NOT_MODIFIED).finish());
    }
    Ok(response.content_type(ContentType::json()).body(body))
}

fn written(value: &impl Serialize, bytes: usize) -> Result<Vec<u8>, Problem> {
    let mut body = Vec::with_capacity(bytes);
    serde_json::to_writer(&mut body, value).map_err(|error| {
        tracing::error!(error = %error, "could not write an answer");
        Problem::new(&problem::INTERNAL_ERROR, "The answer could not be written")
    })?;
    Ok(body)
}

/// The trace id that the caller has sent along, or a new one.
fn trace_id_of_caller(headers: &HeaderMap) -> String {
    let sent = headers.get("traceparent").and_then(|value| value.to_str().ok());
    let received = sent.and_then(traces::trace_id_of);
    received.map_or_else(|| format!("{:032x}", fastrand::u128(1..)), ToOwned::to_owned)
}

/// The method as a label: the known ones, so that nobody can make up series.
fn method_label(method: &Method) -> &str {
    match method.as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS") => known,
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use actix_web::middleware::from_fn;
    use actix_web::{App, test as server};

    use super::*;
    use crate::api::gate::Locks;
    use crate::api::limits::Limits;
    use crate::auth::policy::Exposure;

    async fn call(path: &str, method: Method) -> HttpResponse {
        let table = crate::api::routes::table(&[]);
        let locks = Locks::Open(Exposure::Trusted);
        let limits = Arc::new(Limits::new(&crate::config::Config::defaults().http.rate_limits));
        let app = App::new()
            .wrap(from_fn(finish))
            .configure(|config| crate::api::routes::register(config, &table, &locks, &limits))
            .route("/panics", web::get().to(|| async { panic!("on purpose") as HttpResponse }))
            .route("/teapot", web::get().to(|| async { HttpResponse::ImATeapot().body("plain text") }));
        let app = server::init_service(app).await;
        let request = server::TestRequest::with_uri(path).method(method).to_request();
        match server::try_call_service(&app, request).await {
            Ok(response) => response.into_parts().1.map_into_boxed_body(),
            Err(error) => error.error_response(),
        }
    }

    #[actix_web::test]
    async fn every_error_is_a_problem_with_a_trace_id_and_security_headers() {
        let long = format!("/{}", "a".repeat(MAX_URI_BYTES));
        for (path, method, status, code) in [
            ("/nope", Method::GET, 404, "not_found"),
            ("/livez", Method::POST, 405, "method_not_allowed"),
            ("/panics", Method::GET, 500, "internal_error"),
            ("/teapot", Method::GET, 418, "client_error"),
            (long.as_str(), Method::GET, 414, "uri_too_long"),
        ] {
            let response = call(path, method).await;
            assert_eq!(response.status().as_u16(), status, "{path}");
            let headers = response.headers().clone();
            assert_eq!(headers.get("content-type").unwrap(), "application/problem+json", "{path}");
            for name in [
                "x-content-type-options",
                "content-security-policy",
                "permissions-policy",
                "referrer-policy",
                "cache-control",
            ] {
                assert!(headers.contains_key(name), "{path} has no {name}");
            }
            assert_eq!(headers.contains_key("allow"), status == 405, "{path}");
            let body = actix_web::body::to_bytes(response.into_body()).await.unwrap();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!((&body["code"], &body["status"]), (&code.into(), &status.into()));
            assert_eq!(body["traceId"].as_str().unwrap(), headers.get("x-trace-id").unwrap());
        }
    }

    #[actix_web::test]
    async fn head_is_answered_where_get_is() {
        assert_eq!(call("/livez", Method::HEAD).await.status(), StatusCode::OK);
    }
}
