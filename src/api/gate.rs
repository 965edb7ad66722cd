//! Lets callers through to a route, or answers in its place: by who they are where callers log in, else by who can reach the
//! port; and by how much they have called already.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header;
use actix_web::middleware::{Next, from_fn};
use actix_web::{Error, HttpMessage, HttpResponse, Route, guard, web};

use super::limits::{Budget, Caller, Counted, Kind, Limits};
use super::line::Line;
use super::problem::{self, Problem};
use super::routes::RouteSpec;
use super::{caller, hub, session};
use crate::auth::policy::{Denied, Exposure, Policy, allows, allows_principal};
use crate::auth::{Principal, Refusal};
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

/// What is left of the limit by which a request is counted, for whoever answers. Put among the request's extensions before.
#[derive(Debug, Clone, Default)]
pub(super) struct Spending(pub(super) Rc<Cell<Option<Budget>>>);

/// The route's handler behind its lock, or the refusal in its place; several where not all calls are counted, the first that
/// takes a request answers it.
pub(super) fn guarded(route: &RouteSpec, locks: &Locks, limits: &Arc<Limits>) -> Vec<Route> {
    let RouteSpec { policy, counted, connects, greets, .. } = *route;
    match locks {
        Locks::Open(exposure) => match allows(policy, *exposure) {
            Ok(()) => open(route, limits),
            Err(denied) => {
                vec![web::route().to(move || async move { Err::<HttpResponse, Problem>(denied.into()) })]
            }
        },
        Locks::Closed(gate) if greets => {
            let (gate, limits) = (Arc::clone(gate), Arc::clone(limits));
            vec![(route.handler)().wrap(from_fn(move |request, next| {
                greet((Arc::clone(&gate), Arc::clone(&limits)), counted, request, next)
            }))]
        }
        Locks::Closed(_) if policy.roles().is_empty() => vec![(route.handler)()],
        Locks::Closed(gate) => {
            let (gate, limits) = (Arc::clone(gate), Arc::clone(limits));
            vec![(route.handler)().wrap(from_fn(move |request, next| {
                pass((Arc::clone(&gate), Arc::clone(&limits)), (policy, counted, connects), request, next)
            }))]
        }
    }
}

/// Where nobody logs in: what is not counted costs nothing.
fn open(route: &RouteSpec, limits: &Arc<Limits>) -> Vec<Route> {
    let Some(kind) = route.counted.kind().filter(|kind| limits.has(*kind)) else { return vec![(route.handler)()] };
    let limits = Arc::clone(limits);
    let behind = (route.handler)().wrap(from_fn(move |request, next| count(Arc::clone(&limits), kind, request, next)));
    match route.counted {
        counted @ Counted::With(..) => {
            let is_counted = move |asked: &guard::GuardContext<'_>| {
                asked.head().uri.query().is_some_and(|query| counted.kind_of(query).is_some())
            };
            vec![behind.guard(guard::fn_guard(is_counted)), (route.handler)()]
        }
        _ => vec![behind],
    }
}

/// Counts the request.
async fn count<B: MessageBody + 'static>(
    limits: Arc<Limits>,
    kind: Kind,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    spend(&limits, kind, &Caller::at(caller::address(request.request())), &request)?;
    next.call(request).await
}

/// Whom the request is of is put among its extensions.
async fn pass<B: MessageBody + 'static>(
    (gate, limits): (Arc<Gate>, Arc<Limits>),
    (policy, counted, connects): (Policy, Counted, bool),
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let principal = log_in(&gate, &limits, &request, connects).await?;
    if let Some(principal) = &principal {
        request.extensions_mut().insert(Arc::clone(principal));
        if let Some(by) = request.extensions().get::<By>() {
            by.0.replace(Some(principal.name.clone()));
        }
    }
    allows_principal(policy, principal.as_deref(), gate.anonymous).map_err(Problem::from)?;
    if let Some(kind) = counted.kind_of(request.query_string()) {
        let caller = match principal {
            Some(principal) => Caller::Principal(principal.name.clone()),
            None => Caller::at(caller::address(request.request())),
        };
        spend(&limits, kind, &caller, &request)?;
    }
    next.call(request).await
}

/// Lets everybody in, and has the handler know who it is.
async fn greet<B: MessageBody + 'static>(
    (gate, limits): (Arc<Gate>, Arc<Limits>),
    counted: Counted,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    if let Ok(Some(principal)) = log_in(&gate, &limits, &request, false).await {
        request.extensions_mut().insert(principal);
    }
    if let Some(kind) = counted.kind_of(request.query_string()) {
        spend(&limits, kind, &Caller::at(caller::address(request.request())), &request)?;
    }
    next.call(request).await
}

/// Who has logged in. Who is known already comes in whatever is going on at their address; whoever is not may be anybody, and
/// finding out costs more than asking.
async fn log_in(
    gate: &Gate,
    limits: &Limits,
    request: &ServiceRequest,
    connects: bool,
) -> Result<Option<Arc<Principal>>, Problem> {
    let values = |name| request.headers().get_all(name).map(header::HeaderValue::as_bytes).collect::<Vec<_>>();
    let (mut authorization, api_key) = (values(header::AUTHORIZATION.as_str()), values("x-api-key"));
    let in_query = if connects { hub::bearer_in_query(request) } else { None };
    authorization.extend(in_query.as_deref().map(str::as_bytes));
    let Some(shown) = gate.shown(&authorization, &api_key)? else {
        if let Some(kept) = session::kept(gate, request) {
            let judged = gate.judge(&kept).await;
            // A session whose key was revoked is none.
            if let Some(principal) = judged.as_ref().ok().cloned() {
                request.extensions_mut().insert(kept);
                return Ok(Some(principal));
            }
            if let Err(refusal @ Refusal::Unavailable(_)) = judged {
                return Err(refusal.into());
            }
        }
        let certified = match request.conn_data::<Line>() {
            Some(line) => line.principal(gate)?,
            None => None,
        };
        return Ok(certified.or_else(|| if connects { hub::owner(request) } else { None }));
    };
    if let Some(principal) = shown.known() {
        return Ok(Some(principal));
    }
    spend(limits, Kind::LogIns, &Caller::at(caller::address(request.request())), request)?;
    Ok(Some(shown.find().await?))
}

/// Counts a call of this kind, and refuses it if it is one too many.
fn spend(limits: &Limits, kind: Kind, caller: &Caller, request: &ServiceRequest) -> Result<(), Problem> {
    let Some(budget) = limits.spend(kind, caller) else { return Ok(()) };
    // How often somebody may log in is said to whom it stops.
    if (kind != Kind::LogIns || budget.is_refused())
        && let Some(spending) = request.extensions().get::<Spending>()
    {
        spending.0.set(Some(budget));
    }
    budget.checked()
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
