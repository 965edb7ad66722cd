//! `/api/validate`, `/api/engines`, `/api/catalog`, `/api/orphans`: what can be run, where, on what, and what nobody names.

use actix_web::http::header::HeaderMap;
use actix_web::{HttpRequest, HttpResponse, web};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::bodies::{EngineBody, EngineList, OrphanBody, OrphanList, ValidationBody};
use super::conditions::{expected_source, words};
use super::requests::{SourceBody, ValidateBody, engine_of, engine_words, manager, read, source, statement};
use super::{actor, part};
use crate::api::Api;
use crate::api::answer::tagged_json;
use crate::api::caller;
use crate::api::parameters::Parameters;
use crate::api::problem::{self, Problem};
use crate::auth::role::{Role, Roles};
use crate::manager::Manager;
use crate::manager::catalog::Source;
use crate::manager::engines::EngineKind;
use crate::manager::manager::{Catalog, CatalogEntry, Declaration, Declarer, Origin, OrphanKind};

/// Bytes of an answer with one source, about.
const SOURCE_BYTES: usize = 2_048;

/// Can a statement run?
///
/// The gate judges first: one SELECT, of sources in the catalog, within the limits. Then the engine does, by its own EXPLAIN. If it
/// is away, or ksqlDB does not have a source yet, the answer is the gate's alone, and `checkedBy` and `engineTrouble` say so. Errors
/// have line and column in the text as it was sent. Nothing is run or stored, nor registered in the engine.
#[utoipa::path(post, path = "/api/validate", operation_id = "validate_statement", tag = "streams",
    request_body = ValidateBody,
    responses((status = 200, description = "What was found, also where the statement is wrong", body = ValidationBody)))]
pub async fn validate(
    api: web::Data<Api>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let manager = manager(&api)?;
    Parameters::parse(request.query_string(), &[]).finish()?;
    let (engine, kind, sql) =
        statement(read((&request, payload), manager, &["engine", "kind", "sqlScript", "pull"]).await?)?;
    let found = manager.validate(engine, kind, &sql).await?;
    Ok(HttpResponse::Ok().json(ValidationBody::from(found)))
}

/// Which engines are there?
///
/// Those that are configured, each asked just now; what is not configured is not listed. The protocol of ksqlDB is tested against
/// recorded facts, not yet against a server.
#[utoipa::path(get, path = "/api/engines", operation_id = "list_engines", tag = "streams",
    responses((status = 200, description = "The engines", body = EngineList)))]
pub async fn engines(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let manager = manager(&api)?;
    Parameters::parse(request.query_string(), &[]).finish()?;
    let items = manager.engines().await.into_iter().map(EngineBody::from).collect();
    Ok(HttpResponse::Ok().json(EngineList { items }))
}

/// A source, and who says that it is there.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CatalogSource)]
pub(super) struct CatalogBody {
    /// `name`, `topic`, `format`, `columns`, each with `name`, `type` and `nullable`, and `eventTime` or `table` if there is one.
    #[serde(flatten)]
    #[schema(value_type = serde_json::Map<String, serde_json::Value>)]
    source: Source,
    /// `declared`, `registry`, the name of the engine that knows it by itself, `inferred`: its latest records look so;
    /// or `view`: a view of this service, with `format` `view`, without `topic`, and with the key as a `table`.
    #[schema(example = "declared")]
    origin: &'static str,
    /// The engines that can select from it.
    engines: Vec<&'static str>,
}

impl From<CatalogEntry> for CatalogBody {
    fn from(CatalogEntry { source, origin, engines }: CatalogEntry) -> Self {
        let origin = match origin {
            Origin::Declared => "declared",
            Origin::Registry => "registry",
            Origin::Inferred => "inferred",
            Origin::View => "view",
            Origin::Engine(engine) => engine.name(),
        };
        CatalogBody { source, origin, engines: engines.into_iter().map(EngineKind::name).collect() }
    }
}

/// What can be selected from.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CatalogList)]
pub(super) struct CatalogListBody {
    /// The sources, by name.
    items: Vec<CatalogBody>,
    /// What could not be asked, as sentences: there may be more sources.
    missing: Vec<String>,
}

