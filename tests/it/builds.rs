//! Two builds of a view beside each other: each has its own rows, progress, holds, letters and outcomes of decisions, and
//! nothing that happens to one is seen in the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};
use streamview::builds::{self, BuildError};
use streamview::config::Config;
use streamview::domain::build::BuildId;
use streamview::projector::runtime::{Parts, RunningView};
use streamview::registrations;
use streamview::store::{names, pool};
use streamview::telemetry::metrics::Metrics;
use streamview::views::orders::TABLES;

use crate::support::instance::Instance;
use crate::support::load::Load;
use crate::support::orders::{created, item_added, life, status_changed};
use crate::support::rebuild::meaning;
use crate::support::world::{TestRecord, World, header};
use crate::support::{PATIENCE, until};

pub async fn create(world: &World, number: i32) -> BuildId {
    let build = BuildId::new("orders", number);
    builds::create(&world.sql, build, &TABLES, &meaning()).await.unwrap();
    build
}

/// Projects into a build, in this process, with a group of its own.
pub fn feed(world: &World, build: BuildId, settings: &[(&str, &str)]) -> RunningView {
    let mut environment = world.environment();
    environment.extend(settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    let config = Arc::new(Config::load(None, environment, &[]).unwrap());
    streamview::schemas::client::install_tls();
    let parts = Parts {
        settings: world.view_settings(),
        metrics: Arc::new(Metrics::new()),
        pool: pool::read_pool(&config.database).unwrap(),
        build: build.build,
        meaning: meaning(),
        stands: None,
        group: format!("{}.{}", world.group, names::schema(build)),
        config,
    };
    registrations::all()[0].start(&parts).unwrap()
}

pub async fn until_consumed_by(world: &World, build: i32, records: i64) {
    until(&format!("{records} records are consumed by build {build}"), PATIENCE, || async {
        let consumed = "select coalesce(sum(consumed), 0) from projection_progress where build = ";
        (world.number(&format!("{consumed}{build}")).await >= records).then_some(())
    })
    .await;
}

async fn until_settled(world: &World) {
    until("every build has folded with every decision", PATIENCE, || async {
        let waiting = "select count(*) from decision_outcomes where taken_at is null and refused is null";
        (world.number(waiting).await == 0).then_some(())
    })
    .await;
}

/// Decision, build, and what the build made of it.
async fn outcomes(world: &World) -> Vec<(i64, i32, String)> {
    let query = "select decision_id, build, coalesce(refused, case when taken_at is null then 'pending' else 'taken' end) \
                 from decision_outcomes order by 1, 2";
    world.sql.query(query, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

/// Everything that a build consists of, but for its number, ids, times of the wall clock, and how it was cut into
/// transactions.
async fn content(world: &World, build: i32) -> BTreeMap<&'static str, Vec<String>> {
    let tables = [
        ("orders", format!("select to_jsonb(t) from orders_{build}.orders t")),
        ("items", format!("select to_jsonb(t) from orders_{build}.order_items t")),
        ("ledger", format!("select to_jsonb(t) - 'commit_partition' - 'commit' from orders_{build}.ledger t")),
        (
            "progress",
            "select to_jsonb(t) - 'build' - 'owner' - 'owner_epoch' - 'updated_at' - 'decisions' - 'commits' \
             from projection_progress t"
                .to_owned(),
        ),
        ("held", "select to_jsonb(t) - 'build' - 'since' - 'watched_ends' - 'proven_at' from held_keys t".to_owned()),
        ("parked", "select to_jsonb(t) - 'build' - 'parked_at' from parked_events t".to_owned()),
        (
            "letters",
            "select to_jsonb(t) - 'build' - 'id' - 'created_at' - 'published_at' from dead_letters t".to_owned(),
        ),
    ];
    let mut content = BTreeMap::new();
    for (name, rows) in tables {
        let of_build = if rows.contains("orders_") { String::new() } else { format!("where t.build = {build}") };
        let query = format!("select j::text from ({rows} {of_build}) all_rows (j) order by 1");
        let rows = world.sql.query(&query, &[]).await.unwrap();
        content.insert(name, rows.iter().map(|row| row.get(0)).collect());
    }
    content
}

fn broken(order_id: &str, sequence: i64) -> TestRecord {
    TestRecord { payload: Some(b"{ broken".to_vec()), ..item_added(order_id, sequence).record() }
}

async fn replace(world: &World, instance: &Instance, order_id: &str, payload: &Value) {
    let letter = world.number(&format!("select id from dead_letters_view where key = '{order_id}'")).await;
    let path = format!("/ops/dead-letters/{letter}/replace");
    instance.posted(&path, &json!({ "reason": "mended", "payload": payload }), 202).await;
}

async fn tags(instance: &Instance, order_ids: &[&str]) -> Vec<String> {
    let mut tags = Vec::new();
    for order_id in order_ids {
        let response = instance.get(&format!("/orders/{order_id}")).await;
        tags.push(response.headers()["etag"].to_str().unwrap().to_owned());
    }
    tags
}

/// Where each letter on the DLQ topic was refused, which must not be there twice.
fn published(world: &World) -> BTreeSet<(String, String)> {
    let letters = world.dead_letters_on_topic();
    let place = |message| (header(message, "x-original-partition"), header(message, "x-original-offset"));
    let places: BTreeSet<_> = letters.iter().map(place).map(|(p, o)| (p.unwrap(), o.unwrap())).collect();
    assert_eq!(places.len(), letters.len(), "a letter was published twice");
    places
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_build_is_created_fed_and_dropped_beside_the_live_one() {
    let world = World::new(2).await;
    let live = world.start().await;
    let load = Load::new("o", 30, 7);
    let mut records = load.records();
    let second = records.split_off(records.len() / 2);
    records.extend([created("gapped").record(), item_added("gapped", 3).record()]);
    records.extend([created("mended").record(), broken("mended", 2), item_added("mended", 3).record()]);
    records.extend(life("steady", 5).iter().map(|event| event.record()));
    let (first_half, all) = (records.len() as i64, (records.len() + second.len()) as i64);
    world.publish(records).await;
    until_consumed_by(&world, 1, first_half).await;
    live.posted("/ops/held/gapped/skip", &json!({ "reason": "never sent" }), 202).await;
    live.order_at("gapped", 3).await;
    let before = tags(&live, &["gapped", "mended", "steady"]).await;
    let owners = "select coalesce(sum(owner_epoch), 0) from projection_progress where build = 1";
    let epochs = world.number(owners).await;

    let build = create(&world, 2).await;
    let shadow = feed(&world, build, &[]);
    world.publish(second).await;
    until_consumed_by(&world, 1, all).await;
    until_consumed_by(&world, 2, all).await;
    until_settled(&world).await;
    assert_eq!(tags(&live, &["gapped", "mended", "steady"]).await, before);
    // Decided while both run.
    replace(&world, &live, "mended", &item_added("mended", 2).body).await;
    live.order_at("mended", 3).await;
    until_settled(&world).await;

    let taken = |decision, build| (decision, build, "taken".to_owned());
    assert_eq!(outcomes(&world).await, [taken(1, 1), taken(1, 2), taken(2, 1), taken(2, 2)]);
    let (one, two) = (content(&world, 1).await, content(&world, 2).await);
    for (table, rows) in &one {
        assert!(!rows.is_empty() || *table == "parked", "{table}");
        assert_eq!(&two[table], rows, "{table}");
    }
    assert_eq!(world.number(owners).await, epochs, "the live build has kept its owner");
    live.until_running().await;
    until("the live build's letters are published", PATIENCE, || async {
        let waiting = "select count(*) from dead_letters where build = 1 and published_at is null";
        (world.number(waiting).await == 0).then_some(())
    })
    .await;
    // A last round of the outbox is part of it.
    shadow.stop().await;
    assert_eq!(published(&world).len(), one["letters"].len());
    assert_eq!(world.number("select count(*) from dead_letters where build = 2 and published_at is not null").await, 0);
    live.until_metric("streamview_dead_letters_unpublished", &[], 0.0).await;

    builds::drop(&world.sql, build).await.unwrap();
    assert_nothing_left(&world, build).await;
    assert_eq!(content(&world, 1).await, one);
    world.publish([status_changed("steady", 6, "Closed").record()]).await;
    assert_eq!(live.order_at("steady", 6).await["status"], "Closed");
}

async fn assert_nothing_left(world: &World, build: BuildId) {
    let schemas = format!("select count(*) from pg_namespace where nspname = '{}'", names::schema(build));
    assert_eq!(world.number(&schemas).await, 0);
    let query = "select table_name::text from information_schema.columns join information_schema.tables \
                 using (table_schema, table_name) \
                 where column_name = 'build' and table_schema = 'public' and table_type = 'BASE TABLE'";
    let tables = world.sql.query(query, &[]).await.unwrap();
    assert!(tables.len() >= 7, "the tables that name a build were not found");
    for table in tables {
        let table: &str = table.get(0);
        let left = format!("select count(*) from {table} where build = {}", build.build);
        assert_eq!(world.number(&left).await, 0, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_build_that_refuses_a_decision_revokes_nothing_of_the_live_one() {
    let world = World::new(1).await;
    let live = world.start().await;
    // A build whose settings leave no room for the replacement.
    let build = create(&world, 2).await;
    let shadow = feed(&world, build, &[("STREAMVIEW_PROJECTOR__MAX_RECORD_BYTES", "2000")]);
    // Another view has builds of the same numbers.
    world.sql.batch_execute("insert into view_builds (view, build) values ('another', 1)").await.unwrap();
    world.publish([created("o-1").record(), broken("o-1", 2), item_added("o-1", 3).record()]).await;
    until_consumed_by(&world, 1, 3).await;
    until_consumed_by(&world, 2, 3).await;
    let long = item_added("o-1", 2).with("note", json!("x".repeat(3_000)));
    replace(&world, &live, "o-1", &long.body).await;
    live.order_at("o-1", 3).await;
    until_settled(&world).await;

    let [taken, refused] = &outcomes(&world).await[..] else { panic!("two outcomes") };
    assert_eq!((taken.1, taken.2.as_str()), (1, "taken"));
    assert_eq!(refused.1, 2);
    assert!(refused.2.contains("too_large"), "{refused:?}");
    // For operators it is taken; nobody may decide anew.
    let decision = &live.json("/ops/decisions").await["items"][0];
    assert_eq!((&decision["status"], &decision["refused"]), (&json!("taken"), &json!(null)), "{decision}");
    assert_eq!(world.number("select count(*) from event_decisions where revoked").await, 0);
    let letter = &live.json("/ops/dead-letters?status=replaced").await["items"][0];
    assert_eq!(letter["key"], "o-1", "{letter}");
    let path = format!("/ops/dead-letters/{}/skip", letter["id"]);
    assert_eq!(live.posted(&path, &json!({ "reason": "again" }), 409).await["code"], "already_decided");
    // Who comes next to the live build folds with it, too.
    shadow.stop().await;
    live.stop().await;
    let next = world.start().await;
    world.publish([item_added("o-1", 4).record()]).await;
    let order = next.order_at("o-1", 4).await;
    assert_eq!((&order["itemCount"], &order["held"]), (&json!(4), &json!(null)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_live_build_refused_another_tries_by_itself_behind_what_was_decided_instead() {
    let world = World::new(1).await;
    let live = world.start().await;
    let mut records = vec![created("owner").record()];
    for order_id in ["waits", "skipped"] {
        records.extend([created(order_id).record(), broken(order_id, 2)]);
    }
    world.publish(records).await;
    until_consumed_by(&world, 1, 5).await;
    // The id of another order's latest event: found when it is folded.
    for order_id in ["waits", "skipped"] {
        let reused = item_added(order_id, 2).with("eventId", json!(created("owner").event_id()));
        replace(&world, &live, order_id, &reused.body).await;
    }
    until_settled(&world).await;
    assert_eq!(world.number("select count(*) from event_decisions where revoked").await, 2);
    // It counts as never made.
    live.posted("/ops/held/skipped/skip", &json!({ "reason": "given up" }), 202).await;
    live.order_at("skipped", 2).await;
    until_settled(&world).await;

    let build = create(&world, 2).await;
    let shadow = feed(&world, build, &[]);
    until_consumed_by(&world, 2, 5).await;
    until_settled(&world).await;

    assert_eq!(content(&world, 2).await, content(&world, 1).await);
    let of = |number: i32, outcomes: &[(i64, i32, String)]| -> Vec<String> {
        outcomes.iter().filter(|outcome| outcome.1 == number).map(|outcome| outcome.2.clone()).collect()
    };
    let outcomes = outcomes(&world).await;
    let (one, two) = (of(1, &outcomes), of(2, &outcomes));
    assert!(one[0].starts_with("event_id_reused") && one[1].starts_with("event_id_reused"), "{one:?}");
    assert_eq!([&two[0], &two[1], &two[2]], [&one[0], "decision 3 was made in its place", "taken"]);
    shadow.stop().await;
    // Readers of the second build are told what it made of them.
    builds::publish(&world.sql, build, &TABLES).await.unwrap();
    let statuses: Vec<Value> = live.json("/ops/decisions").await["items"].as_array().unwrap().clone();
    let statuses: Vec<&Value> = statuses.iter().map(|decision| &decision["status"]).collect();
    assert_eq!(statuses, ["taken", "refused", "refused"]);
}

/// Both decisions come to a key that is held already, as it is after a load, or where nobody has fed the build for a while.
#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_slept_takes_what_was_decided_last_and_has_one_outcome_of_each() {
    let world = World::new(1).await;
    let live = world.start().await;
    let build = create(&world, 2).await;
    let shadow = feed(&world, build, &[]);
    world.publish([created("owner").record(), created("o-1").record(), broken("o-1", 2)]).await;
    for number in [1, 2] {
        until_consumed_by(&world, number, 3).await;
    }
    shadow.stop().await;
    let refused = "select count(*) from event_decisions where revoked";
    for count in [1, 2] {
        let reused = item_added("o-1", 2).with("eventId", json!(created("owner").event_id()));
        replace(&world, &live, "o-1", &reused.body).await;
        until(&format!("{count} are refused"), PATIENCE, || async {
            (world.number(refused).await == count).then_some(())
        })
        .await;
    }
    live.posted("/ops/held/o-1/skip", &json!({ "reason": "given up" }), 202).await;
    live.order_at("o-1", 2).await;

    let shadow = feed(&world, build, &[]);
    until_settled(&world).await;
    assert_eq!(content(&world, 2).await, content(&world, 1).await);
    let outcomes = outcomes(&world).await;
    let two: Vec<&str> = outcomes.iter().filter(|outcome| outcome.1 == 2).map(|outcome| outcome.2.as_str()).collect();
    assert_eq!(two, ["decision 3 was made in its place", "decision 3 was made in its place", "taken"]);
    shadow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_are_numbered_so_that_what_was_parked_or_healed_comes_after_what_was_there_before() {
    let world = World::new(1).await;
    let live = world.start().await;
    let commits = async || world.number("select commits from projection_progress").await;
    let ledger = async |order_id: &str| -> Vec<(i64, i64, i64)> {
        let query = "select sequence, \"offset\", commit from orders_1.ledger \
                     where key = $1 and commit_partition = 0 order by sequence";
        let rows = world.sql.query(query, &[&order_id]).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
    };
    world.publish([created("o-1").record(), item_added("o-1", 3).record()]).await;
    world.until_consumed(2).await;
    let before = commits().await;
    world.publish([created("o-2").record()]).await;
    live.order_at("o-2", 1).await;
    world.publish([item_added("o-1", 2).record()]).await;
    live.order_at("o-1", 3).await;
    let after = commits().await;
    let rows = ledger("o-1").await;
    assert!(rows[0].2 <= before, "{rows:?}");
    assert_eq!((rows[1], rows[2]), ((2, 3, after), (3, 1, after)), "the parked event has its old offset");
    assert_eq!(ledger("o-2").await, [(1, 2, before + 1)]);
    // Healed by a decision, while the log stands still; and after a restart.
    world.publish([item_added("o-2", 3).record()]).await;
    world.until_consumed(5).await;
    live.stop().await;
    let live = world.start().await;
    let before = commits().await;
    live.posted("/ops/held/o-2/skip", &json!({ "reason": "never sent" }), 202).await;
    live.order_at("o-2", 3).await;
    assert_eq!(commits().await, before + 1);
    assert_eq!(ledger("o-2").await[1..], [(2, -1, before + 1), (3, 4, before + 1)]);
    world.publish([item_added("o-2", 4).record()]).await;
    live.order_at("o-2", 4).await;
    assert_eq!(ledger("o-2").await[3], (4, 5, before + 2));
}

/// Columns, constraints, indexes and storage of a build's tables.
async fn catalog(world: &World, build: BuildId) -> Vec<String> {
    let schema = names::schema(build);
    let query = format!(
        "select concat_ws(' ', c.relname, a.attnum - (select count(*) from pg_attribute d where d.attrelid = c.oid \
                          and d.attnum between 1 and a.attnum and d.attisdropped), \
                          a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, l.collname, a.attstorage, \
                          a.attcompression, a.attidentity, a.attgenerated, a.attstattarget, \
                          pg_get_expr(f.adbin, f.adrelid)) \
         from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped \
         left join pg_collation l on l.oid = a.attcollation \
         left join pg_attrdef f on f.adrelid = c.oid and f.adnum = a.attnum \
         where c.relnamespace = '{schema}'::regnamespace and c.relkind = 'r' \
         union all \
         select concat_ws(' ', c.relname, c.relkind, c.relpersistence, c.reloptions, m.amname, c.relreplident) \
         from pg_class c left join pg_am m on m.oid = c.relam \
         where c.relnamespace = '{schema}'::regnamespace and c.relkind <> 't' \
         union all \
         select concat_ws(' ', conrelid::regclass, conname, pg_get_constraintdef(oid), condeferrable, condeferred, \
                          convalidated) \
         from pg_constraint where connamespace = '{schema}'::regnamespace \
         union all \
         select indexdef from pg_indexes where schemaname = '{schema}' \
         order by 1"
    );
    let rows = world.sql.query(&query, &[]).await.unwrap();
    rows.iter().map(|row| row.get::<_, String>(0).replace(&schema, "build")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_is_created_has_the_shape_of_the_one_that_migrations_made() {
    let world = World::new(1).await;
    let (one, two) = (BuildId::new("orders", 1), create(&world, 2).await);
    let migrated = catalog(&world, one).await;
    assert!(migrated.len() > 40, "{migrated:#?}");
    assert_eq!(catalog(&world, two).await, migrated);
    // And the stable names show the same columns whichever build is behind them.
    let views = "select string_agg(concat_ws(' ', attrelid::regclass, attnum, attname, format_type(atttypid, atttypmod)), \
                 ', ' order by attrelid::regclass::text, attnum) from pg_attribute \
                 where attrelid in ('orders_view'::regclass, 'order_items_view'::regclass, 'order_events_view'::regclass)";
    let before: String = world.row(views).await.get(0);
    builds::publish(&world.sql, two, &TABLES).await.unwrap();
    assert_eq!(world.row(views).await.get::<_, String>(0), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_made_or_dropped_leaves_everything_as_it_was() {
    let world = World::new(1).await;
    let (one, two) = (BuildId::new("orders", 1), create(&world, 2).await);
    let refused = builds::create(&world.sql, two, &TABLES, &meaning()).await;
    assert!(matches!(refused, Err(BuildError::Exists(_))), "{refused:?}");
    let odd = BuildId::new("x; drop schema orders_1 cascade; --", 3);
    let refused = builds::create(&world.sql, odd, &TABLES, &meaning()).await;
    assert!(matches!(refused, Err(BuildError::BadName(_))), "{refused:?}");
    let refused = builds::drop(&world.sql, one).await;
    assert!(matches!(refused, Err(BuildError::Active(_))), "{refused:?}");
    let refused = builds::drop(&world.sql, BuildId::new("orders", 3)).await;
    assert!(matches!(refused, Err(BuildError::Unknown(_))), "{refused:?}");
    // Somebody's report reads it: not ours to take away.
    world.sql.batch_execute("create view report as select * from orders_2.orders").await.unwrap();
    let refused = builds::drop(&world.sql, two).await;
    assert!(matches!(refused, Err(BuildError::Database(_))), "{refused:?}");
    let stands = "select count(*) from view_builds, orders_2.orders where false";
    assert_eq!((world.number(stands).await, world.number("select count(*) from view_builds").await), (0, 2));
    world.sql.batch_execute("drop view report").await.unwrap();
    builds::drop(&world.sql, two).await.unwrap();
    assert_nothing_left(&world, two).await;
}
