//! Order events to publish, and the in-order fold of them: the oracle.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use streamview::codec::Head;
use streamview::domain::decimal::Decimal;
use streamview::domain::units::{Micros, Sequence};
use streamview::views::orders::event;
use streamview::views::orders::project::{Line, OrderState, TaxPolicy, project};

use crate::support::world::{TestRecord, World};

/// An event of an order.
#[derive(Debug, Clone, PartialEq)]
pub struct TestEvent {
    pub order_id: String,
    pub sequence: i64,
    pub body: Value,
}

impl TestEvent {
    /// An event whose id and time follow from its order and sequence.
    pub fn new(order_id: &str, sequence: i64, event_type: &str, fields: Value) -> TestEvent {
        let mut body = json!({
            "type": event_type,
            "eventId": format!("{order_id}-event-{sequence}"),
            "occurredAt": format!("2026-01-01T{:02}:{:02}:{:02}Z", sequence / 3600 % 24, sequence / 60 % 60, sequence % 60),
            "orderId": order_id,
        });
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        TestEvent { order_id: order_id.to_owned(), sequence, body }
    }

    /// The same with one field set.
    pub fn with(mut self, field: &str, value: Value) -> TestEvent {
        self.body[field] = value;
        self
    }

    pub fn event_id(&self) -> &str {
        self.body["eventId"].as_str().unwrap()
    }

    /// The record on a partition of our choice.
    pub fn record_on(&self, partition: i32) -> TestRecord {
        TestRecord { partition: Some(partition), ..self.record() }
    }

    pub fn record(&self) -> TestRecord {
        TestRecord {
            key: Some(self.order_id.clone().into_bytes()),
            payload: Some(self.body.to_string().into_bytes()),
            headers: vec![("x-sequence".to_owned(), self.sequence.to_string().into_bytes())],
            partition: None,
        }
    }
}

/// `OrderCreated` with one item, sequence 1.
pub fn created(order_id: &str) -> TestEvent {
    let items = json!([{ "itemId": "i-1", "sku": "TEA", "qty": 2, "price": "4.35", "taxRate": 0.07 }]);
    let fields = json!({ "customerId": format!("customer-of-{order_id}"), "currency": "EUR", "items": items });
    TestEvent::new(order_id, 1, "OrderCreated", fields)
}

/// `OrderItemAdded`.
pub fn item_added(order_id: &str, sequence: i64) -> TestEvent {
    let fields = json!({ "itemId": format!("i-{sequence}"), "sku": "CUP", "qty": 1, "price": 9.99 });
    TestEvent::new(order_id, sequence, "OrderItemAdded", fields)
}

/// `OrderStatusChanged`.
pub fn status_changed(order_id: &str, sequence: i64, status: &str) -> TestEvent {
    TestEvent::new(order_id, sequence, "OrderStatusChanged", json!({ "status": status }))
}

/// A believable life of `events` events.
pub fn life(order_id: &str, events: i64) -> Vec<TestEvent> {
    const STATUSES: [&str; 4] = ["Paid", "Packed", "Shipped", "Delivered"];
    (1..=events)
        .map(|sequence| match sequence {
            1 => created(order_id),
            _ if sequence % 3 == 2 => item_added(order_id, sequence),
            _ => status_changed(order_id, sequence, STATUSES[(sequence as usize / 2 - 1) % 4]),
        })
        .collect()
}

/// An order as text, field by field: equal texts mean equal rows.
pub type OrderText = String;

/// What an operator decided about some numbers of an order.
#[derive(Debug, Clone)]
pub enum Decided {
    /// Up to this number nothing happens.
    Skip(i64),
    /// This is the event.
    Take(TestEvent),
}

/// What an operator decided, by order and first number.
pub type Decisions = BTreeMap<String, BTreeMap<i64, Decided>>;

/// The in-order fold of the longest prefix 1, 2, 3 … of each order's distinct events.
pub fn oracle<'a>(events: impl IntoIterator<Item = &'a TestEvent>) -> BTreeMap<String, OrderText> {
    oracle_with(events, &Decisions::new())
}

/// The same, where decisions go before events.
pub fn oracle_with<'a>(
    events: impl IntoIterator<Item = &'a TestEvent>,
    decisions: &Decisions,
) -> BTreeMap<String, OrderText> {
    let mut by_order: BTreeMap<&str, BTreeMap<i64, &TestEvent>> = BTreeMap::new();
    for order_id in decisions.keys() {
        by_order.entry(order_id).or_default();
    }
    for event in events {
        by_order.entry(&event.order_id).or_default().entry(event.sequence).or_insert(event);
    }
    let mut orders = BTreeMap::new();
    for (order_id, events) in by_order {
        let decided = decisions.get(order_id);
        let (mut steps, mut next) = (Vec::new(), 1);
        while let Some(step) = match decided.and_then(|decided| decided.get(&next)) {
            Some(Decided::Skip(to)) => Some((*to, None)),
            Some(Decided::Take(event)) => Some((next, Some(event))),
            None => events.get(&next).map(|event| (next, Some(*event))),
        } {
            steps.push(step);
            next = step.0 + 1;
        }
        if let Some(text) = fold_in_order(order_id, &steps) {
            orders.insert(order_id.to_owned(), text);
        }
    }
    orders
}

