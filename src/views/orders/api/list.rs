//! The parameters of `GET /orders`, and the links to its neighbouring pages. No actix, no SQL.

use jiff::Timestamp;
use utoipa::IntoParams;
use utoipa::openapi::schema::{Array, ArrayBuilder, ObjectBuilder, Type};

use super::super::queries::{Filters, ListQuery, Position, PositionValue, SortKey, Start};
use super::model::OrderSummary;
use crate::api::parameters::{MAX_ID_CHARS, Parameters, encode, is_of_postgres};
use crate::api::problem::{self, Problem};
use crate::config::HttpSettings;
use crate::domain::page::{Cursor, Direction, offset_of};

const NAMES: [&str; 8] = ["status", "customerId", "from", "to", "sort", "page", "pageSize", "cursor"];
const SORTS: [&str; 8] =
    ["updatedAt", "-updatedAt", "orderId", "-orderId", "totalGross", "-totalGross", "totalNet", "-totalNet"];
const MAX_STATUSES: usize = 20;

/// The parameters, as documented.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documentation; read by `Request::parse`")]
pub(super) struct ListParameters {
    /// Only orders of this status. Repeat it for any of several, at most 20.
    #[param(schema_with = statuses_schema, required = false)]
    status: Option<Vec<String>>,
    /// Only orders of this customer.
    #[param(rename = "customerId", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$", required = false)]
    customer_id: Option<String>,
    /// Only orders updated at or after this time. RFC 3339 with its offset; write a `+` as `%2B`.
    #[param(value_type = Option<String>, format = DateTime, required = false, example = "2026-01-01T00:00:00Z")]
    from: Option<Timestamp>,
    /// Only orders updated before this time; not before `from`.
    #[param(value_type = Option<String>, format = DateTime, required = false, example = "2026-02-01T00:00:00Z")]
    to: Option<Timestamp>,
    /// Sorted by what; `-` puts the greatest first.
    #[param(inline, required = false)]
    sort: Option<SortParameter>,
    /// Page by number, from 1, down to `http.max_offset` rows. Not together with `cursor`.
    #[param(minimum = 1, default = 1, required = false)]
    page: Option<u64>,
    /// Orders on a page.
    #[param(rename = "pageSize", minimum = 1, maximum = 200, default = 50, required = false)]
    page_size: Option<u32>,
    /// A position, taken unchanged from a `Link` header, with the same filters and sort.
    #[param(min_length = 1, pattern = "^[A-Za-z0-9_-]+$", required = false)]
    cursor: Option<String>,
}

pub(super) fn statuses_schema() -> Array {
    let status = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(MAX_ID_CHARS))
        .pattern(Some("^[^\\x00]+$"));
    let description = "Only orders of this status. Repeat it for any of several, at most 20. \
         Orders whose status is not known yet show only in lists without this filter.";
    ArrayBuilder::new().items(status).max_items(Some(MAX_STATUSES)).description(Some(description)).build()
}

/// A column, ascending, or descending after a `-`.
#[derive(utoipa::ToSchema)]
#[schema(default = "-updatedAt")]
#[expect(dead_code, reason = "documentation; read by `sort_of`")]
enum SortParameter {
    #[schema(rename = "updatedAt")]
    UpdatedAt,
    #[schema(rename = "-updatedAt")]
    UpdatedAtDescending,
    #[schema(rename = "orderId")]
    OrderId,
    #[schema(rename = "-orderId")]
    OrderIdDescending,
    #[schema(rename = "totalGross")]
    TotalGross,
    #[schema(rename = "-totalGross")]
    TotalGrossDescending,
    #[schema(rename = "totalNet")]
    TotalNet,
    #[schema(rename = "-totalNet")]
    TotalNetDescending,
}

/// A list request, understood.
#[derive(Debug)]
pub(super) struct Request {
    /// What to read.
    pub(super) query: ListQuery,
    /// The page asked for by number; `None` on cursor pages.
    pub(super) page: Option<u64>,
    sort: String,
    filters: String,
}

impl Request {
    /// Reads a raw query string.
    pub(super) fn parse(query: &str, settings: &HttpSettings) -> Result<Self, Problem> {
        let mut parameters = Parameters::parse(query, &NAMES);
        let filters = filters_of(&mut parameters);
        let sort = parameters.one("sort").unwrap_or_else(|| "-updatedAt".into());
        let sort_key = sort_of(&sort);
        if sort_key.is_none() {
            parameters.reject("sort", &sort, &format!("must be one of {}", SORTS.join(", ")));
        }
        let limit = parameters.number("pageSize", 1..=settings.max_page_size).unwrap_or(settings.default_page_size);
        let page = parameters.page("page", deepest(limit, settings.max_offset));
        let cursor = parameters.one("cursor");
        if let (Some(page), Some(_)) = (page, &cursor) {
            parameters.reject(
                "page",
                &page.to_string(),
                "cannot be combined with `cursor`, which has its own position",
            );
        }
        parameters.finish()?;
        // `finish` has refused an unknown sort.
        let sort_key = sort_key.unwrap_or(SortKey::UpdatedAt);
        let canonical = canonical(&filters);
        let (start, page) = match cursor {
            Some(text) => (position(&text, &sort, sort_key, &canonical)?, None),
            None => {
                let page = page.unwrap_or(1);
                (Start::Offset(offset(page, limit, settings.max_offset)?), Some(page))
            }
        };
        let query = ListQuery { filters, sort: sort_key, descending: sort.starts_with('-'), start, limit };
        Ok(Request { query, page, sort, filters: canonical })
    }

