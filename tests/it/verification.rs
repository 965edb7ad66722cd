//! Verification as an operation, and by the log: what was changed behind our back is found by either, and what is as it should
//! be verifies clean, whatever happens meanwhile.

use serde_json::{Value, json};

use crate::cli::run;
use crate::support::instance::Instance;
use crate::support::load::Load;
use crate::support::orders::{TestEvent, created, item_added, life, status_changed};
use crate::support::world::{TestRecord, World};
use crate::support::{PATIENCE, until};

/// Runs the command; its exit code and what it says.
async fn verify(world: &World, arguments: &[&str]) -> (i32, Value) {
    let (code, text, error) = run(world, &[&["verify", "--json"], arguments].concat(), "").await;
    (code, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{error}")))
}

async fn until_over(instance: &Instance, id: i64) -> Value {
    until(&format!("operation {id} is over"), PATIENCE, || async {
        let response = instance.http.get(instance.url(&format!("/ops/operations/{id}"))).send().await.ok()?;
        let operation: Value = response.json().await.ok()?;
        (operation["state"].as_str()? != "running").then_some(operation)
    })
    .await
}

/// Asks for a verification and waits for its end.
pub async fn verified(instance: &Instance, mut body: Value) -> Value {
    body["reason"] = json!("to see");
    let id = instance.posted("/ops/verify", &body, 202).await["id"].as_i64().unwrap();
    until_over(instance, id).await
}

async fn lives(world: &World, instance: &Instance, orders: &[&str]) {
    for order in orders {
        world.publish(life(order, 5).iter().map(TestEvent::record)).await;
        instance.order_at(order, 5).await;
    }
}

fn old_new(old: Value, new: Value) -> Value {
    json!({ "old": old, "new": new })
}

/// What is found by the log of each change by hand.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_tells_what_was_changed_in_rows_and_ledger() {
    let world = World::new(2).await;
    let instance = world.start().await;
    lives(&world, &instance, &["o-1", "o-2", "o-3"]).await;
    instance.stop().await;
    let line = json!({ "itemId": "i-2", "sku": "CUP", "qty": "1", "price": "9.99", "taxRate": null,
                       "netLineTotal": "9.99", "grossLineTotal": "9.99" });
    let table = [
        (
            "update orders_1.orders set total_net = 28.69 where order_id = 'o-2'",
            "different",
            json!({ "totalNet": old_new(json!("28.69"), json!("28.68")) }),
        ),
        (
            "delete from orders_1.order_items where order_id = 'o-2' and line_no = 2",
            "different",
            json!({ "items[2]": old_new(Value::Null, line) }),
        ),
        (
            "update orders_1.ledger set payload = replace(payload, 'Paid', 'Lost') where key = 'o-2' and sequence = 3",
            "different",
            Value::Null,
        ),
        ("delete from orders_1.ledger where key = 'o-2' and sequence = 3", "different", Value::Null),
        ("delete from orders_1.ledger where key = 'o-2' and sequence = 5", "different", Value::Null),
        (
            "update orders_1.orders set last_event_sequence = 4 where order_id = 'o-2'",
            "different",
            json!({ "lastEventSequence": old_new(json!("4"), json!("5")) }),
        ),
        (
            "delete from orders_1.orders where order_id = 'o-2'; delete from orders_1.ledger where key = 'o-2'",
            "missing_old",
            json!({ "lastEventSequence": old_new(Value::Null, json!("5")) }),
        ),
        (
            "insert into orders_1.orders select (jsonb_populate_record(o, '{\"order_id\": \"o-4\", \"dedup_event_id\": \"x\"}')).* \
             from orders_1.orders o where order_id = 'o-2'",
            "missing_new",
            json!({ "lastEventSequence": old_new(json!("5"), Value::Null) }),
        ),
    ];
    for (change, expected, columns) in table {
        world.sql.batch_execute("create schema kept").await.unwrap();
        for name in ["orders", "order_items", "ledger"] {
            world.sql.batch_execute(&format!("create table kept.{name} as table orders_1.{name}")).await.unwrap();
        }
        world.sql.batch_execute(change).await.unwrap();
        let (code, found) = verify(&world, &["--from", "log"]).await;
        let one = &found["sample"][0];
        assert_eq!(
            (code, &one["found"], found["sample"].as_array().unwrap().len()),
            (1, &json!(expected), 1),
            "{change}"
        );
        assert_eq!(one["key"], if expected == "missing_new" { "o-4" } else { "o-2" }, "{change}: {found:#}");
        if columns.is_null() {
            let number = if change.contains("sequence = 5") { 5 } else { 3 };
            let event = one["columns"].as_object().unwrap().iter().next().unwrap();
            assert!(event.0.starts_with(&format!("events[{number}]")), "{change}: {found:#}");
            let should_be = event.1["new"].to_string();
            assert!(should_be.contains("o-2-event-") || should_be.contains("Paid"), "{change}: {found:#}");
        } else {
            assert_eq!(one["columns"], columns, "{change}");
        }
        let (code, both) = verify(&world, &["--from", "both"]).await;
        assert_eq!((code, &both["sample"][0]["key"]), (1, &one["key"]), "{change}: {both:#}");
        for name in ["orders", "order_items", "ledger"] {
            let back = format!("truncate orders_1.{name}; insert into orders_1.{name} select * from kept.{name}");
            world.sql.batch_execute(&back).await.unwrap();
        }
        world.sql.batch_execute("drop schema kept cascade").await.unwrap();
    }
    for arguments in [&["--from", "both"][..], &["--from", "log", "--sample", "2"], &["--from", "log", "--key", "o-1"]]
    {
        let (code, found) = verify(&world, arguments).await;
        assert_eq!((code, &found["compared"]), (0, &found["equal"]), "{arguments:?}: {found:#}");
    }
    let (code, _, error) = run(&world, &["verify", "--from", "log", "--key", "o-9"], "").await;
    assert!(code == 1 && error.contains("there is nothing of the key \"o-9\""), "{error}");
    let (code, _, error) = run(&world, &["verify", "--from", "heaven"], "").await;
    assert!(code == 2 && error.contains("must be one of ledger, log, both"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_verifies_and_its_differences_are_listed_page_by_page() {
    let world = World::new(1).await;
    let instance = world.start().await;
    lives(&world, &instance, &["o-1", "o-2", "o-3"]).await;
    let changes = "update orders_1.orders set total_net = total_net + 0.01 where order_id <> 'o-3'; \
                   delete from orders_1.order_items where order_id = 'o-3'; \
                   delete from orders_1.ledger where key = 'o-1' and sequence = 2";
    world.sql.batch_execute(changes).await.unwrap();

    let body = json!({ "reason": "to see", "actor": "ada", "from": "both" });
    let once = [("idempotency-key", "once")];
    let first = instance.post_as("/ops/verify", &body, &once).await;
    assert_eq!(first.status(), 202);
    let location = first.headers()["location"].to_str().unwrap().to_owned();
    let begun: Value = first.json().await.unwrap();
    assert_eq!((&begun["kind"], &begun["fromBuild"], &begun["toBuild"]), (&json!("verify"), &json!(1), &Value::Null));
    let id = begun["id"].as_i64().unwrap();
    let again = instance.post_as("/ops/verify", &body, &once).await;
    assert_eq!((again.status().as_u16(), &again.headers()["idempotent-replayed"]), (202, &"true".parse().unwrap()));
    assert_eq!(again.json::<Value>().await.unwrap()["id"], json!(id));

    let over = until_over(&instance, id).await;
    assert_eq!((&over["state"], &over["phase"], &over["error"]), (&json!("done"), &json!("done"), &Value::Null));
    assert_eq!((&over["progress"]["records"], &over["progress"]["percent"]), (&json!(3), &json!(100.0)), "{over:#}");
    let comparison = &over["comparison"];
    assert_eq!((&comparison["compared"], &comparison["different"]), (&json!(3), &json!(3)), "{over:#}");

    let page = instance.get(&format!("{location}/differences?pageSize=2")).await;
    let link = page.headers()["link"].to_str().unwrap().to_owned();
    let page: Value = page.json().await.unwrap();
    assert_eq!((&page["total"], &page["kept"], &page["pageSize"]), (&json!(3), &json!(3), &json!(2)), "{page:#}");
    let keys: Vec<&str> = page["items"].as_array().unwrap().iter().map(|item| item["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["o-1", "o-2"]);
    let columns = &page["items"][0]["columns"];
    assert_eq!(columns["totalNet"], old_new(json!("28.69"), json!("28.68")), "{page:#}");
    assert_eq!(columns["events[2]"]["new"]["eventId"], "o-1-event-2", "the log says which event it was: {page:#}");
    let next = link.split('<').find(|part| part.contains("rel=\"next\"")).unwrap().split('>').next().unwrap();
    let last = instance.json(next).await;
    assert_eq!(last["items"].as_array().unwrap().len(), 1, "{last:#}");
    assert_eq!((&last["items"][0]["key"], &last["items"][0]["found"]), (&json!("o-3"), &json!("different")));
    assert!(last["items"][0]["columns"]["items[1]"]["old"].is_null(), "{last:#}");

    for (body, field) in [
        (json!({ "reason": "x", "sample": 1, "key": "o-1" }), "sample"),
        (json!({ "reason": "x", "from": "heaven" }), "from"),
        (json!({ "from": "log" }), "reason"),
    ] {
        let refused = instance.posted("/ops/verify", &body, 400).await;
        assert_eq!(refused["errors"][0]["parameter"], field, "{refused}");
    }
    assert_eq!(instance.refusal("/ops/operations/99/differences", 404).await["code"], "operation_not_found");
    assert_eq!(instance.refusal(&format!("{location}/differences?cursor=x"), 400).await["code"], "invalid_cursor");
    let nobody = verified(&instance, json!({ "key": "o-9" })).await;
    assert_eq!((&nobody["state"], &nobody["error"]["code"]), (&json!("failed"), &json!("key_not_found")), "{nobody:#}");
}

/// A rebuild's differences stand in the same list, and more than are kept are counted.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_rebuild_finds_is_listed_as_well_and_the_list_is_bounded() {
    let world = World::new(1).await;
    let instance = world.start().await;
    lives(&world, &instance, &["o-1"]).await;
    world.sql.batch_execute("update orders_1.orders set status = 'Lost' where order_id = 'o-1'").await.unwrap();
    let id = instance.posted("/ops/views/rebuild", &json!({ "reason": "x", "cutover": "manual" }), 202).await["id"]
        .as_i64()
        .unwrap();
    until("it is compared", PATIENCE, || async {
        (instance.json(&format!("/ops/operations/{id}")).await["phase"] == "ready").then_some(())
    })
    .await;
    let found = instance.json(&format!("/ops/operations/{id}/differences")).await;
    assert_eq!((&found["total"], &found["kept"], &found["items"][0]["key"]), (&json!(1), &json!(1), &json!("o-1")));
    assert!(
        found["items"][0]["columns"].as_object().unwrap().values().any(|values| values["old"] == "Lost"),
        "{found:#}"
    );
    instance.posted(&format!("/ops/operations/{id}/cancel"), &json!({}), 202).await;
    until_over(&instance, id).await;

    let many = "insert into orders_1.orders select (jsonb_populate_record(o, jsonb_build_object('order_id', 'x-' || n, \
                'dedup_event_id', 'x-' || n))).* from orders_1.orders o, generate_series(1, 10100) n where order_id = 'o-1'";
    world.sql.batch_execute(many).await.unwrap();
    let over = verified(&instance, json!({})).await;
    let found = instance.json(&format!("{}/differences", over["href"].as_str().unwrap())).await;
    assert_eq!((&found["total"], &found["kept"]), (&json!(10_101), &json!(10_000)), "{over:#}");
    let rows = world.number("select count(*) from operation_differences").await;
    assert_eq!(rows, 10_001, "of the rebuild and of the verification");
}

/// Noise, decisions, letters and shares of a memory that is too small for all, while more arrives.
#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_is_being_projected_verifies_clean_by_the_log() {
    let world = World::new(3).await;
    let instance = world.start().await;
    let load = Load::new("o", 1_500, 3);
    let records = load.records();
    let bad = TestRecord { payload: Some(b"{ this is no event".to_vec()), ..item_added("bad", 2).record() };
    let percent = |order: &str, sequence, version: &str| {
        let mut record = item_added(order, sequence).with("taxPercent", json!("19")).record();
        record.headers.push(("x-event-version".to_owned(), version.as_bytes().to_vec()));
        record
    };
    let odd = ["v-1", "v-2"].map(|order| vec![created(order).record(), percent(order, 2, &order[2..])]);
    let unknown = TestEvent::new("gap", 5, "OrderGiftWrapped", json!({})).record();
    let further = [item_added("gap", 4).record(), unknown, created("bad").record(), bad, item_added("bad", 3).record()];
    world.publish(odd.into_iter().flatten().chain(further)).await;
    // Two orders cannot have the same latest event: the second one is refused, and waits.
    world
        .publish([created("twin-1").record(), created("twin-2").with("eventId", json!("twin-1-event-1")).record()])
        .await;
    world.until_consumed(11).await;
    instance.posted("/ops/held/gap/skip", &json!({ "reason": "lost" }), 202).await;
    let letter = world.number("select id from dead_letters where key = 'bad'").await;
    let mended = json!({ "reason": "mended", "payload": item_added("bad", 2).body });
    instance.posted(&format!("/ops/dead-letters/{letter}/replace"), &mended, 202).await;
    instance.order_at("gap", 5).await;
    instance.order_at("bad", 3).await;
    let mut looks = 0;
    for chunk in records.chunks(records.len().div_ceil(4)) {
        world.publish(chunk.to_vec()).await;
        let (code, found) = verify(&world, &["--from", "both", "--set", "rebuild.memory_bytes=1048576"]).await;
        assert_eq!((code, &found["compared"], &found["untold"]), (0, &found["equal"], &json!(0)), "{found:#}");
        looks += i32::from(found["compared"].as_u64().unwrap() > 10);
    }
    assert!(looks > 0, "something was there to be verified");
    world.until_consumed(load.len() + 11).await;
    let over = verified(&instance, json!({ "from": "both" })).await;
    let orders = world.number("select count(*) from orders_view").await;
    assert_eq!(
        (&over["comparison"]["equal"], &over["comparison"]["compared"]),
        (&json!(orders), &json!(orders)),
        "{over:#}"
    );
    let shares = over["comparison"]["untold"].as_u64();
    assert_eq!(shares, Some(0), "{over:#}");
}

/// Of orders whose first events have left the log nothing is said but that, with the number and the partition.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_has_lost_is_named_and_no_difference() {
    let world = World::new(1).await;
    let instance = world.start().await;
    lives(&world, &instance, &["o-1", "o-2", "o-3"]).await;
    world.truncate(0, 7).await;
    let over = verified(&instance, json!({ "from": "log" })).await;
    let found = &over["comparison"];
    assert_eq!((&found["compared"], &found["equal"], &found["untold"]), (&json!(1), &json!(1), &json!(2)), "{over:#}");
    assert_eq!(found["logBegins"], json!({ "0": 7 }));
    assert_eq!(
        found["untoldSample"],
        json!({
            "o-1": "event 1 is not in the log any more: partition 0 of the log begins at offset 7",
            "o-2": "event 1 is not in the log any more: partition 0 of the log begins at offset 7",
        })
    );
    let over = verified(&instance, json!({ "from": "both" })).await;
    let found = &over["comparison"];
    assert_eq!((&found["equal"], &found["untold"]), (&json!(3), &json!(0)), "the ledger tells: {over:#}");
    world.sql.batch_execute("update orders_1.orders set currency = 'USD' where order_id = 'o-3'").await.unwrap();
    let over = verified(&instance, json!({ "from": "log" })).await;
    assert_eq!(over["comparison"]["sample"][0]["key"], "o-3", "what is whole is compared: {over:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_log_is_no_basis() {
    let mut world = World::new(1).await;
    let instance = world.start().await;
    lives(&world, &instance, &["o-1"]).await;
    instance.stop().await;
    world.recreate_topic(1).await;
    world.publish(life("o-1", 5).iter().map(TestEvent::record)).await;
    let (code, _, error) = run(&world, &["verify", "--from", "log"], "").await;
    assert!(code == 1 && error.contains("but progress was made on topic id"), "{error}");
    assert_eq!(verify(&world, &["--from", "ledger"]).await.0, 0);
}

/// Killed in the middle, it is begun anew by the next process; called off, it ends; and there is one at a time.
#[tokio::test(flavor = "multi_thread")]
async fn a_verification_survives_its_process_and_can_be_called_off() {
    let world = World::new(1).await;
    let dying = world.start_with(&[("STREAMVIEW_CRASH_AT", "verify.begun")]).await;
    lives(&world, &dying, &["o-1", "o-2"]).await;
    world.sql.batch_execute("update orders_1.orders set total_net = 1 where order_id = 'o-2'").await.unwrap();
    let id = dying.posted("/ops/verify", &json!({ "reason": "x", "from": "both" }), 202).await["id"].as_i64().unwrap();
    assert!(Instance::was_killed(dying.until_ended().await), "{}", dying.log_text());
    let next = world.start().await;
    let over = until_over(&next, id).await;
    assert_eq!((&over["state"], &over["comparison"]["sample"][0]["key"]), (&json!("done"), &json!("o-2")), "{over:#}");

    // Somebody keeps the table to himself, so it cannot end by itself.
    world.sql.batch_execute("begin; lock table orders_1.ledger in access exclusive mode").await.unwrap();
    let id = next.posted("/ops/verify", &json!({ "reason": "x" }), 202).await["id"].as_i64().unwrap();
    let second = next.posted("/ops/verify", &json!({ "reason": "y" }), 409).await;
    assert_eq!((&second["code"], &second["operationId"]), (&json!("operation_running"), &json!(id)), "{second}");
    let busy = next.posted("/ops/views/rebuild", &json!({ "reason": "y" }), 409).await;
    assert_eq!(busy["operationId"], json!(id));
    next.posted(&format!("/ops/operations/{id}/cancel"), &json!({}), 202).await;
    let over = until_over(&next, id).await;
    assert_eq!(over["state"], "cancelled", "{over:#}");
    world.sql.batch_execute("rollback").await.unwrap();
    world.publish([status_changed("o-1", 6, "Paid").record()]).await;
    next.order_at("o-1", 6).await;
}
