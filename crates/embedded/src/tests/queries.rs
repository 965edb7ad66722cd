//! Queries without a window.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::support::*;
use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
use streamview_manager::catalog::{KeyFormat, Source, Table};
use streamview_manager::engines::{Refusal, Select};

use crate::decode::Decoder;
use crate::log::{Batch, Place};
use crate::plan::{Bounds, Limits, Prepared, Purpose};
use crate::run::Failure;

#[tokio::test]
async fn a_filtered_row_is_out_within_100_ms() {
    let mut query = started("select id, upper(customer) as name from orders where quantity > 1 and customer like 'a%'");
    let mut fastest = Duration::MAX;
    for offset in 0..20 {
        let before = Instant::now();
        let out = all(&mut query, &[order(offset, "anna", 2, T)]).await;
        fastest = fastest.min(before.elapsed());
        assert_eq!(out, [format!("{offset}|ANNA")]);
    }
    // The fastest: this machine may have much else to do.
    assert!(fastest < Duration::from_millis(100), "{fastest:?}");
    assert!(all(&mut query, &[order(20, "bert", 2, T), order(21, "anna", 1, T)]).await.is_empty());
}

#[tokio::test]
async fn a_second_batch_never_shows_rows_of_the_first() {
    for (sql, expected) in [
        (
            "select o.id, c.city from orders o join customers c on o.customer = c.customer",
            ["1|Ulm", "3|Ulm"].as_slice(),
        ),
        (
            "select o.id, c.city from orders o left join customers c on o.customer = c.customer",
            &["1|Ulm", "2|null", "3|Ulm"],
        ),
        (
            "select o.id, c.city from customers c right join orders o on o.customer = c.customer",
            &["1|Ulm", "2|null", "3|Ulm"],
        ),
        ("select o.id, c.city from customers c join orders o on o.customer = c.customer", &["1|Ulm", "3|Ulm"]),
    ] {
        let mut query = started_with(sql, &[("anna", "Ulm"), ("carl", "Bonn")]);
        let mut found = all(&mut query, &[order(1, "anna", 1, T)]).await;
        found.extend(all(&mut query, &[order(2, "bert", 1, T)]).await);
        found.extend(all(&mut query, &[order(3, "anna", 1, T)]).await);
        assert_eq!(found, expected, "{sql}");
    }
}

#[tokio::test]
async fn union_all_shows_rows_of_each_topic_as_they_come() {
    let mut query = started("select id, 'order' as kind from orders union all select id, 'refund' from refunds");
    let mut found = all(&mut query, &[order(1, "a", 1, T)]).await;
    found.extend(lines(&query.push(1, rows(&[order(7, "a", 1, T)]), NOW).await.unwrap().out));
    found.extend(all(&mut query, &[order(2, "a", 1, T)]).await);
    assert_eq!(found, ["1|order", "7|refund", "2|order"]);
}

#[tokio::test]
async fn a_topic_read_twice_gives_its_rows_to_both() {
    let sql = "select id from orders where quantity > 1 union all select -id from orders where quantity > 2";
    let mut query = started(sql);
    assert_eq!(all(&mut query, &[order(1, "a", 2, T), order(2, "a", 3, T)]).await, ["1", "2", "-2"]);
}

#[tokio::test]
async fn a_row_that_fails_is_refused_alone() {
    let mut query = started("select id, 10 / (quantity - 5) as x, cast(customer as int) as n from orders");
    let batch: Vec<_> = (0..100)
        .map(|offset| match offset {
            17 => order(offset, "1", 5, T),
            63 => order(offset, "eins", 1, T),
            _ => order(offset, "1", 6, T),
        })
        .collect();
    let pushed = query.push(0, rows(&batch), NOW).await.unwrap();
    let refused: Vec<_> = pushed.refused.iter().map(|refused| (refused.offset, refused.why.as_str())).collect();
    assert_eq!(refused.iter().map(|refused| refused.0).collect::<Vec<_>>(), [17, 63], "{refused:?}");
    assert!(refused[0].1.contains("Divide by zero"), "{refused:?}");
    assert!(refused[1].1.contains("Cannot cast string 'eins'"), "{refused:?}");
    let expected: Vec<_> = (0..100).filter(|n| ![17, 63].contains(n)).map(|n| format!("{n}|10|1")).collect();
    assert_eq!(lines(&pushed.out), expected);
}

