//! `/api/streams` and what belongs to it: handlers over [`crate::manager::Manager`]. Each reads a call strictly, asks the manager,
//! and spells the answer; what is decided is decided there.
//!
//! `/api/stream` is the same, as clients of the original manager call it.

mod bodies;
mod catalog;
mod conditions;
mod consumers;
mod definitions;
mod lifecycle;
mod looks;
mod once;
pub mod problems;
pub(super) mod requests;

use actix_web::http::Method;
use actix_web::{HttpRequest, Route, web};
use utoipa::OpenApi;

use super::caller;
use super::limits::{Counted, Kind};
use super::parameters::{self, MAX_ID_CHARS};
use super::paths::path_part;
use super::problem::{self, Problem};
use super::routes::RouteSpec;
use crate::auth::policy::{Denied, Policy, owns};
use crate::manager::Manager;
use crate::manager::definition::Definition;

/// Whose streams are that nobody has logged in for.
const ANONYMOUS: &str = "anonymous";

/// The paths of streams with their aliases.
pub(super) const ALIASES: [(&str, &str); 13] = [
    ("/api/stream", "/api/streams"),
    ("/api/stream/{id}", "/api/streams/{id}"),
    ("/api/stream/{id}/deploy", "/api/streams/{id}/deploy"),
    ("/api/stream/{id}/stop", "/api/streams/{id}/stop"),
    ("/api/stream/{id}/pause", "/api/streams/{id}/pause"),
    ("/api/stream/{id}/resume", "/api/streams/{id}/resume"),
    ("/api/stream/{id}/plan", "/api/streams/{id}/plan"),
    ("/api/stream/{id}/validate", "/api/streams/{id}/validate"),
    ("/api/stream/{id}/revisions", "/api/streams/{id}/revisions"),
    ("/api/stream/{id}/status", "/api/streams/{id}/status"),
    ("/api/stream/{id}/topology", "/api/streams/{id}/topology"),
    ("/api/stream/{id}/consumers", "/api/streams/{id}/consumers"),
    ("/api/stream/{id}/events", "/api/streams/{id}/events"),
];

/// The part of the OpenAPI document.
#[derive(OpenApi)]
#[openapi(
    tags((name = "streams", description = "The stream manager (`manager.enabled`): streaming SQL defined, deployed and watched on \
        Flink, ksqlDB or in this process. Every path of `/api/streams` is also there as `/api/stream`. Where there is no manager, all of it \
        answers 404 `manager_not_enabled`.")),
    paths(
        definitions::list,
        definitions::create,
        definitions::show,
        definitions::update,
        definitions::delete,
        lifecycle::deploy,
        lifecycle::stop,
        lifecycle::pause,
        lifecycle::resume,
        lifecycle::plan,
        lifecycle::validate_stream,
        looks::revisions,
        looks::status,
        looks::topology,
        consumers::list,
        looks::events,
        catalog::validate,
        catalog::engines,
        catalog::catalog,
        catalog::show_source,
        catalog::put_source,
        catalog::delete_source,
        catalog::orphans,
        catalog::remove_orphan,
    ),
)]
pub(super) struct Document;

