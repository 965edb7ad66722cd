//! The version of a stream or of a source in `ETag` and `If-Match`.
//!
//! The tag is `"v<version>-<digest>"`: strong, by the whole answer. `If-Match` compares the version alone: what an engine is seen
//! to do moves all the time, and says nothing of what somebody else has changed.

use std::fmt::Display;
use std::str::FromStr;

use actix_web::HttpRequest;
use actix_web::http::header::{self, HeaderMap, HeaderName};

use crate::api::problem::{self, Problem};
use crate::manager::manager::ExpectedSource;

/// How the tag of a version begins.
pub(super) fn words(version: impl Display) -> String {
    format!("v{version}")
}

/// What `If-Match` names.
#[derive(Debug, PartialEq, Eq)]
enum Tag<V> {
    /// Whatever is there.
    Any,
    /// What has this version.
    Version(V),
}

/// The version of a stream that the caller has read; `None`: any.
pub(super) fn if_match(request: &HttpRequest) -> Result<Option<i32>, Problem> {
    Ok(match read(request.headers(), "must be one ETag of the stream, or *")? {
        Some(Tag::Version(version)) => Some(version),
        Some(Tag::Any) | None => None,
    })
}

/// What the caller has read of a source, and with `If-None-Match: *` that there was none.
pub(super) fn expected_source(request: &HttpRequest) -> Result<ExpectedSource, Problem> {
    let tag = read(request.headers(), "must be one ETag of the source, or *")?;
    let is_new = match one(request.headers(), &header::IF_NONE_MATCH) {
        Ok(None) => false,
        Ok(Some(star)) if star.trim() == "*" && tag.is_none() => true,
        Ok(Some(given)) | Err(given) => {
            let allowed = "must be * (the source is new), and without If-Match";
            return Err(rejected("If-None-Match", &given, allowed));
        }
    };
    Ok(match tag {
        Some(Tag::Version(version)) => ExpectedSource::Version(version),
        Some(Tag::Any) => ExpectedSource::Declared,
        None if is_new => ExpectedSource::New,
        None => ExpectedSource::Any,
    })
}

fn rejected(header: &'static str, given: &str, allowed: &str) -> Problem {
    let problem = Problem::new(&problem::INVALID_PARAMETER, format!("`{header}`: {allowed}"));
    problem.parameter(header, given, allowed)
}

/// A header's value; what is given is the error where it is given twice.
fn one(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, String> {
    let mut values = headers.get_all(name);
    let Some(value) = values.next() else { return Ok(None) };
    let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
    if values.next().is_some() { Err(text) } else { Ok(Some(text)) }
}

fn read<V: FromStr>(headers: &HeaderMap, allowed: &str) -> Result<Option<Tag<V>>, Problem> {
    let tag = one(headers, &header::IF_MATCH).and_then(|value| {
        let Some(text) = value else { return Ok(None) };
        match text.trim() {
            "*" => Ok(Some(Tag::Any)),
            tag => version_of(tag).map(|version| Some(Tag::Version(version))).ok_or(text),
        }
    });
    tag.map_err(|given| rejected("If-Match", &given, allowed))
}

/// `W/` stands before it where a proxy has compressed the answer.
fn version_of<V: FromStr>(tag: &str) -> Option<V> {
    let opaque = tag.strip_prefix("W/").unwrap_or(tag).strip_prefix('"')?.strip_suffix('"')?;
    let (version, _digest) = opaque.strip_prefix('v')?.split_once('-')?;
    let is_plain = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit());
    version.parse().ok().filter(|_| is_plain && !opaque.contains('"'))
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
        let tag = EntityTag::of(&words(12_i32), b"{}").to_string();
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

    #[test]
    fn a_source_is_as_it_was_read_or_there_or_new() {
        let of = |pairs: &[(&'static str, &str)]| {
            let mut request = TestRequest::default();
            for pair in pairs {
                request = request.append_header(*pair);
            }
            expected_source(&request.to_http_request()).map_err(|problem| problem.code())
        };
        let (large, tag) = (i64::from(i32::MAX) + 1, EntityTag::of(&words(i64::from(i32::MAX) + 1), b"{}").to_string());
        assert_eq!(of(&[]), Ok(ExpectedSource::Any));
        assert_eq!(of(&[("If-Match", "*")]), Ok(ExpectedSource::Declared));
        assert_eq!(of(&[("If-Match", &tag)]), Ok(ExpectedSource::Version(large)));
        assert_eq!(of(&[("If-None-Match", "*")]), Ok(ExpectedSource::New));
        for refused in [
            &[("If-None-Match", tag.as_str())][..],
            &[("If-None-Match", "*"), ("If-Match", tag.as_str())],
            &[("If-None-Match", "*"), ("If-None-Match", "*")],
            &[("If-Match", "orders")],
        ] {
            assert_eq!(of(refused), Err("invalid_parameter"), "{refused:?}");
        }
    }
}
