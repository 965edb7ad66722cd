//! `/ops/api-keys`: by which keys programs log in. For administrators.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::calls::{ANONYMOUS, BODY_BYTES, id_in_path};
use crate::api::Api;
use crate::api::body::{self, Body};
use crate::api::caller::{self, Attributed};
use crate::api::parameters::{MAX_ID_CHARS, Parameters};
use crate::api::problem::{self, Problem, ProblemBody};
use crate::auth::api_key::{hash_of, prefix_of};
use crate::auth::role::Role;
use crate::login;
use crate::store::api_keys::{self, NewKey, StoredKey};
use crate::store::read::ReadError;

/// Most characters of a key's name.
pub const MAX_NAME_CHARS: usize = 256;
/// What a time until a key is over may look like.
pub const EXPIRES_FORM: &str = "must be a time from now on such as 90d, 12h or P1Y, at most 100 years";
/// A hundred years, in seconds.
const MAX_SECONDS: i64 = 3_155_760_000;

/// An API key, without the key itself.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeyBody {
    /// Its number.
    #[schema(minimum = 1)]
    pub id: i64,
    /// Its name: that of its holder wherever it is used.
    #[schema(example = "checkout")]
    pub name: String,
    /// `reader`, `developer`, `operator` or `admin`.
    #[schema(example = "reader")]
    pub role: String,
    /// How the key begins.
    #[schema(example = "svk_paWlpaWl")]
    pub prefix: String,
    /// `valid`, `expired` or `revoked`.
    #[schema(example = "valid")]
    pub state: &'static str,
    /// Who made it.
    pub created_by: String,
    /// For whom, as who has logged in says in `actor`; null where they say nothing, or nobody logs in.
    #[schema(required)]
    pub on_behalf_of: Option<String>,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Until when it may be used; null: until it is revoked.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub revoked_at: Option<Timestamp>,
    /// Who has revoked it; null where that is not known.
    #[schema(required)]
    pub revoked_by: Option<String>,
    /// When it was used last, give or take a minute.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub last_used_at: Option<Timestamp>,
}

/// A key that was just made.
#[derive(Debug, Serialize, ToSchema)]
pub struct NewApiKeyBody {
    /// What is kept of it.
    #[serde(flatten)]
    pub stored: ApiKeyBody,
    /// The key. It is shown this once.
    pub key: String,
}

/// All keys.
#[derive(Debug, Serialize, ToSchema)]
pub struct ApiKeyList {
    /// The latest first.
    pub items: Vec<ApiKeyBody>,
}

impl From<StoredKey> for ApiKeyBody {
    fn from(key: StoredKey) -> Self {
        let is_over = key.expires_at.is_some_and(|expires| expires <= Timestamp::now());
        ApiKeyBody {
            id: key.id,
            state: match key.revoked_at {
                Some(_) => "revoked",
                None if is_over => "expired",
                None => "valid",
            },
            name: key.name,
            role: key.role,
            prefix: key.prefix,
            created_by: key.created_by,
            on_behalf_of: key.on_behalf_of,
            created_at: key.created_at,
            expires_at: key.expires_at,
            revoked_at: key.revoked_at,
            revoked_by: key.revoked_by,
            last_used_at: key.last_used_at,
        }
    }
}

/// What a key is made with.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documentation; read by `create`")]
pub struct ApiKeyRequest {
    /// Its name.
    #[schema(min_length = 1, max_length = 256, example = "checkout")]
    name: String,
    /// What its holder may.
    #[schema(pattern = "^(reader|developer|operator|admin)$", example = "reader")]
    role: String,
    /// How long it may be used; until it is revoked if left out.
    #[schema(required = false, example = "90d")]
    expires: String,
    /// Who makes it; where callers log in, for whom.
    #[schema(required = false, min_length = 1, max_length = 256)]
    actor: String,
}

/// When a key is over that is to be valid for so long.
pub fn expiry(text: &str) -> Option<Timestamp> {
    let span: jiff::Span = text.parse().ok()?;
    let zoned = Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    let expires = zoned.checked_add(span).ok()?.timestamp();
    let seconds = expires.as_second() - zoned.timestamp().as_second();
    (1..=MAX_SECONDS).contains(&seconds).then_some(expires)
}

