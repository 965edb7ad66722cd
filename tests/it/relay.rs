//! The relay of dead letters: whatever dies between a letter's delivery and its mark, the letter stands once on its topic.

use std::process::Command;

use jiff::Timestamp;
use rdkafka::message::OwnedMessage;
use serde_json::json;
use streamview::store::dead_letters::{Seen, mark_seen};
use streamview_lab::servers::KafkaServer;

use crate::rebuild::until_over;
use crate::support::instance::Instance;
use crate::support::load::{letters_in_table, letters_on_topic};
use crate::support::orders::created;
use crate::support::servers;
use crate::support::world::{TestRecord, World, header};
use crate::support::{PATIENCE, until};

/// What the relay logs when it has found letters that no answer had told of.
const FOUND: &str = "letters were on their topic already";

fn broken(order: &str) -> TestRecord {
    TestRecord { payload: Some(b"{ not json".to_vec()), ..created(order).record() }
}

async fn publish_broken(world: &World, orders: &[&str]) {
    world.publish(orders.iter().map(|order| broken(order))).await;
}

async fn until_on_topic(world: &World, letters: usize) {
    until(&format!("{letters} letters are on their topic"), PATIENCE, || async {
        (letters_on_topic(world).len() >= letters).then_some(())
    })
    .await;
}

/// Waits until `letters` are marked as published; each stands once on the topic then.
async fn assert_once(world: &World, letters: usize) {
    let published = "select count(*) from dead_letters where published_at is not null";
    until(&format!("{letters} letters are published"), PATIENCE, || async {
        (world.number(published).await == letters as i64).then_some(())
    })
    .await;
    assert_eq!(letters_on_topic(world), letters_in_table(world).await, "each letter once");
}

pub fn signal(kafka: &KafkaServer, name: &str) {
    let pid = kafka.pid().unwrap().to_string();
    assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
}

