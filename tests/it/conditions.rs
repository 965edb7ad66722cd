//! What a view says of itself while something is away: the same at every look, until it is over.

use std::collections::BTreeSet;
use std::sync::Mutex;

use serde_json::Value;

use crate::support::instance::Instance;
use crate::support::orders::{TestEvent, life, oracle, stored};
use crate::support::servers::execute;
use crate::support::world::World;
use crate::support::{PATIENCE, until};

/// The line that is logged once for each change into a waiting state.
const WARNING: &str = "view waits, partitions are kept";
/// Rounds of the observer that an outage has to outlast: each used to end what the lanes had said. They are counted by
/// what it observes of the log; where it observes nothing, so many looks are as long.
const ROUNDS: usize = 8;
const LOOKS: usize = 250;

/// What `/readyz` and `/ops/consumer` say of the orders view at one moment.
#[derive(Debug, Clone, PartialEq)]
struct Look {
    ready: bool,
    detail: String,
    state: String,
    reason: String,
    since: String,
}

async fn look(instance: &Instance) -> Look {
    let response = instance.get("/readyz").await;
    let ready = response.status().is_success();
    let body: Value = response.json().await.unwrap();
    let check = body["checks"].as_array().unwrap().iter().find(|check| check["name"] == "view:orders").unwrap();
    let consumer = &instance.json("/ops/consumer").await["views"][0];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Look {
        ready,
        detail: text(&check["detail"]),
        state: text(&consumer["state"]),
        reason: text(&consumer["reason"]),
        since: text(&consumer["since"]),
    }
}

async fn until_state(instance: &Instance, state: &str) -> Look {
    until(&format!("the view is {state}"), PATIENCE, || async {
        let seen = look(instance).await;
        (seen.state == state && seen.detail.starts_with(state)).then_some(seen)
    })
    .await
}

/// Looks again and again, until the observer has been round often enough: every look is like the first one, and its
/// reason holds `words`.
pub async fn assert_steady(instance: &Instance, state: &str, words: &str) {
    let first = until_state(instance, state).await;
    let (rounds, looks) = (Mutex::new(BTreeSet::new()), Mutex::new(0));
    until("the observer has been round often enough", PATIENCE, || async {
        let now = look(instance).await;
        assert_eq!((now.ready, &now.state, &now.since), (false, &first.state, &first.since), "{now:?}");
        assert!(now.detail.starts_with(&format!("{state}: ")), "{now:?}");
        assert!(now.reason.contains(words) && now.detail.contains(words), "{now:?}");
        for (name, shown) in [(state, 1.0), ("running", 0.0)] {
            let label = format!("state=\"{name}\"");
            assert_eq!(instance.metric("streamview_consumer_state", &[&label]).await, shown, "{name}");
        }
        let observed = instance.json("/ops/lags").await["observedAt"].clone();
        let (mut rounds, mut looks) = (rounds.lock().unwrap(), looks.lock().unwrap());
        rounds.insert(observed.to_string());
        *looks += 1;
        // Where the log cannot be observed, the same is shown at every look.
        let is_enough = if rounds.len() == 1 { *looks > LOOKS } else { rounds.len() > ROUNDS };
        is_enough.then_some(())
    })
    .await;
    println!("{state} ({words}): {} looks, all alike", looks.lock().unwrap());
}

