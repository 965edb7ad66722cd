//! Postgres, Kafka, a lock, a right or a topic is away: the view waits, says so, and goes on by itself.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::Value;

use crate::metrics::series;
use crate::shutdown::DEADLINE;
use crate::support::instance::Instance;
use crate::support::load::{Load, letters_in_table, letters_on_topic};
use crate::support::orders::{TestEvent, life, oracle, stored};
use crate::support::servers;
use crate::support::world::{World, connect};
use crate::support::{PATIENCE, until};

const SMALL_BATCHES: (&str, &str) = ("STREAMVIEW_PROJECTOR__MAX_BATCH_EVENTS", "20");

/// Waits until `/readyz` is 503 and names the state of the view; gives the reason.
async fn until_waiting(instance: &Instance, state: &str) -> String {
    until(&format!("/readyz says {state}"), PATIENCE, || async {
        let response = instance.get("/readyz").await;
        let status = response.status().as_u16();
        let body: Value = response.json().await.unwrap();
        let check = body["checks"].as_array().unwrap().iter().find(|check| check["name"] == "view:orders").unwrap();
        let detail = check["detail"].as_str().unwrap();
        assert!(!detail.contains("halted"), "{detail}");
        (status == 503 && detail.starts_with(&format!("{state}: "))).then(|| detail.to_owned())
    })
    .await
}

/// So many records of a part are held back: whatever is quicker, they come when what is needed is away already.
const HELD_BACK: usize = 60;

