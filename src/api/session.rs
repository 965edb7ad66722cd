//! `/session`: who a browser is, and signing in and out. A page shows an API key once and gets a cookie that no script reads and
//! that no other site's page has sent along (`SameSite=Strict`; and by `Sec-Fetch-Site` and `Origin` it counts for our own pages
//! alone). Programs show their credentials at each call, and need none of this.

use actix_web::dev::ServiceRequest;
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use url::Url;
use utoipa::ToSchema;

use super::body::{self, Body};
use super::gate::By;
use super::hub::is_web_socket;
use super::limits::Caller;
use super::parameters::Parameters;
use super::problem::{self, Code, Problem, ProblemBody, codes};
use super::{Api, caller};
use crate::auth::policy::{Exposure, Policy, allows, allows_principal};
use crate::auth::{Principal, Refusal};
use crate::config::HttpSettings;
use crate::login::{Gate, Kept};

codes! {
    SIGN_IN_NOT_CONFIGURED = "sign_in_not_configured" NOT_FOUND "Nobody signs in here in this way"
        "The settings (`auth`) name no kind of credentials, or no client of an identity provider (`auth.oidc`)."
        "`GET /session` says how one can sign in. Operators: set `auth.api_keys` or `auth.oidc.client_id`.";
}

const NAME: &str = "streamview_session";
/// Kept by a browser while it is at the identity provider. A page of the provider's sends it back here, so it is `Lax`.
const AWAY: &str = "streamview_sign_in";
const CALLBACK: &str = "/session/callback";
const CONSOLE: &str = "/ui/";
/// Bytes of a body: a key.
const BODY_BYTES: usize = 4096;
const MOST_KEY_CHARS: usize = 256;
/// What can be asked for, and the policy of its routes.
const RIGHTS: [(&str, Policy); 6] = [
    ("read", Policy::Reader),
    ("define", Policy::Defines),
    ("runStreams", Policy::RunsStreams),
    ("operate", Policy::OperatorLooks),
    ("decide", Policy::OperatorDecides),
    ("administer", Policy::Administers),
];

/// Who calls, and what they may.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Session)]
pub struct SessionBody {
    /// Whether callers log in here.
    pub access_control: bool,
    /// How a browser can sign in.
    pub sign_in: SignInBody,
    /// Who has logged in; null: nobody.
    #[schema(required)]
    pub principal: Option<PrincipalBody>,
    /// What the caller may: `read`, `define`, `runStreams`, `operate` (look), `decide`, `administer`.
    #[schema(example = json!(["read"]))]
    pub may: Vec<&'static str>,
}

/// How a browser can sign in.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SignIn)]
pub struct SignInBody {
    /// With an API key, by `POST /session`.
    pub api_key: bool,
    /// At the identity provider of this host, by `GET /session/login`; null: no browser is sent to one.
    #[schema(required, example = "id.example")]
    pub provider: Option<String>,
}

/// Who has logged in.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Principal)]
pub struct PrincipalBody {
    /// By which name.
    #[schema(example = "ada")]
    pub name: String,
    /// Their roles.
    #[schema(example = json!(["reader"]))]
    pub roles: Vec<&'static str>,
}

/// What a browser signs in with.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "documentation; read by `begin`")]
pub struct SignInRequest {
    /// An API key.
    #[schema(min_length = 1, max_length = 256, example = "svk_…")]
    api_key: String,
}

/// Who am I?
///
/// Who has logged in by whatever the request shows, or nobody, and what they may. For everybody: what does not count is passed over.
#[utoipa::path(get, path = "/session", operation_id = "get_session", tag = "access", responses(
    (status = 200, description = "Who calls", body = SessionBody),
))]
pub async fn show(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    Parameters::parse(request.query_string(), &[]).finish()?;
    Ok(HttpResponse::Ok().json(session_of(&api, caller::principal(&request).as_deref())))
}

/// Sign in
///
/// For pages of this service: an API key is taken once, and the answer sets a cookie that stands for it for 12 hours, until it is
/// signed out, the key is revoked or the instance ends. It counts for our own pages alone. Programs show their key at each call.
#[utoipa::path(post, path = "/session", operation_id = "sign_in", tag = "access",
    request_body(content = SignInRequest, content_type = "application/json"),
    responses(
        (status = 200, description = "Who has signed in", body = SessionBody, headers(("Set-Cookie" = String, description = "The session"))),
        (status = 400, description = "The request is not usable", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 401, description = "`invalid_credentials`", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 404, description = "`sign_in_not_configured`", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 429, description = "`rate_limited`", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 503, description = "`login_unavailable`", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ))]
