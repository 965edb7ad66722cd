//! Rebuilds and rollbacks: a new build beside the live one, readers switched to it and back, whatever dies meanwhile.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use streamview::store::operations;

use crate::cli::run;
use crate::poison::refuse_to_store;
use crate::support::instance::Instance;
use crate::support::load::Load;
use crate::support::orders::{TestEvent, created, item_added, life, oracle, stored};
use crate::support::world::World;
use crate::support::{PATIENCE, until};

/// Waits until the operation is over.
pub async fn until_over(instance: &Instance, id: i64) -> Value {
    until(&format!("operation {id} is over"), PATIENCE, || async {
        let response = instance.http.get(instance.url(&format!("/ops/operations/{id}"))).send().await.ok()?;
        let operation: Value = response.json().await.ok()?;
        (operation["state"].as_str()? != "running").then_some(operation)
    })
    .await
}

async fn until_phase(instance: &Instance, id: i64, phase: &str) {
    until(&format!("operation {id} is in phase {phase}"), PATIENCE, || async {
        let operation = instance.json(&format!("/ops/operations/{id}")).await;
        assert_eq!(operation["state"], "running", "{operation}");
        (operation["phase"] == phase).then_some(())
    })
    .await;
}

async fn begin(instance: &Instance, body: Value) -> i64 {
    instance.posted("/ops/views/rebuild", &body, 202).await["id"].as_i64().unwrap()
}

async fn consumed_by(world: &World, build: i32) -> i64 {
    world
        .number(&format!("select coalesce(sum(consumed), 0)::bigint from projection_progress where build = {build}"))
        .await
}

async fn until_consumed_by(world: &World, build: i32, records: i64) {
    until(&format!("build {build} has consumed {records}"), PATIENCE, || async {
        (consumed_by(world, build).await >= records).then_some(())
    })
    .await;
}

async fn active(world: &World) -> i64 {
    world.number("select build::bigint from view_builds where active").await
}

