//! `POST /ops/orders/{orderId}/rebuild`.

use actix_web::{HttpRequest, HttpResponse, web};

use super::{VIEW, order_id};
use crate::api::Api;
use crate::api::ops::mend::{MendRequest, MendedBody, mend};
use crate::api::problem::{Problem, ProblemBody};

/// Rebuild one order
///
/// Folds the order again, from the ledger or from the log, and puts what comes out in the place of its rows, in every build
/// that is there, while the view is fed: whoever projects waits for a moment, and folds the next event upon the mended rows.
/// From the log also the order's ledger is mended. The whole log is read for that, once, which takes its time.
#[utoipa::path(post, path = "/ops/orders/{orderId}/rebuild", operation_id = "rebuild_order", tag = "operations",
    params(
        ("orderId" = String, Path, description = "The order's id", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$", example = "order-1"),
        ("Idempotency-Key" = Option<String>, Header, description = "A call repeated with the same key does nothing twice, and gets the first answer.",
            min_length = 1, max_length = 255, pattern = "^[\\x21-\\x7e]+$"),
    ),
    request_body(content = MendRequest, content_type = "application/json"),
    responses(
        (status = 200, description = "The order is as it should be; what was changed", body = MendedBody),
        (status = 400, description = "The request is not usable", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 403, description = "`operations_not_allowed`", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 404, description = "`key_not_found`", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 409, description = "`not_mendable`: what it would be made of is not there; `reason` says why", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 422, description = "`idempotency_key_reused`", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 503, description = "The database or the log does not answer", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ))]
pub async fn rebuild_order(
    api: web::Data<Api>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let order_id = order_id(&request)?;
    mend((&api, VIEW), order_id, &request, payload).await
}