/// What can be selected from?
///
/// Sources that people have declared, that engines know by themselves, and topics whose values have a schema in the registry. Where
/// two say different things of one name, the declaration counts. For the embedded engine also topics of JSON objects that nobody
/// describes, with the columns that their latest records have, and views of this service, whose rows a topic can be joined with;
/// where something else has the name of a view, that counts, and `missing` says so.
#[utoipa::path(get, path = "/api/catalog", operation_id = "list_sources", tag = "streams",
    params(("engine" = Option<String>, Query, description = "Only what this engine can select from.", pattern = "^(flink|ksqldb|embedded)$")),
    responses((status = 200, description = "The sources", body = CatalogListBody)))]
pub async fn catalog(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let manager = manager(&api)?;
    let engine = engine_parameter(&request)?;
    let Catalog { sources, missing } = manager.catalog(engine).await?;
    Ok(HttpResponse::Ok().json(CatalogListBody { items: sources.into_iter().map(Into::into).collect(), missing }))
}

fn engine_parameter(request: &HttpRequest) -> Result<Option<EngineKind>, Problem> {
    let mut parameters = Parameters::parse(request.query_string(), &["engine"]);
    let word = parameters.one("engine");
    let engine = word.as_deref().and_then(engine_of);
    if let (Some(word), None) = (&word, engine) {
        parameters.reject("engine", word, &format!("must be {}", engine_words()));
    }
    parameters.finish()?;
    Ok(engine)
}

fn declarer<'a>(request: &HttpRequest, api: &Api, actor: &'a str) -> Declarer<'a> {
    let is_operator = match &api.state.gate {
        Some(gate) => {
            let own = caller::principal(request).map_or(Roles::NONE, |principal| principal.roles);
            own.may(Role::Operator) || gate.anonymous.may(Role::Operator)
        }
        // As everywhere where nobody logs in: who is near enough decides.
        None => api.state.settings.allows_operations(),
    };
    Declarer { name: actor, is_operator }
}

/// A source that somebody has declared.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DeclaredSource)]
pub(super) struct DeclarationBody {
    /// As in the catalogue.
    #[serde(flatten)]
    entry: CatalogBody,
    /// Who declared it last.
    #[schema(example = "ada")]
    declared_by: String,
    /// Greater after each change, and never the same twice; the `ETag` begins with it.
    #[schema(minimum = 1)]
    version: i64,
    /// When it was declared first.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it was declared last.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

/// A declaration with its tag.
fn declared(manager: &Manager, asked: &HeaderMap, declaration: Declaration) -> Result<HttpResponse, Problem> {
    let is_there = |engine: &EngineKind| manager.engine(*engine).is_ok();
    let engines = EngineKind::ALL.into_iter().filter(is_there).collect();
    let Declaration { source, declared_by, version, created_at, updated_at } = declaration;
    let entry = CatalogEntry { source, origin: Origin::Declared, engines }.into();
    let body = DeclarationBody { entry, declared_by, version, created_at, updated_at };
    tagged_json(asked, &mut HttpResponse::Ok(), (&words(version), &body), SOURCE_BYTES)
}

/// What is declared of a source?
///
/// What somebody has declared under this name, in upper or lower case. What engines and the registry say by themselves is in
/// `GET /api/catalog` alone.
#[utoipa::path(get, path = "/api/catalog/{name}", operation_id = "show_source", tag = "streams",
    params(("name" = String, Path, description = "Its name", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$", example = "orders")),
    responses(
        (status = 200, description = "The declaration", body = DeclarationBody, headers(("ETag" = String, description = "For `If-Match`"))),
        (status = 304, description = "As `If-None-Match` has it"),
    ))]
pub async fn show_source(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let manager = manager(&api)?;
    Parameters::parse(request.query_string(), &[]).finish()?;
    declared(manager, request.headers(), manager.declaration(&part(&request, "name")?).await?)
}

/// Declare a source
///
/// Says of a topic what columns its values have, so that streams can select from it; once more to say it anew: whoever
/// declared it, or a developer who is an operator or an administrator, too. What runs already is not touched. Topics of the brokers, the registry and ksqlDB themselves are never
/// sources; those of this service, its dead letters among them, and of Kafka Connect only if such a one declares them.
#[utoipa::path(put, path = "/api/catalog/{name}", operation_id = "declare_source", tag = "streams",
    params(
        ("name" = String, Path, description = "What stands behind FROM: letters, digits and `_`, at most 63", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$", example = "orders"),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of what the caller has read: if somebody has changed it since, or taken it back, nothing is done (412)."),
        ("If-None-Match" = Option<String>, Header, description = "`*`: if it is declared already, nothing is done (412).", pattern = "^\\*$"),
    ),
    request_body = SourceBody,
    responses((status = 200, description = "It is declared", body = DeclarationBody, headers(("ETag" = String, description = "For `If-Match`")))))]
