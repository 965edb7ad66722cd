//! `streamview views gc`, and the list that operators are shown: what nobody has a use for goes, and nothing else does.

use serde_json::{Value, json};
use streamview::builds;
use streamview::domain::build::BuildId;
use streamview::views::orders::TABLES;

use crate::support::instance::Instance;
use crate::support::orders::{TestEvent, life};
use crate::support::rebuild::meaning;
use crate::support::world::{World, connect};
use crate::support::{PATIENCE, until};

async fn schemas(world: &World) -> Vec<String> {
    let query = "select nspname::text from pg_namespace where nspname ~ '^orders_' order by length(nspname), 1";
    world.sql.query(query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn make(world: &World, build: i32) {
    builds::create(&world.sql, BuildId::new("orders", build), &TABLES, &meaning()).await.unwrap();
}

/// Runs `views gc`, and gives what it says and its exit code.
async fn gc(world: &World, arguments: &[&str]) -> (String, i32) {
    let command = world.launch_command(&[&["views", "gc"], arguments].concat(), &[]);
    let code = command.until_ended().await.code().unwrap();
    (command.log_text(), code)
}

/// Builds 1 (active) and 2 (of a rebuild under way, ready), made by a service that has stopped.
async fn world_amid_a_rebuild() -> World {
    let world = World::new(1).await;
    let instance = world.start().await;
    world.publish(life("o-1", 4).iter().map(TestEvent::record)).await;
    instance.order_at("o-1", 4).await;
    let body = json!({ "reason": "by hand", "cutover": "manual" });
    let begun = instance.posted("/ops/views/rebuild", &body, 202).await;
    until("the rebuild is ready", PATIENCE, || async {
        let operation = instance.json(&format!("/ops/operations/{}", begun["id"])).await;
        (operation["phase"] == "ready").then_some(())
    })
    .await;
    instance.stop().await;
    world
}

/// Beside them: 3 is kept, 4 was kept long enough, 5 is of an operation that has failed, 6 was made by hand; 9 is a schema, 12
/// rows, both without a build; 77 is somebody else's.
async fn litter(world: &World) {
    for build in [3, 4, 5, 6] {
        make(world, build).await;
    }
    let sql = "
        update view_builds set kept_until = now() + interval '1 hour' where build = 3;
        update view_builds set kept_until = '2020-01-01T00:00:00Z' where build = 4;
        insert into operations (kind, view, state, phase, request, reason, actor, from_build, to_build, finished_at)
        values ('rebuild', 'orders', 'failed', 'loading', '{}', 'a test', 'tests', 1, 5, now());
        create schema orders_9;
        create table orders_9.ledger (like orders_1.ledger);
        create table orders_9.orders (like orders_1.orders);
        insert into held_keys (view, build, key, reason, missing_from, parked_count, parked_bytes, topic, partition)
        select 'orders', 12, 'o-' || n, 'gap', 2, 0, 0, 't', 0 from generate_series(1, 3) n;
        create schema orders_77;
        create table orders_77.notes (text text);
        create schema orders_old;
        create table orders_old.ledger (like orders_1.ledger)";
    world.sql.batch_execute(sql).await.unwrap();
}

const KEPT: [&str; 5] = ["orders_1", "orders_2", "orders_3", "orders_6", "orders_77"];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_over_is_listed_with_its_reason_and_removed_and_nothing_else_is() {
    let world = world_amid_a_rebuild().await;
    let (said, code) = gc(&world, &[]).await;
    assert_eq!((said.as_str(), code), ("nothing is left over\n", 0));
    litter(&world).await;
    let before = schemas(&world).await;

    let (said, code) = gc(&world, &["--dry-run", "--json"]).await;
    let listed: Value = serde_json::from_str(&said).unwrap();
    let items = listed["items"].as_array().unwrap();
    let told: Vec<Value> =
        items.iter().map(|item| json!([item["build"], item["schema"], item["reason"], item["rows"]])).collect();
    let expected = json!([
        [4, "orders_4", "kept_long_enough", 0],
        [5, "orders_5", "operation_over", 0],
        [9, "orders_9", "unknown_build", 0],
        [12, null, "unknown_build", 3],
    ]);
    assert_eq!((json!(told), code), (expected, 0));
    assert!(items.iter().all(|item| item["outcome"] == "listed"), "{said}");
    assert!(items[..3].iter().all(|item| item["bytes"].as_i64() > Some(0)), "{said}");
    assert_eq!(items[1]["detail"], "operation 2, which made it, is over (failed)");
    assert_eq!(schemas(&world).await, before, "only told");
    // A process that drops nothing shows the same.
    let api = world.launch_command(&["serve", "--only", "api"], &[]);
    api.until_ready().await;
    let shown = api.json("/ops/views").await["items"][0]["leftovers"].take();
    let same = |item: &Value| ["build", "schema", "reason", "detail", "bytes", "rows"].map(|name| item[name].clone());
    let (shown, items): (Vec<_>, Vec<_>) =
        (shown.as_array().unwrap().iter().map(same).collect(), items.iter().map(same).collect());
    assert_eq!(shown, items);

    // What somebody has built upon it stops it, and is named; the rest goes.
    world.sql.batch_execute("create view mine as select * from orders_4.orders").await.unwrap();
    let (said, code) = gc(&world, &[]).await;
    assert_eq!(code, 1, "{said}");
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("build 4 of view orders: schema orders_4, ") && lines[0].contains("mine"), "{said}");
    assert!(lines[1].ends_with("0 control rows: operation 2, which made it, is over (failed): removed"), "{said}");
    assert!(said.contains("1 of 4 could not be removed"), "{said}");
    world.sql.batch_execute("drop view mine").await.unwrap();
    assert_eq!(gc(&world, &[]).await.1, 0);

    let kept: Vec<&str> = KEPT.iter().copied().chain(["orders_old"]).collect();
    assert_eq!(schemas(&world).await, kept);
    let rows = "select count(*) from held_keys where build = 12";
    assert_eq!(world.number(rows).await, 0);
    assert_eq!(gc(&world, &[]).await.0, "nothing is left over\n");
    assert_eq!(api.json("/ops/views").await["items"][0]["leftovers"], json!([]));
    assert_eq!(api.json("/orders/o-1").await["lastEventSequence"], 4);
}

/// Whoever begins to use something holds the lock by which it is removed: what was listed before is looked at again.
#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_begins_to_use_at_that_moment_is_left_alone() {
    let world = World::new(1).await;
    drop(world.start().await);
    make(&world, 4).await;
    let sql = "
        update view_builds set kept_until = '2020-01-01T00:00:00Z' where build = 4;
        insert into held_keys (view, build, key, reason, missing_from, parked_count, parked_bytes, topic, partition)
        values ('orders', 12, 'o-1', 'gap', 2, 0, 0, 't', 0)";
    world.sql.batch_execute(sql).await.unwrap();

    // A rollback to 4 is asked for, and a build 12 is made: neither is committed yet.
    let other = connect(&world.database).await;
    let begun = "
        begin;
        select build from view_builds where view = 'orders' order by build for update;
        insert into operations (kind, view, phase, request, reason, actor, from_build, to_build)
        values ('rollback', 'orders', 'preflight', '{}', 'a test', 'tests', 1, 4);
        insert into view_builds (view, build, active) values ('orders', 12, false)";
    other.batch_execute(begun).await.unwrap();
    let collecting = world.launch_command(&["views", "gc"], &[]);
    until("it waits for the lock", PATIENCE, || async {
        let waiting =
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        (world.number(waiting).await == 1).then_some(())
    })
    .await;
    other.batch_execute("commit").await.unwrap();
    let code = collecting.until_ended().await.code();
    let said = collecting.log_text();
    assert_eq!((said.matches("left alone, as it is no leftover any more").count(), code), (2, Some(0)), "{said}");
    assert_eq!(schemas(&world).await, ["orders_1", "orders_4"]);
    assert_eq!(world.number("select count(*) from held_keys where build = 12").await, 1);
}

