//! What every call that decides has in common: is it JSON, was it made before, who decides and why.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};

use super::render::spell;
use crate::api::Api;
use crate::api::body::{self, Body};
use crate::api::caller::{self, Attributed};
use crate::api::idempotency;
use crate::api::parameters::{self, MAX_ID_CHARS, Parameters};
use crate::api::paths::path_part;
use crate::api::problem::{self, Problem};
use crate::repair::Desk;
use crate::repair::decide::{Called, Once};
use crate::repair::model::Spelled;
use crate::repair::request::{BulkBounds, DEFAULT_BULK, MAX_BULK, MAX_REASON_CHARS, Request, Why};

/// Greatest number of an event: 18 digits.
pub(super) const MAX_SEQUENCE: i64 = 999_999_999_999_999_999;
/// Longest `Idempotency-Key`.
pub(super) const MAX_KEY_CHARS: usize = 255;
/// Bytes of a body beside the payload of a record.
pub(super) const BODY_BYTES: usize = 64 << 10;
/// The actor where nobody says.
pub(super) const ANONYMOUS: &str = "anonymous";

/// The desk of the asked or first view.
pub(super) fn desk<'a>(api: &'a Api, parameters: &mut Parameters) -> Result<&'a Desk, Problem> {
    let name = parameters.id("view");
    let desk = match &name {
        None => api.state.desks.first(),
        Some(name) => api.state.desks.iter().find(|desk| desk.view == *name),
    };
    desk.ok_or_else(|| {
        let problem = Problem::new(&problem::VIEW_NOT_FOUND, "No view of this name runs in this process");
        problem.parameter("view", name.as_deref().unwrap_or_default(), "is not a view here")
    })
}

/// A call that decides, as far as every such call is read.
pub(super) struct Call<'a> {
    desk: &'a Desk,
    key: Option<String>,
    /// The body.
    pub(super) bytes: web::Bytes,
    /// Change nothing.
    pub(super) dry_run: bool,
}

impl<'a> Call<'a> {
    /// Reads what every call has; `bulk` calls have `dry_run` too.
    pub(super) async fn read(
        api: &'a Api,
        request: &HttpRequest,
        payload: web::Payload,
        bulk: bool,
    ) -> Result<Self, Problem> {
        let allowed: &[&str] = if bulk { &["view", "dry_run"] } else { &["view"] };
        let mut parameters = Parameters::parse(request.query_string(), allowed);
        let desk = desk(api, &mut parameters);
        let dry_run = parameters.switch("dry_run").unwrap_or(false);
        parameters.finish()?;
        let desk = desk?;
        let key = idempotency::key_of(request, MAX_KEY_CHARS)?;
        // A payload may be spelled as a JSON string, where a byte can take six.
        let limit = desk.max_record_bytes.saturating_mul(6).saturating_add(BODY_BYTES);
        let bytes = body::read(request, payload, limit).await?;
        Ok(Call { desk, key, bytes, dry_run })
    }

    /// Makes the decision and answers.
    pub(super) async fn make(self, api: &Api, request: Request, why: Why) -> Result<HttpResponse, Problem> {
        let once = self.key.as_deref().map(|key| Once { key, spell });
        let (answer, is_replayed) = match self.desk.call(&request, &why, once).await? {
            Called::Before(answer) => (answer, true),
            Called::Now(outcome) => {
                if !request.is_dry_run() {
                    self.tell(api, &request, outcome.made());
                }
                (spell(&outcome), false)
            }
        };
        let mut response = HttpResponse::build(status_of(&answer)?);
        if is_replayed {
            response.insert_header(("Idempotent-Replayed", "true"));
        }
        Ok(response.json(answer.body))
    }

    /// Counts the decisions, and has the projector of this process look at once.
    fn tell(&self, api: &Api, request: &Request, decisions: usize) {
        let labels = [self.desk.view, request.action().as_str()];
        api.state.metrics.decisions.with_label_values(&labels).inc_by(decisions as u64);
        // Each build folds with it for itself.
        for board in api.state.views.iter().filter(|board| board.view == self.desk.view) {
            board.statuses().iter().for_each(|status| status.decided.notify_one());
        }
    }

    /// How much of a filter is taken.
    pub(super) fn bulk(&self, body: &mut Body) -> BulkBounds {
        let limit = body.number("limit", 1..=i64::from(MAX_BULK));
        let expect = body.number("expect", 0..=i64::from(MAX_BULK));
        if expect.is_none() && !self.dry_run {
            body.reject("expect", "", "is missing; send the `matched` of the same call with dry_run=true");
        }
        let limit = limit.and_then(|limit| u32::try_from(limit).ok()).unwrap_or(DEFAULT_BULK);
        BulkBounds { dry_run: self.dry_run, limit, expect: expect.and_then(|expect| usize::try_from(expect).ok()) }
    }
}

fn status_of(answer: &Spelled) -> Result<StatusCode, Problem> {
    let status = u16::try_from(answer.code).ok().and_then(|code| StatusCode::from_u16(code).ok());
    status.ok_or_else(|| {
        tracing::error!(status = answer.code, "the kept answer of an idempotent call has no status of HTTP");
        Problem::new(&problem::INTERNAL_ERROR, "The answer to the first call with this key cannot be given again")
    })
}

/// Who decides, for whom, and why.
pub(super) fn why(body: &mut Body, request: &HttpRequest) -> Why {
    let Attributed { actor, on_behalf_of } = caller::attribute(request, body.text("actor", MAX_ID_CHARS));
    let actor = actor.unwrap_or_else(|| ANONYMOUS.to_owned());
    Why { reason: body.required_text("reason", MAX_REASON_CHARS).unwrap_or_default(), actor, on_behalf_of }
}

/// A key in the path, from the path as sent: decoded once, strictly.
pub(super) fn key_in_path(request: &HttpRequest) -> Result<String, Problem> {
    let raw = path_part(request, "key");
    let key = parameters::decode(raw).filter(|key| parameters::is_id(key));
    key.ok_or_else(|| {
        let allowed = "must be 1 to 256 characters of percent-encoded UTF-8 without NUL";
        let problem = Problem::new(&problem::INVALID_PARAMETER, format!("`key`: {allowed}"));
        problem.parameter("key", raw, allowed)
    })
}

/// The id of a dead letter in the path.
pub(super) fn id_in_path(request: &HttpRequest) -> Result<i64, Problem> {
    let raw = path_part(request, "id");
    parameters::whole_number(raw).filter(|id| *id > 0).ok_or_else(|| {
        let allowed = parameters::whole_number_form(1);
        let problem = Problem::new(&problem::INVALID_PARAMETER, format!("`id`: {allowed}"));
        problem.parameter("id", raw, &allowed)
    })
}
