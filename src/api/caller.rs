//! Who calls: the principal that has logged in, and the address that the call comes from. Whether they may is the gate's.

use std::net::IpAddr;
use std::sync::Arc;

use actix_web::{HttpMessage, HttpRequest, web};

use super::Api;
use crate::auth::Principal;

/// Whose a call is, and for whom.
#[derive(Debug, PartialEq, Eq)]
pub struct Attributed {
    /// Who has logged in; where nobody does, whoever the body names.
    pub actor: Option<String>,
    /// Whom somebody who has logged in names.
    pub on_behalf_of: Option<String>,
}

/// Who has logged in.
pub fn principal(request: &HttpRequest) -> Option<Arc<Principal>> {
    request.extensions().get::<Arc<Principal>>().cloned()
}

/// Whose call it is whose body names `named`: who has logged in, whatever the body says.
pub fn attribute(request: &HttpRequest, named: Option<String>) -> Attributed {
    match principal(request) {
        Some(principal) => Attributed { actor: Some(principal.name.clone()), on_behalf_of: named },
        None => Attributed { actor: named, on_behalf_of: None },
    }
}

/// Where the call comes from: the other end of its connection, or, where that is a proxy that the settings trust, whom it names.
pub fn address(request: &HttpRequest) -> Option<IpAddr> {
    let peer = request.peer_addr()?.ip();
    Some(match request.app_data::<web::Data<Api>>() {
        Some(api) => api.proxies.caller(peer, request.headers()),
        None => peer.to_canonical(),
    })
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;
    use crate::auth::role::Role;

    #[test]
    fn who_has_logged_in_wins_over_whom_the_body_names() {
        let named = || Some("night shift".to_owned());
        let request = TestRequest::default().to_http_request();
        assert_eq!(attribute(&request, named()), Attributed { actor: named(), on_behalf_of: None });
        assert_eq!(attribute(&request, None), Attributed { actor: None, on_behalf_of: None });
        let principal = Principal { name: "ada".to_owned(), roles: Role::Operator.into() };
        request.extensions_mut().insert(Arc::new(principal));
        let ada = || Some("ada".to_owned());
        assert_eq!(attribute(&request, named()), Attributed { actor: ada(), on_behalf_of: named() });
        assert_eq!(attribute(&request, None), Attributed { actor: ada(), on_behalf_of: None });
    }
}
