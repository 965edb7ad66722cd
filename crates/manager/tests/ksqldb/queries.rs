//! Queries of somebody who looks: rows, ends, cancellation.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use streamview_lab::ksqldb_stand_in::Switches;
use streamview_manager::engines::{AdHoc, Changes, End, Engine, Item, RowKind, Trouble};
use streamview_manager::gate::Kind;

use crate::support::{World, all, next, produce, produce_all, records};

#[tokio::test]
async fn rows_keep_their_numbers_and_end_with_the_limit() {
    let world = World::start().await;
    world.order(9_007_199_254_740_993, "Zoë 🚀", "12.50");
    world.order(2, "b],", "-0.10");
    let rows = world.query("SELECT order_id, customer, amount FROM orders LIMIT 2", true).await.unwrap();

    let (schema, rows, end) = all(rows).await;

    assert_eq!(schema, "`ORDER_ID` BIGINT, `CUSTOMER` STRING, `AMOUNT` DECIMAL(10, 2)");
    let values: Vec<Value> = rows.iter().map(|row| row.values.clone().into()).collect();
    assert_eq!(values, [json!(["9007199254740993", "Zoë 🚀", "12.50"]), json!([2, "b],", "-0.10"])]);
    assert!(rows.iter().all(|row| row.kind == RowKind::Insert));
    assert_eq!(end, End::Limit);
}

#[tokio::test]
async fn wherever_the_chunks_end_the_rows_are_whole() {
    let world = World::start().await;
    for id in 1..=5 {
        world.order(id, "Zoë 🚀", "1.00");
    }
    for size in [1, 2, 3, 7] {
        world.switch(Switches {
            chunk_bytes: Some(size),
            blank_lines: true,
            unknown_lines: true,
            ..Switches::default()
        });
        let (_, rows, end) = all(world.query("SELECT * FROM orders LIMIT 5", true).await.unwrap()).await;
        assert_eq!((rows.len(), end), (5, End::Limit), "{size}");
        assert!(rows.iter().all(|row| row.values[1] == "Zoë 🚀"), "{size}");
    }
}

#[tokio::test]
async fn a_query_begins_with_what_comes_or_with_what_is_there() {
    let world = World::start().await;
    world.order(1, "old", "1");
    let mut rows = world.query("SELECT customer FROM orders", false).await.unwrap();
    assert!(matches!(next(&mut rows).await, Item::Header { .. }));
    world.order(2, "new", "1");
    let Item::Row(row) = next(&mut rows).await else { panic!("a row") };
    assert_eq!(row.values, [json!("new")]);
}

#[tokio::test]
async fn rows_of_tables_replace_each_other_and_tombstones_delete() {
    let world = World::start().await;
    let statement = "CREATE TABLE PRICES (SKU STRING PRIMARY KEY, PRICE INTEGER) WITH (KAFKA_TOPIC='prices', PARTITIONS=1, \
                     VALUE_FORMAT='JSON');";
    assert_eq!(world.by_hand(statement).await.0, 200);
    for value in [Some("{\"PRICE\":1}"), Some("{\"PRICE\":2}"), None] {
        produce("prices", Some("a"), value);
    }
    let prices = world.engine.sources().await.unwrap().into_iter().find(|source| source.name == "PRICES").unwrap();
    let mut world = world;
    world.source = prices;

    let mut rows = world.query("SELECT SKU, PRICE FROM PRICES", true).await.unwrap();

    assert!(matches!(next(&mut rows).await, Item::Header { .. }));
    let mut seen = Vec::new();
    for _ in 0..3 {
        let Item::Row(row) = next(&mut rows).await else { panic!("a row") };
        seen.push((row.kind, Value::from(row.values)));
    }
    assert_eq!(
        seen,
        [
            (RowKind::UpdateAfter, json!(["a", 1])),
            (RowKind::UpdateAfter, json!(["a", 2])),
            (RowKind::Delete, json!(["a", null])),
        ]
    );
}

