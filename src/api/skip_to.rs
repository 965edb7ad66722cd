//! `POST /ops/partitions/{partition}/skip-to`: gives up records that cannot be read. What it means is in
//! [`crate::repair::skip_to`]; here are its form and its answers.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::caller::{self, Attributed};
use super::problem::{self, Problem, ProblemBody};
use super::{Api, body, idempotency};
use crate::domain::units::{NextOffset, Partition};
use crate::repair::skip_to::{self, SkipError, SkipTo, Skipped};
use crate::status::ViewStatus;
use crate::store::blocked::SkippedRange;
use crate::store::read::ReadError;

const MAX_BODY_BYTES: usize = 16 * 1024;
const MAX_TEXT_CHARS: usize = 1000;
/// Longest `Idempotency-Key`.
const MAX_KEY_CHARS: usize = 256;

/// What to skip.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SkipToRequest {
    /// Name of the view; the first one if left out.
    #[schema(required = false, example = "orders", max_length = 256)]
    pub view: Option<String>,
    /// `nextOffset` of the partition as you see it. If it stands elsewhere by now, nothing happens.
    #[schema(minimum = 0, example = 120)]
    pub from: i64,
    /// First offset that is read again; at most the partition's high watermark.
    #[schema(minimum = 1, example = 140)]
    pub to: i64,
    /// Why, for those who ask later.
    #[schema(min_length = 1, max_length = 1000, example = "disk error on broker 3, no replica left")]
    pub reason: String,
    /// Who decides; where callers log in, for whom.
    #[schema(required = false, max_length = 1000)]
    pub actor: Option<String>,
}

/// What was skipped, and what that means.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SkipToAnswer {
    /// Number of the decision, a row of `skipped_ranges`.
    pub id: i64,
    /// Name of the view.
    #[schema(example = "orders")]
    pub view: String,
    /// Source topic.
    #[schema(example = "orders.events")]
    pub topic: String,
    /// Partition number.
    #[schema(minimum = 0)]
    pub partition: i32,
    /// First offset skipped.
    pub from: i64,
    /// First offset that is read again.
    pub to: i64,
    /// Offsets skipped, those without a record included.
    #[schema(minimum = 1)]
    pub skipped_offsets: i64,
    /// When it was decided.
    #[schema(value_type = String, format = DateTime)]
    pub decided_at: Timestamp,
    /// What stopped the partition at that place: a code and a sentence. Null where the call is repeated after it was stopped elsewhere.
    #[schema(
        required,
        example = "schema_not_found: schema 7 of the record at partition 3, offset 120 is not in the registry"
    )]
    pub stopped_by: Option<String>,
    /// What is lost.
    pub consequences: &'static str,
}

const CONSEQUENCES: &str = "The records at these offsets are never applied, by this build or any later one, whether they \
    can be read again or not. Nobody knows which orders they were for: an affected order shows a gap as soon as a later \
    event of it arrives, and an old state until then. The projector goes on behind them within seconds, by itself.";

/// Give up records that cannot be read
///
/// The last resort for a partition that stands before a batch it cannot read (`unreadable_batch`), before a hole
/// (`log_truncated`) or before a record whose schema the registry does not know (`schema_not_found`). Refused where no
/// record stops the partition. The decision is kept in `skipped_ranges`.
#[utoipa::path(post, path = "/ops/partitions/{partition}/skip-to", tag = "operations",
    params(
        ("partition" = i32, Path, description = "Partition number.", minimum = 0),
        ("Idempotency-Key" = Option<String>, Header, description = "A call repeated with the same key decides nothing twice.",
            min_length = 1, max_length = 256, pattern = "^[\\x21-\\x7e]+$"),
    ),
    request_body(content = SkipToRequest, content_type = "application/json"),
    responses(
        (status = 200, description = "Skipped", body = SkipToAnswer),
        (status = 400, description = "The request is not usable", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 403, description = "`operations_not_allowed`: the service is reachable by others and has no access control", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 404, description = "No such view or partition", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 409, description = "Not now: see `code`", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ))]
pub async fn post(
    api: web::Data<Api>,
    request: HttpRequest,
    partition: web::Path<String>,
    body: web::Payload,
) -> Result<HttpResponse, Problem> {
    let partition = partition.parse().ok().filter(|number| *number >= 0).map(Partition).ok_or_else(|| {
        Problem::new(&problem::INVALID_PARAMETER, "The partition is not usable").parameter(
            "partition",
            &partition,
            "is not a partition number",
        )
    })?;
    let asked = read_body(&request, body).await?;
    let status = view_of(&api, asked.view.as_deref())?;
    check(&asked, &status, partition)?;
    let idempotency_key = idempotency::key_of(&request, MAX_KEY_CHARS)?;
    let Attributed { actor, on_behalf_of } = caller::attribute(&request, asked.actor);
    let order = SkipTo {
        view: status.view.to_owned(),
        build: status.build,
        topic: status.topic.clone(),
        partition,
        from: NextOffset(asked.from),
        to: NextOffset(asked.to),
        reason: asked.reason,
        actor,
        on_behalf_of,
        has_logged_in: caller::principal(&request).is_some(),
        idempotency_key,
    };
    let skipped = skip_to::skip(&api.writers, &order).await.map_err(|error| refused(error, &order, &status))?;
    if skipped.is_new {
        tracing::warn!(
            view = order.view,
            partition = partition.0,
            from = order.from.0,
            to = order.to.0,
            reason = order.reason,
            stopped_by = skipped.stopped_by,
            actor = order.actor,
            on_behalf_of = order.on_behalf_of,
            decision = skipped.id,
            "an operator has skipped records"
        );
    }
    Ok(HttpResponse::Ok().json(answer(order, &skipped)))
}

