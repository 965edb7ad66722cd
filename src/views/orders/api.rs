//! The orders API: lists, one order, its history.

mod as_of;
mod asked;
mod changes;
mod list;
mod mend;
pub mod model;

use std::time::Instant;

use actix_web::http::header;
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use utoipa::{IntoParams, OpenApi as _};

use self::as_of::HISTORY_INCOMPLETE;
use self::asked::{Asked, OrderParameters, WriteToSee};
use self::list::Request;
use self::model::{HeldBody, Order, OrderEventPage, OrderPage};
use super::estimates::Estimates;
use super::queries::{self, OrderRead};
use crate::api::Api;
use crate::api::answer;
use crate::api::limits::{Counted, Kind};
use crate::api::parameters::{self, Parameters};
use crate::api::paths::path_part;
use crate::api::problem::{self, Code, Problem, ProblemBody};
use crate::api::routes::{RouteSpec, ViewApi};
use crate::auth::policy::Policy;
use crate::config::History;
use crate::store::lookup::SharedLookup;
use crate::store::read;

const VIEW: &str = "orders";
const READ: Counted = Counted::As(Kind::Reads);
const STREAM: Counted = Counted::As(Kind::Streams);
/// An order by its id costs little; as it was, its history is read.
const READ_AS_OF: Counted = Counted::With(Kind::Reads, &["asOf", "asOfSequence"]);
/// Clients may keep an answer, but ask each time whether it is still right.
const REVALIDATE: &str = "private, no-cache";
/// What JSON usually takes: a page without its orders, an order without its lines.
const BYTES_OF_PAGE: usize = 128;
const BYTES_OF_ORDER: usize = 448;

static ORDER_NOT_FOUND: Code = Code {
    name: "order_not_found",
    status: StatusCode::NOT_FOUND,
    title: "There is no such order",
    meaning: "The view has no order of this id: it never existed, or its first event has not been applied yet; or, asked with \
              `asOf` or `asOfSequence`, not by then.",
    next_step: "If you have just written it, ask with `minSequence` and `waitMs`. Otherwise check the id.",
};
static ORDER_HELD: Code = Code {
    name: "order_held",
    status: StatusCode::NOT_FOUND,
    title: "The order waits for its first event",
    meaning: "Later events of the order have arrived, but its first one has not, or could not be read. \
              Nothing of it is shown until then.",
    next_step: "`held` says which event is missing. It resolves itself when that event arrives. If it never will, or was \
                refused (`deadLetterId`), an operator can skip or replace it: `held.href` says how.",
};

static HISTORY_OFF: Code = Code {
    name: "history_off",
    status: StatusCode::NOT_FOUND,
    title: "The view keeps no history",
    meaning: "The service runs with `projector.history = \"off\"`: it keeps what events did, not the events.",
    next_step: "Read the topic, or have the operators keep a history; it begins with the events applied from then on.",
};

/// What this view brings to the API.
pub fn configure() -> ViewApi {
    let get = |path, handler| RouteSpec::new(Method::GET, path, Policy::Reader, handler);
    ViewApi {
        view: VIEW,
        routes: vec![
            get("/orders", || web::route().to(list_orders)).counted(READ),
            get("/orders/changes", || web::route().to(changes::list_changes)).counted(STREAM),
            get("/orders/{orderId}", || web::route().to(get_order)).counted(READ_AS_OF),
            get("/orders/{orderId}/events", || web::route().to(list_events)).counted(READ),
            get("/orders/{orderId}/changes", || web::route().to(changes::order_changes)).counted(STREAM),
            RouteSpec::new(Method::POST, "/ops/orders/{orderId}/rebuild", Policy::OperatorDecides, || {
                web::route().to(mend::rebuild_order)
            }),
        ],
        problems: vec![&ORDER_NOT_FOUND, &ORDER_HELD, &HISTORY_OFF, &HISTORY_INCOMPLETE],
        openapi: Document::openapi,
        sequences: queries::sequences,
        shown: queries::shown,
        of_worker: |state, config| {
            config.app_data(web::Data::new(queries::order_lookup(&state.database.for_reads())));
            config.app_data(web::Data::new(Estimates::default()));
        },
    }
}

