//! Changes of orders as they happen: of a list, or of one order.

use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::stream;
use utoipa::IntoParams;

use super::super::queries::{self, Filters, ListQuery, SortKey, Start};
use super::list::{canonical, filters_of, statuses_schema};
use super::{HISTORY_OFF, VIEW, order_id};
use crate::api::Api;
use crate::api::changes::{self, Present};
use crate::api::parameters::{Parameters, encode};
use crate::api::problem::{self, Problem, ProblemBody};
use crate::domain::changes::{FeedCursor, KeyCursor};
use crate::domain::page::Direction;
use crate::domain::units::Sequence;
use crate::feed::changes::Feed;
use crate::feed::following::{Follower, KeyFollower, ListFollower, RowFollower};
use crate::feed::wanted::Filter;
use crate::store::read::{self, ReadPool};

use std::sync::Arc;

/// The name of each event.
const EVENT: &str = "order";
/// Orders of a page of what there is now.
const SNAPSHOT_PAGE: u32 = 200;

/// The parameters of a list's changes.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documentation; read by `list_changes`")]
pub(super) struct ListChangesParameters {
    /// Only orders of this status. Repeat it for any of several, at most 20.
    #[param(schema_with = statuses_schema, required = false)]
    status: Option<Vec<String>>,
    /// Only orders of this customer.
    #[param(rename = "customerId", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$", required = false)]
    customer_id: Option<String>,
    /// Only orders updated at or after this time.
    #[param(value_type = Option<String>, format = DateTime, required = false, example = "2026-01-01T00:00:00Z")]
    from: Option<String>,
    /// Only orders updated before this time; not before `from`.
    #[param(value_type = Option<String>, format = DateTime, required = false, example = "2026-02-01T00:00:00Z")]
    to: Option<String>,
    /// Go on behind this `id` of the same stream. `Last-Event-ID` comes before it.
    #[param(min_length = 1, pattern = "^[A-Za-z0-9_-]+$", required = false)]
    after: Option<String>,
    /// Send what there is now first. Without effect for a client that comes back with an `id`.
    #[param(default = false, required = false)]
    snapshot: Option<bool>,
}

/// The parameters of one order's changes.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documentation; read by `order_changes`")]
pub(super) struct OrderChangesParameters {
    /// Go on behind this `id` of the same stream. `Last-Event-ID` comes before it.
    #[param(min_length = 1, pattern = "^[A-Za-z0-9_-]+$", required = false)]
    after: Option<String>,
    /// Send the order as it is now first, if it is there. Without effect for a client that comes back with an `id`.
    #[param(default = false, required = false)]
    snapshot: Option<bool>,
}

/// Follow all orders
///
/// Server-Sent Events, without end. Each `event: order` is one event that an order has consumed: `data` is the order as in
/// the list (`OrderChange`), as it is **when it is sent** and so at least as new as the change, with `changedBy`, which says
/// by which event. Several events of an order in a row may show the same order, its latest state.
///
/// **Filters** are those of the list and look at the order as it is when it is sent. An order that leaves the filter is not
/// told; who has to see it leave follows without that filter.
///
/// **Order and completeness.** Changes of one order come in order. `id` is an opaque cursor: a client that comes back with
/// it, in `Last-Event-ID` as browsers do or in `after`, misses nothing and gets nothing twice, whatever was restarted,
/// rebuilt or rolled back meanwhile, from whichever instance. Without one it follows from now on; with `snapshot=true` it
/// gets the orders that there are first (`changedBy` is null, no `id`), then one `event: snapshot`, and then what has
/// changed since the snapshot was begun.
///
/// **Silence** of 15 s is broken by a comment with the cursor of what was passed over. **A slow client**, for which more
/// than `http.follower_buffer` changes wait, gets `event: overrun` and is sent away; it comes back with its last id. One that
/// takes nothing at all for `http.send_timeout_ms` is cut off.
///
/// **An end on our side**, as when an instance stops, comes with `retry` and the cursor up to there. `EventSource` comes back
/// by itself but for an answer other than 200: 410 and 503 end it, and who uses it begins anew.
///
/// **A cutover** to a rebuilt view or back tells nothing of itself, and loses and repeats nothing that orders consume. What the
/// rebuild made otherwise of earlier events shows with the next change of an order.
///
/// An order with the id `changes` cannot be read at `/orders/{orderId}`: this is served there.
#[utoipa::path(get, path = "/orders/changes", tag = "orders",
    params(
        ListChangesParameters,
        ("Last-Event-ID" = Option<String>, Header, description = "The last `id` that the client has seen; browsers send it by themselves"),
    ),
    responses(
        (status = 200, description = "Changes, as they happen", body = String, content_type = "text/event-stream"),
        (status = 400, description = "A parameter or the cursor is not usable: `invalid_parameter`, `invalid_cursor`",
            body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 404, description = "`history_off`: the view keeps no history, and only single orders can be followed",
            body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 410, description = "`cursor_expired`: what lies after the cursor cannot be told any more; `restart` is where to begin anew",
            body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 503, description = "The database does not answer, is busy or gave up, or too many clients follow (`too_many_followers`)",
            body = ProblemBody<'static>, content_type = "application/problem+json",
            headers(("Retry-After" = u32, description = "Seconds to wait"))),
    ))]
