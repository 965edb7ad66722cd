//! The hub over HTTP: negotiation, and SignalR's three transports (source: its TransportProtocols specification). What is said
//! over them is [`crate::manager::hub`]'s.
//!
//! | request | WebSocket | Server-Sent Events | long polling |
//! |---|---|---|---|
//! | `POST …/negotiate` | optional | asks for a token | asks for a token |
//! | `GET ?id=` | both ways | frames | frames, one poll after the other |
//! | `POST ?id=` | – | messages | messages |
//! | `DELETE ?id=` | – | – | the end |
//!
//! The token of a connection is as good as the credentials that it was negotiated with, until it ends: the query strings that
//! it stands in are nowhere written down, and neither is `access_token`.

mod audited;
mod door;
mod entry;
mod events;
mod metered;
mod polling;
mod silence;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::Method;
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, Route, web};
use serde_json::json;

pub use self::audited::Audited;
pub use self::door::Door;
use self::door::Identity;
pub(super) use self::entry::{bearer_in_query, is_web_socket, owner};
pub use self::metered::Metered;
pub(super) use self::polling::PollsOfLine;
use super::limits::{Caller as Counts, Counted, Kind};
use super::problem::{self, Problem};
use super::routes::RouteSpec;
use super::{Api, body, caller};
use crate::auth::policy::Policy;
use crate::auth::role::{Role, Roles};
use crate::config::HttpSettings;
use crate::manager::hub::{Caller, HubService, HubTimes, Incoming};

/// Where the hub is; the second is what the first versions of the original called it.
const PATHS: [(&str, &str); 2] = [("/hub/stream", "/hub/stream/negotiate"), ("/hub/ksql", "/hub/ksql/negotiate")];
/// Bytes that a client may bring at once: some messages.
const MOST_BYTES: usize = 64 * 1024;

/// What a hub is made of.
#[derive(Clone)]
pub struct HubParts {
    /// What can be called.
    pub service: Arc<dyn HubService>,
    /// What can be set.
    pub settings: HubSettings,
}

/// What can be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubSettings {
    /// How long things may take.
    pub times: HubTimes,
    /// Connections of all at once, with those that are negotiated and not open yet.
    pub max_connections: usize,
    /// Connections of one caller.
    pub max_connections_per_caller: usize,
    /// How long a poll is held.
    pub poll: Duration,
    /// How long a negotiated connection waits to be opened. Clients that try the next transport leave it behind.
    pub open_within: Duration,
}

impl HubSettings {
    /// Those of the service.
    pub fn of(http: &HttpSettings) -> HubSettings {
        HubSettings {
            max_connections: http.max_hub_connections,
            max_connections_per_caller: http.max_hub_connections_per_caller,
            ..HubSettings::default()
        }
    }
}

impl Default for HubSettings {
    fn default() -> Self {
        HubSettings {
            times: HubTimes::default(),
            max_connections: 5_000,
            max_connections_per_caller: 100,
            // Proxies give up after 60 s, clients after 100 s.
            poll: Duration::from_secs(50),
            open_within: Duration::from_secs(15),
        }
    }
}

/// The routes, where there is a hub.
pub(super) fn routes() -> Vec<RouteSpec> {
    let route = |method, path, handler: fn() -> Route| RouteSpec::new(method, path, Policy::Reader, handler).connects();
    let of = |(hub, negotiate): (&'static str, &'static str)| {
        [
            RouteSpec::new(Method::POST, negotiate, Policy::Reader, || web::route().to(negotiated))
                .counted(Counted::As(Kind::Streams)),
            route(Method::GET, hub, || web::route().to(taken)),
            route(Method::POST, hub, || web::route().to(brought)),
            route(Method::DELETE, hub, || web::route().to(ended)),
        ]
    };
    PATHS.into_iter().flat_map(of).collect()
}

/// The hub of the process.
fn door(api: &Api) -> Result<&Arc<Door>, Problem> {
    api.hub.as_ref().ok_or_else(|| Problem::new(&problem::NOT_FOUND, "There is no hub here"))
}

