//! The route table: every path, its method and who may use it, which is enforced here, before any handler.

use std::cell::Cell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use actix_web::http::{Method, header};
use actix_web::{HttpRequest, HttpResponse, Route, guard, web};
use utoipa::openapi::OpenApi;

use super::gate::{Locks, guarded};
use super::limits::{Counted, Kind, Limits};
use super::problem::{self, Code, Problem};
use super::{ApiState, health, ops, pages, queries, session, skip_to, streams, ui};
use crate::auth::policy::Policy;
use crate::store::changes::ShownOf;
use crate::store::read::SequencesOf;

/// One line of the table. A GET route answers HEAD too.
#[derive(Debug, Clone)]
pub struct RouteSpec {
    /// Pattern of the path.
    pub path: &'static str,
    /// The method.
    pub method: Method,
    /// Who may use it.
    pub policy: Policy,
    /// Which of its calls are counted, so that nobody makes too many.
    pub counted: Counted,
    /// Whether its callers may also be known by a connection that they have negotiated, and where they ask for a WebSocket by
    /// `access_token`: the hub's.
    pub(super) connects: bool,
    /// Whether its handler is told who has logged in, although it is for everybody.
    pub(super) greets: bool,
    pub(super) handler: fn() -> Route,
}

impl RouteSpec {
    /// A route answered by what `handler` makes: `|| web::route().to(function)`. Calls of operators and administrators are
    /// counted.
    pub const fn new(method: Method, path: &'static str, policy: Policy, handler: fn() -> Route) -> Self {
        let counted = match policy {
            Policy::Public | Policy::Reader => Counted::Never,
            Policy::Defines | Policy::RunsStreams => Counted::As(Kind::Definitions),
            Policy::OperatorLooks | Policy::OperatorDecides | Policy::Administers => Counted::As(Kind::Operations),
        };
        RouteSpec { path, method, policy, counted, connects: false, greets: false, handler }
    }

    /// The same for callers that may also be known by their connection to the hub.
    pub(super) const fn connects(mut self) -> Self {
        self.connects = true;
        self
    }

    /// The same for a handler that wants to know who has logged in.
    pub(super) const fn greets(mut self) -> Self {
        self.greets = true;
        self
    }

    /// The same with other calls counted.
    pub const fn counted(mut self, counted: Counted) -> Self {
        self.counted = counted;
        self
    }
}

/// What a view brings to the API.
pub struct ViewApi {
    /// Registry name of the view.
    pub view: &'static str,
    /// Its routes.
    pub routes: Vec<RouteSpec>,
    /// Its own problem codes.
    pub problems: Vec<&'static Code>,
    /// Its part of the OpenAPI document.
    pub openapi: fn() -> OpenApi,
    /// How to see how far keys are, for requests that wait.
    pub sequences: SequencesOf,
    /// How rows are shown to those who follow changes.
    pub shown: ShownOf,
    /// Gives an HTTP worker what it keeps for itself.
    pub of_worker: fn(&ApiState, &mut web::ServiceConfig),
}

