//! Jobs against brokers in memory: what they write, and what of it survives whatever happens to them.
#![allow(clippy::unwrap_used)]

mod silence;
mod views;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt};
use serde_json::{Value, json};
use streamview_manager::catalog::{Column, EventTime, Format, KeyFormat, Source, Table};
use streamview_manager::engines::{
    AdHoc, Changes, Deployment, End, Engine, Handle, Item, ObservedState, RestorePoint, Row, Rows, Seen, Select,
    StopMode, Stopped, Trouble,
};
use streamview_manager::names::Names;

use super::Wish;
use crate::engine::{Counts, Embedded};
use crate::log::memory::{Failure, Memory};
use crate::log::{Log, LogError, ORIGIN};
use crate::settings::Settings;
use crate::table::TableBounds;

const ID: &str = "0123456789abcdef0123456789abcdef";
const FILTER: &str = "SELECT id, amount FROM orders WHERE amount > 50";
const PER_MINUTE: &str = "SELECT tumble(ts, INTERVAL '1 minute') AS minute, customer, COUNT(*) AS n FROM orders \
                          GROUP BY tumble(ts, INTERVAL '1 minute'), customer";

fn source() -> Source {
    let column =
        |(name, of): (&str, &str)| Column { name: name.to_owned(), data_type: of.parse().unwrap(), nullable: true };
    let columns = [("id", "bigint"), ("customer", "string"), ("amount", "decimal(20, 2)"), ("ts", "timestamp(3)")];
    Source {
        name: "orders".to_owned(),
        topic: "orders".to_owned(),
        format: Format::Json,
        columns: columns.map(column).to_vec(),
        event_time: Some(EventTime { column: "ts".to_owned(), delay_ms: 5_000 }),
        table: None,
    }
}

fn select(sql: &str) -> Select {
    Select { sql: sql.to_owned(), sources: vec![source()] }
}

/// The same with a table beside it: `customers(customer, city)` by `customer`.
fn joined(sql: &str) -> Select {
    let column = |name: &str| Column { name: name.to_owned(), data_type: "string".parse().unwrap(), nullable: true };
    let customers = Source {
        name: "customers".to_owned(),
        topic: "customers.v1".to_owned(),
        columns: ["customer", "city"].map(column).to_vec(),
        event_time: None,
        table: Some(Table { key: vec!["customer".to_owned()], key_format: KeyFormat::Text }),
        ..source()
    };
    // Whoever reads them does not go by their order.
    Select { sql: sql.to_owned(), sources: vec![customers, source()] }
}

const JOIN: &str =
    "SELECT o.id, c.city FROM orders o LEFT JOIN customers c ON o.customer = c.customer WHERE o.amount > 50";

fn deployment(sql: &str, attempt: i32, restore: Option<RestorePoint>) -> Deployment {
    Deployment {
        definition: ID.to_owned(),
        names: Names::of(ID, "high value"),
        revision: 1,
        attempt,
        select: select(sql),
        changes: Changes::Append,
        replaces: false,
        restore,
    }
}

/// Brokers in memory with the topic `orders` and the output, and an engine.
struct Bench {
    log: Memory,
    engine: Embedded,
    output: String,
}

impl Bench {
    fn new(partitions: usize) -> Bench {
        let log = Memory::default();
        log.topic("orders", partitions);
        let output = Names::of(ID, "high value").topic();
        log.topic(&output, 1);
        let engine = engine(&log);
        Bench { log, engine, output }
    }

    async fn deploy(&self, deployment: &Deployment) -> Handle {
        self.engine.deploy(deployment).await.unwrap()
    }

    async fn stop(&self, deployment: &Deployment, handle: &Handle) -> RestorePoint {
        match self.engine.stop(deployment, handle, StopMode::KeepState).await.unwrap() {
            Stopped::At(point) => point,
            other => panic!("{other:?}"),
        }
    }

    /// The values of the output, once there are so many.
    async fn output(&self, rows: usize) -> Vec<Value> {
        until(|| {
            let values = self.log.values(&self.output);
            (values.len() >= rows).then(|| values.iter().map(|value| serde_json::from_str(value).unwrap()).collect())
        })
        .await
    }

    fn order(&self, partition: usize, id: i64, customer: &str, amount: &str, ts: i64) {
        let value = format!(r#"{{"id":{id},"customer":"{customer}","amount":{amount},"ts":{ts}}}"#);
        self.log.publish("orders", partition, ts, &value);
    }

    fn counts<T>(&self, of: impl Fn(&Counts) -> T) -> T {
        of(self.engine.running()[0].counts())
    }

    async fn observed(&self) -> Option<(ObservedState, String)> {
        let observed = self.engine.observe().await.unwrap();
        observed.first().map(|job| (job.state, job.engine_state.clone()))
    }
}

fn settings() -> Settings {
    let (idle, table_refresh) = (Duration::from_millis(300), Duration::from_millis(20));
    Settings { idle, table_refresh, commit: Duration::from_millis(20), queries: 2, ..Settings::default() }
}

fn engine(log: &Memory) -> Embedded {
    Embedded::new(Arc::new(log.clone()), None, settings())
}

async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let limit = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < limit, "it does not come about");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How often each window and customer stands in the output, and with which count.
fn by_window(values: &[Value]) -> BTreeMap<(String, String), Vec<u64>> {
    let mut found: BTreeMap<_, Vec<u64>> = BTreeMap::new();
    for value in values {
        let text = |name: &str| value[name].as_str().unwrap().to_owned();
        found.entry((text("minute"), text("customer"))).or_default().push(value["n"].as_u64().unwrap());
    }
    found
}

