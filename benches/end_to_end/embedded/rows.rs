//! The rows that queries are measured with: orders of 190 bytes, of which the catalogue knows most fields and no query all.

use std::io::Write;

use streamview::manager::catalog::{Column, EventTime, Format, Source};

/// Groups of a window.
pub const CUSTOMERS: u64 = 1_000;
const STATUSES: [&str; 4] = ["created", "paid", "shipped", "cancelled"];
const CITIES: [&str; 5] = ["Berlin", "Utrecht", "Porto", "Graz", "Lyon"];
/// Where the time of a row stands in it.
const TIME_AT: usize = "{\"ts\":\"".len();

/// One row in eight passes.
pub const FILTER: &str = "SELECT order_id, upper(customer_id) AS customer, amount * 2 AS twice, address['city'] AS city \
                          FROM orders WHERE amount > 500 AND status LIKE 'p%'";
/// The same for Flink.
pub const FILTER_ON_FLINK: &str = "SELECT order_id, UPPER(customer_id) AS customer, amount * 2 AS twice, \
                                   address.city AS city FROM orders WHERE amount > 500 AND status LIKE 'p%'";
/// A minute, by customer.
pub const WINDOWS: &str = "SELECT customer_id, COUNT(*) AS n, SUM(amount) AS revenue FROM orders \
                           GROUP BY customer_id, tumble(ts, INTERVAL '1 minute')";
/// The same for Flink.
pub const WINDOWS_ON_FLINK: &str = "SELECT customer_id, COUNT(*) AS n, SUM(amount) AS revenue FROM \
                                    TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) \
                                    GROUP BY customer_id, window_start, window_end";

/// The n-th row, at this time.
pub fn row(n: u64, ms: u64, into: &mut Vec<u8>) {
    into.clear();
    into.extend_from_slice(b"{\"ts\":\"2026-01-01T00:00:00.000Z\"");
    let (customer, cents) = (n % CUSTOMERS, amount_cents(n));
    let rest = (STATUSES[status(n)], CITIES[(n % 5) as usize]);
    write!(
        into,
        ",\"order_id\":{n},\"customer_id\":\"customer-{customer}\",\"amount\":{}.{:02},\"status\":\"{}\",\"address\":\
         {{\"city\":\"{}\",\"zip\":\"{:05}\"}},\"channel\":\"web\",\"note\":\"leave it at the door\"}}",
        cents / 100,
        cents % 100,
        rest.0,
        rest.1,
        n % 100_000
    )
    .expect("memory takes whatever is written");
    set_time(into, ms);
}

/// Sets the time of a row to so many milliseconds after the first one; of the same day.
pub fn set_time(row: &mut [u8], ms: u64) {
    let mut set = |at: usize, digits: usize, mut value: u64| {
        for place in (0..digits).rev() {
            row[TIME_AT + at + place] = b'0' + (value % 10) as u8;
            value /= 10;
        }
    };
    set(11, 2, ms / 3_600_000 % 24);
    set(14, 2, ms / 60_000 % 60);
    set(17, 2, ms / 1_000 % 60);
    set(20, 3, ms % 1_000);
}

fn status(n: u64) -> usize {
    (n / 7 % 4) as usize
}

fn amount_cents(n: u64) -> u64 {
    n.wrapping_mul(7_919) % 100_000
}

/// Whether the filter lets the n-th row pass.
pub fn passes(n: u64) -> bool {
    amount_cents(n) > 50_000 && STATUSES[status(n)].starts_with('p')
}

/// The topic as the source `orders`, by its rows' time with five seconds of lateness.
pub fn source(topic: &str) -> Source {
    let column = |(name, of): (&str, &str)| Column {
        name: name.to_owned(),
        data_type: of.parse().expect("a type"),
        nullable: true,
    };
    let columns = [
        ("ts", "timestamp(3)"),
        ("order_id", "bigint"),
        ("customer_id", "string"),
        ("amount", "decimal(12, 2)"),
        ("status", "string"),
        ("address", "row<city string, zip string>"),
    ];
    Source {
        name: "orders".to_owned(),
        topic: topic.to_owned(),
        format: Format::Json,
        columns: columns.map(column).to_vec(),
        event_time: Some(EventTime { column: "ts".to_owned(), delay_ms: 5_000 }),
        table: None,
    }
}
