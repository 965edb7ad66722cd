//! A long drain: what waits behind one order, or behind many at once, holds up nobody else.

use serde_json::{Value, json};

use crate::support::orders::{TestEvent, created, item_added, life, oracle, stored};
use crate::support::world::World;
use crate::support::{PATIENCE, until};

/// As many events in a batch, and in one step of a drain.
const BATCH: i64 = 100;
const SMALL: [(&str, &str); 1] = [("STREAMVIEW_PROJECTOR__MAX_BATCH_EVENTS", "100")];
/// Parked behind one order: a hundred steps.
const PARKED: i64 = 100 * BATCH;

#[tokio::test(flavor = "multi_thread")]
async fn other_orders_of_the_partition_go_on_while_a_long_drain_does() {
    let world = World::new(1).await;
    let instance = world.start_with(&[("STREAMVIEW_PROJECTOR__MAX_PARKED_PER_KEY", "100000")]).await;
    let long = life("long", PARKED + 1);
    world.publish(long[1..].iter().map(|event| event.record())).await;
    world.until_consumed(PARKED).await;
    instance.stop().await;

    // Everything is in the log when the drain begins: the others are four batches or a few more, and come after a step each.
    let others = (0..4 * BATCH).map(|number| created(&format!("other-{number}")).record());
    world.publish(std::iter::once(created("long").record()).chain(others)).await;
    let instance = world.start_with(&SMALL).await;
    let order = instance.order_at("long", PARKED + 1).await;
    assert_eq!(order["held"], Value::Null);
    world.until_consumed(PARKED + 1 + 4 * BATCH).await;
    let last = async |which: &str| {
        world.number(&format!("select max(commit) from orders_1.ledger where key {which} 'long'")).await
    };
    let (others, long_ones) = (last("<>").await, last("=").await);
    assert!(others < long_ones, "the others were done with commit {others}, the drain with commit {long_ones}");

    let (stored, expected) = (stored(&world).await, oracle(&long));
    assert_eq!(stored["long"], expected["long"]);
    let [consumed, applied, rest @ ..] = world.conservation().await;
    assert_eq!((consumed, rest), (applied, [0; 5]));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_orders_that_are_decided_about_at_once_drain_in_steps_of_a_batch() {
    const ORDERS: i64 = 60;
    let world = World::new(1).await;
    let instance = world.start_with(&SMALL).await;
    let events = (0..ORDERS).flat_map(|number| {
        let order = format!("o-{number}");
        let later: Vec<_> = (3..23).map(|sequence| item_added(&order, sequence).record()).collect();
        std::iter::once(created(&order).record()).chain(later)
    });
    world.publish(events).await;
    world.until_consumed(ORDERS * 21).await;
    let skip = json!({ "reason": "lost", "filter": {}, "expect": ORDERS });
    instance.posted("/ops/held/skip", &skip, 202).await;
    until("nothing is held", PATIENCE, || async {
        (world.number("select count(*) from held_keys").await == 0).then_some(())
    })
    .await;

    let largest = "select max(events) from (select count(*) events from orders_1.ledger where effect <> 'skipped' \
                   group by commit_partition, commit) commits";
    let largest = world.number(largest).await;
    assert!(largest <= BATCH, "a commit has {largest} events");
    assert_eq!(world.conservation().await, [ORDERS * 21, ORDERS * 21, 0, 0, 0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_is_bounded_by_the_headers_of_what_it_loads_too() {
    let world = World::new(1).await;
    // Four batches' bytes are nine of these events. By their values alone, all of them.
    let instance = world.start_with(&[("STREAMVIEW_PROJECTOR__MAX_BATCH_BYTES", "50000")]).await;
    let heavy = |event: &TestEvent| {
        let mut record = event.record();
        record.headers.push(("baggage".to_owned(), vec![b'x'; 20_000]));
        record
    };
    let events = life("o-1", 41);
    world.publish(events[1..].iter().map(heavy)).await;
    world.until_consumed(40).await;
    assert!(world.number("select parked_bytes from held_keys").await > 40 * 20_000);
    world.publish([heavy(&events[0])]).await;
    assert_eq!(instance.order_at("o-1", 41).await["held"], Value::Null);

    let largest = "select max(events) from (select count(*) events from orders_1.ledger \
                   group by commit_partition, commit) commits";
    let largest = world.number(largest).await;
    assert!(largest <= 10, "a commit has {largest} events");
}

/// Events 1, 3, 4, 6 and then 2, in batches of two: what drains is cut off where the next gap begins.
pub fn cut_before_a_gap(order: &str) -> Vec<TestEvent> {
    let events = life(order, 6);
    [1, 3, 4, 6, 2].map(|sequence| events[sequence - 1].clone()).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_is_cut_before_the_next_gap_says_what_is_missing_there() {
    let world = World::new(1).await;
    let instance = world.start_with(&[("STREAMVIEW_PROJECTOR__MAX_BATCH_EVENTS", "2")]).await;
    let events = cut_before_a_gap("o-1");
    world.publish(events.iter().map(TestEvent::record)).await;
    instance.order_at("o-1", 4).await;
    let hold = until("the hold says that 5 alone is missing", PATIENCE, || async {
        let query = "select missing_from || ' to ' || missing_to || ', ' || parked_count from held_keys";
        let hold: String = world.row(query).await.get(0);
        (hold == "5 to 5, 1").then_some(hold)
    });
    hold.await;
    // What is decided about the whole gap is within reach.
    instance.posted("/ops/held/o-1/skip", &json!({ "reason": "lost", "from": 5, "to": 5 }), 202).await;
    assert_eq!(instance.order_at("o-1", 6).await["held"], Value::Null);
}