fn answer(order: SkipTo, skipped: &Skipped) -> SkipToAnswer {
    let SkippedRange { from, to } = skipped.range;
    SkipToAnswer {
        id: skipped.id,
        view: order.view,
        topic: order.topic,
        partition: order.partition.0,
        from: from.0,
        to: to.0,
        skipped_offsets: NextOffset::before(from).distance_to(to),
        decided_at: skipped.decided_at,
        stopped_by: skipped.stopped_by.clone(),
        consequences: CONSEQUENCES,
    }
}

async fn read_body(request: &HttpRequest, body: web::Payload) -> Result<SkipToRequest, Problem> {
    let bytes = body::read(request, body, MAX_BODY_BYTES).await?;
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Result<SkipToRequest, Problem> {
    serde_json::from_slice(bytes).map_err(|error| {
        // The parser names our type, which is nobody's business.
        let what = error.to_string().replace("i64", "a whole number of at most 18 digits");
        Problem::new(&problem::BAD_REQUEST, format!("The body cannot be read: {what}"))
    })
}

fn view_of(api: &Api, name: Option<&str>) -> Result<Arc<ViewStatus>, Problem> {
    let mut boards = api.state.views.iter();
    let found = match name {
        Some(name) => boards.find(|board| board.view == name),
        None => boards.next(),
    };
    found
        .map(|board| board.status())
        .ok_or_else(|| Problem::new(&problem::VIEW_NOT_FOUND, "No view of this name runs in this process"))
}

fn check(asked: &SkipToRequest, status: &ViewStatus, partition: Partition) -> Result<(), Problem> {
    let invalid = |name: &str, value: String, detail: &str| {
        Err(Problem::new(&problem::INVALID_PARAMETER, format!("`{name}`: {detail}")).parameter(name, &value, detail))
    };
    for (name, text) in [("reason", Some(&asked.reason)), ("actor", asked.actor.as_ref())] {
        let Some(text) = text else { continue };
        if text.trim().is_empty() || text.chars().count() > MAX_TEXT_CHARS || text.contains('\0') {
            return invalid(name, text.clone(), "has to be 1 to 1000 characters without NUL");
        }
    }
    if asked.from < 0 {
        return invalid("from", asked.from.to_string(), "is not an offset");
    }
    if asked.to <= asked.from {
        return invalid("to", asked.to.to_string(), "has to be greater than `from`");
    }
    let Some((_, lags)) = status.snapshot().lags else {
        let detail = "Kafka has not said yet where the partition ends";
        return Err(Problem::new(&problem::LOG_UNAVAILABLE, detail).retry_after(1));
    };
    let Some(lag) = lags.iter().find(|lag| lag.position.partition == partition) else {
        let detail = format!("Topic {} has no partition {partition}", status.topic);
        return Err(Problem::new(&problem::PARTITION_NOT_FOUND, detail));
    };
    let high = lag.position.high_watermark;
    if NextOffset(asked.to) > high {
        return invalid("to", asked.to.to_string(), &format!("is beyond the end of the partition, {high}"));
    }
    Ok(())
}

fn refused(error: SkipError, asked: &SkipTo, status: &ViewStatus) -> Problem {
    let detail = error.to_string();
    match error {
        SkipError::UnknownPartition(_) => Problem::new(&problem::PARTITION_NOT_FOUND, detail),
        SkipError::Moved(next_offset) => {
            let detail = format!("{detail}, not at {}", asked.from);
            Problem::new(&problem::OFFSET_MOVED, detail).with("nextOffset", next_offset.0)
        }
        SkipError::NotBlocked(next_offset) => {
            // It may stand still all the same: for something that all its neighbours wait for too.
            let waits = status.snapshot().reason.map_or_else(String::new, |why| format!("; the view waits: {why}"));
            let detail = format!("{detail}{waits}");
            Problem::new(&problem::PARTITION_NOT_BLOCKED, detail).with("nextOffset", next_offset.0)
        }
        SkipError::KeyReused { .. } | SkipError::KeyOfAnother => Problem::new(&problem::IDEMPOTENCY_KEY_REUSED, detail),
        // lock_not_available: a takeover or a batch is under way.
        SkipError::Database(error) if error.code().is_some_and(|state| state.code() == "55P03") => {
            Problem::new(&problem::DATABASE_BUSY, "The partition is being worked on at the moment").retry_after(1)
        }
        SkipError::Database(error) => ReadError::from(error).into(),
        SkipError::NoConnection(error) => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_that_is_none_is_refused_in_words() {
        for offset in ["\"2\"", "1.5", "9223372036854775808", "1e30", "{}"] {
            let body = format!(r#"{{"from": {offset}, "to": 3, "reason": "x"}}"#);
            let problem = parse(body.as_bytes()).unwrap_err().to_string();
            let words = "expected a whole number of at most 18 digits";
            assert!(problem.contains(words) && !problem.contains("64"), "{offset}: {problem}");
        }
        assert_eq!(parse(br#"{"from": 2, "to": 3, "reason": "x"}"#).unwrap().to, 3);
    }
}
