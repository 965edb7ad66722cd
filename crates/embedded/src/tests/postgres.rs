//! The same expressions over the same rows here and in PostgreSQL 15, whose answers were written down by
//! `scripts/answers-of-postgres`. Where both differ that is listed, with why, and held to: docs/streaming-sql.md tells it.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray, TimestampMillisecondArray, new_null_array,
};
use datafusion::arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use streamview_manager::catalog::{DataType, Source};
use streamview_manager::engines::Select;

use super::support::{NOW, batch_lines, source};
use crate::plan::{Bounds, Limits, Prepared, Purpose};
use crate::schema;

/// Expressions of one row.
const EXPRESSIONS: &str = include_str!("postgres/expressions.txt");
/// Aggregates of a window.
const AGGREGATES: &str = include_str!("postgres/aggregates.txt");
/// What differs: here, there, and why.
const DIFFERENT: &str = include_str!("postgres/different.txt");

/// What PostgreSQL says.
const ANSWERS: &str = include_str!("postgres/answers.txt");
/// The rows, as PostgreSQL's COPY reads them. The last one is of a later hour: it closes the windows before it.
const ROWS: &str = include_str!("postgres/rows.tsv");

fn t() -> Source {
    let columns = [
        ("id", "bigint"),
        ("a", "int"),
        ("b", "bigint"),
        ("d", "double"),
        ("m", "decimal(12, 2)"),
        ("s", "string"),
        ("u", "string"),
        ("f", "boolean"),
        ("ts", "timestamp(3)"),
        ("day", "date"),
    ];
    source("t", &columns, Some(("ts", 5_000)))
}

fn rows() -> RecordBatch {
    let rows: Vec<Vec<Option<&str>>> =
        ROWS.lines().map(|line| line.split('\t').map(|value| (value != "\\N").then_some(value)).collect()).collect();
    let column = |at: usize| rows.iter().map(move |row| row[at]);
    let parsed = |at: usize| column(at).map(|value| value.map(|value| value.parse::<i64>().unwrap()));
    let schema = schema::of_source(&t());
    let cents = column(4).map(|value| value.map(|value| value.replace('.', "").parse::<i128>().unwrap()));
    let moment = |value: &str| string_to_timestamp_nanos(value).unwrap() / 1_000_000;
    let times: Vec<i64> = column(8).map(|value| moment(value.unwrap())).collect();
    let day = |value: &str| i32::try_from(moment(&format!("{value} 00:00:00")) / 86_400_000).unwrap();
    let small = parsed(1).map(|value| value.map(|value| i32::try_from(value).unwrap()));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter(parsed(0))),
        Arc::new(Int32Array::from_iter(small)),
        Arc::new(Int64Array::from_iter(parsed(2))),
        Arc::new(Float64Array::from_iter(column(3).map(|value| value.map(|value| value.parse::<f64>().unwrap())))),
        Arc::new(Decimal128Array::from_iter(cents).with_precision_and_scale(12, 2).unwrap()),
        Arc::new(StringArray::from_iter(column(5))),
        Arc::new(StringArray::from_iter(column(6))),
        Arc::new(BooleanArray::from_iter(column(7).map(|value| value.map(|value| value == "t")))),
        Arc::new(TimestampMillisecondArray::from_iter_values(times.iter().copied())),
        Arc::new(Date32Array::from_iter(column(9).map(|value| value.map(day)))),
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|_| 0))),
        Arc::new(Int64Array::from_iter(parsed(0))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|_| "key"))),
        Arc::new(TimestampMillisecondArray::from_iter_values(times.iter().copied())),
        new_null_array(schema.field(14).data_type(), rows.len()),
    ];
    RecordBatch::try_new(schema, columns).unwrap()
}

