//! Sources and rows to try things with.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, AsArray, Decimal128Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
    new_null_array,
};
use datafusion::arrow::datatypes::{DataType as Arrow, Int32Type};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::Result as DfResult;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionImplementation, Volatility, create_udf};
use streamview_manager::catalog::{Column, EventTime, Format, KeyFormat, Source, Table};
use streamview_manager::engines::{Refusal, Select};

use crate::plan::{Bounds, Limits, Prepared, Purpose};
use crate::run::{Execution, Output};
use crate::schema;

pub(super) const NOW: i64 = 1_800_000_000_000;
/// A whole hour well before [`NOW`].
pub(super) const T: i64 = 1_799_996_400_000;

pub(super) fn source(name: &str, columns: &[(&str, &str)], event_time: Option<(&str, u64)>) -> Source {
    let column =
        |(name, of): &(&str, &str)| Column { name: (*name).to_owned(), data_type: of.parse().unwrap(), nullable: true };
    Source {
        name: name.to_owned(),
        topic: name.to_owned(),
        format: Format::Json,
        columns: columns.iter().map(column).collect(),
        event_time: event_time.map(|(column, delay_ms)| EventTime { column: column.to_owned(), delay_ms }),
        table: None,
    }
}

/// `orders(id, customer, amount, quantity, status, ts)` with five seconds of lateness.
pub(super) fn orders() -> Source {
    source("orders", ORDERS, Some(("ts", 5_000)))
}

const ORDERS: &[(&str, &str)] = &[
    ("id", "bigint"),
    ("customer", "string"),
    ("amount", "decimal(10, 2)"),
    ("quantity", "int"),
    ("status", "string"),
    ("ts", "timestamp(3)"),
];

pub(super) fn refunds() -> Source {
    source("refunds", ORDERS, Some(("ts", 5_000)))
}

/// A table: `customers(customer, city, level)` by `customer`.
pub(super) fn customers() -> Source {
    let columns = [("customer", "string"), ("city", "string"), ("level", "int")];
    let table = Some(Table { key: vec!["customer".to_owned()], key_format: KeyFormat::Text });
    Source { table, ..source("customers", &columns, None) }
}

pub(super) fn select(sql: &str) -> Select {
    Select { sql: sql.to_owned(), sources: vec![orders(), refunds(), customers()] }
}

pub(super) fn prepared_for(sql: &str, purpose: Purpose) -> Result<Prepared, Refusal> {
    Prepared::new(&select(sql), purpose, &Limits::default())
}

pub(super) fn prepared(sql: &str) -> Prepared {
    prepared_for(sql, Purpose::AdHoc).unwrap_or_else(|refusal| panic!("{sql}: {refusal:?}"))
}

pub(super) fn started(sql: &str) -> Execution {
    prepared(sql).start(Bounds::default()).unwrap()
}

/// The same with these rows in the table `customers`.
pub(super) fn started_with(sql: &str, rows: &[(&str, &str)]) -> Execution {
    prepared(sql).start_with(Bounds::default(), &in_customers(rows)).unwrap()
}

/// These rows of the table `customers`.
pub(super) fn in_customers(rows: &[(&str, &str)]) -> BTreeMap<usize, Vec<RecordBatch>> {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1))),
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|_| 1))),
    ];
    let rows = RecordBatch::try_new(schema::of_table(&customers()), columns).unwrap();
    BTreeMap::from([(2, vec![rows])])
}

/// An order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) customer: String,
    pub(super) quantity: Option<i32>,
    pub(super) time: Option<i64>,
}

pub(super) fn order(offset: i64, customer: &str, quantity: i32, time: i64) -> Order {
    Order { partition: 0, offset, customer: customer.to_owned(), quantity: Some(quantity), time: Some(time) }
}

/// Orders as they are pushed. The amount is the quantity in cents; the status is `odd` or `even` by the quantity.
pub(super) fn rows(orders: &[Order]) -> RecordBatch {
    let schema = schema::of_source(&self::orders());
    let amounts: Decimal128Array = orders.iter().map(|order| order.quantity.map(i128::from)).collect();
    let status = |order: &Order| order.quantity.map(|quantity| if quantity % 2 == 0 { "even" } else { "odd" });
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(orders.iter().map(|order| order.offset))),
        Arc::new(StringArray::from_iter_values(orders.iter().map(|order| &order.customer))),
        Arc::new(amounts.with_precision_and_scale(10, 2).unwrap()),
        Arc::new(orders.iter().map(|order| order.quantity).collect::<Int32Array>()),
        Arc::new(orders.iter().map(status).collect::<StringArray>()),
        Arc::new(orders.iter().map(|order| order.time).collect::<TimestampMillisecondArray>()),
        Arc::new(Int32Array::from_iter_values(orders.iter().map(|order| order.partition))),
        Arc::new(Int64Array::from_iter_values(orders.iter().map(|order| order.offset))),
        Arc::new(StringArray::from_iter_values(orders.iter().map(|order| format!("key-{}", order.offset)))),
        Arc::new(orders.iter().map(|order| order.time).collect::<TimestampMillisecondArray>()),
        new_null_array(schema.field(10).data_type(), orders.len()),
    ];
    RecordBatch::try_new(schema, columns).unwrap()
}

/// Rows as lines of values with `|` between.
pub(super) fn lines(out: &[Output]) -> Vec<String> {
    out.iter().flat_map(|output| batch_lines(&output.rows)).collect()
}

pub(super) fn batch_lines(rows: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default().with_null("null");
    let columns: Vec<_> =
        rows.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
    (0..rows.num_rows())
        .map(|at| columns.iter().map(|column| column.value(at).to_string()).collect::<Vec<_>>().join("|"))
        .collect()
}

/// The lines of several batches.
pub(crate) fn lines_of(batches: &[RecordBatch]) -> Vec<String> {
    batches.iter().flat_map(batch_lines).collect()
}

/// Pushes and closes, and gives all rows that came out, in order.
pub(super) async fn all(execution: &mut Execution, orders: &[Order]) -> Vec<String> {
    let pushed = execution.push(0, rows(orders), NOW).await.unwrap();
    assert!(pushed.refused.is_empty() && pushed.future.is_empty(), "{pushed:?}");
    let mut out = pushed.out;
    out.extend(execution.close(NOW).await.unwrap());
    lines(&out)
}

/// `panics_for_tests(n)`: n, but of 13 it panics.
pub(crate) fn register(state: &mut SessionState) -> DfResult<()> {
    let call: ScalarFunctionImplementation = Arc::new(|arguments: &[ColumnarValue]| {
        let values = arguments[0].to_array(1)?;
        if values.as_primitive::<Int32Type>().iter().any(|value| value == Some(13)) {
            panic!("thirteen");
        }
        Ok(arguments[0].clone())
    });
    let of = create_udf("panics_for_tests", vec![Arrow::Int32], Arrow::Int32, Volatility::Immutable, call);
    state.register_udf(Arc::new(of)).map(|_| ())
}