#[tokio::test]
async fn a_limit_ends_after_so_many_rows() {
    let mut query = started("select id from orders limit 3");
    assert_eq!(all(&mut query, &[order(1, "a", 1, T), order(2, "a", 1, T)]).await, ["1", "2"]);
    assert!(!query.is_done());
    assert_eq!(all(&mut query, &[order(3, "a", 1, T), order(4, "a", 1, T)]).await, ["3"]);
    assert!(query.is_done());
}

#[tokio::test]
async fn what_a_record_has_beside_its_value_is_there_by_name_only() {
    let names = |sql| prepared(sql).columns().iter().map(|column| column.name.clone()).collect::<Vec<_>>();
    let own = ["id", "customer", "amount", "quantity", "status", "ts"];
    assert_eq!(names("select * from orders"), own);
    assert_eq!(names("select *, _offset from orders"), [own.as_slice(), &["_offset"]].concat());
    assert_eq!(names("select o.*, _key from orders o"), [own.as_slice(), &["_key"]].concat());
    assert_eq!(names("select * from (select id, _offset from orders)"), ["id", "_offset"]);
    let mut query = started("select _partition, _offset, _key, _timestamp, _headers from orders where _offset > 1");
    let out = all(&mut query, &[order(1, "a", 1, T), order(2, "a", 1, T)]).await;
    assert_eq!(out, ["0|2|key-2|2027-01-15T07:00:00|null"]);
}

/// Topics whose records have fields that are called like what each record has beside its value, and the table `customers`.
fn logs() -> Vec<Source> {
    let logs = [("id", "bigint"), ("_key", "string"), ("_offset", "bigint"), ("_timestamp", "timestamp(3)")];
    let copies = [("_partition", "int"), ("_offset", "bigint"), ("_headers", "string")];
    vec![source("logs", &logs, None), source("copies", &copies, None), customers()]
}

fn over_logs(sql: &str, purpose: Purpose) -> Result<Prepared, Refusal> {
    Prepared::new(&Select { sql: sql.to_owned(), sources: logs() }, purpose, &Limits::default())
}

/// Records with these values, from offset 40 of partition 3 on.
fn decoded(of: &Source, values: &[&str]) -> RecordBatch {
    let mut batch = Batch::default();
    for (offset, value) in (40..).zip(values) {
        let place = Place { topic: 0, partition: 3 };
        batch.push((place, offset), Some(T), (Some(b"k"), Some(value.as_bytes())), std::iter::empty());
    }
    let mut decoder = Decoder::new(of, &[]);
    for record in batch.records() {
        decoder.add(&record, record.value.unwrap()).unwrap();
    }
    decoder.take().unwrap()
}

