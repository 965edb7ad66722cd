//! The parts of a path by their names, as they were sent.

use actix_web::{HttpMessage, HttpRequest};

use super::routes::Routed;

/// The part of the request's path that stands where the pattern of its route says `{name}`, as it was sent: whoever reads
/// it decodes it, once. Empty if the pattern has no such part.
///
/// The framework's own parts are decoded but for `%2F`, `%25` and `%2B`, so a `%` in them may stand for itself or not. Its
/// patterns have one segment for each part, and a `/` within a part is sent as `%2F`: as many segments are sent as the
/// pattern has.
pub fn path_part<'r>(request: &'r HttpRequest, name: &str) -> &'r str {
    let (path, routed) = (request.uri().path(), request.extensions().get::<Routed>().and_then(Routed::pattern));
    match routed {
        Some(pattern) => part_of(pattern, path, name),
        None => request.match_pattern().map_or("", |pattern| part_of(&pattern, path, name)),
    }
}

fn part_of<'p>(pattern: &str, path: &'p str, name: &str) -> &'p str {
    let is_named = |segment: &str| segment.strip_prefix('{').and_then(|end| end.strip_suffix('}')) == Some(name);
    let mut parts = pattern.split('/').zip(path.split('/'));
    parts.find(|(segment, _)| is_named(segment)).map_or("", |(_, part)| part)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use actix_web::http::Method;
    use actix_web::middleware::from_fn;
    use actix_web::{App, HttpResponse, test as server, web};

    use super::*;
    use crate::api::answer::finish;
    use crate::api::gate::Locks;
    use crate::api::limits::Limits;
    use crate::api::parameters::decode;
    use crate::api::routes::{RouteSpec, register};
    use crate::auth::policy::{Exposure, Policy};
    use crate::config::Config;

    const PATTERNS: [(&str, &str, &str); 3] = [
        ("/orders/{key}", "/orders/", ""),
        ("/ops/held/{key}/skip", "/ops/held/", "/skip"),
        ("/orders/{key}/events", "/orders/", "/events"),
    ];

    /// What a handler sees as `key`, decoded; `-` where it cannot be.
    async fn seen(path: &str) -> (u16, String) {
        let route = |pattern| {
            RouteSpec::new(Method::GET, pattern, Policy::Public, || {
                web::route().to(|request: HttpRequest| async move {
                    HttpResponse::Ok().body(decode(path_part(&request, "key")).unwrap_or_else(|| "-".to_owned()))
                })
            })
        };
        let table = PATTERNS.map(|(pattern, ..)| route(pattern));
        let locks = Locks::Open(Exposure::Trusted);
        let limits = Arc::new(Limits::new(&Config::defaults().http.rate_limits));
        let app = App::new().wrap(from_fn(finish)).configure(|config| register(config, &table, &locks, &limits));
        let app = server::init_service(app).await;
        let response = server::call_service(&app, server::TestRequest::with_uri(path).to_request()).await;
        let status = response.status().as_u16();
        (status, String::from_utf8(server::read_body(response).await.to_vec()).unwrap())
    }

    #[actix_web::test]
    async fn a_key_is_decoded_once_from_the_path_as_sent() {
        for (sent, key) in [
            ("plain", "plain"),
            ("a%2Fb", "a/b"),
            ("a%2fskip", "a/skip"),
            ("100%25", "100%"),
            ("a%252Fb", "a%2Fb"),
            ("%25ff", "%ff"),
            ("a+b", "a+b"),
            ("a%2Bb", "a+b"),
            ("%C3%A9%20%3F", "é ?"),
            ("..", ".."),
            ("%2e%2e", ".."),
            ("{key}", "{key}"),
            ("skip", "skip"),
            ("%ff", "-"),
            ("%e2%82", "-"),
            ("a%00b", "-"),
            ("%zz", "-"),
            ("%4", "-"),
        ] {
            for (pattern, before, after) in PATTERNS {
                let sent = sent.replace('{', "%7B").replace('}', "%7D");
                assert_eq!(seen(&format!("{before}{sent}{after}")).await, (200, key.to_owned()), "{sent}, {pattern}");
            }
        }
        for nothing in ["/orders/", "/ops/held//skip", "/orders/a/b/events"] {
            assert_eq!(seen(nothing).await.0, 404, "{nothing}");
        }
    }

    #[test]
    fn a_part_is_found_by_its_name_alone() {
        assert_eq!(part_of("/a/{one}/b/{two}", "/a/1/b/2", "two"), "2");
        assert_eq!(part_of("/a/{one}/b/{two}", "/a/1/b/2", "one"), "1");
        assert_eq!(part_of("/a/{one}", "/a/1", "a"), "");
    }
}
