//! The orders API's answers, as JSON and as OpenAPI schemas. Amounts are strings: JSON numbers would lose digits.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::store::types::Numeric;

/// An order without its lines, as lists show it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderSummary<'a> {
    /// The order's key in the log.
    #[schema(example = "order-1")]
    pub order_id: &'a str,
    /// Null until the order's OrderCreated was seen.
    #[schema(required, example = "customer-7")]
    pub customer_id: Option<&'a str>,
    /// The latest status. Null until an event gave one.
    #[schema(required, example = "Paid")]
    pub status: Option<&'a str>,
    /// Currency of every amount. Null until the order's OrderCreated was seen.
    #[schema(required, example = "EUR")]
    pub currency: Option<&'a str>,
    /// Sum of the lines without tax, a plain decimal.
    #[schema(value_type = String, example = "42.00")]
    pub total_net: Numeric<'a>,
    /// Sum of the lines with tax, a plain decimal.
    #[schema(value_type = String, example = "49.98")]
    pub total_gross: Numeric<'a>,
    /// Number of lines.
    #[schema(minimum = 0)]
    pub item_count: i32,
    /// Sequence number of the last event that this row holds.
    #[schema(minimum = 1)]
    pub last_event_sequence: i64,
    /// Id of that event.
    pub last_event_id: &'a str,
    /// Greatest `occurredAt` of the order's events; never the time of writing.
    #[schema(value_type = String, format = DateTime, example = "2026-01-01T12:00:00Z")]
    pub updated_at: Timestamp,
    /// Where the tax rates came from: `event`, `config` or `none`.
    pub tax_basis: &'a str,
    /// What was odd about the order's events, though they were applied.
    pub anomalies: Vec<&'a str>,
}

/// An order that has changed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderChange<'a> {
    /// The order as it is when this is sent: at least as new as the change.
    #[serde(flatten)]
    pub order: OrderSummary<'a>,
    /// What has changed it; null in what `snapshot` sends first.
    #[schema(required)]
    pub changed_by: Option<ChangedBy>,
}

/// What has changed an order.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangedBy {
    /// Id of the event.
    pub event_id: String,
    /// Its type; null where no history is kept.
    #[schema(required, example = "OrderStatusChanged")]
    pub event_type: Option<String>,
    /// Its number.
    pub sequence: i64,
    /// What it did, as in the order's history; null where none is kept.
    #[schema(required, example = "applied")]
    pub effect: Option<String>,
}

/// One order with its lines, and with what it waits for if an event is missing.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Order<'a> {
    /// The plain fields.
    #[serde(flatten)]
    pub summary: OrderSummary<'a>,
    /// The lines, by line number.
    pub items: Vec<OrderItem<'a>>,
    /// Null, or why the order does not move on.
    #[schema(required)]
    pub held: Option<HeldBody>,
}

/// One line of an order.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderItem<'a> {
    /// Position in the order, from 1.
    #[schema(minimum = 1)]
    pub line_no: i32,
    /// Id of the item.
    pub item_id: &'a str,
    /// What was ordered.
    pub sku: &'a str,
    /// How many, a plain decimal.
    #[schema(value_type = String, example = "2")]
    pub qty: Numeric<'a>,
    /// Price of one, a plain decimal.
    #[schema(value_type = String, example = "10.50")]
    pub price: Numeric<'a>,
    /// Tax rate, a plain decimal; null where none is known.
    #[schema(value_type = Option<String>, required, example = "0.19")]
    pub tax_rate: Option<Numeric<'a>>,
    /// Quantity times price, rounded half to even to the currency's minor unit.
    #[schema(value_type = String, example = "21.00")]
    pub net_line_total: Numeric<'a>,
    /// The same with tax.
    #[schema(value_type = String, example = "24.99")]
    pub gross_line_total: Numeric<'a>,
}

/// Why an order does not move on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Held)]
pub struct HeldBody {
    /// `gap` (an event has not arrived), `poison` (it arrived and could not be read), `event_id_reused` or `conflict`.
    #[schema(example = "gap")]
    pub reason: &'static str,
    /// The sequence number it waits for.
    pub missing_from: i64,
    /// The last missing one before the first parked event; null while nothing is parked.
    #[schema(required)]
    pub missing_to: Option<i64>,
    /// Events parked behind the gap.
    #[schema(minimum = 0)]
    pub parked_count: i32,
    /// Their bytes.
    #[schema(minimum = 0)]
    pub parked_bytes: i64,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// The dead letter that holds the missing event, if it arrived and was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letter_id: Option<i64>,
    /// For operators: more about it, and what can be done.
    #[schema(example = "/ops/held/order-275")]
    pub href: String,
}

/// One event of an order's history.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderEvent {
    /// Sequence number in the order, from 1.
    #[schema(minimum = 1)]
    pub sequence: i64,
    /// Id of the event.
    pub event_id: String,
    /// Type of the event.
    #[serde(rename = "type")]
    #[schema(example = "OrderStatusChanged")]
    pub event_type: String,
    /// When it happened, says the event.
    #[schema(value_type = String, format = DateTime)]
    pub occurred_at: Timestamp,
    /// Partition it was read from; -1 if it comes from no record, as what was skipped.
    #[schema(minimum = -1)]
    pub partition: i32,
    /// Offset in that partition, or -1.
    #[schema(minimum = -1)]
    pub offset: i64,
    /// `applied`, `duplicate` (its id was applied before under another number), `unknown_type`, `replaced` (what an operator
    /// put in the place of a refused record) or `skipped` (by an operator; the payload says from where to where and why).
    #[schema(example = "applied")]
    pub effect: String,
    /// The event as it was read; null if the view keeps a compact history (`projector.history`).
    #[schema(value_type = Option<serde_json::Value>)]
    pub payload: Option<Box<RawValue>>,
}

/// A page of orders.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderPage<'a> {
    /// The orders, without their lines.
    pub items: Vec<OrderSummary<'a>>,
    /// The page asked for; null on a page reached by a cursor.
    #[schema(required, minimum = 1)]
    pub page: Option<u64>,
    /// The page size in effect.
    #[schema(minimum = 1)]
    pub page_size: u32,
    /// Orders that match the filters.
    #[schema(minimum = 0)]
    pub total: i64,
    /// False: `total` is exact, as it is up to 10,000. True: more match, and `total` is the database's estimate of the last 5 s.
    pub total_is_estimate: bool,
}

/// A page of an order's history.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderEventPage {
    /// The events, by sequence.
    pub items: Vec<OrderEvent>,
    /// The page size in effect.
    #[schema(minimum = 1)]
    pub page_size: u32,
}
