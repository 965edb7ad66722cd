//! The version of a stream in `ETag` and `If-Match`.
//!
//! The tag is `"v<version>-<digest>"`: strong, by the whole answer. `If-Match` compares the version alone: what an engine is seen
//! to do moves all the time, and says nothing of what somebody else has changed.

use actix_web::HttpRequest;
use actix_web::http::header::{self, HeaderMap};

use super::problems::VERSION_CHANGED;
use crate::api::problem::{self, Problem};
use crate::manager::definition::Definition;

/// How the tag of a version begins.
pub(super) fn words(version: i32) -> String {
    format!("v{version}")
}

/// The version that the caller has read; `None`: any.
pub(super) fn if_match(request: &HttpRequest) -> Result<Option<i32>, Problem> {
    read(request.headers()).map_err(|given| {
        let allowed = "must be one ETag of the stream, or *";
        let problem = Problem::new(&problem::INVALID_PARAMETER, format!("`If-Match`: {allowed}"));
        problem.parameter("If-Match", &given, allowed)
    })
}

fn read(headers: &HeaderMap) -> Result<Option<i32>, String> {
    let mut values = headers.get_all(header::IF_MATCH);
    let Some(value) = values.next() else { return Ok(None) };
    let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
    if values.next().is_some() {
        return Err(text);
    }
    match text.trim() {
        "*" => Ok(None),
        tag => version_of(tag).map(Some).ok_or(text),
    }
}

/// `W/` stands before it where a proxy has compressed the answer.
fn version_of(tag: &str) -> Option<i32> {
    let opaque = tag.strip_prefix("W/").unwrap_or(tag).strip_prefix('"')?.strip_suffix('"')?;
    let (version, _digest) = opaque.strip_prefix('v')?.split_once('-')?;
    let is_plain = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit());
    version.parse().ok().filter(|_| is_plain && !opaque.contains('"'))
}

/// For calls of which the manager takes no version: looked at before them.
pub(super) fn check(request: &HttpRequest, current: &Definition) -> Result<(), Problem> {
    match if_match(request)? {
        Some(expected) if expected != current.version => {
            let detail = format!("Version {expected} was expected, and it is {} by now", current.version);
            Err(Problem::new(&VERSION_CHANGED, detail).with("currentVersion", current.version))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;
    use crate::api::etag::EntityTag;

    #[test]
    fn if_match_is_the_version_of_one_tag() {
        let of = |lines: &[&str]| {
            let mut request = TestRequest::default();
            for line in lines {
                request = request.append_header(("If-Match", *line));
            }
            if_match(&request.to_http_request()).map_err(|problem| problem.code())
        };
        let tag = EntityTag::of(&words(12), b"{}").to_string();
        assert_eq!(of(&[]), Ok(None));
        for (line, version) in [("*", None), (" * ", None), (tag.as_str(), Some(12)), ("W/\"v3-ab-gzip\"", Some(3))] {
            assert_eq!(of(&[line]), Ok(version), "{line}");
        }
        let two = format!("{tag}, {tag}");
        for line in
            [two.as_str(), "", "v12-ab", "\"v12\"", "\"12-ab\"", "\"v-ab\"", "\"v+1-ab\"", "\"v99999999999-a\"", "12"]
        {
            assert_eq!(of(&[line]), Err("invalid_parameter"), "{line}");
        }
        assert_eq!(of(&[&tag, &tag]), Err("invalid_parameter"));
    }
}