pub async fn begin(api: web::Data<Api>, request: HttpRequest, payload: web::Payload) -> Result<HttpResponse, Problem> {
    Parameters::parse(request.query_string(), &[]).finish()?;
    let bytes = body::read(&request, payload, BODY_BYTES).await?;
    let mut body = Body::parse(&bytes, &["apiKey"])?;
    let key = body.required_text("apiKey", MOST_KEY_CHARS);
    body.finish()?;
    let gate = api.state.gate.as_ref().ok_or_else(nobody_signs_in)?;
    let kept = Kept::ApiKey(key.unwrap_or_default().into_bytes());
    let principal = gate.judge(&kept).await?;
    if let Some(by) = actix_web::HttpMessage::extensions(&request).get::<By>() {
        by.0.replace(Some(principal.name.clone()));
    }
    // Who signs in anew is not found by the word of before.
    end_of(gate, request.headers());
    let word = gate.begin_session(kept, &principal).ok_or_else(|| {
        Problem::new(&problem::LOGIN_UNAVAILABLE, "The system gives no random numbers").retry_after(2)
    })?;
    let cookie = cookie(&word, &api.state.settings, "")?;
    let body = session_of(&api, Some(&principal));
    Ok(HttpResponse::Ok().insert_header((header::SET_COOKIE, cookie)).json(body))
}

/// Sign out
///
/// The session of the cookie ends, and the cookie is taken back.
#[utoipa::path(delete, path = "/session", operation_id = "sign_out", tag = "access", responses(
    (status = 204, description = "Nobody is signed in by the cookie any more"),
))]
pub async fn end(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    Parameters::parse(request.query_string(), &[]).finish()?;
    if let Some(gate) = &api.state.gate {
        end_of(gate, request.headers());
    }
    let cookie = cookie("", &api.state.settings, "; Max-Age=0")?;
    Ok(HttpResponse::NoContent().insert_header((header::SET_COOKIE, cookie)).finish())
}

/// Sign in at the identity provider
///
/// For browsers: sends them there, by the code flow with PKCE. They come back to `/session/callback`.
#[utoipa::path(get, path = "/session/login", operation_id = "sign_in_at_provider", tag = "access",
    params(("to" = Option<String>, Query, description = "The page of the console to see then, such as `/ui/orders`.", pattern = "^/ui/.*$")),
    responses(
        (status = 303, description = "To the provider", headers(("Location" = String, description = "Its page"))),
        (status = 400, description = "A parameter is not usable", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 404, description = "`sign_in_not_configured`", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 429, description = "`rate_limited`", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 503, description = "`login_unavailable`", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ))]
pub async fn leave(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let mut parameters = Parameters::parse(request.query_string(), &["to"]);
    let to = parameters.one("to").map_or_else(|| CONSOLE.to_owned(), |to| to.to_string());
    // It stands in `Location` when they are back: what no header may hold is seen now.
    let is_plain = to.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if !to.starts_with(CONSOLE) || !is_plain {
        parameters.reject("to", &to, "must be a page of the console, such as /ui/orders");
    }
    parameters.finish()?;
    let gate = api.state.gate.as_ref().filter(|gate| gate.has_provider()).ok_or_else(nobody_signs_in)?;
    let redirect = format!("{}{CALLBACK}", public_url(&api, &request));
    let from = Caller::at(caller::address(&request)).to_string();
    let sent = gate.send_to_provider(redirect, to, from).await?;
    let cookie = cookie_named(AWAY, (&sent.word, "Lax"), &api.state.settings, "; Max-Age=600")?;
    let mut response = HttpResponse::SeeOther();
    Ok(response.insert_header((header::LOCATION, sent.url)).insert_header((header::SET_COOKIE, cookie)).finish())
}

/// Come back from the identity provider
///
/// Where the provider sends browsers. Whatever comes of it they see in the console.
#[utoipa::path(get, path = "/session/callback", operation_id = "sign_in_from_provider", tag = "access",
    params(
        ("state" = Option<String>, Query, description = "As it was sent along."),
        ("code" = Option<String>, Query, description = "What a token is got for."),
        ("error" = Option<String>, Query, description = "Why there is none."),
    ),
    responses((status = 303, description = "To the console, with the session or with why there is none (`#signIn=`)",
        headers(("Location" = String, description = "A page of the console")))))]
