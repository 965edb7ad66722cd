//! Rows for the stream manager's example: one purchase each, as flat JSON in upper-case fields, keyed by nothing.

use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::generator::SeedRecord;

const PRODUCTS: [&str; 8] = [
    "Desk lamp",
    "Office chair",
    "Standing desk",
    "Mechanical keyboard",
    "Monitor, 27 inch",
    "Headphones",
    "Laptop stand",
    "Webcam",
];
/// The first order's number.
const FIRST_ORDER: u64 = 1001;
const CUSTOMERS: std::ops::Range<u64> = 500..600;
/// In cents: from 5.00 to 999.99.
const AMOUNTS: std::ops::RangeInclusive<u64> = 500..=99_999;

/// Purchases without end: `{"ORDER_ID": 1001, "CUSTOMER_ID": 573, "PRODUCT": "Webcam", "AMOUNT": 342.78,
/// "PURCHASE_DATE": "2026-11-28T20:50:06"}`. The same seed gives the same purchases.
pub struct Purchases {
    random: Rng,
    next_order: u64,
    time: Timestamp,
    step: SignedDuration,
}

impl Purchases {
    /// From this time on, one each `step`.
    pub fn new(seed: u64, start: Timestamp, step: SignedDuration) -> Purchases {
        Purchases { random: Rng::with_seed(seed), next_order: FIRST_ORDER, time: start, step }
    }
}

impl Iterator for Purchases {
    type Item = SeedRecord;

    fn next(&mut self) -> Option<SeedRecord> {
        let cents = self.random.u64(AMOUNTS);
        let row = json!({
            "ORDER_ID": self.next_order,
            "CUSTOMER_ID": self.random.u64(CUSTOMERS),
            "PRODUCT": PRODUCTS[self.random.usize(..PRODUCTS.len())],
            "AMOUNT": cents as f64 / 100.0,
            "PURCHASE_DATE": self.time.strftime("%Y-%m-%dT%H:%M:%S").to_string(),
        });
        self.next_order += 1;
        self.time = self.time.checked_add(self.step).ok()?;
        Some(SeedRecord { key: None, payload: row.to_string().into_bytes(), headers: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purchases_are_repeatable_and_written_as_the_example_says() {
        let purchases = || Purchases::new(1, Timestamp::UNIX_EPOCH, SignedDuration::from_secs(5));
        let rows: Vec<_> = purchases().take(100).map(|row| row.payload).collect();
        assert_eq!(rows, purchases().take(100).map(|row| row.payload).collect::<Vec<_>>());
        let second: serde_json::Value = serde_json::from_slice(&rows[1]).unwrap();
        assert_eq!((&second["ORDER_ID"], &second["PURCHASE_DATE"]), (&json!(1002), &json!("1970-01-01T00:00:05")));
        let amounts = rows
            .iter()
            .map(|row| serde_json::from_slice::<serde_json::Value>(row).unwrap()["AMOUNT"].as_f64().unwrap());
        assert!(amounts.clone().any(|amount| amount > 500.0) && amounts.clone().any(|amount| amount < 500.0));
    }
}