    /// The `Link` header: where the neighbouring pages begin.
    pub(super) fn link(&self, path: &str, orders: &[OrderSummary<'_>], more: bool) -> String {
        let mut parts: Vec<String> = vec![self.filters.clone()].into_iter().filter(|part| !part.is_empty()).collect();
        parts.push(format!("sort={}&pageSize={}", self.sort, self.query.limit));
        let base = format!("{path}?{}", parts.join("&"));
        let mut links = vec![format!("<{base}>; rel=\"first\"")];
        let mut add = |relation: &str, direction: Direction, edge: Option<&OrderSummary<'_>>| {
            if let Some(edge) = edge {
                let cursor = self.cursor(direction, edge).encode(&self.filters);
                links.push(format!("<{base}&cursor={cursor}>; rel=\"{relation}\""));
            }
        };
        let (before, after) = match &self.query.start {
            Start::Offset(offset) => (*offset > 0, more),
            Start::At(Direction::After, _) => (true, more),
            Start::At(Direction::Before, _) => (more, true),
        };
        if after {
            add("next", Direction::After, orders.last());
        }
        if before {
            add("prev", Direction::Before, orders.first());
        }
        links.join(", ")
    }

    fn cursor(&self, direction: Direction, edge: &OrderSummary<'_>) -> Cursor {
        let value = match self.query.sort {
            SortKey::UpdatedAt => edge.updated_at.to_string(),
            SortKey::TotalNet => edge.total_net.text(),
            SortKey::TotalGross => edge.total_gross.text(),
            SortKey::OrderId => String::new(),
        };
        Cursor { sort: self.sort.clone(), direction, value, key: edge.order_id.to_owned() }
    }
}

/// Takes the filters of a list.
pub(super) fn filters_of(parameters: &mut Parameters) -> Filters {
    let (from, to) = parameters.times("from", "to");
    let (statuses, customer_id) = (parameters.ids("status", MAX_STATUSES), parameters.id("customerId"));
    Filters { statuses, customer_id, from, to }
}

fn sort_of(sort: &str) -> Option<SortKey> {
    match sort.strip_prefix('-').unwrap_or(sort) {
        "updatedAt" => Some(SortKey::UpdatedAt),
        "orderId" => Some(SortKey::OrderId),
        "totalNet" => Some(SortKey::TotalNet),
        "totalGross" => Some(SortKey::TotalGross),
        _ => None,
    }
}

/// The filters as a query string, always spelled the same way.
pub(super) fn canonical(filters: &Filters) -> String {
    let mut parts: Vec<String> = filters.statuses.iter().map(|status| format!("status={}", encode(status))).collect();
    parts.extend(filters.customer_id.iter().map(|customer| format!("customerId={}", encode(customer))));
    parts.extend(filters.from.iter().map(|from| format!("from={from}")));
    parts.extend(filters.to.iter().map(|to| format!("to={to}")));
    parts.join("&")
}

/// The last page that can be asked for by number.
fn deepest(limit: u32, max_offset: u64) -> u64 {
    max_offset / u64::from(limit.max(1)) + 1
}

fn offset(page: u64, limit: u32, max_offset: u64) -> Result<i64, Problem> {
    let offset = offset_of(page, limit, max_offset).and_then(|offset| i64::try_from(offset).ok());
    offset.ok_or_else(|| {
        let deepest = deepest(limit, max_offset);
        let detail = format!(
            "Pages by number end after {max_offset} rows, which is page {deepest} of this size; \
             follow the `Link` header's `next` (a `cursor`) to go deeper"
        );
        let allowed = format!("must be a page from 1 to {deepest}; deeper pages are reached by `cursor`");
        Problem::new(&problem::OFFSET_TOO_DEEP, detail).parameter("page", &page.to_string(), &allowed)
    })
}

fn position(text: &str, sort: &str, sort_key: SortKey, filters: &str) -> Result<Start, Problem> {
    let fault = |detail: String| {
        let allowed = "must be a cursor from the `Link` header of the same list";
        Problem::new(&problem::INVALID_CURSOR, detail).parameter("cursor", text, allowed)
    };
    let cursor = Cursor::decode(text, sort, filters).map_err(|error| fault(error.to_string()))?;
    let value = match sort_key {
        SortKey::UpdatedAt => cursor.value.parse().ok().filter(|time| is_of_postgres(*time)).map(PositionValue::Time),
        SortKey::TotalNet | SortKey::TotalGross => {
            is_plain_decimal(&cursor.value).then_some(PositionValue::Decimal(cursor.value))
        }
        SortKey::OrderId => Some(PositionValue::Key),
    };
    let value = value.ok_or_else(|| fault("this cursor's position is not readable".into()))?;
    Ok(Start::At(cursor.direction, Position { value, order_id: cursor.key }))
}

