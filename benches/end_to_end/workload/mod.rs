//! The workload: flat orders of one item, created, paid, shipped. Deterministic, so that the same workload is the same
//! topic everywhere. No I/O; `tests/it/benchmark.rs` tests it.

mod event;
mod expected;
mod hot;
mod spaced;

pub use event::{Event, Ids, QTY, Shape, order_id, price_cents, status_after};
pub use expected::Expected;
pub use spaced::{Spaced, headless};

/// Events of one order, where nothing else is said.
pub const EVENTS_PER_ORDER: u64 = 3;

/// What a topic is filled with. Orders are numbered from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// `each` events of every order; ids count up as orders are created.
    Ascending {
        /// Orders.
        orders: u64,
        /// Events of each.
        each: u64,
    },
    /// The same with ids in no order.
    Scattered {
        /// Orders.
        orders: u64,
        /// Events of each.
        each: u64,
    },
    /// The order of each event is drawn, the nth most frequent with a probability of 1/n (Zipf); ids in no order.
    Hot {
        /// Orders to draw from; those never drawn do not exist.
        orders: u64,
        /// Events in all.
        events: u64,
    },
}

impl Workload {
    /// The plain one: three events of each order.
    pub fn plain(orders: u64) -> Workload {
        Workload::Ascending { orders, each: EVENTS_PER_ORDER }
    }

    /// All its events, in the order they are published.
    pub fn events(self) -> Box<dyn Iterator<Item = Event>> {
        match self {
            Workload::Ascending { orders, each } => Box::new(Spaced::new(0, orders, each)),
            Workload::Scattered { orders, each } => {
                let scatter = move |event: Event| Event { order: scattered(event.order, orders), ..event };
                Box::new(Spaced::new(0, orders, each).map(scatter))
            }
            Workload::Hot { orders, events } => Box::new(hot::events(orders, events)),
        }
    }
}

/// A permutation of the numbers below `count` that leaves no neighbours together.
fn scattered(number: u64, count: u64) -> u64 {
    let bits = (u64::BITS - count.leading_zeros()).max(2);
    let (mask, half) = ((1 << bits) - 1, bits.div_ceil(2));
    let mut value = number;
    loop {
        // Each step permutes the numbers below 2^bits; going on until one is below `count` permutes those.
        for odd in [0x9e37_79b9_7f4a_7c15_u64, 0xbf58_476d_1ce4_e5b9] {
            value = (value ^ value >> half).wrapping_mul(odd) & mask;
        }
        value ^= value >> half;
        if value < count {
            return value;
        }
    }
}

/// splitmix64's finaliser of an order's number and a sequence or salt.
fn mix(order: u64, salt: u64) -> u64 {
    let mut value = order.wrapping_mul(128).wrapping_add(salt).wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}
