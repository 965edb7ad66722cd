//! Times and numbers at the ends of their ranges: what can be stored can be read, and one odd value takes nothing else away.

use serde_json::{Value, json};

use crate::support::instance::Instance;
use crate::support::orders::{created, item_added, life};
use crate::support::servers::shared;
use crate::support::world::{KEPT_FOR_EVER, TestRecord, World};
use crate::support::{PATIENCE, until};

const LATER: i64 = 1_767_225_600_000;

/// Microseconds and nanoseconds taken for milliseconds; before Postgres' calendar; the ends of what fits and what does not.
const ODD: [i64; 6] =
    [LATER * 1_000, LATER * 1_000_000, i64::MAX, -210_866_803_200_001, 253_402_207_201_000, i64::MAX / 1_000];

/// A world whose topic lets producers say any time.
async fn world_of_any_time(partitions: i32) -> World {
    let any = i64::MAX.to_string();
    let [after, before] =
        ["message.timestamp.after.max.ms", "message.timestamp.before.max.ms"].map(|name| (name, any.as_str()));
    let settings = [after, before, KEPT_FOR_EVER];
    World::on(&shared().kafka, &shared().database, partitions, &settings).await
}

async fn lag_of(instance: &Instance, partition: usize) -> Value {
    instance.json("/ops/lags").await["partitions"][partition].clone()
}

