//! Windows: what closes them, what is late, what they may take.

use super::support::*;
use crate::plan::{Bounds, Purpose, Window, session};
use crate::run::Execution;

const COUNTS: &str = "select tumble(ts, interval '1 minute') as w, customer, count(*) as n, sum(quantity) as q \
                      from orders group by tumble(ts, interval '1 minute'), customer order by customer";
const MINUTE: i64 = 60_000;

async fn push(query: &mut Execution, orders: &[Order]) -> Vec<(i32, i64)> {
    let pushed = query.push(0, rows(orders), NOW).await.unwrap();
    assert!(pushed.refused.is_empty() && pushed.future.is_empty() && pushed.out.is_empty(), "{pushed:?}");
    pushed.late
}

async fn closed(query: &mut Execution) -> Vec<String> {
    lines(&query.close(NOW).await.unwrap())
}

#[tokio::test]
async fn a_window_is_emitted_once_whatever_the_order() {
    let mut query = started(COUNTS);
    query.assign(0, &[0]);
    push(&mut query, &[order(0, "a", 1, T + 5_000), order(1, "b", 2, T + 50_000), order(2, "a", 3, T + 62_000)]).await;
    assert!(closed(&mut query).await.is_empty());
    assert!(push(&mut query, &[order(3, "a", 4, T + 59_000)]).await.is_empty());
    push(&mut query, &[order(4, "c", 5, T + 65_000)]).await;
    assert_eq!(closed(&mut query).await, ["2027-01-15T07:00:00|a|2|5", "2027-01-15T07:00:00|b|1|2"]);
    assert!(closed(&mut query).await.is_empty());
    assert_eq!(query.closed_until(), Some(T + MINUTE));
    // Too late now, and no second version of the window.
    assert_eq!(push(&mut query, &[order(5, "a", 6, T + 59_000)]).await, [(0, 5)]);
    push(&mut query, &[order(6, "c", 7, T + 200_000)]).await;
    assert_eq!(closed(&mut query).await, ["2027-01-15T07:01:00|a|1|3", "2027-01-15T07:01:00|c|1|5"]);
}

#[tokio::test]
async fn a_hopping_window_holds_the_rows_of_its_panes_and_is_emitted_once() {
    let sql = "select hop(ts, interval '1 minute', interval '3 minutes') as w, count(*) as n, median(quantity) as m, \
               count(distinct customer) as c from orders group by hop(ts, interval '1 minute', interval '3 minutes')";
    let mut query = started(sql);
    push(&mut query, &[order(0, "a", 1, T + 10_000), order(1, "b", 3, T + 70_000), order(2, "a", 5, T + 130_000)])
        .await;
    let expected = ["06:58:00|1|1.0|1", "06:59:00|2|2.0|2"].map(|row| format!("2027-01-15T{row}"));
    assert_eq!(closed(&mut query).await, expected);
    assert!(closed(&mut query).await.is_empty());
    push(&mut query, &[order(3, "c", 7, T + 600_000)]).await;
    let expected = ["07:00:00|3|3.0|2", "07:01:00|2|4.0|2", "07:02:00|1|5.0|1"].map(|row| format!("2027-01-15T{row}"));
    assert_eq!(closed(&mut query).await, expected);
    assert_eq!(prepared(sql).window(), Some(Window { size_ms: 180_000, slide_ms: 60_000 }));
}

#[tokio::test]
async fn a_slow_partition_holds_the_watermark() {
    let mut query = started(COUNTS);
    query.assign(0, &[0, 1]);
    let at = |partition, offset, time| Order { partition, ..order(offset, "a", 1, time) };
    push(&mut query, &[at(0, 0, T), at(0, 1, T + 600_000)]).await;
    assert!(closed(&mut query).await.is_empty(), "partition 1 has not said anything yet");
    assert_eq!(query.watermark(), None);
    push(&mut query, &[at(1, 0, T + 1_000)]).await;
    assert!(closed(&mut query).await.is_empty());
    assert_eq!(query.watermark(), Some(T - 4_000));
    assert_eq!(query.held_from(), [((0, 0), 0), ((0, 1), 0)].into());
    // What is idle does not hold it; what speaks again does, and the watermark never goes back.
    query.idle(0, 1);
    assert_eq!(closed(&mut query).await, ["2027-01-15T07:00:00|a|2|2"]);
    assert_eq!(push(&mut query, &[at(1, 1, T + 2_000)]).await, [(1, 1)]);
    push(&mut query, &[at(0, 2, T + 700_000)]).await;
    assert!(closed(&mut query).await.is_empty());
    assert_eq!(query.watermark(), Some(T + 595_000));
    assert_eq!(query.held_from(), [((0, 0), 1)].into());
}

