//! One event: its number, its record.

use clap::ValueEnum;

use super::mix;

const STATUSES: [&str; 3] = ["Created", "Paid", "Shipped"];
/// 2026-01-01T00:00:00Z in seconds since the epoch.
const FIRST_SECOND: i64 = 1_767_225_600;

/// One event: which order, its sequence number, and when it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Number of the order.
    pub order: u64,
    /// From 1 on.
    pub sequence: u64,
    /// Seconds since 2026 began.
    pub second: u64,
}

impl Event {
    /// Record key and id of the order.
    pub fn order_id(self) -> String {
        order_id(self.order)
    }

    /// Value of the record as JSON, about 230 bytes for a creation of one line and 150 for a change of status.
    pub fn payload(self, shape: Shape) -> String {
        let (order_id, event_id, occurred_at) = (self.order_id(), self.event_id(shape.ids), self.occurred_at());
        if self.sequence > 1 {
            let status = status_after(self.sequence);
            return format!(
                r#"{{"type":"OrderStatusChanged","eventId":"{event_id}","occurredAt":"{occurred_at}","orderId":"{order_id}","status":"{status}"}}"#
            );
        }
        let (customer, cents) = (self.customer_id(), price_cents(self.order));
        let line = |number| {
            let (sku, whole, rest) = (self.sku(number), cents / 100, cents % 100);
            format!(r#"{{"itemId":"item-{number}","sku":"{sku}","qty":{QTY},"price":"{whole}.{rest:02}"}}"#)
        };
        let lines = (1..=shape.lines).map(line).collect::<Vec<_>>().join(",");
        format!(
            r#"{{"type":"OrderCreated","eventId":"{event_id}","occurredAt":"{occurred_at}","orderId":"{order_id}","customerId":"{customer}","currency":"EUR","items":[{lines}]}}"#
        )
    }

    /// The whole order after this event in one flat record of ten fields, as a sink that upserts rows wants it.
    pub fn flat(self) -> String {
        let (order_id, event_id, customer) = (self.order_id(), self.event_id(Ids::Random), self.customer_id());
        let (status, net, sequence) = (status_after(self.sequence), 2 * price_cents(self.order), self.sequence);
        let (gross, millis) = (net * 119 / 100, self.time().as_millisecond());
        format!(
            r#"{{"order_id":"{order_id}","customer_id":"{customer}","status":"{status}","currency":"EUR","total_net":{}.{:02},"total_gross":{}.{:02},"item_count":1,"last_event_sequence":{sequence},"last_event_id":"{event_id}","updated_at":{millis}}}"#,
            net / 100,
            net % 100,
            gross / 100,
            gross % 100
        )
    }

    /// Who ordered.
    pub fn customer_id(self) -> String {
        format!("customer-{}", mix(self.order, 1) % 50_000)
    }

    /// What line `number` of the order, from 1 on, is about.
    pub fn sku(self, number: u64) -> String {
        format!("SKU-{:04}", (mix(self.order, 1) >> 20).wrapping_add(number) & 4095)
    }

    /// The event's id.
    pub fn event_id(self, ids: Ids) -> String {
        match ids {
            Ids::Random => self.uuid(),
            Ids::Sequential => format!("{}-event-{}", self.order_id(), self.sequence),
        }
    }

    /// A UUID, as most producers use them: its index entries land everywhere.
    fn uuid(self) -> String {
        // The sequence of a hot order outgrows the 7 bits that `mix` leaves between two orders.
        let order = self.order ^ (self.sequence >> 7) << 40;
        let (high, low) = (mix(order, self.sequence & 127), mix(order ^ 0x5bd1_e995, self.sequence & 127));
        format!(
            "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xfff,
            low >> 48 & 0xfff,
            low & 0xffff_ffff_ffff
        )
    }

    /// When it happened.
    pub fn time(self) -> jiff::Timestamp {
        let time = jiff::Timestamp::from_second(FIRST_SECOND + self.second as i64);
        time.expect("a time in this century or the next")
    }

    fn occurred_at(self) -> String {
        self.time().to_string()
    }
}

/// What the ids of events look like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Ids {
    /// UUIDs in no order, as most producers use them
    #[default]
    Random,
    /// `order-1-event-2`: they sort as their orders do, and their index is written in order
    Sequential,
}

/// How much events say, and in which format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Ids of events.
    pub ids: Ids,
    /// Lines of each order.
    pub lines: u64,
    /// Whether values are Avro, framed with the id of their schema.
    pub is_avro: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Shape { ids: Ids::Random, lines: 1, is_avro: false }
    }
}

/// Pieces of each line.
pub const QTY: u64 = 2;

/// Id of the order with this number.
pub fn order_id(order: u64) -> String {
    format!("order-{order}")
}

/// Status of an order whose last event is this one.
pub fn status_after(sequence: u64) -> &'static str {
    STATUSES[(sequence as usize - 1).min(STATUSES.len() - 1)]
}

/// Price of the order's item, which it has two of.
pub fn price_cents(order: u64) -> u64 {
    mix(order, 99) % 50_000 + 1
}