/// The values of the first rows, or of the windows that they are in, and whether they are decimals.
async fn here(sql: &str) -> Result<(Vec<String>, bool), String> {
    let select = Select { sql: sql.to_owned(), sources: vec![t()] };
    let prepared = Prepared::new(&select, Purpose::AdHoc, &Limits::default()).map_err(|refusal| refusal.message)?;
    let mut execution = prepared.start(Bounds::default()).map_err(|failure| failure.message)?;
    execution.assign(0, &[0]);
    let pushed = execution.push(0, rows(), NOW).await.map_err(|failure| failure.message)?;
    if let Some(refused) = pushed.refused.first() {
        return Err(format!("{refused:?}"));
    }
    let mut out = pushed.out;
    out.extend(execution.close(NOW).await.map_err(|failure| failure.message)?);
    let lines = out.iter().flat_map(|output| batch_lines(&output.rows));
    let mut lines: Vec<(String, String)> =
        lines.filter_map(|line| line.split_once('|').map(|(key, value)| (key.to_owned(), value.to_owned()))).collect();
    lines.retain(|(key, _)| key != "25");
    lines.sort_by_key(|(key, _)| (key.len(), key.clone()));
    let is_decimal = matches!(prepared.columns()[1].data_type, DataType::Decimal { .. });
    Ok((lines.into_iter().map(|(_, value)| value).collect(), is_decimal))
}

fn there(answer: &str) -> Result<Vec<String>, String> {
    match answer.strip_prefix("ERROR:") {
        Some(why) => Err(why.trim().to_owned()),
        None => Ok(answer.split('¦').map(str::to_owned).collect()),
    }
}

/// Both write the same value in their own ways: `t` and `true`, `1.50` and `1.5`, `T` within a timestamp. Doubles may differ in
/// their last digits, decimals in none.
fn same(one: &str, other: &str, is_decimal: bool) -> bool {
    let plain = |text: &str| match text {
        "true" => "t".to_owned(),
        "false" => "f".to_owned(),
        text if text.len() > 10 && text.as_bytes()[4] == b'-' && text.as_bytes()[10] == b'T' => {
            let text = text.trim_end_matches('Z').replace('T', " ");
            if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
        }
        text => text.to_owned(),
    };
    let (one, other) = (plain(one), plain(other));
    if is_decimal {
        let digits = |text: &str| match text.contains('.') {
            true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
            false => text.to_owned(),
        };
        return digits(&one) == digits(&other);
    }
    let is_close = |one: f64, other: f64| (one - other).abs() <= 1e-9 * one.abs().max(other.abs());
    one == other
        || matches!((one.parse::<f64>(), other.parse::<f64>()), (Ok(one), Ok(other)) if is_close(one, other) || one.is_nan() && other.is_nan())
}

fn differs(here: &Result<(Vec<String>, bool), String>, there: &Result<Vec<String>, String>) -> Option<String> {
    let (here, is_decimal, there) = match (here, there) {
        (Ok((here, is_decimal)), Ok(there)) => (here, *is_decimal, there),
        (Err(here), Ok(_)) => return Some(format!("refused here: {here}")),
        (Ok((here, _)), Err(there)) => return Some(format!("refused there: {there}; here {:?}", here.first())),
        (Err(_), Err(_)) => return None,
    };
    if here.len() != there.len() {
        return Some(format!("{} rows here, {} there", here.len(), there.len()));
    }
    let unlike = here.iter().zip(there).find(|(here, there)| !same(here, there, is_decimal));
    unlike.map(|(here, there)| format!("{here:?} here, {there:?} there"))
}

fn lines(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

const WINDOW: &str = "tumble(ts, INTERVAL '1 minute')";

#[tokio::test]
async fn expressions_and_aggregates_give_what_postgresql_gives() {
    let (mut wrong, mut compared) = (Vec::new(), 0);
    let known: Vec<&str> = lines(DIFFERENT).map(|line| line.split(" | ").next().unwrap()).collect();
    let expressions = lines(EXPRESSIONS).map(|text| (text, format!("SELECT id, {text} AS x FROM t")));
    let aggregates =
        lines(AGGREGATES).map(|text| (text, format!("SELECT {WINDOW} AS w, {text} AS x FROM t GROUP BY {WINDOW}")));
    let mut answers = lines(ANSWERS).skip(1);
    for (text, sql) in expressions.chain(aggregates) {
        compared += 1;
        match (differs(&here(&sql).await, &there(answers.next().unwrap())), known.contains(&text)) {
            (Some(how), false) => wrong.push(format!("{text}: {how}")),
            (None, true) => wrong.push(format!("{text}: does not differ any more")),
            _ => {}
        }
    }
    assert!(compared >= 200 && answers.next().is_none(), "{compared}");
    assert!(wrong.is_empty(), "{} of {compared}:\n{}", wrong.len(), wrong.join("\n"));
}