/// Each step is a number and its event, or the end of what was skipped.
fn fold_in_order(order_id: &str, steps: &[(i64, Option<&TestEvent>)]) -> Option<OrderText> {
    let policy = TaxPolicy { default_rate: Decimal::ZERO };
    let payloads: Vec<String> =
        steps.iter().map(|(_, event)| event.map(|event| event.body.to_string()).unwrap_or_default()).collect();
    let (mut order, mut lines): (OrderState, Vec<Line<'_>>) = Default::default();
    let mut ids = Vec::new();
    for ((sequence, event), payload) in steps.iter().zip(&payloads) {
        let Some(event) = event else {
            if ids.is_empty() {
                order.updated_at = Some(Micros::EPOCH);
            }
            ids.push(format!("skipped:{order_id}:{sequence}"));
            continue;
        };
        let head = Head { key: order_id, sequence: Sequence(*sequence), event_type: None, version: 1 };
        let parsed = event::parse(&head, payload).unwrap();
        project(policy, &mut order, parsed.event.unwrap(), parsed.occurred_at, &mut lines).unwrap();
        ids.push(event.event_id().to_owned());
    }
    let last = steps.last()?;
    let mut text = format!(
        "{} {} {:?} {:?} {:?} {} {} {} {} {} {:?}",
        last.0,
        ids.last()?,
        order.customer_id.as_deref(),
        order.status.as_deref(),
        order.currency.as_deref(),
        order.total_net,
        order.total_gross,
        order.item_count,
        order.updated_at.unwrap(),
        order.tax_basis.as_str(),
        order.anomalies.names(),
    );
    for line in &lines {
        let item = &line.item;
        let rate = item.tax_rate.map(|rate| rate.to_string());
        text += &format!(
            "\n  {} {} {} {} {} {rate:?} {} {}",
            line.line_no, item.item_id, item.sku, item.qty, item.price, line.net, line.gross
        );
    }
    for ((sequence, _), id) in steps.iter().zip(&ids) {
        text += &format!("\n  ledger {sequence} {id}");
    }
    Some(text)
}

/// The same text from the tables.
pub async fn stored(world: &World) -> BTreeMap<String, OrderText> {
    let mut orders: BTreeMap<String, OrderText> = BTreeMap::new();
    let rows = world
        .sql
        .query(
            "select order_id, last_event_sequence, last_event_id, customer_id, status, currency, total_net::text, \
             total_gross::text, item_count, (extract(epoch from updated_at) * 1000000)::bigint, tax_basis, anomalies \
             from orders_view",
            &[],
        )
        .await
        .unwrap();
    for row in rows {
        let text = |index: usize| row.get::<_, Option<&str>>(index);
        let sentence = format!(
            "{} {} {:?} {:?} {:?} {} {} {} {} {} {:?}",
            row.get::<_, i64>(1),
            row.get::<_, &str>(2),
            text(3),
            text(4),
            text(5),
            row.get::<_, &str>(6),
            row.get::<_, &str>(7),
            row.get::<_, i32>(8),
            row.get::<_, i64>(9),
            row.get::<_, &str>(10),
            row.get::<_, Vec<&str>>(11),
        );
        orders.insert(row.get(0), sentence);
    }
    let rows = world
        .sql
        .query(
            "select order_id, line_no, item_id, sku, qty::text, price::text, tax_rate::text, net_line_total::text, \
             gross_line_total::text from order_items_view order by order_id, line_no",
            &[],
        )
        .await
        .unwrap();
    for row in rows {
        let text = |index: usize| row.get::<_, &str>(index);
        let rate: Option<&str> = row.get(6);
        let line = format!(
            "\n  {} {} {} {} {} {rate:?} {} {}",
            row.get::<_, i32>(1),
            text(2),
            text(3),
            text(4),
            text(5),
            text(7),
            text(8)
        );
        *orders.entry(row.get(0)).or_default() += &line;
    }
    let query = "select order_id, sequence, event_id from order_events_view order by order_id, sequence";
    for row in world.sql.query(query, &[]).await.unwrap() {
        let line = format!("\n  ledger {} {}", row.get::<_, i64>(1), row.get::<_, &str>(2));
        *orders.entry(row.get(0)).or_default() += &line;
    }
    orders
}
