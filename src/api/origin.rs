//! Web pages of other origins. Those of `http.cors_origins` may call from the browser (CORS, the Fetch standard); a call of
//! any other page that would change something is refused, whatever credentials the browser adds to it.

use std::net::IpAddr;

use actix_web::HttpResponse;
use actix_web::dev::ServiceRequest;
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use url::Url;

use super::hub::is_web_socket;
use super::problem::{self, Problem, shorten};
use crate::config::HttpSettings;

const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE";
const HEADERS: &str = "authorization, cache-control, content-type, idempotency-key, if-match, if-none-match, \
     last-event-id, traceparent, tracestate, x-api-key, x-requested-with, x-signalr-user-agent";
/// What a page may read of an answer beyond its body and what every page may.
const EXPOSED: &str = "allow, etag, idempotent-replayed, link, location, ratelimit, ratelimit-policy, retry-after, www-authenticate, x-trace-id";
/// Seconds for which a browser need not ask again.
const MAX_AGE: &str = "600";

/// Which pages may do what.
#[derive(Debug)]
pub struct Pages {
    others: Vec<String>,
    /// The origin of `http.public_url`.
    public: Option<String>,
    is_tls: bool,
    /// Whether a page may say by a host name that it is ours. It may not where nobody logs in: everybody can have a name lead
    /// here, and read and decide as somebody who is near enough (DNS rebinding).
    may_be_named: bool,
}

impl Pages {
    /// The pages of these settings.
    pub fn new(settings: &HttpSettings, callers_log_in: bool) -> Pages {
        let public = Url::parse(&settings.public_url).ok().map(|url| url.origin().ascii_serialization());
        let is_tls = settings.tls.is_on();
        Pages { others: settings.cors_origins.clone(), public, is_tls, may_be_named: is_tls || callers_log_in }
    }

    /// Why a request is refused that would change something. A WebSocket may, although it is asked for by GET, and browsers let
    /// every page open one.
    pub fn refusal(&self, request: &ServiceRequest) -> Option<Problem> {
        let looks = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        let looks = looks && !is_web_socket(request.head());
        let mut foreign = request.headers().get_all(header::ORIGIN).filter(|origin| !self.may_decide(origin, request));
        foreign.next().filter(|_| !looks).map(not_allowed)
    }

    /// Whether a page of ours has sent a request; `None` if it does not say which page has.
    pub fn is_of_own_page(&self, request: &ServiceRequest) -> Option<bool> {
        let host = host_of(request);
        let mut origins = request.headers().get_all(header::ORIGIN).peekable();
        origins.peek()?;
        Some(origins.all(|origin| origin.to_str().is_ok_and(|origin| self.is_own(origin, host))))
    }

    fn may_decide(&self, origin: &HeaderValue, request: &ServiceRequest) -> bool {
        let host = host_of(request);
        origin.to_str().is_ok_and(|origin| self.is_other(origin) || self.is_own(origin, host))
    }

    fn is_other(&self, origin: &str) -> bool {
        self.others.iter().any(|other| other == origin)
    }

    /// Whether a page of ours would send `origin` to `host`. Without TLS it is not known whether a proxy adds it.
    fn is_own(&self, origin: &str, host: Option<&str>) -> bool {
        if self.public.as_deref() == Some(origin) {
            return true;
        }
        let (Some(host), Some((scheme, authority))) = (host, origin.split_once("://")) else { return false };
        let is_scheme = if self.is_tls { scheme == "https" } else { matches!(scheme, "http" | "https") };
        is_scheme && authority.eq_ignore_ascii_case(host) && (self.may_be_named || leads_nowhere_else(host))
    }

