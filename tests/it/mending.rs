//! One order is mended while its view is fed: what was changed behind our back is undone, and the next event is folded upon
//! what it should have been.

use serde_json::{Value, json};

use crate::support::instance::Instance;
use crate::support::load::Load;
use crate::support::orders::{TestEvent, created, item_added, life, oracle, status_changed, stored};
use crate::support::world::World;
use crate::support::{PATIENCE, until};

async fn fresh(settings: &[(&str, &str)]) -> (World, Instance) {
    let world = World::new(1).await;
    let instance = world.start_with(settings).await;
    for order in ["o-1", "o-2"] {
        world.publish(life(order, 4).iter().map(TestEvent::record)).await;
        instance.order_at(order, 4).await;
    }
    (world, instance)
}

async fn mend(instance: &Instance, from: &str) -> Value {
    instance.posted("/ops/orders/o-2/rebuild", &json!({ "reason": "by hand", "from": from }), 200).await
}

/// The whole build as text.
async fn content(world: &World, build: i32) -> Vec<String> {
    let query = format!(
        "select 'o' || to_jsonb(o)::text from orders_{build}.orders o
         union all select 'i' || to_jsonb(i)::text from orders_{build}.order_items i
         union all select 'l' || to_jsonb(l)::text from orders_{build}.ledger l
         order by 1"
    );
    world.sql.query(&query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_mended_and_the_next_event_is_folded_upon_it() {
    let (world, mut instance) = fresh(&[]).await;
    let before = content(&world, 1).await;
    let line = json!({ "itemId": "i-2", "sku": "CUP", "qty": "1", "price": "9.99", "taxRate": null,
                       "netLineTotal": "9.99", "grossLineTotal": "9.99" });
    for (from, change, column, old, new) in [
        (
            "ledger",
            "update orders_1.orders set total_net = 28.69 where order_id = 'o-2'",
            "totalNet",
            json!("28.69"),
            json!("18.69"),
        ),
        (
            "log",
            "update orders_1.orders set total_net = 28.69 where order_id = 'o-2'",
            "totalNet",
            json!("28.69"),
            json!("18.69"),
        ),
        (
            "ledger",
            "delete from orders_1.order_items where order_id = 'o-2' and line_no = 2",
            "items[2]",
            Value::Null,
            line,
        ),
        (
            "log",
            "delete from orders_1.orders where order_id = 'o-2'; delete from orders_1.order_items where order_id = 'o-2'",
            "lastEventSequence",
            Value::Null,
            json!("4"),
        ),
        ("ledger", "delete from orders_1.orders where order_id = 'o-2'", "lastEventSequence", Value::Null, json!("4")),
        (
            "ledger",
            "update orders_1.orders set last_event_sequence = 3 where order_id = 'o-2'",
            "lastEventSequence",
            json!("3"),
            json!("4"),
        ),
    ] {
        world.sql.batch_execute(change).await.unwrap();
        let mended = mend(&instance, from).await;
        let build = &mended["builds"][0];
        let values = &build["changed"][column];
        if column == "totalNet" {
            assert_eq!(values["old"], old, "{from} {change}: {mended:#}");
        } else {
            assert_eq!((&values["old"], &values["new"]), (&old, &new), "{from} {change}: {mended:#}");
        }
        assert_eq!((&build["lastEventSequence"], &build["notMended"]), (&json!(4), &Value::Null), "{mended:#}");
        assert_eq!(content(&world, 1).await, before, "{from} {change}");
    }
    let mut events: Vec<TestEvent> = life("o-1", 4).into_iter().chain(life("o-2", 4)).collect();
    for (sequence, from) in [(5, "ledger"), (8, "log")] {
        // The projector takes what is damaged into its memory, and folds upon it.
        instance.stop().await;
        let change = "update orders_1.orders set total_net = 0, item_count = 9 where order_id = 'o-2'";
        world.sql.batch_execute(change).await.unwrap();
        instance = world.start().await;
        world.publish([item_added("o-2", sequence).record()]).await;
        assert_eq!(instance.order_at("o-2", sequence).await["itemCount"], 10, "{from}");
        let mended = mend(&instance, from).await;
        assert_eq!(mended["builds"][0]["changed"]["itemCount"]["old"], "10", "{mended:#}");
        // From here on it has to go by what is stored.
        world.publish([item_added("o-2", sequence + 1).record(), item_added("o-2", sequence + 2).record()]).await;
        instance.order_at("o-2", sequence + 2).await;
        events.extend((sequence..=sequence + 2).map(|sequence| item_added("o-2", sequence)));
        assert_eq!(stored(&world).await, oracle(&events), "{from}");
    }
    let nothing = mend(&instance, "ledger").await;
    assert_eq!(nothing["builds"][0]["changed"], json!({}), "{nothing:#}");
    assert_eq!(nothing["detail"], "Nothing was wrong with the rows that readers read");
    assert_eq!(nothing["href"], "/orders/o-2");
}

/// What only the log can tell: the ledger's own rows.
#[tokio::test(flavor = "multi_thread")]
async fn from_the_log_the_ledger_is_mended_too_and_followers_are_told_nothing_twice() {
    let (world, instance) = fresh(&[]).await;
    let before = content(&world, 1).await;
    world.sql.batch_execute("delete from orders_1.ledger where key = 'o-2' and sequence = 3").await.unwrap();
    let refused = instance.posted("/ops/orders/o-2/rebuild", &json!({ "reason": "x" }), 409).await;
    assert_eq!(
        (&refused["code"], &refused["reason"]),
        (&json!("not_mendable"), &json!("history_incomplete")),
        "{refused:#}"
    );
    let changes = "update orders_1.ledger set payload = replace(payload, 'CUP', 'CAP') where key = 'o-2' and sequence = 2; \
                   insert into orders_1.ledger select key, 9, event_id, event_type, occurred_at, partition, \"offset\", effect, \
                   payload, commit_partition, commit from orders_1.ledger where key = 'o-2' and sequence = 1";
    world.sql.batch_execute(changes).await.unwrap();
    let refused = instance.posted("/ops/orders/o-2/rebuild", &json!({ "reason": "x", "from": "log" }), 409).await;
    assert_eq!((&refused["code"], &refused["reason"]), (&json!("not_mendable"), &json!("log_differs")), "{refused:#}");
    world.sql.batch_execute("delete from orders_1.ledger where key = 'o-2' and sequence = 9").await.unwrap();
    let mended = mend(&instance, "log").await;
    let changed = &mended["builds"][0]["changed"];
    assert!(
        changed["events[3]"]["old"].is_null() && changed["events[3]"]["new"]["eventId"] == "o-2-event-3",
        "{mended:#}"
    );
    assert!(changed["events[2].payload"]["new"].as_str().unwrap().contains("CUP"), "{mended:#}");
    let without_commits = |rows: Vec<String>| -> Vec<String> {
        rows.into_iter().map(|row| row.split("\"commit\"").next().unwrap().to_owned()).collect()
    };
    assert_eq!(without_commits(content(&world, 1).await), without_commits(before));
    let commits = "select count(distinct commit) from orders_1.ledger where key = 'o-2' and sequence in (3, 4)";
    assert_eq!(world.number(commits).await, 1, "the lost row has the commit of the next one");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_mended_says_why_and_changes_nothing() {
    let (world, instance) = fresh(&[("STREAMVIEW_PROJECTOR__HISTORY", "compact")]).await;
    let body = json!({ "reason": "x" });
    world.sql.batch_execute("update orders_1.orders set total_net = 0 where order_id = 'o-2'").await.unwrap();
    let before = content(&world, 1).await;
    let compact = instance.posted("/ops/orders/o-2/rebuild", &body, 409).await;
    assert_eq!(
        (&compact["code"], &compact["reason"]),
        (&json!("not_mendable"), &json!("history_incomplete")),
        "{compact:#}"
    );
    assert!(compact["detail"].as_str().unwrap().contains("event 1 without its payload"), "{compact:#}");
    for from in ["ledger", "log"] {
        let unknown = instance.posted("/ops/orders/o-9/rebuild", &json!({ "reason": "x", "from": from }), 404).await;
        assert_eq!(unknown["code"], "key_not_found", "{unknown:#}");
    }
    let bad = instance.posted("/ops/orders/o-2/rebuild", &json!({ "from": "both" }), 400).await;
    let fields: Vec<&Value> = bad["errors"].as_array().unwrap().iter().map(|error| &error["parameter"]).collect();
    assert_eq!(fields, ["reason", "from"], "{bad:#}");
    assert_eq!(content(&world, 1).await, before);

    // The log tells what a compact history does not, until it has lost that, too.
    let once = [("idempotency-key", "once")];
    let asked = json!({ "reason": "x", "from": "log" });
    let first = instance.post_as("/ops/orders/o-2/rebuild", &asked, &once).await;
    assert_eq!(first.status(), 200);
    let first: Value = first.json().await.unwrap();
    assert_eq!(first["builds"][0]["changed"]["totalNet"]["old"], "0", "{first:#}");
    world.sql.batch_execute("update orders_1.orders set total_net = 0 where order_id = 'o-2'").await.unwrap();
    let again = instance.post_as("/ops/orders/o-2/rebuild", &asked, &once).await;
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    assert_eq!(again.json::<Value>().await.unwrap(), first);
    assert_eq!(content(&world, 1).await, before, "the same call does nothing twice");
    world.truncate(0, 6).await;
    let truncated = instance.posted("/ops/orders/o-2/rebuild", &asked, 409).await;
    assert_eq!(truncated["reason"], "history_truncated", "{truncated:#}");
    assert!(
        truncated["detail"].as_str().unwrap().contains("partition 0 of the log begins at offset 6"),
        "{truncated:#}"
    );
    assert_eq!(content(&world, 1).await, before);
}

/// Every build that is fed is mended, and a process that dies in the middle has changed nothing.
#[tokio::test(flavor = "multi_thread")]
async fn kept_builds_are_mended_too_and_a_crash_leaves_what_was() {
    let (world, instance) = fresh(&[]).await;
    let id =
        instance.posted("/ops/views/rebuild", &json!({ "reason": "two builds" }), 202).await["id"].as_i64().unwrap();
    until("the rebuild is done", PATIENCE, || async {
        (instance.json(&format!("/ops/operations/{id}")).await["state"] == "done").then_some(())
    })
    .await;
    let (one, two) = (content(&world, 1).await, content(&world, 2).await);
    let change = |build: i32| format!("update orders_{build}.orders set total_net = 0 where order_id = 'o-2'");
    world.sql.batch_execute(&change(1)).await.unwrap();
    world.sql.batch_execute(&change(2)).await.unwrap();
    let mended = mend(&instance, "ledger").await;
    let builds: Vec<(i64, bool)> = mended["builds"]
        .as_array()
        .unwrap()
        .iter()
        .map(|build| (build["build"].as_i64().unwrap(), build["active"].as_bool().unwrap()))
        .collect();
    assert_eq!(builds, [(1, false), (2, true)], "{mended:#}");
    assert_eq!((content(&world, 1).await, content(&world, 2).await), (one.clone(), two.clone()));
    instance.stop().await;

    let dying = world.start_with(&[("STREAMVIEW_CRASH_AT", "mend.written")]).await;
    world.sql.batch_execute(&change(2)).await.unwrap();
    let changed = content(&world, 2).await;
    let request = dying.http.post(dying.url("/ops/orders/o-2/rebuild")).json(&json!({ "reason": "x" }));
    assert!(request.send().await.is_err(), "nobody answers");
    assert!(Instance::was_killed(dying.until_ended().await), "{}", dying.log_text());
    assert_eq!(content(&world, 2).await, changed);
    let next = world.start().await;
    mend(&next, "log").await;
    assert_eq!(content(&world, 2).await, two);
}

/// Orders are damaged and mended again and again while their events arrive; in the end every row is as it should be.
#[tokio::test(flavor = "multi_thread")]
async fn orders_are_mended_under_traffic() {
    let world = World::new(3).await;
    let instance = world.start().await;
    let load = Load::new("o", 150, 8);
    let records = load.records();
    let orders = load.orders();
    let (before, meanwhile) = records.split_at(records.len() / 2);
    world.publish(before.to_vec()).await;
    world.until_consumed(before.len() as i64).await;
    let publish = async {
        for chunk in meanwhile.chunks(100) {
            world.publish(chunk.to_vec()).await;
            tokio::task::yield_now().await;
        }
    };
    let damage = async {
        let mut mended = 0;
        for (order, from) in orders.iter().zip(["ledger", "log"].into_iter().cycle()).take(40) {
            let change = "update orders_1.orders set total_net = total_net + 1 where order_id = $1";
            if world.sql.execute(change, &[order]).await.unwrap() == 0 {
                continue;
            }
            let asked = json!({ "reason": "damaged on purpose", "from": from });
            instance.posted(&format!("/ops/orders/{order}/rebuild"), &asked, 200).await;
            mended += 1;
        }
        mended
    };
    let ((), mended) = tokio::join!(publish, damage);
    world.until_consumed(load.len()).await;
    assert!(mended > 0, "something was there to be mended");
    assert_eq!(world.conservation().await[0], load.len());
    assert_eq!(stored(&world).await, oracle(load.events()));
    // One that waits for its first event has no row, and nothing to be made of.
    world.publish([item_added("late", 2).record()]).await;
    world.until_consumed(load.len() + 1).await;
    instance.posted("/ops/orders/late/rebuild", &json!({ "reason": "x" }), 404).await;
    world.publish([created("late").record(), status_changed("late", 3, "Paid").record()]).await;
    instance.order_at("late", 3).await;
}
