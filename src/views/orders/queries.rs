//! Every read of the orders view. Reads through the public SQL views, so a cutover changes nothing here.
//!
//! The list is the one place where SQL is put together: from the fixed fragments below, chosen by the shape of the
//! query (which filters, which sort, with or without a position); values are always parameters.

use std::time::Instant;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde_json::value::RawValue;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::api::model::{HeldBody, Order, OrderEvent, OrderItem, OrderSummary};
use super::estimates::Estimates;
use crate::config::DatabaseSettings;
use crate::domain::held::HeldReason;
use crate::domain::page::Direction;
use crate::domain::units::Sequence;
use crate::store::changes::Shown;
use crate::store::lookup::SharedLookup;
use crate::store::pool::ReadConnection;
use crate::store::read::{ReadError, ReadPool};
use crate::store::types::{BoxedError, Numeric, Records, Word};

/// Matching orders are counted exactly up to this many.
pub const EXACT_TOTAL: i64 = 10_000;

/// Bytes of payloads, as Postgres writes them, that a page of a history has at most; but its first event is there however
/// large it is. Each is held several times while the page is answered.
pub const HISTORY_PAGE_BYTES: i64 = 4 * 1024 * 1024;

/// Where the planner expects so many, its estimate is the total: no realistic error of it leads below [`EXACT_TOTAL`].
const CERTAINLY_MANY: i64 = 5 * EXACT_TOTAL;

/// What one look at an order found, in one snapshot.
#[derive(Debug)]
pub struct OrderRead {
    /// The active build.
    pub build: i32,
    /// What it waits for, if it is held; an order may be held before it has a row.
    pub held: Option<HeldBody>,
    /// The last sequence that its row holds; `None` without a row.
    pub sequence: Option<i64>,
    row: Row,
}

impl OrderRead {
    fn of(order_id: &str, row: Row) -> Result<Self, ReadError> {
        let sequence = row.try_get(BUILD + 1 + SEQUENCE)?;
        Ok(OrderRead { build: row.try_get(BUILD)?, held: held_of(order_id, &row)?, sequence, row })
    }

    /// The order, if it has a row.
    pub fn order(&self) -> Result<Option<Order<'_>>, ReadError> {
        if self.sequence.is_none() {
            return Ok(None);
        }
        let (summary, held) = (summary_of(&self.row, BUILD + 1)?, self.held.clone());
        let items =
            self.row.try_get::<_, Records<'_, 8>>(ITEMS)?.read().and_then(|rows| rows.iter().map(item_of).collect());
        Ok(Some(Order { summary, items: items.map_err(ReadError::unreadable)?, held }))
    }
}

/// Columns of `read_orders.sql`; `COLUMNS` follow the build.
const BUILD: usize = 1;
const ITEMS: usize = BUILD + 13;
const HELD: usize = ITEMS + 1;

/// Which orders a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Filters {
    /// Any of these; empty: every status, and orders without one.
    pub statuses: Vec<String>,
    /// Exactly this customer.
    pub customer_id: Option<String>,
    /// Updated at or after.
    pub from: Option<Timestamp>,
    /// Updated before.
    pub to: Option<Timestamp>,
}

/// What a list is sorted by; ties are broken by the order id, in the same direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortKey {
    /// `updatedAt`
    UpdatedAt,
    /// `orderId`
    OrderId,
    /// `totalNet`
    TotalNet,
    /// `totalGross`
    TotalGross,
}

/// Where a page begins.
#[derive(Debug, Clone, PartialEq)]
pub enum Start {
    /// After so many rows.
    Offset(i64),
    /// Next to a position.
    At(Direction, Position),
}

/// The sorted value and the order id of a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Position {
    /// The sorted value.
    pub value: PositionValue,
    /// The tie-break.
    pub order_id: String,
}

/// The sorted value of a position.
#[derive(Debug, Clone, PartialEq)]
pub enum PositionValue {
    /// Of `updatedAt`.
    Time(Timestamp),
    /// Of a total: a plain decimal.
    Decimal(String),
    /// Of `orderId`, which is its own tie-break.
    Key,
}

