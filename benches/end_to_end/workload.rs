//! The workload: flat orders of one item, three events each (created, paid, shipped), an order's updates spaced 10 to
//! 2000 order creations apart. Deterministic, so that the same number of orders is the same topic everywhere.

use std::collections::BTreeMap;

/// Events of one order.
pub const EVENTS_PER_ORDER: u64 = 3;
const NEAREST: u64 = 10;
const FARTHEST: u64 = 2000;
/// Slots of the wheel that holds future updates; more than [`FARTHEST`].
const WHEEL: usize = 2048;
const STATUSES: [&str; 3] = ["Created", "Paid", "Shipped"];
/// 2026-01-01T00:00:00Z in seconds since the epoch; the clock moves a second per order.
const FIRST_SECOND: i64 = 1_767_225_600;

/// One event: which order, and its sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Number of the order.
    pub order: u64,
    /// 1 to [`EVENTS_PER_ORDER`].
    pub sequence: u64,
}

/// Events of the orders `first..first + count`, in the order they are published.
pub struct Events {
    next: u64,
    end: u64,
    tick: u64,
    wheel: Vec<Vec<Event>>,
    due: Vec<Event>,
    waiting: u64,
}

/// The events of `count` orders, the first of which has number `first`.
pub fn events(first: u64, count: u64) -> Events {
    Events { next: first, end: first + count, tick: 0, wheel: vec![Vec::new(); WHEEL], due: Vec::new(), waiting: 0 }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.due.pop() {
                self.waiting -= 1;
                self.schedule_after(event);
                return Some(event);
            }
            if self.next == self.end && self.waiting == 0 {
                return None;
            }
            self.tick += 1;
            std::mem::swap(&mut self.due, &mut self.wheel[self.tick as usize % WHEEL]);
            if self.next < self.end {
                let created = Event { order: self.next, sequence: 1 };
                self.next += 1;
                self.schedule_after(created);
                return Some(created);
            }
        }
    }
}

impl Events {
    fn schedule_after(&mut self, event: Event) {
        if event.sequence == EVENTS_PER_ORDER {
            return;
        }
        let next = Event { order: event.order, sequence: event.sequence + 1 };
        let distance = NEAREST + mix(next) % (FARTHEST - NEAREST + 1);
        self.wheel[(self.tick + distance) as usize % WHEEL].push(next);
        self.waiting += 1;
    }
}

impl Event {
    /// Record key and id of the order.
    pub fn order_id(self) -> String {
        order_id(self.order)
    }

    /// Value of the record, about 230 bytes for a creation and 150 for a change of status.
    pub fn payload(self) -> String {
        let (order_id, event_id, occurred_at) = (self.order_id(), self.event_id(), self.occurred_at());
        if self.sequence > 1 {
            let status = STATUSES[(self.sequence as usize - 1).min(STATUSES.len() - 1)];
            return format!(
                r#"{{"type":"OrderStatusChanged","eventId":"{event_id}","occurredAt":"{occurred_at}","orderId":"{order_id}","status":"{status}"}}"#
            );
        }
        let (customer, sku, cents) = (mix(self) % 50_000, mix(self) >> 20 & 4095, price_cents(self.order));
        format!(
            r#"{{"type":"OrderCreated","eventId":"{event_id}","occurredAt":"{occurred_at}","orderId":"{order_id}","customerId":"customer-{customer}","currency":"EUR","items":[{{"itemId":"item-1","sku":"SKU-{sku:04}","qty":2,"price":"{}.{:02}"}}]}}"#,
            cents / 100,
            cents % 100
        )
    }

    /// A UUID, as most producers use them: its index entries land everywhere.
    fn event_id(self) -> String {
        let (high, low) = (mix(self), mix(Event { order: self.order ^ 0x5bd1_e995, ..self }));
        format!(
            "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xfff,
            low >> 48 & 0xfff,
            low & 0xffff_ffff_ffff
        )
    }

    fn occurred_at(self) -> String {
        let second = FIRST_SECOND + (self.order + 700 * self.sequence) as i64;
        let time = jiff::Timestamp::from_second(second).expect("a time in this century or the next");
        format!("{time}")
    }
}

/// The events 2 to `last` of `count` orders from number `first` on, one of each order in turn: their first is missing.
pub fn headless(first: u64, count: u64, last: u64) -> impl Iterator<Item = Event> {
    (2..=last).flat_map(move |sequence| (first..first + count).map(move |order| Event { order, sequence }))
}

/// Id of the order with this number.
pub fn order_id(order: u64) -> String {
    format!("order-{order}")
}

/// The state of the views after all events of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Rows of `orders_view`, and of `order_items_view`.
    pub orders: i64,
    /// Rows of the ledger, and the sum of the orders' last sequences.
    pub events: i64,
    /// Sum of `total_net`, in cents.
    pub net_cents: i64,
    /// Orders by status.
    pub statuses: BTreeMap<String, i64>,
}

/// The oracle: what `count` orders from number 0 must look like.
pub fn expected(count: u64) -> Expected {
    let net_cents: u64 = (0..count).map(|order| 2 * price_cents(order)).sum();
    Expected {
        orders: count as i64,
        events: (count * EVENTS_PER_ORDER) as i64,
        net_cents: net_cents as i64,
        statuses: BTreeMap::from([(STATUSES[2].to_owned(), count as i64)]),
    }
}

fn price_cents(order: u64) -> u64 {
    mix(Event { order, sequence: 99 }) % 50_000 + 1
}

/// splitmix64's finaliser.
fn mix(event: Event) -> u64 {
    let mut value = event.order.wrapping_mul(128).wrapping_add(event.sequence).wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}