/// Waits until the observer has seen the end of every partition.
async fn until_observed(instance: &Instance, next_offset: i64) {
    until("the lags are observed", PATIENCE, || async {
        let lags = instance.json("/ops/lags").await;
        let partitions = lags["partitions"].as_array().unwrap();
        let all = partitions.iter().all(|partition| partition["nextOffset"] == next_offset && partition["lag"] == 0);
        (all && !partitions.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_time_of_no_calendar_disturbs_nobody_and_is_counted() {
    let world = world_of_any_time(ODD.len() as i32).await;
    let instance = world.start().await;
    for (partition, odd) in ODD.into_iter().enumerate() {
        let events = life(&format!("o-{partition}"), 2);
        let times = [Some(LATER), Some(odd)];
        let records = events.iter().map(|event| event.record_on(partition as i32)).zip(times);
        world.publish_at(&world.topic, records).await;
    }
    world.until_consumed(2 * ODD.len() as i64).await;

    until_observed(&instance, 2).await;
    instance.until_ready().await;
    // A negative time is taken for none.
    let odd = ODD.iter().filter(|time| **time >= 0).count();
    instance.until_metric("streamview_odd_record_times_total", &[], odd as f64).await;
    assert_eq!(world.number("select count(*) from dead_letters").await, 0);
    // Neither a restart nor a process that only reads minds it.
    instance.stop().await;
    let api = world.launch_command(&["serve", "--only", "api"], &[]);
    let instance = world.start().await;
    until_observed(&instance, 2).await;
    api.until_ready().await;
    until_observed(&api, 2).await;
    assert!(lag_of(&api, 0).await["lagSeconds"].is_number());
    world.publish([item_added("o-0", 3).record_on(0)]).await;
    instance.order_at("o-0", 3).await;
    instance.until_running().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_and_parked_records_of_odd_times_are_shown_and_answered() {
    let world = world_of_any_time(1).await;
    let instance = world.start().await;
    let broken = TestRecord { payload: Some(b"{ broken".to_vec()), ..item_added("o-1", 2).record() };
    let records = ODD.into_iter().enumerate().flat_map(|(number, odd)| {
        let refused = TestRecord { key: Some(format!("o-{number}").into_bytes()), ..broken.clone() };
        let (first, ahead) = (created(&format!("o-{number}")).record(), item_added(&format!("o-{number}"), 3).record());
        [(first, Some(odd)), (refused, Some(odd)), (ahead, Some(odd))]
    });
    world.publish_at(&world.topic, records).await;
    world.until_consumed(3 * ODD.len() as i64).await;

    let letters = instance.json("/ops/dead-letters").await;
    assert_eq!(letters["items"].as_array().unwrap().len(), ODD.len());
    for letter in letters["items"].as_array().unwrap() {
        assert_eq!(letter["recordTime"], json!(null), "{letter}");
        instance.json(&format!("/ops/dead-letters/{}", letter["id"])).await;
    }
    for number in 0..ODD.len() {
        let held = instance.json(&format!("/ops/held/o-{number}")).await;
        assert_eq!(held["parked"].as_array().unwrap().len(), 1, "{held}");
        instance.posted(&format!("/ops/held/o-{number}/skip"), &json!({ "reason": "lost" }), 202).await;
        instance.order_at(&format!("o-{number}"), 3).await;
    }
    instance.until_metric("streamview_dead_letters_unpublished", &[], 0.0).await;
    assert_eq!(world.dead_letters_on_topic().len(), ODD.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_holds_a_time_of_no_calendar_is_read_and_healed() {
    let world = World::new(3).await;
    let instance = world.start().await;
    for partition in 0..3 {
        world.publish([created(&format!("o-{partition}")).record_on(partition)]).await;
    }
    world.until_consumed(3).await;
    // As an earlier version has stored them.
    for (partition, time) in [(0, "58000-01-01"), (1, "infinity"), (2, "-infinity")] {
        let store =
            format!("update projection_progress set last_record_timestamp = '{time}' where partition = {partition}");
        world.sql.batch_execute(&store).await.unwrap();
    }

    instance.stop().await;
    let instance = world.start().await;

    until_observed(&instance, 1).await;
    instance.until_running().await;
    let heal = include_str!("../../migrations/V010__sources.sql").split("\n\n").last().unwrap();
    assert!(heal.contains("update projection_progress"), "{heal}");
    world.sql.batch_execute(heal).await.unwrap();
    assert_eq!(
        world.number("select count(*) from projection_progress where last_record_timestamp is not null").await,
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_of_38_digits_are_read_again_after_a_restart() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let most = json!("999999999999999999");
    let first = created("o-1").record();
    let huge = item_added("o-1", 2).with("qty", most).with("price", json!("99999999999999999.99")).record();
    world.publish([first, huge]).await;
    let before = instance.order_at("o-1", 2).await;
    instance.stop().await;

    let instance = world.start().await;
    world.publish([item_added("o-1", 3).record()]).await;
    let order = instance.order_at("o-1", 3).await;

    let digits = |order: &Value| order["totalNet"].as_str().unwrap().bytes().filter(u8::is_ascii_digit).count();
    assert!(digits(&before) >= 37 && digits(&order) >= 37, "{order}");
    assert_eq!(order["items"][0], before["items"][0]);
    instance.until_running().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn event_times_at_the_ends_of_the_calendar_are_shown_or_refused() {
    let world = World::new(1).await;
    let instance = world.start().await;
    for (number, time) in
        ["0001-01-01T00:00:00Z", "9999-12-30T22:00:00.999999Z", "0000-01-01T00:00:00Z"].iter().enumerate()
    {
        world.publish([created(&format!("o-{number}")).with("occurredAt", json!(time)).record()]).await;
    }
    world.until_consumed(3).await;
    let refused = world.number("select count(*) from dead_letters").await;
    let shown = instance.json("/orders?pageSize=10").await["items"].as_array().unwrap().len() as i64;
    assert_eq!(shown + refused, 3);
    for path in ["/orders/o-0", "/orders/o-0/events", "/orders/o-1", "/orders/o-1/events", "/orders?sort=-updatedAt"] {
        instance.json(path).await;
    }
    for query in ["from=-009999-01-02T01:59:59Z", "to=-004713-01-01T00:00:00Z", "from=9999-12-30T22:00:00Z"] {
        let status = instance.get(&format!("/orders?{query}")).await.status().as_u16();
        assert!(status < 500, "{query}: {status}");
    }
}