/// A page to read.
#[derive(Debug, Clone, PartialEq)]
pub struct ListQuery {
    /// Which orders.
    pub filters: Filters,
    /// In which order.
    pub sort: SortKey,
    /// Greatest first.
    pub descending: bool,
    /// From where.
    pub start: Start,
    /// How many.
    pub limit: u32,
}

/// A page as read, in the list's order whatever direction it was read in.
#[derive(Debug)]
pub struct Listing {
    rows: Vec<Row>,
    /// Whether more rows follow in the direction of reading.
    pub more: bool,
    /// Matching orders.
    pub total: i64,
    /// Whether `total` is the planner's estimate.
    pub total_is_estimate: bool,
}

impl Listing {
    /// The orders, which live where the rows came in.
    pub fn orders(&self) -> Result<Vec<OrderSummary<'_>>, ReadError> {
        self.rows.iter().map(|row| summary_of(row, 0)).collect()
    }
}

/// One page of an order's history.
#[derive(Debug)]
pub struct EventsRead {
    /// The events, by sequence.
    pub events: Vec<OrderEvent>,
    /// Whether more follow.
    pub more: bool,
}

/// What reads single orders for one HTTP worker.
pub fn order_lookup(settings: &DatabaseSettings) -> SharedLookup {
    SharedLookup::new(settings, include_str!("sql/read_orders.sql"))
}

/// Reads one order; `None` if the view has no active build.
pub async fn order(lookup: &SharedLookup, order_id: &str) -> Result<Option<OrderRead>, ReadError> {
    let row = lookup.row(order_id.to_owned()).await?;
    row.map(|row| OrderRead::of(order_id, row)).transpose()
}

fn held_of(order_id: &str, row: &Row) -> Result<Option<HeldBody>, ReadError> {
    let Some(Word(reason)) = row.try_get::<_, Option<Word<HeldReason>>>(HELD)? else { return Ok(None) };
    Ok(Some(HeldBody {
        reason: reason.as_str(),
        missing_from: row.try_get(HELD + 1)?,
        missing_to: row.try_get(HELD + 2)?,
        parked_count: row.try_get(HELD + 3)?,
        parked_bytes: row.try_get(HELD + 4)?,
        since: row.try_get(HELD + 5)?,
        dead_letter_id: row.try_get(HELD + 6)?,
        href: format!("/ops/held/{}", crate::api::parameters::encode(order_id)),
    }))
}

/// A line as `read_orders.sql` gives it.
fn item_of<'a>(columns: &[Option<&'a [u8]>; 8]) -> Result<OrderItem<'a>, BoxedError> {
    let text = |index: usize| std::str::from_utf8(columns[index].unwrap_or_default());
    let amount = |index: usize| Numeric::read(columns[index].unwrap_or_default());
    Ok(OrderItem {
        line_no: i32::from_be_bytes(columns[0].unwrap_or_default().try_into()?),
        item_id: text(1)?,
        sku: text(2)?,
        qty: amount(3)?,
        price: amount(4)?,
        tax_rate: columns[5].map(Numeric::read).transpose()?,
        net_line_total: amount(6)?,
        gross_line_total: amount(7)?,
    })
}

/// Reads `COLUMNS`, which begin at `first`: looking a column up by its name costs as much as reading it.
fn summary_of(row: &Row, first: usize) -> Result<OrderSummary<'_>, ReadError> {
    Ok(OrderSummary {
        order_id: row.try_get(first)?,
        customer_id: row.try_get(first + 1)?,
        status: row.try_get(first + 2)?,
        currency: row.try_get(first + 3)?,
        total_net: row.try_get(first + 4)?,
        total_gross: row.try_get(first + 5)?,
        item_count: row.try_get(first + 6)?,
        last_event_sequence: row.try_get(first + SEQUENCE)?,
        last_event_id: row.try_get(first + 8)?,
        updated_at: row.try_get(first + 9)?,
        tax_basis: row.try_get(first + 10)?,
        anomalies: row.try_get(first + 11)?,
    })
}

fn raw(text: String) -> Box<RawValue> {
    RawValue::from_string(text).expect("Postgres prints json and jsonb as JSON")
}