#[tokio::test]
async fn a_late_row_that_was_counted_is_counted_after_a_restart_too() {
    let bench = Bench::new(2);
    let settings = Settings { idle: Duration::from_secs(600), ..Settings::default() };
    let engine = || Embedded::new(Arc::new(bench.log.clone()), None, settings.clone());
    let minute = 60_000;
    bench.order(0, 1, "a", "1", 10_000);
    bench.order(1, 2, "a", "1", 10_000);
    // More than is read at once, so that a window could close between them and the last one, which is late.
    (0..9_000).for_each(|_| bench.order(1, 3, "b", "1", 2 * minute + 10_000));
    bench.order(1, 4, "a", "1", 30_000);
    let (first, deployed) = (engine(), deployment(PER_MINUTE, 1, None));
    let handle = first.deploy(&deployed).await.unwrap();
    let group = format!("streamview-{ID}-r1a1");
    until(|| bench.log.committed(&group, "orders", 1)?.1.contains("read=9002").then_some(())).await;
    first.stop(&deployed, &handle, StopMode::Final).await.unwrap();
    // What has held the window open does so no more.
    bench.order(0, 5, "b", "1", 2 * minute + 10_000);
    let point = RestorePoint { path: format!("kafka-group:{group}"), savepoint: true };
    let second = engine();
    second.deploy(&deployment(PER_MINUTE, 2, Some(point))).await.unwrap();
    let values = bench.output(1).await;
    assert_eq!(values, [json!({ "minute": "1970-01-01T00:00:00.000Z", "customer": "a", "n": 3 })]);
}