/// The engine's own routes.
fn engine_routes() -> Vec<RouteSpec> {
    use Policy::{Administers, OperatorDecides, OperatorLooks, Public};
    let get = |path, policy, handler| RouteSpec::new(Method::GET, path, policy, handler);
    let post = |path, handler| RouteSpec::new(Method::POST, path, OperatorDecides, handler);
    vec![
        get("/", Public, || web::route().to(pages::index)),
        get("/ui", Public, || web::route().to(ui::begin)),
        get("/ui/{file:.*}", Public, || web::route().to(ui::file)),
        get("/Query", Public, || web::route().to(ui::query)),
        get("/Streams", Public, || web::route().to(ui::streams)),
        get("/Stream/{id}", Public, || web::route().to(ui::stream)),
        get("/session", Public, || web::route().to(session::show)).greets(),
        RouteSpec::new(Method::POST, "/session", Public, || web::route().to(session::begin))
            .greets()
            .counted(Counted::As(Kind::LogIns)),
        RouteSpec::new(Method::DELETE, "/session", Public, || web::route().to(session::end)).greets(),
        get("/session/login", Public, || web::route().to(session::leave)).greets().counted(Counted::As(Kind::LogIns)),
        get("/session/callback", Public, || web::route().to(session::come_back))
            .greets()
            .counted(Counted::As(Kind::LogIns)),
        get("/livez", Public, || web::route().to(health::livez)),
        get("/readyz", Public, || web::route().to(health::readyz)),
        get("/healthz", Public, || web::route().to(health::readyz)),
        get("/metrics", Public, || web::route().to(pages::metrics)),
        get("/openapi.json", Public, || web::route().to(pages::openapi)),
        get("/docs", Public, || web::route().to(pages::docs_redirect)),
        get("/docs/{file:.*}", Public, || web::route().to(pages::docs)),
        get("/problems", Public, || web::route().to(pages::problems)),
        get("/problems/{code}", Public, || web::route().to(pages::problem)),
        get("/ops/lags", OperatorLooks, || web::route().to(ops::lags)),
        get("/lags", OperatorLooks, || web::route().to(ops::lags)),
        get("/ops/consumer", OperatorLooks, || web::route().to(ops::consumer)),
        get("/ops/views", OperatorLooks, || web::route().to(ops::views::list)),
        get("/ops/held", OperatorLooks, || web::route().to(ops::held::list)),
        post("/ops/held/skip", || web::route().to(ops::held::skip_by_filter)),
        get("/ops/held/{key}", OperatorLooks, || web::route().to(ops::held::show)),
        post("/ops/held/{key}/skip", || web::route().to(ops::held::skip)),
        get("/ops/dead-letters", OperatorLooks, || web::route().to(ops::letters::list)),
        post("/ops/dead-letters/skip", || web::route().to(ops::letters::skip_by_filter)),
        post("/ops/dead-letters/redrive", || web::route().to(ops::letters::redrive_by_filter)),
        get("/ops/dead-letters/topics", OperatorLooks, || web::route().to(ops::letters::topics)),
        get("/ops/dead-letters/{id}", OperatorLooks, || web::route().to(ops::letters::show)),
        post("/ops/dead-letters/{id}/skip", || web::route().to(ops::letters::skip)),
        post("/ops/dead-letters/{id}/replace", || web::route().to(ops::letters::replace)),
        post("/ops/dead-letters/{id}/redrive", || web::route().to(ops::letters::redrive)),
        post("/ops/views/rebuild", || web::route().to(ops::operations::rebuild)),
        post("/views/rebuild", || web::route().to(ops::operations::rebuild)),
        post("/ops/views/{view}/rollback", || web::route().to(ops::operations::rollback)),
        post("/ops/views/{view}/pause", || web::route().to(ops::pauses::pause)),
        post("/ops/views/{view}/resume", || web::route().to(ops::pauses::resume)),
        get("/ops/operations", OperatorLooks, || web::route().to(ops::operations::list)),
        get("/ops/operations/{id}", OperatorLooks, || web::route().to(ops::operations::show)),
        post("/ops/operations/{id}/cancel", || web::route().to(ops::operations::cancel)),
        post("/ops/operations/{id}/cutover", || web::route().to(ops::operations::cutover)),
        get("/ops/audit", Administers, || web::route().to(ops::audit::list)),
        get("/ops/api-keys", Administers, || web::route().to(ops::api_keys::list)),
        RouteSpec::new(Method::POST, "/ops/api-keys", Administers, || web::route().to(ops::api_keys::create)),
        RouteSpec::new(Method::DELETE, "/ops/api-keys/{id}", Administers, || web::route().to(ops::api_keys::revoke)),
        get("/ops/operations/{id}/differences", OperatorLooks, || web::route().to(ops::verify::differences)),
        post("/ops/verify", || web::route().to(ops::verify::verify)),
        get("/ops/decisions", OperatorLooks, || web::route().to(ops::decisions::list)),
        post("/ops/partitions/{partition}/skip-to", || web::route().to(skip_to::post)),
    ]
}

/// The whole table: the routes of `views`, which are asked for most and hence tried first, and the engine's.
pub fn table(views: &[ViewApi]) -> Vec<RouteSpec> {
    views
        .iter()
        .flat_map(|view| view.routes.clone())
        .chain(engine_routes())
        .chain(streams::routes())
        .chain(queries::routes())
        .collect()
}

/// The pattern of the path that a request was routed by. Put among the request's extensions before it is routed.
#[derive(Debug, Clone, Default)]
pub struct Routed(Rc<Cell<Option<&'static str>>>);

impl Routed {
    /// The pattern, once there is one.
    pub fn pattern(&self) -> Option<&'static str> {
        self.0.get()
    }
}

/// Registers `table` with one worker. A route that its policy does not serve to a caller, or that the caller has called too
/// often, is refused whatever its handler does, before anything of the request's body is read. Any other method of a known path
/// is a 405 that lists the known ones.
pub fn register(config: &mut web::ServiceConfig, table: &[RouteSpec], locks: &Locks, limits: &Arc<Limits>) {
    let mut known = HashSet::new();
    for path in table.iter().map(|route| route.path).filter(|path| known.insert(*path)) {
        // Asked only of requests whose path matches; matching it again for the metric would cost as much as routing.
        let mut resource = web::resource(path).guard(guard::fn_guard(move |context| {
            if let Some(routed) = context.req_data().get::<Routed>() {
                routed.0.set(Some(path));
            }
            true
        }));
        let mut allowed = Vec::new();
        for route in table.iter().filter(|route| route.path == path) {
            let head = (route.method == Method::GET).then_some(Method::HEAD);
            for method in std::iter::once(route.method.clone()).chain(head) {
                for guarded in guarded(route, locks, limits) {
                    resource = resource.route(guarded.method(method.clone()));
                }
                allowed.push(method.to_string());
            }
        }
        let allow = allowed.join(", ");
        config.service(resource.default_service(web::to(move |request| method_not_allowed(request, allow.clone()))));
    }
    config.default_service(web::to(not_found));
}

