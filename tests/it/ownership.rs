//! Who may write: sleepers that wake, instances that come and go, keys that move to another partition.

use futures_util::future::join_all;

use crate::support::instance::Instance;
use crate::support::load::Load;
use crate::support::orders::{TestEvent, created, item_added, life, oracle, status_changed, stored};
use crate::support::world::World;
use crate::support::{PATIENCE, until};

const SMALL_BATCHES: (&str, &str) = ("STREAMVIEW_PROJECTOR__MAX_BATCH_EVENTS", "20");

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_that_wakes_inside_a_batch_writes_nothing_and_works_again_as_a_member() {
    // Where it sleeps, and for how long Postgres lets its open transaction hold locks: less and more than the 6 s
    // after which the group gives its partitions to somebody else.
    let naps = [("batch.folded", "3000"), ("commit.fenced", "3000"), ("commit.identity_confirmed", "8000")];
    join_all(naps.map(|(point, lock_patience)| sleep_and_wake(point, lock_patience))).await;
}

async fn sleep_and_wake(point: &str, lock_patience: &str) {
    let world = World::new(3).await;
    let load = Load::new("o", 60, 11);
    let records = load.records();
    let third = records.len() / 3;
    // One lane: the sleeping batch alone meets the fence, no neighbour whose connection was cut meanwhile.
    let one_lane = ("STREAMVIEW_PROJECTOR__LANES", "1");
    let settings = [SMALL_BATCHES, one_lane, ("STREAMVIEW_DATABASE__WRITE_TIMEOUT_MS", lock_patience)];
    world.publish(records[..third].to_vec()).await;
    let stop = ("STREAMVIEW_STOP_AT", format!("{point}:3"));
    let zombie = world.launch(&[&settings[..], &[(stop.0, &stop.1)]].concat());
    zombie.until_stopped().await;
    assert!(world.consumed().await < third as i64, "it sleeps in the middle of its load");

    let taker = world.start_with(&settings).await;
    world.publish(records[third..2 * third].to_vec()).await;
    world.until_consumed(2 * third as i64).await;
    world.until_published().await;
    let before = row_versions(&world).await;
    let positions = world.conservation().await;
    zombie.signal("CONT");
    until(&format!("the zombie of {point} is a member again: {}", zombie.log_text()), PATIENCE, || async {
        (partitions_of(&world, &zombie).await > 0).then_some(())
    })
    .await;

    assert_eq!(row_versions(&world).await, before, "{point}: nothing was written");
    assert_eq!(world.conservation().await, positions);
    if point == "batch.folded" {
        assert!(zombie.metric("streamview_fenced_total", &[]).await >= 1.0, "its batch met the fence");
    }
    assert_eq!(taker.metric("streamview_fenced_total", &[]).await, 0.0, "{point}: nobody disturbed the new owner");
    world.publish(records[2 * third..].to_vec()).await;
    load.assert_settled_after_a_sleep(&world).await;
    until(&format!("the zombie of {point} works again"), PATIENCE, || async {
        (zombie.metric("streamview_records_consumed_total", &[]).await > 0.0).then_some(())
    })
    .await;
}

