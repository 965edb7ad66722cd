//! Lets callers through to a route, or answers in its place: by who they are where callers log in, else by who can reach the
//! port.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header;
use actix_web::middleware::{Next, from_fn};
use actix_web::{Error, HttpMessage, HttpResponse, Route, web};

use super::line::Line;
use super::problem::{self, Problem};
use super::routes::RouteSpec;
use crate::auth::Refusal;
use crate::auth::policy::{Denied, Exposure, Policy, allows, allows_principal};
use crate::login::Gate;

/// How `WWW-Authenticate` begins: RFC 6750.
const CHALLENGE: &str = "Bearer realm=\"streamview\"";
/// Seconds after which credentials that cannot be judged now may be shown again.
const RETRY_AFTER: u32 = 2;

/// How routes are closed.
#[derive(Clone)]
pub enum Locks {
    /// Nobody logs in.
    Open(Exposure),
    /// Callers log in here.
    Closed(Arc<Gate>),
}

/// Whom a request turns out to be of, for whoever looks when it is answered. Put among the request's extensions before.
#[derive(Debug, Clone, Default)]
pub(super) struct By(pub(super) Rc<RefCell<Option<String>>>);

/// The route's handler behind its lock, or the refusal in its place.
pub(super) fn guarded(route: &RouteSpec, locks: &Locks) -> Route {
    let policy = route.policy;
    match locks {
        Locks::Open(exposure) => match allows(policy, *exposure) {
            Ok(()) => (route.handler)(),
            Err(denied) => web::route().to(move || async move { Err::<HttpResponse, Problem>(denied.into()) }),
        },
        Locks::Closed(_) if policy.role().is_none() => (route.handler)(),
        Locks::Closed(gate) => {
            let gate = Arc::clone(gate);
            (route.handler)().wrap(from_fn(move |request, next| pass(Arc::clone(&gate), policy, request, next)))
        }
    }
}

/// Whom the request is of is put among its extensions.
async fn pass<B: MessageBody + 'static>(
    gate: Arc<Gate>,
    policy: Policy,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let values = |name| request.headers().get_all(name).map(header::HeaderValue::as_bytes).collect::<Vec<_>>();
    let (authorization, api_key) = (values(header::AUTHORIZATION.as_str()), values("x-api-key"));
    let mut principal = gate.who(&authorization, &api_key).await.map_err(Problem::from)?;
    if let (None, Some(line)) = (&principal, request.conn_data::<Line>()) {
        principal = line.principal(&gate).map_err(Problem::from)?;
    }
    if let Some(principal) = &principal {
        request.extensions_mut().insert(Arc::clone(principal));
        if let Some(by) = request.extensions().get::<By>() {
            by.0.replace(Some(principal.name.clone()));
        }
    }
    allows_principal(policy, principal.as_deref(), gate.anonymous).map_err(Problem::from)?;
    next.call(request).await
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Malformed(why) => {
                Problem::new(&problem::INVALID_CREDENTIALS, sentence(why)).challenge(invalid(why))
            }
            Refusal::Invalid(why) => {
                Problem::new(&problem::INVALID_CREDENTIALS, sentence(&why)).challenge(invalid(&why))
            }
            Refusal::Unavailable(why) => {
                Problem::new(&problem::LOGIN_UNAVAILABLE, sentence(&why)).retry_after(RETRY_AFTER)
            }
        }
    }
}

fn invalid(why: &str) -> String {
    format!("{CHALLENGE}, error=\"invalid_token\", error_description=\"{why}\"")
}

fn sentence(why: &str) -> String {
    let mut letters = why.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::OperationsNotAllowed => {
                let detail = "http.bind is not a loopback address, and http.allow_anonymous_operations is false";
                Problem::new(&problem::OPERATIONS_NOT_ALLOWED, detail)
            }
            Denied::LogIn => {
                let detail = "Show an API key or a token in `Authorization: Bearer …`";
                Problem::new(&problem::NOT_LOGGED_IN, detail).challenge(CHALLENGE.to_owned())
            }
            Denied::Lacks(role) => {
                let role = role.as_str();
                let challenge = format!("{CHALLENGE}, error=\"insufficient_scope\", scope=\"{role}\"");
                Problem::new(&problem::ROLE_MISSING, format!("This route asks for the role `{role}`"))
                    .challenge(challenge)
                    .with("requiredRole", role)
            }
        }
    }
}
