//! The oracle: what the views must hold after all events of a workload.

use std::collections::{BTreeMap, HashMap};

use super::Workload;
use super::event::{price_cents, status_after};

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

impl Expected {
    /// Of the whole workload.
    pub fn of(workload: Workload) -> Expected {
        let mut last_sequences: HashMap<u64, u64> = HashMap::new();
        for event in workload.events() {
            last_sequences.insert(event.order, event.sequence);
        }
        let mut expected = Expected { orders: 0, events: 0, net_cents: 0, statuses: BTreeMap::new() };
        for (order, sequence) in last_sequences {
            expected.orders += 1;
            expected.events += sequence as i64;
            expected.net_cents += 2 * price_cents(order) as i64;
            *expected.statuses.entry(status_after(sequence).to_owned()).or_default() += 1;
        }
        expected
    }
}
