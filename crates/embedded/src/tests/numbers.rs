//! Numbers are right, or their row or group is left out by name.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, Decimal128Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
    new_null_array,
};
use streamview_manager::catalog::Source;
use streamview_manager::engines::Select;

use super::support::{NOW, T, batch_lines, source};
use crate::plan::{Bounds, Limits, Prepared, Purpose};
use crate::schema;

/// A row of `n`: `a` int, `b` bigint, `m` decimal(38, 2) in hundredths, the group, and the time.
type Row = (i32, i64, i128, &'static str, i64);

const MAX: i64 = i64::MAX;
const NINES: i128 = 10_i128.pow(38) - 1;

fn n() -> Source {
    let columns = [
        ("a", "int"),
        ("b", "bigint"),
        ("m", "decimal(38, 2)"),
        ("k", "string"),
        ("ts", "timestamp(3)"),
        ("d", "double"),
    ];
    source("n", &columns, Some(("ts", 0)))
}

fn batch(rows: &[Row]) -> RecordBatch {
    let schema = schema::of_source(&n());
    let m = Decimal128Array::from_iter_values(rows.iter().map(|row| row.2)).with_precision_and_scale(38, 2).unwrap();
    let offsets = 0..i64::try_from(rows.len()).unwrap();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.0))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1))),
        Arc::new(m),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.3))),
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.4))),
        Arc::new(datafusion::arrow::array::Float64Array::from_iter_values(rows.iter().map(|row| f64::from(row.0)))),
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|_| 0))),
        Arc::new(Int64Array::from_iter_values(offsets)),
        new_null_array(schema.field(8).data_type(), rows.len()),
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.4))),
        new_null_array(schema.field(10).data_type(), rows.len()),
    ];
    RecordBatch::try_new(schema, columns).unwrap()
}

fn prepared(sql: &str) -> Prepared {
    let select = Select { sql: sql.to_owned(), sources: vec![n()] };
    Prepared::new(&select, Purpose::Persistent, &Limits::default()).unwrap_or_else(|why| panic!("{sql}: {why:?}"))
}

/// What came out, and why which offsets did not.
async fn rows_of(sql: &str, rows: &[Row]) -> (Vec<String>, Vec<(i64, String)>) {
    let mut query = prepared(sql).start(Bounds::default()).unwrap();
    let pushed = query.push(0, batch(rows), NOW).await.unwrap();
    let out = pushed.out.iter().flat_map(|output| batch_lines(&output.rows)).collect();
    (out, pushed.refused.into_iter().map(|refused| (refused.offset, refused.why)).collect())
}

/// The rows of the first window, pushed in one batch or one by one, and why groups are missing.
async fn window_of(expr: &str, rows: &[Row], one_by_one: bool) -> (Vec<String>, Vec<String>) {
    let window = "tumble(ts, interval '1 minute')";
    let sql = format!("select {window} as w, k, {expr} as x from n group by {window}, k order by k limit 100");
    let mut query = prepared(&sql).start(Bounds::default()).unwrap();
    query.assign(0, &[0]);
    let over = [(0, 0, 0, "over", T + 120_000)];
    let rows: Vec<Row> = rows.iter().chain(&over).copied().collect();
    for rows in rows.chunks(if one_by_one { 1 } else { rows.len() }) {
        let pushed = query.push(0, batch(rows), NOW).await.unwrap();
        assert!(pushed.refused.is_empty(), "{expr}: {pushed:?}");
    }
    let out = query.close(NOW).await.unwrap();
    let lines = out.iter().flat_map(|output| batch_lines(&output.rows));
    let lines = lines.map(|line| line.split_once('|').unwrap().1.to_owned()).collect();
    (lines, query.take_failed_groups().into_iter().map(|group| group.why).collect())
}

