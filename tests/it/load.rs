//! `streamview load`: an empty build filled in bulk is the build that `serve` would have made.

use crate::drain::cut_before_a_gap;
use crate::support::instance::Instance;
use crate::support::orders::{TestEvent, created, item_added, life, oracle, status_changed, stored};
use crate::support::world::{TestRecord, World};
use crate::support::{PATIENCE, until};

/// Indexes and constraints of the build's tables, and what the planner may believe of them.
async fn physique(world: &World) -> Vec<String> {
    let query = "select indexdef from pg_indexes where schemaname = 'orders_1' \
                 union all select conname || ' ' || pg_get_constraintdef(oid) from pg_constraint \
                 where connamespace = 'orders_1'::regnamespace order by 1";
    world.sql.query(query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn load(world: &World, arguments: &[&str]) -> (bool, String) {
    let command: Vec<&str> = ["load"].iter().chain(arguments).copied().collect();
    let instance = world.launch_command(&command, &[]);
    (instance.until_ended().await.success(), instance.log_text())
}

/// Lives of orders with everything that can go wrong: repeated, late, missing, unreadable, conflicting events.
fn careless() -> Vec<TestRecord> {
    let mut records = Vec::new();
    for number in 0..60 {
        let events = life(&format!("o-{number}"), 6);
        let mut part: Vec<TestRecord> = events.iter().map(TestEvent::record).collect();
        match number % 6 {
            1 => part.insert(3, events[1].record()),
            2 => part.swap(2, 4),
            3 => drop(part.remove(2)),
            4 => part[3].payload = Some(b"{".to_vec()),
            5 => part.push(status_changed(&format!("o-{number}"), 6, "Lost").record()),
            _ => {}
        }
        records.extend(part);
    }
    records
}

/// Everything that a build consists of, but for times of the wall clock and ids of letters.
async fn control(world: &World) -> Vec<String> {
    let query = "select to_jsonb(p) - 'updated_at' - 'owner' - 'owner_epoch' - 'commits' - 'topic' - 'topic_id' from projection_progress p \
                 union all select to_jsonb(h) - 'since' - 'watched_ends' - 'proven_at' - 'topic' from held_keys h \
                 union all select to_jsonb(e) - 'parked_at' - 'topic' - 'record_timestamp' from parked_events e \
                 union all select to_jsonb(d) - 'id' - 'created_at' - 'published_at' - 'topic' - 'record_timestamp' \
                 from dead_letters d";
    let rows = world.sql.query(&format!("select j::text from ({query}) all_rows (j) order by 1"), &[]).await.unwrap();
    let timeless = |text: String| {
        let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
        for field in ["last_record_timestamp", "anchor_timestamp"] {
            if let Some(object) = value.as_object_mut() {
                object.remove(field);
            }
        }
        value.to_string()
    };
    rows.iter().map(|row| timeless(row.get(0))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loaded_build_is_the_one_that_serve_makes_and_serve_goes_on_with_it() {
    let (loaded, served) = (World::new(3).await, World::new(3).await);
    let before = physique(&loaded).await;
    for world in [&loaded, &served] {
        let spread = careless().into_iter().map(|record| {
            let order: i32 = String::from_utf8_lossy(&record.key.clone().unwrap())[2..].parse().unwrap();
            TestRecord { partition: Some(order % 3), ..record }
        });
        world.publish(spread).await;
    }
    let records = careless().len() as i64;
    let instance = served.start().await;
    served.until_consumed(records).await;

    let (is_done, log) = load(&loaded, &[]).await;
    assert!(is_done, "{log}");
    assert!(log.contains(&format!("view orders: {records} records, ")), "{log}");

    assert_eq!(stored(&loaded).await, stored(&served).await);
    assert_eq!(control(&loaded).await, control(&served).await);
    assert_eq!(physique(&loaded).await, before);
    drop(instance);

    // What was missing of o-3 arrives; o-0 goes on.
    let after = loaded.start().await;
    let heals = life("o-3", 6)[2].record_on(0);
    loaded.publish([heals, status_changed("o-0", 7, "Closed").record_on(0)]).await;
    assert_eq!(after.order_at("o-3", 6).await["held"], serde_json::Value::Null);
    assert_eq!(after.order_at("o-0", 7).await["status"], "Closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_is_told_to_stop_ends_in_order_with_the_code_of_the_signal() {
    let world = World::new(1).await;
    let events: Vec<TestEvent> = (0..20).flat_map(|number| life(&format!("o-{number}"), 4)).collect();
    world.publish(events.iter().map(TestEvent::record)).await;
    let loading = world.launch_command(&["load"], &[("STREAMVIEW_STOP_AT", "load.stripped")]);
    loading.until_stopped().await;
    // It hears of it as soon as it goes on, before it has read anything.
    loading.signal("TERM");
    loading.signal("CONT");

    let status = loading.until_ended().await;

    let log = loading.log_text();
    assert_eq!(status.code(), Some(143), "{status}: {log}");
    assert!(log.contains("error: stopped by a signal: the load was called off"), "{log}");
    let (is_done, log) = load(&world, &[]).await;
    assert!(is_done, "{log}");
    assert_eq!(stored(&world).await, oracle(&events));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_was_cut_short_keeps_everybody_out_and_begins_anew() {
    let world = World::new(1).await;
    let events: Vec<TestEvent> = (0..20).flat_map(|number| life(&format!("o-{number}"), 4)).collect();
    world.publish(events.iter().map(TestEvent::record)).await;
    let before = physique(&world).await;
    for point in ["load.stripped", "commit.done", "load.written", "load.dressed"] {
        let instance = world.launch_command(&["load"], &[("STREAMVIEW_CRASH_AT", point)]);
        assert!(Instance::was_killed(instance.until_ended().await), "{point}: {}", instance.log_text());
    }
    let waiting = world.launch(&[]);
    until("serve says why it waits", PATIENCE, || async {
        let log = waiting.log_text();
        (log.contains("waiting_for_database") && log.contains("is being loaded in bulk since")).then_some(())
    })
    .await;

    let (is_done, log) = load(&world, &[]).await;

    assert!(is_done && !log.contains("are left for"), "{log}");
    assert_eq!(stored(&world).await, oracle(&events));
    assert_eq!(physique(&world).await, before);
    // Whoever waited goes on by itself.
    world.publish([status_changed("o-7", 5, "Closed").record()]).await;
    waiting.order_at("o-7", 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_empty_build_is_loaded() {
    let world = World::new(1).await;
    let events = life("o-1", 3);
    world.publish(events.iter().map(TestEvent::record)).await;
    let instance = world.start().await;
    world.until_consumed(3).await;
    let (is_done, log) = load(&world, &[]).await;
    assert!(!is_done && log.contains("build 1 of view orders is not empty, 3 records were applied to it"), "{log}");
    let (is_done, log) = load(&world, &["--discard"]).await;
    assert!(!is_done && log.contains("build 1 of view orders is not being loaded: nothing was done"), "{log}");
    let (is_done, log) = load(&world, &["--view", "parcels"]).await;
    assert!(!is_done && log.contains("there is no view parcels; known: orders"), "{log}");
    world.publish([item_added("o-1", 4).record()]).await;
    instance.order_at("o-1", 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_two_orders_share_ends_a_load_and_serve_tells_which_event_to_refuse() {
    let world = World::new(1).await;
    let first = created("o-1");
    let second = created("o-2").with("eventId", first.event_id().into());
    world.publish([first.record(), second.record()]).await;
    // In two batches the fold alone does not see it.
    let (is_done, log) = load(&world, &["--set", "projector.max_batch_events=1"]).await;
    assert!(!is_done && log.contains("If an event id is the latest of two orders"), "{log}");
    let (is_done, log) = load(&world, &["--discard"]).await;
    assert!(is_done && log.contains("the tables of build 1 are empty again"), "{log}");
    let instance = world.start().await;
    world.until_consumed(2).await;
    assert_eq!(instance.refusal("/orders/o-2", 404).await["held"]["reason"], "event_id_reused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_ends_early_when_its_keys_need_more_memory_than_allowed() {
    let world = World::new(1).await;
    let events: Vec<TestEvent> = (0..6_000).map(|number| created(&format!("o-{number}"))).collect();
    world.publish(events.iter().map(TestEvent::record)).await;
    let (is_done, log) = load(&world, &["--memory", "1", "--set", "projector.max_batch_events=200"]).await;
    assert!(is_done && log.contains("the keys needed more than --memory 1: "), "{log}");
    let loaded = world.consumed().await;
    assert!((1_000..6_000).contains(&loaded), "{loaded}");
    let instance = world.start().await;
    world.until_consumed(6_000).await;
    assert_eq!(stored(&world).await, oracle(&events));
    drop(instance);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_ends_whose_drain_is_cut_before_the_next_gap() {
    let world = World::new(1).await;
    let events = cut_before_a_gap("o-1");
    world.publish(events.iter().map(TestEvent::record)).await;
    let (is_done, log) = load(&world, &["--set", "projector.max_batch_events=2"]).await;
    assert!(is_done && log.contains("view orders: 5 records, "), "{log}");
    assert_eq!(stored(&world).await, oracle(&events));
    let hold = world.row("select missing_from, missing_to, parked_count from held_keys").await;
    assert_eq!((hold.get::<_, i64>(0), hold.get::<_, Option<i64>>(1), hold.get::<_, i32>(2)), (5, Some(5), 1));
}