async fn until_logged(instance: &Instance, words: &str) {
    until(&format!("the log says {words}"), PATIENCE, || async { instance.log_text().contains(words).then_some(()) })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_killed_between_delivery_and_mark_repeats_no_letter() {
    let world = World::new(1).await;
    publish_broken(&world, &["a", "b", "c"]).await;
    let killed = world.launch(&[("STREAMVIEW_CRASH_AT", "relay.published")]);
    assert!(Instance::was_killed(killed.until_ended().await), "{}", killed.log_text());
    let delivered = letters_on_topic(&world).len();
    assert!(delivered > 0 && world.number("select count(published_at) from dead_letters").await == 0);

    publish_broken(&world, &["d", "e"]).await;
    let restarted = world.start().await;
    assert_once(&world, 5).await;
    assert!(restarted.log_text().contains(FOUND), "{}", restarted.log_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_sleeps_between_delivery_and_mark_is_followed_and_wakes_without_a_repetition() {
    let world = World::new(1).await;
    publish_broken(&world, &["a", "b"]).await;
    let sleeper = world.launch(&[("STREAMVIEW_STOP_AT", "relay.published")]);
    sleeper.until_stopped().await;
    let delivered = letters_on_topic(&world).len();
    assert!(delivered > 0);
    // As Postgres does by itself with a transaction that nothing is heard of.
    let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
               where datname = current_database() and state = 'idle in transaction'";
    assert!(world.number(end).await > 0);

    let follower = world.start().await;
    publish_broken(&world, &["c"]).await;
    assert_once(&world, 3).await;
    assert!(follower.log_text().contains(FOUND), "{}", follower.log_text());

    sleeper.signal("CONT");
    sleeper.until_ready().await;
    publish_broken(&world, &["d", "e"]).await;
    assert_once(&world, 5).await;
}

/// Each build has letters of its own: those that stand on the topic have to be known as such before readers are switched.
#[tokio::test(flavor = "multi_thread")]
async fn a_switch_waits_for_the_relay_and_its_letters_are_not_published_again() {
    let world = World::new(1).await;
    publish_broken(&world, &["a", "b"]).await;
    let sleeper = world.launch(&[("STREAMVIEW_STOP_AT", "relay.published")]);
    sleeper.until_stopped().await;
    assert!(!letters_on_topic(&world).is_empty());

    let other = world.start().await;
    let begun = other.posted("/ops/views/rebuild", &json!({ "reason": "test" }), 202).await;
    let id = begun["id"].as_i64().unwrap();
    until("the switch is done, or waits", PATIENCE, || async {
        let waits = "select count(*) from pg_locks where locktype = 'advisory' and not granted \
                     and database = (select oid from pg_database where datname = current_database())";
        let is_over = other.json(&format!("/ops/operations/{id}")).await["state"] != "running";
        (is_over || world.number(waits).await > 0).then_some(())
    })
    .await;
    sleeper.signal("CONT");
    assert_eq!(until_over(&other, id).await["state"], "done");
    publish_broken(&world, &["c"]).await;
    let published = "select count(published_at) from dead_letters where build = 2";
    until("all are published", PATIENCE, || async { (world.number(published).await == 3).then_some(()) }).await;
    assert_eq!(letters_on_topic(&world), [(0, 0), (0, 1), (0, 2)], "each letter once");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_relays_of_one_outbox_publish_each_letter_once() {
    let world = World::new(2).await;
    let instances = [world.start().await, world.start().await];
    let orders: Vec<String> = (0..500).map(|number| format!("o-{number}")).collect();
    for some in orders.chunks(100) {
        world.publish(some.iter().map(|order| broken(order))).await;
    }
    assert_once(&world, 500).await;
    drop(instances);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_letters_is_bounded_by_their_bytes_and_one_goes_however_large_it_is() {
    let world = World::new(1).await;
    // The first alone is more than a page.
    let letters =
        "insert into dead_letters (view, build, topic, partition, \"offset\", reason, error, headers, payload)
        select 'orders', 1, 't', 0, n, 'record_too_large', 'too large', '',
            repeat('x', case n when 1 then 9000000 else 900000 end)::bytea
        from generate_series(1, 40) n";
    world.sql.batch_execute(letters).await.unwrap();
    for (page, on_topic) in [("first", 1), ("second", 11)] {
        let killed = world.launch(&[("STREAMVIEW_CRASH_AT", "relay.published")]);
        assert!(Instance::was_killed(killed.until_ended().await), "{}", killed.log_text());
        assert_eq!(letters_on_topic(&world).len(), on_topic, "after the {page} page");
    }
    let _instance = world.start().await;
    assert_once(&world, 40).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_arrived_although_no_answer_came_in_time_is_not_sent_again() {
    let kafka = servers::own_kafka();
    let world = World::on(&kafka.bootstrap(), &servers::shared().database, 1, &[]).await;
    let instance = world.start_with(&[("STREAMVIEW_STOP_AT", "relay.claimed:2")]).await;
    publish_broken(&world, &["before"]).await;
    until_on_topic(&world, 1).await;
    // The producer is open, and stays so for some seconds.
    publish_broken(&world, &["a", "b"]).await;
    instance.until_stopped().await;
    signal(&kafka, "STOP");
    instance.signal("CONT");
    until_logged(&instance, "dead letters wait in their table").await;
    signal(&kafka, "CONT");

    assert_once(&world, 3).await;
    assert!(instance.log_text().contains(FOUND), "the letters had arrived: {}", instance.log_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_put_on_the_topic_is_no_letter_of_ours() {
    let world = World::new(1).await;
    let place = |view: &str, at: &str| {
        let mut record = broken("foreign");
        for (name, value) in [
            ("x-dlq-reason", "invalid_json"),
            ("x-dlq-view", view),
            ("x-dlq-at", at),
            ("x-original-topic", &world.topic),
            ("x-original-partition", "0"),
            ("x-original-offset", "0"),
        ] {
            record.headers.push((name.to_owned(), value.as_bytes().to_vec()));
        }
        record
    };
    // Another record at that place, as before a topic was re-created; another view's; no time; none that Postgres knows.
    let others = [
        place("orders", "2024-02-01T00:00:00Z"),
        place("other", "2024-02-01T00:00:00Z"),
        place("orders", "yesterday"),
        place("orders", "-009000-01-01T00:00:00Z"),
        broken("stray"),
    ];
    world.publish_to(&world.dlq_topic, others).await;

    let instance = world.start().await;
    publish_broken(&world, &["ours"]).await;
    world.until_consumed(1).await;
    world.until_published().await;
    let at: String = world.row("select to_json(created_at at time zone 'utc')#>>'{}' from dead_letters").await.get(0);
    let ours = |letter: &OwnedMessage| {
        header(letter, "x-dlq-at").is_some_and(|told| told.starts_with(at.trim_end_matches('0')))
    };
    let letters = world.dead_letters_on_topic();
    assert_eq!((letters.len(), letters.iter().filter(|letter| ours(letter)).count()), (6, 1), "{at}");
    assert!(!instance.log_text().contains(FOUND));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dlq_topic_that_was_re_created_or_truncated_gets_what_comes_then() {
    let world = World::new(1).await;
    let instance = world.start().await;
    publish_broken(&world, &["a", "b", "c"]).await;
    assert_once(&world, 3).await;

    world.delete_topic(&world.dlq_topic).await;
    world.create_topic(&world.dlq_topic, 1, &[]).await;
    publish_broken(&world, &["d"]).await;
    world.until_consumed(4).await;
    world.until_published().await;
    assert_eq!(letters_on_topic(&world), [(0, 3)]);

    // Retention passes what the relay has confirmed.
    instance.stop().await;
    world.publish_to(&world.dlq_topic, (0..20).map(|_| broken("foreign"))).await;
    world.truncate_topic(&world.dlq_topic, 0, 20).await;
    publish_broken(&world, &["e"]).await;
    let killed = world.launch(&[("STREAMVIEW_CRASH_AT", "relay.published")]);
    assert!(Instance::was_killed(killed.until_ended().await), "{}", killed.log_text());
    let _restarted = world.start().await;
    world.until_published().await;
    let ours = world.dead_letters_on_topic().into_iter().filter(|letter| header(letter, "x-dlq-view").is_some());
    let offsets: Vec<_> = ours.map(|letter| header(&letter, "x-original-offset").unwrap()).collect();
    assert_eq!(offsets, ["4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_another_build_published_counts_for_the_same_record_only() {
    let world = World::new(1).await;
    let letters = "update view_builds set active = false;
        insert into view_builds (view, build, active) values ('orders', 2, true);
        insert into dead_letters (view, build, topic, partition, \"offset\", reason, error, headers, created_at)
        select 'orders', build, 't', 0, n, 'invalid_json', '', '', '2026-01-01T00:00:00.123456Z'::timestamptz
            + build * interval '1 hour' from generate_series(1, 2) as build, generate_series(1, 3) as n";
    world.sql.batch_execute(letters).await.unwrap();
    let seen = |offset, hour| {
        let at: Timestamp = format!("2026-01-01T{hour:02}:00:00.123456Z").parse().unwrap();
        Seen::new("t".to_owned(), 0, offset, at).unwrap()
    };
    // The first by the build before, the second by this one, the third by nobody who is known here; and one of no row.
    let told = [seen(1, 1), seen(2, 2), seen(3, 3), seen(4, 1)];
    assert_eq!(mark_seen(&world.sql, "orders", &told).await.unwrap(), 2);
    assert_eq!(mark_seen(&world.sql, "orders", &told).await.unwrap(), 0);
    let marked = "select string_agg(build || '/' || \"offset\", ' ' order by \"offset\") from dead_letters \
                  where published_at is not null";
    assert_eq!(world.row(marked).await.get::<_, String>(0), "2/1 2/2");
}

fn acl(kafka: &KafkaServer, change: &str, topic: &str) {
    let mut tool = kafka.tool("org.apache.kafka.tools.AclCommand");
    tool.args(["--bootstrap-server", &kafka.bootstrap(), change, "--force", "--topic", topic]);
    let output = tool.args(["--deny-principal", "User:*", "--operation", "Read"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_wait_by_name_for_the_right_to_read_their_topic() {
    let kafka = servers::own_kafka_with(&[
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
        ("allow.everyone.if.no.acl.found", "true"),
    ]);
    let world = World::on(&kafka.bootstrap(), &servers::shared().database, 1, &[]).await;
    publish_broken(&world, &["a", "b"]).await;
    let killed = world.launch(&[("STREAMVIEW_CRASH_AT", "relay.published")]);
    assert!(Instance::was_killed(killed.until_ended().await), "{}", killed.log_text());
    acl(&kafka, "--add", &world.dlq_topic);

    let instance = world.launch(&[]);
    until_logged(&instance, "grant READ on the DLQ topic").await;
    acl(&kafka, "--remove", &world.dlq_topic);
    assert_once(&world, 2).await;
}