pub(super) async fn list_changes(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let names = ["status", "customerId", "from", "to", "after", "snapshot"];
    let mut parameters = Parameters::parse(request.query_string(), &names);
    let (filters, sent) = (filters_of(&mut parameters), changes::begins(&request, &mut parameters));
    let snapshot = parameters.switch("snapshot").unwrap_or(false);
    parameters.finish()?;
    let feed = feed(&api)?;
    if !feed.keeps_ledger() {
        let detail = "Without a history (history = off) nothing says which orders have changed: follow single orders, by \
                      /orders/{orderId}/changes";
        return Err(Problem::new(&HISTORY_OFF, detail));
    }
    let cursor = sent.map(|sent| sent.read(|text| FeedCursor::decode(text, VIEW))).transpose()?;
    let present = (snapshot && cursor.is_none()).then(|| present(api.state.pool.clone(), filters.clone()));
    let mut restart = format!("/orders/changes?snapshot=true&{}", canonical(&filters));
    restart.truncate(restart.trim_end_matches('&').len());
    let follower = ListFollower::begin(feed, filter_of(filters), cursor).await;
    let follower = follower.map_err(|error| changes::refused(error, &restart))?;
    Ok(changes::answer(&request, EVENT, Follower::List(Box::new(follower)), present))
}

/// Follow one order
///
/// As `/orders/changes`, of one order, which need not be there yet. Its `id` is that of another stream: it says how far the
/// order was seen, and never expires.
///
/// **Without a history** (`projector.history = "off"`) the order is told whenever it has changed, and events that were
/// applied together are told as one: `changedBy` has the last of them, without type and effect. Numbers still only grow.
/// Streams end where readers are taken to a build that keeps a history, or keeps none any more, and go on as that one can.
#[utoipa::path(get, path = "/orders/{orderId}/changes", tag = "orders",
    params(
        ("orderId" = String, Path, description = "The order's id", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$", example = "order-1"),
        OrderChangesParameters,
        ("Last-Event-ID" = Option<String>, Header, description = "The last `id` that the client has seen; browsers send it by themselves"),
    ),
    responses(
        (status = 200, description = "Changes, as they happen", body = String, content_type = "text/event-stream"),
        (status = 400, description = "A parameter or the cursor is not usable: `invalid_parameter`, `invalid_cursor`",
            body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 503, description = "The database does not answer, is busy or gave up, or too many clients follow (`too_many_followers`)",
            body = ProblemBody<'static>, content_type = "application/problem+json",
            headers(("Retry-After" = u32, description = "Seconds to wait"))),
    ))]
pub(super) async fn order_changes(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let order_id = order_id(&request)?;
    let mut parameters = Parameters::parse(request.query_string(), &["after", "snapshot"]);
    let sent = changes::begins(&request, &mut parameters);
    let snapshot = parameters.switch("snapshot").unwrap_or(false);
    parameters.finish()?;
    let (pool, feed) = (&api.state.pool, feed(&api)?);
    let (last, present) = match sent {
        Some(sent) => (sent.read(|text| KeyCursor::decode(text, VIEW, &order_id))?.0, None),
        None => {
            let shown = async || queries::shown(pool.clone(), vec![order_id.clone()]).await;
            let now = read::twice(shown).await?.pop();
            let last = now.as_ref().map_or(Sequence(-1), |(_, order)| order.sequence);
            let page = now.map(|(_, order)| Ok(vec![order]));
            (last, snapshot.then(|| Box::pin(stream::iter(page)) as Present))
        }
    };
    let follower = if !feed.keeps_ledger() {
        let waiters = api.waiters(VIEW).ok_or_else(not_served)?;
        RowFollower::begin(feed, waiters, &order_id, last).map(Follower::Row)
    } else {
        KeyFollower::begin(feed, &order_id, last).map(Follower::Key)
    };
    let restart = format!("/orders/{}/changes?snapshot=true", encode(&order_id));
    let follower = follower.map_err(|error| changes::refused(error, &restart))?;
    Ok(changes::answer(&request, EVENT, follower, present))
}

fn feed(api: &Api) -> Result<&Arc<Feed>, Problem> {
    api.feed(VIEW).ok_or_else(not_served)
}

fn not_served() -> Problem {
    Problem::new(&problem::VIEW_NOT_FOUND, "The view is not served here")
}

/// As [`queries::shown`] says what an order is chosen by.
fn filter_of(filters: Filters) -> Filter {
    let Filters { statuses, customer_id, from, to } = filters;
    Filter { words: vec![statuses, customer_id.into_iter().collect()], from, to }
}

/// The orders that there are, latest first. One that changes meanwhile may move to where we have been: its change is told
/// afterwards.
fn present(pool: ReadPool, filters: Filters) -> Present {
    let query = ListQuery {
        filters,
        sort: SortKey::UpdatedAt,
        descending: true,
        start: Start::Offset(0),
        limit: SNAPSHOT_PAGE,
    };
    Box::pin(stream::unfold(Some(query), move |query| {
        let pool = pool.clone();
        async move {
            let mut query = query?;
            let page = read::twice(async || queries::shown_page(&pool, &query).await).await;
            match page {
                Ok((orders, None)) => Some((Ok(orders), None)),
                Ok((orders, Some(position))) => {
                    query.start = Start::At(Direction::After, position);
                    Some((Ok(orders), Some(query)))
                }
                Err(error) => Some((Err(error), None)),
            }
        }
    }))
}