#[derive(utoipa::OpenApi)]
#[openapi(
    paths(
        list_orders,
        get_order,
        list_events,
        changes::list_changes,
        changes::order_changes,
        mend::rebuild_order,
    ),
    components(schemas(model::OrderItem, model::OrderChange<'static>)),
    tags((name = "orders", description = "Orders as of the last applied event: lists, single orders, histories.")),
)]
struct Document;

/// List orders
///
/// Orders without their lines, filtered and sorted. Ties are broken by the order id, in the same direction.
///
/// Follow `Link: rel="next"` and `rel="prev"`: their cursors cost the same on every page and neither skip nor repeat an
/// order that did not change meanwhile. A page by number (`page`) is for people who type; it works while
/// `(page - 1) * pageSize` is at most 10,000 (`http.max_offset`), and its `Link` header leads on from there.
///
/// `updatedAt` (with any filter) and `orderId` are read from an index. Sorting by a total visits every matching order:
/// combine it with `customerId`.
#[utoipa::path(get, path = "/orders", tag = "orders", params(list::ListParameters), responses(
    (status = 200, description = "One page", body = OrderPage, headers(
        ("Link" = String, description = "RFC 8288 links `first`, `next` and `prev`, relative to this host; no `next` on the last page"),
        ("Cache-Control" = String, description = "`private, no-cache`"),
    )),
    (status = 400, description = "A parameter or the cursor is not usable: `invalid_parameter`, `invalid_cursor`, `offset_too_deep`",
        body = ProblemBody<'static>, content_type = "application/problem+json"),
))]
async fn list_orders(
    api: web::Data<Api>,
    estimates: web::Data<Estimates>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let asked = Request::parse(request.query_string(), &api.state.settings)?;
    let listing = read::twice(async || queries::list(&api.state.pool, &estimates, &asked.query).await).await?;
    let items = listing.orders()?;
    let link = asked.link(request.path(), &items, listing.more);
    let page = OrderPage {
        items,
        page: asked.page,
        page_size: asked.query.limit,
        total: listing.total,
        total_is_estimate: listing.total_is_estimate,
    };
    let mut response = HttpResponse::Ok();
    response.insert_header((header::CACHE_CONTROL, REVALIDATE)).insert_header((header::LINK, link));
    answer::json(&mut response, &page, BYTES_OF_PAGE + BYTES_OF_ORDER * page.items.len())
}

/// Get one order
///
/// The order with its lines and, if an event is missing, what it waits for: all of one moment, never half a batch.
///
/// **Read your own write.** With `minSequence` the answer holds at least that event of the order, also if the order does
/// not exist yet; with `waitMs` it waits for it. When the wait ends first: 412 with the sequence reached so far.
///
/// **As it was.** With `asOfSequence` or `asOf` the order is folded again from its history, by the rules of the build that is
/// read: the answer is what it was then, to the byte but for `held`, which is null, as what an order waited for is not kept.
/// A moment means the longest run of events from the first on of which none says that it happened later (`occurredAt`); an
/// event that came late with an earlier time is there once all before it are. 404 if nothing of it was there by then, 409 if
/// the history does not tell.
///
/// **Caching.** The `ETag` is strong: equal tags mean equal bodies, byte for byte, whatever would make them differ. Send it
/// back in `If-None-Match` and get a 304 without a body while nothing changed; a suffix that a compressing proxy has added
/// (`-gzip`, `;br`) does no harm.
#[utoipa::path(get, path = "/orders/{orderId}", tag = "orders",
    params(
        ("orderId" = String, Path, description = "The order's id", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$", example = "order-1"),
        OrderParameters,
        ("If-None-Match" = Option<String>, Header, description = "Entity tags of answers the client has, or `*`"),
    ),
    responses(
        (status = 200, description = "The order", body = Order, headers(
            ("ETag" = String, description = "Build, sequence, held state if any, and a digest of the answer, like `\"1-5-h7.3-0af7651916cd43dd8448eb211c80319c\"`. Compare it as a whole"),
            ("Cache-Control" = String, description = "`private, no-cache`"),
        )),
        (status = 304, description = "Nothing changed since the answer the client has", headers(
            ("ETag" = String, description = "The unchanged tag"),
        )),
        (status = 400, description = "A parameter is not usable", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 404, description = "`order_not_found`, or `order_held` with `held` while its first event is missing",
            body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 409, description = "`history_incomplete`: the order as it was cannot be told, and why",
            body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 412, description = "`sequence_not_reached`, with `currentSequence` (0: not there at all) and `held` if it is stuck",
            body = ProblemBody<'static>, content_type = "application/problem+json",
            headers(("Retry-After" = u32, description = "Seconds to wait"))),
        (status = 503, description = "The database does not answer, is busy or gave up, or too many requests wait",
            body = ProblemBody<'static>, content_type = "application/problem+json",
            headers(("Retry-After" = u32, description = "Seconds to wait"))),
    ))]
