//! Parts that die: nothing goes on in silence without one of them.

use futures_util::{StreamExt, stream};

use crate::support::instance::Instance;
use crate::support::orders::{TestEvent, created, item_added, life};
use crate::support::world::World;
use crate::support::{PATIENCE, until};

/// Starts an instance whose part panics at that point, and waits for the halt.
async fn halted_by(world: &World, point: &str, part: &str, settings: &[(&str, &str)]) -> Instance {
    let instance = world.launch(&[settings, &[("STREAMVIEW_PANIC_AT", point)]].concat());
    instance.until_serving().await;
    world.publish([created("o-1").record(), item_added("o-1", 3).record()]).await;
    let mut broken = item_added("o-2", 1).record();
    broken.payload = Some(b"{ broken".to_vec());
    world.publish([broken]).await;
    instance.until_halted("part_ended").await;
    let consumer = &instance.json("/ops/consumer").await["views"][0];
    let detail = consumer["halt"]["detail"].as_str().unwrap();
    let name = point.split(':').next().unwrap();
    assert!(detail.starts_with(&format!("{part} ")) && detail.contains(name), "{point}: {detail}");
    assert!(consumer["halt"]["nextStep"].as_str().unwrap().contains("report it"), "{consumer}");
    let ready = instance.get("/readyz").await.text().await.unwrap();
    assert!(ready.contains(&format!("halted, part_ended: {part} ")), "{point}: {ready}");
    until("its partitions are let go", PATIENCE, || async {
        let partitions = &instance.json("/ops/consumer").await["views"][0]["partitions"];
        partitions.as_array().unwrap().is_empty().then_some(())
    })
    .await;
    assert!(instance.log_text().contains("view halted"), "{}", instance.log_text());
    instance
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_dies_halts_the_view_by_name() {
    let world = World::new(1).await;
    let instance = halted_by(&world, "commit.fenced:1", "lane 0", &[]).await;

    // Its transaction died with it; a restart, as the halt says, goes on where it was.
    instance.stop().await;
    let restarted = world.start().await;
    restarted.order_at("o-1", 1).await;
    world.publish(life("o-3", 3).iter().map(TestEvent::record)).await;
    restarted.order_at("o-3", 3).await;
    let [consumed, applied, ..] = world.conservation().await;
    assert_eq!((consumed, applied), (6, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_part_that_dies_halts_the_view_by_name() {
    let parts = [
        ("part.reader:3", "reader 0"),
        ("part.poll:3", "poll thread"),
        ("part.guard:1", "log guard"),
        ("relay.claimed:1", "relay"),
        ("part.observer:3", "observer"),
        ("part.keeper:2", "keeper"),
        ("assign.acquired:1", "coordinator"),
        ("part.takeover:1", "takeover"),
        ("part.identity:1", "identity check"),
        ("part.gap_policy:1", "gap policy"),
        ("part.steward:3", "steward"),
    ];
    let deaths = parts.map(|(point, part)| async move {
        let world = World::new(1).await;
        // One lane, so that its reader has the name that is expected; identity is looked at soon.
        let settings = [("STREAMVIEW_PROJECTOR__LANES", "1"), ("STREAMVIEW_PROJECTOR__GAP_POLICY", "skip")];
        let instance = halted_by(&world, point, part, &settings).await;
        // What is left of it still stops in order.
        instance.stop().await;
    });
    stream::iter(deaths).buffer_unordered(3).collect::<Vec<()>>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observer_that_dies_halts_a_view_that_is_only_read() {
    let world = World::new(1).await;
    let instance = world.launch_command(&["serve", "--only", "api"], &[("STREAMVIEW_PANIC_AT", "part.observer:3")]);
    instance.until_halted("part_ended").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_without_its_http_server_or_its_signals_ends_with_an_error_that_names_them() {
    for (point, part) in [("part.http", "HTTP server"), ("part.signals", "signal task"), ("part.audit", "audit log")] {
        let world = World::new(1).await;
        let instance = world.launch(&[("STREAMVIEW_PANIC_AT", point)]);
        let status = instance.until_ended().await;
        assert_eq!(status.code(), Some(1), "{}", instance.log_text());
        let log = instance.log_text();
        let last = log.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
        assert!(last.contains(part) && last.contains(point), "{log}");
    }
}
