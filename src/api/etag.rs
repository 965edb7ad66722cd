//! Entity tags: made from the answer itself, and looked for in `If-None-Match`. Every `ETag` of the API comes from here.

use std::fmt;

use actix_web::http::header::{self, HeaderMap};
use twox_hash::XxHash3_128;

/// Content codings that a proxy appends to a tag when it compresses the answer.
const CODINGS: [&str; 5] = ["gzip", "br", "zstd", "deflate", "compress"];
/// What it puts before them: `-gzip` as Apache does, `--gzip` as Jetty, `;br`. The longest first.
const SEPARATORS: [&str; 3] = ["--", "-", ";"];

/// The strong tag of one answer.
///
/// It ends with a digest of the answer's bytes, so equal tags mean equal bodies, whatever made them differ: another event,
/// another build, an empty view that was filled again under other rules, a release that writes the JSON in another way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityTag(String);

impl EntityTag {
    /// The tag of `body`, which begins with `words` for people: letters, digits, `-` and `.`.
    pub fn of(words: &str, body: &[u8]) -> Self {
        EntityTag(format!("{words}-{:032x}", XxHash3_128::oneshot(body)))
    }

    /// Whether `If-None-Match` names it, or is `*`: the client has this answer already. By weak comparison (RFC 9110
    /// §13.1.2), and also with the suffix of a proxy that had compressed it: what is compressed is the same answer.
    pub fn is_known_to(&self, headers: &HeaderMap) -> bool {
        headers.get_all(header::IF_NONE_MATCH).any(|list| self.is_in(&String::from_utf8_lossy(list.as_bytes())))
    }

    fn is_in(&self, list: &str) -> bool {
        if list.trim() == "*" {
            return true;
        }
        let mut rest = list;
        // Each tag stands between quotes, where a comma is only a letter.
        while let Some((before, quoted)) = rest.split_once('"') {
            let Some((opaque, after)) = quoted.split_once('"') else { return false };
            let (behind, next) = after.split_once(',').unwrap_or((after, ""));
            // Elements of a list may be empty.
            let before = before.rsplit(',').next().unwrap_or_default().trim();
            let is_whole = matches!(before, "" | "W/") && (behind.trim().is_empty() || is_suffix(behind.trim()));
            if is_whole && self.is(opaque) {
                return true;
            }
            rest = next;
        }
        false
    }

    fn is(&self, opaque: &str) -> bool {
        opaque.strip_prefix(self.0.as_str()).is_some_and(|rest| rest.is_empty() || is_suffix(rest))
    }
}

/// `-gzip` and the like, within the quotes or, as old proxies write it, behind them.
fn is_suffix(text: &str) -> bool {
    let coding = SEPARATORS.iter().find_map(|separator| text.strip_prefix(separator));
    coding.is_some_and(|coding| CODINGS.contains(&coding))
}

impl fmt::Display for EntityTag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "\"{}\"", self.0)
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    #[test]
    fn equal_tags_mean_equal_bodies() {
        let tag = EntityTag::of("1-5", b"{\"totalGross\":\"1.19\"}");
        assert_eq!(tag, EntityTag::of("1-5", b"{\"totalGross\":\"1.19\"}"));
        for other in [
            EntityTag::of("1-5", b"{\"totalGross\":\"1.07\"}"),
            EntityTag::of("1-5", b"{\"totalGross\": \"1.19\"}"),
            EntityTag::of("2-5", b"{\"totalGross\":\"1.19\"}"),
        ] {
            assert_ne!(tag, other);
        }
    }

    fn is_known(lines: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::IF_NONE_MATCH, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        EntityTag("1-5-ab".to_owned()).is_known_to(&headers)
    }

    #[test]
    fn if_none_match_takes_lists_weak_tags_a_star_and_the_suffixes_of_proxies() {
        for known in [
            r#""1-5-ab""#,
            r#"W/"1-5-ab""#,
            r#"  "1-5-ab"  "#,
            r#""1-4-cd", "1-5-ab""#,
            r#""1-4-cd",W/"1-5-ab","x""#,
            r#""a,b" , "1-5-ab""#,
            r#", "1-5-ab""#,
            "*",
            " * ",
            r#""1-5-ab-gzip""#,
            r#"W/"1-5-ab-gzip""#,
            r#""1-5-ab--gzip""#,
            r#""1-5-ab;br""#,
            r#""1-5-ab-br""#,
            r#""1-5-ab;zstd""#,
            r#""1-5-ab"-gzip"#,
            r#""x-gzip", "1-5-ab"-gzip, "y""#,
            "\"é\", \"1-5-ab\"",
        ] {
            assert!(is_known(&[known]), "{known}");
            assert!(is_known(&["\"other\"", known]), "{known}");
        }
        for other in [
            r#""1-4-ab""#,
            r#""1-5""#,
            r#""1-5-abc""#,
            r#""1-5-ab-""#,
            r#""1-5-ab-gzipped""#,
            r#""1-5-ab;""#,
            r#""1-5-ab-gzip-gzip""#,
            r#""1-5-ab"x"#,
            r#"w/"1-5-ab""#,
            r#"X/"1-5-ab""#,
            "1-5-ab",
            r#""1-5-ab"#,
            r#""*""#,
            "",
            ",",
            r#"",1-5-ab,""#,
        ] {
            assert!(!is_known(&[other]), "{other}");
        }
    }
}
