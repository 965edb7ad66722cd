//! The HTTP side: route table, error format, health, operations, documentation. Knows no view; each brings its own routes
//! (`views/*/api.rs`), and whoever starts the server says which.

pub mod answer;
pub mod body;
pub mod caller;
pub mod changes;
pub mod etag;
pub mod gate;
pub mod health;
pub mod hub;
pub mod idempotency;
pub mod limits;
pub mod line;
pub mod openapi;
pub mod ops;
pub mod origin;
pub mod pages;
pub mod parameters;
pub mod paths;
pub mod problem;
pub mod proxies;
pub mod queries;
pub mod routes;
pub mod session;
pub mod skip_to;
pub mod sse;
pub mod starting;
pub mod streams;
pub mod ui;
mod unread;
pub mod wire;

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use actix_web::dev::Server;
use actix_web::dev::ServerHandle;
use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, web};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::gate::Locks;
use self::health::Check;
use self::hub::{Door, HubParts, Metered, PollsOfLine};
use self::limits::{Kind, Limits};
use self::line::Lines;
pub use self::openapi::openapi;
use self::origin::Pages;
use self::problem::{CODES, Code};
use self::proxies::Proxies;
use self::routes::ViewApi;
use crate::auth::policy::Exposure;
use crate::board::ViewBoard;
use crate::certificates::Certificates;
use crate::config::{DatabaseSettings, HttpSettings};
use crate::feed::changes::{Feed, FeedResources};
use crate::feed::waiters::{WaitResources, Waiters};
use crate::login::Gate;
use crate::login::audit::AuditLog;
use crate::manager::Manager;
use crate::manager::live::Live;
use crate::repair::Desk;
use crate::repair::operations::Ahead;
use crate::status::ViewStatus;
use crate::store::pool::{WatchPools, WriterPool};
use crate::store::read::ReadPool;
use crate::telemetry::metrics::Metrics;

/// The route label of requests that no route matches.
pub const UNMATCHED: &str = "unmatched";

const KEEP_ALIVE: Duration = Duration::from_secs(75);
const CLIENT_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const CLIENT_DISCONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// When the process stops, so long everybody has to send the rest of a request, and, where clients follow, to take the rest of an
/// answer: one that does nothing would hold up all.
const LAST_WORDS: Duration = Duration::from_secs(2);
const MAX_CONNECTIONS_PER_WORKER: usize = 10_000;
/// Connections that wait to be accepted at most.
const BACKLOG: i32 = 1_024;

/// Looks what can be expected of a rebuild of a view, by name; it takes seconds at most.
pub type AheadOf = Arc<dyn Fn(&'static str) -> Ahead + Send + Sync>;

/// How an engine of the stream manager has answered lately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineSeen {
    /// Its name.
    pub engine: &'static str,
    /// Why it did not answer when it was asked last; `None`: it did.
    pub trouble: Option<String>,
}

/// The engines that were asked lately.
pub type EnginesOf = Arc<dyn Fn() -> Vec<EngineSeen> + Send + Sync>;

/// What the API needs of the process.
#[derive(Clone)]
pub struct ApiState {
    /// What views are read by; nothing is written over it.
    pub pool: ReadPool,
    /// What operators read by: the same, unless views are read by an address of their own.
    pub ops_pool: ReadPool,
    /// What tells whether the databases answer, however busy readers are.
    pub watch: WatchPools,
    /// For the few requests that write.
    pub database: DatabaseSettings,
    /// Address and limits.
    pub settings: HttpSettings,
    /// What connections are encrypted with; `None` where they are not.
    pub certificates: Option<Arc<Certificates>>,
    /// Where callers log in; `None` where nobody does.
    pub gate: Option<Arc<Gate>>,
    /// Where calls are noted that change something or are refused.
    pub audit: AuditLog,
    /// Whether the views' own routes are served; if not, only health, metrics, documentation and operations are.
    pub serve_reads: bool,
    /// The views that run here or are served from here; the first is the default of `/ops/lags`.
    pub views: Vec<Arc<ViewBoard>>,
    /// The repair desks of these views.
    pub desks: Vec<Desk>,
    /// Looks what can be expected of a rebuild of a view.
    pub ahead: AheadOf,
    /// The hub of the stream manager, where there is one.
    pub hub: Option<HubParts>,
    /// Rows of the stream manager for people who look, where it is enabled and reads are served.
    pub live: Option<Live>,
    /// The stream manager, where it is enabled and reads are served.
    pub manager: Option<Manager>,
    /// How its engines have answered lately, by name; looked at by `/readyz`.
    pub engines: EnginesOf,
    /// The metric catalogue.
    pub metrics: Arc<Metrics>,
    /// Cancelled when the process begins to stop: `/readyz` answers 503, waits and streams end.
    pub shutting_down: CancellationToken,
    /// Requests that have no answer yet.
    pub under_way: Arc<AtomicUsize>,
}

