//! Hot keys: few orders have most of the events.

use super::event::Event;
use super::{EVENTS_PER_ORDER, mix, scattered};

/// Tells these draws from other uses of the hash.
const SALT: u64 = 77;

/// `events` events, the order of each drawn from `orders` by Zipf's law with exponent 1.
pub fn events(orders: u64, events: u64) -> impl Iterator<Item = Event> {
    let mut sum = 0.0;
    let up_to_rank: Vec<f64> = (1..=orders)
        .map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        })
        .collect();
    let mut last_sequences = vec![0; orders as usize];
    (0..events).map(move |number| {
        // The upper 53 bits as a fraction of the whole.
        let drawn = (mix(number, SALT) >> 11) as f64 / (1_u64 << 53) as f64 * sum;
        let rank = up_to_rank.partition_point(|upper| *upper <= drawn).min(up_to_rank.len() - 1);
        last_sequences[rank] += 1;
        let order = scattered(rank as u64, orders);
        Event { order, sequence: last_sequences[rank], second: number / EVENTS_PER_ORDER }
    })
}
