//! A long drain: what waits behind one order holds up nobody else.

use serde_json::Value;

use crate::support::orders::{created, life, oracle, stored};
use crate::support::world::World;
use crate::support::{PATIENCE, until};

/// Parked behind one order: ten times what is drained in one transaction.
const PARKED: i64 = 20_000;

#[tokio::test(flavor = "multi_thread")]
async fn other_orders_of_the_partition_go_on_while_a_long_drain_does() {
    let world = World::new(1).await;
    let instance = world.start_with(&[("STREAMVIEW_PROJECTOR__MAX_PARKED_PER_KEY", "100000")]).await;
    let long = life("long", PARKED + 1);
    world.publish(long[1..].iter().map(|event| event.record())).await;
    world.until_consumed(PARKED).await;

    world.publish([created("long").record()]).await;
    let parked = "select coalesce(sum(parked_count), 0) from held_keys";
    until("the drain begins", PATIENCE, || async { (world.number(parked).await < PARKED).then_some(()) }).await;
    let mut served = Vec::new();
    for number in 0..1_000 {
        let order = format!("other-{number}");
        world.publish([created(&order).record()]).await;
        instance.order_at(&order, 1).await;
        match world.number(parked).await {
            0 => break,
            left => served.push(left),
        }
    }
    // Each one waits for two steps at most, of ten; the first of those is under way when the drain is seen.
    assert!(served.len() >= 3, "orders that were served meanwhile, by what was parked: {served:?}");

    let order = instance.order_at("long", PARKED + 1).await;
    assert_eq!(order["held"], Value::Null);
    let (stored, expected) = (stored(&world).await, oracle(&long));
    assert_eq!(stored["long"], expected["long"]);
    let [consumed, applied, rest @ ..] = world.conservation().await;
    assert_eq!((consumed, rest), (applied, [0; 5]));
}