impl ApiState {
    /// Whether anybody follows changes from here, or is connected to the hub.
    pub fn is_followed(&self) -> bool {
        self.metrics.followers.get() > 0 || self.metrics.hub_connections.get() > 0
    }

    /// Returns when those who followed changes as the process began to stop have had their time to take the end of their
    /// stream, and everybody else has an answer. Who is still there then takes nothing.
    pub async fn only_deaf_left(&self) {
        self.shutting_down.cancelled().await;
        tokio::time::sleep(LAST_WORDS).await;
        while self.under_way.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(LAST_WORDS / 20).await;
        }
    }
}

/// What the handlers share.
pub struct Api {
    /// What the process gave.
    pub state: ApiState,
    /// The OpenAPI document with the limits in force.
    pub openapi: web::Bytes,
    /// Every problem code.
    pub problems: Vec<&'static Code>,
    /// Web pages of other origins, and what they may.
    pub pages: Pages,
    /// Proxies that are believed whom they call for.
    pub proxies: Proxies,
    /// The hub, where there is one.
    pub hub: Option<Arc<Door>>,
    /// What is written by on behalf of operators: the desks' own, so that all of them together have few connections.
    pub writers: WriterPool,
    /// What each caller may ask how often.
    pub limits: Arc<Limits>,
    waiters: HashMap<&'static str, Arc<Waiters>>,
    feeds: HashMap<&'static str, Arc<Feed>>,
    database_check: Mutex<Option<(Instant, Vec<Check>)>>,
}

impl Api {
    /// Those who wait for `view`; `None` if the view is not served from here.
    pub fn waiters(&self, view: &str) -> Option<&Arc<Waiters>> {
        self.waiters.get(view)
    }

    /// Those who follow `view`; `None` if the view is not served from here.
    pub fn feed(&self, view: &str) -> Option<&Arc<Feed>> {
        self.feeds.get(view)
    }