async fn until_some_consumed(world: &World, before: i64) {
    until("some of the load is consumed", PATIENCE, || async { (world.consumed().await > before + 50).then_some(()) })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_killed_three_times_under_load_costs_nothing_but_time() {
    let mut postgres = servers::own_postgres();
    let mut world = World::on(&servers::shared().kafka, &postgres.url("postgres"), 3, &[]).await;
    let load = Load::new("o", 900, 21);
    let records = load.records();
    let instance = world.start_with(&[SMALL_BATCHES]).await;
    let rebalances = instance.metric("streamview_rebalances_total", &[]).await;

    for part in records.chunks(records.len().div_ceil(3)) {
        let before = world.consumed().await;
        let (now, meanwhile) = part.split_at(part.len() - HELD_BACK);
        let middle = async {
            until_some_consumed(&world, before).await;
            postgres.kill_hard().unwrap();
            world.publish(meanwhile.to_vec()).await;
        };
        tokio::join!(middle, world.publish(now.to_vec()));
        until_waiting(&instance, "waiting_for_database").await;
        postgres.restart().unwrap();
        world.reconnect().await;
        instance.until_ready().await;
    }

    load.assert_settled(&world).await;
    assert_eq!(instance.metric("streamview_rebalances_total", &[]).await, rebalances, "partitions were kept");
    instance.until_running().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_twice_under_load_costs_nothing_but_time() {
    let mut kafka = servers::own_kafka();
    let world = World::on(&kafka.bootstrap(), &servers::shared().database, 3, &[]).await;
    let load = Load::new("o", 900, 22);
    let records = load.records();
    let instance = world.start_with(&[SMALL_BATCHES]).await;
    let rebalances = instance.metric("streamview_rebalances_total", &[]).await;

    for part in records.chunks(records.len().div_ceil(2)) {
        let before = world.consumed().await;
        let (now, meanwhile) = part.split_at(part.len() - HELD_BACK);
        let outage = async {
            until_some_consumed(&world, before).await;
            kafka.kill_hard().unwrap();
            let back = async {
                until_waiting(&instance, "waiting_for_kafka").await;
                kafka.restart().unwrap();
                instance.until_ready().await;
            };
            // The producer keeps them until the broker is back.
            tokio::join!(back, world.publish(meanwhile.to_vec()));
        };
        tokio::join!(outage, world.publish(now.to_vec()));
    }

    load.assert_settled(&world).await;
    let rebalances = instance.metric("streamview_rebalances_total", &[]).await - rebalances;
    println!("{rebalances} rebalances");
    assert!(rebalances <= 4.0, "at most one loss and one return per outage, not {rebalances}");
    instance.until_running().await;
}

/// Nobody takes the last number for one of now, least of all where the state says nothing of Kafka and Postgres.
#[tokio::test(flavor = "multi_thread")]
async fn lag_that_cannot_be_observed_is_not_shown_until_it_is_again() {
    let (mut postgres, mut kafka) = (servers::own_postgres(), servers::own_kafka());
    let world = World::on(&kafka.bootstrap(), &postgres.url("postgres"), 2, &[]).await;
    world.publish(life("o-1", 3).iter().map(TestEvent::record)).await;
    let api = world.launch_command(&["serve", "--only", "api"], &[]);
    api.until_ready().await;
    let until_shown = async |partitions: usize| {
        for name in ["kafka_consumer_lag", "kafka_consumer_lag_seconds", "streamview_next_offset"] {
            until(&format!("{partitions} series of {name} are shown"), PATIENCE, || async {
                (series(&api, name, &[]).await == partitions).then_some(())
            })
            .await;
        }
    };
    until_shown(2).await;
    assert_eq!(api.metric("kafka_consumer_lag", &[]).await, 3.0);

    kafka.kill_hard().unwrap();
    until_shown(0).await;
    let ready = api.readiness().await;
    assert!(ready.to_string().contains("not_projecting"), "{ready}");
    kafka.restart().unwrap();
    until_shown(2).await;
    assert_eq!(api.metric("kafka_consumer_lag", &[]).await, 3.0);

    postgres.kill_hard().unwrap();
    until_shown(0).await;
    postgres.restart().unwrap();
    until_shown(2).await;
}

/// Seconds of a core that a process has used so far.
fn core_seconds(pid: u32) -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    // utime and stime: the 14th and 15th, of which three stand before.
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / TICKS_PER_SECOND
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_waits_for_kafka_and_postgres_leaves_the_cores_to_others() {
    let (mut postgres, mut kafka) = (servers::own_postgres(), servers::own_kafka());
    let world = World::on(&kafka.bootstrap(), &postgres.url("postgres"), 3, &[]).await;
    let instance = world.start().await;
    world.publish(life("o-1", 3).iter().map(TestEvent::record)).await;
    instance.order_at("o-1", 3).await;
    kafka.kill_hard().unwrap();
    postgres.kill_hard().unwrap();
    until_waiting(&instance, "waiting_for_database").await;
    // Whoever was in the middle of a question has given it up by then.
    let (pid, begun) = (instance.pid(), Instant::now());
    until("questions are given up", PATIENCE, || async { (begun.elapsed() > Duration::from_secs(6)).then_some(()) })
        .await;

    let (begun, before) = (Instant::now(), core_seconds(pid));
    until("it was watched", PATIENCE, || async { (begun.elapsed() > Duration::from_secs(8)).then_some(()) }).await;
    let share = (core_seconds(pid) - before) / begun.elapsed().as_secs_f64();

    println!("{:.1} % of a core while it waits", share * 100.0);
    assert!(share < 0.2, "{:.0} % of a core", share * 100.0);
}

/// Asks for a list again and again until it is told to stop, and counts the answers of a full pool.
async fn list_on(instance: &Instance, enough: &AtomicBool, busy: &AtomicUsize) {
    while !enough.load(Ordering::Relaxed) {
        let answer: Value = instance.get("/orders").await.json().await.unwrap();
        busy.fetch_add(usize::from(answer["code"] == "database_busy"), Ordering::Relaxed);
    }
}

/// Slow reads take every connection that readers have: they are busy, and nothing else is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn readers_who_take_all_connections_are_no_outage_of_the_database() {
    let world = World::new(1).await;
    let (pool, patience) = ("STREAMVIEW_DATABASE__READ_POOL_SIZE", "STREAMVIEW_DATABASE__READ_TIMEOUT_MS");
    let instance = world.start_with(&[(pool, "1"), (patience, "3000")]).await;
    world.publish([life("o-1", 1)[0].record()]).await;
    instance.order_at("o-1", 1).await;
    instance.until_running().await;
    let waits = || instance.log_text().matches("waiting_for_database").count();
    let before = waits();
    // Only lists read it now, each until it runs out of time.
    let other_session = connect(&world.database).await;
    other_session.batch_execute("begin; lock table orders_1.orders in access exclusive mode").await.unwrap();

    let (enough, busy) = (AtomicBool::new(false), AtomicUsize::new(0));
    let look = async {
        until("readers are refused", PATIENCE, || async { (busy.load(Ordering::Relaxed) > 10).then_some(()) }).await;
        // While they go on.
        let ready = instance.readiness().await;
        enough.store(true, Ordering::Relaxed);
        ready
    };
    let readers = join_all((0..8).map(|_| list_on(&instance, &enough, &busy)));
    let (ready, _) = tokio::join!(look, readers);

    let view = ready["checks"].as_array().unwrap().iter().find(|check| check["name"] == "view:orders").unwrap();
    assert_eq!(view["detail"], "running", "{ready}");
    assert_eq!(waits(), before, "{}", instance.log_text());
    other_session.batch_execute("rollback").await.unwrap();
    assert_eq!(instance.json("/orders").await["items"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_row_delays_its_batch_and_dead_letters_nothing() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let events = life("o-1", 3);
    world.publish([events[0].record()]).await;
    instance.order_at("o-1", 1).await;
    let other_session = connect(&world.database).await;
    other_session.batch_execute("begin; select * from orders_1.orders for update").await.unwrap();

    world.publish(events[1..].iter().map(TestEvent::record)).await;
    let reason = until_waiting(&instance, "waiting_for_database").await;
    assert!(reason.contains("55P03"), "{reason}");
    other_session.batch_execute("rollback").await.unwrap();

    instance.order_at("o-1", 3).await;
    instance.until_ready().await;
    assert_eq!(stored(&world).await, oracle(&events));
    assert_eq!(world.conservation().await, [3, 3, 0, 0, 0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_the_database_is_waited_for_and_dead_letters_nothing() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let events = life("o-1", 5);
    // Serialization failure, deadlock, disk full, shutdown, read-only after a failover.
    for (event, code) in events.iter().zip(["40001", "40P01", "53100", "57P01", "25006"]) {
        let fault = format!(
            "create function orders_1.fail() returns trigger language plpgsql as
               $$ begin raise exception 'a fault' using errcode = '{code}'; end $$;
             create trigger fault before insert on orders_1.ledger execute function orders_1.fail()"
        );
        world.sql.batch_execute(&fault).await.unwrap();
        world.publish([event.record()]).await;
        let reason = until_waiting(&instance, "waiting_for_database").await;
        assert!(reason.contains(code), "{reason}");

        world.sql.batch_execute("drop function orders_1.fail cascade").await.unwrap();
        instance.order_at("o-1", event.sequence).await;
        instance.until_ready().await;
    }
    assert_eq!(stored(&world).await, oracle(&events));
    assert_eq!(world.conservation().await, [5, 5, 0, 0, 0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_taken_away_halts_the_view_with_the_next_step() {
    let world = World::new(1).await;
    let role = format!("writer_{}", world.group.replace('.', "_"));
    let rights = format!(
        "create role {role} login;
         grant usage on schema orders_1 to {role};
         grant select, insert, update, delete on all tables in schema public, orders_1 to {role}"
    );
    world.sql.batch_execute(&rights).await.unwrap();
    let url = world.database.replacen("postgres://postgres", &format!("postgres://{role}"), 1);
    let settings = [("STREAMVIEW_DATABASE__URL", url.as_str())];
    let instance = world.start_with(&settings).await;
    let events = life("o-1", 2);
    world.publish([events[0].record()]).await;
    instance.order_at("o-1", 1).await;

    world.sql.batch_execute(&format!("revoke insert on orders_1.ledger from {role}")).await.unwrap();
    world.publish([events[1].record()]).await;

    instance.until_halted("permission_denied").await;
    let halt = &instance.json("/ops/consumer").await["views"][0]["halt"];
    assert!(halt["detail"].as_str().unwrap().contains("ledger"), "{halt}");
    assert!(halt["nextStep"].as_str().unwrap().contains("grant"), "{halt}");
    assert_eq!(world.conservation().await, [1, 1, 0, 0, 0, 0, 0]);
    // The next step helps.
    world.sql.batch_execute(&format!("grant insert on orders_1.ledger to {role}")).await.unwrap();
    drop(instance);
    world.start_with(&settings).await.order_at("o-1", 2).await;
    assert_eq!(world.conservation().await, [2, 2, 0, 0, 0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_dlq_topic_stops_nothing_and_gets_each_letter_once_when_it_appears() {
    let world = World::new(2).await;
    world.delete_topic(&world.dlq_topic).await;
    let load = Load::new("o", 100, 23);
    let instance = world.start().await;
    world.publish(load.records()).await;
    world.until_consumed(load.len()).await;
    let letters = letters_in_table(&world).await;
    assert!(letters.len() > 10);
    until("the letters that wait are counted", PATIENCE, || async {
        let waiting = instance.metric("streamview_dead_letters_unpublished", &[]).await;
        (waiting == letters.len() as f64).then_some(())
    })
    .await;
    until("the relay has failed once", PATIENCE, || async {
        instance.log_text().contains("dead letters wait in their table").then_some(())
    })
    .await;
    // Letters that wait make nobody unready: a busy database may, for a moment.
    instance.until_ready().await;

    world.create_topic(&world.dlq_topic, 1, &[]).await;

    load.assert_settled(&world).await;
    assert_eq!(letters_on_topic(&world), letters, "each letter once");
}

/// As long as Postgres is away at the start nobody is served, and nobody has a reason to start the process again.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_starts_without_postgres_lives_and_says_so_until_it_serves() {
    let mut postgres = servers::own_postgres();
    let world = World::on(&servers::shared().kafka, &postgres.url("postgres"), 1, &[]).await;
    world.publish(life("o-1", 3).iter().map(TestEvent::record)).await;
    postgres.kill_hard().unwrap();
    let (instance, other) = (world.launch(&[]), world.launch_command(&["serve", "--only", "api"], &[]));
    for starting in [&instance, &other] {
        let ready = until("readiness says why", PATIENCE, || async {
            let response = starting.http.get(starting.url("/readyz")).send().await.ok()?;
            assert_eq!(response.status().as_u16(), 503);
            let ready: Value = response.json().await.unwrap();
            ready.to_string().contains("Connection refused").then_some(ready)
        })
        .await;
        let names = ready["checks"].as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap());
        assert_eq!(names.collect::<Vec<_>>(), ["database", "view:orders"], "{ready}");
        assert_eq!(starting.json("/livez").await["status"], "ok");
        let state =
            async |state: &str| starting.metric("streamview_consumer_state", &[&format!("state=\"{state}\"")]).await;
        assert_eq!((state("waiting_for_database").await, state("running").await), (1.0, 0.0));
        for path in ["/", "/orders", "/ops/held", "/nobody/knows"] {
            assert_eq!(starting.refusal(path, 503).await["code"], "starting", "{path}");
        }
        assert_eq!(starting.post("/livez", &Value::Null).await.status().as_u16(), 405);
    }
    other.stop().await;

    postgres.restart().unwrap();
    instance.until_ready().await;
    instance.order_at("o-1", 3).await;
    instance.until_metric("streamview_consumer_state", &["state=\"running\""], 1.0).await;
    assert_eq!(instance.metric("streamview_consumer_state", &[]).await, 1.0, "what was shown before is gone");
    assert!(instance.get("/problems/starting").await.status().is_success());
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_while_postgres_is_away_exits_0_in_time() {
    let mut postgres = servers::own_postgres();
    let world = World::on(&servers::shared().kafka, &postgres.url("postgres"), 1, &[]).await;
    let instance = world.start().await;
    world.publish(life("o-1", 3).iter().map(TestEvent::record)).await;
    instance.order_at("o-1", 3).await;
    postgres.kill_hard().unwrap();
    world.publish(life("o-2", 3).iter().map(TestEvent::record)).await;
    until_waiting(&instance, "waiting_for_database").await;

    let begun = Instant::now();
    instance.signal("TERM");

    assert_eq!(instance.until_ended().await.code(), Some(0), "{}", instance.log_text());
    assert!(begun.elapsed() < DEADLINE, "{:?}", begun.elapsed());
}
