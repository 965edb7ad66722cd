//! What is stored is verified against its ledger: whatever was changed behind our back is named.

use std::sync::Arc;

use serde_json::{Value, json};
use streamview::app;
use streamview::builds::verify::{Ask, Basis, Scope, Verification};
use streamview::config::Config;
use streamview::domain::build::Build;
use streamview::projector::runtime::Parts;
use streamview::store::pool;
use streamview::telemetry::metrics::Metrics;
use tokio::sync::mpsc;

use crate::cli::run;
use crate::counter;
use crate::support::load::Load;
use crate::support::orders::{TestEvent, created, item_added, life, status_changed};
use crate::support::world::World;
use crate::support::{PATIENCE, until};

/// Runs the command; its exit code and what it says.
async fn verify(world: &World, arguments: &[&str]) -> (i32, Value) {
    let (code, text, error) = run(world, &[&["verify", "--json"], arguments].concat(), "").await;
    (code, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{error}")))
}

/// The one key that is told of, with what differs in it.
fn only(found: &Value) -> (&str, &str, &Value) {
    let sample = found["sample"].as_array().unwrap();
    assert_eq!(sample.len(), 1, "{found:#}");
    (sample[0]["key"].as_str().unwrap(), sample[0]["found"].as_str().unwrap(), &sample[0]["columns"])
}

async fn three_lives(world: &World) {
    let instance = world.start().await;
    for order in ["o-1", "o-2", "o-3"] {
        world.publish(life(order, 5).iter().map(TestEvent::record)).await;
        instance.order_at(order, 5).await;
    }
    instance.stop().await;
}

/// Each change by hand, what is said of it, and how it is taken back.
#[tokio::test(flavor = "multi_thread")]
async fn each_change_behind_our_back_is_named_by_order_column_and_both_values() {
    let world = World::new(1).await;
    three_lives(&world).await;
    let line_2 = "from orders_1.order_items where order_id = 'o-2' and line_no = 2";
    let old_new = |old: Value, new: Value| json!({ "old": old, "new": new });
    let whole = json!({ "itemId": "i-2", "sku": "CUP", "qty": "1", "price": "9.99", "taxRate": null,
                        "netLineTotal": "9.99", "grossLineTotal": "9.99" });
    let table = [
        (
            "update orders_1.orders set total_net = 28.69 where order_id = 'o-2'",
            "different",
            json!({ "totalNet": old_new(json!("28.69"), json!("28.68")) }),
        ),
        (
            "update orders_1.orders set total_net = 28.680 where order_id = 'o-2'",
            "different",
            json!({ "totalNet": old_new(json!("28.680"), json!("28.68")) }),
        ),
        (
            "update orders_1.orders set dedup_event_id = 'x', updated_at = '2026-01-01T00:00:06Z' where order_id = 'o-2'",
            "different",
            json!({ "dedupEventId": old_new(json!("x"), json!("o-2-event-5")),
                    "updatedAt": old_new(json!("2026-01-01T00:00:06+00:00"), json!("2026-01-01T00:00:05+00:00")) }),
        ),
        (
            "update orders_1.orders set last_event_sequence = 4 where order_id = 'o-2'",
            "different",
            json!({ "lastEventSequence": old_new(json!("4"), json!("5")) }),
        ),
        (
            "update orders_1.order_items set price = 9.89 where order_id = 'o-2' and line_no = 2",
            "different",
            json!({ "items[2].price": old_new(json!("9.89"), json!("9.99")) }),
        ),
        (
            "update orders_1.order_items set tax_rate = 0.19 where order_id = 'o-2' and line_no = 2",
            "different",
            json!({ "items[2].taxRate": old_new(json!("0.19"), Value::Null) }),
        ),
        (&format!("delete {line_2}"), "different", json!({ "items[2]": old_new(Value::Null, whole.clone()) })),
        (
            &format!(
                "insert into orders_1.order_items select order_id, 9, item_id, sku, qty, price, tax_rate, \
                      net_line_total, gross_line_total {line_2}"
            ),
            "different",
            json!({ "items[9]": old_new(whole, Value::Null) }),
        ),
        (
            "delete from orders_1.ledger where key = 'o-2' and sequence in (2, 3)",
            "different",
            json!({ "events[2]": old_new(Value::Null, json!("an event that was consumed")),
                    "events[3]": old_new(Value::Null, json!("an event that was consumed")) }),
        ),
        (
            "delete from orders_1.ledger where key = 'o-2' and sequence = 5",
            "different",
            json!({ "lastEventSequence": old_new(json!("5"), json!("4")) }),
        ),
        ("update orders_1.ledger set payload = replace(payload, 'Paid', 'Lost') where key = 'o-2'", "none", json!({})),
        (
            "update orders_1.ledger set payload = replace(payload, 'TEA', 'TOE') where key = 'o-2'",
            "different",
            json!({ "items[1].sku": old_new(json!("TEA"), json!("TOE")) }),
        ),
        (
            "update orders_1.ledger set payload = '{' where key = 'o-2' and sequence = 4",
            "different",
            json!({ "events[4]": old_new(
                json!("cannot be folded: invalid_json: the value is not valid JSON: EOF while parsing an object at line 1 column 1"),
                json!("an event that was folded")) }),
        ),
        (
            "delete from orders_1.orders where order_id = 'o-2'",
            "missing_old",
            json!({ "lastEventSequence": old_new(Value::Null, json!("5")) }),
        ),
        (
            "delete from orders_1.ledger where key = 'o-2'",
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
        let (code, found) = verify(&world, &[]).await;
        if expected == "none" {
            // Statuses in between leave no trace in the rows.
            assert_eq!((code, &found["equal"]), (0, &json!(3)), "{change}: {found:#}");
        } else {
            assert_eq!((code, &found["compared"], &found["equal"]), (1, &json!(3), &json!(2)), "{change}: {found:#}");
            assert_eq!(only(&found), ("o-2", expected, &columns), "{change}");
            let (code, found) = verify(&world, &["--key", "o-2"]).await;
            assert_eq!((code, only(&found)), (1, ("o-2", expected, &columns)), "{change}");
        }
        for name in ["orders", "order_items", "ledger"] {
            let back = format!("truncate orders_1.{name}; insert into orders_1.{name} select * from kept.{name}");
            world.sql.batch_execute(&back).await.unwrap();
        }
        world.sql.batch_execute("drop schema kept cascade").await.unwrap();
    }
    let (code, found) = verify(&world, &["orders", "--sample", "2"]).await;
    assert_eq!((code, &found["compared"], &found["equal"], &found["untold"]), (0, &json!(2), &json!(2), &json!(0)));
    let (code, _, error) = run(&world, &["verify", "--key", "o-9"], "").await;
    assert!(code == 1 && error.contains("there is nothing of the key \"o-9\""), "{error}");
    let (code, text, error) = run(&world, &["verify"], "").await;
    assert_eq!((code, text.as_str()), (0, "view orders, build 1: 3 keys compared, 3 as they should be\n"), "{error}");
}

/// A view of noise and decisions verifies while more arrives.
#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_is_being_projected_verifies_clean() {
    let world = World::new(3).await;
    let instance = world.start().await;
    let load = Load::new("o", 400, 3);
    let records = load.records();
    let percent = |order: &str, sequence, version: &str| {
        let mut record = item_added(order, sequence).with("taxPercent", json!("19")).record();
        record.headers.push(("x-event-version".to_owned(), version.as_bytes().to_vec()));
        record
    };
    // The version that the header said is not kept: in the one the percent counts, in the other it is passed over.
    let odd = ["v-1", "v-2"].map(|order| vec![created(order).record(), percent(order, 2, &order[2..])]);
    world.publish(odd.into_iter().flatten().chain([item_added("gap", 4).record()])).await;
    instance.order_at("v-1", 2).await;
    instance.order_at("v-2", 2).await;
    instance.posted("/ops/held/gap/skip", &json!({ "reason": "lost" }), 202).await;
    instance.order_at("gap", 4).await;
    let unknown = TestEvent::new("gap", 5, "OrderGiftWrapped", json!({}));
    world.publish([unknown.record(), status_changed("gap", 6, "Paid").record()]).await;
    instance.order_at("gap", 6).await;
    let mut looks = 0;
    for chunk in records.chunks(records.len().div_ceil(4)) {
        world.publish(chunk.to_vec()).await;
        let (code, found) = verify(&world, &[]).await;
        assert_eq!((code, &found["different"]), (0, &json!(0)), "{found:#}");
        looks += i32::from(found["compared"].as_u64().unwrap() > 3);
    }
    assert!(looks > 0, "something was there to be verified");
    let all = load.len() + 7;
    until("all is consumed", PATIENCE, || async { (world.consumed().await == all).then_some(()) }).await;
    let (code, found) = verify(&world, &["--all"]).await;
    let orders = world.number("select count(*) from orders_view").await;
    assert_eq!((code, &found["equal"]), (0, &json!(orders)), "{found:#}");
    let temporary = "select count(*) from pg_class where relpersistence = 't' and relkind = 'r'";
    // Postgres notices that a session has ended a moment after the command has.
    until("the tables of its sessions are gone", PATIENCE, || async {
        (world.number(temporary).await == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_compact_history_does_not_tell_is_no_success() {
    let world = World::new(1).await;
    let instance = world.start_with(&[("STREAMVIEW_PROJECTOR__HISTORY", "compact")]).await;
    world.publish(life("o-1", 3).iter().map(TestEvent::record)).await;
    instance.order_at("o-1", 3).await;
    let (code, found) = verify(&world, &[]).await;
    assert_eq!((code, &found["compared"], &found["untold"]), (1, &json!(0), &json!(1)));
    assert_eq!(found["untoldSample"], json!({ "o-1": "the history holds event 1 without its payload" }));
}

/// Another view by the same code, whose table has no further rows.
#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_the_engine_has_never_seen_is_verified() {
    let world = World::new(1).await;
    let config = Arc::new(Config::load(None, world.environment(), &[]).unwrap());
    let registration = counter::registration("counter");
    app::migrate(&config, &[(registration.clone(), world.view_settings())]).await.unwrap();
    let events = "insert into counter_1.ledger \
                  select key, n, key || n, 'Counted', '1970-01-01Z', 0, n, 'applied', to_json(key || n)::text, 0, 1 \
                  from unnest(array['a', 'b']) key, generate_series(1, 3) n; \
                  insert into counter_1.counts values ('a', 3, 'a3', 3), ('b', 3, 'b3', 2)";
    world.sql.batch_execute(events).await.unwrap();
    let parts = Parts {
        settings: world.view_settings(),
        metrics: Arc::new(Metrics::new()),
        pool: pool::read_pool(&config.database).unwrap(),
        build: Build(1),
        meaning: crate::support::rebuild::meaning(),
        stands: None,
        group: "none".to_owned(),
        config,
    };
    let (reports, _heard) = mpsc::channel(100);
    let ask = Ask { scope: Scope::All, basis: Basis::Ledger };
    let found: Verification = registration.verify(parts, ask, reports).await.unwrap();
    let shown = serde_json::to_value(&found).unwrap();
    assert_eq!(only(&shown), ("b", "different", &json!({ "count": { "old": "2", "new": "3" } })));
    assert_eq!((found.comparison.equal, found.is_clean()), (1, false));
}
