//! Two builds of a view compared key by key: what is equal is found equal, under live traffic too, and what is not is named
//! by key, column and both values.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use streamview::builds::compare::{self, CompareError, Hooks, Pace, Pair, compare};
use streamview::builds::load::LoadControl;
use streamview::builds::{self};
use streamview::config::{Config, History};
use streamview::domain::build::{Build, BuildId};
use streamview::domain::comparison::{Comparison, Difference};
use streamview::engine::view::ViewSpec;
use streamview::projector::runtime::{Parts, RunningView};
use streamview::registrations;
use streamview::store::{names, pool};
use streamview::telemetry::metrics::Metrics;
use streamview::views::orders::TABLES;
use tokio_util::sync::CancellationToken;

use crate::counter;
use crate::support::load::Load;
use crate::support::orders::{TestEvent, created, life, status_changed};
use crate::support::rebuild::meaning;
use crate::support::world::{World, connect};
use crate::support::{PATIENCE, until};

/// Small pages, so that few keys are many pages.
const SMALL: Pace = Pace { page: 7, aside: 20, rounds: 200, still: 3 };

pub fn config(world: &World) -> Arc<Config> {
    Arc::new(Config::load(None, world.environment(), &[]).unwrap())
}

/// What works on a build in this process.
pub fn parts(world: &World, build: i32) -> Parts {
    streamview::schemas::client::install_tls();
    let config = config(world);
    Parts {
        settings: world.view_settings(),
        metrics: Arc::new(Metrics::new()),
        pool: pool::read_pool(&config.database).unwrap(),
        build: Build(build),
        meaning: meaning(),
        stands: None,
        group: format!("{}.{}", world.group, names::schema(BuildId::new("orders", build))),
        config,
    }
}

pub fn orders(world: &World) -> ViewSpec {
    registrations::all()[0].spec(&config(world).rules_of(&world.view_settings())).unwrap()
}

/// Build 2 as a rebuild makes it.
async fn load_build_2(world: &World) {
    builds::create(&world.sql, BuildId::new("orders", 2), &TABLES, &meaning()).await.unwrap();
    registrations::all()[0].load(parts(world, 2), LoadControl::new(100_000_000)).await.unwrap();
}

pub fn feed(world: &World, build: i32) -> RunningView {
    registrations::all()[0].start(&parts(world, build)).unwrap()
}

/// What a comparison told its caller.
struct Told<'a> {
    world: &'a World,
    keys: u64,
    waits: u64,
    found: Vec<Difference>,
    /// Cancelled once so many keys are done.
    cancel: (u64, CancellationToken),
}

impl<'a> Told<'a> {
    fn new(world: &'a World) -> Self {
        Told { world, keys: 0, waits: 0, found: Vec::new(), cancel: (u64::MAX, CancellationToken::new()) }
    }
}

impl Hooks for Told<'_> {
    fn progress(&mut self, keys: u64) {
        assert!(keys >= self.keys, "progress goes forward");
        self.keys = keys;
        if keys >= self.cancel.0 {
            self.cancel.1.cancel();
        }
    }

    async fn caught_up(&mut self) -> anyhow::Result<()> {
        self.waits += 1;
        let positions = "select coalesce(json_object_agg(partition, next_offset), '{}')::text from projection_progress where build = ";
        let mut now = Vec::new();
        for build in [1, 2] {
            let row = self.world.row(&format!("{positions}{build}")).await;
            now.push(row.get::<_, String>(0));
        }
        for (position, other) in now.iter().zip([2, 1]) {
            let behind = format!(
                "select count(*) from json_each_text('{position}') w join projection_progress p on p.build = {other} \
                 and p.partition = w.key::integer and p.next_offset < w.value::bigint"
            );
            until("both builds are as far as the other one was", PATIENCE, || async {
                (self.world.number(&behind).await == 0).then_some(())
            })
            .await;
        }
        Ok(())
    }

    async fn found(&mut self, differences: &[Difference]) -> anyhow::Result<()> {
        self.found.extend_from_slice(differences);
        Ok(())
    }
}