pub async fn put_source(
    api: web::Data<Api>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let manager = manager(&api)?;
    Parameters::parse(request.query_string(), &[]).finish()?;
    let expected = expected_source(&request)?;
    let source = source(part(&request, "name")?, &request, payload).await?;
    let actor = actor(&request);
    let declaration = manager.put_source(source, declarer(&request, &api, &actor), expected).await?;
    let Source { name, topic, .. } = &declaration.source;
    tracing::info!(source = name, topic, actor, "source declared");
    declared(manager, &HeaderMap::new(), declaration)
}

/// What is left of a source that nobody declares any more.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SourceDeletion)]
pub(super) struct SourceDeletionBody {
    /// What stays, as sentences: the topic, and what an engine has registered of it.
    leaves: Vec<String>,
}

/// Take a declaration back
///
/// Streams that select from the source go on running, but cannot be deployed anew unless an engine knows it by itself: the answer
/// says what is left. It is for whoever declared the source, or a developer who is an operator or an administrator, too.
#[utoipa::path(delete, path = "/api/catalog/{name}", operation_id = "delete_source", tag = "streams",
    params(
        ("name" = String, Path, description = "Its name", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$", example = "orders"),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of what the caller has read: if somebody has changed it since, nothing is done (412)."),
    ),
    responses((status = 200, description = "It is taken back; what is left", body = SourceDeletionBody)))]
pub async fn delete_source(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let manager = manager(&api)?;
    Parameters::parse(request.query_string(), &[]).finish()?;
    let (name, actor) = (part(&request, "name")?, actor(&request));
    let expected = expected_source(&request)?;
    let leaves = manager.delete_source(&name, declarer(&request, &api, &actor), expected).await?;
    tracing::info!(source = name, actor, "declaration of a source taken back");
    Ok(HttpResponse::Ok().json(SourceDeletionBody { leaves }))
}

/// What does no stream name?
///
/// Jobs, queries and topics that look as if this service had made them, and that no stream names. Nothing of it is ever removed but
/// by somebody.
#[utoipa::path(get, path = "/api/orphans", operation_id = "list_orphans", tag = "streams",
    responses((status = 200, description = "The orphans", body = OrphanList)))]
pub async fn orphans(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let manager = manager(&api)?;
    Parameters::parse(request.query_string(), &[]).finish()?;
    Ok(HttpResponse::Ok().json(OrphanList::from(manager.orphans().await?)))
}

/// Remove an orphan
///
/// It is looked once more whether it is one. A topic is deleted with its records, a job is cancelled without a savepoint.
#[utoipa::path(delete, path = "/api/orphans/{kind}/{id}", operation_id = "remove_orphan", tag = "streams",
    params(
        ("kind" = String, Path, description = "`job` or `topic`", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$", example = "job"),
        ("id" = String, Path, description = "Job id, query id or topic", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$"),
        ("engine" = Option<String>, Query, description = "Of a job: where it runs.", pattern = "^(flink|ksqldb|embedded)$"),
    ),
    responses((status = 200, description = "What was removed", body = OrphanBody)))]
pub async fn remove_orphan(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let manager = manager(&api)?;
    let engine = engine_parameter(&request)?;
    let (word, id, actor) = (part(&request, "kind")?, part(&request, "id")?, actor(&request));
    let kind = match word.as_str() {
        "job" => OrphanKind::Job,
        "topic" => OrphanKind::Topic,
        _ => {
            let problem = Problem::new(&problem::INVALID_PARAMETER, "`kind`: must be job or topic");
            return Err(problem.parameter("kind", &word, "must be job or topic"));
        }
    };
    let orphan = manager.remove_orphan(kind, engine, &id, &actor).await?;
    tracing::info!(id, name = orphan.name, actor, "orphan removed");
    Ok(HttpResponse::Ok().json(OrphanBody::from(orphan)))
}