    /// The answer to a browser that asks before it calls; `None` if it is not that, or if no other page may call.
    pub fn preflight(&self, request: &ServiceRequest) -> Option<Result<HttpResponse, Problem>> {
        let origin = request.headers().get(header::ORIGIN)?;
        let asks = request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if self.others.is_empty() || request.method() != Method::OPTIONS || !asks {
            return None;
        }
        if !origin.to_str().is_ok_and(|origin| self.is_other(origin)) {
            return Some(Err(not_allowed(origin)));
        }
        let mut response = HttpResponse::NoContent();
        response
            .insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, METHODS))
            .insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS))
            .insert_header((header::ACCESS_CONTROL_MAX_AGE, MAX_AGE));
        Some(Ok(response.finish()))
    }

    /// Says on an answer which page may read it, and to caches that this depends on who asks.
    /// The hub's clients have the browser add what it has of credentials, and it lets them read nothing that does not allow
    /// that. All it can have of ours is a client certificate, and only pages that are listed get anything by it.
    pub fn allow(&self, origin: Option<&HeaderValue>, path: &str, answer: &mut HeaderMap) {
        if self.others.is_empty() {
            return;
        }
        answer.append(header::VARY, HeaderValue::from_static("Origin"));
        let other = origin.filter(|origin| origin.to_str().is_ok_and(|origin| self.is_other(origin)));
        if let Some(origin) = other {
            answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
            if path.starts_with("/hub/") {
                answer.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            }
        }
    }
}

/// The host that a request is for.
fn host_of(request: &ServiceRequest) -> Option<&str> {
    let named = request.uri().authority().map(|authority| authority.as_str());
    named.or_else(|| request.headers().get(header::HOST)?.to_str().ok())
}

fn not_allowed(origin: &HeaderValue) -> Problem {
    let origin = shorten(&String::from_utf8_lossy(origin.as_bytes()));
    let detail = format!("A page of `{origin}` has sent this; it is neither of this service nor in http.cors_origins");
    Problem::new(&problem::ORIGIN_NOT_ALLOWED, detail)
}

/// Whether `host` is an address, or the name that every machine has for itself.
fn leads_nowhere_else(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn settings(public_url: &str, others: &[&str], is_tls: bool) -> HttpSettings {
        let mut settings = crate::config::Config::defaults().http;
        settings.public_url = public_url.to_owned();
        settings.cors_origins = others.iter().map(|other| (*other).to_owned()).collect();
        settings.tls.cert_file = if is_tls { "cert.pem".to_owned() } else { String::new() };
        settings
    }

    fn is_refused(pages: &Pages, method: Method, host: &str, origins: &[&str]) -> bool {
        let mut request = TestRequest::with_uri("/ops/verify").method(method).insert_header((header::HOST, host));
        for origin in origins {
            request = request.append_header((header::ORIGIN, *origin));
        }
        pages.refusal(&request.to_srv_request()).is_some()
    }

    #[test]
    fn a_page_of_elsewhere_changes_nothing() {
        let own = "127.0.0.1:8080";
        let open = Pages::new(&settings("", &[], false), false);
        let others = Pages::new(&settings("", &["https://shop.example"], false), false);
        let public = Pages::new(&settings("https://api.example/streamview", &[], false), false);
        let closed = Pages::new(&settings("", &[], false), true);
        let tls = Pages::new(&settings("", &[], true), false);
        for (pages, host, origins, is_refused_then) in [
            (&open, own, &[][..], false),
            (&open, own, &["http://127.0.0.1:8080"], false),
            (&open, "localhost:8080", &["http://localhost:8080"], false),
            (&open, "[::1]:8080", &["http://[::1]:8080"], false),
            (&open, own, &["http://127.0.0.1:8081"], true),
            (&open, own, &["http://127.0.0.1"], true),
            (&open, own, &["https://shop.example"], true),
            (&open, own, &["null"], true),
            (&open, own, &[""], true),
            (&open, own, &["ftp://127.0.0.1:8080"], true),
            (&open, "evil.example:8080", &["http://evil.example:8080"], true),
            (&open, "localhost.evil.example", &["http://localhost.evil.example"], true),
            (&closed, "api.example", &["https://api.example"], false),
            (&closed, "api.example", &["https://shop.example"], true),
            (&others, own, &["https://shop.example"], false),
            (&others, own, &["https://shop.example:8443"], true),
            (&others, own, &["http://shop.example"], true),
            (&others, own, &["https://shop.example", "https://evil.example"], true),
            (&public, own, &["https://api.example"], false),
            (&public, own, &["http://api.example"], true),
            (&tls, "api.example", &["https://api.example"], false),
            (&tls, "api.example", &["http://api.example"], true),
        ] {
            for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
                assert_eq!(is_refused(pages, method, host, origins), is_refused_then, "{host} {origins:?} {pages:?}");
            }
            for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
                assert!(!is_refused(pages, method, host, origins), "whoever looks changes nothing");
            }
        }
    }
}