#[tokio::test]
async fn idle_input_closes_windows() {
    let mut query = started(COUNTS);
    query.assign(0, &[0, 1]);
    push(&mut query, &[order(0, "a", 1, T + 1_000)]).await;
    query.idle(0, 0);
    assert!(closed(&mut query).await.is_empty(), "the other partition is not known to be idle");
    query.idle(0, 1);
    // By the clock: a window is not closed before its time has passed.
    assert!(query.close(T + 61_000).await.unwrap().is_empty());
    let out = query.close(T + 65_000).await.unwrap();
    assert_eq!(lines(&out), ["2027-01-15T07:00:00|a|1|1"]);
    assert_eq!(out[0].window, Some((T, T + MINUTE)));
    assert_eq!(query.held_from(), [].into());
}

#[tokio::test]
async fn a_row_from_the_future_is_refused() {
    let mut query = started(COUNTS);
    let pushed = query.push(0, rows(&[order(0, "a", 1, T), order(1, "a", 1, NOW + 600_001)]), NOW).await.unwrap();
    assert_eq!(pushed.future, [(0, 1)]);
    assert!(closed(&mut query).await.is_empty(), "it has not moved the watermark");
    assert_eq!(query.usage().open_windows, 1);
    assert_eq!(query.held_from(), [((0, 0), 0)].into());
}

#[tokio::test]
async fn a_row_without_a_time_is_refused_alone() {
    let mut query = started(COUNTS);
    let without = Order { time: None, ..order(1, "a", 1, T) };
    let pushed = query.push(0, rows(&[order(0, "a", 1, T), without]), NOW).await.unwrap();
    assert_eq!(pushed.refused.len(), 1);
    assert_eq!((pushed.refused[0].offset, pushed.refused[0].why.as_str()), (1, "the row has no time for the window"));
    assert_eq!(query.usage().keys, 1);
}

#[tokio::test]
async fn a_time_before_all_times_is_refused_alone() {
    let mut query = started(COUNTS);
    let batch =
        [order(0, "a", 1, T), order(1, "a", 1, i64::MIN), order(2, "a", 1, i64::MAX), order(3, "a", 1, T + 600_000)];
    let pushed = query.push(0, rows(&batch), NOW).await.unwrap();
    assert_eq!(pushed.refused.iter().map(|refused| refused.offset).collect::<Vec<_>>(), [1]);
    assert_eq!(pushed.future, [(0, 2)]);
    assert_eq!(closed(&mut query).await, ["2027-01-15T07:00:00|a|1|1"]);
}

#[tokio::test]
async fn a_time_at_the_edges_of_nanoseconds_is_refused_alone() {
    const IN_A_MS: i64 = 1_000_000;
    let of_nanos = "to_timestamp_nanos(id)";
    for (by, windows) in [
        (format!("tumble({of_nanos}, interval '1 minute')"), 1),
        (format!("date_trunc('minute', {of_nanos})"), 1),
        (format!("date_bin(interval '1 minute', {of_nanos})"), 1),
        (format!("hop({of_nanos}, interval '1 minute', interval '3 minutes')"), 3),
    ] {
        let mut query = started(&format!("select count(*) as n from orders group by {by}"));
        // An offset is the time in nanoseconds.
        let at = |nanos: i64| order(nanos, "a", 1, T);
        let (first, minute) = (i64::MIN, i64::MIN + 60_000 * IN_A_MS);
        let batch = [at(first), at(minute), at(T * IN_A_MS), at(i64::MAX), at((T + 600_000) * IN_A_MS)];
        let pushed = query.push(0, rows(&batch), NOW).await.unwrap();
        let refused: Vec<_> = pushed.refused.iter().map(|refused| refused.offset).collect();
        assert_eq!((refused, pushed.future), (vec![first, minute], vec![(0, i64::MAX)]), "{by}");
        assert_eq!(closed(&mut query).await, vec!["1"; windows], "{by}");
    }
    // Where it is not too far in the future, it is counted.
    let sql = format!("select count(*) as n from orders group by tumble({of_nanos}, interval '1 minute')");
    let mut query = prepared(&sql).start(Bounds { max_ahead_ms: i64::MAX, ..Bounds::default() }).unwrap();
    let pushed = query.push(0, rows(&[order(i64::MAX, "a", 1, T)]), NOW).await.unwrap();
    assert!(pushed.refused.is_empty() && pushed.future.is_empty(), "{pushed:?}");
    assert_eq!(query.usage().open_windows, 1);
}