async fn compared(world: &World, spec: &ViewSpec, pace: Pace, told: &mut Told<'_>) -> Result<Comparison, CompareError> {
    let pair = Pair { spec, old: Build(1), new: Build(2), history: History::Payload };
    let client = pool::connect_writer(&config(world).database, "public").await.unwrap();
    let cancel = told.cancel.1.clone();
    spawnable(compare(&client, pair, pace, told, &cancel)).await
}

/// Whoever rebuilds compares in a task.
fn spawnable<F: Future + Send>(work: F) -> F {
    work
}

/// Both, once.
async fn compare_orders(world: &World) -> (Comparison, Vec<Difference>) {
    let mut told = Told::new(world);
    let comparison = compared(world, &orders(world), SMALL, &mut told).await.unwrap();
    let keys: Vec<&str> = told.found.iter().map(|difference| difference.key.as_str()).collect();
    let counted = comparison.different + comparison.only_old + comparison.only_new;
    assert_eq!(keys.len() as u64, counted, "each is told once: {keys:?}");
    (comparison, told.found)
}

fn shown(differences: &[Difference]) -> BTreeMap<&str, Value> {
    differences.iter().map(|one| (one.key.as_str(), json!([one.found.as_str(), one.columns]))).collect()
}

pub fn values(old: Value, new: Value) -> Value {
    json!({ "old": old, "new": new })
}