async fn get_order(
    api: web::Data<Api>,
    lookup: web::Data<SharedLookup>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let order_id = order_id(&request)?;
    let read = match Asked::parse(request.query_string(), api.state.settings.max_wait_ms)? {
        Asked::Now => queries::order(&lookup, &order_id).await?,
        Asked::Write(write) => read_own_write(&api, &lookup, &order_id, &write).await?,
        Asked::Then(until) => return as_of::answer_as_of(&api, &lookup, &request, (&order_id, until)).await,
    };
    let (read, sequence) = match read {
        Some(OrderRead { sequence: None, held: Some(held), .. }) => return Err(waits_for_its_first_event(held)),
        Some(read) => match read.sequence {
            Some(sequence) => (read, sequence),
            None => return Err(not_found()),
        },
        None => return Err(not_found()),
    };
    let words = words_of_tag(read.build, sequence, read.held.as_ref());
    let mut response = HttpResponse::Ok();
    response.insert_header((header::CACHE_CONTROL, REVALIDATE));
    answer::tagged_json(request.headers(), &mut response, (&words, &read.order()?), 2 * BYTES_OF_ORDER)
}

/// Reads until the write shows, or the wait ends: then 412. Never answers with less than was asked for.
async fn read_own_write(
    api: &Api,
    lookup: &SharedLookup,
    order_id: &str,
    write: &WriteToSee,
) -> Result<Option<OrderRead>, Problem> {
    let waiters =
        api.waiters(VIEW).ok_or_else(|| Problem::new(&problem::VIEW_NOT_FOUND, "The view is not served here"))?;
    let until = Instant::now() + write.wait;
    loop {
        let seen = waiters.seen_commits();
        let read = queries::order(lookup, order_id).await?;
        let current = sequence_of(&read);
        if current >= write.sequence {
            return Ok(read);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || api.state.shutting_down.is_cancelled() {
            let problem = not_reached(current, write.sequence);
            return Err(match read.and_then(|read| read.held) {
                Some(held) => problem.with("held", held),
                None => problem,
            });
        }
        // Who looks for all of them may ask another server than the one that answers, where `database.read_url` has several: what
        // counts is what is answered.
        waiters.wait(order_id, write.sequence, seen, left).await?;
    }
}

fn not_reached(current: i64, asked: i64) -> Problem {
    let detail = format!("The order is at sequence {current}, not yet at {asked}");
    Problem::new(&problem::SEQUENCE_NOT_REACHED, detail).with("currentSequence", current).retry_after(1)
}

fn waits_for_its_first_event(held: HeldBody) -> Problem {
    let detail = format!("The order waits for its event {}; nothing of it can be shown yet", held.missing_from);
    Problem::new(&ORDER_HELD, detail).with("held", held)
}

fn sequence_of(read: &Option<OrderRead>) -> i64 {
    read.as_ref().and_then(|read| read.sequence).unwrap_or(0)
}

/// The parameters of a history.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documentation; read by `list_events`")]
struct EventsParameters {
    /// Only events after this sequence number; from the first if left out.
    #[param(rename = "afterSequence", minimum = 0, required = false)]
    after_sequence: Option<i64>,
    /// Most events on a page; large payloads make it shorter.
    #[param(rename = "pageSize", minimum = 1, maximum = 200, default = 50, required = false)]
    page_size: Option<u32>,
}

/// Get an order's history
///
/// Every event that the order has consumed, by sequence number, with what became of it. Follow `Link: rel="next"`: a page ends
/// after `pageSize` events, or before it would have more than 4 MiB of payloads. It has one event at least, however large, if
/// any follows.
#[utoipa::path(get, path = "/orders/{orderId}/events", tag = "orders",
    params(
        ("orderId" = String, Path, description = "The order's id", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$", example = "order-1"),
        EventsParameters,
    ),
    responses(
        (status = 200, description = "One page", body = OrderEventPage, headers(
            ("Link" = String, description = "RFC 8288 links `first` and `next`; no `next` on the last page"),
            ("Cache-Control" = String, description = "`private, no-cache`"),
        )),
        (status = 400, description = "A parameter is not usable", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 404, description = "`order_not_found`, or `history_off`: none is kept", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ))]
async fn list_events(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let order_id = order_id(&request)?;
    let settings = &api.state.settings;
    let mut parameters = Parameters::parse(request.query_string(), &["afterSequence", "pageSize"]);
    // Left out: from the first event, whose number is 0 where projector.first_sequence says so.
    let after = parameters.number_from("afterSequence", 0).unwrap_or(-1);
    let page_size = parameters.number("pageSize", 1..=settings.max_page_size);
    parameters.finish()?;
    if api.state.views.iter().any(|board| board.view == VIEW && board.status().meaning().rules.history == History::Off)
    {
        return Err(Problem::new(&HISTORY_OFF, "The view keeps no history (history = off)"));
    }
    let limit = page_size.unwrap_or(settings.default_page_size);
    let read = read::twice(async || queries::events(&api.state.pool, &order_id, after, limit).await).await?;
    let read = read.ok_or_else(not_found)?;
    let path = format!("/orders/{}/events", parameters::encode(&order_id));
    let mut link = format!("<{path}?pageSize={limit}>; rel=\"first\"");
    if let (true, Some(last)) = (read.more, read.events.last()) {
        link.push_str(&format!(", <{path}?pageSize={limit}&afterSequence={}>; rel=\"next\"", last.sequence));
    }
    Ok(HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, REVALIDATE))
        .insert_header((header::LINK, link))
        .json(OrderEventPage { items: read.events, page_size: limit }))
}

