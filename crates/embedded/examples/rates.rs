//! Rows per second of one core, from memory: a filter, and windows over 1,000 keys. `cargo run --release --example rates`.
#![allow(clippy::unwrap_used, missing_docs)] // a measurement fails by panicking

use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::{
    ArrayRef, Decimal128Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
    new_null_array,
};
use streamview_embedded::plan::{Bounds, Limits, Prepared, Purpose};
use streamview_embedded::schema;
use streamview_manager::catalog::{Column, EventTime, Format, Source};
use streamview_manager::engines::Select;

const NOW: i64 = 1_800_000_000_000;

fn source() -> Source {
    let columns = [
        ("order_id", "bigint"),
        ("customer_id", "string"),
        ("amount", "decimal(12, 2)"),
        ("status", "string"),
        ("ts", "timestamp(3)"),
    ];
    let column =
        |(name, of): (&str, &str)| Column { name: name.to_owned(), data_type: of.parse().unwrap(), nullable: true };
    Source {
        name: "orders".to_owned(),
        topic: "orders".to_owned(),
        format: Format::Json,
        columns: columns.map(column).to_vec(),
        event_time: Some(EventTime { column: "ts".to_owned(), delay_ms: 5_000 }),
        table: None,
    }
}

fn batch(first: i64, rows: i64) -> RecordBatch {
    let schema = schema::of_source(&source());
    let all = || first..first + rows;
    let statuses = ["created", "paid", "shipped", "cancelled"];
    let amounts: Decimal128Array = all().map(|n| Some(i128::from(n % 100_000))).collect();
    let times = || all().map(|n| NOW - 7_200_000 + n / 20);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(all())),
        Arc::new(StringArray::from_iter_values(all().map(|n| format!("customer-{}", n % 1_000)))),
        Arc::new(amounts.with_precision_and_scale(12, 2).unwrap()),
        Arc::new(StringArray::from_iter_values(all().map(|n| statuses[usize::try_from(n % 4).unwrap()]))),
        Arc::new(TimestampMillisecondArray::from_iter_values(times())),
        Arc::new(Int32Array::from_iter_values(all().map(|_| 0))),
        Arc::new(Int64Array::from_iter_values(all())),
        Arc::new(StringArray::from_iter_values(all().map(|n| n.to_string()))),
        Arc::new(TimestampMillisecondArray::from_iter_values(times())),
        new_null_array(schema.field(9).data_type(), usize::try_from(rows).unwrap()),
    ];
    RecordBatch::try_new(schema, columns).unwrap()
}

/// What this process has used of a core.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

async fn rate(name: &str, sql: &str, rows: i64) {
    let select = Select { sql: sql.to_owned(), sources: vec![source()] };
    let prepared = Prepared::new(&select, Purpose::Persistent, &Limits::default()).unwrap();
    let mut query = prepared.start(Bounds::default()).unwrap();
    query.assign(0, &[0]);
    let batches: Vec<_> = (0..64).map(|n| batch(n * rows, rows)).collect();
    let (before, mut pushed, mut out) = (cpu(), 0_i64, 0_usize);
    while cpu() - before < Duration::from_secs(3) {
        for batch in &batches {
            let came = query.push(0, batch.clone(), NOW).await.unwrap();
            out += came.out.iter().map(|output| output.rows.num_rows()).sum::<usize>();
            out += query.close(NOW).await.unwrap().iter().map(|output| output.rows.num_rows()).sum::<usize>();
            pushed += rows;
        }
    }
    let seconds = (cpu() - before).as_secs_f64();
    println!("{name}, batches of {rows}: {:.0} rows per CPU second ({out} rows out)", pushed as f64 / seconds);
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let filter = "select order_id, upper(customer_id) as customer, amount * 2 as twice from orders \
                  where amount > 500 and status like 'p%'";
    let windows = "select customer_id, count(*) as n, sum(amount) as revenue from orders \
                   group by customer_id, tumble(ts, interval '1 minute')";
    for rows in [100, 1_000, 8_192] {
        rate("filter", filter, rows).await;
        rate("windows", windows, rows).await;
    }
}
