//! A build keeps its meaning: the version of its projection and the settings that change rows are stored with it, and what
//! is configured later is shown, not mixed in.

use serde_json::{Value, json};
use streamview::builds;
use streamview::domain::build::BuildId;
use streamview::domain::meaning::{Meaning, ViewRules};
use streamview::views::orders::TABLES;

use crate::conformance::{Service, counted};
use crate::counter;
use crate::support::instance::{Instance, is_only_slow};
use crate::support::orders::{TestEvent, created, item_added, life};
use crate::support::rebuild::meaning;
use crate::support::world::World;
use crate::support::{PATIENCE, until};

const RATE: &str = "STREAMVIEW_TAX__DEFAULT_RATE";
const HISTORY: &str = "STREAMVIEW_PROJECTOR__HISTORY";
const FIRST: &str = "STREAMVIEW_PROJECTOR__FIRST_SEQUENCE";
const DIFFERS: &str = "streamview_configuration_differs";

/// The rules that are stored with a build of orders.
async fn stored(world: &World, build: i32) -> Value {
    let query = format!("select rules from view_builds where view = 'orders' and build = {build}");
    world.row(&query).await.get::<_, Option<Value>>(0).unwrap_or_default()
}

fn rules(rate: &str) -> Value {
    json!({ "history": "payload", "first_sequence": 1, "default_tax_rate": rate })
}

/// The one view of `/ops/views`.
async fn shown(instance: &Instance) -> Value {
    let mut views = instance.json("/ops/views").await;
    assert_eq!(views["items"].as_array().unwrap().len(), 1, "{views}");
    views["items"][0].take()
}

fn check<'a>(ready: &'a Value, name: &str) -> Option<&'a Value> {
    ready["checks"].as_array().unwrap().iter().find(|check| check["name"] == name)
}