/// Every table of a build as text, but for how it was cut into transactions.
async fn content(world: &World, build: i32) -> Vec<String> {
    let query = format!(
        "select 'o' || to_jsonb(o)::text from orders_{build}.orders o
         union all select 'i' || to_jsonb(i)::text from orders_{build}.order_items i
         union all select 'l' || (to_jsonb(l) - 'commit_partition' - 'commit')::text from orders_{build}.ledger l
         order by 1"
    );
    world.sql.query(&query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// What a build has refused, and which orders wait for what.
async fn refused(world: &World, build: i32) -> Vec<String> {
    let query = format!(
        "select concat_ws(' ', key, sequence, reason, error) from dead_letters where build = {build}
         union all select concat_ws(' ', key, 'waits for', missing_from, reason) from held_keys where build = {build}
         order by 1"
    );
    world.sql.query(&query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn schemas(world: &World) -> Vec<String> {
    let query = "select nspname::text from pg_namespace where nspname like 'orders\\_%' order by 1";
    world.sql.query(query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// Reads these orders again and again until told to end: no read fails, and no order ever goes back.
async fn read_on(instance: &Instance, orders: &[String], enough: &AtomicBool) -> usize {
    let (mut seen, mut reads) = (BTreeMap::new(), 0);
    while !enough.load(Ordering::Relaxed) {
        for order in orders {
            let response = instance.get(&format!("/orders/{order}")).await;
            assert!(matches!(response.status().as_u16(), 200 | 404), "{order}: {}", response.status());
            let body: Value = response.json().await.unwrap();
            let sequence = body["lastEventSequence"].as_i64().unwrap_or(0);
            let before = seen.insert(order.clone(), sequence).unwrap_or(0);
            assert!(sequence >= before, "{order} went back from {before} to {sequence}");
            reads += 1;
        }
    }
    reads
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_rebuilt_under_traffic_switched_to_and_rolled_back_without_an_order_going_back() {
    let world = World::new(3).await;
    let instance = world.start().await;
    let load = Load::new("o", 120, 11);
    let (records, third) = (load.records(), load.records().len() / 3);
    world.publish(records[..third].to_vec()).await;
    until_consumed_by(&world, 1, third as i64).await;
    let orders: Vec<String> = (0..20).map(|number| format!("o-{number}")).collect();
    let enough = AtomicBool::new(false);
    let change = async {
        let id = begin(&instance, json!({ "reason": "to see it done" })).await;
        world.publish(records[third..2 * third].to_vec()).await;
        let rebuilt = until_over(&instance, id).await;
        assert_eq!((&rebuilt["state"], &rebuilt["phase"]), (&json!("done"), &json!("done")), "{rebuilt}");
        assert_eq!(rebuilt["progress"]["percent"], 100.0, "{rebuilt}");
        assert_eq!((&rebuilt["fromBuild"], &rebuilt["toBuild"]), (&json!(1), &json!(2)));
        let phases: Vec<&str> =
            rebuilt["phases"].as_array().unwrap().iter().map(|entry| entry["phase"].as_str().unwrap()).collect();
        assert_eq!(phases[..3], ["preflight", "loading", "indexing"], "{phases:?}");
        assert_eq!(phases[phases.len() - 2..], ["cutting_over", "done"], "{phases:?}");
        let comparison = &rebuilt["comparison"];
        assert_eq!([&comparison["different"], &comparison["onlyOld"], &comparison["onlyNew"]], [0, 0, 0], "{rebuilt}");
        assert!(comparison["compared"].as_i64().unwrap() > 0, "{rebuilt}");
        assert_eq!(active(&world).await, 2);

        world.publish(records[2 * third..].to_vec()).await;
        until_consumed_by(&world, 1, load.len()).await;
        until_consumed_by(&world, 2, load.len()).await;
        assert_eq!(content(&world, 1).await, content(&world, 2).await, "the old build is fed on");
        assert_eq!(stored(&world).await, oracle(load.events()));

        let back = instance.posted("/ops/views/orders/rollback", &json!({ "reason": "to see it undone" }), 202).await;
        let back = until_over(&instance, back["id"].as_i64().unwrap()).await;
        assert_eq!(
            (&back["kind"], &back["state"], &back["toBuild"]),
            (&json!("rollback"), &json!("done"), &json!(1)),
            "{back}"
        );
        assert_eq!(active(&world).await, 1);
        assert_eq!(stored(&world).await, oracle(load.events()));
        enough.store(true, Ordering::Relaxed);
    };
    let (reads, ()) = tokio::join!(read_on(&instance, &orders, &enough), change);
    assert!(reads > 100, "{reads}");

    world.publish(life("after", 3).iter().map(TestEvent::record)).await;
    instance.order_at("after", 3).await;
    let listed = instance.json("/ops/operations?view=orders&state=done").await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 2, "{listed}");
    instance.stop().await;
}

/// What a build has counted while another one was shown would look as if it had happened at the switch.
#[tokio::test(flavor = "multi_thread")]
async fn counters_begin_anew_with_each_build_that_readers_come_to_read() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let consumed = "streamview_records_consumed_total";
    world.publish(life("o-1", 9).iter().map(TestEvent::record)).await;
    instance.until_metric(consumed, &[], 9.0).await;

    let id = begin(&instance, json!({ "reason": "to go back again" })).await;
    assert_eq!(until_over(&instance, id).await["state"], "done");
    instance.until_metric(consumed, &[], 0.0).await;
    world.publish(life("o-2", 3).iter().map(TestEvent::record)).await;
    instance.until_metric(consumed, &[], 3.0).await;
    until_consumed_by(&world, 1, 12).await;

    let back = instance.posted("/ops/views/orders/rollback", &json!({ "reason": "to see it undone" }), 202).await;
    assert_eq!(until_over(&instance, back["id"].as_i64().unwrap()).await["state"], "done");
    instance.until_metric(consumed, &[], 0.0).await;
    assert_eq!(instance.metric("streamview_batch_records_count", &[]).await, 0.0);
    world.publish(life("o-3", 2).iter().map(TestEvent::record)).await;
    instance.until_metric(consumed, &[], 2.0).await;
    assert_eq!(instance.metric("streamview_events_total", &[]).await, 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_operation_at_a_time_waits_for_the_word_and_can_be_called_off() {
    let world = World::new(1).await;
    let instance = world.start().await;
    world.publish(life("o-1", 5).iter().map(TestEvent::record)).await;
    instance.order_at("o-1", 5).await;
    let refused = instance.post("/ops/views/orders/rollback", &json!({ "reason": "x" })).await;
    assert_eq!(refused.status(), 409);
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], "nothing_kept");

    let body = json!({ "reason": "by hand", "cutover": "manual", "actor": "ada" });
    let key = [("idempotency-key", "once")];
    let first = instance.post_as("/ops/views/rebuild", &body, &key).await;
    assert_eq!(first.status(), 202);
    let location = first.headers()["location"].to_str().unwrap().to_owned();
    let again = instance.post_as("/views/rebuild", &body, &key).await;
    assert_eq!((again.status().as_u16(), &again.headers()["idempotent-replayed"]), (202, &"true".parse().unwrap()));
    let id = again.json::<Value>().await.unwrap()["id"].as_i64().unwrap();
    assert_eq!(location, format!("/ops/operations/{id}"));
    let second = instance.post("/ops/views/rebuild", &json!({ "reason": "too many" })).await;
    assert_eq!(second.status(), 409);
    let second: Value = second.json().await.unwrap();
    assert_eq!((&second["code"], &second["operationId"]), (&json!("operation_running"), &json!(id)));

    until_phase(&instance, id, "ready").await;
    assert_eq!(active(&world).await, 1, "nobody has said so");
    world.publish(life("o-2", 3).iter().map(TestEvent::record)).await;
    until_consumed_by(&world, 2, 8).await;
    instance.posted(&format!("{location}/cancel"), &json!({}), 202).await;
    let over = until_over(&instance, id).await;
    assert_eq!((&over["state"], &over["phase"], &over["actor"]), (&json!("cancelled"), &json!("ready"), &json!("ada")));
    until("nothing is left of it", PATIENCE, || async { (schemas(&world).await == ["orders_1"]).then_some(()) }).await;
    assert_eq!(consumed_by(&world, 2).await, 0);
    let late = instance.post(&format!("{location}/cutover"), &json!({})).await;
    assert_eq!(late.json::<Value>().await.unwrap()["code"], "operation_over");

    let id = begin(&instance, body).await;
    until_phase(&instance, id, "ready").await;
    instance.posted(&format!("/ops/operations/{id}/cutover"), &json!({}), 202).await;
    let over = until_over(&instance, id).await;
    assert_eq!((&over["state"], &over["toBuild"]), (&json!("done"), &json!(3)), "a number is never used twice");
    instance.order_at("o-2", 3).await;
}

/// Killed at every named point of a rebuild and of a switch; whoever starts next does the rest.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_point_of_a_rebuild_the_next_process_ends_it() {
    let points = [
        "rebuild.created",
        "load.stripped",
        "load.written",
        "load.dressed",
        "rebuild.loaded",
        "rebuild.compared",
        "switch.locked",
        "switch.before_commit",
        "switch.committed",
        "operation.ending",
    ];
    for point in points {
        let world = World::new(2).await;
        let load = Load::new("o", 20, 5);
        world.publish(load.records()).await;
        let dying = world.start_with(&[("STREAMVIEW_CRASH_AT", point)]).await;
        until_consumed_by(&world, 1, load.len()).await;
        let id = begin(&dying, json!({ "reason": point })).await;
        assert!(Instance::was_killed(dying.until_ended().await), "{point}: {}", dying.log_text());

        let next = world.start().await;
        let over = until_over(&next, id).await;
        assert_eq!(over["state"], "done", "{point}: {over}");
        assert_eq!(active(&world).await, 2, "{point}");
        until_consumed_by(&world, 2, load.len()).await;
        assert_eq!(content(&world, 1).await, content(&world, 2).await, "{point}");
        assert_eq!(schemas(&world).await, ["orders_1", "orders_2"], "{point}");
        next.stop().await;
    }
}

/// A build that was kept long enough goes, and a process that projects nothing shows whatever readers read.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_kept_is_dropped_and_other_processes_follow_the_switch() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let api = world.launch_command(&["serve", "--only", "api"], &[]);
    api.until_ready().await;
    world.publish(life("o-1", 4).iter().map(TestEvent::record)).await;
    let tag = |order: &str| format!("/orders/{order}");
    instance.order_at("o-1", 4).await;

    let id = begin(&instance, json!({ "reason": "not to be kept", "keepHours": 0 })).await;
    assert_eq!(until_over(&instance, id).await["state"], "done");

    until("the old build is dropped", PATIENCE, || async { (schemas(&world).await == ["orders_2"]).then_some(()) })
        .await;
    world.publish(life("o-2", 2).iter().map(TestEvent::record)).await;
    api.order_at("o-2", 2).await;
    let response = api.get(&tag("o-1")).await;
    assert!(response.headers()["etag"].to_str().unwrap().starts_with("\"2-4-"), "the tag names the build");
    api.until_metric("kafka_consumer_lag", &[&format!("group=\"{}.2\"", world.group)], 0.0).await;
    assert_eq!(instance.post("/ops/views/orders/rollback", &json!({ "reason": "x" })).await.status(), 409);
}

/// Where nothing runs the command does the work itself; where something runs, that does it, and the command shows how far it is.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_rebuilds_and_rolls_back_with_and_without_an_instance() {
    let world = World::new(2).await;
    let load = Load::new("o", 20, 3);
    let instance = world.start().await;
    world.publish(load.records()).await;
    until_consumed_by(&world, 1, load.len()).await;
    instance.stop().await;
    let command = |arguments: &[&str]| world.launch_command(arguments, &[]);

    let alone = command(&["rebuild", "--reason", "nothing runs"]);
    assert_eq!(alone.until_ended().await.code(), Some(0), "{}", alone.log_text());
    let told = alone.log_text();
    for words in
        ["operation 1: rebuild of view orders", "this command does", "operation 1 is done: readers read build 2"]
    {
        assert!(told.contains(words), "{words:?} in {told}");
    }
    assert_eq!(stored(&world).await, oracle(load.events()));

    let instance = world.start().await;
    let back = command(&["rollback", "orders", "--reason", "back"]);
    assert_eq!(back.until_ended().await.code(), Some(0), "{}", back.log_text());
    assert!(back.log_text().contains("operation 2 is done: readers read build 1"), "{}", back.log_text());
    assert!(!back.log_text().contains("this command does"), "{}", back.log_text());
    let refused = command(&["rebuild", "customers", "--reason", "there is none"]);
    assert_eq!(refused.until_ended().await.code(), Some(1));
    assert!(refused.log_text().contains("there are: orders"), "{}", refused.log_text());
    instance.stop().await;
}

/// Waits until a command shows that its operation waits for a word.
async fn until_shown_ready(command: &Instance) {
    until("the command shows that it is ready", PATIENCE, || async {
        command.log_text().lines().any(|line| line.starts_with("ready")).then_some(())
    })
    .await;
}

/// Of an operation that a command drives alone nobody takes care until an instance runs; of that of an instance, the instance.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_interrupted_says_who_goes_on_with_its_operation() {
    let world = World::new(1).await;
    let instance = world.start().await;
    world.publish(life("o-1", 5).iter().map(TestEvent::record)).await;
    instance.order_at("o-1", 5).await;
    instance.stop().await;
    let (left, goes_on) =
        ("the next instance of `streamview serve` goes on with it", "it goes on in an instance of `streamview serve`");

    let alone = world.launch_command(&["rebuild", "--reason", "nothing runs", "--manual"], &[]);
    until_shown_ready(&alone).await;
    alone.signal("INT");
    assert_eq!(alone.until_ended().await.code(), Some(0), "{}", alone.log_text());
    let told = alone.log_text();
    assert!(told.contains(&format!("operation 1 is left where it is: {left}")) && !told.contains(goes_on), "{told}");

    let instance = world.start().await;
    until("readers may be switched", PATIENCE, || async {
        (instance.post("/ops/operations/1/cutover", &json!({})).await.status() == 202).then_some(())
    })
    .await;
    assert_eq!(until_over(&instance, 1).await["state"], "done");
    let watching = world.launch_command(&["rebuild", "--reason", "an instance runs", "--manual", "--watch"], &[]);
    until_shown_ready(&watching).await;
    watching.signal("INT");
    assert_eq!(watching.until_ended().await.code(), Some(0), "{}", watching.log_text());
    let told = watching.log_text();
    assert!(told.contains(goes_on) && !told.contains(left), "{told}");
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_fails_or_is_called_off_fails_its_command_in_json_too() {
    let world = World::new(1).await;
    let instance = world.start().await;
    world.publish(life("o-1", 5).iter().map(TestEvent::record)).await;
    instance.order_at("o-1", 5).await;
    let call_off = async {
        let ready = "select count(*) from operations where state = 'running' and phase = 'ready'";
        until("it waits for a word", PATIENCE, || async { (world.number(ready).await == 1).then_some(()) }).await;
        instance.posted("/ops/operations/1/cancel", &json!({}), 202).await;
    };
    let watched = ["rebuild", "--reason", "to be called off", "--manual", "--watch", "--json"];
    let ((code, out, error), ()) = tokio::join!(run(&world, &watched, ""), call_off);
    let operation: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &operation["state"]), (1, &json!("cancelled")), "{out}{error}");
    assert!(error.contains("operation 1 was called off"), "{error}");
    instance.stop().await;

    // Nothing runs, so the command finds out by itself that the log has lost what the build was made from.
    world.truncate(0, 3).await;
    let (code, out, error) = run(&world, &["rebuild", "--reason", "cannot be done", "--json"], "").await;
    let operation: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &operation["state"]), (1, &json!("failed")), "{out}{error}");
    assert_eq!(operation["error"]["code"], "history_truncated", "{operation}");
    assert!(error.contains("operation 2 has failed, history_truncated"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_to_a_build_that_nobody_feeds_says_so_and_can_be_called_off() {
    let world = World::new(1).await;
    let instance = world.start().await;
    world.publish(life("o-1", 3).iter().map(TestEvent::record)).await;
    instance.order_at("o-1", 3).await;
    let id = begin(&instance, json!({ "reason": "the next version" })).await;
    assert_eq!(until_over(&instance, id).await["state"], "done");
    instance.stop().await;
    world.sql.batch_execute("update view_builds set projection_version = 99 where build = 1").await.unwrap();

    let instance = world.start().await;
    world.publish(life("o-2", 1).iter().map(TestEvent::record)).await;
    instance.order_at("o-2", 1).await;
    let back = instance.posted("/ops/views/orders/rollback", &json!({ "reason": "back" }), 202).await;
    let id = back["id"].as_i64().unwrap();
    until_phase(&instance, id, "cutting_over").await;
    let operation = instance.json(&format!("/ops/operations/{id}")).await;
    let waiting_for = operation["waitingFor"].as_str().unwrap();
    assert!(
        waiting_for.contains("build 1") && waiting_for.contains(&format!("/ops/operations/{id}/cancel")),
        "{operation}"
    );
    until("the log says what it lacks", PATIENCE, || async {
        instance.log_text().contains("the build that they are to read lacks this").then_some(())
    })
    .await;
    instance.posted(&format!("/ops/operations/{id}/cancel"), &json!({}), 202).await;
    assert_eq!(until_over(&instance, id).await["state"], "cancelled");
    assert_eq!(active(&world).await, 2);
    instance.order_at("o-2", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_calls_an_operation_off_is_not_overruled() {
    let world = World::new(1).await;
    world.start().await.stop().await;
    let insert = "insert into operations (kind, view, phase, request, reason, actor) \
                  values ('rebuild', 'orders', 'comparing', '{}', 'a test', 'a test') returning id";
    let id: i64 = world.row(insert).await.get(0);
    let ask = async |what: &str| operations::ask(&world.sql, id, what, None).await.unwrap();
    assert!(!ask("cutover").await, "it waits for no word yet");
    world.sql.execute("update operations set phase = 'ready'", &[]).await.unwrap();
    assert!(ask("cutover").await && ask("cancel").await, "who is not heard yet may be called off");
    assert!(!ask("cutover").await && ask("cancel").await);
}

/// Whoever reads such a record again may find it otherwise: the other order has moved on by then, or nothing stands in the way.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_old_build_refused_for_what_stands_outside_of_a_record_the_new_one_refuses_too() {
    let world = World::new(1).await;
    refuse_to_store(&world, 1, "new.key = 'unstorable'").await;
    // One by one, as events come that are hours apart.
    let instance = world.start_with(&[("STREAMVIEW_PROJECTOR__MAX_BATCH_EVENTS", "1")]).await;
    let (stays, leaves) = (created("stays"), created("leaves"));
    let [of_stays, of_leaves] = [("o-1", &stays), ("o-2", &leaves)]
        .map(|(order, first)| created(order).with("eventId", first.event_id().into()));
    let (next, unstorable) = (item_added("leaves", 2), [created("unstorable"), item_added("unstorable", 2)]);
    let events = [&stays, &leaves, &of_stays, &of_leaves, &next, &unstorable[0], &unstorable[1]];
    world.publish(events.map(TestEvent::record)).await;
    until_consumed_by(&world, 1, 7).await;
    let before = refused(&world, 1).await;
    let reasons = ["o-1 1 event_id_reused", "o-2 1 event_id_reused", "unstorable 1 unrepresentable"];
    assert!(reasons.iter().all(|reason| before.iter().any(|told| told.starts_with(reason))), "{before:?}");

    let id = begin(&instance, json!({ "reason": "to see the same" })).await;
    let over = until_over(&instance, id).await;

    assert_eq!(over["state"], "done", "{over}");
    let comparison = &over["comparison"];
    assert_eq!([&comparison["different"], &comparison["onlyOld"], &comparison["onlyNew"]], [0, 0, 0], "{over}");
    assert_eq!(refused(&world, 2).await, before);
    assert_eq!(content(&world, 2).await, content(&world, 1).await);
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_meets_what_postgres_refuses_gives_way_to_projectors_who_refuse_it_alone() {
    let world = World::new(1).await;
    let instance = world.start_with(&[("STREAMVIEW_STOP_AT", "load.stripped")]).await;
    let (whole, unstorable) = (life("o-1", 4), life("unstorable", 3));
    world.publish(whole.iter().chain(&unstorable).map(TestEvent::record)).await;
    until_consumed_by(&world, 1, 7).await;
    let id = begin(&instance, json!({ "reason": "tables that take less" })).await;
    instance.until_stopped().await;
    refuse_to_store(&world, 2, "new.key = 'unstorable'").await;
    instance.signal("CONT");

    // What both hold differs, and nothing explains that.
    until_phase(&instance, id, "ready").await;
    let refusal = "unstorable 1 unrepresentable Postgres cannot hold it: value out of range (SQLSTATE 22003)";
    assert_eq!(refused(&world, 2).await, [refusal, "unstorable waits for 1 poison"]);
    let operation = instance.json(&format!("/ops/operations/{id}")).await;
    let phases = operation["phases"].as_array().unwrap();
    let detail = phases.iter().find(|entry| entry["phase"] == "catching_up").unwrap()["detail"].as_str().unwrap();
    assert!(detail.contains("batch by batch") && detail.contains("value out of range"), "{operation}");
    assert!(instance.log_text().contains("projectors apply it batch by batch"), "{}", instance.log_text());

    instance.posted(&format!("/ops/operations/{id}/cutover"), &json!({}), 202).await;
    let over = until_over(&instance, id).await;
    assert_eq!((&over["state"], &over["toBuild"]), (&json!("done"), &json!(2)), "{over}");
    assert_eq!(stored(&world).await, oracle(&whole));
    instance.stop().await;
}
