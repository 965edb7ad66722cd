//! The schemas of the order events, compiled in from `schemas/`: what producers may register.

pub use crate::views::orders::versions::NEWEST as NEWEST_VERSION;

/// One event type in one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contract {
    /// Its type.
    pub event_type: &'static str,
    /// The first version with this shape.
    pub since: u32,
    /// Avro schema.
    pub avro: &'static str,
    /// JSON Schema.
    pub json: &'static str,
}

/// All of them, newest version first.
pub const ALL: [Contract; 5] = [
    Contract {
        event_type: "OrderCreated",
        since: 2,
        avro: include_str!("../../../schemas/avro/order_created.v2.avsc"),
        json: include_str!("../../../schemas/json/order_created.v2.schema.json"),
    },
    Contract {
        event_type: "OrderItemAdded",
        since: 2,
        avro: include_str!("../../../schemas/avro/order_item_added.v2.avsc"),
        json: include_str!("../../../schemas/json/order_item_added.v2.schema.json"),
    },
    Contract {
        event_type: "OrderStatusChanged",
        since: 1,
        avro: include_str!("../../../schemas/avro/order_status_changed.avsc"),
        json: include_str!("../../../schemas/json/order_status_changed.schema.json"),
    },
    Contract {
        event_type: "OrderCreated",
        since: 1,
        avro: include_str!("../../../schemas/avro/order_created.avsc"),
        json: include_str!("../../../schemas/json/order_created.schema.json"),
    },
    Contract {
        event_type: "OrderItemAdded",
        since: 1,
        avro: include_str!("../../../schemas/avro/order_item_added.avsc"),
        json: include_str!("../../../schemas/json/order_item_added.schema.json"),
    },
];

/// The three event types as they are in `version`.
pub fn contracts(version: u32) -> impl Iterator<Item = &'static Contract> {
    ["OrderCreated", "OrderItemAdded", "OrderStatusChanged"].into_iter().filter_map(move |event_type| {
        ALL.iter().find(|contract| contract.event_type == event_type && contract.since <= version)
    })
}