/// List API keys
#[utoipa::path(get, path = "/ops/api-keys", operation_id = "list_api_keys", tag = "access",
    responses(
        (status = 200, description = "All of them, also those that are over", body = ApiKeyList),
        (status = 400, description = "The request is not usable", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ))]
pub async fn list(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    Parameters::parse(request.query_string(), &[]).finish()?;
    let listed = api.state.ops_pool.within_deadline(async {
        let client = api.state.ops_pool.get().await?;
        Ok(api_keys::list(&client).await?)
    });
    let items = listed.await?;
    Ok(HttpResponse::Ok().json(ApiKeyList { items: items.into_iter().map(ApiKeyBody::from).collect() }))
}

/// Make an API key
///
/// The answer is the only one that ever has the key.
#[utoipa::path(post, path = "/ops/api-keys", operation_id = "create_api_key", tag = "access",
    request_body(content = ApiKeyRequest, content_type = "application/json"),
    responses(
        (status = 201, description = "It is made", body = NewApiKeyBody, headers(("Location" = String, description = "The key"))),
        (status = 400, description = "The request is not usable", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 403, description = "`operations_not_allowed`", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ))]
pub async fn create(api: web::Data<Api>, request: HttpRequest, payload: web::Payload) -> Result<HttpResponse, Problem> {
    Parameters::parse(request.query_string(), &[]).finish()?;
    let bytes = body::read(&request, payload, BODY_BYTES).await?;
    let mut body = Body::parse(&bytes, &["name", "role", "expires", "actor"])?;
    let name = body.required_text("name", MAX_NAME_CHARS).unwrap_or_default();
    let role = body.required_text("role", 20).unwrap_or_default();
    if !role.is_empty() && Role::parse(&role).is_none() {
        body.reject("role", &role, "must be reader, developer, operator or admin");
    }
    let expires_at = match body.text("expires", 100) {
        None => None,
        Some(text) => {
            let expires = expiry(&text);
            if expires.is_none() {
                body.reject("expires", &text, EXPIRES_FORM);
            }
            expires
        }
    };
    let Attributed { actor, on_behalf_of } = caller::attribute(&request, body.text("actor", MAX_ID_CHARS));
    let created_by = actor.unwrap_or_else(|| ANONYMOUS.to_owned());
    body.finish()?;
    let key = login::made().map_err(|_| Problem::new(&problem::INTERNAL_ERROR, "There are no random numbers"))?;
    let new = NewKey {
        name: &name,
        role: &role,
        prefix: prefix_of(&key),
        hash: &hash_of(key.as_bytes()),
        created_by: &created_by,
        on_behalf_of: on_behalf_of.as_deref(),
        expires_at,
    };
    let client = api.writers.open().await?;
    let stored = ApiKeyBody::from(api_keys::insert(&client, &new).await.map_err(ReadError::from)?);
    tracing::info!(id = stored.id, name, role, created_by, on_behalf_of, "API key made");
    if let Some(gate) = &api.state.gate {
        gate.look_now().await;
    }
    let place = format!("/ops/api-keys/{}", stored.id);
    Ok(HttpResponse::Created().insert_header((header::LOCATION, place)).json(NewApiKeyBody { stored, key }))
}

/// Revoke an API key
///
/// It may be used for two more seconds where other instances let callers in.
#[utoipa::path(delete, path = "/ops/api-keys/{id}", operation_id = "revoke_api_key", tag = "access",
    params(("id" = i64, Path, description = "Its number", minimum = 1)),
    responses(
        (status = 204, description = "It is revoked"),
        (status = 400, description = "The request is not usable", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 403, description = "`operations_not_allowed`", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 404, description = "`api_key_not_found`", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ))]
pub async fn revoke(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    Parameters::parse(request.query_string(), &[]).finish()?;
    let id = id_in_path(&request)?;
    let client = api.writers.open().await?;
    let by = caller::principal(&request);
    let by = by.as_deref().map_or(ANONYMOUS, |by| by.name.as_str());
    if !api_keys::revoke(&client, id, by).await.map_err(ReadError::from)? {
        return Err(Problem::new(&problem::API_KEY_NOT_FOUND, format!("There is no API key {id}")));
    }
    tracing::info!(id, revoked_by = by, "API key revoked");
    if let Some(gate) = &api.state.gate {
        gate.look_now().await;
    }
    Ok(HttpResponse::NoContent().finish())
}
