//! `/ops/views`: the builds of each view, what their rows mean, and what is configured otherwise.

use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::future::try_join_all;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::pauses::PauseBody;
use super::selected_views;
use crate::api::Api;
use crate::api::problem::{Problem, ProblemBody};
use crate::domain::meaning::{Difference, Meaning, Standing, StoredRules, ViewRules};
use crate::status::ViewStatus;
use crate::store::builds::{self, ShownBuild};
use crate::store::leftovers::{self, Leftover};
use crate::store::read::{self, ReadError, ReadPool};

/// The views with their builds.
#[derive(Debug, Serialize, ToSchema)]
pub struct ViewList {
    /// One for each view here.
    pub items: Vec<ViewBody>,
}

/// A view with its builds.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = View)]
pub struct ViewBody {
    /// Name of the view.
    #[schema(example = "orders")]
    pub view: &'static str,
    /// State of its projector in this process.
    #[schema(example = "running")]
    pub state: &'static str,
    /// Why nothing is projected in this process although it should, if so.
    #[schema(required)]
    pub standing: Option<StandingBody>,
    /// That an operator has it stand still, if so.
    #[schema(required)]
    pub paused: Option<PauseBody>,
    /// The build that readers read.
    #[schema(required, minimum = 1)]
    pub active_build: Option<i32>,
    /// All builds, by number.
    pub builds: Vec<BuildBody>,
    /// What is left of builds that nobody has a use for; `streamview views gc` removes it. Instances remove what is left of
    /// operations that are over, and of builds that were kept long enough, by themselves.
    pub leftovers: Vec<LeftoverBody>,
    /// What this process has, and what of it the active build is not made by.
    pub configuration: ConfigurationBody,
}

/// Why nothing is projected.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Standing)]
pub struct StandingBody {
    /// `projection_version_differs`, or `rules_unknown`.
    #[schema(example = "projection_version_differs")]
    pub code: &'static str,
    /// A sentence with the next step.
    pub detail: String,
}

/// A build: one materialisation of a view, with tables of its own.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Build)]
pub struct BuildBody {
    /// Its number.
    #[schema(minimum = 1)]
    pub build: i32,
    /// `active` (readers read it), `loading` (being filled in bulk), `kept` (readers have left it, and may be led back) or
    /// `shadow` (readers have not seen it yet).
    #[schema(example = "active")]
    pub state: &'static str,
    /// Whether readers read it.
    pub active: bool,
    /// Version of the projection that it is made by.
    pub projection_version: i32,
    /// The settings that it is made by; null: not stored yet, or of a later version of this service.
    #[schema(required)]
    pub rules: Option<RulesBody>,
    /// Records consumed into it.
    #[schema(minimum = 0)]
    pub records: i64,
    /// About how many rows its tables have, the ledger left out.
    #[schema(minimum = 0)]
    pub rows: i64,
    /// Bytes of its tables and indexes.
    #[schema(minimum = 0)]
    pub bytes: i64,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Until when it is kept, if readers have left it.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub kept_until: Option<Timestamp>,
}

/// What is left of a build.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Leftover)]
pub struct LeftoverBody {
    /// The number under which it stands.
    #[schema(minimum = 1)]
    pub build: i32,
    /// The schema of its tables, if that is there.
    #[schema(required, example = "orders_7")]
    pub schema: Option<String>,
    /// `operation_over`, `kept_long_enough` or `unknown_build`.
    #[schema(example = "unknown_build")]
    pub reason: &'static str,
    /// The same as a sentence.
    pub detail: String,
    /// Bytes of its tables and indexes.
    #[schema(minimum = 0)]
    pub bytes: i64,
    /// Rows of the control tables that name it.
    #[schema(minimum = 0)]
    pub rows: i64,
}

/// The settings that say what rows are.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Rules)]
pub struct RulesBody {
    /// What is kept of each event: `payload`, `compact` or `off`.
    #[schema(value_type = String, example = "payload")]
    pub history: crate::domain::history::History,
    /// Number of a key's first event.
    #[schema(minimum = 0)]
    pub first_sequence: i64,
    /// Tax rate of items that carry none.
    #[schema(example = "0.19")]
    pub default_tax_rate: String,
}

