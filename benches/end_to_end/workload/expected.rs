//! The oracle: what the views must hold after all events of a workload.

use std::collections::{BTreeMap, HashMap};

use super::Workload;
use super::event::{QTY, Shape, price_cents, status_after};

/// The state of the views after all events of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Rows of `orders_view`.
    pub orders: i64,
    /// Rows of `order_items_view`.
    pub items: i64,
    /// Rows of the ledger, and the sum of the orders' last sequences.
    pub events: i64,
    /// Sum of `total_net`, in cents.
    pub net_cents: i64,
    /// Orders by status.
    pub statuses: BTreeMap<String, i64>,
}

impl Expected {
    /// Of the whole workload, with one line an order.
    pub fn of(workload: Workload) -> Expected {
        Expected::with(workload, Shape::default())
    }

    /// Of the whole workload in some shape.
    pub fn with(workload: Workload, shape: Shape) -> Expected {
        let mut last_sequences: HashMap<u64, u64> = HashMap::new();
        for event in workload.events() {
            last_sequences.insert(event.order, event.sequence);
        }
        let mut expected = Expected { orders: 0, items: 0, events: 0, net_cents: 0, statuses: BTreeMap::new() };
        for (order, sequence) in last_sequences {
            expected.orders += 1;
            expected.events += sequence as i64;
            expected.items += shape.lines as i64;
            expected.net_cents += (shape.lines * QTY * price_cents(order)) as i64;
            *expected.statuses.entry(status_after(sequence).to_owned()).or_default() += 1;
        }
        expected
    }
}