fn warnings(instance: &Instance) -> usize {
    instance.log_text().matches(WARNING).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stays_visible_while_reads_work() {
    let world = World::new(2).await;
    let instance = world.start().await;
    let events = life("o-1", 4);
    world.publish([events[0].record()]).await;
    instance.order_at("o-1", 1).await;
    let before = warnings(&instance);
    // Every batch writes there, and nothing else does.
    let full = "create function refuse() returns trigger language plpgsql as
                  $$ begin raise exception 'could not extend file: No space left on device' using errcode = '53100'; end $$;
                create trigger full_disk before insert or update on projection_progress
                  for each row execute function refuse()";
    world.sql.batch_execute(full).await.unwrap();

    world.publish(events[1..].iter().map(TestEvent::record)).await;
    assert_steady(&instance, "waiting_for_database", "No space left on device (SQLSTATE 53100)").await;

    assert_eq!(warnings(&instance) - before, 1, "{}", instance.log_text());
    assert_eq!(stored(&world).await, oracle(&events[..1]));
    world.sql.batch_execute("drop function refuse cascade").await.unwrap();
    instance.order_at("o-1", 4).await;
    instance.until_ready().await;
    assert_eq!(stored(&world).await, oracle(&events));
    assert_eq!(world.conservation().await, [4, 4, 0, 0, 0, 0, 0]);
    assert_eq!(warnings(&instance) - before, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_postgres_stays_visible_while_reads_work() {
    let world = World::new(2).await;
    let instance = world.start().await;
    let events = life("o-1", 4);
    world.publish([events[0].record()]).await;
    instance.order_at("o-1", 1).await;
    let before = warnings(&instance);
    // As after a failover to a standby: sessions are cut, and new ones may read.
    let (_, name) = world.database.rsplit_once('/').unwrap();
    let cut = format!(
        "select pg_terminate_backend(pid) from pg_stat_activity
         where datname = '{name}' and application_name = 'streamview-projector'"
    );
    world.sql.batch_execute(&format!("alter database {name} set default_transaction_read_only = on")).await.unwrap();
    world.sql.batch_execute(&cut).await.unwrap();

    world.publish(events[1..].iter().map(TestEvent::record)).await;
    until("a lane or the keeper meets it", PATIENCE, || async {
        look(&instance).await.reason.contains("25006").then_some(())
    })
    .await;
    assert_steady(&instance, "waiting_for_database", "read-only transaction (SQLSTATE 25006)").await;

    // One for the cut sessions at most, if that is seen by itself, and one for what new ones are told.
    let told = instance.log_text().lines().filter(|line| line.contains(WARNING) && line.contains("25006")).count();
    let all = warnings(&instance) - before;
    assert_eq!((told, all <= 2), (1, true), "{}", instance.log_text());
    let words =
        "they wait in their table: cannot execute SELECT FOR UPDATE in a read-only transaction (SQLSTATE 25006)";
    until("the relay says why in the cause's own words", PATIENCE, || async {
        instance.get("/readyz").await.text().await.unwrap().contains(words).then_some(())
    })
    .await;
    let maintenance = format!("{}/postgres", world.database.rsplit_once('/').unwrap().0);
    execute(&maintenance, &format!("alter database {name} reset default_transaction_read_only")).await;
    // Nobody cuts the sessions that were told so when they began: whoever meets it again takes a new one.
    instance.order_at("o-1", 4).await;
    instance.until_ready().await;
    assert_eq!(stored(&world).await, oracle(&events));
    assert_eq!(world.conservation().await, [4, 4, 0, 0, 0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_stays_visible_until_it_is_created() {
    let world = World::new(1).await;
    world.delete_topic(&world.topic).await;
    let instance = world.launch(&[]);
    instance.until_serving().await;

    assert_steady(&instance, "waiting_for_kafka", &format!("topic {} does not exist", world.topic)).await;

    assert_eq!(warnings(&instance), 1, "{}", instance.log_text());
    world.create_topic(&world.topic, 1, &[]).await;
    instance.until_ready().await;
    world.publish(life("o-1", 3).iter().map(TestEvent::record)).await;
    instance.order_at("o-1", 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_only_the_keeper_needs_halts_the_view_when_it_is_taken_away() {
    let world = World::new(1).await;
    let role = format!("keeper_{}", world.group.replace('.', "_"));
    let rights = format!(
        "create role {role} login;
         grant usage on schema orders_1 to {role};
         grant select, insert, update, delete on all tables in schema public, orders_1 to {role}"
    );
    world.sql.batch_execute(&rights).await.unwrap();
    let url = world.database.replacen("postgres://postgres", &format!("postgres://{role}"), 1);
    let instance = world.start_with(&[("STREAMVIEW_DATABASE__URL", url.as_str())]).await;
    world.publish(life("o-1", 1).iter().map(TestEvent::record)).await;
    instance.order_at("o-1", 1).await;

    world.sql.batch_execute(&format!("revoke select on event_decisions from {role}")).await.unwrap();

    instance.until_halted("permission_denied").await;
    let halt = &instance.json("/ops/consumer").await["views"][0]["halt"];
    assert!(halt["detail"].as_str().unwrap().contains("event_decisions"), "{halt}");
    assert!(halt["nextStep"].as_str().unwrap().contains("grant"), "{halt}");
}