/// It counts in nanoseconds, and is null of what these do not reach.
#[tokio::test]
async fn a_time_that_date_bin_does_not_know_is_refused_alone() {
    let mut query = started("select count(*) as n from orders group by date_bin(interval '1 minute', ts)");
    // The year 1000, and 1678, the first that counts.
    let (before, first) = (-30_610_224_000_000, -9_214_560_000_000);
    let batch = [order(0, "a", 1, before), order(1, "a", 1, first), order(2, "a", 1, T)];
    let pushed = query.push(0, rows(&batch), NOW).await.unwrap();
    assert_eq!(pushed.refused.iter().map(|refused| refused.offset).collect::<Vec<_>>(), [0]);
    assert_eq!(closed(&mut query).await, ["1"]);
}

#[tokio::test]
async fn a_row_that_fails_is_not_in_its_window_and_the_others_are() {
    let sql = "select customer, sum(10 / quantity) as q from orders group by customer, date_trunc('minute', ts)";
    let mut query = started(sql);
    let batch = [order(0, "a", 1, T), order(1, "a", 0, T), order(2, "a", 5, T), order(3, "a", 1, T + 120_000)];
    let pushed = query.push(0, rows(&batch), NOW).await.unwrap();
    assert_eq!(pushed.refused.iter().map(|refused| refused.offset).collect::<Vec<_>>(), [1]);
    assert_eq!(closed(&mut query).await, ["a|12"]);
}

#[tokio::test]
async fn top_n_is_of_each_window() {
    let sql = "select customer, count(*) as n from orders group by customer, date_bin(interval '1 minute', ts) \
               having count(*) > 1 order by n desc, customer limit 2";
    let mut query = started(sql);
    for window in 0..3 {
        let mut batch = Vec::new();
        for (customer, times) in [("a", 2), ("b", 4), ("c", 3), ("d", 1)] {
            batch.extend((0..times).map(|n| order(window * 100 + n, customer, 1, T + window * MINUTE + 10_000)));
        }
        push(&mut query, &batch).await;
        let found = closed(&mut query).await;
        let expected: &[&str] = if window == 0 { &[] } else { &["b|4", "c|3"] };
        assert_eq!(found, expected, "window {window}");
    }
    assert_eq!(prepared(sql).key(), [0]);
    assert!(prepared_for(sql, Purpose::Persistent).is_ok());
}

#[tokio::test]
async fn windows_of_two_topics_go_by_both() {
    let sql = "select kind, count(*) as n from (select ts, 'o' as kind from orders union all select ts, 'r' from refunds) \
               group by kind, tumble(ts, interval '1 minute') order by kind";
    let mut query = started(sql);
    query.assign(0, &[0]);
    query.assign(1, &[0]);
    push(&mut query, &[order(0, "a", 1, T), order(1, "a", 1, T + 600_000)]).await;
    assert!(closed(&mut query).await.is_empty());
    query.push(1, rows(&[order(0, "a", 1, T), order(1, "a", 1, T + 70_000)]), NOW).await.unwrap();
    assert_eq!(closed(&mut query).await, ["o|1", "r|1"]);
}

#[tokio::test]
async fn a_window_over_a_join_counts_each_row_once() {
    let sql = "select c.city, count(*) as n from orders o join customers c on o.customer = c.customer \
               group by c.city, tumble(o.ts, interval '1 minute') order by city";
    let mut query = started_with(sql, &[("a", "Ulm"), ("b", "Bonn")]);
    push(&mut query, &[order(0, "a", 1, T), order(1, "b", 1, T)]).await;
    push(&mut query, &[order(2, "a", 1, T), order(3, "x", 1, T)]).await;
    push(&mut query, &[order(4, "a", 1, T + 600_000)]).await;
    assert_eq!(closed(&mut query).await, ["Bonn|1", "Ulm|2"]);
}