    fn database_check(&self) -> MutexGuard<'_, Option<(Instant, Vec<Check>)>> {
        self.database_check.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state of each view, as of the build that readers read.
fn views_of(state: &ApiState) -> Vec<Arc<ViewStatus>> {
    state.views.iter().map(|board| board.status()).collect()
}

/// Binds the address. Who connects from now on waits until somebody serves over it.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a process that was here before are in nobody's way.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Makes the server, which serves over the listener while it is polled. Returns the bound addresses too, so that port 0 can be
/// used. Must be called within a Tokio runtime that outlives the server.
///
/// Signals are the caller's: stop it with [`actix_web::dev::ServerHandle::stop`]. `views` are the APIs of the views; each is
/// in the documentation, but its routes exist only where the view is in `state.views` and reads are served.
pub fn serve(state: ApiState, listener: TcpListener, views: Vec<ViewApi>) -> io::Result<(Server, Vec<SocketAddr>)> {
    let settings = state.settings.clone();
    let locks = match &state.gate {
        Some(gate) => Locks::Closed(Arc::clone(gate)),
        None if settings.allows_operations() => Locks::Open(Exposure::Trusted),
        None => Locks::Open(Exposure::Strangers),
    };
    let limits = Arc::new(Limits::new(&settings.rate_limits));
    let document = openapi::with_limits(&openapi(&views), &settings);
    let views: Vec<_> = views
        .into_iter()
        .filter(|api| state.serve_reads && state.views.iter().any(|board| board.view == api.view))
        .collect();
    let mut table = routes::table(&views);
    let mut state = state;
    if let Some(hub) = &mut state.hub {
        hub.service = Arc::new(Metered::new(Arc::clone(&hub.service), Arc::clone(&limits)));
    }
    let has_hub = state.hub.is_some();
    if has_hub {
        table.extend(hub::routes());
    }
    let of_worker: Vec<_> = views.iter().map(|view| view.of_worker).collect();
    let lines = Lines {
        certificates: state.certificates.clone(),
        send_timeout: Duration::from_millis(settings.send_timeout_ms),
        shutting_down: state.shutting_down.clone(),
        are_watched: has_hub || state.live.is_some(),
    };
    let tls = state.certificates.as_ref().map(Certificates::server_config).transpose().map_err(io::Error::other)?;
    let api = web::Data::new(shared(state, &views, document, Arc::clone(&limits)));
    let workers = match settings.workers {
        0 => std::thread::available_parallelism().map_or(2, usize::from),
        workers => workers,
    };
    let server = HttpServer::new(move || {
        App::new()
            .app_data(api.clone())
            .wrap(from_fn(answer::finish))
            .configure(|config| of_worker.iter().for_each(|give| give(&api.state, config)))
            .configure(|config| routes::register(config, &table, &locks, &limits))
    })
    .workers(workers)
    .on_connect(move |connection, kept| {
        lines.open(connection, kept);
        if has_hub {
            kept.insert(PollsOfLine::default());
        }
    })
    .keep_alive(KEEP_ALIVE)
    // A row is sent when it is there. Else the kernel keeps it until what was sent before has been answered for, which a client's
    // kernel may leave for 40 ms each time, and the end of a long answer as well.
    .tcp_nodelay(true)
    // Who closes its side has gone away, and its place is free: a stream would notice when it is next sent something.
    .h1_allow_half_closed(false)
    .client_request_timeout(CLIENT_REQUEST_TIMEOUT)
    .client_disconnect_timeout(CLIENT_DISCONNECT_TIMEOUT)
    .max_connections(MAX_CONNECTIONS_PER_WORKER)
    .shutdown_timeout(settings.shutdown_timeout_ms.div_ceil(1000))
    .disable_signals();
    let server = match tls {
        // Whoever does not come to the end of a handshake keeps nobody else from beginning one.
        Some(tls) => server
            .tls_handshake_timeout(TLS_HANDSHAKE_TIMEOUT)
            .max_connection_rate(MAX_CONNECTIONS_PER_WORKER)
            .listen_rustls_0_23(listener, tls)?,
        None => server.listen(listener)?,
    };
    let addresses = server.addrs();
    Ok((server.run(), addresses))
}

/// Waits until every request is answered, but for those of clients that take nothing; `is_followed`: whether any followed changes
/// when the process began to stop.
pub async fn answered(server: &ServerHandle, left: &ApiState, is_followed: bool) {
    tokio::select! {
        () = server.stop(true) => {}
        () = left.only_deaf_left(), if is_followed => tracing::info!("clients that take nothing are cut off"),
    }
}

fn shared(state: ApiState, views: &[ViewApi], document: Vec<u8>, limits: Arc<Limits>) -> Api {
    let resources = WaitResources {
        pool: state.pool.clone(),
        reads_apart: state.database.reads_apart(),
        metrics: Arc::clone(&state.metrics),
        shutting_down: state.shutting_down.clone(),
        slots: Arc::new(Semaphore::new(state.settings.max_waiters)),
        runtime: Handle::current(),
    };
    let following = FeedResources {
        pool: state.pool.clone(),
        primary: state.database.reads_apart().then(|| state.ops_pool.clone()),
        metrics: Arc::clone(&state.metrics),
        shutting_down: state.shutting_down.clone(),
        slots: Arc::new(Semaphore::new(state.settings.max_followers)),
        buffer: state.settings.follower_buffer,
        runtime: Handle::current(),
    };
    for kind in Kind::ALL {
        state.metrics.rate_limited.with_label_values(&[kind.as_str()]);
    }
    let (mut waiters, mut feeds) = (HashMap::new(), HashMap::new());
    for api in views {
        for board in state.views.iter().filter(|board| board.view == api.view) {
            waiters.insert(api.view, Waiters::new(Arc::clone(board), api.sequences, resources.clone()));
            feeds.insert(api.view, Feed::new(Arc::clone(board), api.shown, following.clone()));
        }
    }
    let of_views = views.iter().flat_map(|view| view.problems.iter().copied());
    let hub = state.hub.clone();
    let hub = hub.map(|parts| {
        let door = Door::new(parts, state.shutting_down.clone(), Arc::clone(&state.metrics));
        state.gate.clone().inspect(|gate| door.look_at_credentials(Arc::clone(gate)));
        door
    });
    Api {
        openapi: document.into(),
        problems: CODES
            .iter()
            .chain(streams::problems::CODES)
            .chain(queries::problems::CODES)
            .chain(session::CODES)
            .copied()
            .chain(of_views)
            .collect(),
        pages: Pages::new(&state.settings, state.gate.is_some()),
        proxies: Proxies::new(&state.settings.trusted_proxies),
        hub,
        writers: state.desks.first().map_or_else(|| WriterPool::new(&state.database), Desk::writers),
        limits,
        state,
        waiters,
        feeds,
        database_check: Mutex::new(None),
    }
}