async fn method_not_allowed(request: HttpRequest, allow: String) -> HttpResponse {
    let detail = format!("{} is not a method of this resource, it has {allow}", request.method());
    let problem = Problem::new(&problem::METHOD_NOT_ALLOWED, detail);
    let mut response = HttpResponse::from_error(problem);
    if let Ok(allow) = header::HeaderValue::from_str(&allow) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

async fn not_found() -> Result<HttpResponse, Problem> {
    Err(Problem::new(&problem::NOT_FOUND, "Nothing is served at this path; see /docs"))
}

#[cfg(test)]
mod tests {
    use actix_web::middleware::from_fn;
    use actix_web::{App, test as server};

    use super::*;
    use crate::app::view_apis;
    use crate::auth::policy::Exposure;

    #[test]
    fn every_route_is_listed_once_and_described_in_the_openapi_document() {
        let table = table(&view_apis());
        let mut seen = HashSet::new();
        let document = crate::api::openapi(&view_apis());
        // Pages for people and the document itself.
        let undescribed = ["/", "/docs", "/docs/{file:.*}", "/openapi.json", "/problems", "/problems/{code}"];
        let console = ["/ui", "/ui/{file:.*}", "/Query", "/Streams", "/Stream/{id}"];
        let undescribed = [&undescribed[..], &console].concat();
        for route in &table {
            assert!(seen.insert((route.path, route.method.clone())), "{} {} twice", route.method, route.path);
            let described = document.paths.paths.contains_key(route.path);
            assert_eq!(described, !undescribed.contains(&route.path), "{}", route.path);
        }
    }

    #[test]
    fn problem_codes_are_unique() {
        let views = view_apis();
        let codes = problem::CODES
            .iter()
            .chain(streams::problems::CODES)
            .chain(queries::problems::CODES)
            .chain(session::CODES)
            .chain(views.iter().flat_map(|view| view.problems.iter()));
        let mut seen = HashSet::new();
        for code in codes {
            assert!(seen.insert(code.name), "{} twice", code.name);
        }
    }

    #[test]
    fn whatever_changes_something_is_nothing_for_readers() {
        for route in table(&view_apis()) {
            // Of a session only the browser's own cookie changes.
            let changes = route.method != Method::GET && route.path != "/session";
            assert!(route.policy.changes() || !changes, "{} {}", route.method, route.path);
            let of_streams = route.path.starts_with("/api/");
            assert!(of_streams || !matches!(route.policy, Policy::Defines | Policy::RunsStreams), "{}", route.path);
            assert!(changes || route.policy != Policy::OperatorDecides, "{} {}", route.method, route.path);
        }
    }

    fn unlimited() -> Arc<Limits> {
        let none = crate::config::RateLimitSettings { reads: 0, streams: 0, operations: 0, log_ins: 0, definitions: 0 };
        Arc::new(Limits::new(&none))
    }

    /// A handler that checks nothing, and reads the whole body before it answers.
    fn careless() -> Route {
        web::route().to(|body: web::Bytes| async move { HttpResponse::Ok().body(body) })
    }

    #[actix_web::test]
    async fn a_policy_is_enforced_for_a_handler_that_checks_nothing() {
        let table = [
            RouteSpec::new(Method::POST, "/decide", Policy::OperatorDecides, careless),
            RouteSpec::new(Method::GET, "/look", Policy::OperatorLooks, careless),
        ];
        for (exposure, decide) in [(Exposure::Strangers, 403), (Exposure::Trusted, 200)] {
            let locks = Locks::Open(exposure);
            let app = App::new()
                .wrap(from_fn(crate::api::answer::finish))
                .configure(|config| register(config, &table, &locks, &unlimited()));
            let app = server::init_service(app).await;
            for (method, path, status) in
                [(Method::POST, "/decide", decide), (Method::GET, "/look", 200), (Method::HEAD, "/look", 200)]
            {
                let request = server::TestRequest::with_uri(path).method(method).set_payload("a body").to_request();
                let response = server::call_service(&app, request).await;
                assert_eq!(response.status().as_u16(), status, "{path}, {exposure:?}");
                if status == 403 {
                    let problem: serde_json::Value = server::read_body_json(response).await;
                    assert_eq!(problem["code"], "operations_not_allowed");
                }
            }
        }
    }
}
