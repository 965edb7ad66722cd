//! The connections of the hub: negotiated, open, ended; and how many there may be.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{HubParts, HubSettings, unknown};
use crate::api::problem::{self, Problem};
use crate::auth::{Principal, Refusal};
use crate::login::{Gate, Kept};
use crate::manager::hub::{Caller, ConnectionId, HubService, Link, Opening, Outgoing, connect};
use crate::telemetry::metrics::Metrics;

/// How long the last frames of a connection wait for its client to poll them.
const LAST_POLL: Duration = Duration::from_secs(5);

/// Between two looks at the credentials that connections were opened with: as soon as a revoked key counts no more elsewhere.
const LOOK: Duration = Duration::from_secs(1);

/// Lets clients in, and knows who is there.
pub struct Door {
    service: Arc<dyn HubService>,
    pub(super) settings: HubSettings,
    shutting_down: CancellationToken,
    pub(super) runtime: Handle,
    metrics: Arc<Metrics>,
    connections: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    /// By token, which nobody but its owner knows.
    by_token: HashMap<String, Connection>,
    /// Those that were negotiated, in the order in which they will have waited too long.
    negotiated: VecDeque<(Instant, String)>,
    by_caller: HashMap<String, usize>,
}

struct Connection {
    id: ConnectionId,
    caller: Arc<Caller>,
    owner: Option<Arc<Principal>>,
    /// What its owner has shown last; `None` if that is looked at with each request, or nobody logs in.
    credentials: Option<Kept>,
    /// `None` until it is opened.
    open: Option<Open>,
}

#[derive(Clone)]
struct Open {
    link: Link,
    /// What polls take turns at; `None` where it does not poll.
    polled: Option<Polled>,
}

/// The frames for a client that polls.
pub(super) type Polled = Arc<tokio::sync::Mutex<Outgoing>>;

/// Who asks, and what they have shown for it.
pub(super) struct Identity {
    pub principal: Option<Arc<Principal>>,
    pub credentials: Option<Kept>,
}

/// What a client is told of a negotiated connection.
pub(super) struct Ticket {
    /// Public.
    pub id: Arc<str>,
    /// Secret.
    pub token: String,
}

/// A connection that has just been opened.
pub(super) struct Opened {
    pub link: Link,
    pub outgoing: Outgoing,
}

/// A poll of a connection.
pub(super) struct Poll {
    pub link: Link,
    pub frames: Polled,
    /// Whether it is the first.
    pub opens: bool,
}

/// There are as many connections as may be.
#[derive(Debug, thiserror::Error)]
pub(super) enum Full {
    #[error("You have {0} connections to the hub, which is as many as one caller may have: close one.")]
    OfCaller(usize),
    #[error("The hub has {0} connections, which is as many as it may have: try again later.")]
    OfAll(usize),
    #[error("The server stops. Connect again.")]
    Stopping,
    #[error("No token can be made now: try again later.")]
    NoToken,
}

impl From<Full> for Problem {
    fn from(full: Full) -> Problem {
        Problem::new(&problem::TOO_MANY_HUB_CONNECTIONS, full.to_string()).retry_after(5)
    }
}

impl Door {
    /// A hub of these parts. Must be called within a Tokio runtime that outlives it.
    pub fn new(parts: HubParts, shutting_down: CancellationToken, metrics: Arc<Metrics>) -> Arc<Door> {
        let HubParts { service, settings } = parts;
        let connections = Mutex::default();
        Arc::new(Door { service, settings, shutting_down, runtime: Handle::current(), metrics, connections })
    }

    /// A new connection that can be opened within some seconds by whoever knows its token.
    pub(super) fn negotiate(&self, caller: Arc<Caller>, identity: Identity) -> Result<Ticket, Full> {
        let token = token().ok_or(Full::NoToken)?;
        let mut connections = self.connections();
        connections.forget_unopened();
        self.check(&connections, &caller)?;
        let id = ConnectionId(public_id().into());
        let ticket = Ticket { id: Arc::clone(&id.0), token: token.clone() };
        connections.negotiated.push_back((Instant::now() + self.settings.open_within, token.clone()));
        let Identity { principal: owner, credentials } = identity;
        connections.insert(token, Connection { id, caller, owner, credentials, open: None });
        Ok(ticket)
    }