#[tokio::test]
async fn a_pull_query_is_complete_without_a_last_word() {
    let world = World::start().await;
    world.order(1, "a", "1.10");
    world.order(2, "a", "2.20");
    let text = "SELECT customer, SUM(amount) AS total, COUNT(*) AS n FROM orders GROUP BY customer";
    let handle = world.deploy(&world.deployment("Pulled", text, Changes::Upsert).await).await;
    records(&handle.output_topic, 2).await;
    let sink = world.engine.sources().await.unwrap().into_iter().find(|source| source.name == handle.stream_name);
    let mut world = world;
    world.source = sink.unwrap();
    let select =
        world.gated(&format!("SELECT * FROM {} WHERE CUSTOMER = 'a'", handle.stream_name), Kind::AdHoc { pull: true });

    let explained = world.engine.explain(&select).await.unwrap();
    assert_eq!((explained.columns.len(), explained.changes), (3, Changes::Upsert));
    let asked = world.sent("EXPLAIN").pop().unwrap();
    assert!(
        asked.contains("CUSTOMER = 'a'") && asked.contains("EMIT CHANGES"),
        "as it is known to be explained: {asked}"
    );

    let time_limit = Duration::from_secs(60);
    let rows = world.engine.query(AdHoc { id: "p".repeat(32), select, from_start: true, time_limit }).await.unwrap();
    let asked = world.server.asked().unwrap();
    let asked = asked.iter().find(|asked| asked.what.ends_with("/query-stream")).unwrap();
    assert_eq!(asked.properties, json!({}), "it begins nowhere");

    let (schema, rows, end) = all(rows).await;
    assert_eq!(schema, "`CUSTOMER` STRING KEY, `TOTAL` DECIMAL(10, 2), `N` BIGINT");
    assert_eq!(Value::from(rows[0].values.clone()), json!(["a", "3.30", 2]));
    assert_eq!((rows.len(), rows[0].kind, end), (1, RowKind::Insert, End::Complete));
}

#[tokio::test]
async fn a_pull_query_on_a_stream_ends_with_what_is_there() {
    let world = World::start().await;
    world.order(1, "a", "1");
    world.order(2, "b", "2");
    let select = world.gated("SELECT customer FROM orders", Kind::AdHoc { pull: true });
    let time_limit = Duration::from_secs(60);
    let rows = world.engine.query(AdHoc { id: "p".repeat(32), select, from_start: false, time_limit }).await.unwrap();
    let (_, rows, end) = all(rows).await;
    assert_eq!((rows.len(), end), (2, End::Complete));
}

#[tokio::test]
async fn an_error_in_the_middle_ends_with_its_reason() {
    let world = World::start().await;
    (1..=3).for_each(|id| world.order(id, "a", "1"));
    world.switch(Switches { fail_after_rows: Some(2), ..Switches::default() });
    let (_, rows, end) = all(world.query("SELECT * FROM orders", true).await.unwrap()).await;
    assert_eq!(rows.len(), 2);
    assert_eq!(end, End::Failed("org.example.StreamsException: a record could not be read".to_owned()));
}

#[tokio::test]
async fn a_cut_and_a_silent_end_are_interruptions_and_half_a_row_is_none() {
    let world = World::start().await;
    (1..=9).for_each(|id| world.order(id, "a", "1"));
    let interrupted = |end: &End| matches!(end, End::Interrupted(_));

    world.switch(Switches { end_after_rows: Some(2), ..Switches::default() });
    let (_, rows, end) = all(world.query("SELECT * FROM orders", true).await.unwrap()).await;
    assert!(rows.len() == 2 && interrupted(&end), "{end:?}");

    world.switch(Switches { cut_after_bytes: Some(260), ..Switches::default() });
    let (_, rows, end) = all(world.query("SELECT * FROM orders", true).await.unwrap()).await;
    assert!((1..9).contains(&rows.len()) && interrupted(&end), "{} rows, {end:?}", rows.len());
    assert!(rows.iter().all(|row| row.values.len() == 3));
}