#[tokio::test]
async fn a_result_that_does_not_fit_refuses_its_row_alone() {
    let int = i32::MAX;
    for (expr, bad, good) in [
        ("a + a", (int, 0, 0), "2"),
        ("a * a", (50_000, 0, 0), "1"),
        ("a * a * a", (2_000, 0, 0), "1"),
        ("a + b", (1, MAX, 0), "2"),
        ("b * b", (1, 5_000_000_000, 0), "1"),
        ("b - 2 + b", (1, -MAX, 0), "0"),
        ("-b", (1, i64::MIN, 0), "-1"),
        ("-a", (i32::MIN, 1, 0), "-1"),
        ("abs(b)", (1, i64::MIN, 0), "1"),
        ("abs(a)", (i32::MIN, 1, 0), "1"),
        ("cast(b as int)", (1, 1 << 31, 0), "1"),
        ("cast(m as bigint)", (1, 1, NINES), "1"),
        ("cast(cast(b as double) * 10 as bigint)", (1, MAX, 0), "10"),
        ("m * 2", (1, 1, NINES), "2.00"),
        ("m + m", (1, 1, NINES), "2.00"),
        ("-m - m", (1, 1, NINES), "-2.00"),
        ("m + 70000000000000000000000000000000000.5", (1, 1, NINES), "70000000000000000000000000000000001.50"),
        ("m * 1.5", (1, 1, NINES), "1.500"),
        ("b + case when b > 5 then b * 2 else 0 end", (1, MAX, 0), "1"),
    ] {
        let rows = [(1, 1, 100, "k", T), (bad.0, bad.1, bad.2, "k", T), (1, 1, 100, "k", T)];
        let (out, refused) = rows_of(&format!("select {expr} as x from n"), &rows).await;
        assert_eq!(out, [good, good], "{expr}");
        assert!(matches!(refused.as_slice(), [(1, why)] if !why.is_empty()), "{expr}: {refused:?}");
        // And where it is asked, and where it is summed up.
        let (out, refused) = rows_of(&format!("select a from n where {expr} is not null"), &rows).await;
        assert_eq!((out.len(), refused.len()), (2, 1), "{expr}: {refused:?}");
    }
}

#[tokio::test]
async fn a_result_that_the_catalogues_type_does_not_hold_is_refused_and_never_null() {
    for (expr, bad, good) in [
        ("cast(b as bigint unsigned) + cast(b as bigint unsigned)", (1, MAX, 0), "2"),
        ("cast(m as decimal(60, 2)) + cast(m as decimal(60, 2))", (1, 1, NINES), "2.00"),
    ] {
        let rows = [(1, 1, 100, "k", T), (bad.0, bad.1, bad.2, "k", T), (1, 1, 100, "k", T)];
        let (out, refused) = rows_of(&format!("select {expr} as x from n"), &rows).await;
        assert_eq!(out, [good, good], "{expr}");
        assert!(matches!(refused.as_slice(), [(1, why)] if !why.is_empty()), "{expr}: {refused:?}");
    }
    let rows = [(1, MAX, 0, "bad", T), (1, 1, 0, "good", T)];
    let (out, failed) = window_of("max(cast(b as bigint unsigned)) + cast(1 as bigint unsigned)", &rows, false).await;
    assert_eq!((out, failed.len()), (vec!["good|2".to_owned()], 1));
}

#[tokio::test]
async fn constants_that_do_not_fit_are_not_wrapped_around_when_they_are_planned() {
    for expr in ["9223372036854775807 + 1", "b * 0 + 4611686018427387904 * 2", "-9223372036854775807 - 2"] {
        let (out, refused) = rows_of(&format!("select {expr} as x from n"), &[(1, 1, 1, "k", T)]).await;
        assert_eq!((out.len(), refused.len()), (0, 1), "{expr}: {out:?}");
    }
}

#[tokio::test]
async fn what_is_added_up_is_refused_before_it_is_added() {
    let window = "tumble(ts, interval '1 minute')";
    let sql =
        format!("select {window} as w, sum(a * a) as x, max(a) as y from n group by {window} having sum(a + 1) > 0");
    let mut query = prepared(&sql).start(Bounds::default()).unwrap();
    query.assign(0, &[0]);
    let rows = [(2, 0, 0, "k", T), (50_000, 0, 0, "k", T), (3, 0, 0, "k", T), (1, 0, 0, "k", T + 120_000)];
    let pushed = query.push(0, batch(&rows), NOW).await.unwrap();
    assert!(matches!(pushed.refused.as_slice(), [one] if one.offset == 1), "{pushed:?}");
    let out = query.close(NOW).await.unwrap();
    assert!(batch_lines(&out[0].rows)[0].ends_with("|13|3"), "{:?}", batch_lines(&out[0].rows));
}

