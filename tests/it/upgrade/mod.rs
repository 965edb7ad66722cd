//! A database made by the tree before builds had an identity of their own (migrations up to V008) is upgraded in place.
//!
//! `before.sql` and `answers.json` are what that tree stored and answered when it was run on [`consumed`], was halted by
//! the loss of the first two records of [`lost`] and helped over it, and was asked to decide: `pg_dump --data-only
//! --inserts`, with the topic's name taken out.

mod embedded {
    refinery::embed_migrations!("migrations");
}

use std::collections::BTreeMap;

use refinery::Target;
use serde_json::{Value, json};
use streamview::config::{Config, SecretUrl};
use streamview::store::migrate;

use crate::changes::BEFORE_COMMITS;
use crate::support::instance::Instance;
use crate::support::orders::{created, item_added, life, status_changed};
use crate::support::servers::{execute, migrate_database, shared, with_database};
use crate::support::world::{TestRecord, World, connect};
use crate::support::{PATIENCE, until};

const BEFORE: &str = include_str!("before.sql");
const ANSWERS: &str = include_str!("answers.json");
/// The last migration of that tree.
const OLD: i32 = 8;

fn broken(order_id: &str) -> TestRecord {
    TestRecord { payload: Some(b"{ broken".to_vec()), ..item_added(order_id, 2).record_on(0) }
}

/// Columns of the old tree's dead letters.
const LETTER_COLUMNS: &str = "id, view, build, topic, partition, \"offset\", record_timestamp, reason, error, key, sequence, \
                              record_key, payload, headers, created_at, published_at";

/// Columns of its skipped ranges.
const SKIPPED_COLUMNS: &str =
    "id, view, topic, partition, from_offset, to_offset, reason, actor, decided_at, idempotency_key";

/// What the old tree had consumed.
fn consumed() -> Vec<TestRecord> {
    let mut log: Vec<TestRecord> = life("plain", 5).iter().map(|event| event.record_on(0)).collect();
    let gap = [created("gap"), status_changed("gap", 3, "Paid"), item_added("gap", 4)];
    log.extend(gap.iter().map(|event| event.record_on(0)));
    for order_id in ["poison", "replaced"] {
        log.extend([created(order_id).record_on(0), broken(order_id), item_added(order_id, 3).record_on(0)]);
    }
    log.extend([created("refused").record_on(0), broken("refused")]);
    log.extend([created("skipped"), item_added("skipped", 4)].iter().map(|event| event.record_on(0)));
    log.extend([created("pending"), item_added("pending", 3)].iter().map(|event| event.record_on(0)));
    log.push(status_changed("plain", 5, "Lost").with("eventId", json!("plain-event-5-again")).record_on(0));
    log.extend(life("other", 4).iter().map(|event| event.record_on(1)));
    log
}

/// What came while it stood still: the first two were gone before it read them.
fn lost() -> Vec<TestRecord> {
    let mut log: Vec<TestRecord> = life("lost", 2).iter().map(|event| event.record_on(1)).collect();
    log.push(created("after").record_on(1));
    log
}

/// A world whose database is the old tree's, and whose log holds the same records. It is another topic all the same, so
/// what tells topics apart is forgotten.
async fn old_world() -> World {
    let mut world = World::new(2).await;
    let maintenance = &shared().database;
    let name = format!("{}_old", world.database.rsplit_once('/').unwrap().1);
    execute(maintenance, &format!("create database {name} template template0")).await;
    world.database = with_database(maintenance, &name);
    let mut client = connect(&world.database).await;
    embedded::migrations::runner().set_target(Target::Version(OLD)).run_async(&mut client).await.unwrap();
    client.batch_execute(&BEFORE.replace("TOPIC", &world.topic)).await.unwrap();
    let forget = "update projection_progress set topic_id = null, anchor_offset = null, anchor_crc = null, \
                  anchor_timestamp = null";
    client.batch_execute(forget).await.unwrap();
    world.reconnect().await;
    world.publish(consumed()).await;
    world.publish(lost()).await;
    world.truncate(1, 6).await;
    world
}