#[tokio::test]
async fn aggregates_are_right_over_many_pieces() {
    let sql = "select count(*) as n, sum(amount) as s, avg(quantity) as a, min(quantity) as lo, max(quantity) as hi, \
               count(distinct customer) as d, stddev(quantity) as sd, bool_or(quantity > 98) as any, \
               first_value(customer order by ts) as first, last_value(customer order by ts) as last, \
               count(*) filter (where status = 'odd') as odd, median(quantity) as m, \
               array_length(array_agg(quantity)) as l, approx_distinct(customer) as ad \
               from orders group by tumble(ts, interval '1 minute')";
    let mut query = started(sql);
    for n in 0..100_i32 {
        push(&mut query, &[order(i64::from(n), &format!("c{}", n % 7), n, T + i64::from(n) * 500)]).await;
    }
    push(&mut query, &[order(100, "z", 1, T + 600_000)]).await;
    let found = closed(&mut query).await;
    let found: Vec<_> = found[0].split('|').collect();
    let expected =
        ["100", "49.50", "49.5", "0", "99", "7", "29.011491975882016", "true", "c0", "c1", "50", "49.5", "100", "7"];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_distinct_count_alone_is_one_aggregate() {
    let sql =
        "select count(distinct customer) as c, sum(quantity) as q from orders group by tumble(ts, interval '1 minute')";
    for (sql, expected) in [(sql, "2|4"), (&sql.replace(", sum(quantity) as q", ""), "2")] {
        let mut query = started(sql);
        push(&mut query, &[order(0, "a", 1, T), order(1, "b", 1, T)]).await;
        push(&mut query, &[order(2, "a", 2, T), order(3, "a", 1, T + 600_000)]).await;
        assert_eq!(closed(&mut query).await, [expected]);
    }
}

#[tokio::test]
async fn a_group_that_fails_is_missing_alone() {
    let sql = "select customer, 12 / sum(quantity) as x from orders group by customer, tumble(ts, interval '1 minute') \
               order by customer limit 3";
    let mut query = started(sql);
    let batch = [("a", 1), ("b", 0), ("c", 3), ("d", 0), ("e", 4), ("f", 6)];
    for (offset, (customer, quantity)) in (0..).zip(batch) {
        push(&mut query, &[order(offset, customer, quantity, T)]).await;
    }
    push(&mut query, &[order(6, "z", 1, T + 600_000)]).await;
    assert_eq!(closed(&mut query).await, ["a|12", "c|4", "e|3"]);
    let failed = query.take_failed_groups();
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert!(
        failed.iter().all(|group| group.window == (T, T + MINUTE) && group.why.contains("Divide by zero")),
        "{failed:?}"
    );
    assert!(query.take_failed_groups().is_empty());
}

#[tokio::test]
async fn a_time_may_be_computed() {
    let sql = "select count(*) as n from orders group by tumble(to_timestamp_millis(id * 1000), interval '1 minute')";
    let mut query = started(sql);
    push(&mut query, &[order(0, "a", 1, T), order(59, "a", 1, T), order(66, "a", 1, T)]).await;
    assert_eq!(closed(&mut query).await, ["2"]);
    let prepared = prepared(sql);
    assert_eq!(prepared.times().len(), 1);
}

#[tokio::test]
async fn what_was_closed_before_a_restart_is_not_written_again() {
    let mut query = started(COUNTS);
    query.assign(0, &[0]);
    query.resume(T + MINUTE);
    assert_eq!(push(&mut query, &[order(0, "a", 1, T + 1_000), order(1, "a", 1, T + 61_000)]).await, [(0, 0)]);
    push(&mut query, &[order(2, "a", 1, T + 600_000)]).await;
    assert_eq!(closed(&mut query).await, ["2027-01-15T07:01:00|a|1|1"]);
}

#[tokio::test]
async fn a_query_over_its_memory_fails_and_the_process_lives() {
    let sql = "select customer, count(*) as n from orders group by customer, tumble(ts, interval '1 minute')";
    let bounds = Bounds { memory_bytes: 2 * 1024 * 1024, ..Bounds::default() };
    let mut query = prepared(sql).start(bounds).unwrap();
    let mut failure = None;
    for batch in 0..100 {
        let batch: Vec<_> = (0..2_000).map(|n| order(n, &format!("customer {batch} {n}"), 1, T)).collect();
        if let Err(failed) = query.push(0, rows(&batch), NOW).await {
            failure = Some(failed);
            break;
        }
    }
    let failure = failure.unwrap();
    assert_eq!(failure.code, "limit_exceeded", "{failure}");
    assert!(!failure.message.contains("Exec") && !failure.message.contains("KB"), "{failure}");
    let mut other = started(sql);
    push(&mut other, &[order(0, "a", 1, T), order(1, "a", 1, T + 600_000)]).await;
    assert_eq!(closed(&mut other).await, ["a|1"]);
}

#[tokio::test]
async fn groups_have_a_bound() {
    let sql = "select customer, count(*) as n from orders group by customer, tumble(ts, interval '1 minute')";
    let mut query = prepared(sql).start(Bounds { max_keys: 10, ..Bounds::default() }).unwrap();
    for _ in 0..20 {
        let same: Vec<_> = (0..10).map(|n| order(n, &format!("c{n}"), 1, T)).collect();
        push(&mut query, &same).await;
    }
    let failure = query.push(0, rows(&[order(11, "c11", 1, T)]), NOW).await.unwrap_err();
    assert_eq!((failure.code, failure.message.contains("more than 10 groups")), ("limit_exceeded", true), "{failure}");
}

#[tokio::test]
async fn nothing_is_written_to_the_temporary_directory() {
    let sql = "select customer, count(*) as n, max(status) as s from orders group by customer, tumble(ts, interval '1 minute')";
    // Few enough pieces that they are made one only when the window closes.
    let batch = |n: i64| (0..2_000).map(|m| order(m, &format!("customer {}", n * 2_000 + m), 1, T)).collect::<Vec<_>>();
    let batches: Vec<_> = (0..10).map(batch).collect();
    let mut query = prepared(sql).start(Bounds::default()).unwrap();
    for batch in &batches {
        push(&mut query, batch).await;
    }
    // Enough for the state, not for closing the window: DataFusion would go on on the disk.
    let memory_bytes = query.usage().state_bytes * 5 / 4;
    let mut query = prepared(sql).start(Bounds { memory_bytes, ..Bounds::default() }).unwrap();
    let before = temporary();
    for batch in &batches {
        push(&mut query, batch).await;
    }
    push(&mut query, &[order(0, "z", 1, T + 600_000)]).await;
    let failure = query.close(NOW).await.map(|out| lines(&out).len()).unwrap_err();
    assert_eq!(failure.code, "limit_exceeded", "{failure}");
    assert_eq!(temporary(), before);
    // Whether an operator would have spilled here is DataFusion's affair: nothing that it runs can.
    assert!(!session::runtime(query.pool()).unwrap().disk_manager.tmp_files_enabled());
}

/// What DataFusion would have made.
fn temporary() -> Vec<String> {
    let entries = std::fs::read_dir(std::env::temp_dir()).unwrap();
    let names = entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()));
    let mut names: Vec<_> = names.filter(|name| name.starts_with("datafusion")).collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_is_held_is_what_is_in_an_open_window_for_each_way_to_write_one() {
    for by in [
        "tumble(ts, interval '1 hour')",
        "date_trunc('hour', ts)",
        "date_bin(interval '1 hour', ts)",
        "tumble(to_timestamp_seconds(id), interval '1 hour')",
        "tumble(to_timestamp_nanos(id * 1000000000), interval '1 hour')",
        "date_trunc('hour', to_timestamp_micros(id * 1000000))",
    ] {
        let mut query = started(&format!("select count(*) as n from orders group by {by}"));
        query.assign(0, &[0]);
        // An offset is the time in seconds, so that it can be a time, too.
        let at = |minutes: i64| order(T / 1_000 + minutes * 60, "a", 1, T + minutes * MINUTE);
        push(&mut query, &[at(40), at(65), at(70)]).await;
        assert_eq!(closed(&mut query).await, ["1"], "{by}");
        let from = T / 1_000 + 65 * 60;
        assert_eq!(query.held_from(), std::collections::BTreeMap::from([((0, 0), from)]), "{by}");
    }
}