#[tokio::test]
async fn a_sum_that_does_not_fit_is_missing_alone() {
    for one_by_one in [false, true] {
        for (expr, bad, good) in [
            ("sum(b)", [(1, MAX, 0), (1, MAX, 0), (1, MAX, 0)], "3"),
            ("sum(b)", [(1, i64::MIN, 0), (1, -1, 0), (1, 0, 0)], "3"),
            ("sum(b) filter (where b > 1)", [(1, MAX, 0), (1, MAX, 0), (1, 0, 0)], "null"),
            ("sum(distinct b)", [(1, MAX, 0), (1, MAX, 0), (1, MAX - 1, 0)], "1"),
            ("sum(m)", [(1, 0, NINES), (1, 0, NINES), (1, 0, 0)], "3.00"),
            ("sum(distinct m)", [(1, 0, NINES), (1, 0, NINES - 1), (1, 0, 0)], "1.00"),
        ] {
            let good_rows = [(1, 1, 100, "good", T), (1, 1, 100, "good", T), (1, 1, 100, "good", T)];
            let rows: Vec<Row> = bad.iter().map(|(a, b, m)| (*a, *b, *m, "bad", T)).chain(good_rows).collect();
            let (out, failed) = window_of(expr, &rows, one_by_one).await;
            assert_eq!(out, [format!("good|{good}")], "{expr}");
            assert!(matches!(failed.as_slice(), [why] if why.contains("a sum does not fit")), "{expr}: {failed:?}");
        }
    }
}

#[tokio::test]
async fn a_sum_that_fits_in_the_end_is_right_whatever_came_between() {
    let rows = [
        (i32::MAX, MAX, NINES, "k", T),
        (i32::MAX, MAX, NINES, "k", T),
        (1, -MAX, -NINES, "k", T),
        (1, -MAX, -NINES, "k", T),
        (1, 7, 7, "k", T),
    ];
    for one_by_one in [false, true] {
        for (expr, expected) in [
            ("sum(b)", "7"),
            ("sum(m)", "0.07"),
            ("sum(a)", "4294967297"),
            ("avg(m)", "0.014000"),
            ("sum(d)", "4294967297.0"),
            ("sum(distinct b)", "7"),
            ("sum(distinct a)", "2147483648"),
        ] {
            let (out, failed) = window_of(expr, &rows, one_by_one).await;
            assert_eq!((out, failed), (vec![format!("k|{expected}")], Vec::new()), "{expr}");
        }
    }
}

#[test]
fn sums_and_operators_have_the_types_and_names_that_they_had() {
    let window = "tumble(ts, interval '1 minute')";
    let sql = format!("select {window} as w, sum(a), sum(b), sum(m), sum(d), sum(a * b) from n group by {window}");
    let prepared = prepared(&sql);
    let types: Vec<String> = prepared.columns()[1..].iter().map(|column| column.data_type.to_string()).collect();
    assert_eq!(types, ["bigint", "bigint", "decimal(38, 2)", "double", "bigint"]);
    let names: Vec<&str> = prepared.columns()[1..].iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["sum(n.a)", "sum(n.b)", "sum(n.m)", "sum(n.d)", "sum(n.a * n.b)"]);
}

/// The type of an expression over one row, and its value.
async fn value_of(expr: &str, row: Row) -> (String, String) {
    let sql = format!("select {expr} as x from n");
    let of = prepared(&sql).columns()[0].data_type.to_string();
    let (out, refused) = rows_of(&sql, &[row]).await;
    (of, out.first().cloned().unwrap_or_else(|| format!("{refused:?}")))
}

