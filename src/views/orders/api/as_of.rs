//! Answers with an order as it was.

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse};

use super::{BYTES_OF_ORDER, REVALIDATE, VIEW, not_found, not_reached, waits_for_its_first_event, words_of_tag};
use crate::api::problem::{self, Code, Problem};
use crate::api::{Api, answer};
use crate::config::ViewRules;
use crate::engine::refold::{Unfoldable, Until};
use crate::store::lookup::SharedLookup;
use crate::store::read;
use crate::views::orders::as_of::Past;
use crate::views::orders::as_of::queries::{Rules, order_at};

pub(super) static HISTORY_INCOMPLETE: Code = Code {
    name: "history_incomplete",
    status: StatusCode::CONFLICT,
    title: "The order's history does not tell",
    meaning: "An order as it was is folded again from its history, which has to hold every event up to there with its \
              payload. With `projector.history` = `compact` or `off` it does not; nor does it of what was consumed while \
              that was set.",
    next_step: "Read the order as it is, or its history at `/orders/{orderId}/events`. Operators who set \
                `projector.history = \"payload\"` and rebuild the view get the whole history that the topic still has.",
};

/// The order as it was then.
pub(super) async fn answer_as_of(
    api: &Api,
    lookup: &SharedLookup,
    request: &HttpRequest,
    (order_id, until): (&str, Until),
) -> Result<HttpResponse, Problem> {
    let rules = rules(api)?;
    let past = read::twice(async || order_at((lookup, &api.state.pool), order_id, until, &rules).await).await?;
    match past {
        Past::Was(past) => {
            let words = words_of_tag(past.build, past.sequence(), None);
            let mut response = HttpResponse::Ok();
            response.insert_header((header::CACHE_CONTROL, REVALIDATE));
            answer::tagged_json(request.headers(), &mut response, (&words, &past.order()?), 2 * BYTES_OF_ORDER)
        }
        Past::NotYet => {
            let detail = "The order came later: nothing of it was there by then";
            Err(Problem::new(&super::ORDER_NOT_FOUND, detail))
        }
        Past::NotReached(current) => {
            let asked = if let Until::Sequence(sequence) = until { sequence.0 } else { current };
            Err(not_reached(current, asked))
        }
        Past::Unknown(Some(held)) => Err(waits_for_its_first_event(held)),
        Past::Unknown(None) => Err(not_found()),
        Past::Untold(why) => Err(untold(order_id, &why)),
    }
}

/// What holds for a build that keeps no rules of its own.
fn rules(api: &Api) -> Result<Rules, Problem> {
    let desk = api.state.desks.iter().find(|desk| desk.view == VIEW);
    let desk = desk.ok_or_else(|| Problem::new(&problem::VIEW_NOT_FOUND, "The view is not served here"))?;
    let ViewRules { first_sequence, default_tax_rate, .. } = desk.rules();
    Ok(Rules { first_sequence, default_tax_rate })
}

fn untold(order_id: &str, why: &Unfoldable) -> Problem {
    if matches!(why, Unfoldable::Refused(..)) {
        // Its own rows say that it was folded once.
        tracing::warn!(order_id, error = %why, "an order cannot be folded again from its history");
    }
    let mut detail = why.to_string();
    detail[..1].make_ascii_uppercase();
    Problem::new(&HISTORY_INCOMPLETE, detail)
}