/// A world whose build 1 was made by a service and build 2 by a load, of the same log.
async fn world_of_two_builds() -> World {
    let world = World::new(3).await;
    let live = world.start().await;
    let load = Load::new("o", 40, 11);
    let mut records = load.records();
    records.extend(life("steady", 6).iter().map(TestEvent::record));
    let sent = records.len() as i64;
    world.publish(records).await;
    world.until_consumed(sent).await;
    live.stop().await;
    load_build_2(&world).await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loaded_build_equals_the_one_that_was_projected_live_whatever_its_events_were() {
    let world = world_of_two_builds().await;
    let keys = world.number("select count(*) from orders_1.orders").await as u64;
    assert!(keys > 20, "{keys}");
    for pace in [SMALL, Pace::default(), Pace { page: 1, ..SMALL }] {
        let mut told = Told::new(&world);
        let comparison = compared(&world, &orders(&world), pace, &mut told).await.unwrap();
        assert_eq!(comparison, Comparison { compared: keys, equal: keys, ..Comparison::default() });
        assert_eq!((told.keys, told.waits), (keys, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_is_named_by_order_column_and_both_values() {
    let world = world_of_two_builds().await;
    let events: Vec<TestEvent> = ["cents", "digit", "gone", "ledger", "line", "long", "more", "scale"]
        .iter()
        .flat_map(|id| life(id, 6))
        .collect();
    let (one, two) = (feed(&world, 1), feed(&world, 2));
    let before = world.consumed().await;
    world.publish(events.iter().map(TestEvent::record)).await;
    world.until_consumed(before + 2 * events.len() as i64).await;
    one.stop().await;
    two.stop().await;
    assert!(compare_orders(&world).await.0.is_clean());
    let keys = world.number("select count(*) from orders_1.orders").await as u64;

    let sabotage = "
        update orders_2.orders set total_net = total_net + 0.01, status = null where order_id = 'cents';
        update orders_2.order_items set price = '9.89' where order_id = 'digit' and line_no = 2;
        update orders_2.orders set total_gross = round(total_gross, 6) where order_id = 'scale';
        delete from orders_2.order_items where order_id = 'line' and line_no = 3;
        update orders_2.ledger set effect = 'duplicate', payload = 'null' where key = 'ledger' and sequence = 2;
        delete from orders_2.ledger where key = 'ledger' and sequence = 4;
        update orders_2.orders set last_event_sequence = 5 where order_id = 'more';
        update orders_1.ledger set payload = repeat('x', 400) || 'a' where key = 'long' and sequence = 1;
        update orders_2.ledger set payload = repeat('x', 400) || 'b' where key = 'long' and sequence = 1;
        delete from orders_2.orders where order_id = 'gone';
        update orders_1.orders set order_id = 'only', dedup_event_id = 'x' where order_id = 'steady';
        update orders_2.ledger set commit = 77, partition = 9, \"offset\" = 5 where key = 'o-1'";
    world.sql.batch_execute(sabotage).await.unwrap();
    let (comparison, found) = compare_orders(&world).await;

    let of_ledger = "select event_id as \"eventId\", event_type as \"eventType\", occurred_at as \"occurredAt\", effect, payload \
                     from orders_1.ledger where key = 'ledger' and sequence = ";
    let text = async |query: String| -> Value {
        let row = world.row(&format!("select to_jsonb(r)::text from ({query}) r")).await;
        serde_json::from_str(row.get(0)).unwrap()
    };
    let (second, fourth) = (text(format!("{of_ledger}2")).await, text(format!("{of_ledger}4")).await);
    let line = "select line_no, item_id as \"itemId\", sku, qty::text, price::text, tax_rate::text as \"taxRate\", \
                net_line_total::text as \"netLineTotal\", gross_line_total::text as \"grossLineTotal\" \
                from orders_1.order_items where order_id = 'line' and line_no = 3";
    let mut line = text(line.to_owned()).await;
    line.as_object_mut().unwrap().remove("line_no");
    let old = text(
        "select total_net::text, status, total_gross::text, round(total_gross, 6)::text as rounded, \
                    (total_net + 0.01)::text as more from orders_1.orders where order_id = 'cents'"
            .to_owned(),
    )
    .await;
    let cut = async |end: &str| -> Value {
        let md5: String = world.row(&format!("select md5(repeat('x', 400) || '{end}')")).await.get(0);
        json!(format!("{}… (401 characters, md5 {md5})", "x".repeat(300)))
    };
    assert_eq!(
        json!(shown(&found)),
        json!({
            "cents": ["different", {
                "totalNet": values(old["total_net"].clone(), old["more"].clone()),
                "status": values(old["status"].clone(), Value::Null),
            }],
            "digit": ["different", { "items[2].price": values(json!("9.99"), json!("9.89")) }],
            "scale": ["different", { "totalGross": values(old["total_gross"].clone(), old["rounded"].clone()) }],
            "line": ["different", { "items[3]": values(line, Value::Null) }],
            "ledger": ["different", {
                "events[2].effect": values(json!("applied"), json!("duplicate")),
                "events[2].payload": values(second["payload"].clone(), json!("null")),
                "events[4]": values(fourth, Value::Null),
            }],
            "long": ["different", { "events[1].payload": values(cut("a").await, cut("b").await) }],
            "more": ["different", { "lastEventSequence": values(json!("6"), json!("5")) }],
            "gone": ["missing_new", { "lastEventSequence": values(json!("6"), Value::Null) }],
            "only": ["missing_new", { "lastEventSequence": values(json!("6"), Value::Null) }],
            "steady": ["missing_old", { "lastEventSequence": values(Value::Null, json!("6")) }],
        })
    );
    let columns = ["totalNet", "status", "items[].price", "totalGross", "items[]", "events[].effect"];
    let columns = columns.into_iter().chain(["events[]", "lastEventSequence"]).map(|name| (name, 1));
    let columns = columns.chain([("events[].payload", 2)]).map(|(name, count)| (name.to_owned(), count));
    assert_eq!(comparison.columns, columns.collect());
    let counts = [comparison.compared, comparison.different, comparison.only_old, comparison.only_new];
    assert_eq!(counts, [keys + 1, 7, 2, 1]);
    assert_eq!(comparison.sample.len(), 10);

    kept(&world, &found).await;
}

/// What was found is kept once for each key, however often it is told.
async fn kept(world: &World, found: &[Difference]) {
    let insert = "insert into operations (kind, view, phase, request, reason, actor) \
                  values ('rebuild', 'orders', 'comparing', '{}', 'a test', 'tests')";
    world.sql.batch_execute(insert).await.unwrap();
    for _ in 0..2 {
        compare::keep(&world.sql, 1, found).await.unwrap();
    }
    let rows = world.sql.query("select key, found, columns::text from operation_differences", &[]).await.unwrap();
    let rows: BTreeMap<String, Value> = rows
        .iter()
        .map(|row| {
            let columns: Value = serde_json::from_str(row.get(2)).unwrap();
            (row.get(0), json!([row.get::<_, &str>(1), columns]))
        })
        .collect();
    assert_eq!(json!(rows), json!(shown(found)));
    compare::forget(&world.sql, 1).await.unwrap();
    assert_eq!(world.number("select count(*) from operation_differences").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledgers_are_compared_as_far_as_both_builds_keep_them() {
    let world = world_of_two_builds().await;
    let spec = orders(&world);
    let client = connect(&world.database).await;
    let differences = async |history: History| {
        let pair = Pair { spec: &spec, old: Build(1), new: Build(2), history };
        let mut told = Told::new(&world);
        compare(&client, pair, SMALL, &mut told, &CancellationToken::new()).await.unwrap().columns
    };
    let keys = world.number("select count(distinct key) from orders_2.ledger").await as u64;
    world.sql.batch_execute("update orders_2.ledger set payload = null").await.unwrap();
    assert_eq!(differences(History::Payload).await, BTreeMap::from([("events[].payload".to_owned(), keys)]));
    assert_eq!(differences(History::Compact).await, BTreeMap::new());
    world.sql.batch_execute("truncate orders_2.ledger").await.unwrap();
    assert_eq!(differences(History::Compact).await, BTreeMap::from([("events[]".to_owned(), keys)]));
    assert_eq!(differences(History::Off).await, BTreeMap::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_one_build_was_made_without_is_as_if_it_were_empty() {
    let world = world_of_two_builds().await;
    let with_lines = world.number("select count(distinct order_id) from orders_1.order_items").await as u64;
    world.sql.batch_execute("drop table orders_2.order_items").await.unwrap();
    let (comparison, _) = compare_orders(&world).await;
    assert_eq!(comparison.columns, BTreeMap::from([("items[]".to_owned(), with_lines)]));
    assert_eq!(comparison.different, with_lines);
}

#[tokio::test(flavor = "multi_thread")]
async fn under_live_traffic_nothing_is_taken_for_a_difference_but_what_is_one() {
    let world = World::new(3).await;
    let _live = world.start().await;
    let is_enough = Cell::new(false);
    // One order after the other, no faster than the live build takes it: between two looks only some orders move.
    let traffic = async {
        let mut sent = 0;
        while !is_enough.get() {
            let records = (sent..sent + 6).map(|number| {
                let (order_id, sequence) = (format!("o-{:02}", number % 60), number / 60 + 1);
                if sequence == 1 { created(&order_id) } else { status_changed(&order_id, sequence, "Paid") }.record()
            });
            world.publish(records.collect::<Vec<_>>()).await;
            sent += 6;
            until_taken_by_build_1(&world, sent).await;
        }
        sent
    };
    let comparing = async {
        let two = builds::create(&world.sql, BuildId::new("orders", 2), &TABLES, &meaning())
            .await
            .map(|()| feed(&world, 2))
            .unwrap();
        until("all orders are in both builds", PATIENCE, || async {
            let orders = "select least((select count(*) from orders_1.orders), (select count(*) from orders_2.orders))";
            (world.number(orders).await == 60).then_some(())
        })
        .await;
        let mut waits = 0;
        for _ in 0..10 {
            let mut told = Told::new(&world);
            let comparison = compared(&world, &orders(&world), SMALL, &mut told).await.unwrap();
            assert_eq!(comparison, Comparison { compared: 60, equal: 60, ..Comparison::default() });
            waits += told.waits;
        }
        assert!(waits > 0, "no order was ever ahead in one of them: there was no traffic");
        // A row that no later event of the order writes again.
        let sabotage = "update orders_2.order_items set sku = 'POT' where order_id = 'o-07'";
        world.sql.batch_execute(sabotage).await.unwrap();
        let (comparison, found) = compare_orders(&world).await;
        assert_eq!((comparison.equal, comparison.different), (59, 1), "{found:?}");
        assert_eq!(found[0].key, "o-07");
        assert_eq!(json!(found[0].columns), json!({ "items[1].sku": values(json!("TEA"), json!("POT")) }));
        is_enough.set(true);
        two.stop().await;
    };
    let (sent, ()) = tokio::join!(traffic, comparing);
    assert!(sent > 120, "{sent}");
}

async fn until_taken_by_build_1(world: &World, records: i64) {
    until(&format!("build 1 has taken {records} records"), PATIENCE, || async {
        let consumed = "select coalesce(sum(consumed), 0) from projection_progress where build = 1";
        (world.number(consumed).await >= records).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_ends_when_it_is_cancelled_and_leaves_the_connection_usable() {
    let world = world_of_two_builds().await;
    world.sql.batch_execute("update orders_2.orders set status = 'Odd'").await.unwrap();
    let (spec, client) = (orders(&world), connect(&world.database).await);
    let mut told = Told::new(&world);
    told.cancel.0 = 10;
    let cancel = told.cancel.1.clone();
    let pair = Pair { spec: &spec, old: Build(1), new: Build(2), history: History::Payload };
    let ended = compare(&client, pair, SMALL, &mut told, &cancel).await;
    assert!(matches!(ended, Err(CompareError::Cancelled)), "{ended:?}");
    assert_eq!((told.keys, told.found.len()), (14, 14), "pages of seven");
    let aborted: i64 = client.query_one("select count(*) from orders_2.orders", &[]).await.unwrap().get(0);
    assert!(aborted > 14);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_view_that_says_which_rows_belong_to_a_key_is_compared() {
    let world = World::new(1).await;
    let registration = counter::registration("clicks");
    let rules = config(&world).rules_of(&world.view_settings());
    let spec = registration.spec(&rules).unwrap();
    for number in [1, 2] {
        builds::create(&world.sql, BuildId::new("clicks", number), &spec.tables, &meaning()).await.unwrap();
        // Keys whose order by the bytes is not that of any language.
        let fill = format!(
            "insert into clicks_{number}.counts \
             select k, 2, k || '-2', 2 from unnest(array['a', 'B', 'ä', 'b', 'é', 'A', '_', '', 'b b']) k; \
             insert into clicks_{number}.ledger \
             select k, s, k || '-' || s, 'Counted', 'epoch', 0, s, 'applied', '\"x\"', 0, {number} \
             from clicks_{number}.counts, generate_series(1, 2) s, lateral (select key) as r (k)"
        );
        world.sql.batch_execute(&fill).await.unwrap();
    }
    let pace = Pace { page: 2, ..SMALL };
    let mut told = Told::new(&world);
    let comparison = compared(&world, &spec, pace, &mut told).await.unwrap();
    assert_eq!((comparison.compared, comparison.equal), (9, 9));
    let sabotage =
        "update clicks_1.counts set count = 3 where key = 'é'; delete from clicks_1.counts where key in ('B', '')";
    world.sql.batch_execute(sabotage).await.unwrap();
    let mut told = Told::new(&world);
    let comparison = compared(&world, &spec, pace, &mut told).await.unwrap();
    assert_eq!((comparison.compared, comparison.equal, comparison.only_new), (9, 6, 2));
    let missing = || json!(["missing_old", { "lastEventSequence": values(Value::Null, json!("2")) }]);
    let wrong = json!(["different", { "count": values(json!("3"), json!("2")) }]);
    assert_eq!(json!(shown(&told.found)), json!({ "": missing(), "B": missing(), "é": wrong }));
}