#[tokio::test]
async fn a_field_that_is_called_like_what_a_record_has_beside_its_value_goes_first() {
    let values = [r#"{"id":1,"_key":"a","_offset":7,"_timestamp":"2027-01-15T07:00:01Z"}"#, r#"{"id":2,"_offset":8}"#];
    let (one, two) = ("1|a|7|2027-01-15T07:00:01", "2|null|8|null");
    for (sql, expected) in [
        ("select * from logs", vec![(one.to_owned(), 40_i64), (two.to_owned(), 41)]),
        ("select *, _partition from logs", vec![(format!("{one}|3"), 40), (format!("{two}|3"), 41)]),
        (
            "select * exclude (_key, _timestamp), _partition as p from logs where _offset > 7",
            vec![("2|8|3".to_owned(), 41)],
        ),
        ("select l._key, l._partition from logs l where _key = 'a'", vec![("a|3".to_owned(), 40)]),
        (
            "with l as (select *, _partition from logs) select * from l where _offset = 8",
            vec![(format!("{two}|3"), 41)],
        ),
        (
            "select id from logs where _offset = 7 union all select -_offset from logs where _key = 'a'",
            vec![("1".to_owned(), 40), ("-7".to_owned(), 40)],
        ),
        (
            "select l.*, c.city from logs l left join customers c on l._key = c.customer",
            vec![(format!("{one}|Ulm"), 40), (format!("{two}|null"), 41)],
        ),
        (
            "select *, _partition from logs l join customers c on l._key = c.customer",
            vec![(format!("{one}|a|Ulm|1|3"), 40)],
        ),
    ] {
        let (expected, offsets): (Vec<String>, Vec<i64>) = expected.into_iter().unzip();
        for purpose in [Purpose::AdHoc, Purpose::Persistent] {
            let of = over_logs(sql, purpose).unwrap_or_else(|refusal| panic!("{sql}: {refusal:?}"));
            let mut query = of.start_with(Bounds::default(), &in_customers(&[("a", "Ulm")])).unwrap();
            let out = query.push(0, decoded(&logs()[0], &values), NOW).await.unwrap().out;
            assert_eq!(lines(&out), expected, "{sql}");
            if purpose == Purpose::Persistent {
                let origins: Vec<_> = out.iter().flat_map(|out| out.origins.clone()).collect();
                assert_eq!(origins, offsets.iter().map(|offset| (3, *offset)).collect::<Vec<_>>(), "{sql}");
            }
        }
    }
}

#[tokio::test]
async fn positions_are_those_of_the_record_whatever_its_fields_say() {
    let of = over_logs("select * from copies", Purpose::Persistent).unwrap();
    let mut query = of.start(Bounds::default()).unwrap();
    let copy = decoded(&logs()[1], &[r#"{"_partition":9,"_offset":100,"_headers":"none"}"#]);
    let out = query.push(1, copy, NOW).await.unwrap().out;
    assert_eq!((lines(&out), out[0].origins.clone()), (vec!["9|100|none".to_owned()], vec![(3, 40)]));

    let sql = "select _key, _partition, count(*) as n, max(_offset) as o from logs \
               group by _key, _partition, tumble(_timestamp, interval '1 minute')";
    let mut query = over_logs(sql, Purpose::Persistent).unwrap().start(Bounds::default()).unwrap();
    let at = |time: &str| format!(r#"{{"_key":"a","_offset":7,"_timestamp":"2027-01-15T{time}Z"}}"#);
    let rows = decoded(&logs()[0], &[&at("07:00:01"), &at("07:02:10")]);
    query.push(0, rows, NOW).await.unwrap();
    assert_eq!(lines(&query.close(NOW).await.unwrap()), ["a|3|1|7"]);
    assert_eq!(query.held_from(), [((0, 3), 41)].into());
}

#[test]
fn what_hides_behind_a_field_is_named_by_nobody() {
    for purpose in [Purpose::AdHoc, Purpose::Persistent] {
        let refusal = over_logs("select *, _key from logs", purpose).map(|_| ()).unwrap_err();
        assert_eq!(refusal.code, "duplicate_column", "{refusal:?}");
        assert!(refusal.message.contains("`_key`"), "{refusal:?}");
        let refusal = over_logs("select x_ke, _partition from logs", purpose).map(|_| ()).unwrap_err();
        assert_eq!(refusal.code, "not_found", "{refusal:?}");
        assert!(!refusal.message.contains(char::is_control), "{refusal:?}");
    }
}

#[tokio::test]
async fn what_a_topic_hides_is_not_left_out_of_a_table() {
    let table = Some(Table { key: vec!["who".to_owned()], key_format: KeyFormat::Text });
    let people = Source { table, ..source("people", &[("who", "string"), ("_key", "string")], None) };
    let column = |value: &str| -> ArrayRef { Arc::new(StringArray::from(vec![value])) };
    let columns = vec![column("a"), column("theirs")];
    let one = RecordBatch::try_new(crate::schema::of_table(&people), columns).unwrap();
    let tables = BTreeMap::from([(1, vec![one])]);
    let whole = "1|a|0.01|1|odd|2027-01-15T07:00:00|a|theirs";
    for (sql, expected) in [
        (
            "select *, o._offset, o._key as own from orders o join people p on o.customer = p.who",
            format!("{whole}|1|key-1"),
        ),
        ("select * from orders o join people p on o.customer = p.who where p._key = 'theirs'", whole.to_owned()),
        ("select * from (orders join people on customer = who) where _offset = 1", whole.to_owned()),
    ] {
        for purpose in [Purpose::AdHoc, Purpose::Persistent] {
            let select = Select { sql: sql.to_owned(), sources: vec![orders(), people.clone()] };
            let of = Prepared::new(&select, purpose, &Limits::default());
            let of = of.unwrap_or_else(|refusal| panic!("{sql}: {refusal:?}"));
            let mut query = of.start_with(Bounds::default(), &tables).unwrap();
            assert_eq!(all(&mut query, &[order(1, "a", 1, T)]).await, [expected.as_str()], "{sql}");
        }
    }
}

#[test]
fn only_columns_that_are_read_need_be_decoded() {
    let prepared = prepared(
        "select count(*) as n, customer from orders where quantity > 1 group by customer, tumble(ts, interval '1 minute')",
    );
    let schema = crate::schema::of_source(&orders());
    let needed: Vec<_> = schema
        .fields()
        .iter()
        .zip(prepared.needed(0))
        .filter(|(_, needed)| **needed)
        .map(|(field, _)| field.name())
        .collect();
    assert_eq!(needed, ["customer", "quantity", "ts"]);
}

#[test]
fn columns_are_told_in_the_catalogues_types() {
    let sql = "select id, amount * 2 as double_amount, amount > 1 as big, date_trunc('day', ts) as day, count(*) over () from orders";
    assert_eq!(prepared_for(sql, Purpose::AdHoc).map(|_| ()).unwrap_err().code, "unsupported_window");
    let sql = "select id, sum(amount) as s, avg(quantity) as a, approx_distinct(customer) as d from orders group by id, date_trunc('minute', ts)";
    let types: Vec<_> = prepared(sql).columns().iter().map(|column| column.data_type.to_string()).collect();
    assert_eq!(types, ["bigint", "decimal(20, 2)", "double", "bigint"]);
}

#[tokio::test]
async fn decimals_and_64_bits_stay_exact() {
    let mut query = started("select amount, id * 1000000000000000 + 1 as big from orders");
    assert_eq!(all(&mut query, &[order(9, "a", 123_456, T)]).await, ["1234.56|9000000000000001"]);
}

#[tokio::test]
async fn a_panic_inside_ends_the_query_alone() {
    let mut query = started("select id, panics_for_tests(quantity) as p from orders");
    assert_eq!(all(&mut query, &[order(1, "a", 1, T)]).await, ["1|1"]);
    let failure = query.push(0, rows(&[order(2, "a", 13, T)]), NOW).await.unwrap_err();
    assert_eq!(failure.code, "panicked", "{failure}");
    assert!(failure.message.contains("thirteen"), "{failure}");
    let again: Failure = query.push(0, rows(&[order(3, "a", 1, T)]), NOW).await.unwrap_err();
    assert_eq!(again, failure);
    let mut other = started("select id from orders");
    assert_eq!(all(&mut other, &[order(1, "a", 1, T)]).await, ["1"]);
}

#[tokio::test]
async fn a_dropped_query_frees_pool_and_tasks() {
    let sql = "select customer, count(*) as n from (select * from orders union all select * from refunds) \
               group by customer, tumble(ts, interval '1 minute')";
    let mut query = prepared(sql).start(Bounds::default()).unwrap();
    let batch: Vec<_> = (0..5_000).map(|n| order(n, &format!("customer-{n}"), 1, T)).collect();
    assert!(all(&mut query, &batch).await.is_empty());
    let pool = query.pool();
    assert!(pool.reserved() > 100_000, "{}", pool.reserved());
    drop(query);
    assert_eq!(pool.reserved(), 0);
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
}

#[tokio::test]
async fn a_table_that_fails_is_the_querys_fault_and_no_rows() {
    let sql = "select o.id, c.city from orders o join customers c on o.customer = c.customer \
               and o.quantity = cast(c.city as int)";
    let mut query = started_with(sql, &[("anna", "Ulm")]);
    let failure = query.push(0, rows(&[order(1, "a", 1, T)]), NOW).await.unwrap_err();
    assert!(failure.code == "failed" && failure.message.contains("Cannot cast string 'Ulm'"), "{failure:?}");
}

#[tokio::test]
async fn rows_meet_a_table_as_of_its_last_refresh() {
    let sql = "select o.id, c.city from orders o left join customers c on o.customer = c.customer";
    let of = prepared(sql);
    let mut query = of.start_with(Bounds::default(), &in_customers(&[("anna", "Ulm")])).unwrap();
    assert_eq!(all(&mut query, &[order(1, "anna", 1, T), order(2, "bert", 1, T)]).await, ["1|Ulm", "2|null"]);
    query.refresh(&of, &in_customers(&[("anna", "Bonn"), ("bert", "Ulm")])).unwrap();
    assert_eq!(all(&mut query, &[order(3, "anna", 1, T), order(4, "bert", 1, T)]).await, ["3|Bonn", "4|Ulm"]);
    query.refresh(&of, &in_customers(&[])).unwrap();
    assert_eq!(all(&mut query, &[order(5, "anna", 1, T)]).await, ["5|null"]);
}

#[tokio::test]
async fn a_refresh_leaves_open_windows_as_they_are() {
    let sql = "select c.city, count(*) as n from orders o join customers c on o.customer = c.customer \
               group by c.city, tumble(o.ts, interval '1 minute') order by c.city limit 10";
    let of = prepared(sql);
    let mut query = of.start_with(Bounds::default(), &in_customers(&[("anna", "Ulm"), ("bert", "Ulm")])).unwrap();
    assert!(all(&mut query, &[order(1, "anna", 1, T), order(2, "bert", 1, T)]).await.is_empty());
    query.refresh(&of, &in_customers(&[("anna", "Bonn")])).unwrap();
    let rest = [order(3, "anna", 1, T), order(4, "bert", 1, T), order(5, "anna", 1, T + 65_001)];
    assert_eq!(all(&mut query, &rest).await, ["Bonn|1", "Ulm|2"]);
}

#[tokio::test]
async fn rows_of_a_deployed_query_say_which_record_they_are_made_of() {
    for (sql, expected) in [
        ("select id from orders where quantity > 1", vec![("1", (0, 1)), ("2", (0, 2))]),
        ("select * from (select id, customer from orders) where id > 1", vec![("2|b", (0, 2)), ("3|a", (0, 3))]),
        (
            "select id from orders where quantity > 1 union all select -id from orders where quantity > 2",
            vec![("1", (0, 1)), ("2", (0, 2)), ("-2", (0, 2))],
        ),
        (
            "select o.id, c.city from orders o left join customers c on o.customer = c.customer",
            vec![("1|Ulm", (0, 1)), ("2|null", (0, 2)), ("3|Ulm", (0, 3))],
        ),
        ("select x.id, _offset from orders x join customers using (customer)", vec![("1|1", (0, 1)), ("3|3", (0, 3))]),
        ("with o as (select id as i from orders) select i + 1 as i from o where i = 3", vec![("4", (0, 3))]),
    ] {
        let of = prepared_for(sql, Purpose::Persistent).unwrap();
        let mut query = of.start_with(Bounds::default(), &in_customers(&[("a", "Ulm")])).unwrap();
        let batch = [order(1, "a", 2, T), order(2, "b", 3, T), order(3, "a", 1, T)];
        let out = query.push(0, rows(&batch), NOW).await.unwrap().out;
        let found: Vec<_> =
            out.iter().flat_map(|out| batch_lines(&out.rows).into_iter().zip(out.origins.clone())).collect();
        let found: Vec<_> = found.iter().map(|(line, origin)| (line.as_str(), *origin)).collect();
        assert_eq!(found, expected, "{sql}");
    }
}

#[test]
fn a_judgement_takes_milliseconds() {
    let sql = "select customer, count(*) as n, sum(amount) as s from orders where quantity > 1 and status like 'a%' \
               group by customer, tumble(ts, interval '1 minute')";
    // The fastest, likewise.
    let timed = |_| {
        let before = Instant::now();
        prepared(sql);
        before.elapsed()
    };
    let fastest = (0..5).map(timed).min().unwrap();
    assert!(fastest < Duration::from_secs(1), "{fastest:?}");
}

#[tokio::test]
async fn a_column_is_found_whatever_its_case() {
    let of = source("clicks", &[("userId", "string"), ("x", "int"), ("X", "int")], None);
    let names = |sql: &str| {
        let select = Select { sql: sql.to_owned(), sources: vec![of.clone()] };
        let prepared = Prepared::new(&select, Purpose::Persistent, &Limits::default());
        prepared.map(|prepared| prepared.columns().iter().map(|column| column.name.clone()).collect::<Vec<_>>())
    };
    for sql in [
        "select userId from clicks",
        "select c.USERID from Clicks c where userid = 'a'",
        "select \"userId\" from clicks",
        "select userId from (select userId from clicks)",
        "select userId from (select lower(userId) as userId from clicks) where userId > 'a'",
    ] {
        assert_eq!(names(sql).as_deref(), Ok(["userId".to_owned()].as_slice()), "{sql}");
    }
    assert_eq!(names("select X from clicks").as_deref(), Ok(["X".to_owned()].as_slice()));
    assert_eq!(
        names("select COUNT(*) as orderCount from clicks group by TUMBLE(_TIMESTAMP, interval '1 minute')").as_deref(),
        Ok(["orderCount".to_owned()].as_slice())
    );
    assert_eq!(
        names("select userid from (select x as userid from clicks)").as_deref(),
        Ok(["userid".to_owned()].as_slice())
    );
    let refusal = names("select \"userid\" from clicks").unwrap_err();
    assert_eq!(refusal.code, "not_found");
    assert!(!refusal.message.contains("datafusion"), "{refusal:?}");
}

fn names_of(sql: &str) -> Vec<String> {
    prepared(sql).columns().iter().map(|column| column.name.clone()).collect()
}

#[test]
fn what_a_statement_leaves_out_is_left_out_beside_what_is_hidden() {
    let all = ["id", "customer", "amount", "quantity", "status", "ts"];
    let without = |out: &[&str]| all.iter().filter(|name| !out.contains(name)).map(|name| (*name).to_owned()).collect();
    let mut some: Vec<String> = without(&["customer", "amount"]);
    assert_eq!(names_of("select * exclude (customer, amount) from orders"), some);
    some.push("_offset".to_owned());
    for sql in [
        "select * exclude (customer, amount), _offset from orders",
        "select * exclude (customer, amount, _key), _offset from orders",
        "select * except (customer, amount), _offset from orders",
        "select o.* exclude (customer, amount), o._offset from orders o",
        "select orders.* exclude (customer, amount), _offset from orders",
        "select O.* exclude (customer, amount), _offset from orders as O",
        "select * exclude (city, level, customer, amount) from (select o.*, c.city, c.level, o._offset from orders o \
         join customers c on o.customer = c.customer) as x",
    ] {
        assert_eq!(names_of(sql), some, "{sql}");
    }
    let mut one: Vec<String> = without(&["customer"]);
    one.push("_offset".to_owned());
    assert_eq!(names_of("select * exclude customer, _offset from orders"), one);
    let join = "from orders o join customers c on o.customer = c.customer";
    assert_eq!(names_of(&format!("select o._offset, c.* {join}")), ["_offset", "customer", "city", "level"]);
    assert_eq!(names_of(&format!("select o._offset, c.* exclude (level) {join}")), ["_offset", "customer", "city"]);
    let mut both: Vec<String> = without(&["customer"]);
    both.extend(["customer", "city", "_partition"].map(str::to_owned));
    let sql = "select o.* exclude customer, c.* exclude level, _partition from (orders o join customers c on o.customer = c.customer)";
    assert_eq!(names_of(sql), both);
    // What would be read as something else, or not at all, is refused.
    for sql in [
        "select * exclude (nobody), _offset from orders",
        "select * rename (customer as x), _offset from orders",
        "select * ilike 'a%', _offset from orders",
    ] {
        assert!(prepared_for(sql, Purpose::AdHoc).is_err(), "{sql}: {:?}", names_of(sql));
    }
}