/// The order id of `/orders/{orderId}…`, from the path as sent: decoded once, strictly.
fn order_id(request: &HttpRequest) -> Result<String, Problem> {
    let raw = path_part(request, "orderId");
    let fault = |detail: &str| {
        let problem = Problem::new(&problem::INVALID_PARAMETER, format!("`orderId`: {detail}"));
        problem.parameter("orderId", raw, detail)
    };
    let order_id = parameters::decode(raw).ok_or_else(|| fault("is not percent-encoded UTF-8 without NUL"))?;
    if parameters::is_id(&order_id) { Ok(order_id) } else { Err(fault("must have 1 to 256 characters")) }
}

fn not_found() -> Problem {
    Problem::new(&ORDER_NOT_FOUND, "The view has no order of this id")
}

/// How an order's tag begins: what people look for in it. What makes it strong is the digest that follows.
fn words_of_tag(build: i32, sequence: i64, held: Option<&HeldBody>) -> String {
    let Some(held) = held else { return format!("{build}-{sequence}") };
    let dead_letter = held.dead_letter_id.map_or_else(String::new, |id| format!(".d{id}"));
    format!("{build}-{sequence}-h{}.{}{dead_letter}", held.missing_from, held.parked_count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(parked_count: i32, dead_letter_id: Option<i64>) -> HeldBody {
        HeldBody {
            reason: "gap",
            missing_from: 7,
            missing_to: None,
            parked_count,
            parked_bytes: 0,
            since: jiff::Timestamp::UNIX_EPOCH,
            dead_letter_id,
            href: String::new(),
        }
    }

    #[test]
    fn the_tag_tells_sequence_and_held_state() {
        assert_eq!(words_of_tag(1, 5, None), "1-5");
        assert_eq!(words_of_tag(1, 5, Some(&held(3, None))), "1-5-h7.3");
        assert_eq!(words_of_tag(1, 5, Some(&held(3, Some(12)))), "1-5-h7.3.d12");
    }
}