#[tokio::test]
async fn what_a_filter_lets_through_is_written_once_whatever_becomes_of_its_commits() {
    let bench = Bench::new(1);
    bench.order(0, 1, "a", "60", 0);
    bench.order(0, 2, "a", "10", 0);
    let first = deployment(FILTER, 1, None);
    // The first commit is that of the beginning.
    bench.log.fail([None, Some(Failure::Before), Some(Failure::After), None, Some(Failure::Before)]);
    let handle = bench.deploy(&first).await;
    assert_eq!(bench.output(1).await, [json!({"id": 1, "amount": 60.00})]);
    bench.order(0, 3, "b", "123456789012345678.10", 0);
    bench.output(2).await;
    assert_eq!(bench.log.values(&bench.output)[1], r#"{"id":3,"amount":123456789012345678.10}"#);

    let point = bench.stop(&first, &handle).await;
    assert_eq!(point.path, format!("kafka-group:streamview-{ID}-r1a1"));
    bench.order(0, 4, "c", "70", 0);
    let second = deployment(FILTER, 2, Some(point));
    let handle = bench.deploy(&second).await;
    let ids: Vec<i64> = bench.output(3).await.iter().map(|row| row["id"].as_i64().unwrap()).collect();
    assert_eq!(ids, [1, 3, 4]);

    bench.engine.remove(&handle, &[]).await.unwrap();
    assert_eq!(bench.observed().await, None);
    assert_eq!(bench.log.groups("streamview-").unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn windows_are_written_once_and_whole_across_stops_and_failed_commits() {
    let bench = Bench::new(2);
    let minute = |number: i64, second: i64| (number * 60 + second) * 1_000;
    for id in 0..10 {
        bench.order(0, id, "a", "1", minute(0, id));
        bench.order(1, id, "b", "1", minute(0, id));
    }
    let first = deployment(PER_MINUTE, 1, None);
    bench.log.fail([None, None, Some(Failure::After), Some(Failure::Before)]);
    let handle = bench.deploy(&first).await;
    // Nothing closes before both partitions have passed the end, with what may come late.
    bench.order(0, 11, "a", "1", minute(1, 10));
    until(|| (bench.counts(|counts| Counts::get(&counts.read)) >= 21).then_some(())).await;
    assert!(bench.log.values(&bench.output).is_empty());

    let point = bench.stop(&first, &handle).await;
    bench.order(1, 12, "b", "1", minute(0, 59));
    bench.order(1, 13, "b", "1", minute(1, 6));
    let second = deployment(PER_MINUTE, 2, Some(point));
    let handle = bench.deploy(&second).await;
    bench.output(2).await;
    let point = bench.stop(&second, &handle).await;

    // One more of the first minute is late: it goes aside, and the window is not written again.
    bench.order(1, 14, "b", "1", minute(0, 30));
    let third = deployment(PER_MINUTE, 3, Some(point));
    bench.deploy(&third).await;
    let late = format!("{}.late", bench.output);
    until(|| (bench.log.values(&late).len() == 1).then_some(())).await;
    // Once all partitions are silent, the others close by the clock.
    let values = bench.output(4).await;
    let expected: BTreeMap<(String, String), Vec<u64>> = [
        (("1970-01-01T00:00:00.000Z", "a"), 10),
        (("1970-01-01T00:00:00.000Z", "b"), 11),
        (("1970-01-01T00:01:00.000Z", "a"), 1),
        (("1970-01-01T00:01:00.000Z", "b"), 1),
    ]
    .into_iter()
    .map(|((minute, customer), n)| ((minute.to_owned(), customer.to_owned()), vec![n]))
    .collect();
    assert_eq!(by_window(&values), expected);
    let record = &bench.log.records(&bench.output)[0];
    assert_eq!(record.key.as_deref().unwrap()[..2], *b"{\"");
    let window = record.headers.iter().find(|(name, _)| name == "streamview-window-end").unwrap();
    assert_eq!(window.1.as_deref(), Some(&b"60000"[..]));
    assert_eq!(bench.counts(|counts| Counts::get(&counts.late)), 1, "what is read again is not late");
}

#[tokio::test]
async fn what_cannot_be_counted_goes_aside_by_its_name_and_the_rest_goes_on() {
    let bench = Bench::new(1);
    // Of a minute that is over: the end of one that has just begun is waited for.
    let now = super::now_ms() - 60_000;
    bench.order(0, 1, "a", "1", now);
    bench.log.publish("orders", 0, now, r#"{"id":2}{"id":3}"#);
    bench.order(0, 4, "a", "1", now + 3_660_000);
    bench.order(0, 5, "a", "1", now);
    bench.deploy(&deployment(PER_MINUTE, 1, None)).await;
    let values = bench.output(1).await;
    assert_eq!(values.iter().map(|value| value["n"].as_u64().unwrap()).sum::<u64>(), 2);
    let dead = bench.log.records(&format!("{}.dlq", bench.output));
    let why = |number: usize, name: &str| {
        let (_, value) = dead[number].headers.iter().find(|(header, _)| header == name).unwrap().clone();
        String::from_utf8(value.unwrap()).unwrap()
    };
    assert_eq!(dead.len(), 2);
    assert_eq!(dead[0].value.as_deref(), Some(&br#"{"id":2}{"id":3}"#[..]), "as it was");
    assert_eq!((why(0, "x-original-offset"), why(0, "x-original-topic")), ("1".to_owned(), "orders".to_owned()));
    assert!(why(0, "x-dlq-error").contains("trailing characters"), "{}", why(0, "x-dlq-error"));
    assert!(why(1, "x-dlq-error").starts_with("future"), "{}", why(1, "x-dlq-error"));
    let seen = bench.counts(|counts| (Counts::get(&counts.refused), Counts::get(&counts.future)));
    assert_eq!(seen, (1, 1));
}

#[tokio::test]
async fn who_leaves_commits_what_its_queries_have_and_ends_them() {
    let mut bench = Bench::new(1);
    let settings = Settings { commit: Duration::from_secs(3600), ..settings() };
    bench.engine = Embedded::new(Arc::new(bench.log.clone()), None, settings);
    bench.deploy(&deployment(FILTER, 1, None)).await;
    bench.order(0, 1, "a", "60", 1_000);
    until(|| (bench.counts(|counts| Counts::get(&counts.read)) == 1).then_some(())).await;
    assert_eq!(bench.log.values(&bench.output), [""; 0], "it is not due yet");
    bench.engine.leave().await;
    assert_eq!(bench.log.values(&bench.output).len(), 1);
    assert!(bench.engine.running().is_empty());
}

/// What it would commit, another one may have read and written by then.
#[tokio::test]
async fn who_leads_no_more_ends_its_queries_as_they_stand_and_begins_them_again_when_it_leads() {
    let mut bench = Bench::new(1);
    bench.log.without_transactions();
    let settings = Settings { commit: Duration::from_secs(3600), ..settings() };
    bench.engine = Embedded::new(Arc::new(bench.log.clone()), None, settings);
    let handle = bench.deploy(&deployment(FILTER, 1, None)).await;
    bench.order(0, 1, "a", "60", 1_000);
    until(|| (bench.counts(|counts| Counts::get(&counts.read)) == 1).then_some(())).await;
    bench.engine.lead_is_lost().await;
    assert_eq!(bench.log.values(&bench.output), [""; 0]);
    assert!(bench.engine.running().is_empty());
    assert_eq!(bench.observed().await, None, "nobody has stopped it, and it has not failed");
    assert_eq!(bench.engine.capabilities().await.unwrap().free_slots, Some(2));

    bench.deploy(&deployment(FILTER, 2, handle.keeps_at)).await;
    until(|| (bench.counts(|counts| Counts::get(&counts.read)) == 1).then_some(())).await;
    bench.engine.leave().await;
    assert_eq!(bench.log.values(&bench.output).len(), 1, "it is read again");
}

/// Whoever begins them anew ends these by that, and nobody may be able to.
#[tokio::test]
async fn with_transactions_queries_go_on_while_nobody_leads() {
    let bench = Bench::new(1);
    bench.deploy(&deployment(FILTER, 1, None)).await;
    bench.engine.lead_is_lost().await;
    bench.order(0, 1, "a", "60", 1_000);
    bench.output(1).await;
    assert_eq!(bench.engine.running().len(), 1);
}

#[tokio::test]
async fn a_second_instance_ends_the_first() {
    let bench = Bench::new(1);
    let first = deployment(FILTER, 1, None);
    let handle = bench.deploy(&first).await;
    let other = engine(&bench.log);
    let restore = handle.keeps_at.clone();
    other.deploy(&deployment(FILTER, 2, restore)).await.unwrap();
    bench.order(0, 1, "a", "60", 0);
    bench.output(1).await;
    until(|| bench.engine.running().is_empty().then_some(())).await;
    assert_eq!(bench.observed().await, None, "whoever leads sees nothing of it here");
    bench.order(0, 2, "a", "70", 0);
    assert_eq!(bench.output(2).await.len(), 2);
    assert!(matches!(bench.engine.details(&handle.job_id).await, Err(Trouble::Unavailable(_))));
}

#[tokio::test]
async fn a_topic_that_was_made_anew_or_has_lost_records_halts_the_query() {
    for (what, words) in [("anew", "another one"), ("deleted", "were deleted")] {
        let bench = Bench::new(1);
        for id in 0..3 {
            bench.order(0, id, "a", "60", 0);
        }
        let first = deployment(FILTER, 1, None);
        let handle = bench.deploy(&first).await;
        bench.output(3).await;
        let point = bench.stop(&first, &handle).await;
        match what {
            "anew" => bench.log.topic("orders", 1),
            _ => bench.log.delete_below("orders", 0, 5),
        }
        let refused = bench.engine.deploy(&deployment(FILTER, 2, Some(point))).await.unwrap_err();
        assert!(matches!(&refused, Trouble::Refused(refusal) if refusal.message.contains(words)), "{refused:?}");
    }
}

#[tokio::test]
async fn positions_that_are_gone_are_no_beginning() {
    let bench = Bench::new(1);
    let first = deployment(FILTER, 1, None);
    let handle = bench.deploy(&first).await;
    let point = bench.stop(&first, &handle).await;
    bench.engine.remove(&handle, &[]).await.unwrap();
    let refused = bench.engine.deploy(&deployment(FILTER, 2, Some(point.clone()))).await.unwrap_err();
    assert!(matches!(&refused, Trouble::Refused(refusal) if refusal.code == "restore_point_gone"), "{refused:?}");
    // Nor does a stop elsewhere promise them.
    let other = engine(&bench.log);
    let stopped = other.stop(&deployment(FILTER, 2, Some(point)), &handle, StopMode::KeepState).await.unwrap();
    assert_eq!(stopped, Stopped::WithoutState);
}

#[tokio::test]
async fn a_query_over_its_memory_fails_and_the_process_lives() {
    let bench = Bench::new(1);
    let settings = Settings { persistent_memory_bytes: 1 << 20, ..Settings::default() };
    let small = Embedded::new(Arc::new(bench.log.clone()), None, settings);
    for id in 0..20_000 {
        bench.order(0, id, &format!("customer-{id}-{}", "x".repeat(100)), "1", 0);
    }
    small.deploy(&deployment(PER_MINUTE, 1, None)).await.unwrap();
    until(|| small.running().is_empty().then_some(())).await;
    let observed = small.observe().await.unwrap();
    assert_eq!(observed[0].state, ObservedState::Failed);
    assert!(observed[0].engine_state.contains("memory"), "{}", observed[0].engine_state);
    bench.deploy(&deployment(FILTER, 2, None)).await;
    let runs = || bench.observed().now_or_never().flatten().filter(|(state, _)| *state == ObservedState::Running);
    until(runs).await;
}

fn look(sql: &str, from_start: bool) -> AdHoc {
    AdHoc { id: "f".repeat(32), select: select(sql), from_start, time_limit: Duration::from_secs(60) }
}

async fn next_row(rows: &mut Rows) -> Vec<Value> {
    match rows.next().await.unwrap() {
        Item::Row(Row { values, .. }) => values,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_filtered_row_is_out_within_100_ms() {
    let bench = Bench::new(1);
    let mut rows = bench.engine.query(look(FILTER, false)).await.unwrap();
    let Item::Header { schema, .. } = rows.next().await.unwrap() else { panic!() };
    assert_eq!(schema, "`id` BIGINT, `amount` DECIMAL(20, 2)");
    let mut fastest = Duration::MAX;
    for id in 0..20 {
        let begun = Instant::now();
        bench.order(0, id, "a", "60", 0);
        assert_eq!(next_row(&mut rows).await, [json!(id), json!("60.00")]);
        fastest = fastest.min(begun.elapsed());
    }
    // The fastest: this machine may have much else to do.
    assert!(fastest < Duration::from_millis(100), "{fastest:?}");
}

#[tokio::test]
async fn a_dropped_query_frees_its_room_and_those_beyond_it_are_busy() {
    let bench = Bench::new(1);
    let free = async || bench.engine.capabilities().await.unwrap().free_slots;
    assert_eq!(free().await, Some(2));
    let (one, two) =
        (bench.engine.query(look(FILTER, true)).await.unwrap(), bench.engine.query(look(FILTER, true)).await);
    assert!(matches!(bench.engine.query(look(FILTER, true)).await, Err(Trouble::Busy { .. })));
    let busy = bench.engine.deploy(&deployment(FILTER, 1, None)).await;
    assert!(matches!(busy, Err(Trouble::Busy { .. })), "{busy:?}");
    drop((one, two));
    let limit = Instant::now() + Duration::from_secs(10);
    while free().await != Some(2) {
        assert!(Instant::now() < limit, "its room stays taken");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!bench.engine.is_looking(&"f".repeat(32)));
}

#[tokio::test]
async fn a_limit_ends_a_look_and_so_does_a_topic_that_goes() {
    let bench = Bench::new(1);
    for id in 0..5 {
        bench.order(0, id, "a", "60", 0);
    }
    let mut rows = bench.engine.query(look(&format!("{FILTER} LIMIT 2"), true)).await.unwrap();
    rows.next().await.unwrap();
    next_row(&mut rows).await;
    next_row(&mut rows).await;
    assert_eq!(rows.next().await, Some(Item::End(End::Limit)));
    assert_eq!(rows.next().await, None);

    let mut rows = bench.engine.query(look(FILTER, false)).await.unwrap();
    rows.next().await.unwrap();
    bench.log.delete_topic("orders");
    assert!(matches!(rows.next().await, Some(Item::End(End::Failed(why))) if why.contains("orders")));
}

#[tokio::test]
async fn state_is_kept_where_the_same_windows_go_on() {
    let bench = Bench::new(1);
    let keeps = async |old: &str, new: &str| bench.engine.keeps_state(&select(old), &select(new)).await.is_ok();
    assert!(keeps(FILTER, "SELECT id FROM orders").await);
    assert!(keeps(PER_MINUTE, &PER_MINUTE.replace("COUNT(*)", "SUM(amount)")).await);
    assert!(!keeps(PER_MINUTE, &PER_MINUTE.replace("1 minute", "2 minutes")).await);
    assert!(!keeps(FILTER, PER_MINUTE).await);
    assert!(!keeps(PER_MINUTE, FILTER).await);
}

/// On a runtime of one thread, where what is done at once is done by who asks.
#[tokio::test]
async fn no_text_is_judged_on_the_thread_of_who_asks() {
    let bench = Bench::new(1);
    let (text, first) = (select(FILTER), deployment(FILTER, 1, None));
    assert!(bench.engine.explain(&text).now_or_never().is_none());
    assert!(bench.engine.keeps_state(&text, &text).now_or_never().is_none());
    assert!(bench.engine.deploy(&first).now_or_never().is_none());
    assert!(bench.engine.query(look(FILTER, true)).now_or_never().is_none());
    // Nothing of them was begun, and who comes later has a turn.
    assert!(bench.engine.observe().await.unwrap().is_empty());
    assert_eq!(bench.engine.explain(&text).await.unwrap().only_adhoc, None);
}

#[tokio::test]
async fn what_can_only_be_looked_at_says_so() {
    let bench = Bench::new(1);
    let explained = bench.engine.explain(&select(&format!("{FILTER} LIMIT 2"))).await.unwrap();
    assert!(explained.only_adhoc.is_some());
    assert_eq!(bench.engine.explain(&select(FILTER)).await.unwrap().only_adhoc, None);
}

fn city(of: &str) -> String {
    format!(r#"{{"city":"{of}"}}"#)
}

#[tokio::test]
async fn a_deployed_join_meets_its_table_whole_and_as_of_its_last_refresh() {
    let bench = Bench::new(2);
    bench.log.topic("customers.v1", 1);
    bench.log.put("customers.v1", "a", Some(&city("Ulm")));
    bench.log.put("customers.v1", "b", Some(&city("Bonn")));
    bench.log.put("customers.v1", "a", Some(&city("Berlin")));
    bench.log.put("customers.v1", "b", None);
    bench.log.put("customers.v1", "c", Some("{"));
    bench.order(0, 1, "a", "60", 0);
    let first = Deployment { select: joined(JOIN), ..deployment(JOIN, 1, None) };
    let handle = bench.deploy(&first).await;
    // Not before the table was read: else it would be null.
    assert_eq!(bench.output(1).await, [json!({"id": 1, "city": "Berlin"})]);
    bench.order(1, 2, "b", "60", 0);
    assert_eq!(bench.output(2).await[1], json!({"id": 2, "city": null}));

    // What becomes of the table is met by what comes after the next refresh.
    bench.log.put("customers.v1", "a", None);
    bench.log.put("customers.v1", "b", Some(&city("Köln")));
    bench.log.put("customers.v1", "d", Some(&city("Köln")));
    let met = |label: &str| {
        label.contains("table customers (topic customers.v1): 2 rows") && label.contains("refreshed every 20 ms")
    };
    let seen = async || bench.engine.details(&handle.job_id).await.unwrap().topology.nodes;
    let limit = Instant::now() + Duration::from_secs(60);
    while !seen().await.iter().any(|node| met(&node.label)) {
        assert!(Instant::now() < limit, "{:?}", seen().await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(seen().await.iter().any(|node| node.label.contains("1 records refused")), "{:?}", seen().await);
    bench.order(0, 3, "a", "60", 0);
    bench.order(1, 4, "b", "60", 0);
    let mut rows = bench.output(4).await.split_off(2);
    rows.sort_by_key(|row| row["id"].as_i64());
    assert_eq!(rows, [json!({"id": 3, "city": null}), json!({"id": 4, "city": "Köln"})]);

    // A restart reads it anew, and has no position of it.
    let point = bench.stop(&first, &handle).await;
    bench.log.put("customers.v1", "a", Some(&city("Mainz")));
    bench.order(0, 5, "a", "60", 0);
    let second = Deployment { select: joined(JOIN), ..deployment(JOIN, 2, Some(point)) };
    bench.deploy(&second).await;
    assert_eq!(bench.output(5).await[4], json!({"id": 5, "city": "Mainz"}));
    assert_eq!(bench.log.committed(&format!("streamview-{ID}-r1a1"), "customers.v1", 0), None);
}

#[tokio::test]
async fn a_table_that_is_too_large_fails_its_query_alone_and_by_name() {
    let bench = Bench::new(1);
    bench.log.topic("customers.v1", 1);
    let table = TableBounds { rows: 2, ..TableBounds::default() };
    let engine = Embedded::new(Arc::new(bench.log.clone()), None, Settings { table, ..settings() });
    for key in ["a", "b"] {
        bench.log.put("customers.v1", key, Some(&city("Ulm")));
    }
    bench.order(0, 1, "a", "60", 0);
    let first = Deployment { select: joined(JOIN), ..deployment(JOIN, 1, None) };
    engine.deploy(&first).await.unwrap();
    bench.output(1).await;
    bench.log.put("customers.v1", "c", Some(&city("Ulm")));
    let limit = Instant::now() + Duration::from_secs(60);
    let failed = loop {
        let observed = engine.observe().await.unwrap().remove(0);
        if observed.state == ObservedState::Failed {
            break observed.engine_state;
        }
        assert!(Instant::now() < limit, "{observed:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!(failed.contains("limit_exceeded: table `customers` has more than 2 rows"), "{failed}");
    // Another one goes on.
    let mut rows = engine.query(look(FILTER, true)).await.unwrap();
    rows.next().await.unwrap();
    next_row(&mut rows).await;
    let mut rows = engine.query(AdHoc { select: joined(JOIN), ..look(JOIN, true) }).await.unwrap();
    rows.next().await.unwrap();
    let end = rows.next().await;
    assert!(matches!(&end, Some(Item::End(End::Failed(why))) if why.starts_with("limit_exceeded: ")), "{end:?}");
}

#[tokio::test]
async fn what_a_join_is_said_before_it_is_deployed_and_nothing_is_read() {
    let bench = Bench::new(1);
    // There is not even a topic of the table.
    let explained = bench.engine.explain(&joined(JOIN)).await.unwrap();
    assert_eq!(explained.only_adhoc, None);
    for part in ["Table customers: topic customers.v1", "each 20 ms", "after a restart meet it as it is then"] {
        assert!(explained.plan.contains(part), "{}", explained.plan);
    }
    let names: Vec<_> = explained.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["id", "city"]);
    let keyless = JOIN.replace("o.customer = c.customer", "o.customer = c.city");
    let refused = bench.engine.explain(&joined(&keyless)).await;
    assert!(matches!(&refused, Err(Trouble::Refused(refusal)) if refusal.code == "join_keys"), "{refused:?}");
}

/// The items of a query until it has told something of this kind.
async fn seen(rows: &mut Rows, is: impl Fn(&Seen) -> bool) -> Seen {
    let limit = Duration::from_secs(60);
    loop {
        let item = tokio::time::timeout(limit, rows.next()).await.expect("it comes").expect("it goes on");
        if let Item::Seen(seen) = item
            && is(&seen)
        {
            return seen;
        }
    }
}

#[tokio::test]
async fn a_look_tells_what_it_leaves_out_and_which_tables_it_meets() {
    let bench = Bench::new(1);
    bench.log.topic("customers.v1", 1);
    bench.log.put("customers.v1", "a", Some(&city("Ulm")));
    bench.log.put("customers.v1", "b", Some("[]"));
    bench.order(0, 1, "a", "60", 0);
    bench.log.publish("orders", 0, 0, "no JSON");
    bench.order(0, 2, "zwei", "60", 0);
    let sql = "SELECT o.id, CAST(o.customer AS int) AS n, c.city FROM orders o LEFT JOIN customers c ON o.customer = c.customer";
    let mut rows = bench.engine.query(AdHoc { select: joined(sql), ..look(sql, true) }).await.unwrap();
    let told = seen(&mut rows, |seen| seen.left_out.refused == 3).await;
    assert!(told.left_out.why.as_deref().is_some_and(|why| why.contains("Cannot cast string")), "{told:?}");
    let [table] = told.tables.as_slice() else { panic!("{told:?}") };
    assert_eq!((table.name.as_str(), table.rows, table.refused, table.refresh_ms), ("customers", 1, 1, 20));
    // Its age is that of its last refresh.
    let later = seen(&mut rows, |seen| seen.tables[0].refreshed_at > table.refreshed_at).await;
    assert_eq!(later.left_out.refused, 3);

    // Groups that fail are counted, too.
    let sql = "SELECT 1 / (COUNT(*) - 1) AS n, customer FROM orders GROUP BY tumble(ts, INTERVAL '1 minute'), customer";
    let mut rows = bench.engine.query(look(sql, true)).await.unwrap();
    let told = seen(&mut rows, |seen| seen.left_out.failed_groups > 0).await;
    assert_eq!((told.left_out.failed_groups, told.left_out.refused), (2, 1));
    assert_eq!(told.tables, []);
}

#[tokio::test]
async fn failed_groups_of_a_deployed_query_are_counted() {
    let bench = Bench::new(1);
    bench.order(0, 1, "a", "60", 0);
    bench.order(0, 2, "b", "60", 0);
    bench.order(0, 3, "b", "60", 0);
    let sql = "SELECT 1 / (COUNT(*) - 1) AS n, customer FROM orders GROUP BY tumble(ts, INTERVAL '1 minute'), customer";
    bench.deploy(&deployment(sql, 1, None)).await;
    assert_eq!(bench.output(1).await, [json!({"n": 1, "customer": "b"})]);
    until(|| (bench.counts(|counts| Counts::get(&counts.failed_groups)) == 1).then_some(())).await;
}

#[tokio::test]
async fn a_row_says_which_record_it_is_made_of_whatever_the_delivery() {
    let sql = "SELECT id FROM orders WHERE amount > 50 UNION ALL SELECT -id FROM orders";
    for is_transactional in [true, false] {
        let bench = Bench::new(1);
        if !is_transactional {
            bench.log.without_transactions();
        }
        bench.order(0, 1, "a", "60", 0);
        bench.order(0, 2, "a", "10", 0);
        // The second attempt writes the same rows again.
        bench.log.fail([None, Some(Failure::After)]);
        bench.deploy(&deployment(sql, 1, None)).await;
        bench.output(3).await;
        let origin = |record: &crate::log::memory::Written| {
            let header = record.headers.iter().find(|(name, _)| name == ORIGIN);
            String::from_utf8(header.unwrap().1.clone().unwrap()).unwrap()
        };
        let mut told: Vec<_> = bench.log.records(&bench.output).iter().map(origin).collect();
        told.sort();
        assert_eq!(told, ["orders:0:0", "orders:0:0:1", "orders:0:1"]);
    }
}

#[tokio::test]
async fn a_stream_reads_what_another_one_has_written_of_keys_and_offsets() {
    let bench = Bench::new(1);
    bench.log.put("orders", "a", Some(r#"{"id":1}"#));
    bench.log.put("orders", "b", Some(r#"{"id":2}"#));
    bench.deploy(&deployment("SELECT id, _key, _offset + 100 AS _offset FROM orders", 1, None)).await;
    let column =
        |(name, of): (&str, &str)| Column { name: name.to_owned(), data_type: of.parse().unwrap(), nullable: true };
    let columns = [("id", "bigint"), ("_key", "string"), ("_offset", "bigint")].map(column).to_vec();
    let (name, topic) = ("written".to_owned(), bench.output.clone());
    let written = Source { name, topic, columns, event_time: None, ..source() };
    let sql = "SELECT *, _partition FROM written WHERE _offset > 100";
    let id = "f".repeat(32);
    let second = Deployment {
        names: Names::of(&id, "second"),
        definition: id,
        select: Select { sql: sql.to_owned(), sources: vec![written] },
        ..deployment(sql, 1, None)
    };
    let topic = second.names.topic();
    bench.log.topic(&topic, 1);
    bench.deploy(&second).await;
    let records = until(|| Some(bench.log.records(&topic)).filter(|records| !records.is_empty())).await;
    assert_eq!(bench.log.values(&topic), [r#"{"id":2,"_key":"b","_offset":101,"_partition":0}"#]);
    let (_, origin) = records[0].headers.iter().find(|(name, _)| name == ORIGIN).unwrap();
    assert_eq!(origin.as_deref(), Some(format!("{}:0:1", bench.output).as_bytes()));
}

#[tokio::test]
async fn a_column_of_a_key_that_is_called_like_the_windows_start_is_told_from_it() {
    let bench = Bench::new(1);
    bench.log.without_transactions();
    bench.order(0, 1, "a", "1", 10_000);
    let sql = PER_MINUTE.replace("customer, COUNT", "customer AS window_start, COUNT");
    bench.deploy(&deployment(&sql, 1, None)).await;
    bench.output(1).await;
    let key = bench.log.records(&bench.output)[0].key.clone().unwrap();
    assert_eq!(String::from_utf8(key).unwrap(), r#"{"_window_start":0,"window_start":"a"}"#);
}

#[tokio::test]
async fn a_row_from_the_future_is_a_dead_letter_and_not_counted_when_it_is_read_again_later() {
    let mut bench = Bench::new(1);
    let (dead, now, minute) = (format!("{}.dlq", bench.output), crate::job::now_ms(), 60_000);
    let ahead = |log: &Memory, minutes: i64| {
        let settings = Settings { max_ahead_ms: minutes * 60_000, ..settings() };
        Embedded::new(Arc::new(log.clone()), None, settings)
    };
    bench.engine = ahead(&bench.log, 10);
    let hourly = "SELECT tumble(ts, INTERVAL '1 hour') AS hour, COUNT(*) AS n FROM orders GROUP BY tumble(ts, INTERVAL '1 hour')";
    let mut deployed = deployment(hourly, 1, None);
    let mut handle = bench.deploy(&deployed).await;
    let hour = (now / (60 * minute) + 1) * 60 * minute;
    for (id, ts) in [(1, now), (2, now + 15 * minute), (3, now + 1_000)] {
        bench.order(0, id, "a", "1", ts);
    }
    until(|| (bench.log.values(&dead).len() == 1).then_some(())).await;
    // Six minutes later, and once more, with the window held from its first row: the clock is past what was too far ahead.
    for (attempt, minutes) in [(2, 600), (3, 900)] {
        let point = bench.stop(&deployed, &handle).await;
        let (offset, notes) = bench.log.committed(&group_of(&handle), "orders", 0).unwrap();
        assert_eq!(offset, 0, "{notes}");
        assert!(notes.contains("future=1+1"), "{notes}");
        bench.engine = ahead(&bench.log, minutes);
        deployed = deployment(hourly, attempt, Some(point));
        handle = bench.deploy(&deployed).await;
        until(|| (bench.counts(|counts| Counts::get(&counts.read)) == 3).then_some(())).await;
    }
    // Closes all of them.
    bench.order(0, 4, "a", "1", hour + 5 * 60 * minute);
    let rows = until(|| {
        let values: Vec<Value> =
            bench.log.values(&bench.output).iter().map(|row| serde_json::from_str(row).unwrap()).collect();
        let counted: i64 = values.iter().map(|row| row["n"].as_i64().unwrap()).sum();
        (counted >= 2).then_some(values)
    })
    .await;
    let counted: i64 = rows.iter().map(|row| row["n"].as_i64().unwrap()).sum();
    assert_eq!(counted, 2, "{rows:?}");
    assert_eq!(bench.log.values(&dead).len(), 1);
    let point = bench.stop(&deployed, &handle).await;
    let (_, notes) = bench.log.committed(&group_of(&handle), "orders", 0).unwrap();
    assert!(!notes.contains("future="), "it is not read again any more: {notes}, {point:?}");
}

#[tokio::test]
async fn what_only_a_changed_text_refuses_is_a_dead_letter_once_though_it_was_judged_before() {
    let mut bench = Bench::new(1);
    // No window closes: all is read again.
    let settings = Settings { idle: Duration::from_secs(600), ..settings() };
    bench.engine = Embedded::new(Arc::new(bench.log.clone()), None, settings);
    let hourly = |of: &str| {
        format!(
            "SELECT tumble(ts, INTERVAL '1 hour') AS hour, {of} AS n FROM orders GROUP BY tumble(ts, INTERVAL '1 hour')"
        )
    };
    let (counts, sums) = (hourly("COUNT(*)"), hourly("SUM(CAST(customer AS bigint))"));
    bench.order(0, 1, "7", "1", 1_000);
    bench.order(0, 2, "seven", "1", 2_000);
    bench.log.publish("orders", 0, 0, "no JSON");
    let mut deployed = deployment(&counts, 1, None);
    let mut handle = bench.deploy(&deployed).await;
    let (dead, mut letters) = (format!("{}.dlq", bench.output), Vec::new());
    for attempt in 2..5 {
        until(|| (bench.counts(|counts| Counts::get(&counts.read)) == 3).then_some(())).await;
        let point = bench.stop(&deployed, &handle).await;
        letters.push(bench.log.values(&dead).len());
        deployed = deployment(&sums, attempt, Some(point));
        handle = bench.deploy(&deployed).await;
    }
    // What both refuse stands there twice.
    assert_eq!(letters, [1, 3, 3]);
}

#[tokio::test]
async fn so_is_what_only_a_changed_column_refuses() {
    let mut bench = Bench::new(1);
    let settings = Settings { idle: Duration::from_secs(600), ..settings() };
    bench.engine = Embedded::new(Arc::new(bench.log.clone()), None, settings);
    let sql = "SELECT tumble(ts, INTERVAL '1 hour') AS hour, COUNT(customer) AS n FROM orders \
               GROUP BY tumble(ts, INTERVAL '1 hour')";
    bench.order(0, 1, "7", "1", 1_000);
    bench.order(0, 2, "seven", "1", 2_000);
    let first = deployment(sql, 1, None);
    let handle = bench.deploy(&first).await;
    until(|| (bench.counts(|counts| Counts::get(&counts.read)) == 2).then_some(())).await;
    let mut second = deployment(sql, 2, Some(bench.stop(&first, &handle).await));
    let columns = second.select.sources[0].columns.iter_mut();
    columns.filter(|column| column.name == "customer").for_each(|column| column.data_type = "bigint".parse().unwrap());
    let handle = bench.deploy(&second).await;
    until(|| (bench.counts(|counts| Counts::get(&counts.refused)) == 1).then_some(())).await;
    bench.stop(&second, &handle).await;
    assert_eq!(bench.log.values(&format!("{}.dlq", bench.output)).len(), 1);
}

fn group_of(handle: &Handle) -> String {
    let kept = handle.keeps_at.as_ref().unwrap();
    streamview_manager::names::group_of(&kept.path).unwrap().to_owned()
}

/// Brokers that make whoever opens a writer wait, and then say no.
#[derive(Default)]
struct Slow {
    log: Memory,
    /// Who waits, and whether they may go on.
    gate: std::sync::Mutex<(usize, bool)>,
    opened: std::sync::Condvar,
}

impl Slow {
    fn open(&self) {
        self.gate.lock().unwrap().1 = true;
        self.opened.notify_all();
    }
}

impl Log for Slow {
    fn delivery(&self) -> crate::log::Delivery {
        self.log.delivery()
    }

    fn reader(&self, topics: &[String]) -> Result<Box<dyn crate::log::Reader>, LogError> {
        self.log.reader(topics)
    }

    fn writer(&self, _: &str, _: &str, _: &[String]) -> Result<Box<dyn crate::log::Writer>, LogError> {
        let mut gate = self.gate.lock().unwrap();
        gate.0 += 1;
        drop(self.opened.wait_while(gate, |gate| !gate.1).unwrap());
        Err(LogError::Again("the coordinator does not answer".to_owned()))
    }

    fn fence(&self, name: &str) -> Result<(), LogError> {
        self.log.fence(name)
    }

    fn make_topic(&self, name: &str) -> Result<(), LogError> {
        self.log.make_topic(name)
    }

    fn groups(&self, prefix: &str) -> Result<Vec<String>, LogError> {
        self.log.groups(prefix)
    }

    fn delete_groups(&self, groups: &[String]) -> Result<(), LogError> {
        self.log.delete_groups(groups)
    }
}

#[tokio::test]
async fn a_deployment_that_nobody_waits_for_any_more_leaves_nothing_when_it_fails() {
    let slow = Arc::new(Slow::default());
    slow.log.topic("orders", 1);
    let engine = Embedded::new(Arc::clone(&slow) as Arc<dyn Log>, None, settings());
    let first = deployment(FILTER, 1, None);
    let deploying = tokio::spawn({
        let (engine, first) = (engine.clone(), first.clone());
        async move { engine.deploy(&first).await.map(drop) }
    });
    until(|| (slow.gate.lock().unwrap().0 == 1).then_some(())).await;
    deploying.abort();
    assert!(deploying.await.unwrap_err().is_cancelled());
    let observed = engine.observe().await.unwrap();
    assert_eq!(observed[0].state, ObservedState::Starting);
    // Whoever leaves waits for what is under way, but not for ever; until it has ended it is about to stop.
    engine.leave_within(Wish::LetGo, Duration::from_millis(20)).await;
    let states: Vec<ObservedState> = engine.observe().await.unwrap().iter().map(|job| job.state).collect();
    assert_eq!(states, [ObservedState::Stopping]);
    slow.open();
    engine.leave().await;
    assert!(engine.observe().await.unwrap().is_empty());
    let handle = Handle {
        job_id: observed[0].job_id.clone(),
        stream_name: first.names.sink(),
        output_topic: first.names.topic(),
        changes: Changes::Append,
        keeps_at: None,
    };
    let stopped = engine.stop(&first, &handle, StopMode::KeepState).await.unwrap();
    assert!(matches!(stopped, Stopped::WithoutState), "{stopped:?}");
    // And it says so to who waits.
    let trouble = engine.deploy(&deployment(FILTER, 2, None)).await.unwrap_err();
    assert!(matches!(trouble, Trouble::Unavailable(_)), "{trouble}");
    assert!(engine.observe().await.unwrap().is_empty() && engine.running().is_empty());
}