#[tokio::test]
async fn a_query_whose_panes_are_not_those_of_its_rows_fails_and_loses_none() {
    let mut query = prepared("select count(*) as n from orders group by tumble(ts, interval '1 minute')");
    query.windowed.as_mut().unwrap().window = Window { size_ms: 7_000, slide_ms: 7_000 };
    let mut query = query.start(Bounds::default()).unwrap();
    query.assign(0, &[0]);
    let failure = query.push(0, rows(&[order(0, "a", 1, T + 31_000)]), NOW).await.unwrap_err();
    assert!(failure.message.contains("is not the one that its time is in"), "{failure:?}");
}

#[tokio::test]
async fn a_window_is_told_from_a_column_of_a_table_that_is_called_like_it() {
    for by in ["c.city, x.city", "x.city, c.city"] {
        let sql = format!(
            "select x.city as minute, c.city, count(*) as n \
             from (select customer, tumble(ts, interval '1 minute') as city from orders) x \
             join customers c on x.customer = c.customer group by {by}"
        );
        let mut query = started_with(&sql, &[("anna", "Ulm")]);
        let rows = [order(1, "anna", 1, T), order(2, "anna", 1, T + 65_001)];
        assert_eq!(all(&mut query, &rows).await, ["2027-01-15T07:00:00|Ulm|1"], "{by}");
    }
}