/// What this process has.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Configuration)]
pub struct ConfigurationBody {
    /// Version of the projection in this binary.
    pub projection_version: i32,
    /// The settings in force.
    pub rules: RulesBody,
    /// Where the active build keeps to something else; a rebuild would take these up.
    pub differs: Vec<DifferenceBody>,
}

/// A setting that the active build keeps otherwise.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Difference)]
pub struct DifferenceBody {
    /// Its name; `projection_version` is the binary's.
    #[schema(example = "tax.default_rate")]
    pub setting: &'static str,
    /// What the build keeps.
    #[schema(example = "0.19")]
    pub stored: String,
    /// What is configured.
    #[schema(example = "0.07")]
    pub configured: String,
}

/// Which builds are there, and what are they made by?
///
/// A build keeps the projection's version and the settings that it was made by, whatever is configured later: `differs` says
/// what a rebuild would take up.
#[utoipa::path(get, path = "/ops/views", operation_id = "list_views", tag = "operations",
    params(("view" = Option<String>, Query, description = "Only this view.", max_length = 256, min_length = 1, pattern = "^[^\\x00]+$")),
    responses(
        (status = 200, description = "The views", body = ViewList),
        (status = 400, description = "A parameter is not usable", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 404, description = "No such view here", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ))]
pub async fn list(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let (views, _) = selected_views(&api, &request)?;
    let reads = views.iter().map(|status| read::within_deadline(read_view(&api.state.ops_pool, status.view)));
    let found = try_join_all(reads).await?;
    let items = views.iter().zip(found).map(|(status, found)| view_body(status, found)).collect();
    Ok(HttpResponse::Ok().json(ViewList { items }))
}

async fn read_view(pool: &ReadPool, view: &'static str) -> Result<(Vec<ShownBuild>, Vec<Leftover>), ReadError> {
    let builds = builds::of_view(pool, view).await?;
    let client = pool.get().await?;
    Ok((builds, leftovers::find(&client, view).await.map_err(ReadError::unreadable)?))
}

fn view_body(status: &ViewStatus, (builds, leftovers): (Vec<ShownBuild>, Vec<Leftover>)) -> ViewBody {
    let snapshot = status.snapshot();
    let active = builds.iter().find(|build| build.active);
    let differs = active.map(|build| build.meaning.or(&status.configured).differences(&status.configured));
    ViewBody {
        view: status.view,
        state: snapshot.state.as_str(),
        standing: snapshot.stands.map(|Standing { code, detail }| StandingBody { code, detail }),
        paused: snapshot.paused.map(PauseBody::from),
        active_build: active.map(|build| build.id.build.0),
        configuration: configuration(&status.configured, differs.unwrap_or_default()),
        builds: builds.into_iter().map(build_body).collect(),
        leftovers: leftovers.iter().map(leftover_body).collect(),
    }
}

fn leftover_body(left: &Leftover) -> LeftoverBody {
    LeftoverBody {
        build: left.build.build.0,
        schema: left.schema.clone(),
        reason: left.reason.as_str(),
        detail: left.reason.to_string(),
        bytes: left.bytes,
        rows: left.rows,
    }
}

fn build_body(build: ShownBuild) -> BuildBody {
    let state = match &build {
        build if build.loading => "loading",
        build if build.active => "active",
        build if build.kept_until.is_some() => "kept",
        _ => "shadow",
    };
    BuildBody {
        build: build.id.build.0,
        state,
        active: build.active,
        projection_version: build.meaning.projection_version,
        rules: match build.meaning.rules {
            StoredRules::Known(rules) => Some(rules_body(rules)),
            StoredRules::None | StoredRules::Unknown(_) => None,
        },
        records: build.records,
        rows: build.rows,
        bytes: build.bytes,
        created_at: build.created_at,
        kept_until: build.kept_until,
    }
}

fn rules_body(ViewRules { history, first_sequence, default_tax_rate }: ViewRules) -> RulesBody {
    RulesBody { history, first_sequence: first_sequence.0, default_tax_rate }
}

fn configuration(configured: &Meaning, differs: Vec<Difference>) -> ConfigurationBody {
    let body = |Difference { setting, stored, configured }| DifferenceBody { setting, stored, configured };
    ConfigurationBody {
        projection_version: configured.projection_version,
        rules: rules_body(configured.rules.clone()),
        differs: differs.into_iter().map(body).collect(),
    }
}