pub async fn come_back(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let settings = &api.state.settings;
    let gate = api.state.gate.as_ref().filter(|gate| gate.has_provider()).ok_or_else(nobody_signs_in)?;
    // Providers send parameters of their own along.
    let asked: std::collections::HashMap<String, String> =
        url::form_urlencoded::parse(request.query_string().as_bytes()).into_owned().collect();
    let of = |name: &str| asked.get(name).map_or("", String::as_str);
    let word = word_of(AWAY, request.headers()).unwrap_or_default();
    let outcome = match of("code") {
        "" => Err(without_code(of("error"))),
        code => gate.back_from_provider((of("state"), code), word).await,
    };
    let mut response = HttpResponse::SeeOther();
    response.insert_header((header::SET_COOKIE, cookie_named(AWAY, ("", "Lax"), settings, "; Max-Age=0")?));
    match outcome {
        Ok((back, principal)) => {
            if let Some(by) = actix_web::HttpMessage::extensions(&request).get::<By>() {
                by.0.replace(Some(principal.name.clone()));
            }
            end_of(gate, request.headers());
            let word = gate.begin_session(back.kept, &principal).ok_or_else(|| {
                Problem::new(&problem::LOGIN_UNAVAILABLE, "The system gives no random numbers").retry_after(2)
            })?;
            response.append_header((header::SET_COOKIE, cookie(&word, settings, "")?));
            response.insert_header((header::LOCATION, back.to));
        }
        Err(refusal) => {
            tracing::info!(%refusal, "somebody came back from the identity provider and is not signed in");
            let why = if matches!(refusal, Refusal::Unavailable(_)) { "unavailable" } else { "refused" };
            response.insert_header((header::LOCATION, format!("{CONSOLE}#signIn={why}")));
        }
    }
    Ok(response.finish())
}

/// Why there is no code, as the browser says that the provider says. Whoever comes may say so, and at any length.
fn without_code(error: &str) -> Refusal {
    Refusal::Invalid(format!("the provider says {}", problem::shorten(error)))
}

/// Under which URL the browser has come here.
fn public_url(api: &Api, request: &HttpRequest) -> String {
    let settings = &api.state.settings;
    if !settings.public_url.is_empty() {
        return settings.public_url.clone();
    }
    let host = request.uri().authority().map(|authority| authority.as_str());
    let host = host.or_else(|| request.headers().get(header::HOST)?.to_str().ok()).unwrap_or_default();
    format!("{}://{host}", settings.tls.scheme())
}

fn nobody_signs_in() -> Problem {
    Problem::new(&SIGN_IN_NOT_CONFIGURED, "Nobody signs in here in this way: the settings (`auth`) do not say how")
}

fn session_of(api: &Api, principal: Option<&Principal>) -> SessionBody {
    let state = &api.state;
    let may = |policy: Policy| match &state.gate {
        Some(gate) => allows_principal(policy, principal, gate.anonymous).is_ok(),
        None if state.settings.allows_operations() => allows(policy, Exposure::Trusted).is_ok(),
        None => allows(policy, Exposure::Strangers).is_ok(),
    };
    SessionBody {
        access_control: state.gate.is_some(),
        sign_in: SignInBody {
            api_key: state.gate.as_ref().is_some_and(|gate| gate.takes_api_keys()),
            provider: state.gate.as_ref().and_then(|gate| gate.provider()).map(str::to_owned),
        },
        principal: principal
            .map(|principal| PrincipalBody { name: principal.name.clone(), roles: principal.roles.names() }),
        may: RIGHTS.iter().filter(|(_, policy)| may(*policy)).map(|(name, _)| *name).collect(),
    }
}

/// What the session of a request was got for, if its cookie counts.
pub(super) fn kept(gate: &Gate, request: &ServiceRequest) -> Option<Kept> {
    let word = word_in(request.headers())?;
    let api = request.app_data::<web::Data<Api>>()?;
    let looks = matches!(*request.method(), Method::GET | Method::HEAD) && !is_web_socket(request.head());
    let from = Sender::of(request.headers(), || api.pages.is_of_own_page(request));
    from.counts(looks).then(|| gate.session(word))?
}

/// Who has had the browser send a request, as far as it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sender {
    /// A page of ours.
    Ours,
    /// A person, by the address.
    Person,
    /// Another page.
    Foreign,
    /// It is not said: an old browser, or one that is not on a secure line.
    Unknown,
}

