//! The header `Idempotency-Key`: what a call is known by when it is made again.

use actix_web::HttpRequest;

use super::problem::{self, Problem};

/// The key, if one is given: 1 to `most` visible ASCII characters. Each route documents its own bound.
pub fn key_of(request: &HttpRequest, most: usize) -> Result<Option<String>, Problem> {
    let mut values = request.headers().get_all("idempotency-key");
    let Some(value) = values.next() else { return Ok(None) };
    let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
    let visible = (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if visible && values.next().is_none() {
        return Ok(Some(text));
    }
    let allowed = format!("must be given once, with 1 to {most} visible ASCII characters");
    let problem = Problem::new(&problem::INVALID_PARAMETER, format!("`Idempotency-Key`: {allowed}"));
    Err(problem.parameter("Idempotency-Key", &text, &allowed))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_key_is_given_once_within_its_bound() {
        let read = |keys: &[&str]| {
            let mut request = TestRequest::default();
            for key in keys {
                request = request.append_header(("Idempotency-Key", *key));
            }
            key_of(&request.to_http_request(), 3).map_err(|problem| problem.code())
        };
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&["abc"]), Ok(Some("abc".to_owned())));
        for refused in [&[""][..], &["abcd"], &["a b"], &["ä"], &["a", "a"]] {
            assert_eq!(read(refused), Err("invalid_parameter"), "{refused:?}");
        }
    }
}
