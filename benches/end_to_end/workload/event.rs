//! One event: its number, its record.

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

    /// Value of the record, about 230 bytes for a creation and 150 for a change of status.
    pub fn payload(self) -> String {
        let (order_id, event_id, occurred_at) = (self.order_id(), self.event_id(), self.occurred_at());
        if self.sequence > 1 {
            let status = status_after(self.sequence);
            return format!(
                r#"{{"type":"OrderStatusChanged","eventId":"{event_id}","occurredAt":"{occurred_at}","orderId":"{order_id}","status":"{status}"}}"#
            );
        }
        let random = mix(self.order, self.sequence);
        let (customer, sku, cents) = (random % 50_000, random >> 20 & 4095, price_cents(self.order));
        format!(
            r#"{{"type":"OrderCreated","eventId":"{event_id}","occurredAt":"{occurred_at}","orderId":"{order_id}","customerId":"customer-{customer}","currency":"EUR","items":[{{"itemId":"item-1","sku":"SKU-{sku:04}","qty":2,"price":"{}.{:02}"}}]}}"#,
            cents / 100,
            cents % 100
        )
    }

    /// A UUID, as most producers use them: its index entries land everywhere.
    fn event_id(self) -> String {
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

    fn occurred_at(self) -> String {
        let time = jiff::Timestamp::from_second(FIRST_SECOND + self.second as i64);
        format!("{}", time.expect("a time in this century or the next"))
    }
}

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
