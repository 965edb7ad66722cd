//! The console at `/ui/`: files of the binary with what keeps a page to itself. They are for everybody; what they ask the API
//! for is not.

use actix_web::http::header::{self, HeaderMap, HeaderName};
use actix_web::{HttpRequest, HttpResponse};

use super::etag::EntityTag;
use super::paths::path_part;
use super::problem::{self, Problem};
use crate::ui;

/// Nothing of elsewhere, nothing inline.
const SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";
const FOREVER: &str = "public, max-age=31536000, immutable";
const ASK_AGAIN: &str = "no-cache";
const BELOW: &str = "/ui/";

/// `/ui/…`: a file, or the page.
pub async fn file(request: HttpRequest) -> Result<HttpResponse, Problem> {
    // As it was sent: a slash within an id is no folder to a browser either.
    let rest = request.uri().path().strip_prefix(BELOW).unwrap_or_default();
    let Some(file) = ui::find(rest) else {
        return Err(Problem::new(
            &problem::NOT_FOUND,
            "The console has no such file; after an update, load the page again",
        ));
    };
    let zipped = takes_gzip(request.headers());
    let (words, bytes) = if zipped { ("ui-gzip", &file.gzip) } else { ("ui", &file.bytes) };
    let tag = EntityTag::of(words, bytes);
    let mut response = HttpResponse::Ok();
    response
        .insert_header((header::ETAG, tag.to_string()))
        .insert_header((header::VARY, "Accept-Encoding"))
        .insert_header((header::CACHE_CONTROL, if file.is_named_by_content { FOREVER } else { ASK_AGAIN }))
        .insert_header((header::CONTENT_SECURITY_POLICY, SECURITY_POLICY))
        .insert_header((HeaderName::from_static("cross-origin-opener-policy"), "same-origin"))
        .content_type(file.content_type);
    if tag.is_known_to(request.headers()) {
        return Ok(response.status(actix_web::http::StatusCode::NOT_MODIFIED).finish());
    }
    if zipped {
        response.insert_header((header::CONTENT_ENCODING, "gzip"));
    }
    Ok(response.body(bytes.clone()))
}

/// `/ui`: what it loads lies below `/ui/`.
pub async fn begin() -> HttpResponse {
    to(BELOW)
}

/// `/Query` of the original.
pub async fn query() -> HttpResponse {
    to("/ui/query")
}

/// `/Streams` of the original.
pub async fn streams() -> HttpResponse {
    to("/ui/streams")
}

/// `/Stream/{id}` of the original.
pub async fn stream(request: HttpRequest) -> HttpResponse {
    to(&format!("/ui/streams/{}/live", path_part(&request, "id")))
}

fn to(path: &str) -> HttpResponse {
    HttpResponse::TemporaryRedirect().insert_header((header::LOCATION, path)).finish()
}

/// Whether somebody looks who would rather see the console than JSON: browsers ask for HTML by name.
pub(super) fn is_browser(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT).filter_map(|value| value.to_str().ok());
    accepts.flat_map(|list| list.split(',')).any(|element| {
        let mut parts = element.split(';').map(str::trim);
        parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("text/html")) && !parts.any(is_no)
    })
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT_ENCODING).filter_map(|value| value.to_str().ok());
    accepts.flat_map(|list| list.split(',')).any(|element| {
        let mut parts = element.split(';').map(str::trim);
        parts.next().is_some_and(|coding| coding.eq_ignore_ascii_case("gzip")) && !parts.any(is_no)
    })
}

/// Whether a parameter says: not this.
fn is_no(parameter: &str) -> bool {
    let quality = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="));
    quality.and_then(|quality| quality.parse::<f32>().ok()).is_some_and(|quality| quality <= 0.0)
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn asked(name: HeaderName, value: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        headers
    }

    #[test]
    fn who_asks_for_html_by_name_is_a_browser() {
        for (accept, is) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", true),
            ("application/json, Text/HTML;q=0.5", true),
            ("*/*", false),
            ("application/json", false),
            ("text/html;q=0", false),
            ("text/*", false),
            ("", false),
        ] {
            assert_eq!(is_browser(&asked(header::ACCEPT, accept)), is, "{accept}");
        }
        assert!(!is_browser(&HeaderMap::new()));
    }

    #[test]
    fn gzip_is_sent_to_whoever_takes_it() {
        for (accept, takes) in [
            ("gzip, deflate, br", true),
            ("br;q=1, GZIP;q=0.1", true),
            ("gzip;q=0", false),
            ("br", false),
            ("*", false),
        ] {
            assert_eq!(takes_gzip(&asked(header::ACCEPT_ENCODING, accept)), takes, "{accept}");
        }
    }
}