/// Reads up to `limit` events of an order after `after`, within [`HISTORY_PAGE_BYTES`]; `None` for an unknown order.
pub async fn events(pool: &ReadPool, order_id: &str, after: i64, limit: u32) -> Result<Option<EventsRead>, ReadError> {
    pool.within_deadline(async {
        let connection = pool.get().await?;
        let statement = connection.prepare_cached(include_str!("sql/read_events.sql")).await?;
        let rows = connection.query(&statement, &[&order_id, &after, &i64::from(limit), &HISTORY_PAGE_BYTES]).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let (mut events, mut more) = (Vec::with_capacity(rows.len()), false);
        for row in &rows {
            match row.try_get::<_, Option<bool>>("fits")? {
                Some(true) => events.push(event_of(row)?),
                Some(false) => more = true,
                None => {} // a known order without further events
            }
        }
        Ok(Some(EventsRead { events, more }))
    })
    .await
}

fn event_of(row: &Row) -> Result<OrderEvent, ReadError> {
    Ok(OrderEvent {
        sequence: row.try_get("sequence")?,
        event_id: row.try_get("event_id")?,
        event_type: row.try_get("event_type")?,
        occurred_at: row.try_get("occurred_at")?,
        partition: row.try_get("partition")?,
        offset: row.try_get("offset")?,
        effect: row.try_get("effect")?,
        payload: row.try_get::<_, Option<String>>("payload")?.map(raw),
    })
}

/// The last sequence of each of `order_ids` that has a row: one query for everybody who waits.
pub fn sequences(pool: ReadPool, order_ids: Vec<String>) -> BoxFuture<'static, Result<Vec<(String, i64)>, ReadError>> {
    let of_row = |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?));
    Box::pin(async move { of_each(&pool, include_str!("sql/read_sequences.sql"), &order_ids, of_row).await })
}

/// These orders as lists show them, for those who follow changes.
pub fn shown(pool: ReadPool, order_ids: Vec<String>) -> BoxFuture<'static, Result<Vec<(String, Shown)>, ReadError>> {
    let of_row = |row: &Row| shown_of(&summary_of(row, 0)?);
    Box::pin(async move { of_each(&pool, include_str!("sql/read_summaries.sql"), &order_ids, of_row).await })
}

/// What `sql` says of those of `order_ids` that there are.
async fn of_each<T>(
    pool: &ReadPool,
    sql: &str,
    order_ids: &[String],
    of_row: fn(&Row) -> Result<T, ReadError>,
) -> Result<Vec<T>, ReadError> {
    pool.within_deadline(async {
        let connection = pool.get().await?;
        let statement = connection.prepare_cached(sql).await?;
        let rows = connection.query(&statement, &[&order_ids]).await?;
        rows.iter().map(of_row).collect()
    })
    .await
}

/// One page of a list, as [`shown`], without counting; with the position behind it if more follow.
pub async fn shown_page(pool: &ReadPool, query: &ListQuery) -> Result<(Vec<Shown>, Option<Position>), ReadError> {
    pool.within_deadline(async {
        let connection = pool.get().await?;
        let mut rows = run(&connection, &Sql::page(query)).await?;
        let more = rows.len() > query.limit as usize;
        rows.truncate(query.limit as usize);
        let orders = rows.iter().map(|row| summary_of(row, 0)).collect::<Result<Vec<_>, _>>()?;
        let position = orders.last().filter(|_| more).map(|order| Position {
            value: PositionValue::Time(order.updated_at),
            order_id: order.order_id.to_owned(),
        });
        let shown = orders.iter().map(|order| Ok(shown_of(order)?.1)).collect::<Result<_, ReadError>>()?;
        Ok((shown, position))
    })
    .await
}

/// Chosen by status and customer.
fn shown_of(order: &OrderSummary<'_>) -> Result<(String, Shown), ReadError> {
    let shown = Shown {
        json: serde_json::to_string(order).map_err(|error| ReadError::unreadable(error.into()))?,
        words: vec![order.status.map(str::to_owned), order.customer_id.map(str::to_owned)],
        moment: order.updated_at,
        sequence: Sequence(order.last_event_sequence),
        event_id: order.last_event_id.to_owned(),
    };
    Ok((order.order_id.to_owned(), shown))
}