/// What the default tax makes of each line of an order that states none.
async fn gross(world: &World, order_id: &str) -> Vec<String> {
    let query = format!(
        "select (gross_line_total / net_line_total)::numeric(10, 2)::text from order_items_view \
         where order_id = '{order_id}' and tax_rate is null order by line_no"
    );
    world.sql.query(&query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_with_rows_goes_on_by_its_own_rules_whatever_is_configured() {
    let world = World::new(1).await;
    let instance = world.start_with(&[(RATE, "0.19")]).await;
    world.publish([created("o-1").record(), item_added("o-1", 2).record()]).await;
    instance.order_at("o-1", 2).await;
    assert_eq!(stored(&world, 1).await, rules("0.19"));
    let view = shown(&instance).await;
    assert_eq!(view["configuration"]["differs"], json!([]), "{view}");
    assert_eq!(check(&instance.readiness().await, "configuration:orders"), None);
    instance.stop().await;

    let other = [(RATE, "0.07"), (HISTORY, "off"), (FIRST, "0")];
    let instance = world.start_with(&other).await;
    let zero = TestEvent { sequence: 0, ..created("zero") };
    world.publish([item_added("o-1", 3).record(), zero.record()]).await;
    instance.order_at("o-1", 3).await;

    assert_eq!(gross(&world, "o-1").await, ["1.19", "1.19"]);
    // History is kept and shown, and numbers begin at 1: neither half is the configuration's.
    assert_eq!(instance.json("/orders/o-1/events").await["items"].as_array().unwrap().len(), 3);
    world.until_consumed(4).await;
    assert_eq!(world.number("select count(*) from orders_view where order_id = 'zero'").await, 0);
    assert_eq!(world.number("select count(*) from dead_letters where reason = 'invalid_sequence'").await, 1);
    assert_eq!(stored(&world, 1).await, rules("0.19"));

    // Four places say so, and reads and readiness are fine.
    let differences = "projector.history: the build keeps payload, configured is off; \
                       projector.first_sequence: the build keeps 1, configured is 0; \
                       tax.default_rate: the build keeps 0.19, configured is 0.07";
    let ready = instance.readiness().await;
    let detail = check(&ready, "configuration:orders").unwrap();
    assert_eq!((&ready["status"], &detail["status"]), (&json!("ok"), &json!("ok")), "{ready}");
    assert!(detail["detail"].as_str().unwrap().contains(differences), "{ready}");
    let log = instance.log_text();
    let said = log.lines().filter(|line| line.contains("`streamview rebuild` would take up what is configured"));
    let said: Vec<&str> = said.collect();
    assert!(said.len() == 1 && said[0].contains(differences), "{said:?}");
    instance.until_metric(DIFFERS, &["view=\"orders\""], 1.0).await;
    let view = shown(&instance).await;
    let expected = json!({
        "projectionVersion": 1,
        "rules": { "history": "off", "firstSequence": 0, "defaultTaxRate": "0.07" },
        "differs": [
            { "setting": "projector.history", "stored": "payload", "configured": "off" },
            { "setting": "projector.first_sequence", "stored": "1", "configured": "0" },
            { "setting": "tax.default_rate", "stored": "0.19", "configured": "0.07" },
        ],
    });
    assert_eq!(view["configuration"], expected, "{view}");

    // Who only serves says the same, and what is configured again is said by nobody.
    let api = world.launch_command(&["serve", "--only", "api"], &other);
    api.until_ready().await;
    assert_eq!(api.json("/orders/o-1/events").await["items"].as_array().unwrap().len(), 3);
    api.until_metric(DIFFERS, &["view=\"orders\""], 1.0).await;
    instance.stop().await;
    let instance = world.start_with(&[(RATE, "0.190")]).await;
    assert_eq!(check(&instance.readiness().await, "configuration:orders"), None);
    instance.until_metric(DIFFERS, &["view=\"orders\""], 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_into_which_nothing_was_consumed_takes_what_is_configured() {
    let world = World::new(1).await;
    let first = world.start_with(&[(RATE, "0.19")]).await;
    assert_eq!(stored(&world, 1).await, rules("0.19"));
    // The first one runs still, and would apply by other rules than are stored: it does not.
    let second = world.start_with(&[(RATE, "0.07")]).await;
    assert_eq!(stored(&world, 1).await, rules("0.07"));
    second.stop().await;
    world.publish([created("o-1").record(), item_added("o-1", 2).record()]).await;
    first.until_halted("rules_changed").await;
    let halt = first.json("/ops/consumer").await["views"][0]["halt"]["detail"].as_str().unwrap().to_owned();
    assert!(halt.contains("tax.default_rate: the build keeps 0.07, configured is 0.19"), "{halt}");
    assert_eq!(world.consumed().await, 0);
    first.stop().await;
    let instance = world.start_with(&[(RATE, "0.07")]).await;
    instance.order_at("o-1", 2).await;
    assert_eq!(gross(&world, "o-1").await, ["1.07"]);
    // From here on there are rows.
    instance.stop().await;
    drop(world.start_with(&[(RATE, "0.19")]).await);
    assert_eq!(stored(&world, 1).await, rules("0.07"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_into_the_empty_active_build_goes_by_what_is_configured_and_keeps_it() {
    let world = World::new(1).await;
    drop(world.start_with(&[(RATE, "0.19")]).await);
    world.publish(life("o-1", 3).iter().map(TestEvent::record)).await;
    let load = |rate: &str, settings: &[(&str, &str)]| {
        let rate = format!("tax.default_rate={rate}");
        world.launch_command(&["load", "--set", &rate], settings)
    };
    // One that was cut short leaves nothing behind that counts.
    let cut = load("0.25", &[("STREAMVIEW_CRASH_AT", "load.written")]);
    assert!(Instance::was_killed(cut.until_ended().await));
    assert_eq!(stored(&world, 1).await, rules("0.25"));
    let loaded = load("0.07", &[]);
    assert!(loaded.until_ended().await.success(), "{}", loaded.log_text());
    assert_eq!(stored(&world, 1).await, rules("0.07"));
    assert_eq!(gross(&world, "o-1").await, ["1.07"]);
    let instance = world.start_with(&[(RATE, "0.19")]).await;
    world.publish([item_added("o-1", 4).record()]).await;
    instance.order_at("o-1", 4).await;
    assert_eq!(gross(&world, "o-1").await, ["1.07", "1.07"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_from_before_rules_were_kept_gets_those_of_the_first_projector() {
    let world = World::new(1).await;
    let instance = world.start_with(&[(RATE, "0.19")]).await;
    world.publish([created("o-1").record()]).await;
    instance.order_at("o-1", 1).await;
    instance.stop().await;
    world.sql.batch_execute("update view_builds set rules = null").await.unwrap();

    // Who only serves stores nothing.
    let api = world.launch_command(&["serve", "--only", "api"], &[(RATE, "0.25")]);
    api.until_ready().await;
    assert_eq!(shown(&api).await["builds"][0]["rules"], Value::Null);
    assert_eq!(stored(&world, 1).await, Value::Null);
    let instance = world.start_with(&[(RATE, "0.07")]).await;
    assert_eq!(stored(&world, 1).await, rules("0.07"));
    let told = "the build is made by what is configured, from now on";
    assert_eq!(instance.log_text().matches(told).count(), 1, "{}", instance.log_text());
    // It is seen by who was there before.
    api.until_metric(DIFFERS, &["view=\"orders\""], 1.0).await;
    instance.stop().await;
    let instance = world.start_with(&[(RATE, "0.19")]).await;
    assert_eq!(stored(&world, 1).await, rules("0.07"));
    assert!(!instance.log_text().contains(told));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_build_is_shown_with_its_state_and_what_it_is_made_by() {
    let world = World::new(1).await;
    let instance = world.start_with(&[(RATE, "0.19")]).await;
    world.publish(life("o-1", 3).iter().map(TestEvent::record)).await;
    instance.order_at("o-1", 3).await;
    let rules = ViewRules { default_tax_rate: "0.07".to_owned(), ..meaning().rules };
    for number in [2, 3, 4] {
        let meaning = Meaning { projection_version: number, rules: rules.clone() };
        builds::create(&world.sql, BuildId::new("orders", number), &TABLES, &meaning).await.unwrap();
    }
    let states = "update view_builds set kept_until = '2030-01-01T00:00:00Z' where build = 3;
                  update view_builds set loading_since = now(), rules = rules || '{\"rounding\": \"down\"}' where build = 4;
                  analyze orders_1.orders, orders_1.order_items";
    world.sql.batch_execute(states).await.unwrap();
    let view = until("Postgres has counted the rows", PATIENCE, || async {
        let view = shown(&instance).await;
        (view["builds"][0]["rows"].as_i64() > Some(0)).then_some(view)
    })
    .await;
    let builds = view["builds"].as_array().unwrap();
    let states: Vec<[&Value; 4]> =
        builds.iter().map(|build| ["build", "state", "active", "projectionVersion"].map(|name| &build[name])).collect();
    let expected = [
        [json!(1), json!("active"), json!(true), json!(1)],
        [json!(2), json!("shadow"), json!(false), json!(2)],
        [json!(3), json!("kept"), json!(false), json!(3)],
        [json!(4), json!("loading"), json!(false), json!(4)],
    ];
    assert_eq!(states, expected.each_ref().map(|row| row.each_ref()), "{view}");
    assert_eq!((&view["view"], &view["activeBuild"]), (&json!("orders"), &json!(1)));
    assert_eq!(builds[0]["records"], 3);
    assert_eq!(builds[1]["records"], 0);
    assert!(builds.iter().all(|build| build["bytes"].as_i64() > Some(0)), "{view}");
    assert_eq!(builds[0]["rules"]["defaultTaxRate"], "0.19");
    assert_eq!(builds[1]["rules"], json!({ "history": "payload", "firstSequence": 1, "defaultTaxRate": "0.07" }));
    assert_eq!(builds[2]["keptUntil"], "2030-01-01T00:00:00Z");
    assert_eq!(builds[3]["rules"], Value::Null, "of a later version of the service");
    assert!(builds.iter().all(|build| build["createdAt"].is_string()), "{view}");
}

async fn counts(world: &World) -> Vec<String> {
    let query = "select key || ' ' || count from counter_1.counts order by key";
    world.sql.query(query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binary_with_another_projection_version_leaves_a_build_alone_and_says_so() {
    let world = World::new(1).await;
    let old = Service::start(&world, counter::registration_of_version("counter", 1)).await;
    world.publish(counted("a", 2)).await;
    world.until_consumed(2).await;
    let epochs = "select sum(owner_epoch) from projection_progress";
    let owned = world.number(epochs).await;

    let new = Service::start(&world, counter::registration_of_version("counter", 2)).await;
    let view = new.json("/ops/views").await["items"][0].take();
    assert_eq!(view["standing"]["code"], "projection_version_differs", "{view}");
    assert_eq!((&view["builds"][0]["projectionVersion"], &view["builds"][0]["state"]), (&json!(1), &json!("active")));
    let differs = json!([{ "setting": "projection_version", "stored": "1", "configured": "2" }]);
    assert_eq!(view["configuration"]["differs"], differs, "{view}");
    let ready = until("/readyz judges", PATIENCE, || async {
        let ready = new.json("/readyz").await;
        (!is_only_slow(&ready)).then_some(ready)
    })
    .await;
    let (status, check) = (&ready["status"], check(&ready, "view:counter").unwrap());
    assert_eq!((status, &check["status"]), (&json!("degraded"), &json!("degraded")), "{ready}");
    let words =
        "projection_version_differs: build 1 of view counter was made by projection version 1, and this binary has 2";
    assert!(check["detail"].as_str().unwrap().contains(words), "{ready}");
    let consumer = new.json("/ops/consumer").await["views"][0].take();
    assert_eq!((&consumer["state"], &consumer["partitions"]), (&json!("not_projecting"), &json!([])), "{consumer}");
    // The old one goes on, and nobody takes anything from it.
    world.publish(counted("b", 3)).await;
    world.until_consumed(5).await;
    assert_eq!(counts(&world).await, ["a 2", "b 3"]);
    assert_eq!(world.number(epochs).await, owned);
    old.stop().await;
    // With new ones only it stands still; the lag says why.
    world.publish(counted("c", 1)).await;
    until("the lag is seen with its reason", PATIENCE, || async {
        let lags = new.json("/ops/lags").await;
        let (lag, reason) = (&lags["totalLag"], lags["partitions"][0]["reason"].as_str()?);
        (*lag == 1 && reason.contains(words)).then_some(())
    })
    .await;
    assert_eq!(counts(&world).await, ["a 2", "b 3"]);
    new.stop().await;
    let old = Service::start(&world, counter::registration_of_version("counter", 1)).await;
    world.until_consumed(6).await;
    assert_eq!(counts(&world).await, ["a 2", "b 3", "c 1"]);
    old.stop().await;
}