/// Version of every row that a batch writes, except progress. Of holds what a batch writes: a keeper writes there, too.
async fn row_versions(world: &World) -> Vec<(String, String)> {
    let query = "
        select 'order ' || order_id, xmin::text from orders_1.orders
        union all select 'item ' || order_id || line_no, xmin::text from orders_1.order_items
        union all select 'event ' || key || sequence, xmin::text from orders_1.ledger
        union all select 'held ' || key, concat(missing_from, ' ', parked_count, ' ', refused) from held_keys
        union all select 'parked ' || key || sequence, xmin::text from parked_events
        union all select 'letter ' || partition || ' ' || \"offset\", xmin::text from dead_letters
        order by 1";
    world.sql.query(query, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// How many partitions the instance has taken over last.
async fn partitions_of(world: &World, instance: &Instance) -> i64 {
    world.number(&format!("select count(*) from projection_progress where owner like '%-{}'", instance.pid())).await
}

async fn until_member(world: &World, instance: &Instance) {
    until("the instance has partitions", PATIENCE, || async {
        assert!(instance.exit_status().is_none(), "the instance has ended: {}", instance.log_text());
        (partitions_of(world, instance).await > 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_join_and_leave_under_load_lose_and_repeat_nothing() {
    let world = World::new(6).await;
    let load = Load::new("o", 1_500, 5);
    let records = load.records();
    let publishing = async {
        // Always some backlog, so that every change happens under load.
        let mut published = 0;
        for chunk in records.chunks(50) {
            world.publish(chunk.to_vec()).await;
            published += chunk.len() as i64;
            until("the backlog is small", PATIENCE, || async {
                (published - world.consumed().await < 200).then_some(())
            })
            .await;
        }
    };
    let changing = async {
        let join = || async {
            let instance = world.launch(&[SMALL_BATCHES]);
            until_member(&world, &instance).await;
            instance
        };
        let first = join().await;
        let second = join().await;
        let third = join().await;
        second.signal("TERM");
        assert_eq!(second.until_ended().await.code(), Some(0));
        first.kill_hard();
        let fourth = join().await;
        third.signal("TERM");
        assert_eq!(third.until_ended().await.code(), Some(0));
        let fifth = join().await;
        println!("{} of {} records consumed when the last change is done", world.consumed().await, load.len());
        (fourth, fifth)
    };
    let ((), _instances) = tokio::join!(publishing, changing);
    load.assert_settled(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_move_to_new_partitions_still_fold_in_order() {
    const ORDERS: usize = 40;
    let mut world = World::new(2).await;
    let lives: Vec<Vec<TestEvent>> = (0..ORDERS).map(|number| life(&format!("o-{number}"), 9)).collect();
    // The first part of each life on two partitions, the rest and copies of its first part on five.
    let at = |sequences: std::ops::Range<usize>| -> Vec<_> {
        sequences.flat_map(|index| lives.iter().map(move |events| events[index].record())).collect()
    };
    let _first = world.start_with(&[SMALL_BATCHES]).await;
    world.publish(at(0..3)).await;
    world.until_consumed(3 * ORDERS as i64).await;
    world.grow_topic(5).await;
    let records: Vec<_> = [at(3..5), at(0..5), at(5..9)].concat();
    let (before, after) = records.split_at(records.len() / 2);
    world.publish(before.to_vec()).await;
    // The group hears of the new partitions when somebody joins (or when its leader looks again, every 30 s).
    let _second = world.start_with(&[SMALL_BATCHES]).await;
    world.publish(after.to_vec()).await;

    world.until_consumed(14 * ORDERS as i64).await;
    until("no order is held", PATIENCE, || async {
        (world.number("select count(*) from held_keys").await == 0).then_some(())
    })
    .await;
    assert_eq!(stored(&world).await, oracle(lives.iter().flatten()));
    let [consumed, applied, duplicate, late, rest @ ..] = world.conservation().await;
    assert_eq!((consumed, applied, rest), (14 * ORDERS as i64, 9 * ORDERS as i64, [0; 3]));
    assert_eq!(duplicate + late, 5 * ORDERS as i64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebalance_at_the_end_of_the_log_skips_no_record() {
    let world = World::new(4).await;
    let instance = world.start().await;
    let lives: Vec<Vec<TestEvent>> = (0..20).map(|number| life(&format!("o-{number}"), 8)).collect();
    let first: Vec<_> = lives.iter().flat_map(|events| &events[..4]).map(TestEvent::record).collect();
    let rest: Vec<_> = lives.iter().flat_map(|events| &events[4..]).map(TestEvent::record).collect();
    world.publish(first).await;
    world.until_consumed(80).await;

    let other = world.launch(&[]);
    until_member(&world, &other).await;
    world.publish(rest).await;

    world.until_consumed(160).await;
    assert_eq!(stored(&world).await, oracle(lives.iter().flatten()));
    drop(instance);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_on_another_partition_does_not_hold_its_order() {
    let world = World::new(2).await;
    let instance = world.start().await;
    let events = [created("o-1"), item_added("o-1", 2), status_changed("o-1", 3, "Paid")];
    let on = |partition: i32, event: &TestEvent| {
        let mut record = event.record();
        record.partition = Some(partition);
        record
    };
    // The lane of partition 1 gets to know the order at sequence 1; it then moves on partition 0.
    world.publish([on(0, &events[0])]).await;
    instance.order_at("o-1", 1).await;
    world.publish([on(1, &events[0])]).await;
    world.until_consumed(2).await;
    world.publish([on(0, &events[1]), on(0, &events[2])]).await;
    instance.order_at("o-1", 3).await;

    world.publish([on(1, &events[2])]).await;
    world.until_consumed(5).await;

    until("the copy is recognised", PATIENCE, || async { (world.conservation().await[5] == 0).then_some(()) }).await;
    assert_eq!(instance.json("/orders/o-1").await["held"], serde_json::Value::Null);
    assert_eq!(world.number("select count(*) from parked_events").await, 0);
    assert_eq!(stored(&world).await, oracle(&events));
    let [consumed, applied, duplicate, late, rest @ ..] = world.conservation().await;
    assert_eq!((consumed, applied, duplicate + late, rest), (5, 3, 2, [0; 3]));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_parked_from_two_partitions_all_drain() {
    let world = World::new(2).await;
    let instance = world.start().await;
    let events = life("o-1", 4);
    let on = |partition: i32, event: &TestEvent| {
        let mut record = event.record();
        record.partition = Some(partition);
        record
    };
    // Both lanes know the order at sequence 1; neither knows what the other parks.
    world.publish([on(0, &events[0])]).await;
    instance.order_at("o-1", 1).await;
    world.publish([on(1, &events[0])]).await;
    world.until_consumed(2).await;
    world.publish([on(1, &events[2])]).await;
    world.until_consumed(3).await;
    world.publish([on(0, &events[3])]).await;
    world.until_consumed(4).await;

    world.publish([on(0, &events[1])]).await;
    instance.order_at("o-1", 4).await;

    assert_eq!(instance.json("/orders/o-1").await["held"], serde_json::Value::Null);
    assert_eq!(world.conservation().await, [5, 4, 1, 0, 0, 0, 0]);
}

/// The hold of the only key that is held: from where to where numbers are missing, and how many events are parked.
async fn until_hold(world: &World, expected: &str) {
    let query = "select missing_from || ' to ' || missing_to || ', ' || parked_count from held_keys";
    until(&format!("the hold is {expected}"), PATIENCE, || async {
        let rows = world.sql.query(query, &[]).await.unwrap();
        rows.first().is_some_and(|row| row.get::<_, String>(0) == expected).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_one_lane_releases_while_another_one_parks_goes_on() {
    let world = World::new(2).await;
    let settings = ("STREAMVIEW_DATABASE__WRITE_TIMEOUT_MS", "60000");
    let instance = world.start_with(&[settings]).await;
    let events = life("o-1", 8);
    let on = |partition: i32, sequence: usize| events[sequence - 1].record_on(partition);
    world.publish([on(1, 1), on(1, 2), on(1, 4)]).await;
    world.until_consumed(3).await;

    // The lane of partition 0 has folded 3 and 4, and cannot commit yet; that of partition 1 parks another one.
    let lock = "begin; select from projection_progress where partition = 0 for update";
    world.sql.batch_execute(lock).await.unwrap();
    world.publish([on(0, 3)]).await;
    let waiting =
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    until("its commit waits", PATIENCE, || async { (world.number(waiting).await == 1).then_some(()) }).await;
    world.publish([on(1, 5)]).await;
    world.until_consumed(4).await;
    world.sql.batch_execute("rollback").await.unwrap();
    assert_eq!(instance.order_at("o-1", 5).await["held"], serde_json::Value::Null);

    // Both at the very same time leave no hold at all.
    world.publish([on(1, 7)]).await;
    until_hold(&world, "6 to 6, 1").await;
    world.sql.batch_execute("delete from held_keys").await.unwrap();
    until_hold(&world, "6 to 6, 1").await;

    // Somebody who does not know of it meets a copy.
    instance.stop().await;
    world.sql.batch_execute("delete from held_keys").await.unwrap();
    world.publish([on(1, 7), on(1, 8)]).await;
    let instance = world.start_with(&[settings]).await;
    world.until_consumed(8).await;
    until_hold(&world, "6 to 6, 2").await;
    world.publish([on(0, 6)]).await;
    instance.order_at("o-1", 8).await;
    until("nothing is held", PATIENCE, || async {
        (world.number("select count(*) from held_keys").await == 0).then_some(())
    })
    .await;
    assert_eq!(world.conservation().await, [9, 8, 1, 0, 0, 0, 0]);
    assert_eq!(stored(&world).await, oracle(&events));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_lane_has_consumed_is_not_missing() {
    let world = World::new(2).await;
    let instance = world.start().await;
    let events = life("o-1", 6);
    let on = |partition: i32, sequence: usize| events[sequence - 1].record_on(partition);
    world.publish([on(1, 1), on(1, 2)]).await;
    world.until_consumed(2).await;
    world.publish([on(0, 3), on(0, 4)]).await;
    world.until_consumed(4).await;
    // This lane knows the order at 2.
    world.publish([on(1, 6)]).await;
    until_hold(&world, "5 to 5, 1").await;
    let skip = serde_json::json!({ "reason": "lost", "from": 3, "to": 3 });
    assert_eq!(instance.posted("/ops/held/o-1/skip", &skip, 409).await["code"], "already_consumed");
    world.publish([on(0, 5)]).await;
    assert_eq!(instance.order_at("o-1", 6).await["held"], serde_json::Value::Null);
    assert_eq!(stored(&world).await, oracle(&events));
}