/// The other way round: what is being dropped cannot be gone back to.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_waits_for_who_drops_builds_and_finds_what_is_there_then() {
    let world = World::new(1).await;
    let instance = world.start().await;
    world.publish(life("o-1", 4).iter().map(TestEvent::record)).await;
    instance.order_at("o-1", 4).await;
    let begun = instance.posted("/ops/views/rebuild", &json!({ "reason": "x" }), 202).await;
    until_done(&instance, &begun["id"]).await;

    let other = connect(&world.database).await;
    let dropping = "
        begin;
        select build from view_builds where view = 'orders' order by build for update;
        update view_builds set kept_until = now() where build = 1";
    other.batch_execute(dropping).await.unwrap();
    let body = json!({ "reason": "x" });
    let asking = instance.post("/ops/views/orders/rollback", &body);
    let committing = async {
        until("it waits for the lock", PATIENCE, || async {
            let waiting = "select count(*) from pg_stat_activity \
                           where datname = current_database() and wait_event_type = 'Lock' and query like '%for update%'";
            (world.number(waiting).await >= 1).then_some(())
        })
        .await;
        other.batch_execute("commit").await.unwrap();
    };
    let (answer, ()) = tokio::join!(asking, committing);
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["code"], "nothing_kept", "{answer}");
    until("the old build is dropped", PATIENCE, || async { (schemas(&world).await == ["orders_2"]).then_some(()) })
        .await;
    instance.stop().await;
}

async fn until_done(instance: &Instance, id: &Value) {
    until("the operation is done", PATIENCE, || async {
        let operation = instance.json(&format!("/ops/operations/{id}")).await;
        (operation["state"] == "done").then_some(())
    })
    .await;
}