#[tokio::test]
async fn a_written_number_beside_a_decimal_is_one() {
    let row = (3, 7, 123_456_789_012_345_678_901, "k", T);
    let m = "cast(m as decimal(22, 2))";
    for (expr, of, expected) in [
        ("m * 1.19", "decimal(38, 4)", "1469135789246913578.9219"),
        ("m - 0.5", "decimal(38, 2)", "1234567890123456788.51"),
        ("0.5 + m", "decimal(38, 2)", "1234567890123456789.51"),
        ("m * -1.19", "decimal(38, 4)", "-1469135789246913578.9219"),
        ("m * (1 + 0.19)", "decimal(38, 4)", "1469135789246913578.9219"),
        ("m * 1.1 * 0.1", "decimal(38, 4)", "135802467913580246.7911"),
        ("m / 0.5", "decimal(38, 6)", "2469135780246913578.020000"),
        ("m % 0.5", "decimal(2, 2)", "0.01"),
        ("m + 1234567890123456.789012345678901", "decimal(38, 15)", "1235802458013580245.799012345678901"),
        ("m * 1.50", "decimal(38, 3)", "1851851835185185183.515"),
        ("m * 1e2", "decimal(38, 2)", "123456789012345678901.00"),
        ("case when a > 5 then 0.125 else cast(m as decimal(22, 2)) end", "decimal(23, 3)", "1234567890123456789.010"),
        ("coalesce(null, cast(m as decimal(22, 2)), 0.5)", "decimal(22, 2)", "1234567890123456789.01"),
        ("greatest(cast(m as decimal(22, 2)), 0.5)", "decimal(22, 2)", "1234567890123456789.01"),
        ("nullif(cast(m as decimal(22, 2)), 0.5)", "decimal(22, 2)", "1234567890123456789.01"),
        ("round(m * 1.19, 2)", "decimal(38, 2)", "1469135789246913578.92"),
        // What is no decimal stays what it was.
        ("d * 1.19", "double", "3.57"),
        ("a * 1.5", "double", "4.5"),
        ("1.5", "double", "1.5"),
        ("d * m", "double", "3.7037036703703706e18"),
    ] {
        assert_eq!(value_of(expr, row).await, (of.to_owned(), expected.to_owned()), "{expr}");
    }
    for (expr, of, expected) in [
        ("case when a > 5 then 1 else 2.5 end", "double", "2.5"),
        ("case when a > 5 then null else m end", "decimal(38, 2)", "1234567890123456789.01"),
        ("case when a > 5 then a else b + 1 end", "bigint", "8"),
    ] {
        assert_eq!(value_of(expr, row).await, (of.to_owned(), expected.to_owned()), "{expr}");
    }
    for (condition, is_so) in [
        ("{m} > 1234567890123456789.0", true),
        ("{m} = 1234567890123456789.0", false),
        ("1234567890123456789.02 > {m}", true),
        ("{m} between 0.5 and 1234567890123456789.0", false),
        ("{m} in (0.5, 1234567890123456789.0)", false),
        ("case {m} when 0.5 then false else true end", true),
        ("m - 1234567890123456789 = 0.01", true),
        ("m - 1234567890123456789 in (0.5, 0.01)", true),
        ("m - 1234567890123456789 between 0.005 and 0.01", true),
        // A column of doubles is not made a decimal, whose digits it need not fit into.
        ("d * 1e20 > m", true),
        ("d * 1e20 > 0.5", true),
        ("m > 1e-37", true),
    ] {
        let condition = condition.replace("{m}", m);
        let (out, refused) = rows_of(&format!("select a from n where {condition}"), &[row]).await;
        assert_eq!((out.len() == 1, refused), (is_so, Vec::new()), "{condition}");
    }
}

#[tokio::test]
async fn a_written_number_beside_a_decimal_is_one_in_windows() {
    let rows = [(1, 1, 10_i128.pow(20) + 1, "k", T), (1, 1, 10_i128.pow(20) + 1, "k", T)];
    for (expr, expected) in [
        ("sum(m * 1.19)", "2380000000000000000.0238"),
        ("sum(m) * 0.5", "1000000000000000000.010"),
        ("sum(case when a = 1 then m * 0.1 else 0.0 end)", "200000000000000000.002"),
        ("max(m) filter (where m > 0.5) - 0.01", "1000000000000000000.00"),
    ] {
        let (out, failed) = window_of(expr, &rows, true).await;
        assert_eq!((out, failed), (vec![format!("k|{expected}")], Vec::new()), "{expr}");
    }
    let window = "tumble(ts, interval '1 minute')";
    let sql = format!(
        "select {window} as w, m * 1.5 as x, count(*) as c from n group by {window}, m * 1.5 having sum(m) > 0.5"
    );
    let prepared = prepared(&sql);
    assert_eq!(prepared.columns()[1].data_type.to_string(), "decimal(38, 3)");
    assert_eq!(prepared.key(), [1]);
}