impl Sender {
    /// By `Sec-Fetch-Site`; where that is missing, by whether `Origin` is ours (`None`: there is none).
    fn of(headers: &HeaderMap, is_own: impl FnOnce() -> Option<bool>) -> Sender {
        match headers.get("sec-fetch-site").map(HeaderValue::as_bytes) {
            Some(b"same-origin") => Sender::Ours,
            Some(b"none") => Sender::Person,
            Some(_) => Sender::Foreign,
            None => match is_own() {
                Some(true) => Sender::Ours,
                Some(false) => Sender::Foreign,
                None => Sender::Unknown,
            },
        }
    }

    /// | sent by | looks | changes |
    /// |---|---|---|
    /// | a page of ours | yes | yes |
    /// | a person | yes | no |
    /// | it is not said | yes | no |
    /// | another page | no | no |
    fn counts(self, looks: bool) -> bool {
        match self {
            Sender::Ours => true,
            Sender::Person | Sender::Unknown => looks,
            Sender::Foreign => false,
        }
    }
}

fn end_of(gate: &Gate, headers: &HeaderMap) {
    if let Some(word) = word_in(headers) {
        gate.end_session(word);
    }
}

/// The word of the session that the cookies have.
fn word_in(headers: &HeaderMap) -> Option<&[u8]> {
    word_of(NAME, headers)
}

fn word_of<'h>(name: &str, headers: &'h HeaderMap) -> Option<&'h [u8]> {
    let mut cookies = headers.get_all(header::COOKIE).flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    cookies.find_map(|cookie| cookie.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

fn cookie(word: &str, settings: &HttpSettings, more: &str) -> Result<HeaderValue, Problem> {
    cookie_named(NAME, (word, "Strict"), settings, more)
}

fn cookie_named(
    name: &str,
    (word, same_site): (&str, &str),
    settings: &HttpSettings,
    more: &str,
) -> Result<HeaderValue, Problem> {
    let public = Url::parse(&settings.public_url).ok();
    let is_secure = settings.tls.is_on() || public.as_ref().is_some_and(|url| url.scheme() == "https");
    let path = public.as_ref().map_or("/", Url::path);
    let secure = if is_secure { "; Secure" } else { "" };
    let text = format!("{name}={word}; Path={path}; HttpOnly; SameSite={same_site}{secure}{more}");
    HeaderValue::from_str(&text).map_err(|_| Problem::new(&problem::INTERNAL_ERROR, "The cookie could not be written"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_counts_for_our_own_pages() {
        for (site, own, looks, changes) in [
            (Some("same-origin"), None, true, true),
            (Some("none"), None, true, false),
            (Some("same-site"), Some(true), false, false),
            (Some("cross-site"), None, false, false),
            (Some("SAME-ORIGIN"), Some(true), false, false),
            (None, Some(true), true, true),
            (None, Some(false), false, false),
            (None, None, true, false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(site) = site {
                headers.insert(header::HeaderName::from_static("sec-fetch-site"), HeaderValue::from_static(site));
            }
            let sender = Sender::of(&headers, || own);
            assert_eq!((sender.counts(true), sender.counts(false)), (looks, changes), "{site:?} {own:?}");
        }
    }

    #[test]
    fn what_a_browser_says_of_the_provider_is_cut() {
        assert_eq!(without_code("access_denied").to_string(), "the provider says access_denied");
        assert!(without_code(&"ö".repeat(8_000)).to_string().chars().count() < 250);
    }

    #[test]
    fn the_word_is_found_among_other_cookies() {
        for (cookies, word) in [
            ("streamview_session=abc", Some("abc")),
            ("a=b; streamview_session=abc; c=d", Some("abc")),
            ("xstreamview_session=abc", None),
            ("streamview_session2=abc", None),
            ("a=streamview_session=abc", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, HeaderValue::from_static(cookies));
            assert_eq!(word_in(&headers), word.map(str::as_bytes), "{cookies}");
        }
    }

    #[test]
    fn the_cookie_is_for_this_service_and_for_no_script() {
        let mut settings = crate::config::Config::defaults().http;
        let text = |settings: &HttpSettings| cookie("w", settings, "").unwrap().to_str().unwrap().to_owned();
        assert_eq!(text(&settings), "streamview_session=w; Path=/; HttpOnly; SameSite=Strict");
        settings.public_url = "https://api.example/view".to_owned();
        assert_eq!(text(&settings), "streamview_session=w; Path=/view; HttpOnly; SameSite=Strict; Secure");
    }
}