#[tokio::test]
async fn a_killed_server_interrupts() {
    let mut world = World::start().await;
    world.order(1, "a", "1");
    let mut rows = world.query("SELECT * FROM orders", true).await.unwrap();
    next(&mut rows).await;
    next(&mut rows).await;
    world.server.kill_hard().unwrap();
    let Item::End(end) = next(&mut rows).await else { panic!("an end") };
    assert!(matches!(end, End::Interrupted(_)), "{end:?}");
}

#[tokio::test]
async fn a_query_that_nobody_reads_ends_within_two_seconds() {
    let world = World::start().await;
    let mut rows = world.query("SELECT * FROM orders", true).await.unwrap();
    next(&mut rows).await;
    assert_eq!(world.server.live().unwrap().len(), 1);

    let begun = Instant::now();
    drop(rows);
    world.no_push_query_is_left().await;

    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_reader_that_takes_nothing_does_not_outlive_its_time() {
    let world = World::start().await;
    // More than wait for a reader: the next one can't be handed on.
    let values: Vec<String> = (1..=600).map(|id| format!("{{\"order_id\":{id}}}")).collect();
    produce_all(&world.source.topic, &values.iter().map(|value| (None, Some(value.as_str()))).collect::<Vec<_>>());
    let select = world.gated("SELECT * FROM orders", Kind::AdHoc { pull: false });
    let time_limit = Duration::from_millis(500);
    let rows = world.engine.query(AdHoc { id: "q".repeat(32), select, from_start: true, time_limit }).await.unwrap();
    world.no_push_query_is_left().await;
    assert_eq!(all(rows).await.2, End::Limit);
}

#[tokio::test]
async fn each_query_has_a_connection_of_its_own_and_its_end_is_asked_for_by_id() {
    let world = World::start().await;
    let mut first = world.query("SELECT * FROM orders", true).await.unwrap();
    let mut second = world.query("SELECT * FROM orders", true).await.unwrap();
    next(&mut first).await;
    next(&mut second).await;
    let asked = world.server.asked().unwrap();
    let ports: Vec<u16> =
        asked.iter().filter(|asked| asked.what.ends_with("/query-stream")).map(|asked| asked.from).collect();
    assert!(ports.len() == 2 && ports[0] != ports[1], "{ports:?}");

    drop(first);
    crate::support::until("the request to end it", || async {
        (world.sent("TERMINATE transient_").len() == 1).then_some(())
    })
    .await;
    world.order(1, "goes on", "1");
    assert!(matches!(next(&mut second).await, Item::Row(_)));
}

#[tokio::test]
async fn an_end_from_outside_is_a_cancellation() {
    let world = World::start().await;
    let mut rows = world.query("SELECT * FROM orders", true).await.unwrap();
    next(&mut rows).await;
    let id = world.server.live().unwrap().remove(0);
    let (status, answer) = world.by_hand(&format!("TERMINATE {id};")).await;
    assert_eq!((status, answer[0]["wasTerminated"].as_bool()), (200, Some(true)));
    assert_eq!(next(&mut rows).await, Item::End(End::Cancelled));
}

#[tokio::test]
async fn the_limit_of_push_queries_says_busy_and_a_place_is_free_again() {
    let world = World::start().await;
    world.switch(Switches { max_push_queries: 1, ..Switches::default() });
    let mut first = world.query("SELECT * FROM orders", true).await.unwrap();
    next(&mut first).await;
    let Err(Trouble::Busy { reason, .. }) = world.query("SELECT * FROM orders", true).await else { panic!("busy") };
    assert!(reason.contains("limit: 1") && !reason.contains("Statement:"), "{reason}");
    drop(first);
    world.no_push_query_is_left().await;
    let mut third = world.query("SELECT * FROM orders", true).await.unwrap();
    assert!(matches!(next(&mut third).await, Item::Header { .. }));
}
