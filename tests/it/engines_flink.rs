//! What only Flink does, with a real one: rules of ours that stand on what it was seen to do.

use std::collections::BTreeMap;
use std::time::Duration;

use streamview::manager::catalog::{Column, EventTime, Format, Source};
use streamview::manager::engines::{
    Changes, Deployment, End, Engine, Handle, Item, ObservedState, RestorePoint, StopMode, Stopped, Trouble,
};

use crate::support::bench::{Stand, next};
use crate::support::flink::{bench, bench_of, engine, settings, shared};
use crate::support::world::{TestRecord, World};
use crate::support::{PATIENCE, until};

async fn stand() -> Stand {
    let world = World::new(1).await;
    let bench = bench(&world).await;
    Stand::new(bench, world).await
}

/// Stops `old`, and runs `new` from there as the second revision.
async fn swap(stand: &Stand, old: &Deployment, new: &str) -> Deployment {
    let mut next = stand.plan(&old.definition, 2, stand.persistent(new)).await;
    assert_eq!(stand.engine().keeps_state(&old.select, &next.select).await, Ok(()), "{new}");
    let handle = stand.engine().deploy(old).await.unwrap();
    let Stopped::At(point) = stand.engine().stop(old, &handle, StopMode::KeepState).await.unwrap() else { panic!() };
    next.restore = Some(point);
    next
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_is_added_keeps_the_state() {
    let stand = stand().await;
    stand.publish([(1, "a", "1"), (2, "b", "1")]).await;
    let old = stand.plan_new("SELECT order_id, customer FROM orders").await;
    stand.engine().deploy(&old).await.unwrap();
    assert_eq!(stand.until_output(&old, 2).await, [1, 2]);
    let new = swap(&stand, &old, "SELECT order_id, customer FROM orders WHERE amount > 50").await;
    let handle = stand.engine().deploy(&new).await.unwrap();
    stand.publish([(3, "a", "1"), (4, "b", "60")]).await;
    assert_eq!(stand.until_output(&new, 3).await, [1, 2, 4]);
    stand.engine().remove(&handle, &[]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_on_all_columns_moves_the_steps_behind_it_as_the_rule_says() {
    let stand = stand().await;
    let old = stand.plan_new("SELECT order_id, customer, amount FROM orders").await;
    let handle = stand.engine().deploy(&old).await.unwrap();
    let Stopped::At(point) = stand.engine().stop(&old, &handle, StopMode::KeepState).await.unwrap() else { panic!() };
    let text = "SELECT order_id, customer, amount FROM orders WHERE amount > 50";
    let new = stand.plan(&old.definition, 2, stand.persistent(text)).await;
    assert!(stand.engine().keeps_state(&old.select, &new.select).await.unwrap_err().contains("filters"));
    let refused = stand.engine().deploy(&Deployment { restore: Some(point), ..new }).await.unwrap_err();
    assert!(
        matches!(refused, Trouble::Refused(_)),
        "Flink does not take it, and the rule is not too strict: {refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_that_get_a_filter_count_on() {
    let stand = stand().await;
    stand.publish([(1, "a", "1"), (2, "a", "1")]).await;
    let old =
        stand.plan_new("SELECT customer, COUNT(*) AS n, SUM(amount) AS total FROM orders GROUP BY customer").await;
    stand.engine().deploy(&old).await.unwrap();
    let last = |deployment: Deployment| {
        let output = stand.output(&deployment);
        output.last().map(|row| (row["n"].as_u64().unwrap(), row["total"].to_string()))
    };
    until("both are counted", PATIENCE * 2, || async { (last(old.clone())?.0 == 2).then_some(()) }).await;
    let text = "SELECT customer, COUNT(*) AS n, SUM(amount) AS total FROM orders WHERE order_id > 0 GROUP BY customer";
    let new = swap(&stand, &old, text).await;
    let handle = stand.engine().deploy(&new).await.unwrap();
    stand.publish([(-3, "a", "1"), (4, "a", "1")]).await;
    until("the third is counted", PATIENCE * 2, || async { (last(new.clone())?.0 == 3).then_some(()) }).await;
    assert_eq!(last(new).unwrap().1.parse::<f64>().unwrap(), 3.0);
    stand.engine().remove(&handle, &[]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_flink_refuses_is_told_and_the_old_text_goes_on() {
    let stand = stand().await;
    stand.publish([(1, "a", "1"), (2, "a", "1")]).await;
    let old = stand.plan_new("SELECT customer, COUNT(*) AS n FROM orders GROUP BY customer").await;
    let handle = stand.engine().deploy(&old).await.unwrap();
    until("both are counted", PATIENCE * 2, || async { (stand.output(&old).last()?["n"] == 2).then_some(()) }).await;
    let Stopped::At(point) = stand.engine().stop(&old, &handle, StopMode::KeepState).await.unwrap() else { panic!() };

    // Somebody accepted the risk.
    let text = "SELECT customer, COUNT(*) AS n, MAX(amount) AS most FROM orders GROUP BY customer";
    let mut new = stand.plan(&old.definition, 2, stand.persistent(text)).await;
    assert!(stand.engine().keeps_state(&old.select, &new.select).await.is_err());
    new.restore = Some(point.clone());
    let refused = stand.engine().deploy(&new).await.unwrap_err();
    assert!(matches!(refused, Trouble::Refused(_)), "{refused:?}");

    let back = Deployment { attempt: 2, restore: Some(point.clone()), ..old.clone() };
    let handle = stand.engine().deploy(&back).await.unwrap();
    stand.publish([(3, "a", "1")]).await;
    until("it counts on", PATIENCE * 2, || async { (stand.output(&back).last()?["n"] == 3).then_some(()) }).await;
    stand.engine().remove(&handle, std::slice::from_ref(&point)).await.unwrap();
    let path = point.path.strip_prefix("file:").unwrap();
    assert!(!std::path::Path::new(path).exists(), "the savepoint is deleted: {path}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_change_without_a_key_can_be_looked_at_and_not_deployed() {
    let stand = stand().await;
    let select = stand.persistent("SELECT COUNT(*) AS n FROM orders");
    let explained = stand.engine().explain(&select).await.unwrap();
    assert_eq!(explained.changes, Changes::Upsert);
    assert_eq!(explained.only_adhoc.unwrap().code, "no_key");
    // The last of each customer has one.
    let last = "SELECT order_id, customer FROM (SELECT order_id, customer, ROW_NUMBER() OVER (PARTITION BY customer ORDER BY \
                order_id DESC) AS place FROM orders) WHERE place = 1";
    let explained = stand.engine().explain(&stand.persistent(last)).await.unwrap();
    assert_eq!((explained.changes, explained.only_adhoc), (Changes::Upsert, None), "{}", explained.plan);

    stand.publish([(1, "a", "1"), (2, "a", "1")]).await;
    let query = stand.ad_hoc("SELECT COUNT(*) AS n FROM orders", true);
    let mut rows = stand.engine().query(query).await.unwrap();
    assert!(matches!(next(&mut rows).await, Item::Header { .. }));
    let mut count = 0;
    while count < 2 {
        let Item::Row(row) = next(&mut rows).await else { panic!("a row comes") };
        count = row.values[0].as_u64().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_go_by_the_event_time_of_the_source() {
    let mut stand = stand().await;
    let column = |name: &str, data_type: &str| Column {
        name: name.to_owned(),
        data_type: data_type.parse().unwrap(),
        nullable: true,
    };
    stand.source = Source {
        columns: vec![column("order_id", "bigint"), column("ts", "timestamp(6)")],
        event_time: Some(EventTime { column: "ts".to_owned(), delay_ms: 1_000 }),
        table: None,
        ..stand.source
    };
    let event = |order: i64, second: u32| TestRecord {
        payload: Some(format!(r#"{{"order_id": {order}, "ts": "2026-01-01T00:00:{second:02}.250000Z"}}"#).into_bytes()),
        ..TestRecord::default()
    };
    stand.world.publish([event(1, 0), event(2, 4), event(3, 5), event(4, 12)]).await;
    let table = stand.source.name.clone();
    let text = format!(
        "SELECT window_start, COUNT(*) AS n FROM TABLE(TUMBLE(TABLE {table}, DESCRIPTOR(ts), INTERVAL '5' SECOND)) \
         GROUP BY window_start, window_end LIMIT 2"
    );
    let mut rows = stand.engine().query(stand.ad_hoc(&text, true)).await.unwrap();
    assert!(matches!(next(&mut rows).await, Item::Header { .. }));
    let mut counts = BTreeMap::new();
    for _ in 0..2 {
        let Item::Row(row) = next(&mut rows).await else { panic!("a row comes") };
        counts.insert(row.values[0].as_str().unwrap().to_owned(), row.values[1].as_u64().unwrap());
    }
    let seconds: Vec<(&str, u64)> = counts.iter().map(|(start, n)| (&start[11..19], *n)).collect();
    assert_eq!(seconds, [("00:00:00", 2), ("00:00:05", 1)]);
    assert_eq!(next(&mut rows).await, Item::End(End::Limit));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_dropped_while_it_begins_leaves_no_job() {
    let stand = stand().await;
    for wait in [0, 20, 60, 120, 200, 350] {
        let query = stand.ad_hoc("SELECT order_id FROM orders", true);
        let begun = stand.bench.engine.query(query.clone());
        // Planning takes some 50 to 300 ms: it is dropped in the midst of it.
        let dropped = tokio::time::timeout(Duration::from_millis(wait), begun).await;
        drop(dropped);
        until("the job is over, or never was", PATIENCE, || async {
            (stand.bench.is_over)(query.id.clone()).await.then_some(())
        })
        .await;
        // A job that was on its way turns up after that, and ends.
        let sentinel = stand.ad_hoc("SELECT order_id FROM orders", true);
        let rows = stand.engine().query(sentinel).await.unwrap();
        drop(rows);
        until("no job turns up later", PATIENCE, || async {
            (stand.bench.is_over)(query.id.clone()).await.then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_in_avro_are_read_through_the_registry() {
    let Some(registry) = crate::support::registry::shared() else { return };
    let mut stand = stand().await;
    let schema = r#"{"type": "record", "name": "Order", "fields": [
        {"name": "order_id", "type": "long"}, {"name": "customer", "type": "string"},
        {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 2}},
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}"#;
    let id = crate::support::registry::register(
        registry,
        &format!("{}-value", stand.world.topic),
        streamview::schemas::subjects::Format::Avro,
        schema,
    )
    .await;
    stand.source.format = Format::Avro;
    stand.source.columns.push(Column {
        name: "ts".to_owned(),
        data_type: "timestamp".parse().unwrap(),
        nullable: true,
    });
    let mut settings = settings(shared(), &stand.world.kafka);
    settings.registry_url = registry.to_owned();
    let flink = engine(settings);

    let event = serde_json::json!({"order_id": 7, "customer": "a", "amount": "12.5", "ts": "2026-01-01T00:00:00.250Z"});
    let body = crate::support::registry::avro_body(&apache_avro::Schema::parse_str(schema).unwrap(), None, &event);
    let payload = Some(crate::support::registry::framed(id, body));
    stand.world.publish([TestRecord { payload, ..TestRecord::default() }]).await;

    let query = stand.ad_hoc("SELECT order_id, customer, amount, ts FROM orders LIMIT 1", true);
    let mut rows = flink.query(query).await.unwrap();
    assert!(matches!(next(&mut rows).await, Item::Header { .. }));
    let row = next(&mut rows).await;
    let Item::Row(row) = row else { panic!("{row:?}") };
    assert_eq!(serde_json::Value::from(row.values), serde_json::json!([7, "a", "12.50", "2026-01-01T00:00:00.25"]));
}

/// The file behind a path of Flink's storage.
fn metadata(point: &RestorePoint) -> std::path::PathBuf {
    std::path::PathBuf::from(point.path.trim_start_matches("file:")).join("_metadata")
}

/// Stops with state, and begins the second attempt from there.
async fn begun_from_a_savepoint(stand: &Stand) -> (Deployment, Handle, RestorePoint) {
    let first = stand.plan_new("SELECT order_id, customer FROM orders").await;
    let handle = stand.engine().deploy(&first).await.unwrap();
    let Stopped::At(point) = stand.engine().stop(&first, &handle, StopMode::KeepState).await.unwrap() else { panic!() };
    let next = Deployment { attempt: 2, restore: Some(point.clone()), ..first };
    let handle = stand.engine().deploy(&next).await.unwrap();
    (next, handle, point)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_final_stop_deletes_no_state_that_it_did_not_make() {
    let stand = stand().await;
    let (deployment, handle, point) = begun_from_a_savepoint(&stand).await;
    // By hand, so that there is nothing to drain: what it wrote down last and what it began with stay.
    let rest = format!("{}/jobs/{}?mode=cancel", shared().rest_url(), handle.job_id);
    reqwest::Client::new().patch(rest).send().await.unwrap();
    let stopped = stand.engine().stop(&deployment, &handle, StopMode::Final).await.unwrap();
    assert_eq!(stopped, Stopped::WithoutState);
    assert!(metadata(&point).exists(), "{point:?}");
    let kept = stand.engine().checkpoint(&handle.job_id).await.unwrap().points;
    assert!(kept.iter().all(|point| metadata(point).exists()), "{kept:?}");

    let last = stand.engine().stop(&deployment, &handle, StopMode::KeepState).await.unwrap();
    assert_eq!(Some(last), kept.first().cloned().map(Stopped::At));
    stand.engine().remove(&handle, std::slice::from_ref(&point)).await.unwrap();
    assert!(kept.iter().chain([&point]).all(|point| !metadata(point).exists()), "they go with the definition");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_final_stop_after_a_stop_with_state_gives_its_savepoint() {
    let stand = stand().await;
    let deployment = stand.plan_new("SELECT order_id, customer FROM orders").await;
    let handle = stand.engine().deploy(&deployment).await.unwrap();
    let stopped = stand.engine().stop(&deployment, &handle, StopMode::KeepState).await.unwrap();
    let Stopped::At(point) = &stopped else { panic!("{stopped:?}") };
    assert_eq!(stand.engine().stop(&deployment, &handle, StopMode::Final).await.unwrap(), stopped);
    assert!(metadata(point).exists());
    stand.engine().remove(&handle, std::slice::from_ref(point)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_final_stop_needs_no_place_for_savepoints() {
    let world = World::new(1).await;
    let mut settings = settings(shared(), &world.kafka);
    settings.savepoint_dir = "file:///proc/nowhere".to_owned();
    let stand = Stand::new(bench_of(engine(settings)), world).await;
    let deployment = stand.plan_new("SELECT order_id, customer FROM orders").await;
    let handle = stand.engine().deploy(&deployment).await.unwrap();
    let stopped = stand.engine().stop(&deployment, &handle, StopMode::Final).await.unwrap();
    assert_eq!(stopped, Stopped::WithoutState);
    assert_eq!(stand.observed(&handle.job_id).await, ObservedState::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checkpoints_before_the_last_one_are_kept_too() {
    let stand = stand().await;
    let deployment = stand.plan_new("SELECT order_id, customer FROM orders").await;
    let handle = stand.engine().deploy(&deployment).await.unwrap();
    let points = until("three checkpoints are kept", PATIENCE, || async {
        let kept = stand.engine().checkpoint(&handle.job_id).await.unwrap();
        assert!(!kept.is_failing);
        (kept.points.len() >= 3).then_some(kept.points)
    })
    .await;
    assert!(points.iter().all(|point| metadata(point).exists()), "{points:?}");
    stand.engine().remove(&handle, &[]).await.unwrap();
}