fn is_plain_decimal(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.len() <= 1000 && part.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    match unsigned.split_once('.') {
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => digits(unsigned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::types::Numeric;

    #[test]
    fn a_cursor_that_somebody_has_made_is_refused_where_postgres_has_no_word_for_its_moment() {
        let at = |value: &str| {
            let (value, key) = (value.to_owned(), "a".to_owned());
            let cursor = Cursor { sort: "-updatedAt".to_owned(), direction: Direction::After, value, key };
            position(&cursor.encode(""), "-updatedAt", SortKey::UpdatedAt, "")
        };
        assert!(at("-004713-11-24T00:00:00Z").is_ok());
        assert_eq!(at("-004713-11-23T23:59:59Z").unwrap_err().code(), "invalid_cursor");
    }

    fn settings() -> HttpSettings {
        HttpSettings { max_wait_ms: 10_000, max_waiters: 10, ..crate::config::Config::defaults().http }
    }

    fn parse(query: &str) -> Result<Request, Problem> {
        Request::parse(query, &settings())
    }

    fn order(order_id: &str) -> OrderSummary<'_> {
        let minus_one_and_a_half = Numeric::read(&[0, 2, 0, 0, 0x40, 0, 0, 2, 0, 1, 0x13, 0x88]).unwrap();
        OrderSummary {
            order_id,
            customer_id: None,
            status: None,
            currency: None,
            total_net: minus_one_and_a_half,
            total_gross: Numeric::read(&[0, 1, 0, 0, 0, 0, 0, 0, 0, 2]).unwrap(),
            item_count: 0,
            last_event_sequence: 1,
            last_event_id: "e",
            updated_at: "2026-01-01T00:00:00.000001Z".parse().unwrap(),
            tax_basis: "none",
            anomalies: Vec::new(),
        }
    }

    /// The query string of a relation in a `Link` header.
    fn follow(link: &str, relation: &str) -> Option<String> {
        let target = link.split(", ").find(|part| part.ends_with(&format!("rel=\"{relation}\"")))?;
        let url = target.strip_prefix("</orders?")?.split_once('>')?.0;
        Some(url.to_owned())
    }

    fn two() -> [OrderSummary<'static>; 2] {
        [order("a"), order("b")]
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let problem = parse("status=&from=2026-01-01&sort=price&page=0&pageSize=201&pagesize=1").unwrap_err();
        let mut named: Vec<&str> = problem.errors().iter().map(|error| error.parameter.as_str()).collect();
        named.sort_unstable();
        assert_eq!(named, ["from", "page", "pageSize", "pagesize", "sort", "status"]);
    }

    #[test]
    fn pages_by_number_end_at_the_limit() {
        assert_eq!(parse("page=201").unwrap().query.start, Start::Offset(10_000));
        for deep in ["page=202", "page=18446744073709551615&pageSize=200"] {
            assert_eq!(parse(deep).unwrap_err().code(), "offset_too_deep", "{deep}");
        }
    }

    #[test]
    fn links_lead_on_from_a_numbered_page_and_back() {
        for sort in SORTS {
            let first =
                parse(&format!("sort={sort}&status=b&status=a%26&from=2026-01-01T00:00:00Z&pageSize=2")).unwrap();
            let link = first.link("/orders", &two(), true);
            assert_eq!(follow(&link, "prev"), None);
            let next = parse(&follow(&link, "next").unwrap()).unwrap();
            assert_eq!((&next.query.filters, next.page, next.query.limit), (&first.query.filters, None, 2), "{sort}");
            let Start::At(Direction::After, position) = &next.query.start else { panic!("{sort}") };
            assert_eq!(position.order_id, "b");
            let link = next.link("/orders", &two(), false);
            assert_eq!(follow(&link, "next"), None);
            let previous = parse(&follow(&link, "prev").unwrap()).unwrap();
            assert!(matches!(previous.query.start, Start::At(Direction::Before, _)));
            assert!(parse(&follow(&link, "first").unwrap()).unwrap().page == Some(1));
        }
    }

    #[test]
    fn a_cursor_of_another_list_is_refused() {
        let first = parse("status=a").unwrap();
        let next = follow(&first.link("/orders", &two(), true), "next").unwrap();
        for other in [
            next.replace("status=a", "status=b"),
            next.replace("status=a&", ""),
            next.replace("sort=-updatedAt", "sort=updatedAt"),
            format!("{next}x"),
            "cursor=".into(),
            "cursor=!".into(),
        ] {
            assert_eq!(parse(&other).unwrap_err().code(), "invalid_cursor", "{other}");
        }
        assert_eq!(parse(&format!("{next}&page=2")).unwrap_err().code(), "invalid_parameter");
        let forged = Cursor {
            sort: "totalNet".into(),
            direction: Direction::After,
            value: "1'; drop table orders".into(),
            key: "a".into(),
        };
        assert_eq!(parse(&format!("sort=totalNet&cursor={}", forged.encode(""))).unwrap_err().code(), "invalid_cursor");
    }
}
