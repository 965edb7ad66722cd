//! What is answered as long as Postgres has not told which builds there are: that the process lives, what it waits for, and its
//! metrics. Whoever wants anything else has to come again. Knows no view but by name.

use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_web::http::{KeepAlive, Method};
use actix_web::middleware::from_fn;
use actix_web::{App, HttpResponse, HttpServer, web};
use futures_util::future::join;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::gate::Locks;
use super::limits::Limits;
use super::line::Lines;
use super::problem::{self, Problem};
use super::routes::{self, RouteSpec};
use super::{
    CLIENT_DISCONNECT_TIMEOUT, CLIENT_REQUEST_TIMEOUT, MAX_CONNECTIONS_PER_WORKER, TLS_HANDSHAKE_TIMEOUT, answer,
    health, pages,
};
use crate::auth::policy::{Exposure, Policy};
use crate::certificates::Certificates;
use crate::config::HttpSettings;
use crate::status::ViewState;
use crate::telemetry::metrics::Metrics;

/// Seconds after which it is worth coming again.
const RETRY_AFTER: u32 = 2;
/// Seconds that answers under way have when there is more to serve: none takes long.
const LAST_ANSWERS: u64 = 1;

/// A process that does not serve its views yet.
pub struct Starting {
    views: Vec<&'static str>,
    metrics: Arc<Metrics>,
    waits_for: Mutex<Option<String>>,
}

impl Starting {
    /// One that has not been told yet, and of which nothing is known to be wrong.
    pub fn new(views: Vec<&'static str>, metrics: Arc<Metrics>) -> Arc<Starting> {
        Arc::new(Starting { views, metrics, waits_for: Mutex::default() })
    }

    /// Postgres does not tell, for that reason.
    pub fn waits(&self, reason: String) {
        *self.waits_for.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }

    fn reason(&self) -> Option<String> {
        self.waits_for.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Who answers meanwhile.
pub struct Answering {
    over: DropGuard,
    serving: JoinHandle<()>,
}

impl Answering {
    /// Ends it. Who calls from then on waits for who serves next.
    pub async fn end(self) {
        drop(self.over);
        // What it died of is in the log.
        self.serving.await.ok();
    }
}

/// Answers over that listener until it is ended, or what is given back is dropped; others can serve over it as well. Must be
/// called within a Tokio runtime.
pub fn serve(
    starting: &Arc<Starting>,
    listener: &TcpListener,
    settings: &HttpSettings,
    certificates: Option<Arc<Certificates>>,
) -> io::Result<Answering> {
    let over = CancellationToken::new();
    let tls = certificates.as_ref().map(Certificates::server_config).transpose().map_err(io::Error::other)?;
    let send_timeout = Duration::from_millis(settings.send_timeout_ms);
    let lines = Lines { certificates, send_timeout, shutting_down: over.clone(), are_watched: false };
    let (shared, limits) = (web::Data::from(Arc::clone(starting)), Arc::new(Limits::new(&settings.rate_limits)));
    let (table, locks) = (table(), Locks::Open(Exposure::Strangers));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(shared.clone())
            .wrap(from_fn(answer::finish))
            .configure(|config| routes::register(config, &table, &locks, &limits))
            .default_service(web::to(not_yet))
    })
    .workers(1)
    .on_connect(move |connection, kept| lines.open(connection, kept))
    // Whoever comes again comes to who serves by then.
    .keep_alive(KeepAlive::Disabled)
    .client_request_timeout(CLIENT_REQUEST_TIMEOUT)
    .client_disconnect_timeout(CLIENT_DISCONNECT_TIMEOUT)
    .max_connections(MAX_CONNECTIONS_PER_WORKER)
    .shutdown_timeout(LAST_ANSWERS)
    .disable_signals();
    let listener = listener.try_clone()?;
    let server = match tls {
        Some(tls) => server
            .tls_handshake_timeout(TLS_HANDSHAKE_TIMEOUT)
            .max_connection_rate(MAX_CONNECTIONS_PER_WORKER)
            .listen_rustls_0_23(listener, tls)?,
        None => server.listen(listener)?,
    };
    let (server, ended) = (server.run(), over.clone());
    let handle = server.handle();
    let serving = tokio::spawn(async move {
        let end = async {
            ended.cancelled().await;
            handle.stop(true).await;
        };
        if let (Err(error), ()) = join(server, end).await {
            tracing::error!(error = %error, "what a starting process waits for could not be answered");
        }
    });
    Ok(Answering { over: over.drop_guard(), serving })
}

/// For everybody, as where more is served.
fn table() -> Vec<RouteSpec> {
    let get = |path, handler| RouteSpec::new(Method::GET, path, Policy::Public, handler);
    vec![
        get("/livez", || web::route().to(health::livez)),
        get("/readyz", || web::route().to(readyz)),
        get("/healthz", || web::route().to(readyz)),
        get("/metrics", || web::route().to(metrics)),
    ]
}

async fn readyz(starting: web::Data<Starting>) -> HttpResponse {
    let (database, view) = match starting.reason() {
        Some(reason) => (reason.clone(), format!("{}: {reason}", ViewState::WaitingForDatabase.as_str())),
        None => ("has not answered yet".to_owned(), ViewState::Starting.as_str().to_owned()),
    };
    let views = starting.views.iter().map(|name| health::check(format!("view:{name}"), false, view.clone()));
    health::unavailable(std::iter::once(health::check("database", false, database)).chain(views).collect())
}

async fn metrics(starting: web::Data<Starting>) -> Result<HttpResponse, Problem> {
    let current = match starting.reason() {
        Some(_) => ViewState::WaitingForDatabase.as_str(),
        None => ViewState::Starting.as_str(),
    };
    // Later those of the builds are shown in their place.
    for view in &starting.views {
        for state in ViewState::NAMES {
            starting.metrics.consumer_state.with_label_values(&[*view, state]).set(i64::from(state == current));
        }
    }
    pages::exposition(&starting.metrics, &[])
}

async fn not_yet() -> Result<HttpResponse, Problem> {
    Err(Problem::new(&problem::STARTING, "Postgres has not told yet what there is to serve").retry_after(RETRY_AFTER))
}