/// Reads one page of orders and counts all that match.
pub async fn list(pool: &ReadPool, estimates: &Estimates, query: &ListQuery) -> Result<Listing, ReadError> {
    pool.within_deadline(async {
        let connection = pool.get().await?;
        let page = Sql::page(query);
        // Both are sent before the first answer is awaited.
        let (mut rows, (total, total_is_estimate)) =
            tokio::try_join!(run(&connection, &page), total(&connection, estimates, &query.filters))?;
        let more = rows.len() > query.limit as usize;
        rows.truncate(query.limit as usize);
        if matches!(query.start, Start::At(Direction::Before, _)) {
            rows.reverse();
        }
        Ok(Listing { rows, more, total, total_is_estimate })
    })
    .await
}

async fn run(connection: &ReadConnection, sql: &Sql<'_>) -> Result<Vec<Row>, ReadError> {
    let statement = connection.prepare_cached(&sql.text).await?;
    let parameters: Vec<&(dyn ToSql + Sync)> = sql.parameters.iter().map(Parameter::as_sql).collect();
    Ok(connection.query(&statement, &parameters).await?)
}

/// Counts the matching orders, and whether that is an estimate. Counting ten thousand index entries costs more than the
/// page itself, so it is left out where the planner is sure of far more.
async fn total(
    connection: &ReadConnection,
    estimates: &Estimates,
    filters: &Filters,
) -> Result<(i64, bool), ReadError> {
    let now = Instant::now();
    let planned = match estimates.get(filters, now) {
        Some(planned) => planned,
        None => {
            let planned = estimate(connection, filters).await?;
            estimates.put(filters, now, planned);
            planned
        }
    };
    if planned >= CERTAINLY_MANY {
        return Ok((planned, true));
    }
    let rows = run(connection, &Sql::count(filters)).await?;
    let counted: i64 = rows.first().map_or(Ok(0), |row| row.try_get(0))?;
    if counted <= EXACT_TOTAL { Ok((counted, false)) } else { Ok((counted.max(planned), true)) }
}

/// The planner's idea of how many orders match.
async fn estimate(connection: &ReadConnection, filters: &Filters) -> Result<i64, ReadError> {
    let rows = run(connection, &Sql::estimate(filters)).await?;
    let plan: serde_json::Value = rows.first().map_or(Ok(serde_json::Value::Null), |row| row.try_get(0))?;
    Ok(plan.pointer("/0/Plan/Plan Rows").and_then(serde_json::Value::as_f64).map_or(0, |rows| rows as i64))
}

/// Sizes of pages that are written into the statement. Of a limit that is a parameter Postgres assumes the worst, so it
/// plans the statement anew each time, which costs as much as running it.
const USUAL_PAGES: [u32; 6] = [10, 20, 25, 50, 100, 200];

/// A statement of the list with its parameters. At most 4 sorts x 2 directions x 24 sets of filters x 4 kinds of
/// start x 7 limits, so the statement cache of a connection is bounded.
struct Sql<'a> {
    text: String,
    parameters: Vec<Parameter<'a>>,
}