    /// Who has negotiated the connection of this token.
    pub(super) fn owner(&self, token: &str) -> Option<Arc<Principal>> {
        self.connections().by_token.get(token)?.owner.clone()
    }

    /// Opens a connection that was negotiated; `identity` is who asks for it.
    pub(super) fn open(self: &Arc<Self>, token: &str, identity: &Identity, polls: bool) -> Result<Opened, Problem> {
        let mut connections = self.connections();
        connections.forget_unopened();
        let connection = connections.by_token.get_mut(token).ok_or_else(unknown)?;
        connection.check_owner(identity)?;
        if connection.open.is_some() {
            let detail = "The connection is open already; a client that has lost it negotiates another one";
            return Err(Problem::new(&problem::HUB_CONNECTION_IN_USE, detail));
        }
        Ok(self.begin(token, connection, polls))
    }

    /// Opens a connection that nobody has negotiated.
    pub(super) fn open_new(self: &Arc<Self>, caller: Arc<Caller>, identity: Identity) -> Result<Opened, Problem> {
        let token = token().ok_or(Full::NoToken)?;
        let mut connections = self.connections();
        connections.forget_unopened();
        self.check(&connections, &caller)?;
        let Identity { principal: owner, credentials } = identity;
        let id = ConnectionId(public_id().into());
        let mut connection = Connection { id, caller, owner, credentials, open: None };
        let opened = self.begin(&token, &mut connection, false);
        connections.insert(token, connection);
        Ok(opened)
    }

    /// A poll: the first opens the connection.
    pub(super) fn poll(self: &Arc<Self>, token: &str, identity: &Identity) -> Result<Poll, Problem> {
        let known = {
            let mut connections = self.connections();
            let connection = connections.by_token.get_mut(token).ok_or_else(unknown)?;
            connection.check_owner(identity)?;
            connection.open.clone()
        };
        match known {
            Some(Open { link, polled: Some(frames) }) => Ok(Poll { link, frames, opens: false }),
            // It is taken from otherwise already, or opened just now, which says why not.
            _ => {
                let Opened { link, outgoing } = self.open(token, identity, true)?;
                let frames = Arc::new(tokio::sync::Mutex::new(outgoing));
                if let Some(connection) = self.connections().by_token.get_mut(token) {
                    connection.open = Some(Open { link: link.clone(), polled: Some(Arc::clone(&frames)) });
                }
                Ok(Poll { link, frames, opens: true })
            }
        }
    }

    /// How something is brought to an open connection.
    pub(super) fn link(&self, token: &str, identity: &Identity) -> Result<Link, Problem> {
        let mut connections = self.connections();
        let connection = connections.by_token.get_mut(token).ok_or_else(unknown)?;
        connection.check_owner(identity)?;
        connection.open.as_ref().map(|open| open.link.clone()).ok_or_else(unknown)
    }

    fn check(&self, connections: &Connections, caller: &Caller) -> Result<(), Full> {
        let HubSettings { max_connections, max_connections_per_caller, .. } = self.settings;
        if self.shutting_down.is_cancelled() {
            return Err(Full::Stopping);
        }
        if connections.by_token.len() >= max_connections {
            return Err(Full::OfAll(max_connections));
        }
        let own = connections.by_caller.get(&caller.counted_as).copied().unwrap_or(0);
        if own >= max_connections_per_caller { Err(Full::OfCaller(max_connections_per_caller)) } else { Ok(()) }
    }

    /// Has the session run until it ends.
    fn begin(self: &Arc<Self>, token: &str, connection: &mut Connection, polls: bool) -> Opened {
        let (link, outgoing, session) = connect(Opening {
            id: connection.id.clone(),
            caller: Arc::clone(&connection.caller),
            service: Arc::clone(&self.service),
            times: self.settings.times.clone(),
            stop: self.shutting_down.clone(),
            polls,
        });
        connection.open = Some(Open { link: link.clone(), polled: None });
        let place = Place { door: Arc::clone(self), token: token.to_owned() };
        let last = link.clone();
        self.metrics.hub_connections.inc();
        let run = session.run();
        self.runtime.spawn(async move {
            // Whatever comes of the session, even if a method panics, its place is free afterwards.
            let place = place;
            run.await;
            if polls && tokio::time::timeout(LAST_POLL, last.gone()).await.is_err() {
                tracing::debug!("a client did not come for its last frames");
            }
            drop(place);
        });
        Opened { link, outgoing }
    }