/// The routes, each under both spellings. Those that have an engine asked are counted although they only look.
pub(super) fn routes() -> Vec<RouteSpec> {
    use Policy::{Defines, OperatorDecides, Reader, RunsStreams};
    let mut routes = Vec::new();
    let mut both = |method: Method, path: &'static str, policy: Policy, handler: fn() -> Route| {
        let alias = ALIASES.iter().find(|(_, original)| *original == path).map(|(alias, _)| *alias);
        for path in [Some(path), alias].into_iter().flatten() {
            let route = RouteSpec::new(method.clone(), path, policy, handler);
            let looks = policy == Reader;
            routes.push(if looks { route.counted(Counted::As(Kind::Reads)) } else { route });
        }
    };
    let (get, post, put, delete) = (Method::GET, Method::POST, Method::PUT, Method::DELETE);
    both(get.clone(), "/api/streams", Reader, || web::route().to(definitions::list));
    both(post.clone(), "/api/streams", Defines, || web::route().to(definitions::create));
    both(get.clone(), "/api/streams/{id}", Reader, || web::route().to(definitions::show));
    both(put.clone(), "/api/streams/{id}", RunsStreams, || web::route().to(definitions::update));
    both(delete.clone(), "/api/streams/{id}", RunsStreams, || web::route().to(definitions::delete));
    both(post.clone(), "/api/streams/{id}/deploy", RunsStreams, || web::route().to(lifecycle::deploy));
    both(post.clone(), "/api/streams/{id}/stop", RunsStreams, || web::route().to(lifecycle::stop));
    both(post.clone(), "/api/streams/{id}/pause", RunsStreams, || web::route().to(lifecycle::pause));
    both(post.clone(), "/api/streams/{id}/resume", RunsStreams, || web::route().to(lifecycle::resume));
    both(post.clone(), "/api/streams/{id}/plan", RunsStreams, || web::route().to(lifecycle::plan));
    both(post.clone(), "/api/streams/{id}/validate", RunsStreams, || web::route().to(lifecycle::validate_stream));
    both(get.clone(), "/api/streams/{id}/revisions", Reader, || web::route().to(looks::revisions));
    both(get.clone(), "/api/streams/{id}/status", Reader, || web::route().to(looks::status));
    both(get.clone(), "/api/streams/{id}/topology", Reader, || web::route().to(looks::topology));
    both(get.clone(), "/api/streams/{id}/consumers", Reader, || web::route().to(consumers::list));
    both(get.clone(), "/api/streams/{id}/events", Reader, || web::route().to(looks::events));
    both(post.clone(), "/api/validate", RunsStreams, || web::route().to(catalog::validate));
    both(get.clone(), "/api/engines", Reader, || web::route().to(catalog::engines));
    both(get.clone(), "/api/catalog", Reader, || web::route().to(catalog::catalog));
    both(get.clone(), "/api/catalog/{name}", Reader, || web::route().to(catalog::show_source));
    both(put, "/api/catalog/{name}", Defines, || web::route().to(catalog::put_source));
    both(delete.clone(), "/api/catalog/{name}", Defines, || web::route().to(catalog::delete_source));
    both(get, "/api/orphans", Reader, || web::route().to(catalog::orphans));
    both(delete, "/api/orphans/{kind}/{id}", OperatorDecides, || web::route().to(catalog::remove_orphan));
    routes
}

/// Who calls, as owners and authors are noted.
fn actor(request: &HttpRequest) -> String {
    caller::principal(request).map_or_else(|| ANONYMOUS.to_owned(), |principal| principal.name.clone())
}

/// A part of the path, decoded once.
pub(super) fn part(request: &HttpRequest, name: &'static str) -> Result<String, Problem> {
    let raw = path_part(request, name);
    parameters::decode(raw).filter(|part| parameters::is_id(part)).ok_or_else(|| {
        let allowed = format!("must be 1 to {MAX_ID_CHARS} characters of percent-encoded UTF-8 without NUL");
        Problem::new(&problem::INVALID_PARAMETER, format!("`{name}`: {allowed}")).parameter(name, raw, &allowed)
    })
}

/// The stream of the path, of which the caller wants something: it has to be theirs, or they have to be an operator.
async fn own(manager: &Manager, request: &HttpRequest) -> Result<Definition, Problem> {
    let definition = manager.get(&part(request, "id")?).await?;
    let principal = caller::principal(request);
    owns(principal.as_deref(), &definition.owner).map_err(|denied| match denied {
        Denied::Lacks(role) => {
            let detail =
                format!("The stream is of `{}`: to change it asks for the role `{}`", definition.owner, role.as_str());
            Problem::new(&problem::ROLE_MISSING, detail).with("requiredRole", role.as_str())
        }
        other => other.into(),
    })?;
    Ok(definition)
}