enum Parameter<'a> {
    Text(&'a str),
    Texts(&'a [String]),
    Time(&'a Timestamp),
    Number(i64),
}

impl Parameter<'_> {
    fn as_sql(&self) -> &(dyn ToSql + Sync) {
        match self {
            Parameter::Text(value) => value,
            Parameter::Texts(value) => value,
            Parameter::Time(value) => *value,
            Parameter::Number(value) => value,
        }
    }
}

const COLUMNS: &str = "order_id, customer_id, status, currency, total_net, total_gross, item_count, \
     last_event_sequence, last_event_id, updated_at, tax_basis, anomalies";
/// The place of `last_event_sequence` in it.
const SEQUENCE: usize = 7;

/// The distinct statuses, by a loose scan that touches one index entry per status. Its last row is null, which matches
/// nothing; orders without a status have a branch of their own.
const STATUSES_OF_THE_VIEW: &str = "with recursive statuses(status) as (\
     (select status from orders_view order by status limit 1) union all \
     select (select o.status from orders_view o where o.status > s.status order by o.status limit 1) \
     from statuses s where s.status is not null)";

impl<'a> Sql<'a> {
    fn new() -> Self {
        Sql { text: String::new(), parameters: Vec::new() }
    }

    fn bind(&mut self, parameter: Parameter<'a>) -> String {
        self.parameters.push(parameter);
        let cast = match self.parameters.last() {
            Some(Parameter::Number(_)) => "::bigint", // sums of two parameters have no type of their own
            _ => "",
        };
        format!("${}{cast}", self.parameters.len())
    }

    fn page(query: &'a ListQuery) -> Self {
        // By time and for everybody, the index (status, updated_at desc, order_id desc) gives each status in order. Of one
        // status it gives the page itself, but rows that are skipped would be visited in the table.
        let by_time = query.sort == SortKey::UpdatedAt && query.filters.customer_id.is_none();
        let is_plain = query.filters.statuses.len() == 1 && !matches!(query.start, Start::Offset(1..));
        if by_time && !is_plain { Self::page_by_status(query) } else { Self::plain_page(query) }
    }

    /// Takes the first rows of each status from the index alone, merges them, and only then visits the table. It costs
    /// (statuses x page size) index entries wherever the page is.
    fn page_by_status(query: &'a ListQuery) -> Self {
        let mut sql = Sql::new();
        let statuses = sql.statuses(&query.filters);
        let updated = sql.updated_between(&query.filters);
        let (direction, position) = sql.direction_and_position(query);
        let limit = sql.limit(query);
        let offset = sql.offset(query).unwrap_or_else(|| "0".to_owned());
        // Postgres does not see that `status is null` fixes the index's first column, unless it is sorted by too.
        let by_status = if direction == "desc" { "asc" } else { "desc" };
        let without_status = if query.filters.statuses.is_empty() {
            format!(
                "union all (select updated_at, order_id from orders_view where status is null{updated}{position} \
                 order by status {by_status}, updated_at {direction}, order_id {direction} limit {limit} + {offset})"
            )
        } else {
            String::new()
        };
        // `offset 0` keeps the last step what it is: one look by primary key for each row of the page.
        sql.text = format!(
            "{statuses}, page as (select * from (\
             (select found.* from statuses cross join lateral (select updated_at, order_id from orders_view \
             where status = statuses.status{updated}{position} \
             order by updated_at {direction}, order_id {direction} limit {limit} + {offset}) found) \
             {without_status}) merged order by updated_at {direction}, order_id {direction} limit {limit} offset {offset}) \
             select full_row.* from page cross join lateral (select {COLUMNS} from orders_view o \
             where o.order_id = page.order_id offset 0) full_row \
             order by page.updated_at {direction}, page.order_id {direction}"
        );
        sql
    }

    /// By primary key, of one status by time, of one customer, or (for totals) a top-n over whatever the filters leave.
    fn plain_page(query: &'a ListQuery) -> Self {
        let mut sql = Sql::new();
        let filters = sql.filters(&query.filters);
        let (direction, position) = sql.direction_and_position(query);
        let limit = sql.limit(query);
        let offset = sql.offset(query).map_or_else(String::new, |offset| format!(" offset {offset}"));
        let sort = match query.sort {
            SortKey::UpdatedAt => format!("o.updated_at {direction}, "),
            SortKey::TotalNet => format!("o.total_net {direction}, "),
            SortKey::TotalGross => format!("o.total_gross {direction}, "),
            SortKey::OrderId => String::new(),
        };
        sql.text = format!(
            "select {COLUMNS} from orders_view o where true{filters}{position} \
             order by {sort}o.order_id {direction} limit {limit}{offset}"
        );
        sql
    }

    /// Counts matching orders, and stops one past the exact range.
    fn count(filters: &'a Filters) -> Self {
        let (mut sql, most) = (Sql::new(), EXACT_TOTAL + 1);
        if filters.customer_id.is_some() {
            let conditions = sql.filters(filters);
            sql.text =
                format!("select count(*) from (select from orders_view where true{conditions} limit {most}) bounded");
            return sql;
        }
        let statuses = sql.statuses(filters);
        let updated = sql.updated_between(filters);
        let without_status = if filters.statuses.is_empty() {
            format!("union all (select 1 from orders_view where status is null{updated} limit {most})")
        } else {
            String::new()
        };
        sql.text = format!(
            "{statuses} select count(*) from (\
             (select 1 from statuses cross join lateral (select from orders_view \
             where status = statuses.status{updated} limit {most}) found) {without_status} limit {most}) bounded"
        );
        sql
    }

    fn estimate(filters: &'a Filters) -> Self {
        let mut sql = Sql::new();
        let conditions = sql.filters(filters);
        sql.text = format!("explain (format json) select from orders_view where true{conditions}");
        sql
    }

    /// `with … statuses(status)`: the asked ones, or all there are.
    fn statuses(&mut self, filters: &'a Filters) -> String {
        if filters.statuses.is_empty() {
            return STATUSES_OF_THE_VIEW.to_owned();
        }
        let asked = self.bind(Parameter::Texts(&filters.statuses));
        format!("with statuses as (select unnest({asked}::text[]) as status)")
    }

    /// One row more than the page, to see whether it goes on.
    fn limit(&mut self, query: &ListQuery) -> String {
        let rows = i64::from(query.limit) + 1;
        if USUAL_PAGES.contains(&query.limit) { rows.to_string() } else { self.bind(Parameter::Number(rows)) }
    }

    /// How many rows to skip, if any.
    fn offset(&mut self, query: &ListQuery) -> Option<String> {
        match query.start {
            Start::Offset(offset @ 1..) => Some(self.bind(Parameter::Number(offset))),
            Start::Offset(_) | Start::At(..) => None,
        }
    }

    fn filters(&mut self, filters: &'a Filters) -> String {
        let mut conditions = String::new();
        match filters.statuses.as_slice() {
            [] => {}
            [status] => {
                let status = self.bind(Parameter::Text(status));
                conditions.push_str(&format!(" and status = {status}"));
            }
            statuses => {
                let statuses = self.bind(Parameter::Texts(statuses));
                conditions.push_str(&format!(" and status = any({statuses})"));
            }
        }
        if let Some(customer_id) = &filters.customer_id {
            let customer_id = self.bind(Parameter::Text(customer_id));
            conditions.push_str(&format!(" and customer_id = {customer_id}"));
        }
        conditions + &self.updated_between(filters)
    }

    fn updated_between(&mut self, filters: &'a Filters) -> String {
        let mut conditions = String::new();
        if let Some(from) = &filters.from {
            let from = self.bind(Parameter::Time(from));
            conditions.push_str(&format!(" and updated_at >= {from}"));
        }
        if let Some(to) = &filters.to {
            let to = self.bind(Parameter::Time(to));
            conditions.push_str(&format!(" and updated_at < {to}"));
        }
        conditions
    }

    /// The direction to read in, and the condition that starts it at the position.
    fn direction_and_position(&mut self, query: &'a ListQuery) -> (&'static str, String) {
        let backwards = matches!(query.start, Start::At(Direction::Before, _));
        let descending = query.descending != backwards;
        let (direction, comparison) = if descending { ("desc", "<") } else { ("asc", ">") };
        let Start::At(_, position) = &query.start else { return (direction, String::new()) };
        let value = match &position.value {
            PositionValue::Time(time) => Some(self.bind(Parameter::Time(time))),
            PositionValue::Decimal(text) => Some(format!("{}::text::numeric", self.bind(Parameter::Text(text)))),
            PositionValue::Key => None,
        };
        let order_id = self.bind(Parameter::Text(&position.order_id));
        let column = match query.sort {
            SortKey::UpdatedAt => "updated_at",
            SortKey::TotalNet => "total_net",
            SortKey::TotalGross => "total_gross",
            SortKey::OrderId => "",
        };
        let condition = match value {
            Some(value) => format!(" and ({column}, order_id) {comparison} ({value}, {order_id})"),
            None => format!(" and order_id {comparison} {order_id}"),
        };
        (direction, condition)
    }
}
