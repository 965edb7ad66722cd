//! Versions of a projection: a build is taken up again by whoever has its version by now, a fresh one is of the binary's, and
//! where only a later version is left the rebuild begins by itself, once, if the settings say so.

use std::sync::Arc;

use serde_json::{Value, json};
use streamview::app::{self, Served};
use streamview::config::{Config, ViewRules};
use streamview::domain::build::BuildId;
use streamview::repair::Desk;
use streamview::repair::request::Why;
use streamview::store::pool;
use streamview::telemetry::metrics::Metrics;

use crate::conformance::{Service, counted};
use crate::counter;
use crate::support::world::World;
use crate::support::{PATIENCE, until};

const BY_ITSELF: (&str, &str) = ("STREAMVIEW_REBUILD__ON_VERSION_CHANGE", "true");

fn served(world: &World, name: &str, version: i32) -> Vec<Served> {
    vec![(counter::registration_of_version(name, version), world.view_settings())]
}

async fn start(world: &World, version: i32, settings: &[(&str, &str)]) -> Service {
    Service::serve(Service::config(world, settings), served(world, "counter", version)).await
}

async fn version_of(world: &World, view: &str) -> i64 {
    world.number(&format!("select projection_version from view_builds where view = '{view}' and active")).await
}

async fn until_active(world: &World, build: i64) {
    until(&format!("readers read build {build}"), PATIENCE, || async {
        let active = "select build from view_builds where view = 'counter' and active";
        (world.number(active).await == build).then_some(())
    })
    .await;
}

async fn operations(world: &World) -> i64 {
    world.number("select count(*) from operations").await
}

fn desk(config: &Config, served: &Served) -> Desk {
    let rules: ViewRules = config.rules_of(&served.1);
    let pools = (pool::read_pool(&config.database).unwrap(), pool::WriterPool::new(&config.database));
    app::desk(served, (config, &rules), &Arc::new(Metrics::new()), pools).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_later_binaries_only_the_rebuild_begins_by_itself_and_while_others_run_it_does_not() {
    let world = World::new(1).await;
    app::migrate(&Service::config(&world, &[]), &served(&world, "counter", 1)).await.unwrap();
    let old = start(&world, 1, &[]).await;
    world.publish(counted("a", 2)).await;
    world.until_consumed(2).await;
    let (new, bystander) = (start(&world, 2, &[BY_ITSELF]).await, start(&world, 2, &[]).await);
    // The old one works on, and the new ones have looked.
    world.publish(counted("b", 3)).await;
    world.until_consumed(5).await;
    until("the new one has seen it", PATIENCE, || async {
        let lags = new.json("/ops/lags").await;
        (lags["totalLag"] == 0 && lags["partitions"][0]["nextOffset"] == 5).then_some(())
    })
    .await;
    assert_eq!(operations(&world).await, 0, "somebody projects it");
    old.stop().await;
    until_active(&world, 2).await;
    let list = new.json("/ops/operations").await;
    let operation = &list["items"][0];
    assert_eq!(operation["actor"], "streamview", "{list}");
    let reason = "projection version 2 instead of 1 (rebuild.on_version_change)";
    assert_eq!((&operation["reason"], &operation["kind"]), (&json!(reason), &json!("rebuild")), "{list}");
    assert_eq!(operations(&world).await, 1);
    // Who stood still goes on by itself.
    world.publish(counted("c", 1)).await;
    until("build 2 is fed", PATIENCE, || async {
        (world.number("select count(*) from counter_2.counts where key = 'c'").await == 1).then_some(())
    })
    .await;
    for service in [&new, &bystander] {
        until("it does not stand still any more", PATIENCE, || async {
            let view = service.json("/ops/views").await["items"][0].take();
            (view["standing"] == Value::Null && view["state"] == "running").then_some(())
        })
        .await;
    }
    new.stop().await;
    bystander.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_did_not_come_to_an_end_is_not_begun_again_by_itself() {
    let world = World::new(1).await;
    app::migrate(&Service::config(&world, &[]), &served(&world, "counter", 1)).await.unwrap();
    let old = start(&world, 1, &[]).await;
    world.publish(counted("a", 6)).await;
    world.until_consumed(6).await;
    old.stop().await;
    world.truncate(0, 3).await;
    let new = start(&world, 2, &[BY_ITSELF]).await;
    let failed = until("it has failed", PATIENCE, || async {
        let list = new.json("/ops/operations?state=failed").await;
        list["items"].get(0).cloned()
    })
    .await;
    assert_eq!(failed["error"]["code"], "history_truncated", "{failed}");
    assert_eq!(failed["actor"], "streamview");
    // As the steward asks every few seconds, of this version and of the next one.
    let config = Service::config(&world, &[BY_ITSELF]);
    let desk = desk(&config, &served(&world, "counter", 2)[0]);
    let why = Why::new("again", "streamview");
    let build = BuildId::new("counter", 1);
    assert_eq!(desk.begin_for_version(build, 2, &why).await.unwrap(), None);
    assert_eq!(operations(&world).await, 1);
    new.stop().await;
    assert_eq!(desk.begin_for_version(build, 3, &why).await.unwrap(), Some(2));
    assert_eq!(desk.begin_for_version(build, 4, &why).await.unwrap(), None, "one is under way");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_build_is_given_the_version_of_the_binary_that_migrates_and_who_stood_still_goes_on() {
    let world = World::new(1).await;
    let config = Service::config(&world, &[]);
    // Made by the migrations, which know of no version.
    assert_eq!(version_of(&world, "orders").await, 1);
    let done = app::migrate(&config, &served(&world, "orders", 2)).await.unwrap();
    assert_eq!(done, ["projection version 2 of build 1 of view orders, which is empty"]);
    assert_eq!(version_of(&world, "orders").await, 2);
    assert!(app::migrate(&config, &served(&world, "orders", 2)).await.unwrap().is_empty());

    app::migrate(&config, &served(&world, "counter", 1)).await.unwrap();
    let new = start(&world, 2, &[]).await;
    assert_eq!(new.json("/ops/views").await["items"][0]["standing"]["code"], "projection_version_differs");
    world.publish(counted("a", 2)).await;
    app::migrate(&config, &served(&world, "counter", 2)).await.unwrap();
    world.until_consumed(2).await;
    until("it does not stand still any more", PATIENCE, || async {
        let view = new.json("/ops/views").await["items"][0].take();
        (view["standing"] == Value::Null).then_some(())
    })
    .await;
    new.stop().await;
    // With rows it keeps what it is made by.
    assert!(app::migrate(&config, &served(&world, "counter", 3)).await.unwrap().is_empty());
    assert_eq!(version_of(&world, "counter").await, 2);
}