    /// Looks at what connections were opened with again and again, until the process stops: whoever could not come in any more
    /// does not stay either.
    pub fn look_at_credentials(self: &Arc<Self>, gate: Arc<Gate>) {
        let (door, stop) = (Arc::downgrade(self), self.shutting_down.clone());
        self.runtime.spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(LOOK) => {}
                }
                let Some(door) = door.upgrade() else { return };
                // Found first: nobody waits for the door while the gate is asked.
                let open = door.connections().with_credentials();
                for (link, owner, credentials) in open {
                    if let Some(why) = over(&gate, &owner, &credentials).await {
                        link.dismiss(&why);
                    }
                }
            }
        });
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open connection's place among all.
struct Place {
    door: Arc<Door>,
    token: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.door.metrics.hub_connections.dec();
        self.door.connections().remove(&self.token);
    }
}

impl Connection {
    /// What its owner shows takes the place of what was shown before.
    fn check_owner(&mut self, identity: &Identity) -> Result<(), Problem> {
        let shown = identity.principal.as_ref().map(|principal| &principal.name);
        if self.owner.as_ref().map(|owner| &owner.name) == shown {
            if identity.credentials.is_some() {
                self.credentials.clone_from(&identity.credentials);
            }
            return Ok(());
        }
        let detail = "The connection was negotiated by somebody else than these credentials are of";
        Err(Problem::new(&problem::HUB_CONNECTION_FOREIGN, detail))
    }
}

impl Connections {
    fn insert(&mut self, token: String, connection: Connection) {
        *self.by_caller.entry(connection.caller.counted_as.clone()).or_default() += 1;
        self.by_token.insert(token, connection);
    }

    fn remove(&mut self, token: &str) {
        let Some(connection) = self.by_token.remove(token) else { return };
        let who = &connection.caller.counted_as;
        if let Some(count) = self.by_caller.get_mut(who) {
            *count -= 1;
            if *count == 0 {
                self.by_caller.remove(who);
            }
        }
    }

    /// The open ones whose credentials can be looked at.
    fn with_credentials(&self) -> Vec<(Link, Arc<Principal>, Kept)> {
        let open = self.by_token.values();
        open.filter_map(|one| Some((one.open.as_ref()?.link.clone(), one.owner.clone()?, one.credentials.clone()?)))
            .collect()
    }

    /// Forgets what was negotiated and not opened in time.
    fn forget_unopened(&mut self) {
        let now = Instant::now();
        while self.negotiated.front().is_some_and(|(until, _)| *until <= now) {
            let Some((_, token)) = self.negotiated.pop_front() else { return };
            if self.by_token.get(&token).is_some_and(|connection| connection.open.is_none()) {
                self.remove(&token);
            }
        }
    }
}

/// Why these credentials do not count any more for this owner. While they cannot be judged the last verdict counts.
async fn over(gate: &Gate, owner: &Principal, credentials: &Kept) -> Option<String> {
    match gate.judge(credentials).await {
        Ok(now) if now.roles == owner.roles && now.name == owner.name => None,
        Ok(_) => Some(format!("What `{}` may do has changed. Connect again.", owner.name)),
        Err(Refusal::Unavailable(_)) => None,
        Err(refusal @ (Refusal::Invalid(_) | Refusal::Malformed(_))) => {
            Some(format!("The credentials of `{}` do not count any more: {refusal}.", owner.name))
        }
    }
}

/// 192 random bits, as they can stand in a query string.
fn token() -> Option<String> {
    use base64::Engine as _;
    let mut bytes = [0; 24];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}

/// What a connection is called in public. Nothing is opened by it.
fn public_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}