/// `POST …/negotiate`. That there are too many connections is said in the answer: clients show that, and nothing else.
async fn negotiated(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    let asked = entry::parameter(&request, "negotiateVersion").and_then(|version| version.parse::<u64>().ok());
    let version = asked.unwrap_or(0).min(1);
    let answer = match door(&api)?.negotiate(who(&request, &api), identity(&request)) {
        Err(full) => json!({ "error": full.to_string() }),
        Ok(ticket) => {
            // Text is JSON. MessagePack would be Binary: who speaks nothing else is told here, and not by a broken connection.
            let transports = json!([
                { "transport": "WebSockets", "transferFormats": ["Text"] },
                { "transport": "ServerSentEvents", "transferFormats": ["Text"] },
                { "transport": "LongPolling", "transferFormats": ["Text"] },
            ]);
            match version {
                // These clients name the connection by what they take for its id.
                0 => json!({ "negotiateVersion": 0, "connectionId": ticket.token, "availableTransports": transports }),
                _ => json!({
                    "negotiateVersion": 1,
                    "connectionId": ticket.id,
                    "connectionToken": ticket.token,
                    "availableTransports": transports,
                }),
            }
        }
    };
    Ok(HttpResponse::Ok().json(answer))
}

/// Counts a connection that nobody has negotiated.
fn count(api: &Api, request: &HttpRequest) -> Result<(), Problem> {
    let caller = match caller::principal(request) {
        Some(principal) => Counts::Principal(principal.name.clone()),
        None => Counts::at(caller::address(request)),
    };
    api.limits.spend(Kind::Streams, &caller).map_or(Ok(()), |budget| budget.checked())
}

/// Who has logged in, and by what.
fn identity(request: &HttpRequest) -> Identity {
    Identity { principal: caller::principal(request), credentials: entry::credentials(request) }
}

/// Who calls, and what they may.
fn who(request: &HttpRequest, api: &Api) -> Arc<Caller> {
    let principal = caller::principal(request);
    let may = |role: Role| match &api.state.gate {
        Some(gate) => {
            let own = principal.as_ref().map_or(Roles::NONE, |principal| principal.roles);
            own.may(role) || gate.anonymous.may(role)
        }
        // As everywhere where nobody logs in: who is near enough decides.
        None => api.state.settings.allows_operations(),
    };
    let name = principal.as_ref().map(|principal| principal.name.clone());
    let from = caller::address(request);
    let counted_as = name.clone().unwrap_or_else(|| Counts::at(from).to_string());
    let address = from.map_or_else(|| "unknown".to_owned(), |address| address.to_string());
    Arc::new(Caller { name, counted_as, address, may_develop: may(Role::Developer), may_operate: may(Role::Operator) })
}

/// `GET`: the way from the hub to the client, and for WebSockets both.
async fn taken(request: HttpRequest, payload: web::Payload, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    let door = door(&api)?;
    if request.method() == Method::HEAD {
        return Ok(HttpResponse::Ok().finish());
    }
    let token = entry::parameter(&request, "id");
    if is_web_socket(request.head()) {
        let opened = match &token {
            Some(token) => door.open(token, &identity(&request), false)?,
            // What a negotiation would have been counted as.
            None => {
                count(&api, &request)?;
                door.open_new(who(&request, &api), identity(&request))?
            }
        };
        silence::watch(&request, opened.link.clone());
        return websocket::answer(&request, payload, opened);
    }
    let token = token.ok_or_else(lacks_id)?;
    let accepts = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    if accepts.is_some_and(|accept| accept.contains("text/event-stream")) {
        let opened = door.open(&token, &identity(&request), false)?;
        silence::watch(&request, opened.link.clone());
        return Ok(events::answer(opened));
    }
    polling::answer(&request, door, &token).await
}

/// `POST`: messages of a client that takes its own by events or polls.
async fn brought(request: HttpRequest, payload: web::Payload, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    let door = door(&api)?;
    let token = entry::parameter(&request, "id").ok_or_else(lacks_id)?;
    let link = door.link(&token, &identity(&request))?;
    // Of one that is too long the connection is told by its other half.
    let bytes = body::whole(&request, payload, MOST_BYTES).await?;
    let incoming = bytes.map_or(Incoming::TooLong, |bytes| Incoming::Piece(bytes.to_vec()));
    match link.bring(incoming).await {
        true => Ok(HttpResponse::Ok().content_type("text/plain").finish()),
        false => Err(unknown()),
    }
}

/// `DELETE`: the end, as clients that poll say it.
async fn ended(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    let token = entry::parameter(&request, "id").ok_or_else(lacks_id)?;
    door(&api)?.link(&token, &identity(&request))?.lost();
    Ok(HttpResponse::Accepted().content_type("text/plain").finish())
}

fn lacks_id() -> Problem {
    let detail = "`id`: is missing; it is the connectionToken that `POST …/negotiate` has given";
    Problem::new(&problem::INVALID_PARAMETER, detail)
}

fn unknown() -> Problem {
    Problem::new(&problem::HUB_CONNECTION_NOT_FOUND, "No connection has this id, or it has ended")
}