/// Rows of a table as it was, as text without the columns that were not there.
async fn rows(world: &World, table: &str, columns: &str) -> Vec<String> {
    let query = format!("select t::text from (select {columns} from {table}) t order by 1");
    world.sql.query(&query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// Each table with its columns in the old tree; its name and theirs since; and columns that moved to another table.
async fn everything(world: &World, upgraded: bool) -> BTreeMap<&'static str, Vec<String>> {
    let outcome = |column: &str| {
        format!("(select o.{column} from decision_outcomes o where o.decision_id = d.id and o.build = 1) as {column}")
    };
    let (key, ledger, taken, refused) = match upgraded {
        true => ("key", "orders_1.ledger", outcome("taken_at"), outcome("refused")),
        false => ("order_id", "orders_1.order_events", "taken_at".to_owned(), "refused".to_owned()),
    };
    let ledger_columns =
        format!("{key}, sequence, event_id, event_type, occurred_at, partition, \"offset\", effect, payload");
    let decision_columns = format!(
        "id, view, action, key, sequence, sequence_to, topic, partition, \"offset\", record_timestamp, payload, headers, \
         reason, actor, decided_at, {taken}, {refused}"
    );
    let progress = "view, build, topic, topic_id, partition, next_offset, owner_epoch, owner, consumed, applied, \
                    duplicate, late, conflict, parked, dead_lettered, updated_at, decisions";
    let mut tables = BTreeMap::new();
    for (table, source, columns) in [
        ("orders", "orders_1.orders", "*"),
        ("items", "orders_1.order_items", "*"),
        ("ledger", ledger, ledger_columns.as_str()),
        ("decisions", "event_decisions d", decision_columns.as_str()),
        ("progress", "projection_progress", progress),
        ("held", "held_keys", "*"),
        ("parked", "parked_events", "*"),
        ("letters", "dead_letters", LETTER_COLUMNS),
        ("skipped", "skipped_ranges", SKIPPED_COLUMNS),
        ("calls", "idempotent_calls", "*"),
        ("builds", "view_builds", "view, build, active, loading_since"),
        ("shown events", "order_events_view", "*"),
        ("shown letters", "dead_letters_view", "*"),
    ] {
        tables.insert(table, rows(world, source, columns).await);
    }
    tables
}

/// A tag as the old tree gave it. Since then a digest of the whole answer stands behind.
fn without_digest(tag: &str) -> String {
    format!("{}\"", tag.rsplit_once('-').unwrap().0)
}

async fn answer(instance: &Instance, world: &World, path: &str) -> Value {
    let response = instance.get(path).await;
    let tag = response.headers().get("etag").map(|tag| without_digest(tag.to_str().unwrap()));
    let text = response.text().await.unwrap().replace(&world.topic, "TOPIC");
    // Nobody acted for somebody else then.
    let text = text.replace(r#","onBehalfOf":null"#, "");
    json!({ "etag": tag, "body": serde_json::from_str::<Value>(&text).unwrap() })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_database_is_upgraded_in_place() {
    let world = old_world().await;
    let before = everything(&world, false).await;
    for (table, rows) in &before {
        assert!(!rows.is_empty(), "the fixture has {table}");
    }
    migrate_database(&world.database).await;
    assert_eq!(everything(&world, true).await, before);

    // Asked before anything is projected, it answers as the old tree did.
    let api = world.launch_command(&["serve", "--only", "api"], &[]);
    api.until_ready().await;
    let answers: BTreeMap<String, Value> = serde_json::from_str(ANSWERS).unwrap();
    for (path, expected) in &answers {
        assert_eq!(&answer(&api, &world, path).await, expected, "{path}");
    }
    drop(api);

    let instance = world.start().await;
    // The decision that waited is folded with; a call of before is known by its key.
    let order = instance.order_at("pending", 3).await;
    assert!(order["held"].is_null(), "{order}");
    let letter = world.number("select id from dead_letters where key = 'replaced'").await;
    let path = format!("/ops/dead-letters/{letter}/replace");
    let body = json!({ "reason": "mended", "actor": "ann", "payload": item_added("replaced", 2).body });
    let again = instance.post_as(&path, &body, &[("Idempotency-Key", "call-1")]).await;
    assert_eq!(again.status().as_u16(), 202);
    assert_eq!(world.number("select count(*) from event_decisions").await, before["decisions"].len() as i64);
    // What was refused counts as never made, what was taken does not.
    instance.posted("/ops/held/refused/skip", &json!({ "reason": "given up" }), 202).await;
    instance.order_at("refused", 2).await;
    // A hold drains when the missing event comes.
    world.publish([item_added("gap", 2).record_on(0), status_changed("other", 5, "Shipped").record_on(1)]).await;
    let order = instance.order_at("gap", 4).await;
    assert!(order["held"].is_null(), "{order}");
    instance.order_at("other", 5).await;
    // Nobody has touched these.
    for order_id in ["plain", "poison", "skipped", "replaced", "after"] {
        let path = format!("/orders/{order_id}");
        assert_eq!(answer(&instance, &world, &path).await, answers[&path], "{order_id}");
    }
    let [consumed, rest @ ..] = world.conservation().await;
    assert_eq!(consumed, rest.iter().sum::<i64>());
    until("new rows are numbered, old ones are not", PATIENCE, || async {
        let numbered = "select count(*) from orders_1.ledger where commit > 0 and commit_partition >= 0";
        let plain = "select count(*) from orders_1.ledger where commit = 0 and commit_partition = -1";
        let counts = (world.number(numbered).await, world.number(plain).await);
        (counts == (7, before["ledger"].len() as i64)).then_some(())
    })
    .await;
    assert_eq!(world.number("select sum(cardinality(keys)) from orders_1.commits").await, 7);
    // Letters that were published then are not published again.
    instance.stop().await;
    assert!(world.dead_letters_on_topic().is_empty());
}

/// A bulk load takes the ledger's key off. One that was cut short before the upgrade is discarded, or run again, after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_whose_load_was_cut_short_is_upgraded_too() {
    let world = old_world().await;
    let stripped = "update view_builds set loading_since = now();
                    alter table orders_1.order_events drop constraint order_events_pkey";
    world.sql.batch_execute(stripped).await.unwrap();
    migrate_database(&world.database).await;
    let discard = world.launch_command(&["load", "--discard"], &[]);
    assert!(discard.until_ended().await.success(), "{}", discard.log_text());
    let key =
        "select count(*) from pg_constraint where conname = 'ledger_pkey' and conrelid = 'orders_1.ledger'::regclass";
    assert_eq!(world.number(key).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_is_upgraded_however_long_that_takes_and_a_build_of_an_old_process_by_the_next_migration() {
    let world = World::new(1).await;
    let mut settings = Config::defaults().database;
    (settings.url, settings.connect_timeout_ms) = (SecretUrl::new(&world.database), 30_000);
    settings.write_timeout_ms = 10;
    world.sql.batch_execute(BEFORE_COMMITS).await.unwrap();
    let rows = "delete from refinery_schema_history where version >= 24; \
                insert into orders_1.ledger select 'o-' || n % 1000, n, n, 'OrderCreated', now(), 0, n, 'applied', null, 0, \
                n / 1000 + 1 from generate_series(1, 100000) n";
    world.sql.batch_execute(rows).await.unwrap();
    let applied = ["V24__commits", "V25__json_schema", "V26__letters_by_event"];
    assert_eq!(migrate::migrate(&settings).await.unwrap(), applied);
    let noted = "select count(*) from orders_1.commits c, unnest(c.keys, c.sequences) as noted (key, sequence) \
                 join orders_1.ledger l using (key, sequence) where (c.partition, c.commit) = (l.commit_partition, l.commit)";
    assert_eq!(world.number(noted).await, 100_000);

    world.sql.batch_execute(BEFORE_COMMITS).await.unwrap();
    assert!(migrate::migrate(&settings).await.unwrap().is_empty());
    assert_eq!(world.number(noted).await, 100_000);
    assert!(migrate::migrate(&settings).await.unwrap().is_empty(), "and it changes nothing where that was done");
}
