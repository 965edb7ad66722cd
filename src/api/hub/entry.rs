//! How a request says who it is of and which connection it is for, where it says so in its query string: browsers cannot do
//! otherwise. Nothing of it is written down anywhere.

use std::sync::Arc;

use actix_web::dev::{RequestHead, ServiceRequest};
use actix_web::http::header;
use actix_web::{HttpMessage, HttpRequest, web};

use crate::api::{Api, parameters};
use crate::auth::Principal;
use crate::login::Kept;

/// A parameter of a request's query string: the first of that name. Others are the clients' own business.
pub(super) fn parameter(request: &HttpRequest, name: &str) -> Option<String> {
    in_query(request.query_string(), name)
}

fn in_query(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let (_, value) = pairs.find(|(found, _)| *found == name)?;
    parameters::decode(value).filter(|value| !value.is_empty())
}

/// Whether a request asks for a WebSocket.
pub fn is_web_socket(head: &RequestHead) -> bool {
    let upgrade = head.headers().get(header::UPGRADE).and_then(|upgrade| upgrade.to_str().ok());
    upgrade.is_some_and(|upgrade| upgrade.split(',').any(|one| one.trim().eq_ignore_ascii_case("websocket")))
}

/// What a WebSocket shows in `access_token`, as it would stand in `Authorization`. Every other request can send a header, or
/// goes by the token of its connection.
pub fn bearer_in_query(request: &ServiceRequest) -> Option<String> {
    let token = is_web_socket(request.head()).then(|| in_query(request.query_string(), "access_token"))??;
    Some(format!("Bearer {token}"))
}

/// What a request that was let through has shown, to be looked at again as long as its connection is open; `None` if it has
/// shown nothing but a certificate or the token of a connection.
pub(super) fn credentials(request: &HttpRequest) -> Option<Kept> {
    let value = |name: &str| request.headers().get(name).map(|value| value.as_bytes().to_vec());
    let in_query = || {
        let token = is_web_socket(request.head()).then(|| in_query(request.query_string(), "access_token"))??;
        Some(format!("Bearer {token}").into_bytes())
    };
    let authorization = value(header::AUTHORIZATION.as_str()).or_else(in_query).map(Kept::Authorization);
    // Put there by the gate where it was a session's cookie that counted.
    let of_session = || request.extensions().get::<Kept>().cloned();
    authorization.or_else(|| value("x-api-key").map(Kept::ApiKey)).or_else(of_session)
}

/// Who has negotiated the connection that a request names.
pub fn owner(request: &ServiceRequest) -> Option<Arc<Principal>> {
    let door = request.app_data::<web::Data<Api>>()?.hub.clone()?;
    door.owner(&in_query(request.query_string(), "id")?)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_token_in_the_query_counts_for_web_sockets_alone() {
        let bearer = |uri: &str, upgrade: Option<&str>| {
            let mut request = TestRequest::with_uri(uri);
            if let Some(upgrade) = upgrade {
                request = request.insert_header((header::UPGRADE, upgrade));
            }
            bearer_in_query(&request.to_srv_request())
        };
        let with_token = "/hub/stream?id=a&access_token=t%2B1";
        assert_eq!(bearer(with_token, Some("WebSocket")).as_deref(), Some("Bearer t+1"));
        assert_eq!(bearer(with_token, Some("h2c, websocket")).as_deref(), Some("Bearer t+1"));
        for (uri, upgrade) in [
            (with_token, None),
            (with_token, Some("h2c")),
            ("/hub/stream?id=a", Some("websocket")),
            ("/hub/stream?access_token=", Some("websocket")),
            ("/hub/stream?xaccess_token=t", Some("websocket")),
        ] {
            assert_eq!(bearer(uri, upgrade), None, "{uri} {upgrade:?}");
        }
    }
}
